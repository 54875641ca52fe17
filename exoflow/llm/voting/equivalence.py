"""When two answers are the same answer. What ``vote(equivalence=...)`` takes gives the same key for them."""

from __future__ import annotations

import unicodedata
from collections.abc import Hashable, Mapping
from decimal import Decimal
from fractions import Fraction

DEEPEST = 100
"""Levels of containers in an answer. One of more can be neither compared nor recorded, which is done by recursion."""


def canonical(answer: object) -> Hashable:
    """The key of an answer: numbers by value (1.0 is 1), text whatever its case and spaces, containers by content.

    Text is not read as a number: that is for ``parse``.

    Raises:
        TypeError: there is no telling when two such are the same.
    """
    if isinstance(answer, str):
        return " ".join(unicodedata.normalize("NFKC", answer).casefold().split())
    if isinstance(answer, int | float | Decimal | Fraction):
        return _number(answer)
    if isinstance(answer, Mapping):
        return ("mapping", frozenset((canonical(key), canonical(value)) for key, value in answer.items()))
    if isinstance(answer, list | tuple):
        return ("row", *map(canonical, answer))
    if isinstance(answer, set | frozenset):
        return ("set", frozenset(map(canonical, answer)))
    return verbatim(answer)


def verbatim(answer: object) -> Hashable:
    """The answer is its own key: two are the same if Python says so.

    Raises:
        TypeError: it cannot be compared so.
    """
    why = "it is not hashable"
    if isinstance(answer, Hashable):
        kind = type(answer)
        if kind.__eq__ is not object.__eq__ or kind.__hash__ is not object.__hash__:
            return answer
        why = "no two of its kind are the same"
    raise TypeError(
        f"{answer!r} is no answer that can be counted: {why}. Let parse return text, a number or a "
        f"container of such, or give equivalence=, a function from an answer to a key"
    )


def is_deep(answer: object, levels: int = DEEPEST) -> bool:
    """Whether containers are nested in it to more levels than that."""
    if isinstance(answer, Mapping):
        answer = [*answer, *answer.values()]
    if not isinstance(answer, list | tuple | set | frozenset):
        return False
    return not levels or any(is_deep(each, levels - 1) for each in answer)


def _number(number: float | Decimal | Fraction) -> Hashable:
    # Python compares and hashes numbers by value. No Fraction of it: the integer that 1e99999999 is takes for ever.
    return Decimal(repr(float(number))) if isinstance(number, float) else number
