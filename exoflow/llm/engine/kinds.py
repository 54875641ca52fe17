"""What the values of options are: a wrong one is told where it was written, not where it is used."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


@dataclass(frozen=True, slots=True)
class Kind:
    words: str
    abstract: type[Any]
    own: tuple[type[Any], ...]
    """Values of these types stay as they are."""
    plain: Callable[[Any], object]
    """Makes one of them of any other: of a number of numpy's, say."""


WHOLE = Kind("a whole number", Integral, (int,), int)
NUMBER = Kind("a number", Real, (int, float), float)
TEXT = Kind("a text", str, (str,), str)
FLAG = Kind("True or False", bool, (bool,), bool)


def check_kinds(options: DataclassInstance, kinds: Mapping[str, Kind]) -> None:
    """Fields of a dataclass that is being made. None is right where it is the default.

    Raises:
        TypeError: one is of another kind.
    """
    for field in fields(options):
        value, kind = getattr(options, field.name), kinds.get(field.name)
        if kind is None or (value is None and field.default is None) or type(value) in kind.own:
            continue
        if not isinstance(value, kind.abstract) or isinstance(value, bool):
            raise TypeError(f"{field.name}={value!r}: it is {kind.words}")
        object.__setattr__(options, field.name, kind.plain(value))
