"""What lies with a worker beyond what it can begin at once, and what becomes of it when a body kills its worker."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from exoflow import DidNotHappen, Happened, flow, gather, task
from exoflow.executors.dask import DaskExecutor, marks
from exoflow.executors.dask.entry import Entry
from exoflow.executors.dask.placing import Seat, nearest
from exoflow.executors.dask.worker import Place
from exoflow.model import CallId, RunId, version
from exoflow.protocols import Attempt

_serials = iter(range(1, 100))


def entry(*, number: int = 1, batchable: bool = True) -> Entry:
    attempt = Attempt(
        RunId("r"), CallId("a"), version(1, 1), number, "r/a", "a", entry, (), {}, {}, batchable=batchable
    )
    made = Entry(attempt, lambda _: None)
    made.serial = next(_serials)
    return made


@pytest.fixture
def seat() -> Seat:
    return Seat("tcp://there", Place("seat", 1, 0.0, threads=1, memory=1e9, resources={}, marks=""))


def goes_to(seat: Seat, what: Entry) -> bool:
    """Whether a short one does."""
    return nearest([seat], what, 0.001, lambda *_: False) is seat


def test_only_what_may_vanish_with_others_is_sent_ahead_of_its_turn(seat: Seat) -> None:
    assert goes_to(seat, entry(batchable=False))
    seat.take(entry())
    assert goes_to(seat, entry())
    assert not goes_to(seat, entry(batchable=False))


def test_nothing_lies_behind_an_attempt_that_was_tried_before(seat: Seat) -> None:
    again = entry(number=2, batchable=False)
    seat.take(again)
    assert not goes_to(seat, entry())
    seat.give_back(again)
    assert goes_to(seat, entry())


def test_marks_never_call_unbegun_what_has_begun() -> None:
    created = marks.made("of-a-test")
    assert created is not None
    there, path = created
    here = marks.found(path)
    assert here is not None
    assert marks.found(path) is None, "it is left behind"
    for serial in (7, 4096 + 9, 9):
        there.put(serial)
        assert here.has(serial)
    assert here.has(4096 + 9)
    assert not here.has(8)
    assert not here.has(4096 + 7)


@pytest.fixture(params=["here", "far"])
def executor(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[DaskExecutor]:
    """Of two workers, from which it can be told what has begun when they have died; or not."""
    if request.param == "far":
        monkeypatch.setattr(marks, "found", lambda _: None)
    executor = DaskExecutor(workers=2)
    yield executor
    executor.close()


def test_a_body_that_kills_its_worker_fails_alone(executor: DaskExecutor, tmp_path: Path) -> None:
    @task(losses=1)
    def part(n: int) -> int:
        if n == 50:
            os._exit(1)
        return n

    @flow(executor=executor)
    def fan() -> list[int]:
        results = gather(part.map(range(100)), return_exceptions=True).result()
        return [n for n, result in enumerate(results) if result != n]

    assert fan.options(store=tmp_path / "store").run() == [50]


def test_an_effect_is_in_doubt_only_if_it_has_begun(executor: DaskExecutor, tmp_path: Path) -> None:
    probed: list[int] = []

    def probe(key: str, n: int) -> Happened | DidNotHappen:
        probed.append(n)
        return Happened(n)

    @task(effect="irrevocable", on_doubt=probe)
    def charge(n: int) -> int:
        if n == 50:
            os._exit(1)
        return n

    @flow(executor=executor)
    def fan() -> int:
        for n in range(100, 120):
            charge(n)  # it is known to be short now
        return sum(charge.map(range(100)).result())

    assert fan.options(store=tmp_path / "store").run() == sum(range(100))
    assert probed == [50]
