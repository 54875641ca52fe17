"""The agency's database: hotels with rooms, flights with seats, and what became of each. SQLite or PostgreSQL."""

from __future__ import annotations

import hashlib
import os
import random
from functools import cache
from typing import Any

from sqlalchemy import (
    CheckConstraint,
    Column,
    Engine,
    ForeignKey,
    Integer,
    MetaData,
    String,
    Table,
    create_engine,
    event,
)

DATABASE = os.environ.get("TRAVEL_DATABASE", "sqlite:///travel.sqlite")
CITIES = ("Bern", "Kyoto", "Lima", "Oslo", "Porto")

metadata = MetaData()


def stock(name: str) -> Table:
    """Something of which each has so many places; both sides of a trip look alike."""
    return Table(
        name,
        metadata,
        Column("name", String, primary_key=True),
        Column("city", String, nullable=False, index=True),
        Column("rating", Integer, nullable=False),
        Column("price_cents", Integer, nullable=False),
        Column("capacity", Integer, nullable=False),
        Column("free", Integer, CheckConstraint("free >= 0"), nullable=False),
    )


hotels = stock("hotels")
flights = stock("flights")
KINDS = {"room": "hotels", "seat": "flights"}
"""What a trip needs one of each, and where there are some."""

users = Table(
    "users",
    metadata,
    Column("name", String, primary_key=True),
    Column("password_sha256", String, nullable=False),
)

# Each row below is an effect. It stands at the idempotency key of the task call that made it: the same call finds it
# again, and an undo leaves its mark where a call that comes late would write.
acquisitions = Table(
    "acquisitions",
    metadata,
    Column("key", String, primary_key=True),
    Column("kind", String, nullable=False),
    Column("item", String, nullable=False),
    Column("price_cents", Integer, nullable=False),
    Column("outcome", String, CheckConstraint("outcome IN ('held', 'booked', 'released')"), nullable=False),
)
bookings = Table(
    "bookings",
    metadata,
    Column("key", String, primary_key=True),
    Column("acquisition", String, ForeignKey("acquisitions.key")),
    Column("guest", String, nullable=False),
    Column("state", String, CheckConstraint("state IN ('booked', 'cancelled')"), nullable=False),
)
orders = Table(
    "orders",
    metadata,
    Column("key", String, primary_key=True),
    Column("guest", String, nullable=False),
    Column("room", String, ForeignKey("bookings.key"), nullable=False),
    Column("seat", String, ForeignKey("bookings.key"), nullable=False),
    Column("amount_cents", Integer, nullable=False),
)


@cache
def writer() -> Engine:
    """For what changes something.

    SQLite lets one write at a time: where there is one connection, they queue for it instead of polling its lock.
    """
    if not DATABASE.startswith("sqlite"):
        return create_engine(DATABASE, pool_size=40, pool_pre_ping=True)
    engine = create_engine(DATABASE, pool_size=1, max_overflow=0)
    event.listen(engine, "connect", _set_up)
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
    return engine


@cache
def reader() -> Engine:
    """For what only looks."""
    if not DATABASE.startswith("sqlite"):
        return writer().execution_options(isolation_level="AUTOCOMMIT")
    engine = create_engine(DATABASE, pool_size=40)
    event.listen(engine, "connect", _set_up)
    return engine


def _set_up(connection: Any, _: object) -> None:
    connection.isolation_level = None  # Python's own BEGIN comes too late to be a writer's
    for pragma in ("busy_timeout=30000", "journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")


def fill(places: int = 1_000, each: int = 10, guests: int = 100) -> None:
    """Make all tables anew: in each city ``each`` hotels and as many flights, with ``places`` places each."""
    chance = random.Random(2020)
    with writer().begin() as connection:
        metadata.drop_all(connection)
        metadata.create_all(connection)
        for kind, table in (("Hotel", hotels), ("Flight", flights)):
            rows = [
                {
                    "city": city,
                    "name": f"{kind} {number} {city}",
                    "rating": chance.randint(1, 5),
                    "price_cents": chance.randint(40, 400) * 100,
                    "capacity": places,
                    "free": places,
                }
                for city in CITIES
                for number in range(1, each + 1)
            ]
            connection.execute(table.insert(), rows)
        names = [f"guest{number}" for number in range(guests)]
        connection.execute(users.insert(), [{"name": name, "password_sha256": digest(name)} for name in names])


def digest(password: str) -> str:
    return hashlib.sha256(password.encode()).hexdigest()
