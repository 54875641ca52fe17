"""What the kernel knows of a call and of a flow body. Data only."""

from __future__ import annotations

import enum
from collections import deque
from typing import Any, TypeVar

from exoflow.kernel.rarely import Rarely
from exoflow.model import Annotations, CallId, Kind, Version

T = TypeVar("T")


class State(enum.IntEnum):
    """Where a call stands."""

    IDLE = 0  # nobody needs it, or its result was lost or retired
    NEEDED = 1  # waits for inputs, a gate or an undo
    RUNNING = 2
    DONE = 3  # has a usable result, or an error
    DOUBT = 4  # an irrevocable effect: happened or not?


class _Empty(list[Any]):
    def append(self, item: object) -> None:
        raise AssertionError(f"{item!r} would be in the row of every call: use joined")


NOBODY: list[Any] = _Empty()
"""Every row of a call in which nothing stands yet: most stay so."""


def joined(row: list[T], item: T) -> list[T]:
    """The row with the item at its end."""
    if row:
        row.append(item)
        return row
    return [item]


class Call:
    """One task call: what was asked, and what became of it."""

    __slots__ = (
        "attached",
        "attempt",
        "closed",
        "committed",
        "contents",
        "cost_s",
        "failed",
        "forced",
        "gated",
        "has_derived",
        "held",
        "id",
        "inputs",
        "intent",
        "late",
        "late_takers",
        "missing",
        "note",
        "open",
        "rare",
        "read_at",
        "read_by",
        "read_stamp",
        "reads_at",
        "recalled",
        "record_stamp",
        "recorded_reads_at",
        "refs",
        "saved",
        "scope",
        "seen",
        "stamp",
        "stamp_at",
        "state",
        "swept",
        "takers",
        "tries",
        "version",
        "waiters",
        "wanted",
        "why",
    )  # fmt: skip

    passes = Rarely["tuple[Call, ...]"](())  # handed on as Refs: no lineage, their values are not seen
    gate_seq = Rarely[int](0)  # of an idempotent effect: its start waits until the records up to here are durable
    losses = Rarely[int](0)
    base_open = Rarely[int](0)  # of a child flow: those parts that its body did not add
    holds = Rarely[bool](False)  # of a child flow: what its body is going to read is still to be counted in open
    intent_durable = Rarely[bool](False)
    intent_names = Rarely[tuple[CallId, ...]](())
    releases = Rarely[tuple[CallId, ...]](())
    released = Rarely[bool](False)
    fail_after_undo = Rarely[bool](False)
    upload = Rarely[Version](Version(0))  # version whose value is on its way to the store
    body = Rarely["Scope | None"](None)  # of a child flow
    names = Rarely[tuple[CallId, ...]](())
    propagated = Rarely[bool](False)  # the error is an input's

    def __init__(self, id: CallId, note: Annotations) -> None:
        self.rare: dict[str, Any] | None = None
        self.id = id
        self.note = note
        self.scope: Scope | None = None
        self.inputs: tuple[Call, ...] = ()
        self.contents: list[Call] = NOBODY  # calls whose Refs stand in the values of its inputs
        self.late: list[Call] = NOBODY  # of a child flow: what its body read or returned
        self.late_takers: list[Call] = NOBODY
        self.reads_at = 0  # how much its body had read when it made the call
        self.takers: list[Call] = NOBODY
        self.waiters: list[Call] = NOBODY  # calls that cannot start before this one's value is there
        self.read_at = -1  # index of the first read by the body that made it
        self.read_by: list[tuple[Scope, int, int]] = NOBODY  # other reads: (scope, its incarnation, index)
        self.attached = False  # the present incarnation of the body has made this call
        self.state = State.IDLE
        self.version = Version(0)  # of the newest result made, lost ones too
        self.attempt = Version(0)  # that is running
        self.held = False  # the value is in memory, here or with an executor
        self.saved = False  # it has a record, durable or not
        self.committed = False
        self.failed = False
        self.refs: tuple[Call, ...] = ()  # Refs inside the value
        self.tries = 0
        self.missing = 0
        self.open = 0  # parts of its lineage, itself apart, that are not closed
        self.closed = False  # it and every choice behind it are committed
        self.gated = False
        self.forced = False  # an effect waits for it: save it whatever its checkpoint says
        self.has_derived = False  # it, or something derived from it, holds a result or an intent
        self.wanted = False  # the body waits for it
        self.seen = False  # the body has read its error
        self.intent = Version(0)
        self.swept = False
        self.recalled = False  # its record was read from the journal, not made here
        self.why = "first"
        self.cost_s = 0.0  # seconds to compute it again, its unsaved ancestors included
        self.stamp = Version(0)
        self.stamp_at = -1
        self.record_stamp = Version(0)  # of a child flow's result: newest choice behind it
        self.read_stamp = Version(0)  # newest choice behind what its body had read
        self.recorded_reads_at = 0  # what its record says of reads_at

    @property
    def is_choice(self) -> bool:
        """Another attempt may give another result. A child flow is a function of what its body read."""
        if self.failed:
            return not self.propagated
        return not (self.note.deterministic or self.note.kind is Kind.FLOW)

    @property
    def must_commit(self) -> bool:
        """An effect behind it waits for its record (G3, G6)."""
        return self.is_choice or self.note.rollback and not self.propagated

    def readers(self) -> list[tuple[Scope, int]]:
        """Bodies that have read it in their present incarnation, and the index of the read."""
        found = [(scope, index) for scope, incarnation, index in self.read_by if scope.incarnation == incarnation]
        if self.read_at >= 0 and self.scope is not None:
            found.append((self.scope, self.read_at))
        return found

    def __repr__(self) -> str:
        return f"<{self.id} {self.state.name} v{self.version:x}>"


class Scope:
    """A flow body, from one incarnation to the next."""

    __slots__ = (
        "active",
        "base_closed",
        "calls",
        "closed_reads",
        "deferred",
        "ended",
        "incarnation",
        "owner",
        "path",
        "raised",
        "reads",
        "result_refs",
        "returned",
        "stamp",
        "swept_reads",
        "waiting_prefix",
    )  # fmt: skip

    def __init__(self, path: str, owner: Call | None) -> None:
        self.path = path
        self.owner = owner
        self.incarnation = -1
        self.restart()

    def restart(self) -> None:
        self.incarnation += 1
        self.calls: list[Call] = []
        self.reads: list[Call] = []
        self.base_closed = self.owner is None or self.owner.base_open == 0
        self.closed_reads = 0  # so many reads, from the first on, are closed
        self.waiting_prefix: deque[Call] = deque()
        self.swept_reads = 0
        self.stamp = Version(0)  # newest version among the choices behind what was read
        self.active = 0  # calls that are needed and have not ended
        self.deferred: list[Call] = []
        self.returned = False
        self.raised = False
        self.ended = False
        self.result_refs: tuple[Call, ...] = ()
