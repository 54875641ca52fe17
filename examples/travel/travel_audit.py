"""The auditor: reads the agency's books, and says what cannot be."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from sqlalchemy import Engine, text

from travel_tables import KINDS

PLACES = """
    SELECT name FROM {table} WHERE free < 0 OR free + (
        SELECT count(*) FROM acquisitions WHERE kind = '{kind}' AND item = {table}.name AND outcome <> 'released'
    ) <> capacity"""

RULES: Mapping[str, Sequence[str]] = {
    "no place is sold that there is not, and none is lost": [
        PLACES.format(table=table, kind=kind) for kind, table in KINDS.items()
    ],
    "no acquisition is left without an outcome": ["SELECT key FROM acquisitions WHERE outcome = 'held'"],
    "what is acquired for good is booked, once": [
        """SELECT key FROM acquisitions WHERE (outcome = 'booked') <> (1 = (
               SELECT count(*) FROM bookings WHERE acquisition = acquisitions.key AND state = 'booked'))"""
    ],
    "what is booked is paid, once": [
        """SELECT key FROM bookings WHERE (state = 'booked') <> (1 = (
               SELECT count(*) FROM orders WHERE bookings.key IN (room, seat)))"""
    ],
    "an order is for a room and a seat of the same guest, at their prices": [
        """SELECT orders.key FROM orders
               LEFT JOIN bookings AS room ON room.key = orders.room
               LEFT JOIN bookings AS seat ON seat.key = orders.seat
               LEFT JOIN acquisitions AS r ON r.key = room.acquisition AND r.kind = 'room'
               LEFT JOIN acquisitions AS s ON s.key = seat.acquisition AND s.kind = 'seat'
           WHERE coalesce(room.guest, '') <> orders.guest OR coalesce(seat.guest, '') <> orders.guest
               OR coalesce(r.price_cents + s.price_cents, -1) <> amount_cents"""
    ],
}
"""What must hold when nobody is served: queries that find what breaks it."""


def audit(database: Engine) -> list[str]:
    """Everything that is wrong in the books; nothing, if they are clean. Nobody may be at work on them."""
    wrong = []
    with database.connect() as connection:
        for rule, queries in RULES.items():
            found = [str(row[0]) for query in queries for row in connection.execute(text(query))]
            if found:
                wrong.append(f"{rule}: broken {len(found)} times, by {', '.join(found[:3])}")
    orders = receipts(database)
    trips = {key.partition("/")[0] for key in orders}  # a key is the run's id, a slash, the call's
    if len(trips) < len(orders):
        wrong.append(f"nobody is booked twice: there are {len(orders)} orders of {len(trips)} trips")
    return wrong


def compare(orders: Collection[str], answers: Mapping[str, Mapping[str, object]]) -> list[str]:
    """What the guests were told and the books do not say, and the other way round.

    Args:
        orders: Keys of those that were made meanwhile.
        answers: What each request was answered in the end, by its idempotency key.
    """
    told = [str(answer["receipt"]) for answer in answers.values() if answer["status"] == "booked"]
    wrong = []
    if len(set(told)) < len(told):
        wrong.append(f"each guest has an order of their own: {len(told)} were told of {len(set(told))}")
    if missing := set(told) - set(orders):
        wrong.append(f"who is told so is booked: {len(missing)} are not, as {min(missing)}")
    if extra := set(orders) - set(told):
        wrong.append(f"who is booked is told so: {len(extra)} were not, as {min(extra)}")
    return wrong


def receipts(database: Engine) -> set[str]:
    """The keys of all orders."""
    with database.connect() as connection:
        return {str(key) for key in connection.execute(text("SELECT key FROM orders")).scalars()}


def summary(database: Engine) -> str:
    """The books in one line."""
    counts = {
        "orders": "SELECT count(*) FROM orders",
        "bookings": "SELECT count(*) FROM bookings WHERE state = 'booked'",
        "cancelled": "SELECT count(*) FROM bookings WHERE state = 'cancelled'",
        "acquisitions": "SELECT count(*) FROM acquisitions",
        "released": "SELECT count(*) FROM acquisitions WHERE outcome = 'released'",
    }
    with database.connect() as connection:
        return ", ".join(f"{connection.execute(text(sql)).scalar()} {name}" for name, sql in counts.items())
