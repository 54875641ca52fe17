"""Which runs are taken over, and which are left alone."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import exoflow
from exoflow import flow, settings, task
from exoflow.adoption import Adoption
from exoflow.driver.runtime import Runtime
from exoflow.journal import journal, takeover
from exoflow.storage import LocalStore, MemoryStore


@task(effect="irrevocable")
def charge(x: int) -> int:
    raise OSError("the line is dead")


@flow
def double(x: int) -> int:
    return 2 * x


@flow
def fail(x: int) -> None:
    raise ValueError(x)


@flow
def doubt(x: int) -> int:
    return charge(x)


@flow
def other(x: int) -> int:
    return x


SERVED: Any = {each.name: each._spec for each in (double, fail, doubt)}
Leave = Callable[..., Runtime]


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(str(tmp_path / "store"))


@pytest.fixture
def leave(store: LocalStore) -> Leave:
    """Begin a run as another process would, which then lives, or ends in good order."""

    def left(flow: Any, run_id: str | None = None, *, run: bool = False, lives: bool = False) -> Runtime:
        own = LocalStore(store.root)
        runtime, executors = Runtime(own), settings.Executors(own)
        execution = runtime.begin(
            flow._spec, (1,), {}, run_id=run_id, labels={}, executor=executors("local"), executors=executors,
            cwd=os.getcwd(),
        )  # fmt: skip
        if run:
            with pytest.raises((ValueError, exoflow.InDoubt)):
                execution.run()
        runtime.journal.flush()
        if not lives:
            runtime.close()
        return runtime

    return left


def look(adoption: Adoption, most: int = 100) -> dict[str, object]:
    return {execution.run_id: execution.run() for execution in adoption.look(most)}


def test_runs_of_dead_processes_are_taken_over_and_ended(store: LocalStore, leave: Leave) -> None:
    leave(double, "mine")
    leave(double)
    adoption = Adoption(store, SERVED)
    found = look(adoption)
    assert len(found) == 2 and set(found.values()) == {2} and "mine" in found
    assert look(adoption) == look(Adoption(store, SERVED)) == {} and adoption.left == 0


def test_a_run_whose_process_lives_is_left_until_it_is_dead(store: LocalStore, leave: Leave) -> None:
    runtime = leave(double, "mine", lives=True)
    adoption = Adoption(store, SERVED)
    assert look(adoption) == {}
    runtime.close()
    assert look(adoption) == {"mine": 2}


def test_runs_of_other_flows_and_failed_ones_are_left_alone(store: LocalStore, leave: Leave) -> None:
    leave(other, "other")
    leave(fail, "failed", run=True)
    adoption = Adoption(store, SERVED)
    assert look(adoption) == {} and adoption.left == 0


def test_no_more_are_taken_than_there_is_room_for(store: LocalStore, leave: Leave) -> None:
    for number in range(3):
        leave(double, f"run-{number}")
    adoption = Adoption(store, SERVED)
    assert look(adoption, 0) == {} and adoption.left == 3
    assert [len(look(adoption, 2)) for _ in range(3)] == [2, 1, 0]


@pytest.mark.parametrize("what", ["resolve", "cancel"])
def test_a_run_in_doubt_is_left_until_somebody_says_what_happened(store: LocalStore, leave: Leave, what: str) -> None:
    leave(doubt, "mine", run=True)
    adoption = Adoption(store, SERVED)
    assert look(adoption) == look(adoption) == {}
    if what == "cancel":
        with pytest.raises(exoflow.InDoubt, match="exoflow resolve mine"):
            exoflow.cancel("mine", store=store)
        assert look(adoption) == {}
    exoflow.resolve("mine", "charge#0", exoflow.Happened(7), store=store)
    if what == "resolve":
        assert look(adoption) == {"mine": 7}
    else:
        exoflow.cancel("mine", store=store)
        with pytest.raises(exoflow.RunCancelled):
            look(adoption)
    assert look(adoption) == {}


def test_a_run_that_cannot_be_gone_on_with_does_not_keep_the_others(
    store: LocalStore, leave: Leave, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave(double, "broken")
    leave(double, "whole")
    adopt = exoflow.adoption.adopt

    def adopted(run_id: str, *rest: Any) -> Any:
        if run_id == "broken":
            raise LookupError("its code is gone")
        return adopt(run_id, *rest)

    monkeypatch.setattr("exoflow.adoption.adopt", adopted)
    adoption = Adoption(store, SERVED)
    assert look(adoption) == {"whole": 2}
    assert "broken cannot be gone on with: its code is gone" in caplog.text
    assert look(adoption) == {}


class CountingBucket(MemoryStore):
    """What an object store is to the journal: shared, without locks."""

    shared = True

    def __init__(self) -> None:
        super().__init__("memory://counting")
        self.reads: Counter[str] = Counter()

    def read(self, name: str) -> memoryview:
        self.reads[name] += 1
        return super().read(name)


def test_in_a_bucket_an_idle_owner_is_read_once_and_what_it_begins_later_is_adopted_when_it_dies(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(journal, "BEAT_S", 1_000.0)  # the owner never says that it lives
    store = CountingBucket()
    owner, executors = Runtime(store), settings.Executors(store)

    def begin(run_id: str) -> Any:
        local = executors("local")
        execution = owner.begin(
            double._spec, (1,), {}, run_id=run_id, labels={}, executor=local, executors=executors, cwd=os.getcwd()
        )
        owner.journal.flush()
        return execution

    for n in range(5):
        assert begin(f"early-{n}").run() == 2
    monkeypatch.setattr(takeover, "BEAT_S", 0.01)
    adoption, name = Adoption(store, SERVED), owner.journal.name
    while name not in adoption._read_to:
        assert look(adoption) == {}
    seen = store.reads.copy()
    for _ in range(20):
        assert look(adoption) == {}
    assert store.reads == seen
    begin("late")
    found: dict[str, object] = {}
    while not found:
        found = look(adoption)
    assert found == {"late": 2}
    assert store.reads[f"journals/{name}/0"] <= seen[f"journals/{name}/0"] + 3, "to find the run, and to take it"
    owner.close()
