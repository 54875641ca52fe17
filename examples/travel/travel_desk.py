"""What the agency does, in SQL and without ExoFlow.

Each function that changes something does it once for the key that it is given, however often it is called, and leaves
its mark there. The SQL is SQLite's and PostgreSQL's alike.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import Connection, CursorResult, text

from travel_tables import KINDS, digest


class Acquired(NamedTuple):
    key: str
    kind: str
    item: str
    price_cents: int


class Booked(NamedTuple):
    key: str
    price_cents: int


class Receipt(NamedTuple):
    key: str
    amount_cents: int


class TooLate(Exception):
    """What this key stands for was undone before."""


def identify(connection: Connection, name: str, password: str) -> bool:
    """Whether they are who they say."""
    found = run(connection, "SELECT password_sha256 FROM users WHERE name = :name", name=name)
    return found.scalar() == digest(password)


def search(connection: Connection, kind: str, city: str) -> list[str]:
    """What has something free in a city."""
    sql = f"SELECT name FROM {KINDS[kind]} WHERE city = :city AND free > 0 ORDER BY name"
    return list(run(connection, sql, city=city).scalars())


def recommend(connection: Connection, kind: str, city: str, by: str) -> list[str]:
    """The five cheapest, or the five best."""
    order = {"price": "price_cents", "rating": "rating DESC"}[by]
    sql = f"SELECT name FROM {KINDS[kind]} WHERE city = :city AND free > 0 ORDER BY {order}, name LIMIT 5"
    return list(run(connection, sql, city=city).scalars())


def acquire(connection: Connection, key: str, kind: str, items: Sequence[str]) -> Acquired | None:
    """Hold a place in one of these, chance says which, until it is booked or released. None: there is no place left."""
    for item in random.sample(items, len(items)):
        sql = f"UPDATE {KINDS[kind]} SET free = free - 1 WHERE name = :item AND free > 0 RETURNING price_cents"
        price_cents = run(connection, sql, item=item).scalar()
        if price_cents is not None:
            break
    else:
        return _acquired_before(connection, key)  # the last place may be the one that this key has
    acquired = Acquired(key, kind, item, price_cents)
    sql = "INSERT INTO acquisitions VALUES (:key, :kind, :item, :price_cents, 'held') ON CONFLICT DO NOTHING"
    if run(connection, sql, **acquired._asdict()).rowcount:
        return acquired
    _give_back(connection, kind, item)
    return _acquired_before(connection, key)


def _acquired_before(connection: Connection, key: str) -> Acquired | None:
    sql = "SELECT outcome, key, kind, item, price_cents FROM acquisitions WHERE key = :key"
    before = run(connection, sql, key=key).first()
    if before is None:
        return None
    if before.outcome == "released":
        raise TooLate(f"{key} was released")
    return Acquired(*before[1:])


def release(connection: Connection, key: str) -> None:
    """Give back what was acquired and not booked. Nothing was yet: see to it that this key acquires nothing later."""
    run(connection, "INSERT INTO acquisitions VALUES (:key, '', '', 0, 'released') ON CONFLICT DO NOTHING", key=key)
    sql = "UPDATE acquisitions SET outcome = 'released' WHERE key = :key AND outcome = 'held' RETURNING kind, item"
    held = run(connection, sql, key=key).first()
    if held is not None:
        _give_back(connection, held.kind, held.item)


def _give_back(connection: Connection, kind: str, item: str) -> None:
    run(connection, f"UPDATE {KINDS[kind]} SET free = free + 1 WHERE name = :item", item=item)


def reserve(connection: Connection, key: str, guest: str, acquired: Acquired) -> Booked:
    """Book for a guest what was acquired."""
    sql = "INSERT INTO bookings VALUES (:key, :acquisition, :guest, 'booked') ON CONFLICT DO NOTHING"
    if run(connection, sql, key=key, acquisition=acquired.key, guest=guest).rowcount:
        sql = "UPDATE acquisitions SET outcome = 'booked' WHERE key = :key AND outcome = 'held'"
        if not run(connection, sql, key=acquired.key).rowcount:
            raise TooLate(f"{acquired.key} is not held any more")
    elif run(connection, "SELECT state FROM bookings WHERE key = :key", key=key).scalar() == "cancelled":
        raise TooLate(f"{key} was cancelled")
    return Booked(key, acquired.price_cents)


def cancel(connection: Connection, key: str) -> None:
    """Undo a booking: what it booked is held again. Nothing was yet: see to it that this key books nothing later."""
    run(connection, "INSERT INTO bookings VALUES (:key, NULL, '', 'cancelled') ON CONFLICT DO NOTHING", key=key)
    sql = "UPDATE bookings SET state = 'cancelled' WHERE key = :key AND state = 'booked' RETURNING acquisition"
    booked = run(connection, sql, key=key).first()
    if booked is not None:
        sql = "UPDATE acquisitions SET outcome = 'held' WHERE key = :key AND outcome = 'booked'"
        run(connection, sql, key=booked.acquisition)


def order(connection: Connection, key: str, guest: str, room: Booked, seat: Booked) -> Receipt:
    """Charge the guest, for good."""
    amount_cents = room.price_cents + seat.price_cents
    sql = "INSERT INTO orders VALUES (:key, :guest, :room, :seat, :amount_cents) ON CONFLICT DO NOTHING"
    run(connection, sql, key=key, guest=guest, room=room.key, seat=seat.key, amount_cents=amount_cents)
    return Receipt(key, amount_cents)


def run(connection: Connection, sql: str, **values: object) -> CursorResult[Any]:
    return connection.execute(statement(sql), values)


statement = cache(text)
