"""Fields and rows that most calls never fill."""

from __future__ import annotations

from typing import Any

import pytest

from exoflow.kernel.call import NOBODY, Call, joined
from exoflow.kernel.rarely import Rarely
from exoflow.model import Annotations, CallId


class Thing:
    __slots__ = ("rare",)

    colour = Rarely[str]("none")
    size = Rarely[int](0)

    def __init__(self) -> None:
        self.rare: dict[str, Any] | None = None


def test_a_rare_field_has_its_default_until_it_is_set() -> None:
    thing, other = Thing(), Thing()
    thing.colour = "red"
    assert (thing.colour, thing.size) == ("red", 0)
    assert (other.colour, other.size) == ("none", 0)


def test_a_rare_field_that_gets_its_default_costs_nothing() -> None:
    thing = Thing()
    thing.size = 0
    assert thing.rare is None


def test_a_rare_field_can_be_set_back_to_its_default() -> None:
    thing = Thing()
    thing.size = 3
    thing.size = 0
    assert thing.size == 0


def test_a_call_joins_an_empty_row_without_joining_every_other_call_s() -> None:
    first, second = Call(CallId("a#0"), Annotations()), Call(CallId("b#0"), Annotations())
    first.takers = joined(joined(first.takers, second), first)
    assert first.takers == [second, first]
    assert second.takers == []


def test_nobody_can_be_put_into_the_empty_row_itself() -> None:
    with pytest.raises(AssertionError, match="use joined"):
        NOBODY.append(1)
