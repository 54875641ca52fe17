"""The tables, for people with their own SQLite tools too."""

from __future__ import annotations

import sqlite3
from zlib import crc32

_MEANING = 1
"""To be raised when the same columns come to mean something else."""

TABLES: dict[str, tuple[dict[str, type], tuple[str, ...]]] = {
    "positions": ({"journal": str, "slot": int, "offset": int, "first_slot": int}, ("journal",)),
    "epochs": ({"journal": str, "run": int, "run_id": str, "epoch": int}, ("journal", "run")),
    "runs": (
        {
            "run_id": str, "flow": str, "version": str, "status": str, "started_s": float, "ended_s": float,
            "journal": str, "epoch": int, "executor": str, "module": str, "file": str, "qualname": str, "cwd": str,
            "labels": str, "error": bytes, "cancel_s": float, "released": int, "waits_for": str, "waits_epoch": int,
        },
        ("run_id",),
    ),
    "labels": ({"run_id": str, "key": str, "value": str, "started_s": float}, ("run_id", "key")),
    "attempts": (
        {
            "run_id": str, "call": str, "version": int, "state": str, "started_s": float, "seconds": float,
            "number": int, "why": str, "saved": str, "size": int, "object": str, "inputs": str, "names": str,
            "reads_at": int, "choice": int, "code": bytes, "error": bytes, "journal": str, "executor": str,
            "worker": str, "actor": str, "input_tokens": int, "output_tokens": int, "cached_tokens": int,
            "nano_usd": int, "maybe_rebilled": int,
        },
        ("run_id", "call", "version"),
    ),
    "intents": (
        {
            "run_id": str, "call": str, "version": int, "what": str, "key": str, "time_s": float, "releases": str,
            "journal": str,
        },
        ("run_id", "call", "version"),
    ),
    "snapshots": ({"run_id": str, "call": str, "version": int}, ("run_id", "call", "version")),
    "undos": (
        {"run_id": str, "call": str, "version": int, "time_s": float, "tries": int}, ("run_id", "call", "version"),
    ),
    "failed_undos": (
        {"run_id": str, "call": str, "version": int, "time_s": float, "tries": int, "error": bytes},
        ("run_id", "call", "version", "time_s"),
    ),
}  # fmt: skip

INDEXES = {
    "runs": (("started_s",), ("flow", "started_s"), ("status", "started_s")),
    "labels": (("key", "value", "started_s"),),
}

CALLS = """
    SELECT run_id, call, max(version) AS version, count(*) AS attempts, state, started_s, seconds, why, saved, size,
        object
    FROM attempts GROUP BY run_id, call
"""
"""A view, so that it cannot disagree with the attempts: SQLite takes the other columns from the row of the max."""

FORMAT = crc32(repr((_MEANING, TABLES, INDEXES, CALLS)).encode()) >> 1
"""Kept in ``user_version``; a file with another one is rebuilt."""


def create(connection: sqlite3.Connection) -> None:
    """Make the tables, their indexes and the view ``calls``."""
    from sqlite_utils import Database  # half a second: only who makes a catalogue pays it

    database = Database(connection)
    for name, (columns, key) in TABLES.items():
        table = database.table(name).create(columns, pk=key if len(key) > 1 else key[0])
        for index in INDEXES.get(name, ()):
            table.create_index(index)
    database.create_view("calls", CALLS)
    connection.execute(f"PRAGMA user_version = {FORMAT}")


def is_sound(connection: sqlite3.Connection) -> bool:
    """Whether this is a catalogue of this format. Raises sqlite3.DatabaseError where it is not even a database."""
    [(found,)] = connection.execute("PRAGMA user_version")
    if found != FORMAT:
        return False
    names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type IN ('table', 'view')")}
    return names.issuperset(TABLES) and "calls" in names
