"""What tokens cost, as integers: sums of them are exact, so that a replay ends where the run did."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from math import lcm
from typing import Protocol

from exoflow.errors import LLMError

Amount = int | float | str | Decimal
"""A number at its digits: ``1.5`` is 3/2. A float is taken as it is printed."""


class Cost(Protocol):
    """``h(n_p, n_q)``. It MUST NOT fall when either grows, and MUST be pure."""

    def __call__(self, input_tokens: int, output_tokens: int, /) -> int: ...


class Linear:
    """``w_p * n_p + w_q * n_q``, in units of the smallest decimal place that the weights have (1: they are integers).

    Args:
        input: w_p.
        output: w_q.
        cached: of a token of the input that was found in a cache; as any other if not given.
    """

    def __init__(self, input: Amount = 1, output: Amount = 2, *, cached: Amount | None = None) -> None:
        weights = [exact(weight) for weight in (input, output, input if cached is None else cached)]
        if any(weight < 0 for weight in weights):
            raise ValueError(f"Linear({input}, {output}, cached={cached}): a token costs nothing or more")
        self.unit = lcm(*(weight.denominator for weight in weights))
        """A cost of so much is 1."""
        self._input, self._output, self._cached = (int(weight * self.unit) for weight in weights)
        self._words = f"Linear({input}, {output}{'' if cached is None else f', cached={cached}'})"

    def __call__(self, input_tokens: int, output_tokens: int, /, cached_tokens: int = 0) -> int:
        cost = self._input * input_tokens + self._output * output_tokens
        return cost - (self._input - self._cached) * cached_tokens if cached_tokens else cost

    def __repr__(self) -> str:
        return self._words

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Linear) and self._terms == other._terms

    def __hash__(self) -> int:
        return hash(self._terms)

    @property
    def _terms(self) -> tuple[int, int, int, int]:
        return self.unit, self._input, self._output, self._cached


@dataclass(frozen=True, slots=True)
class Checked:
    """Somebody's own cost function, which may be wrong."""

    function: Cost

    def __call__(self, input_tokens: int, output_tokens: int, /) -> int:
        """As ``Cost``.

        Raises:
            LLMError: it failed, or gave no whole number; it says whose function it was, and for what.
        """
        try:
            cost = self.function(input_tokens, output_tokens)
        except Exception as error:  # it is the user's code
            raise self._wrong(input_tokens, output_tokens, f"failed, {type(error).__name__}: {error}") from error
        try:
            return operator.index(cost)
        except TypeError as error:
            wrong = f"gave {cost!r}: it must give a whole number"
            raise self._wrong(input_tokens, output_tokens, wrong) from error

    def _wrong(self, input_tokens: int, output_tokens: int, why: str) -> LLMError:
        name = getattr(self.function, "__qualname__", None) or repr(self.function)
        return LLMError(f"cost={name}, asked for {input_tokens:,} tokens in and {output_tokens:,} out, {why}")


def checked(cost: Cost) -> Cost:
    """One whose errors can be understood."""
    return cost if isinstance(cost, Linear | Checked) else Checked(cost)


def cost_of(cost: Cost, input_tokens: int, output_tokens: int, cached_tokens: int) -> int:
    """With what was found in a cache at its own price, where there is one."""
    if isinstance(cost, Linear):
        return cost(input_tokens, output_tokens, cached_tokens)
    return cost(input_tokens, output_tokens)


def exact(amount: Amount) -> Fraction:
    """The number as its digits say.

    Raises:
        ValueError: it is none, or not finite.
    """
    try:
        return Fraction(str(amount))
    except (ValueError, ZeroDivisionError) as error:
        raise ValueError(f"{amount!r} is no number: give an integer or a decimal, such as 2 or '1.5'") from error


def weight_of(amount: Amount) -> Fraction:
    """A client's weight.

    Raises:
        ValueError: it is not above zero.
    """
    weight = exact(amount)
    if weight <= 0:
        raise ValueError(f"weight={amount!r}: it has to be above 0")
    return weight
