"""kill -9 at every boundary of a paid call's states: nothing recorded is called again; what may be paid twice says so.

A counter outside of the store, in the file ``asked``, has a line for each time that somebody charged.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from exoflow.journal import Journal, Kind
from exoflow.model import Bill
from exoflow.storage import LocalStore

Place = Any

VOTE = """
import asyncio, json, os, sys

import exoflow
from exoflow import flow, hooks, paid, task

K = int(os.environ.get("K", "4"))


def write(path, *words):
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(fd, (json.dumps(words) + "\\n").encode())
    os.close(fd)


@task
async def question():
    return "which?"


@paid.paid_task()
async def ask(prompt, sample):
    hooks.reach("paid.begins")
    await paid.dispatching()
    hooks.reach("paid.sends")
    twice = paid.may_be_paid_twice()
    write("asked", f"{paid.job()}{sample}", twice, sorted(paid.bills_before()))
    hooks.reach("paid.asked")
    await asyncio.sleep(0)
    paid.tell_bill(paid.Bill(input_tokens=10, output_tokens=sample, nano_usd=1000, maybe_rebilled=twice))
    return f"{prompt} {sample % 2}"


@flow
async def vote(prompt):
    answers = await asyncio.gather(*(ask.options(key=f"sample-{n}")(prompt, n) for n in range(K)))
    return sorted(answers)


@flow
async def survey():
    prompt = await question()
    first = await vote(prompt)
    return [first, await ask(first[0], 100)]


if __name__ == "__main__":
    print(json.dumps(asyncio.run(survey.options(run_id="survey", store="store").run())), flush=True)
"""

K = 4
CALLS = {*(f"vote#0/{n}" for n in range(K)), "100"}
NOTHING_BETWEEN = ("slot.append.after", "journal.sync.before", "slot.sync.after", "journal.look.before")


def records(place: Place) -> list[tuple[Any, ...]]:
    return list(Journal(LocalStore(str(place.store))).find("survey").records) if place.store.exists() else []


def name_of(call: str) -> str:
    """As the body of the call writes it."""
    return call.replace("ask[sample-", "").removesuffix("]").replace("ask#0", "100")


def recorded(place: Place, kind: Kind) -> set[str]:
    return {name_of(record[2]) for record in records(place) if record[0] == kind and "ask" in record[2]}


def check(place: Place, out: str) -> None:
    """It was called as often as it had to be, and whoever may have paid twice was told so."""
    answers = sorted(f"which? {n % 2}" for n in range(K))
    assert json.loads(out) == [answers, f"{answers[0]} 0"]
    asked = place.lines("asked")
    assert {call for call, *_ in asked} == CALLS
    for call, times in Counter(call for call, *_ in asked).items():
        told = [twice for each, twice, _ in asked if each == call]
        assert all(told[1:]), f"{call} was made {times} times, and was not told"
    bills = [Bill(*record[20]) for record in records(place) if len(record) > 20]
    assert len(bills) == K + 1, "each is counted once"
    assert sum(bill.output_tokens for bill in bills) == 100 + sum(range(K))


def test_a_vote_killed_at_any_boundary_of_its_calls_makes_what_is_missing_and_tells_what_may_be_paid_twice(
    place: Callable[..., Place],
) -> None:
    points = [point for point in place("whole", VOTE).points() if not point.startswith(NOTHING_BETWEEN)]
    assert {
        "paid.begins",
        "paid.sends",
        "paid.asked",
        "slot.append.before",
        "slot.sync.before",
        "journal.acknowledged",
    } <= {point.partition(":")[0] for point in points}
    in_doubt = 0
    for point in points:
        here = place(point.replace(":", "-"), VOTE)
        life = here.live(fault=f"{point}:kill")
        done, dispatched = recorded(here, Kind.SAVED), recorded(here, Kind.INTENT)
        before = [call for call, *_ in here.lines("asked")]
        assert set(before) <= dispatched, "nothing is asked before it is durable that it is"
        doubtful = set(before) - done
        if life.killed:
            life = here.live()
        assert life.code == 0, life.err
        after = here.lines("asked")[len(before) :]
        assert not done & {call for call, *_ in after}, "what was recorded is not called again"
        assert len(before) + len(after) == len(CALLS) + len(doubtful), "and what was not, once"
        assert all({name_of(call) for call in bills} == done for _, _, bills in after), "what the run had cost"
        in_doubt += len(doubtful)
        check(here, life.out)
    assert in_doubt > K


def test_a_second_run_of_the_id_makes_no_call(place: Callable[..., Place]) -> None:
    here = place("here", VOTE)
    assert here.live().code == 0
    asked = here.lines("asked")
    check(here, here.live().out)
    assert here.lines("asked") == asked


def test_a_vote_killed_again_and_again_counts_each_answer_once(place: Callable[..., Place]) -> None:
    here = place("here", VOTE)
    deaths = 0
    for point in ("paid.asked:2", "journal.acknowledged:2", "paid.asked:1", "slot.sync.before:3", "paid.begins:2"):
        deaths += here.live(fault=f"{point}:kill").killed
    assert deaths >= 3
    check(here, here.live().out)


SLOW = """
    if sample == 2 and os.environ.get("SLEEPS"):
        write("sleeps", "now")
        while not os.path.exists("woken"):
            await asyncio.sleep(0.01)
        prompt = "a zombie's"
"""
ZOMBIE = VOTE.replace("    await asyncio.sleep(0)\n", SLOW).replace(
    "    print(json",
    """    if sys.argv[1:]:
        exoflow.resume("survey", store="store", takeover=True)
    print(json""",
)


def test_a_zombie_cannot_overwrite_a_call_that_is_done(place: Callable[..., Place]) -> None:
    here = place("here", ZOMBIE)
    command = [sys.executable, str(here.program)]
    with subprocess.Popen(
        command, cwd=here.folder, env={**os.environ, "SLEEPS": "1"}, stderr=subprocess.PIPE, text=True
    ) as zombie:
        try:
            until(here.folder / "sleeps", zombie)
            life = here.live("take over")
            assert life.code == 0, life.err
            check(here, life.out)
            (here.folder / "woken").touch()
            _, error = zombie.communicate()
        finally:
            zombie.kill()
    assert "Fenced" in error
    asked = here.lines("asked")
    check(here, here.live().out)
    assert here.lines("asked") == asked


def until(path: Path, process: subprocess.Popen[str]) -> None:
    """Wait for the file that a process is going to write."""
    while not path.exists():
        assert process.poll() is None, "it has ended before"
        time.sleep(0.01)
