"""What tokens cost: exactly, in whole billionths of a dollar."""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from functools import cache

from exoflow.llm.engine.request import Usage
from exoflow.model import NANO_USD_PER_USD

_PER_MILLION = Fraction(NANO_USD_PER_USD, 1_000_000)

Price = int | float | str | Decimal


@dataclass(frozen=True, slots=True)
class Prices:
    """USD for a million tokens, as price lists have it. A float counts by its digits: ``.15`` is 15/100.

    Raises:
        TypeError, ValueError: a price is no number, or negative.
    """

    usd_per_million_in: Price
    usd_per_million_out: Price
    usd_per_million_cached: Price | None = None
    """Of input that the endpoint has seen before; None: as all input."""

    def __post_init__(self) -> None:
        for name in self.__slots__:
            price = getattr(self, name)
            if price is None and name == "usd_per_million_cached":
                continue
            if isinstance(price, bool) or not isinstance(price, int | float | str | Decimal):
                raise TypeError(f"{name}={price!r} is no price: give USD for a million tokens, as .15 or '0.15'")
            if _nano_usd(price) < 0:
                raise ValueError(f"{name}={price!r} must not be negative")

    def nano_usd(self, usage: Usage) -> int:
        """What this costs. A part of a nano-dollar counts as a whole one, so that no budget is overspent by it."""
        per_in, per_cached, per_out, whole = _rates(
            self.usd_per_million_in, self.usd_per_million_cached, self.usd_per_million_out
        )
        cached = min(usage.cached_tokens, usage.prompt_tokens)
        parts = per_in * (usage.prompt_tokens - cached) + per_cached * cached + per_out * usage.completion_tokens
        return -(-parts // whole)


@cache
def _rates(per_in: Price, per_cached: Price | None, per_out: Price) -> tuple[int, int, int, int]:
    """Of a token, in parts of a nano-dollar, and how many of them are one: fractions are slow."""
    rates = [_nano_usd(per_in), _nano_usd(per_in if per_cached is None else per_cached), _nano_usd(per_out)]
    whole = math.lcm(*(rate.denominator for rate in rates))
    one, two, three = (int(rate * whole) for rate in rates)
    return one, two, three, whole


@cache
def _nano_usd(usd_per_million: Price) -> Fraction:
    """Of one token."""
    try:
        return Fraction(Decimal(str(usd_per_million))) * _PER_MILLION
    except (InvalidOperation, ValueError, OverflowError) as error:
        raise ValueError(f"{usd_per_million!r} is no price: give USD for a million tokens, as .15 or '0.15'") from error


def usd(nano_usd: int) -> Decimal:
    """As USD, exactly."""
    return Decimal(nano_usd).scaleb(-9)
