"""JSON data to what annotations say, and back."""

from __future__ import annotations

import enum
import json
import math
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypedDict
from uuid import UUID

import msgspec
import numpy as np
import pydantic
import pytest

from exoflow.conversion import WrongArgument, arguments_of, converted, json_of, plain


class Colour(enum.Enum):
    RED = "red"


@dataclass
class Room:
    nights: int
    price: Decimal = Decimal(1)


@dataclass
class Trip:
    day: date
    rooms: list[Room] = field(default_factory=list)
    by_name: dict[str, Room] = field(default_factory=dict)


class Point(NamedTuple):
    x: int
    y: int


class Size(TypedDict):
    width: int


class Guest(pydantic.BaseModel):
    name: str
    room: Guest | None = None


Positive = Annotated[int, msgspec.Meta(gt=0)]


@pytest.mark.parametrize(
    ("hint", "value", "expected"),
    [
        (Any, {"a": [1]}, {"a": [1]}),
        (object, 1, 1),
        (int, 3, 3),
        (float, 3, 3.0),
        (Colour, "red", Colour.RED),
        (Colour, Colour.RED, Colour.RED),
        (datetime, "2026-03-01T10:00:00Z", datetime(2026, 3, 1, 10, tzinfo=UTC)),
        (timedelta, "PT90S", timedelta(seconds=90)),
        (Decimal, "1.10", Decimal("1.10")),
        (UUID, "12345678123456781234567812345678", UUID("12345678123456781234567812345678")),
        (Path, "a/b", Path("a/b")),
        (Path, Path("a"), Path("a")),
        (bytes, "YQ==", b"a"),
        (int | None, None, None),
        (date | str, "2026-03-01", date(2026, 3, 1)),
        (date | str, "soon", "soon"),
        (Path | int, 1, 1),
        (list[int] | dict[str, int], {"a": 1}, {"a": 1}),
        (Literal["a", 3], 3, 3),
        (tuple[int, ...], [1, 2], (1, 2)),
        (Mapping[int, date], {"1": "2026-03-01"}, {1: date(2026, 3, 1)}),
        (Point, [1, 2], Point(1, 2)),
        (Size, {"width": 1}, {"width": 1}),
        (Room, Room(1), Room(1)),
        (Trip, {"day": "2026-03-01", "rooms": [{"nights": 2}]}, Trip(date(2026, 3, 1), [Room(2)])),
        (list[Guest], [{"name": "a", "room": {"name": "b"}}], [Guest(name="a", room=Guest(name="b"))]),
        (Positive, 1, 1),
    ],
)
def test_json_data_becomes_what_the_annotation_says(hint: Any, value: object, expected: object) -> None:
    made = converted(value, hint)
    assert made == expected
    assert type(made) is type(expected)


@pytest.mark.parametrize(
    ("hint", "value", "message"),
    [
        (int, "3", "$: expected int, got str"),
        (int, True, "$: expected int, got bool"),
        (Trip, {"day": "2026-03-01", "rooms": [{"nights": "x"}]}, "$.rooms[0].nights: expected int, got str"),
        (Trip, {"rooms": []}, "$: object missing required field day"),
        (Trip, {"day": "2026-03-01", "rooms": [{"nights": 1, "prise": 2}]},
         "$.rooms[0].prise: there is no such field; did you mean price?"),
        (Trip, {"day": "2026-03-01", "by_name": {"a": {"nights": 1, "x": 2}}},
         "$.by_name.a.x: there is no such field; there are nights, price"),
        (Size, {"width": 1, "height": 2}, "$.height: there is no such field; there is width"),
        (Colour, "blue", "$: invalid enum value 'blue': it has to be 'red'"),
        (Literal["a", 3], 4, "$: invalid enum value 4: it has to be 'a' or 3"),
        (date | str, 3, "$: expected date, got int; or $: expected str, got int"),
        (Positive, 0, "$: expected int >= 1"),
        (list[Guest], [{"nam": "a"}], "$[0]: name: Field required"),
        (dict[int, int], {"a": 1}, "$: a key: expected int, got str"),
        (np.ndarray, 3, "$: expected ndarray, got int; JSON has no such thing"),
    ],
)  # fmt: skip
def test_an_error_begins_with_the_place_and_says_what_was_expected(hint: Any, value: object, message: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011  # the whole message is compared
        converted(value, hint)
    assert str(caught.value) == message


def test_an_annotation_that_json_cannot_say_is_refused_with_its_name() -> None:
    with pytest.raises(ValueError, match=r"JSON cannot become list\[datetime.date \| str\]"):
        converted([1], list[date | str])


def daily(day: date, parts: int = 2, /, *, deep: bool = False, **rest: int) -> None: ...


def weekly(day: date, rooms: list[Room]) -> None: ...


def untyped(day, parts=1): ...  # type: ignore[no-untyped-def]  # that is the point


def test_arguments_find_their_places() -> None:
    assert arguments_of(daily, {"day": "2026-03-01", "deep": True, "more": 3}) == (
        (date(2026, 3, 1), 2),
        {"deep": True, "more": 3},
    )
    assert arguments_of(untyped, {"day": [1]}) == ((), {"day": [1]})


@pytest.mark.parametrize(
    ("given", "name", "message"),
    [
        ({}, "day", "$.day: it is missing (date)"),
        ({"day": "2026-03-01", "room": 1}, "room", "$.room: weekly has no such parameter; did you mean rooms?"),
        ({"day": 3, "rooms": []}, "day", "$.day: expected date, got int"),
        ({"day": "2026-03-01", "rooms": [{"nights": "x"}]}, "rooms", "$.rooms[0].nights: expected int, got str"),
    ],
)
def test_a_wrong_argument_is_named(given: Any, name: str, message: str) -> None:
    with pytest.raises(WrongArgument) as caught:
        arguments_of(weekly, given)
    assert (caught.value.name, str(caught.value)) == (name, message)


def test_results_become_plain() -> None:
    value = {
        1: Trip(date(2026, 3, 1), [Room(1)]), "t": (Path("a"), Colour.RED), "n": np.float64(1.5),
        "a": np.arange(2), "g": Guest(name="x"), "s": {1}, "b": b"a",
    }  # fmt: skip
    assert plain(value) == {
        "1": {"day": "2026-03-01", "rooms": [{"nights": 1, "price": "1"}], "by_name": {}}, "t": ("a", "red"), "n": 1.5,
        "a": [0, 1], "g": {"name": "x", "room": None}, "s": [1], "b": "YQ==",
    }  # fmt: skip
    assert json_of({"a": (1, "é")}) == '{"a":[1,"é"]}'.encode()
    assert json.loads(json_of("\ud800")) == "\ud800"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"rooms": [1, object()]}, r"^\$\.rooms\[1\]: JSON cannot say a object"),
        (Trip(date(2026, 3, 1), [object()]), r"^\$\.rooms\[0\]: JSON cannot say a object"),  # type: ignore[list-item]
        ({"a": [math.nan]}, r"^\$\.a\[0\]: nan is no JSON number"),
        ({(1, 2): 3}, r"^\$: "),
    ],
)
def test_what_json_cannot_say_is_named_by_its_place(value: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        json_of(value)


def test_msgspec_is_not_loaded_by_the_package() -> None:
    code = "import sys, exoflow, exoflow.conversion; exoflow.flow; exoflow.task; print('msgspec' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "False\n"
