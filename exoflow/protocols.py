"""The seams: what a store, a journal and an executor MUST do. ``exoflow.testing`` ships a suite for each."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from exoflow.model import Bill, CallId, Held, RunId, Stored, Value, Version

Buffer = bytes | bytearray | memoryview


@runtime_checkable
class Store(Protocol):
    """Named immutable objects. Names are relative, ``/``-separated, ASCII without ``..``.

    Two with one url are one store to a process, unless they have a hashable ``place`` that says otherwise.
    """

    url: str
    shared: bool
    """Whether another process can open the same store by its url."""

    def create(self, name: str, *parts: Buffer) -> bool:
        """Create the object from the joined parts; whether *we* did.

        MUST be atomic: of any number of racing creators exactly one gets True, and no reader ever sees a part of it.
        MUST be durable when it returns, its directory entries included. MUST leave nothing under ``name`` on an error.

        Raises:
            StorageError: the store failed, the disk is full, the directory is gone or read-only.
        """

    def read(self, name: str) -> memoryview:
        """The whole object, read-only, mapped rather than copied where that can be done.

        Raises:
            FileNotFoundError: there is none.
        """

    def read_range(self, name: str, start: int, size: int | None = None) -> bytes:
        """Up to ``size`` bytes from ``start`` on (to the end for None); shorter at the object's end."""

    def exists(self, name: str) -> bool: ...

    def list(self, prefix: str) -> list[str]:
        """The full names of the objects below the folder ``prefix``, recursively, sorted. No temporary files."""

    def delete(self, name: str) -> None:
        """Delete the object; nothing happens where there is none."""


def place_of(store: Store) -> Hashable:
    """What two stores have in common that are one: the same objects, reached in the same way."""
    place: Hashable = getattr(store, "place", store.url)
    return place


class Slot(Protocol):
    """An object that grows at its end, exclusively locked by its creator for life."""

    name: str
    size: int

    def append(self, data: Buffer) -> None:
        """Write at the end, whole or raise StorageError. Not durable before ``sync``."""

    def sync(self) -> None:
        """Make all that was appended durable (fdatasync; F_FULLFSYNC on macOS). After an error the slot is dead."""

    def close(self) -> None:
        """Give the lock back."""


@runtime_checkable
class SlotStore(Store, Protocol):
    """A store whose objects can also grow: local files. The journal then appends instead of creating."""

    def create_slot(self, name: str, first: Buffer) -> Slot | None:
        """Create an object holding ``first``, durable and locked as it appears; None where the name is taken."""

    def lock_holders(self, name: str) -> tuple[int, ...]:
        """Ids of the processes that hold the slot's lock; empty: nobody does. (-1,) where held by unknown ones."""


Record = tuple[Any, ...]
"""``(kind, run, ...)``, as ``exoflow.journal.records`` says. Plain msgpack: numbers, text, bytes, None, lists."""


class Log(Protocol):
    """What the driver needs of the journal: records in one durable order. Thread-safe."""

    def append(self, record: Record) -> int:
        """Queue a record; its position. Positions grow by one. Durable order is append order. Never blocks on I/O.

        Raises:
            Fenced: somebody sealed this journal.
            StorageError: the journal stopped.
        """

    @property
    def durable(self) -> int:
        """Every record up to this position is durable and acknowledged."""

    def wait(self, position: int) -> None:
        """Block until ``durable >= position``; the waiter itself may do the write.

        Raises:
            Fenced, StorageError: as append; nothing that was acknowledged is lost.
        """

    def notify(self, position: int, callback: Callable[[BaseException | None], None]) -> None:
        """Call back, from any thread, once ``durable >= position`` (with None) or the journal failed (with why)."""


@dataclass(frozen=True, slots=True)
class Creating:
    """How an actor is created; the values of Refs in it are among the attempt's inputs."""

    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    encoded: object | None


@dataclass(frozen=True, slots=True)
class ActorPart:
    """What an attempt at an actor's call begins with, and what it is to leave.

    With neither ``state`` nor ``snapshot``, its function creates the actor.
    """

    origin: CallId
    """The call that has created the actor: its name in the run."""
    holder: CallId | None = None
    """The call that has left the state."""
    state: Held | None = None
    """The live object, which the attempt takes; where it is, the attempt has to run."""
    snapshot: Value | None = None
    create: Creating | None = None
    """For a snapshot: it is given to an object that is created so."""
    snapshot_to: str | None = None
    """A snapshot is to be taken in the end; one over 64 KiB is stored under this name."""


class Dispatching(Protocol):
    """What the body of a paid call asks of its run, from any thread."""

    def ask(self, callback: Callable[[BaseException | None], None]) -> None:
        """It is about to send: call back, from any thread, when the intent is durable (with None), or why not to."""

    def wait(self) -> None:
        """The same for a thread, which may do the durable write itself.

        Raises:
            TaskFailed: the attempt is wanted no more; nothing is to be sent.
        """

    def when_recorded(self, callback: Callable[[], None]) -> None:
        """Call back, from any thread, when what has become of it is durable, or never will be."""


@dataclass(frozen=True, slots=True)
class PaidPart:
    """What the body of a paid call can ask for."""

    run: Dispatching

    in_doubt: bool
    """An earlier attempt was dispatched, and nothing tells how it ended."""
    labels: Mapping[str, str]
    bills: Mapping[CallId, Bill]
    """What the run had cost when this process took it over."""


@dataclass(slots=True)
class Attempt:
    """One try at a call, as an executor gets it."""

    run_id: RunId
    call: CallId
    version: Version
    number: int
    """The n-th try, from 1; what ``exoflow.attempt()`` returns."""
    key: str
    """The idempotency key."""
    task: str
    """The task's name, for messages."""
    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    inputs: Mapping[CallId, Value]
    """The value of every Ref that stands in ``args`` and ``kwargs``, except those that are to be passed as Refs."""
    timeout_s: float | None = None
    resources: Mapping[str, float] = field(default_factory=dict)
    save_to: str | None = None
    """Where a value over 64 KiB is to be stored by whoever computed it, before it is reported; None: keep it."""
    encoded: object | None = None
    """``args`` and ``kwargs`` encoded once, if anything in them is mutable; decoded for each attempt."""
    crossing: Mapping[CallId, str] = field(default_factory=dict)
    """Inputs that lie on another executor's cluster: the objects under which they may be saved, to be read there."""
    actor: ActorPart | None = None
    batchable: bool = False
    """It is pure, a first try, has no time limit, and may be lost: it may be sent with others, run one after another in
    one process, be reported when all have ended, and vanish with them. An attempt that is not MUST NOT."""
    paid: PaidPart | None = None
    """Of a paid call. It is run in the process that controls the run."""

    @property
    def state(self) -> Held | None:
        """Of the actor, if there is a live one yet: who does not get to it gives it back with the outcome."""
        return None if self.actor is None else self.actor.state


@dataclass(frozen=True, slots=True)
class Computed:
    """The body returned."""

    value: Value
    seconds: float
    refs: tuple[CallId, ...] = ()
    """Refs inside the value, and inside of what was put."""
    puts: tuple[tuple[CallId, Value], ...] = ()
    """What the body ``put``: Refs to them may stand in the value."""
    state: Held | None = None
    """What the attempt has left of an actor: the live object, wherever that is."""
    snapshot: Value | None = None
    """The same as bytes, small or in the store; None: none was to be taken, or it could not be stored."""
    linked: bool = False
    """Whether there are Refs inside of what was put."""
    worker: str = ""
    """Which process ran it, for people: ``4711@node-7``; empty: this one."""
    bill: Bill | None = None
    """What a paid call has cost, as its body has said."""


@dataclass(frozen=True, slots=True)
class Raised:
    """The body raised."""

    error: bytes
    """Encoded by ``codec.encode_error``."""
    seconds: float
    did_not_happen: bool = False
    state: Held | None = None
    """As of ``Computed``: the object as the body has left it."""
    snapshot: Value | None = None
    worker: str = ""
    bill: Bill | None = None


@dataclass(frozen=True, slots=True)
class Vanished:
    """The attempt ended without a word: its worker died, it timed out, was cancelled. It has *ended*."""

    reason: str
    seconds: float = 0.0
    lost: tuple[CallId, ...] = ()
    """Inputs whose values are gone, so that the body did not start, or failed: they have to be made again first.

    Of a state, or a snapshot, that is gone: the id of the call that has left it, and ``!state``.
    """
    state: Held | None = None
    """The state that the attempt was given, if its body did not begin to change it: it is where it was."""


Outcome = Computed | Raised | Vanished


class Executor(Protocol):
    """Runs attempts and keeps what they made until told otherwise.

    MUST report each attempt exactly once, from any thread, and never run one again by itself (V11).
    MUST have ended a vanished attempt before it reports it, where it can end one at all (V10).

    Actors: an attempt with a state MUST run where that is, and nowhere else. A state MUST be given to one attempt only:
    one that vanishes takes it along, unless its body did not begin, which it MUST say. A state that is gone MUST be
    reported as ``Vanished(lost=...)``, and nothing be run. Actors MUST NOT wait for each other. ``save``, ``release``
    and ``drop`` take states too; nobody asks for a ``save`` while an attempt has the state.
    """

    name: str
    """By which ``open_executor`` opens it again, in the process that resumes."""
    remote: bool
    """Whether its values may lie on other machines: others get large ones by way of the store, not of this process."""
    has_actors: bool
    """Whether it runs attempts that have an ``actor``; it is given none otherwise."""

    def start(self, attempt: Attempt, report: Callable[[Outcome], None]) -> None:
        """Queue the attempt; returns at once.

        An undo comes under the version of the attempt that it undoes, once that one was reported.
        """

    def cancel(self, version: Version, run_id: RunId) -> None:
        """End the attempt if that can be done; it is then reported as Vanished("cancelled")."""

    def fetch(self, value: Held) -> object:
        """The encoded value (``codec.Encoded``), brought here, or an engine's object that stands for it (``Live``).

        Raises:
            KeyError: it is lost.
        """

    def save(self, value: Held, name: str, report: Callable[[Stored | BaseException], None]) -> None:
        """Write a held value to the store under ``name`` from where it lies; reports what became of it."""

    def save_together(
        self, values: Sequence[Held], name: str, report: Callable[[Sequence[Stored] | BaseException], None]
    ) -> None:
        """The same with values of one outcome, several of them: into one object. All are lost if one is."""

    def release(self, value: Held) -> None:
        """Nobody needs the value any more."""

    def drop(self, value: Held) -> None:
        """Test hook: lose the value as if its worker had died."""

    def close(self) -> None:
        """End every worker. Attempts still running are reported as Vanished or not at all."""


class Clock(Protocol):
    """Time, injected."""

    def now(self) -> float:
        """Seconds since the epoch (UTC)."""

    def monotonic(self) -> float: ...

    def call_at(self, when: float, callback: Callable[[], None]) -> Callable[[], None]:
        """Call back, from any thread, when ``now() >= when``; returns what cancels it."""


Kwargs = Mapping[str, Any]
Names = Sequence[str]
