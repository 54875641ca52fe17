"""Stored values vanish at any moment: what nobody outside has seen is made again, or the run stops and says which."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Iterable
from typing import Any

import pytest

from exoflow.driver.execution import Execution
from exoflow.errors import Corrupt
from exoflow.journal.records import Kind as Code
from exoflow.protocols import Attempt
from exoflow.testing.simulation import Violation, simulate
from exoflow.testing.simulation.oracle import Till
from exoflow.testing.simulation.program import Pair
from exoflow.testing.simulation.world import World

SEEDS = int(os.environ.get("EXOFLOW_SEEDS", "500"))


class Lenient(Till):
    """What was paid for and is lost has to be paid for again; who does that is told."""

    def begin(self, attempt: Attempt, records: Iterable[tuple[Any, ...]]) -> None: ...

    def dispatch(self, attempt: Attempt, durable: Iterable[tuple[Any, ...]]) -> None:
        assert attempt.paid is not None
        sent = self.dispatched.setdefault(attempt.call, [])
        if any(record[0] == Code.SAVED and record[2] == attempt.call and record[3] in sent for record in durable):
            assert attempt.paid.in_doubt
        sent.append(attempt.version)

    def charge(self, attempt: Attempt, made_from: set[Pair]) -> None: ...


class Damaging(World):
    """A world that loses objects of the store as well as values in memory."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.till = Lenient()

    def _losable(self, execution: Execution) -> list[int]:
        return super()._losable(execution) or [0] * bool(self.store.objects)

    def _lose(self, execution: Execution) -> None:
        names = sorted(self.store.objects)
        if names and self.chance.random() < 0.6:
            name = self.chance.choice(names)
            self.trace(f"damage {name}")
            for kept in execution.values.kept.values():
                self.executor.drop(kept)
            del self.store.objects[name]
            lost_objects.append(name)
        elif super()._losable(execution):
            super()._lose(execution)

    def _wake_zombie(self) -> None:
        self.zombies = [zombie for zombie in self.zombies if self._readable(zombie)]
        if self.zombies:
            super()._wake_zombie()


lost_objects: list[str] = []


def test_a_run_ends_as_if_nothing_was_lost_or_stops_for_an_effect(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)
    lost_objects.clear()
    loop, refused = asyncio.new_event_loop(), 0
    for seed in range(SEEDS):
        try:
            simulate(seed, world=Damaging, loop=loop)
        except Violation as violation:
            if not isinstance(violation.__cause__, Corrupt):
                raise
            refused += 1
    loop.close()
    assert len(lost_objects) > SEEDS / 10
    assert refused < len(lost_objects) / 2
