"""Journal records into rows. A record may come twice, and those of two journals in any order."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable

from exoflow.driver.records import (
    UNDO_FAILED,
    Cancel,
    Ended,
    Intent,
    Result,
    Snapshot,
    Start,
    UndoFailed,
    Undone,
    Waiting,
    only_waits,
)
from exoflow.journal.catalogue import Read
from exoflow.journal.records import STORED_MARK, Kind
from exoflow.protocols import Record

Row = tuple[object, ...]

_ROWS_AT_ONCE = 20_000

# The newest epoch says who owns a run and how it ended; an older one only adds what is not known yet.
_RUN = """
    INSERT INTO runs (run_id, journal, epoch, flow, version, started_s, executor, module, file, qualname, cwd, labels)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (run_id) DO UPDATE SET
        flow = excluded.flow, version = excluded.version, started_s = excluded.started_s, executor = excluded.executor,
        module = excluded.module, file = excluded.file, qualname = excluded.qualname, cwd = excluded.cwd,
        labels = excluded.labels
"""
_OWNER = """
    INSERT INTO runs (run_id, journal, epoch) VALUES (?, ?, ?)
    ON CONFLICT (run_id) DO UPDATE SET
        status = CASE WHEN excluded.epoch > epoch THEN NULL ELSE status END,
        ended_s = CASE WHEN excluded.epoch > epoch THEN NULL ELSE ended_s END,
        error = CASE WHEN excluded.epoch > epoch THEN NULL ELSE error END,
        journal = CASE WHEN excluded.epoch > epoch THEN excluded.journal ELSE journal END,
        epoch = max(epoch, excluded.epoch)
"""
_EPOCH = "INSERT OR REPLACE INTO epochs (journal, run, run_id, epoch) VALUES (?, ?, ?, ?)"
_LABEL = "INSERT OR REPLACE INTO labels (run_id, key, value, started_s) VALUES (?, ?, ?, ?)"
# An attempt that was made may be saved later; what is saved stays so.
_ATTEMPT = """
    INSERT INTO attempts (run_id, call, version, state, started_s, seconds, number, why, saved, size, object, inputs,
        names, reads_at, choice, code, error, journal, executor, worker, actor, input_tokens, output_tokens,
        cached_tokens, nano_usd, maybe_rebilled)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (run_id, call, version) DO UPDATE SET
        state = excluded.state, saved = excluded.saved, size = excluded.size, object = excluded.object,
        names = excluded.names
    WHERE state = 'made' AND excluded.state != 'made'
"""
_INTENT = """
    INSERT OR IGNORE INTO intents (run_id, call, version, what, key, time_s, releases, journal)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?)
"""
_SNAPSHOT = "INSERT OR IGNORE INTO snapshots (run_id, call, version) VALUES (?, ?, ?)"
_UNDO = "INSERT OR IGNORE INTO undos (run_id, call, version, time_s, tries) VALUES (?, ?, ?, ?, ?)"
_FAILED_UNDO = """
    INSERT OR IGNORE INTO failed_undos (run_id, call, version, time_s, tries, error) VALUES (?, ?, ?, ?, ?, ?)
"""
_CANCEL = "UPDATE runs SET cancel_s = ? WHERE run_id = ?"
_RELEASE = "UPDATE runs SET released = epoch WHERE run_id = ? AND epoch = ?"
_END = "UPDATE runs SET status = ?, ended_s = ?, error = ? WHERE run_id = ? AND epoch = ?"

# What a run waits for is told by its last record; any other one says that it goes on.
_WAITS = """
    UPDATE runs SET waits_for = ?1, waits_epoch = ?2 WHERE run_id = ?3
    AND (waits_for IS NOT NULL OR ?1 IS NOT NULL) AND coalesce(waits_epoch, 0) <= ?2
"""

_BILLED = 5
"""So many fields of a bill are columns."""
_NO_BILL = (None,) * _BILLED

_STATES: dict[int, str] = {Kind.SAVED: "saved", Kind.MADE: "made", Kind.FAILED: "failed"}


class Intake:
    """Rows of many records, written table by table: a row at a time is four times slower."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        statements = (
            _RUN, _OWNER, _EPOCH, _LABEL, _ATTEMPT, _SNAPSHOT, _INTENT, _UNDO, _FAILED_UNDO, _CANCEL, _RELEASE, _END,
            _WAITS,
        )  # fmt: skip
        self._rows: dict[str, list[Row]] = {statement: [] for statement in statements}
        self._queued = 0
        self._waits: dict[str, tuple[str | None, int]] = {}
        """What each run waits for, by its last record so far."""
        self._kinds: dict[int, Callable[[str, str, int, Record], None]] = {
            Kind.START: self._start,
            Kind.ADOPTED: self._owner,
            Kind.SAVED: self._result,
            Kind.MADE: self._result,
            Kind.FAILED: self._result,
            Kind.SNAPSHOT: self._snapshot,
            Kind.INTENT: self._intent,
            Kind.UNDONE: self._undone,
            Kind.NOTE: self._note,
            Kind.CANCEL: self._cancel,
            Kind.ENDED: self._ended,
            Kind.RELEASED: self._released,
        }

    def take(self, read: Read) -> None:
        """Queue one record's rows. Kinds that no table tells of are passed over."""
        journal, slot, _, run_id, epoch, record = read
        kind = record[0]
        self._waits[run_id] = _waits(record), epoch
        taken = self._kinds.get(kind)
        if taken is None:
            return
        taken(journal, run_id, epoch, record)
        if kind in (Kind.START, Kind.ADOPTED):
            if slot >= 0:
                self._rows[_EPOCH].append((journal, record[1], run_id, epoch))
            else:  # of a pack: its records begin with the Start of the first epoch, whichever epoch it is of
                self._owner(journal, run_id, epoch, record)
        self._queued += 1
        if self._queued >= _ROWS_AT_ONCE:
            self.flush()

    def flush(self) -> None:
        self._rows[_WAITS].extend((waits, epoch, run_id) for run_id, (waits, epoch) in self._waits.items())
        self._waits.clear()
        for statement, rows in self._rows.items():
            if rows:
                self._connection.executemany(statement, rows)
                rows.clear()
        self._queued = 0

    def _start(self, journal: str, run_id: str, epoch: int, record: Record) -> None:
        start = Start._make(record)
        labels = dict(start.labels or {})
        self._rows[_RUN].append((
            run_id, journal, start.epoch, start.flow, start.version, start.time_s, start.executor, start.module,
            _text(start.file), start.qualname, _text(start.cwd), json.dumps(labels),
        ))  # fmt: skip
        self._rows[_LABEL].extend((run_id, key, value, start.time_s) for key, value in labels.items())

    def _owner(self, journal: str, run_id: str, epoch: int, record: Record) -> None:
        self._rows[_OWNER].append((run_id, journal, epoch))

    def _result(self, journal: str, run_id: str, epoch: int, record: Record) -> None:
        result = Result(*record)
        state = _STATES[result.kind]
        saved, size, name = _placed(result.payload) if state == "saved" else ("not saved", None, None)
        self._rows[_ATTEMPT].append((
            run_id, result.call, result.version, state, result.started_s, result.seconds, result.number, result.why,
            "error" if state == "failed" else saved, size, name, _listed(result.inputs), _listed(result.names),
            result.reads_at, result.choice, result.code, _error(result.payload) if state == "failed" else None, journal,
            *_place(result.place), result.actor if isinstance(result.actor, str) else None,
            *(result.bill[:_BILLED] if result.bill else _NO_BILL),
        ))  # fmt: skip

    def _snapshot(self, journal: str, run_id: str, epoch: int, record: Record) -> None:
        snapshot = Snapshot(*record)
        self._rows[_SNAPSHOT].append((run_id, snapshot.call, snapshot.version))

    def _intent(self, journal: str, run_id: str, epoch: int, record: Record) -> None:
        intent = Intent._make(record)
        releases = _listed(intent.releases)
        row = (run_id, intent.call, intent.version, intent.what, intent.key, intent.time_s, releases, journal)
        self._rows[_INTENT].append(row)

    def _undone(self, journal: str, run_id: str, epoch: int, record: Record) -> None:
        undone = Undone(*record)
        self._rows[_UNDO].append((run_id, undone.call, undone.version, undone.time_s, undone.tries))

    def _note(self, journal: str, run_id: str, epoch: int, record: Record) -> None:
        if record[2] == UNDO_FAILED:
            failed = UndoFailed(*record)
            row = (run_id, failed.call, failed.version, failed.time_s, failed.tries, failed.error)
            self._rows[_FAILED_UNDO].append(row)

    def _cancel(self, journal: str, run_id: str, epoch: int, record: Record) -> None:
        self._rows[_CANCEL].append((Cancel._make(record).time_s, run_id))

    def _released(self, journal: str, run_id: str, epoch: int, record: Record) -> None:
        self._rows[_RELEASE].append((run_id, epoch))

    def _ended(self, journal: str, run_id: str, epoch: int, record: Record) -> None:
        ended = Ended(*record)
        error = _error(ended.payload) if ended.status != "done" else None
        self._rows[_END].append((ended.status, ended.time_s, error, run_id, epoch))


def _placed(payload: object) -> tuple[str, int | None, str | None]:
    """How a saved value lies in the store: in words, its size, and its object's name."""
    if isinstance(payload, (bytes, memoryview)):
        return "inline", len(payload), None
    if isinstance(payload, (list, tuple)) and len(payload) in (3, 5) and payload[0] == STORED_MARK:
        return "object", int(payload[2]), str(payload[1])
    return "inline", 0, None


def _place(place: object) -> tuple[str | None, str | None]:
    """The executor, and the worker, as far as the record tells."""
    match place:
        case (str(executor), str(worker)):
            return executor, worker
        case _:
            return None, None


def _waits(record: Record) -> str | None:
    """What the run waits for, if this record says so."""
    if not only_waits((record,)):
        return None
    waiting = Waiting(*record)
    return json.dumps([waiting.time_s, waiting.calls, waiting.total])


def _error(payload: object) -> bytes | None:
    """An encoded error, where it is small enough to ride in its record."""
    return payload if isinstance(payload, bytes) else None


def _text(path: str | None) -> str | None:
    """A path as SQLite can keep it: one that is no UTF-8 holds surrogates."""
    return None if path is None else path.encode(errors="backslashreplace").decode()


def _listed(names: Iterable[str] | None) -> str | None:
    return json.dumps(list(names)) if names else None
