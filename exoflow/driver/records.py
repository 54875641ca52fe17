"""The driver's journal records, as tuples; ``exoflow.journal.records`` has the codes and the encoding.

Every attempt that computed leaves exactly one of SAVED (with its value), MADE (without) and FAILED, in the order in
which the kernel took them. Versions only grow, so these records alone say which results agree (ADR 0001).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from exoflow.journal.records import Kind

Payload = bytes | list[Any] | None
"""An encoded value; or ``["@", name, size]``, an object of the store, or a part of one; or nothing."""


ABSENT = "absent"
"""What a NOTE says of calls whose saved values were found damaged, until they have been made again."""

FAILING = "failing"
"""What a NOTE says before the first undo of a run that has failed and rolls back. It holds the run's error."""

UNDO_FAILED = "undo failed"
"""What a NOTE says of an undo that was given up: its effect is in place."""

WAITING = "waiting"
"""What a NOTE says of a run that only waits. It holds for as long as it is the last record of the run."""


REPEATABLE = "repeatable"
"""What an Intent says of an irrevocable effect whose task wants it repeated rather than to be asked: it is never in
doubt."""

EVENT = 8
"""The bit of ``Result.choice`` that says so."""


ACTOR, DEAD, LINKED, UNHEARD = 16, 32, 64, 128
"""Bits of ``Result.choice``: an actor's call; one that has left no state, nor will any behind it; one that put Refs; a
paid one that failed because its last attempt ended without a word."""


class Start(NamedTuple):
    kind: int
    run: int
    run_id: str
    epoch: int
    time_s: float
    flow: str
    module: str
    file: str | None
    qualname: str
    version: str | None
    code: bytes
    inputs: Payload
    labels: dict[str, str]
    seed: int
    cwd: str
    executor: str


class Result(NamedTuple):
    """SAVED, MADE or FAILED."""

    kind: int
    run: int
    call: str
    version: int
    payload: Payload
    puts: list[list[Any]] | None
    """``[id, payload]`` of every value that the task ``put``."""
    refs: list[str] | None
    """Those inside the value, and of what was put."""
    names: list[str] | None
    reads_at: int
    inputs: list[str] | None
    """Ids of the calls whose Refs stood in the arguments; of an event, the message that it took: ``["inbox/7"]``."""
    arguments: object
    """``codec.fingerprint`` of the arguments."""
    code: bytes
    started_s: float
    seconds: float
    number: int
    why: str | None
    """None for a first attempt; else retry, lost, remade, not saved, ..."""
    choice: int
    """Bits: 1 a choice, 2 has an effect without rollback, 4 a child flow, 8 an event, and those above."""
    newest: int = 0
    """Of a child flow: the newest version among the choices behind its result."""
    place: list[str] | None = None
    """``[executor, worker]``; None: the run's own process."""
    actor: str | None = None
    """Of an actor's call: the call that has created the actor."""
    bill: list[Any] | None = None
    """The fields of ``model.Bill``, of all attempts (behind its intent, of a paid call) that have told theirs."""


BILL = Result._fields.index("bill")


class Snapshot(NamedTuple):
    """The state that an attempt at an actor's call has left, behind the record of its result."""

    kind: int
    run: int
    call: str
    version: int
    payload: Payload


class Intent(NamedTuple):
    kind: int
    run: int
    call: str
    version: int
    what: str
    """irrevocable, repeatable, transaction, idempotent, rollback or paid."""
    names: list[str]
    releases: list[str]
    inputs: Payload
    """For rollback: the arguments by value, for an undo after a crash."""
    time_s: float
    key: str
    reads_at: int = 0


def message_name(number: int) -> str:
    """How the n-th message of a run's inbox stands in the record of the event that took it."""
    return f"inbox/{number}"


def message_number(inputs: Sequence[str]) -> int:
    """The other way round."""
    return int(inputs[0].rpartition("/")[2])


class Undone(NamedTuple):
    kind: int
    run: int
    call: str
    version: int
    time_s: float
    tries: int = 1
    """Of the process that wrote this; 0: there was nothing to undo."""
    takes_back: list[str] | None = None
    """An effect did not happen: what its intent had released can be undone again."""


class Failing(NamedTuple):
    kind: int
    run: int
    what: str
    error: bytes
    time_s: float


class UndoFailed(NamedTuple):
    kind: int
    run: int
    what: str
    call: str
    version: int
    tries: int
    error: bytes
    """The undo's own."""
    time_s: float


class Waiting(NamedTuple):
    kind: int
    run: int
    what: str
    time_s: float
    calls: list[list[Any]]
    """``[call, event, due]`` of some that it waits for: the name of the event, or when the timer is due. None: it goes
    on."""
    total: int
    """How many there are."""


def only_waits(run_records: Sequence[tuple[Any, ...]]) -> bool:
    """Whether the last record of a run says so."""
    last = run_records[-1] if run_records else ()
    return len(last) > 4 and last[0] == Kind.NOTE and last[2] == WAITING and bool(last[4])


class Read(NamedTuple):
    """Several strands: in which order the body was given what it waited for (L9)."""

    kind: int
    run: int
    path: str
    call: str
    version: int
    """Newest choice among what the body had read before."""
    reads_at: int
    """How many reads came before."""
    strand: str = ""


class Called(NamedTuple):
    """Several strands: where among the reads an idempotent effect was called. The others have an Intent for that."""

    kind: int
    run: int
    call: str
    version: int
    """Newest choice among what the body had read before."""
    reads_at: int


class Cancel(NamedTuple):
    kind: int
    run: int
    time_s: float


class Ended(NamedTuple):
    kind: int
    run: int
    status: str
    payload: Payload
    """The result for done, the encoded error for failed."""
    time_s: float
    undo_failed: bool = False
    """An undo was given up, and so was what it was part of; whoever resumes the run goes on with that."""


__all__ = [
    "ABSENT", "FAILING", "UNDO_FAILED", "WAITING", "Called", "Cancel", "Ended", "Failing", "Intent", "Kind", "Payload",
    "Read", "Result", "Snapshot", "Start", "UndoFailed", "Undone", "Waiting",
]  # fmt: skip
