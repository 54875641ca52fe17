"""What the kernel knows: of a call, of a flow body, of a run. Data only."""

from __future__ import annotations

import enum
from collections import deque
from typing import Any, NamedTuple, TypeVar

from exoflow.kernel.commands import Command
from exoflow.kernel.rarely import Rarely
from exoflow.model import Annotations, CallId, Version, version

T = TypeVar("T")

FIXED = -2  # of a stamp: it holds as long as the call runs or has a result

SECONDS_PER_BYTE = 1 / 200e6  # until the store's rate has been measured


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
    owed = Rarely[bool](False)  # its body fell with what stood on it: it is made again as soon as it is called
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


class RunState:
    """Everything that is known of one run, in one epoch."""

    def __init__(self, epoch: int, *, undo_on_failure: bool = False, strict: bool = False) -> None:
        self.epoch = epoch
        self.undo_on_failure = undo_on_failure
        self.strict = strict  # an effect may not force a save of what is never to be saved (G4)
        self.damaged = False  # the journal had damaged records: a missing one may have existed
        self.forgiving = False  # the run had failed: errors that nothing stands on are forgotten (V14)
        self.cancelling = False
        self.failing = False  # it has failed, and all that can be undone is: a record says so (V15)
        self.stuck = False  # an undo has failed for good: nothing starts, and the run ends when what runs has ended
        self.finishing = False  # the root body's result is settled
        self.finished = False
        self.seconds_per_byte = SECONDS_PER_BYTE

        self.calls: dict[CallId, Call] = {}
        self.scopes: dict[str, Scope] = {}
        self.by_path: dict[str, list[Call]] = {}  # recalled calls by the path of their flow
        self.former: dict[str, list[Call]] = {}  # what the incarnation before made, of bodies that were set aside here
        self.unattached: set[Call] = set()  # with results or intents that the body has not asked for yet
        self.standing: dict[CallId, list[Call]] = {}  # open choice -> calls of older epochs whose intent names it
        self.stale: dict[Version, Call] = {}  # attempts that still run though their result will not be used
        self.out: list[Command] = []

        self.seq = 0  # records appended so far
        self.durable_seq = 0
        self.urgent = 0  # something waits until the records up to here are durable
        self.start_seq = 0  # of the run's Start record
        self.records: deque[tuple[int, Call, Version, str]] = deque()  # appended, not known to be durable
        self.fallen = 0  # results taken back so far
        self.remade = 0  # choices ordered again so far; stamps of unmade calls are cached against it
        self._number = 0

        # What the last events gave rise to, until the commands are taken; and what waits for something else.
        self._ready: list[Call] = []  # needed calls: they may start, or are told what they wait for
        self._ending: list[Scope] = []  # bodies that may have ended
        self._misled: list[Call] = []  # they wait for what stood in a value that is not true any more
        self._closing: list[Call] = []
        self._held_back: list[Call] = []  # until everything is undone
        self._waiting_start: list[Call] = []  # until the run's inputs are durable, or what they stand on is made
        self._unsaved: dict[CallId, Version] = {}  # uploads under way
        self._unsure: set[CallId] = set()  # intents whose completion may have been a damaged record
        self._uncovered: list[Call] = []  # actors' calls for whose sake a snapshot is to be taken
        self._hoping: list[Call] = []  # ... unless a recorded call of the actor, that has one, is made again
        self._hopeless: list[Call] = []  # ... and it has not been, or is about to stand aside
        self._recovered = False  # one of a recorded call is among those below
        self._covers: dict[Call, None] = {}  # durable snapshots that may commit calls before them
        self._sought: set[Call] = set()  # in child flows whose bodies have not been replayed
        self._reopening: set[Call] = set()  # child flows whose bodies are about to be replayed to find a value
        self._to_undo: dict[Version, Call] = {}
        self._undoing = Version(0)
        self._holding: set[Call] = set()  # effects that may happen, or not, and have released what they stand on
        self._undone_seq = 0  # its record has to be durable before anything runs again
        self._failing_seq = 0  # that the run has failed has to be durable before anything is undone for it

    @property
    def unwinding(self) -> bool:
        """It was cancelled, or has failed and rolls back: no body has anything to do any more."""
        return self.cancelling or self.failing

    def _next_version(self) -> Version:
        self._number += 1
        return version(self.epoch, self._number)
