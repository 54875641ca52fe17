"""One line about each run: what ``list`` shows."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from exoflow.model import Status

_OPEN_EFFECT = """
    SELECT 1 FROM intents i WHERE i.run_id = r.run_id AND i.what = 'irrevocable'
    AND NOT EXISTS (SELECT 1 FROM attempts a
                    WHERE a.run_id = i.run_id AND a.call = i.call AND a.version > i.version AND a.state != 'made')
    AND NOT EXISTS (SELECT 1 FROM undos u WHERE u.run_id = i.run_id AND u.call = i.call AND u.version >= i.version)
"""
_NOT_UNDONE = """
    SELECT 1 FROM failed_undos f WHERE f.run_id = r.run_id
    AND NOT EXISTS (SELECT 1 FROM undos u WHERE u.run_id = f.run_id AND u.call = f.call AND u.version = f.version)
"""
_WAITS = "CASE WHEN r.waits_epoch = r.epoch THEN r.waits_for END"
_COLUMNS = f"""
    r.run_id, r.flow, r.status, r.started_s, r.ended_s, r.labels, r.executor, r.epoch, r.journal, r.version, r.module,
    r.file, r.qualname, r.cwd, r.error, r.cancel_s, r.released IS r.epoch,
    (SELECT count(DISTINCT call) FROM attempts a WHERE a.run_id = r.run_id),
    r.status IS NULL AND EXISTS ({_OPEN_EFFECT}), EXISTS ({_NOT_UNDONE}), {_WAITS}
"""


@dataclass(frozen=True, slots=True)
class Waits:
    """What a run waits for, while nothing else will bring it on."""

    since_s: float
    """When that was noticed."""
    calls: tuple[tuple[str, str | None, float | None], ...]
    """Some of the calls that it waits for: each with the name of the event, or with when the timer is due."""
    count: int
    """How many there are."""


@dataclass(frozen=True, slots=True)
class RunSummary:
    """A run as its records tell."""

    run_id: str
    flow: str
    status: Status
    started_s: float
    ended_s: float | None
    """None: it has not ended."""
    calls: int
    """Calls with a record."""
    epoch: int
    """How many processes have owned it."""
    labels: Mapping[str, str] = field(default_factory=dict)
    executor: str = ""
    journal: str = ""
    """Of the process that owns it, or owned it last."""
    version: str | None = None
    module: str = ""
    file: str | None = None
    qualname: str = ""
    cwd: str = ""
    error: bytes | None = None
    """Encoded by ``codec.encode_error``."""
    cancel_s: float | None = None
    undo_failed: bool = False
    """An undo has failed for good, and has not been carried out since: an effect is in place that should not be."""
    waits: Waits | None = None
    """Of a run that is waiting."""


def select(
    connection: sqlite3.Connection, alive: Callable[[str], bool], *, run_id: str | None = None,
    status: Status | None = None, flow: str | None = None, labels: Mapping[str, str] | None = None,
    limit: int | None = None,
) -> list[RunSummary]:  # fmt: skip
    """The newest runs first. ``alive`` is asked once for each journal that holds a run without an end."""
    query = _Query()
    if run_id is not None:
        query.where("r.run_id = ?", run_id)
    if flow is not None:
        query.where("(r.flow = ? OR r.qualname = ?)", flow, flow)
    for key, value in (labels or {}).items():
        query.label(key, value)
    lives = _Lives(alive)
    if status in _ENDS:
        query.where("r.status = ?", str(status))
    elif status is not None:
        query.where("r.status IS NULL")
        owners = connection.execute("SELECT DISTINCT journal FROM runs WHERE status IS NULL")
        live = [owner for (owner,) in owners if lives.of(owner)]
        if status in (Status.RUNNING, Status.WAITING):
            query.where(f"r.journal IN ({', '.join('?' * len(live))}) AND r.released IS NOT r.epoch", *live)
            query.where(f"{_WAITS} IS {'NOT ' if status is Status.WAITING else ''}NULL")
        else:
            doubt = f"EXISTS ({_OPEN_EFFECT})" if status is Status.IN_DOUBT else f"NOT EXISTS ({_OPEN_EFFECT})"
            over = f"(r.journal NOT IN ({', '.join('?' * len(live))}) OR r.released IS r.epoch)"
            query.where(f"{over} AND {doubt}", *live)
    rows = connection.execute(query.text(), [*query.values, -1 if limit is None else limit])
    return [_summary(row, lives) for row in rows]


class _Query:
    """Conditions, put together. The first label leads: its index has its runs by time."""

    def __init__(self) -> None:
        self.values: list[object] = []
        self._from, self._by = "runs r", "r.started_s"
        self._conditions = ["r.flow IS NOT NULL"]

    def where(self, condition: str, *values: object) -> None:
        self._conditions.append(condition)
        self.values += values

    def label(self, key: str, value: str) -> None:
        if self._by == "r.started_s":
            self._from, self._by = "labels l JOIN runs r ON r.run_id = l.run_id", "l.started_s"
            self.where("l.key = ? AND l.value = ?", key, value)
        else:
            same = "SELECT 1 FROM labels o WHERE o.run_id = r.run_id AND o.key = ? AND o.value = ?"
            self.where(f"EXISTS ({same})", key, value)

    def text(self) -> str:
        conditions = " AND ".join(self._conditions)
        return f"SELECT {_COLUMNS} FROM {self._from} WHERE {conditions} ORDER BY {self._by} DESC, r.run_id LIMIT ?"


class _Lives:
    """Which journals are alive, each asked for once."""

    def __init__(self, alive: Callable[[str], bool]) -> None:
        self._alive = alive
        self._known: dict[str, bool] = {}

    def of(self, journal: str) -> bool:
        if journal not in self._known:
            self._known[journal] = self._alive(journal)
        return self._known[journal]


_ENDS = (Status.DONE, Status.FAILED, Status.CANCELLED)


def _summary(row: tuple[object, ...], lives: _Lives) -> RunSummary:
    (run_id, flow, ended, started_s, ended_s, labels, executor, epoch, journal, version, module, file, qualname, cwd,
     error, cancel_s, released, calls, in_doubt, not_undone, waits) = row  # fmt: skip
    owner = str(journal)
    if ended is not None:
        status = Status(str(ended))
    elif released or not lives.of(owner):
        status = Status.IN_DOUBT if in_doubt else Status.BROKEN_OFF
    else:
        status = Status.RUNNING if waits is None else Status.WAITING
    return RunSummary(
        str(run_id), str(flow), status, _number(started_s) or 0.0, _number(ended_s), int(str(calls)), int(str(epoch)),
        json.loads(str(labels)) if labels else {}, str(executor or ""), owner, _text(version), str(module or ""),
        _text(file), str(qualname or ""), str(cwd or ""), error if isinstance(error, bytes) else None,
        _number(cancel_s), bool(not_undone), _waits(str(waits)) if status is Status.WAITING else None,
    )  # fmt: skip


def _waits(text: str) -> Waits:
    since_s, calls, count = json.loads(text)
    return Waits(since_s, tuple((str(call), event, due_s) for call, event, due_s in calls), count)


def _number(value: object) -> float | None:
    return value if isinstance(value, float) else None


def _text(value: object) -> str | None:
    return None if value is None else str(value)
