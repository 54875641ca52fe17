"""What the kernel tells the driver to do. A command is a tuple: its class, then what it is about."""

from __future__ import annotations

from typing import NamedTuple

from exoflow.model import CallId, Version


class Run(NamedTuple):
    """Start an attempt. ``why``: first, retry, lost, remade, undone, not saved."""

    call: CallId
    version: Version
    number: int
    why: str


class Stop(NamedTuple):
    """End an attempt, if that can be done: what it computes will not be used."""

    call: CallId
    version: Version


class Save(NamedTuple):
    """Append the call's SAVED record (FAILED where it failed); the value is small, or stored already."""

    call: CallId
    version: Version
    names: tuple[CallId, ...]
    """Open choices behind a child flow's result (L5); empty for every other call."""
    failed: bool = False
    newest: Version = Version(0)
    """Of a child flow: the newest choice behind its result; its body is not replayed once that is recorded."""


class Upload(NamedTuple):
    """Store the call's value as an object; answer with ``uploaded`` or ``upload_failed``."""

    call: CallId
    version: Version


class Make(NamedTuple):
    """Append a MADE record: the attempt computed, its value is not saved, or not yet."""

    call: CallId
    version: Version


class Snapshot(NamedTuple):
    """Store the state that an actor's call has left; answer with ``snapshot_taken`` or ``state_lost``."""

    call: CallId
    version: Version


class RecordSnapshot(NamedTuple):
    """Append a SNAPSHOT record: the state is in the store, or goes into the record."""

    call: CallId
    version: Version


class Intend(NamedTuple):
    """Append an INTENT record (L4)."""

    call: CallId
    version: Version
    names: tuple[CallId, ...]
    """Open choices in the lineage: the intent's effect falls when one of them is made again."""
    releases: tuple[CallId, ...]
    """Calls with rollback that this effect stands on: never undone from now on (G6)."""


class Dispatch(NamedTuple):
    """The intent of a paid call is durable: this attempt at it may send."""

    call: CallId
    version: Version


class Undo(NamedTuple):
    """Undo what this version did; answer with ``undone``, or with ``undo_failed`` when no try is left."""

    call: CallId
    version: Version


class RecordUndone(NamedTuple):
    """Append an UNDONE record."""

    call: CallId
    version: Version
    takes_back: tuple[CallId, ...] = ()
    """What the effect, which did not happen, had released: it can be undone again."""


class RecordUndoFailed(NamedTuple):
    """Append the record that says that the effect of this version is still in place."""

    call: CallId
    version: Version


class RecordFailing(NamedTuple):
    """Append the record that says that the run has failed, and with what: everything is undone behind it."""


class Probe(NamedTuple):
    """Ask the task's probe whether the effect happened; answer with ``resolved``."""

    call: CallId
    version: Version


class Deliver(NamedTuple):
    """The call's result, or its error, may be given to the body (or is wanted no longer for the end of the run)."""

    call: CallId


class Replay(NamedTuple):
    """Set the body of this scope aside, and everything below it; run it again from the top (V12)."""

    scope: str


class Doubt(NamedTuple):
    """The run cannot go on before somebody says whether this effect happened."""

    call: CallId
    version: Version


class EndScope(NamedTuple):
    """Every call of this scope has ended, its body too: its result counts. ``error``: an error that nobody read."""

    scope: str
    error: CallId | None


class Finish(NamedTuple):
    """The run is over: append ENDED and release the result; or, after an undo that failed for good, say so."""


Command = (
    Run
    | Stop
    | Save
    | Upload
    | Make
    | Snapshot
    | RecordSnapshot
    | Intend
    | Dispatch
    | Undo
    | RecordUndone
    | RecordUndoFailed
    | RecordFailing
    | Probe
    | Deliver
    | Replay
    | Doubt
    | EndScope
    | Finish
)
