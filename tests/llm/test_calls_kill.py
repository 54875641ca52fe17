"""Flows that call a model, killed wherever a call can be: what was recorded is never called again."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
from collections import Counter
from pathlib import Path

import pytest

from exoflow.testing import Asked, FakeEndpoint, Reply

PROGRAM = """
    import json, os, signal, sys
    from exoflow import flow
    from exoflow.llm import LLM, Prices
    from exoflow.llm.fair.scheduler import FairScheduler, Tenant

    def die_if(boundary, number):
        if os.environ["DIES"] == f"{boundary} {number}":
            os.kill(os.getpid(), signal.SIGKILL)

    class Dying:
        name = "dying"

        # A scheduler sees a call before it is sent, and when its answer has come.
        def fold(self, run, call, labels, usage, nano_usd):
            pass

        async def admit(self, ask):
            self.number = int(ask.call.rpartition("#")[2])
            die_if("reserved", self.number)
            return self

        def charge(self, tokens):
            die_if("half", self.number)

        def settle(self, usage, nano_usd, *, keeps_slot):
            die_if("answered", self.number)

        def release(self):
            pass

    def told(so_far):
        pass

    def llm(scheduler=None):
        return LLM(os.environ["URL"], model="fake", prices=Prices(1, 1), max_tokens=20, scheduler=scheduler)

    @flow
    def chain(count):
        model, answers = llm(Dying()), []
        for number in range(count):
            asked = model.options(on_text=told) if os.environ["DIES"].startswith("half") else model
            answers.append(asked(f"question {number}"))
            die_if("done", number)
        return [[answer.text, answer.nano_usd, answer.maybe_rebilled] for answer in answers]

    fair = FairScheduler(slots=8, tenants={"acme": Tenant(budget_usd=1)}, name="fair")

    @flow
    def many(count):
        ours, theirs = llm(fair), llm(fair).options(labels={"tenant": "other"})
        half = count // 2
        questions = [f"question {number}" for number in range(count)]
        answers = [*ours.map(questions[:half]).result(), *theirs.map(questions[half:]).result()]
        return [[answer.text, answer.nano_usd, answer.maybe_rebilled] for answer in answers]

    @flow
    def waiting(count):
        few = LLM(os.environ["URL"], model="fake", prices=Prices(1, 1), max_tokens=20, max_in_flight=3)
        answers = few.map([f"question {number}" for number in range(count)]).result()
        return [[answer.text, answer.nano_usd, answer.maybe_rebilled] for answer in answers]

    if __name__ == "__main__":
        which = {"chain": chain, "many": many, "waiting": waiting}[sys.argv[1]]
        found = which.options(run_id="r", store="store", labels={"tenant": "acme"}).run(int(sys.argv[2]))
        stats = {name: int(each.spent_usd * 10**9) for name, each in fair.stats().items()}
        print(json.dumps([found, stats]))
"""


class Lives:
    """One run, in one process after another."""

    def __init__(self, folder: Path, flow: str, count: int) -> None:
        self.folder = folder
        self.command = [sys.executable, "program.py", flow, str(count)]
        (folder / "program.py").write_text(textwrap.dedent(PROGRAM))
        self.process: subprocess.Popen[str] | None = None
        self.spent: dict[str, int] = {}
        """By tenant, nano-dollars, as the last life's scheduler has it."""

    def live(self, url: str, dies: str = "") -> list[list[object]] | None:
        """What it returns; None: it was killed."""
        paths = [path for path in sys.path if path and os.path.isdir(path)]
        environment = os.environ | {"URL": url, "DIES": dies, "PYTHONPATH": os.pathsep.join(paths)}
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            self.command, cwd=self.folder, env=environment, stdout=pipe, stderr=pipe, text=True
        )
        out, errors = self.process.communicate(timeout=100)
        if self.process.returncode == -signal.SIGKILL:
            return None
        assert self.process.returncode == 0, errors
        found: list[list[object]]
        found, self.spent = json.loads(out)
        return found

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()

    def recorded(self) -> set[str]:
        """The keys of the calls whose answers are durable."""
        words = [
            sys.executable,
            "-c",
            "from exoflow.cli import main; main()",
            "show",
            "r",
            "--store",
            "store",
            "--json",
        ]
        shown = subprocess.run(words, cwd=self.folder, capture_output=True, text=True, timeout=100, check=True)
        calls = json.loads(shown.stdout)["calls"]
        return {
            f"r/{call['id']}"
            for call in calls
            if call["task"] == "llm" and any(each["saved"] for each in call["attempts"])
        }


def by_key(asked: Asked) -> str:
    """The same for a call, however often it is made."""
    return f"answer to {asked.key}"


@pytest.mark.parametrize(
    ("boundary", "in_doubt"),
    [
        ("reserved", 0),
        ("dispatched", 1),
        pytest.param("half", 1, marks=pytest.mark.big),
        pytest.param("answered", 1, marks=pytest.mark.big),
        ("done", 0),
    ],
)
def test_a_call_is_made_again_only_if_it_was_in_doubt(tmp_path: Path, boundary: str, in_doubt: int) -> None:
    count, lives = 3, Lives(tmp_path, "chain", 3)

    def answer(asked: Asked) -> str | Reply:
        if boundary == "dispatched" and asked.tries == 0:
            lives.kill()
            return Reply(hangs=True)
        return by_key(asked)

    with FakeEndpoint(answer) as endpoint:
        for number in range(count):
            assert lives.live(endpoint.url, f"{boundary} {number}") is None, "it was not killed"
        found = lives.live(endpoint.url)
        assert found is not None
        assert [text for text, *_ in found] == [f"answer to r/llm#{number}" for number in range(count)]
        assert [nano_usd for _, nano_usd, _ in found] == [(2 + 3) * 1000] * count
        assert [maybe_rebilled for *_, maybe_rebilled in found] == [bool(in_doubt)] * count
        assert Counter(asked.key for asked in endpoint.asked) == Counter(
            {f"r/llm#{number}": 1 + in_doubt for number in range(count)}
        )
        assert lives.live(endpoint.url) == found
        assert len(endpoint.asked) == count * (1 + in_doubt)


def test_calls_that_waited_for_their_turn_are_not_in_doubt(tmp_path: Path) -> None:
    lives, killed = Lives(tmp_path, "waiting", 100), threading.Event()

    def answer(asked: Asked) -> str | Reply:
        if asked.number >= 30 and not killed.is_set():
            killed.set()
            lives.kill()
        return by_key(asked)

    with FakeEndpoint(answer) as endpoint:
        assert lives.live(endpoint.url) is None
        found = lives.live(endpoint.url)
        assert found is not None
        again = {key for key, times in Counter(asked.key for asked in endpoint.asked).items() if times > 1}
        told = {f"r/llm#{number}" for number, (*_, maybe_rebilled) in enumerate(found) if maybe_rebilled}
    assert again <= told, "each is told"
    assert 0 < len(told) <= 3, "of all that waited none is in doubt"


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.big) for seed in range(1, 5))])
def test_calls_made_are_those_recorded_once_and_those_in_doubt(tmp_path: Path, seed: int) -> None:
    chance, count, lives = random.Random(seed), 40, Lives(tmp_path, "many", 40)
    dies_at = [0]

    def answer(asked: Asked) -> str | Reply:
        if asked.number == dies_at[0]:
            lives.kill()
        return Reply(by_key(asked), delay_s=chance.uniform(0, 0.02))

    with FakeEndpoint(answer) as endpoint:
        recorded: set[str] = set()
        for _ in range(4):
            made = len(endpoint.asked)
            dies_at[0] = made + chance.randrange(1, max(2, count - len(recorded)))
            found = lives.live(endpoint.url)
            assert not recorded & {asked.key for asked in endpoint.asked[made:]}
            recorded = lives.recorded()
        dies_at[0], made, keys = -1, len(endpoint.asked), {f"r/llm#{number}" for number in range(count)}
        found = lives.live(endpoint.url)
        assert found is not None
        assert [text for text, *_ in found] == [f"answer to r/llm#{number}" for number in range(count)]
        assert {asked.key for asked in endpoint.asked[made:]} == keys - recorded
        if keys - recorded:  # else nothing was asked of it
            assert lives.spent == {"acme": count // 2 * 5000, "other": count // 2 * 5000}
        assert set(endpoint.billed()) == keys
