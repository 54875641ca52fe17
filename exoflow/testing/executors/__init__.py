"""What every executor MUST do, as tests: subclass ``ExecutorConformance`` and open yours.

    class TestMyExecutor(ExecutorConformance):
        kills = True

        def open(self, store):
            return MyExecutor(store=store)

Bodies are told what to do by files: they run in whichever process the executor chose, and what they did is counted
outside of any store.

Rooms, by topic: ``outcomes``, ``stopping``, ``values``, ``actors``. ``bodies`` are what they run, ``bench`` where.
"""

from __future__ import annotations

from exoflow.testing.executors.actors import LOST_STATE, TALLY, Actors, Tally, from_snapshot, with_state
from exoflow.testing.executors.bench import Bench
from exoflow.testing.executors.bodies import (
    LARGE,
    WAIT_S,
    array,
    failing,
    is_gone,
    large,
    lines,
    returned,
    wait_for_line,
    wait_until,
    waits,
)
from exoflow.testing.executors.outcomes import Outcomes
from exoflow.testing.executors.stopping import Stopping
from exoflow.testing.executors.values import Values


class ExecutorConformance(Outcomes, Stopping, Values, Actors):
    """Every MUST of ``protocols.Executor``."""


__all__ = [
    "LARGE",
    "LOST_STATE",
    "TALLY",
    "WAIT_S",
    "Bench",
    "ExecutorConformance",
    "Tally",
    "array",
    "failing",
    "from_snapshot",
    "is_gone",
    "large",
    "lines",
    "returned",
    "wait_for_line",
    "wait_until",
    "waits",
    "with_state",
]
