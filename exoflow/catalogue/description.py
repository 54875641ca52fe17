"""What became of every call of a run, and why: what ``show`` tells."""

from __future__ import annotations

import json
import re
import sqlite3
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

from exoflow.catalogue.summary import RunSummary
from exoflow.driver.records import REPEATABLE
from exoflow.model import EPOCH_SHIFT, Bill, Status, show_version

Saved = Literal["inline", "object", "not saved", "error"]

_LAST = re.compile(r"(?:\A|(?<=/))(?:~[^:/]*:)?([^/#~!\[:]+)(?:#\d+|\[[^\]]*\])(?:!\d+)?\Z")
"""The part of a call's id that its own flow gave it: strand, task, and number or key. A key may hold a slash."""


@dataclass(frozen=True, slots=True)
class AttemptSeen:
    """One attempt that left a record."""

    version: int
    started_s: float
    seconds: float
    number: int
    """From 1; attempts before it in the same process raised or vanished, and left no record."""
    why: str | None
    """None for a first attempt; else retry, lost, remade, undone, not saved, did not happen."""
    saved: Saved
    size: int | None
    undone: bool
    executor: str | None
    """Who ran it; None: the run's own process, or an older version of this package wrote the record."""
    worker: str | None
    """The executor's process, as ``4711@node-7``."""
    bill: Bill | None = None
    """Of a paid call: what it cost, as its body has said."""

    @property
    def epoch(self) -> int:
        """Which process made it: the n-th that owned the run."""
        return self.version >> EPOCH_SHIFT


@dataclass(frozen=True, slots=True)
class UndoSeen:
    """One undo, by one process: it was carried out, or it failed for good."""

    version: int
    """Of the attempt that it undid, or was to."""
    time_s: float
    tries: int
    error: bytes | None
    """The undo's own, encoded by ``codec.encode_error``; None: it is undone."""


@dataclass(frozen=True, slots=True)
class CallSeen:
    """One call, all its attempts over all processes, the newest last."""

    id: str
    task: str
    path: str
    """Of the flow whose body made it; empty for the run's own."""
    inputs: tuple[str, ...]
    """Calls whose results it waited for."""
    attempts: tuple[AttemptSeen, ...]
    runs: int
    """How often it ran, attempts without a record included, as far as is known."""
    loaded: bool
    """The newest process took its result from the journal."""
    choice: bool
    child_flow: bool
    effect: str | None
    """idempotent, irrevocable, transaction, rollback or paid, where the journal says so."""
    intents: int
    key: str | None
    """The idempotency key of its newest intent."""
    undoings: tuple[UndoSeen, ...]
    """All that was undone of it, or failed to be, in the order of time."""
    in_doubt: bool
    """Its irrevocable effect was begun, and nothing says that it ended."""
    reads_at: int
    """How many results the body had read when it made the call."""
    forced: tuple[str, ...]
    """Choices behind it that were not saved when it was."""
    error: bytes | None
    """Encoded by ``codec.encode_error``."""
    actor: str | None = None
    """The call that has created the actor whose call it is: itself, if it is that."""
    in_snapshot: bool = False
    """The state that it has left is in a snapshot."""

    @property
    def bill(self) -> Bill | None:
        """What all its attempts have cost, those apart that left no record; None: it is not known to have a price."""
        bills = [attempt.bill for attempt in self.attempts if attempt.bill is not None]
        return sum(bills[1:], bills[0]) if bills else None

    @property
    def undos(self) -> int:
        """How many of its attempts were undone."""
        return sum(undo.error is None for undo in self.undoings)

    @property
    def not_undone(self) -> UndoSeen | None:
        """The undo that failed for good, and has not been carried out since: its effect is in place."""
        undone = {undo.version for undo in self.undoings if undo.error is None}
        return next((undo for undo in reversed(self.undoings) if undo.version not in undone), None)

    @property
    def last(self) -> AttemptSeen | None:
        """The attempt whose result counts; None where only an intent was recorded."""
        return self.attempts[-1] if self.attempts else None

    @property
    def again(self) -> tuple[tuple[int, str], ...]:
        """Each process that ran it again, and why."""
        return tuple((attempt.epoch, attempt.why) for attempt in self.attempts if attempt.why is not None)


@dataclass(frozen=True, slots=True)
class Description:
    """A run and its calls, in the order in which they first started."""

    run: RunSummary
    calls: tuple[CallSeen, ...]
    processes: tuple[int, ...] = ()
    """Ids of those that keep it alive."""

    @property
    def actors(self) -> tuple[ActorSeen, ...]:
        """The actors, in the order of their creation."""
        found: dict[str, list[CallSeen]] = defaultdict(list)
        for call in self.calls:
            if call.actor is not None:
                found[call.actor].append(call)
        return tuple(ActorSeen(id, tuple(sorted(calls, key=_first_version))) for id, calls in found.items())

    @property
    def ended_s(self) -> float:
        """When the last thing that is known happened."""
        ends = [each.started_s + each.seconds for call in self.calls for each in call.attempts]
        return max([self.run.ended_s or self.run.started_s, *ends])


@dataclass(frozen=True, slots=True)
class ActorSeen:
    """An actor, and its calls in their order."""

    id: str
    """The call that has created it."""
    calls: tuple[CallSeen, ...]

    @property
    def snapshots(self) -> tuple[CallSeen, ...]:
        """The calls behind which there is a snapshot."""
        return tuple(call for call in self.calls if call.in_snapshot)

    @property
    def behind(self) -> tuple[CallSeen, ...]:
        """The calls whose work is in no snapshot: they are made again where the state is needed after a crash."""
        newest = max((n for n, call in enumerate(self.calls) if call.in_snapshot), default=-1)
        return self.calls[newest + 1 :]


def task_of(call: str) -> str:
    """The task's name in a call's id."""
    found = _LAST.search(call)
    return found[1] if found else call.rpartition("/")[2]


def path_of(call: str) -> str:
    """The path of the flow whose body made the call: ``week#0/`` for ``week#0/read#3``."""
    found = _LAST.search(call)
    return call[: found.start() if found else call.rfind("/") + 1]


def describe(connection: sqlite3.Connection, run: RunSummary, processes: tuple[int, ...] = ()) -> Description:
    """The rows of one run, put together."""
    attempts, rest = _attempts(connection, run.run_id)
    intents = _by_call(
        connection, "SELECT call, version, what, key FROM intents WHERE run_id = ? ORDER BY version", run
    )
    undos = _undoings(connection, run)
    snapshots = set(connection.execute("SELECT call, version FROM snapshots WHERE run_id = ?", (run.run_id,)))
    calls = [
        _call(id, run, attempts.get(id, ()), rest.get(id), intents.get(id, ()), undos.get(id, ()), snapshots)
        for id in dict.fromkeys([*attempts, *intents])
    ]
    return Description(run, tuple(sorted(calls, key=_first_start)), processes)


@dataclass(frozen=True, slots=True)
class _Rest:
    """What only the newest record of a call says."""

    inputs: tuple[str, ...]
    names: tuple[str, ...]
    reads_at: int
    choice: int
    error: bytes | None
    actor: str | None


def _attempts(connection: sqlite3.Connection, run_id: str) -> tuple[dict[str, list[AttemptSeen]], dict[str, _Rest]]:
    undone: dict[str, int] = dict(
        connection.execute("SELECT call, max(version) FROM undos WHERE run_id = ? GROUP BY call", (run_id,))
    )
    attempts: dict[str, list[AttemptSeen]] = defaultdict(list)
    rest: dict[str, _Rest] = {}
    rows = connection.execute(
        "SELECT call, version, started_s, seconds, number, why, saved, size, inputs, names, reads_at, choice, error, "
        "executor, worker, actor, input_tokens, output_tokens, cached_tokens, nano_usd, maybe_rebilled "
        "FROM attempts WHERE run_id = ? ORDER BY version",
        (run_id,),
    )
    for call, version, started_s, seconds, number, why, saved, size, *others in rows:
        inputs, names, reads_at, choice, error, executor, worker, actor, *bill = others
        gone = version <= undone.get(call, -1)
        attempts[call].append(
            AttemptSeen(version, started_s, seconds, number, why, saved, size, gone, executor, worker, _bill(*bill))
        )
        rest[call] = _Rest(_names(inputs), _names(names), reads_at, choice, error, actor)
    return attempts, rest


def _bill(
    input_tokens: int | None, output_tokens: int, cached_tokens: int, nano_usd: int, maybe_rebilled: int
) -> Bill | None:
    if input_tokens is None:
        return None
    return Bill(input_tokens, output_tokens, cached_tokens, nano_usd, maybe_rebilled != 0)


def _call(
    id: str, run: RunSummary, attempts: Sequence[AttemptSeen], rest: _Rest | None,
    intents: Sequence[tuple[int, str, str]], undoings: Sequence[UndoSeen],
    snapshots: Collection[tuple[str, int]],
) -> CallSeen:  # fmt: skip
    last = attempts[-1] if attempts else None
    choice = rest.choice if rest else 0
    what = intents[-1][1] if intents else None
    effect = "irrevocable" if what == REPEATABLE else what or ("idempotent" if choice & 2 else None)
    finished = last is not None and last.saved != "not saved" and not last.undone
    known = max([last.version if last else 0, *(undo.version for undo in undoings if undo.error is None)])
    open_intent = what == "irrevocable" and known < intents[-1][0]
    return CallSeen(
        id=id,
        task=task_of(id),
        path=path_of(id),
        inputs=rest.inputs if rest else (),
        attempts=tuple(attempts),
        runs=_count(attempts) or len(intents),
        loaded=finished and last is not None and last.epoch < run.epoch,
        choice=bool(choice & 1),
        child_flow=bool(choice & 4),
        effect=effect,
        intents=len(intents),
        key=intents[-1][2] if intents else None,
        undoings=tuple(undoings),
        in_doubt=open_intent and run.status in (Status.IN_DOUBT, Status.BROKEN_OFF),
        reads_at=rest.reads_at if rest else 0,
        forced=rest.names if rest else (),
        error=rest.error if rest else None,
        actor=rest.actor if rest else None,
        in_snapshot=last is not None and (id, last.version) in snapshots,
    )


def _count(attempts: Sequence[AttemptSeen]) -> int:
    """Attempts that raised or vanished left no record, but the one after them has a higher number."""
    highest: dict[int, int] = {}
    for attempt in attempts:
        highest[attempt.epoch] = max(highest.get(attempt.epoch, 1), attempt.number)
    return len(attempts) + sum(number - 1 for number in highest.values())


def _first_start(call: CallSeen) -> tuple[float, int]:
    return (call.attempts[0].started_s, call.attempts[0].version) if call.attempts else (float("inf"), 0)


def _first_version(call: CallSeen) -> int:
    """One actor's calls run one after another, so this is the order in which they were written."""
    return call.attempts[0].version if call.attempts else 0


def _by_call(connection: sqlite3.Connection, query: str, run: RunSummary) -> dict[str, list[tuple[int, str, str]]]:
    found: dict[str, list[tuple[int, str, str]]] = defaultdict(list)
    for call, version, what, key in connection.execute(query, (run.run_id,)):
        found[call].append((version, what, key))
    return found


def _undoings(connection: sqlite3.Connection, run: RunSummary) -> dict[str, list[UndoSeen]]:
    found: dict[str, list[UndoSeen]] = defaultdict(list)
    rows = connection.execute(
        "SELECT call, version, time_s, tries, NULL FROM undos WHERE run_id = ? UNION ALL "
        "SELECT call, version, time_s, tries, error FROM failed_undos WHERE run_id = ? ORDER BY time_s, version",
        (run.run_id, run.run_id),
    )
    for call, *undo in rows:
        found[call].append(UndoSeen(*undo))
    return found


def _names(text: str | None) -> tuple[str, ...]:
    return tuple(json.loads(text)) if text else ()


__all__ = ["ActorSeen", "AttemptSeen", "CallSeen", "Description", "UndoSeen", "describe", "show_version", "task_of"]
