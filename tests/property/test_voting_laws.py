"""The laws of voting on any numbers, against brute force in exact rationals."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import pytest
from hypothesis import example, given, strategies as st

from exoflow.llm import laws
from exoflow.llm.plurality import in_floats

MOST = 20
"""Increments that brute force looks at."""

percent = st.integers(0, 100).map(lambda n: n / 100)
easy = st.integers(51, 100).map(lambda n: n / 100)
hard = st.integers(0, 49).map(lambda n: n / 100)


@example(0.4, 0.85, 0.10)
@example(0.5, 0.85, 0.40)
@example(0.6, 0.85, 0.40)
@example(0.5, 0.65, 0.40)
@given(percent, easy, hard)
def test_the_best_k_is_that_of_brute_force(alpha: float, p1: float, p2: float) -> None:
    triple = laws.exact(alpha), laws.exact(p1), laws.exact(p2)
    values = [laws.binary(*triple, 2 * m + 1) for m in range(MOST + 1)]
    best, limit = laws.best_k(alpha, p1, p2), triple[0]
    if best == math.inf:
        assert max(values) < limit
    elif best <= 2 * MOST + 1:
        assert best == 2 * values.index(max(values)) + 1
        assert max(values) >= limit
    else:
        assert values == sorted(values)


@given(percent, easy, hard)
def test_the_shape_is_that_of_the_increments(alpha: float, p1: float, p2: float) -> None:
    triple = laws.exact(alpha), laws.exact(p1), laws.exact(p2)
    values = [laws.binary(*triple, 2 * m + 1) for m in range(MOST + 1)]
    steps = [(b > a) - (b < a) for a, b in itertools.pairwise(values)]
    moves = [step for step in steps if step]
    shape = laws.shape(alpha, p1, p2)
    if not moves:
        assert shape == "constant"
    elif shape in ("up", "down"):
        assert set(moves) == {1 if shape == "up" else -1}
    else:
        first = 1 if shape == "up then down" else -1
        assert moves[0] == first
        assert moves == sorted(moves, reverse=first == 1)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=5).filter(any), st.integers(1, 12))
def test_somebody_wins_and_more_likely_options_win_more_often(weights: list[int], k: int) -> None:
    chances = [Fraction(weight, sum(weights)) for weight in weights]
    won = laws.plurality(chances, k)
    assert sum(won) == 1
    for (p, w), (q, v) in zip(
        sorted(zip(chances, won, strict=True)), sorted(zip(chances, won, strict=True))[1:], strict=False
    ):
        assert (p < q and w <= v) or (p == q and w == v)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=5).filter(any), st.integers(1, 24))
def test_the_plurality_in_floats_is_the_exact_one_small_chances_too(weights: list[int], k: int) -> None:
    chances = [Fraction(weight, sum(weights)) for weight in weights]
    exact = [float(chance) for chance in laws.plurality(chances, k)]
    assert in_floats([float(chance) for chance in chances], k) == pytest.approx(exact, rel=1e-12, abs=0)


@given(st.integers(0, 20).map(lambda n: Fraction(n, 20)), st.integers(1, 25))
def test_with_two_options_plurality_is_the_binary_law(p: Fraction, k: int) -> None:
    assert laws.plurality([p, 1 - p], k)[0] == laws.binary(1, p, 0, k)


@given(st.lists(st.integers(0, 5), min_size=2, max_size=5).filter(any), st.integers(0, 3))
def test_all_options_estimates_and_the_chance_of_silence_sum_to_one(counts: list[int], abstained: int) -> None:
    n = sum(counts) + abstained
    named = dict(enumerate(counts)) | {None: abstained}
    for k in range(1, n + 1):
        silent = Fraction(math.comb(abstained, k), math.comb(n, k))
        assert sum(laws.u_statistic(named, k, option) for option in range(len(counts))) + silent == 1


@given(st.lists(st.integers(0, 6), min_size=2, max_size=5).filter(any))
def test_one_vote_is_estimated_by_the_share(counts: list[int]) -> None:
    named = dict(enumerate(counts))
    assert laws.u_statistic(named, 1, 0) == Fraction(counts[0], sum(counts))
