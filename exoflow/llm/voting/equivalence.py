"""When two answers are the same answer. What ``vote(equivalence=...)`` takes gives the same key for them."""

from __future__ import annotations

import dataclasses
import unicodedata
from collections.abc import Callable, Hashable, Mapping
from decimal import Decimal
from fractions import Fraction
from typing import Any

DEEPEST = 100
"""Levels of containers in an answer. One of more can be neither compared nor recorded, which is done by recursion."""


def canonical(answer: object) -> Hashable:
    """The key of an answer: numbers by value (1.0 is 1), text whatever its case and spaces, containers by content.

    What ``response_format`` makes of an answer, a dataclass or the like, is its fields. Text is not read as a number:
    that is for ``parse``.

    Raises:
        TypeError: there is no telling when two such are the same.
    """
    if isinstance(answer, str):
        return " ".join(unicodedata.normalize("NFKC", answer).casefold().split())
    if isinstance(answer, int | float | Decimal | Fraction):
        return _number(answer)
    content = _by_content(answer, canonical)
    return verbatim(answer) if content is None else content


def verbatim(answer: object) -> Hashable:
    """The answer is its own key: two are the same if Python says so. What has no hash is compared by content.

    Raises:
        TypeError: it cannot be compared so.
    """
    kind = type(answer)
    is_compared = kind.__eq__ is not object.__eq__ or kind.__hash__ is not object.__hash__
    if is_compared and is_hashable(answer):
        return answer
    content = _by_content(answer, verbatim)
    if content is not None:
        return content
    why = "it is not hashable" if is_compared else "no two of its kind are the same"
    raise TypeError(
        f"{answer!r} is no answer that can be counted: {why}. Let parse return text, a number or a "
        f"container of such, or give equivalence=, a function from an answer to a key"
    )


def is_hashable(answer: object) -> bool:
    try:
        hash(answer)
    except TypeError:  # a tuple of lists too
        return False
    return True


def is_deep(answer: object, levels: int = DEEPEST) -> bool:
    """Whether containers are nested in it to more levels than that."""
    opened = _opened(answer)
    if isinstance(opened, Mapping):
        opened = [*opened, *opened.values()]
    if not isinstance(opened, list | tuple | set | frozenset):
        return False
    return not levels or any(is_deep(each, levels - 1) for each in opened)


def _by_content(answer: object, key: Callable[[object], Hashable]) -> Hashable | None:
    """None: it is no container."""
    opened = _opened(answer)
    if isinstance(opened, Mapping):
        return ("mapping", frozenset((key(name), key(value)) for name, value in opened.items()))
    if isinstance(opened, list | tuple):
        return ("row", *map(key, opened))
    if isinstance(opened, set | frozenset):
        return ("set", frozenset(map(key, opened)))
    return None


def _opened(answer: Any) -> object:
    """Its fields, of what ``response_format`` makes objects of; else itself."""
    kind = type(answer)
    if dataclasses.is_dataclass(kind):
        return {field.name: getattr(answer, field.name) for field in dataclasses.fields(kind) if field.compare}
    if hasattr(kind, "__struct_fields__"):  # msgspec
        return {name: getattr(answer, name) for name in kind.__struct_fields__}
    return dict(answer) if hasattr(kind, "model_json_schema") else answer  # pydantic


def _number(number: float | Decimal | Fraction) -> Hashable:
    if number != number:
        return ("nan",)  # which Python holds for no two of
    # Python compares and hashes numbers by value. No Fraction of it: the integer that 1e99999999 is takes for ever.
    return Decimal(repr(float(number))) if isinstance(number, float) else number
