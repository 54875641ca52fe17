"""The travel agency without durability: a crash leaves what it leaves, and the same request again is another trip."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import count
from typing import Any

from travel_front import parse, serve

import travel_desk as desk  # isort: skip  # on the path since the line above
from travel_tables import reader, writer
from travel_trip import Steps, Trip, in_turn


def reserve(key: str, guest: str, password: str, city: str) -> Trip:
    numbers = count()

    def look(function: Callable[..., Any], *args: object) -> Any:
        with reader().connect() as connection:
            return function(connection, *args)

    def act(function: Callable[..., Any], *args: object) -> Any:
        with writer().begin() as connection:
            return function(connection, f"{key}/{next(numbers)}", *args)

    def release(acquired: desk.Acquired) -> None:
        with writer().begin() as connection:
            desk.release(connection, acquired.key)

    steps = Steps(
        identify=partial(look, desk.identify),
        search=partial(look, desk.search),
        acquire=partial(act, desk.acquire),
        release=release,
        reserve=partial(act, desk.reserve),
        order=partial(act, desk.order),
    )
    return in_turn(steps)(guest, password, city)


words = parse()
serve(reserve, words.port, words.threads)
