"""Votes, killed with SIGKILL: what is recorded is never asked again, and the outcome is that of an undisturbed run.

The endpoint is a process of its own. It counts, and kills whoever asks it for the n-th time, at the request's arrival.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import textwrap
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from exoflow.journal import Journal, Kind
from exoflow.storage import LocalStore
from exoflow.testing import FakeEndpoint

ENDPOINT = """
    import hashlib, os, signal
    from pathlib import Path

    HERE = Path(__file__).parent

    def answer(asked):
        # The same for a call, however often it is made, and whatever is asked beside it.
        if (HERE / f"kill-{asked.number}").exists():
            os.kill(int((HERE / "pid").read_text()), signal.SIGKILL)
        digest = hashlib.sha256(asked.key.encode()).digest()
        return "A" if digest[0] < 150 else "B"
"""

PROGRAM = """
    import json, os, signal, sys
    from itertools import repeat
    from pathlib import Path

    from exoflow import flow
    from exoflow.llm import LLM, Margin, Prices, adaptive_vote, choice, filter_vote, vote

    HERE = Path(__file__).parent
    which, url, store, *sizes = sys.argv[1:]
    llm = LLM(url, model="fake", prices=Prices(usd_per_million_in=1, usd_per_million_out=1))

    def mortal(text):
        # A parser that does not survive the n-th text: each is parsed when its answer is durable.
        with open(HERE / "parsed", "a") as file:
            file.write("x")
        if (HERE / f"parse-{os.path.getsize(HERE / 'parsed')}").exists():
            os.kill(os.getpid(), signal.SIGKILL)
        return text

    async def passes(question, answer):
        return (await llm(prompt=f"is {answer} good?")).text == "A"

    @flow
    async def survey(items, k):
        votes = await vote.map(repeat(llm), [f"item {n}" for n in range(items)], k=k, parse=choice("AB"))
        return {
            "right": sum(each.answer == "A" for each in votes) / items,
            "margins": [each.margin for each in votes],
            "nano_usd": sum(each.nano_usd for each in votes),
        }

    def told(each):
        return {"answer": each.answer, "counts": each.counts, "nano_usd": each.nano_usd, "n_calls": each.n_calls}

    if __name__ == "__main__":
        (HERE / "pid").write_text(str(os.getpid()))
        if which == "survey":
            out = survey.options(run_id="run", store=store).start(*map(int, sizes)).result()
        elif which == "one by one":
            ask = adaptive_vote.options(run_id="run", store=store)
            out = told(ask.run(llm, "q", stop=Margin(99), max_k=int(sizes[0]), parallel=1, parse=mortal))
        elif which == "at once":
            out = told(vote.options(run_id="run", store=store).run(llm, "q", k=int(sizes[0])))
        else:
            out = told(filter_vote.options(run_id="run", store=store).run(llm, "q", k=int(sizes[0]), judge=passes))
        print(json.dumps(out))
"""


class Lives:
    """One run, in one process after another."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "endpoint_of_votes.py").write_text(textwrap.dedent(ENDPOINT))
        (folder / "program.py").write_text(textwrap.dedent(PROGRAM))
        self.endpoint: FakeEndpoint

    def live(self, which: str, *sizes: int, store: str = "store") -> dict[str, Any] | None:
        """What it printed; None if it was killed."""
        paths = [str(self.folder), *(path for path in sys.path if path and os.path.isdir(path))]
        done = subprocess.run(
            [sys.executable, "program.py", which, self.endpoint.url, store, *map(str, sizes)],
            cwd=self.folder,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        if done.returncode == -signal.SIGKILL:
            return None
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def kill_at(self, *requests: int) -> None:
        for request in requests:
            (self.folder / f"kill-{request}").touch()

    def recorded(self) -> int:
        """Answers that are durable."""
        records = Journal(LocalStore(str(self.folder / "store"))).find("run").records
        return len(
            {record[2] for record in records if record[0] == Kind.SAVED and "llm" in record[2].rpartition("/")[2]}
        )


@pytest.fixture
def lives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lives]:
    lives = Lives(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    with FakeEndpoint("endpoint_of_votes:answer", own_process=True) as endpoint:
        lives.endpoint = endpoint
        yield lives


def undisturbed(lives: Lives, which: str, *sizes: int) -> dict[str, Any]:
    """In another store, under the same run id: the calls have the same keys."""
    found = lives.live(which, *sizes, store="elsewhere")
    assert found is not None
    lives.endpoint.forget()
    return found


K = 3


def test_killed_at_each_request_a_vote_asks_for_what_is_missing_and_for_what_is_in_doubt(lives: Lives) -> None:
    whole = undisturbed(lives, "one by one", K)
    for j in range(K):
        lives.kill_at(2 * j)  # the number of requests grows by one in doubt each time
        assert lives.live("one by one", K) is None
        assert lives.recorded() == j
    found = lives.live("one by one", K)
    asked = Counter(each.key for each in lives.endpoint.asked)
    assert sorted(asked.values()) == [2] * K, "each was in doubt once"
    assert found == whole, "and each is counted, and paid for, once"


def test_killed_after_each_answer_a_vote_asks_for_exactly_what_is_missing(lives: Lives) -> None:
    whole = undisturbed(lives, "one by one", K)
    (lives.folder / "parsed").unlink()
    parsed = 0
    for j in range(1, K + 1):
        parsed += j  # a replay parses what is recorded again
        (lives.folder / f"parse-{parsed}").touch()
        assert lives.live("one by one", K) is None
        assert lives.recorded() == j == len(lives.endpoint.asked)
    assert lives.live("one by one", K) == whole
    assert set(lives.endpoint.billed().values()) == {1}
    assert len(lives.endpoint.asked) == K


@pytest.mark.parametrize("which", [pytest.param("at once", marks=pytest.mark.big), "filtered"])
def test_a_vote_whose_calls_are_all_under_way_asks_for_what_is_not_recorded(lives: Lives, which: str) -> None:
    k = 8
    whole = undisturbed(lives, which, k)
    calls = whole["n_calls"]
    doubtful = 0
    for request in (3, 11):
        lives.kill_at(request)
        assert lives.live(which, k) is None
        doubtful += len({each.key for each in lives.endpoint.asked}) - lives.recorded()
    assert lives.live(which, k) == whole
    assert len(lives.endpoint.asked) <= calls + doubtful
    assert len(lives.endpoint.billed()) == calls
    before = len(lives.endpoint.asked)
    assert lives.live(which, k) == whole
    assert len(lives.endpoint.asked) == before, "the same run again asks for nothing"


@pytest.mark.parametrize(
    ("items", "k", "kills"),
    [(30, 5, 3), pytest.param(1_000, 11, 20, marks=[pytest.mark.big, pytest.mark.timeout(1500)])],
)
def test_a_survey_killed_at_random_asks_no_more_than_was_in_flight(
    lives: Lives, items: int, k: int, kills: int
) -> None:
    whole = undisturbed(lives, "survey", items, k)
    chance = random.Random(20)
    doubtful = 0
    for _ in range(kills):
        lives.kill_at(len(lives.endpoint.asked) + chance.randrange(1, items * k // kills))
        assert lives.live("survey", items, k) is None
        doubtful += len({each.key for each in lives.endpoint.asked}) - lives.recorded()
    found = lives.live("survey", items, k)
    asked = lives.endpoint.asked
    assert len({each.key for each in asked}) == items * k
    assert len(asked) <= items * k + doubtful
    assert found == whole, "the same accuracy, margins and cost, to the last digit"
    print(f"{items} items × {k}: {kills} kills, {len(asked)} calls, {doubtful} were in doubt")
