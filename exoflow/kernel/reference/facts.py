"""What the reference form of the kernel is told: plain data, and nothing that follows from other data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from exoflow.model import Annotations, CallId, Version

NO_VERSION = Version(0)


@dataclass(frozen=True, slots=True)
class CallFacts:
    """What is known of one call."""

    id: CallId
    note: Annotations = field(default_factory=Annotations)
    attached: bool = False  # the present incarnation of the body has made it
    path: str = ""  # of the flow whose body made it
    inputs: tuple[CallId, ...] = ()
    passes: tuple[CallId, ...] = ()  # handed on as Refs: the attempt does not see their values
    reads_at: int = 0  # how much the body had read
    made: Version = NO_VERSION  # the newest result, lost and retired ones too
    started: Version = NO_VERSION  # the newest attempt of this epoch
    running: bool = False
    asks: bool = False  # of a paid call: its body is about to send, and waits to be told that it may
    has_result: bool = False  # ``made`` is a result or an error that was neither retired nor undone; it may be lost
    held: bool = False  # its value is in memory
    recorded: bool = False  # its value, or error, is in a record
    durable: bool = False  # ... and the record is durable
    uploading: bool = False
    failed: bool = False
    inherited: bool = False  # the error is an input's
    refs: tuple[CallId, ...] = ()  # that stand in the value
    open_names: tuple[CallId, ...] = ()  # of a recorded child flow: choices behind it that had no record (L5)
    intent: Version = NO_VERSION
    intent_durable: bool = False
    intent_names: tuple[CallId, ...] = ()  # choices that had no record when it was appended (L5)
    intent_is_old: bool = False  # of an older epoch: whether its attempt ran is not known
    released: bool = False  # an effect's intent stands on it (G6)
    holds: tuple[CallId, ...] = ()  # what its own intent has released
    given_up: bool = False  # no attempt is left: once nothing of it stands, its error is told
    in_doubt: bool = False
    before: CallId | None = None  # of an actor: the call before it
    live: bool = False  # the state that it has left is in memory, and nobody has taken it
    snapshot: bool = False  # ... is in a record
    snapshot_durable: bool = False  # ... which is durable
    snapshotting: bool = False
    covered: bool = False  # the snapshot of a later call has committed it, which the body has not made again yet
    fickle: bool = False  # it had failed, and was made again for its state
    dead: bool = False  # it has failed and left none


@dataclass(frozen=True, slots=True)
class BodyFacts:
    """What is known of one flow body's present incarnation."""

    path: str
    owner: CallId | None = None
    reads: tuple[CallId, ...] = ()
    returned: bool = False
    ended: bool = False
    result_refs: tuple[CallId, ...] = ()
    demanded: frozenset[CallId] = frozenset()
    """Calls to run for their own sake: see ``untaken``."""


@dataclass(frozen=True, slots=True)
class Facts:
    """All that is known of a run at one moment."""

    calls: Mapping[CallId, CallFacts] = field(default_factory=dict)
    bodies: Mapping[str, BodyFacts] = field(default_factory=dict)
    awaited: frozenset[CallId] = frozenset()  # what a body, or the end of the run, waits for
    retired_attempts: frozenset[Version] = frozenset()  # still running, though what they compute will not be used
    undoing: Version = NO_VERSION
    undone_recorded: bool = True  # no record of an undo waits to be durable
    start_durable: bool = True  # the run's inputs are
    cancelled: bool = False
    failing: bool = False  # it has failed and rolls back: a record says so, or is about to
    failing_durable: bool = True
    stuck: bool = False  # an undo has failed for good
    outcome: str = ""  # "failed" or "done", once the root body's result is settled
    undo_on_failure: bool = False
    found: dict[str, set[CallId]] = field(default_factory=dict, init=False, repr=False, compare=False)
    """Lineages, and what is needed: they follow from the rest, but are asked for thousands of times."""
