"""Actors: the state goes from call to call."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from exoflow.attempts.actors import STATE, Creation, Method
from exoflow.codec import make_reference
from exoflow.model import CallId, Held, Stored, Value
from exoflow.protocols import ActorPart, Computed, Creating, Vanished
from exoflow.tasks import task
from exoflow.testing.executors.bench import Bench, OnBench
from exoflow.testing.executors.bodies import (
    LARGE,
    large,
    wait_for_line,
    waits,
)


class Tally:
    """An actor: counts, and says in which process."""

    def __init__(self, start: int) -> None:
        self.count = start
        self.zeros = bytearray(LARGE)

    @task
    def add(self, amount: int) -> tuple[int, int]:
        self.count += amount
        return self.count, os.getpid()

    @task
    async def add_later(self, amount: int) -> tuple[int, int]:
        return self.add(amount)

    @task
    def add_and_fail(self, amount: int) -> None:
        self.count += amount
        raise ArithmeticError(self.count)

    @task
    def add_when(self, amount: int, started: str, gate: str) -> int:
        self.count += amount
        waits(started, gate)
        return self.count


TALLY = CallId("tally#0")
HOLDER = CallId("holder#0")
LOST_STATE = (CallId(f"{HOLDER}{STATE}"),)


def with_state(state: Held | None, snapshot_to: str | None = None) -> ActorPart:
    assert state is not None
    return ActorPart(TALLY, HOLDER, state, snapshot_to=snapshot_to)


def from_snapshot(snapshot: Value) -> ActorPart:
    return ActorPart(TALLY, HOLDER, None, snapshot, Creating(Creation(Tally), (0,), {}, None))


class Actors(OnBench):
    """A state is given once, left where it is, and saved and restored."""

    # -- actors ----------------------------------------------------------------------------------------------------

    @pytest.fixture
    def actors(self, bench: Bench) -> Bench:
        if not self.has_actors:
            pytest.skip("it has no actors")
        return bench

    def test_a_state_is_left_and_given_to_the_next_attempt_where_it_is(self, actors: Bench) -> None:
        _, created = actors.act(Creation(Tally), 3, actor=ActorPart(TALLY))
        first, added = actors.act(Method(Tally, "add"), 4, actor=with_state(created.state))
        second, _ = actors.act(Method(Tally, "add_later"), 1, actor=with_state(added.state))
        assert (first[0], second[0]) == (7, 8)
        assert first[1] == second[1]

    def test_a_state_is_given_once(self, actors: Bench) -> None:
        _, created = actors.act(Creation(Tally), 0, actor=ActorPart(TALLY))
        actors.act(Method(Tally, "add"), 1, actor=with_state(created.state))
        again = actors.run(Method(Tally, "add"), 1, actor=with_state(created.state))
        assert isinstance(again, Vanished)
        assert again.lost == LOST_STATE

    def test_an_error_leaves_the_state_as_it_is_then(self, actors: Bench) -> None:
        _, created = actors.act(Creation(Tally), 0, actor=ActorPart(TALLY))
        error, failed = actors.act(Method(Tally, "add_and_fail"), 5, actor=with_state(created.state))
        assert isinstance(error, ArithmeticError)
        assert actors.act(Method(Tally, "add"), 1, actor=with_state(failed.state))[0][0] == 6

    def test_a_snapshot_is_stored_by_the_attempt_and_restored_into_a_new_actor(self, actors: Bench) -> None:
        _, created = actors.act(Creation(Tally), 0, actor=ActorPart(TALLY))
        _, added = actors.act(Method(Tally, "add"), 9, actor=with_state(created.state, snapshot_to="values/state"))
        assert isinstance(added.snapshot, Stored)
        actors.executor.release(added.state)
        assert actors.act(Method(Tally, "add"), 1, actor=from_snapshot(added.snapshot))[0][0] == 10

    def test_a_state_can_be_saved_between_two_attempts(self, actors: Bench) -> None:
        _, created = actors.act(Creation(Tally), 2, actor=ActorPart(TALLY))
        saved = actors.save(created.state, "values/between")
        assert isinstance(saved, Stored)
        assert actors.act(Method(Tally, "add"), 1, actor=with_state(created.state))[0][0] == 3
        assert actors.act(Method(Tally, "add"), 5, actor=from_snapshot(saved))[0][0] == 7

    @pytest.mark.parametrize("lose", ["release", "drop"])
    def test_a_state_that_is_gone_is_named_and_nothing_is_run(self, actors: Bench, lose: str) -> None:
        _, created = actors.act(Creation(Tally), 0, actor=ActorPart(TALLY))
        getattr(actors.executor, lose)(created.state)
        outcome = actors.run(Method(Tally, "add"), 1, actor=with_state(created.state))
        assert isinstance(outcome, Vanished)
        assert outcome.lost == LOST_STATE
        assert isinstance(actors.save(created.state, "values/gone"), KeyError)

    def test_an_attempt_that_cannot_begin_gives_the_state_back(self, actors: Bench) -> None:
        _, created = actors.act(Creation(Tally), 0, actor=ActorPart(TALLY))
        lost = actors.compute(large, 1)
        assert isinstance(lost, Held)
        actors.executor.drop(lost)
        source = CallId("source#0")
        taken = actors.run(
            Method(Tally, "add"), make_reference(source), inputs={source: lost}, actor=with_state(created.state)
        )
        assert isinstance(taken, Vanished)
        assert taken.lost == (source,)
        assert actors.act(Method(Tally, "add"), 1, actor=with_state(taken.state))[0][0] == 1

    def test_actors_do_not_wait_for_each_other(self, actors: Bench, tmp_path: Path) -> None:
        parts = [actors.act(Creation(Tally), 0, actor=ActorPart(TALLY))[1].state for _ in range(3)]
        for number, state in enumerate(parts):
            started, gate = str(tmp_path / f"started-{number}"), str(tmp_path / f"gate-{number}")
            actors.start(Method(Tally, "add_when"), number, started, gate, actor=with_state(state))
        for number in reversed(range(3)):
            wait_for_line(tmp_path / f"started-{number}")
            (tmp_path / f"gate-{number}").touch()
        outcomes = [actors.outcome() for _ in parts]
        assert all(isinstance(outcome, Computed) for outcome in outcomes), outcomes
