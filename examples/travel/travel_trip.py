"""A trip: a room and a seat, both or neither, paid once. The body of the flow, without any annotation.

It is written twice, because order is the body's to say: one call after the other, and side by side.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Trip:
    """What the agency answers."""

    status: str
    """booked, sold out, or unknown guest."""
    hotel: str = ""
    flight: str = ""
    paid_cents: int = 0
    receipt: str = ""
    """The key of the order."""


@dataclass(frozen=True, slots=True)
class Steps:
    """The calls that a trip is made of; see travel_desk.py."""

    identify: Any
    search: Any
    acquire: Any
    reserve: Any
    order: Any
    release: Any


Body = Callable[[str, str, str], Trip]


def in_turn(do: Steps) -> Body:
    """Every call waits for the one before."""

    def trip(guest: str, password: str, city: str) -> Trip:
        if not do.identify(guest, password):
            return Trip("unknown guest")
        room = do.acquire("room", do.search("room", city))
        if room is None:
            return Trip("sold out")
        seat = do.acquire("seat", do.search("seat", city))
        if seat is None:
            do.release(room)
            return Trip("sold out")
        booked_room = do.reserve(guest, room)
        booked_seat = do.reserve(guest, seat)
        paid = do.order(guest, booked_room, booked_seat)
        return Trip("booked", room.item, seat.item, paid.amount_cents, paid.key)

    return trip


def side_by_side(do: Steps) -> Body:
    """The room and the seat at once: ``submit`` gives a Ref, which goes into the next call before there is a value."""

    def trip(guest: str, password: str, city: str) -> Trip:
        known = do.identify.submit(guest, password)
        room_ref = do.acquire.submit("room", do.search.submit("room", city))
        seat_ref = do.acquire.submit("seat", do.search.submit("seat", city))
        known, room, seat = known.result(), room_ref.result(), seat_ref.result()
        if not (known and room and seat):
            for acquired in filter(None, (room, seat)):
                do.release(acquired)
            return Trip("sold out" if known else "unknown guest")
        booked_room = do.reserve.submit(guest, room)
        booked_seat = do.reserve.submit(guest, seat)
        paid = do.order(guest, booked_room, booked_seat)
        return Trip("booked", room.item, seat.item, paid.amount_cents, paid.key)

    return trip
