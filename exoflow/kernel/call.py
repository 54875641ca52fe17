"""What the kernel knows of a call, and of a flow body. Data only."""

from __future__ import annotations

import enum
from collections import deque
from typing import Any, NamedTuple, TypeVar

from exoflow.kernel.rarely import Rarely
from exoflow.model import Annotations, CallId, Version

T = TypeVar("T")

FIXED = -2  # of a stamp: it holds as long as the call runs or has a result


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
    called_at = Rarely[Version](Version(0))  # of an idempotent effect: newest choice that its body had read
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
    failed_anew = Rarely[bool](False)  # its error was made in this life: whatever was recorded before
    owed = Rarely[bool](False)  # its body fell with what stood on it: it is made again as soon as it is called
    begun_before = Rarely[bool](False)  # of a paid call: another attempt may have been charged for, in any life
    unheard = Rarely[bool](False)  # of a paid call: its last attempt has ended without a word, charged for perhaps
    handed_out = Rarely[bool](False)  # of a timer or an event: it stands in what a flow returned

    # Of an actor's call (V7). The state that it has left is a value beside its result, and that of its version.
    before = Rarely["Call | None"](None)  # the call whose state it takes
    after = Rarely["Call | None"](None)  # the call that takes its state
    origin = Rarely["Call | None"](None)  # the call that creates the actor; of that one: itself
    due = Rarely[bool](False)  # a snapshot is to be taken when it has ended
    live = Rarely[bool](False)  # its state is in memory, and nobody has taken it yet
    snapshot = Rarely[Version](Version(0))  # the version whose state is in a record
    snapped = Rarely[bool](False)  # ... and that record is durable
    snapping = Rarely[Version](Version(0))  # the version whose state is on its way to the store
    written = Rarely[bool](False)  # the record of its result is durable
    dead = Rarely[bool](False)  # it has failed and left no state: nor will any call behind it
    fickle = Rarely[bool](False)  # it had failed, and was made again for its state: deterministic or not
    skipped = Rarely[bool](False)  # an argument has failed: it never begins, and the state goes on to the next call
    awaits_state = Rarely[bool](False)  # it cannot start before the state is there
    took = Rarely[Version](Version(0))  # of a running one: the version whose live state it was given
    cover_wanted = Rarely[bool](False)  # of an origin: an effect waits for a snapshot of the next state

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
        self.recorded_reads_at = 0  # reads_at in the incarnation before, or in its record

    @property
    def is_choice(self) -> bool:
        """Another attempt may give another result, or another error (L7)."""
        if self.failed:
            return not self.propagated
        return self.note.chooses or self.note.actor and self.fickle

    @property
    def must_commit(self) -> bool:
        """An effect behind it waits for its record (G3, G6).

        A deterministic call of an actor is no function of what can be had again, if a choice before it is in no
        snapshot (V7).
        """
        if self.propagated:
            return False
        if self.is_choice or self.note.rollback:
            return True
        return self.note.actor and self.before is not None and not self.before.pinned

    @property
    def has_state(self) -> bool:
        """Whether a call behind it may start from the state that it has left."""
        return self.state is State.DONE and (self.live or self.snapshot != 0 and self.snapshot == self.version)

    @property
    def pinned(self) -> bool:
        """Whether its state can be had again without a choice of the actor's being made again."""
        call: Call | None = self
        while call is not None and (call.skipped or not call.snapped):
            if not call.skipped and call.is_choice:
                return False
            call = call.before
        return call is not None

    def settle_intent(self, *, charged: bool = False, billed: bool = False) -> None:
        """What became of a paid call is recorded, or does not matter any more: another attempt needs another intent.

        ``charged``: it has an answer, and whoever makes it again, because that was lost, is charged again. ``billed``:
        its record says what it has cost; the record of its intent may be gone since.
        """
        self.begun_before = charged and (self.begun_before or self.intent != 0 or billed)
        self.intent = Version(0)
        self.intent_durable = False

    def readers(self) -> list[tuple[Scope, int]]:
        """Bodies that have read it in their present incarnation, and the index of the read."""
        found = [(scope, index) for scope, incarnation, index in self.read_by if scope.incarnation == incarnation]
        if self.read_at >= 0 and self.scope is not None:
            found.append((self.scope, self.read_at))
        return found

    def __repr__(self) -> str:
        return f"<{self.id} {self.state.name} v{self.version:x}>"


class Turn(NamedTuple):
    """Which of an actor's calls it is."""

    before: Call | None
    """None: it creates the actor."""
    due: bool
    """A snapshot is to be taken when it has ended."""


class Scope:
    """A flow body, from one incarnation to the next."""

    __slots__ = (
        "active",
        "base_closed",
        "calls",
        "closed_reads",
        "deferred",
        "ended",
        "idle",
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
        self.idle = False  # it can do nothing before it reads something
        self.returned = False
        self.raised = False
        self.ended = False
        self.result_refs: tuple[Call, ...] = ()
