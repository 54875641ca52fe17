"""The desk's functions as ExoFlow calls them, with a database and their key. No annotation stands here."""

from __future__ import annotations

from collections.abc import Sequence

import exoflow
import travel_desk as desk
from travel_desk import Acquired, Booked, Receipt
from travel_tables import reader, writer


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
    with writer().begin() as connection:
        return desk.acquire(connection, exoflow.idempotency_key(), kind, items)


def release(acquired: Acquired) -> None:
    with writer().begin() as connection:
        desk.release(connection, acquired.key)


def reserve(guest: str, acquired: Acquired) -> Booked:
    with writer().begin() as connection:
        return desk.reserve(connection, exoflow.idempotency_key(), guest, acquired)


def order(guest: str, room: Booked, seat: Booked) -> Receipt:
    with writer().begin() as connection:
        return desk.order(connection, exoflow.idempotency_key(), guest, room, seat)


def undo_acquire(key: str, kind: str, items: Sequence[str]) -> None:
    with writer().begin() as connection:
        desk.release(connection, key)


def undo_reserve(key: str, guest: str, acquired: Acquired) -> None:
    with writer().begin() as connection:
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
