"""The desk's functions as ExoFlow calls them, with a database and their key. No annotation stands here."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from sqlalchemy import Connection

import exoflow
import travel_desk as desk
from travel_desk import Acquired, Booked, Receipt
from travel_tables import reader, writer

AWAY_S = float(os.environ.get("TRAVEL_AWAY_MS", "0")) / 1e3
"""How far away the agency's partners are: so long is their answer on its way when they have done their work."""


@contextmanager
def writing() -> Iterator[Connection]:
    with writer().begin() as connection:
        yield connection
    if AWAY_S:
        time.sleep(AWAY_S)


def identify(guest: str, password: str) -> bool:
    with reader().connect() as connection:
        return desk.identify(connection, guest, password)


def search(kind: str, city: str) -> list[str]:
    with reader().connect() as connection:
        return desk.search(connection, kind, city)


def recommend(kind: str, city: str, by: str) -> list[str]:
    with reader().connect() as connection:
        return desk.recommend(connection, kind, city, by)


def acquire(kind: str, items: Sequence[str]) -> Acquired | None:
    with writing() as connection:
        return desk.acquire(connection, exoflow.idempotency_key(), kind, items)


def release(acquired: Acquired) -> None:
    with writing() as connection:
        desk.release(connection, acquired.key)


def reserve(guest: str, acquired: Acquired) -> Booked:
    with writing() as connection:
        return desk.reserve(connection, exoflow.idempotency_key(), guest, acquired)


def order(guest: str, room: Booked, seat: Booked) -> Receipt:
    with writing() as connection:
        return desk.order(connection, exoflow.idempotency_key(), guest, room, seat)


def undo_acquire(key: str, kind: str, items: Sequence[str]) -> None:
    with writing() as connection:
        desk.release(connection, key)


def undo_reserve(key: str, guest: str, acquired: Acquired) -> None:
    with writing() as connection:
        desk.cancel(connection, key)


# In a transaction that ExoFlow begins and commits, together with the mark that it happened.


def acquire_in(kind: str, items: Sequence[str]) -> Acquired | None:
    return desk.acquire(exoflow.connection(), exoflow.idempotency_key(), kind, items)


def release_in(acquired: Acquired) -> None:
    desk.release(exoflow.connection(), acquired.key)


def reserve_in(guest: str, acquired: Acquired) -> Booked:
    return desk.reserve(exoflow.connection(), exoflow.idempotency_key(), guest, acquired)


def order_in(guest: str, room: Booked, seat: Booked) -> Receipt:
    return desk.order(exoflow.connection(), exoflow.idempotency_key(), guest, room, seat)
