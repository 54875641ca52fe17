"""What ``--arg name=text`` becomes."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

import pytest

from exoflow.cli.arguments import arguments
from exoflow.cli.failures import WrongUsage


class Colour(enum.Enum):
    RED = 1


@dataclass
class Point:
    x: float
    name: str = "here"


def flow_of(hint: Any) -> Any:
    def flow(value): ...  # type: ignore[no-untyped-def]  # the annotation is what is tested

    flow.__annotations__["value"] = hint
    return flow


@pytest.mark.parametrize(
    ("hint", "text", "expected"),
    [
        (Any, "3", 3),
        (Any, "three", "three"),
        (Any, '{"a": [1]}', {"a": [1]}),
        (int, "3", 3),
        (float, "3", 3.0),
        (float, "1e3", 1000.0),
        (str, "2026", "2026"),
        (str, '"2026"', "2026"),
        (str, "true", "true"),
        (bool, "true", True),
        (bool, "False", False),
        (Path, "data/in.csv", Path("data/in.csv")),
        (date, "2026-03-01", date(2026, 3, 1)),
        (Colour, "RED", Colour.RED),
        (Colour, "1", Colour.RED),
        (Colour | None, "RED", Colour.RED),
        (Decimal, "1.10", Decimal("1.10")),
        (date | str, "soon", "soon"),
        (bytes, "a", b"a"),
        (None, "None", None),
        (Literal["fast", 3], "fast", "fast"),
        (Literal["fast", 3], "3", 3),
        (int | None, "null", None),
        (int | str, "3", 3),
        (str | int, "3", 3),
        (int | str, "x", "x"),
        (Path | None, "a", Path("a")),
        (list[int], "[1, 2]", [1, 2]),
        (list[date], '["2026-03-01"]', [date(2026, 3, 1)]),
        (tuple[int, str], '[1, "a"]', (1, "a")),
        (tuple[int, ...], "[1, 2]", (1, 2)),
        (set[str], '["a"]', {"a"}),
        (dict[str, float], '{"a": 1}', {"a": 1.0}),
        (Point, '{"x": 1}', Point(1.0)),
        (list[Point], '[{"x": 1, "name": "there"}]', [Point(1.0, "there")]),
    ],
)
def test_a_text_becomes_what_the_annotation_says(hint: Any, text: str, expected: object) -> None:
    args, kwargs = arguments(flow_of(hint), [f"value={text}"])
    assert args == ()
    assert kwargs == {"value": expected}
    assert type(kwargs["value"]) is type(expected)


@pytest.mark.parametrize(
    ("hint", "text", "words"),
    [
        (int, "x", "'x' is no int"),
        (int, "true", "is no int"),
        (int, "1.5", "is no int: expected int, got float"),
        (bool, "1", "is no bool"),
        (date, "soon", "'soon' is no date: invalid RFC3339"),
        (Literal["fast", "slow"], "quick", "it has to be 'fast' or 'slow'"),
        (list[int], "[1, null]", "is no list"),
        (tuple[int, int], "[1]", "length 2"),
        (Point, '{"y": 1}', "missing required field x"),
        (int | None, "x", "'x' is no int | None"),
    ],
)
def test_an_error_names_the_argument_and_what_it_should_be(hint: Any, text: str, words: str) -> None:
    with pytest.raises(WrongUsage, match=words) as caught:
        arguments(flow_of(hint), [f"value={text}"])
    assert str(caught.value).startswith("--arg value: ")


def daily(day: str, parts: int = 2, /, *, deep: bool = False, **rest: int) -> None: ...


def test_positional_only_parameters_and_the_rest_find_their_places() -> None:
    assert arguments(daily, ["day=2026", "deep=true", "more=3"]) == (("2026", 2), {"deep": True, "more": 3})


def test_a_missing_argument_is_named_with_its_type() -> None:
    with pytest.raises(WrongUsage, match=r"--arg day: it is missing \(str\)"):
        arguments(daily, [])


def test_an_unknown_argument_is_answered_with_the_nearest() -> None:
    def weekly(day: str, parts: int = 2) -> None: ...

    with pytest.raises(WrongUsage, match=r"--arg dya: weekly has no such parameter; did you mean day\?"):
        arguments(weekly, ["dya=1"])
    with pytest.raises(WrongUsage, match="there are day, parts"):
        arguments(weekly, ["zzz=1"])


@pytest.mark.parametrize(("texts", "words"), [(["day"], "write NAME=VALUE"), (["day=1", "day=2"], "given twice")])
def test_malformed_arguments_are_refused(texts: list[str], words: str) -> None:
    with pytest.raises(WrongUsage, match=words):
        arguments(daily, texts)
