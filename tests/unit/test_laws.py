"""The laws of voting, to the digits of the tables and against counting everything."""

from __future__ import annotations

import itertools
import math
import sys
from collections import Counter
from decimal import Decimal
from fractions import Fraction

import pytest

from exoflow.llm import laws

TABLE = {  # (alpha, p1, p2): best K, F(best), F at 1 3 5 11 21 101; fairness-and-voting, 2.2
    (0.5, 0.85, 0.40): (3, "0.645625", "0.6250 0.6456 0.6454 0.6219 0.5872 0.5104"),
    (0.6, 0.85, 0.40): (5, "0.711009", "0.6700 0.7043 0.7110 0.6970 0.6697 0.6084"),
    (0.5, 0.65, 0.40): (15, "0.549936", "0.5250 0.5351 0.5411 0.5489 0.5486 0.5100"),
    (0.4, 0.85, 0.10): (1, "0.400000", "0.4000 0.3925 0.3945 0.3991 0.4000 0.4000"),
}


@pytest.mark.parametrize("triple", TABLE)
def test_the_table_of_the_binary_law_comes_out_to_its_digits(triple: tuple[float, float, float]) -> None:
    best, at_best, row = TABLE[triple]
    assert laws.best_k(*triple) == best
    assert f"{laws.binary(*triple, best):.6f}" == at_best
    told = [laws.binary(*map(laws.exact, triple), k) for k in (1, 3, 5, 11, 21, 101)]
    for value, printed in zip(told, row.split(), strict=True):
        assert abs(value - Fraction(printed)) <= Fraction(1, 20_000)


def test_the_second_row_at_three_is_a_half_more_than_it_is_printed() -> None:
    assert laws.binary(Decimal("0.6"), Decimal("0.85"), Decimal("0.40"), 3) == Fraction("0.70435")


def test_where_the_paper_says_down_accuracy_rises_first() -> None:
    """Theorem 2 is printed with its condition inverted; this is the case that tells."""
    assert laws.shape(0.6, 0.85, 0.4) == "up then down"
    assert laws.binary(0.6, 0.85, 0.4, 3) > laws.binary(0.6, 0.85, 0.4, 1) > 0.6


@pytest.mark.parametrize(
    ("triple", "shape", "best"),
    [
        ((0.9, 0.6, 0.3), "up", math.inf),
        ((0.5, 0.6, 0.3), "down then up", math.inf),
        ((0.1, 0.6, 0.3), "down then up", 1),
        ((0.1, 0.85, 0.4), "down", 1),
        ((0.6, 0.7, 0.3), "up", math.inf),
        ((0.5, 0.7, 0.3), "constant", 1),
        ((0.4, 0.7, 0.3), "down", 1),
        ((1, 0.7, 0.3), "up", math.inf),
        ((0, 0.7, 0.3), "down", 1),
        ((0.5, 1, 0), "constant", 1),
        ((0.5, 1, 0.4), "down", 1),
        ((0.5, 0.7, 0), "up", math.inf),
        ((0.5, 0.5, 0.5), "constant", 1),
    ],
)
def test_the_shape_follows_from_the_triple(triple: tuple[float, float, float], shape: str, best: float) -> None:
    assert laws.shape(*triple) == shape
    assert laws.best_k(*triple) == best


def test_where_two_are_equally_good_the_smaller_is_the_best() -> None:
    triple = Fraction(3, 7), Fraction(4, 5), Fraction(2, 5)
    assert laws.binary(*triple, 3) == laws.binary(*triple, 5) > laws.binary(*triple, 1)
    assert laws.best_k(*triple) == 3


def test_a_best_k_far_away_is_found_without_counting_up_to_it() -> None:
    best = laws.best_k(0.9, 0.500002, 0.499999)
    assert isinstance(best, int)
    assert best > 10**5
    a, b, u, v = laws._signs(0.9, 0.500002, 0.499999)
    crossing = math.log(a / b) / math.log1p((v - u) / u)  # the formula, where floats still tell the two apart
    assert math.isclose((best + 1) / 2, crossing, rel_tol=1e-9)


@pytest.mark.parametrize(
    "p", [Fraction(3, 5), Fraction(17, 20), Fraction(1, 10), Fraction(1, 2), Fraction(0), Fraction(1)]
)
def test_an_even_number_of_votes_is_as_good_as_one_less(p: Fraction) -> None:
    for k in range(1, 10):
        counted = sum(
            (Fraction(1) if 2 * right > k else Fraction(1, 2) if 2 * right == k else 0)
            * math.comb(k, right) * p**right * (1 - p) ** (k - right)
            for right in range(k + 1)
        )  # fmt: skip
        assert laws.binary(1, p, 0, k) == counted == laws.binary(1, p, 0, k if k % 2 else k - 1)


@pytest.mark.parametrize(
    ("chances", "k", "printed"),
    [
        ([0.4, 0.35, 0.25], 3, "0.422000"),
        ([0.4, 0.35, 0.25], 5, "0.443440"),
        ([0.45, 0.2, 0.2, 0.15], 7, "0.652922"),
        ([0.3, 0.4, 0.2, 0.1], 1, "0.300000"),
        ([0.3, 0.4, 0.2, 0.1], 3, "0.300000"),
        ([0.3, 0.4, 0.2, 0.1], 5, "0.306180"),
        ([0.3, 0.4, 0.2, 0.1], 11, "0.295173"),
        ([0.3, 0.4, 0.2, 0.1], 21, "0.266706"),
    ],
)
def test_the_plurality_of_the_document_comes_out_to_its_digits(chances: list[float], k: int, printed: str) -> None:
    assert f"{laws.plurality(chances, k)[0]:.6f}" == printed


@pytest.mark.parametrize("k", range(1, 7))
def test_the_plurality_is_that_of_counting_all_sequences(k: int) -> None:
    chances = [Fraction(2, 5), Fraction(7, 20), Fraction(1, 5), Fraction(1, 20), Fraction(0)]
    won = [Fraction(0)] * len(chances)
    for sequence in itertools.product(range(len(chances)), repeat=k):
        counts = Counter(sequence)
        first = [option for option, count in counts.items() if count == max(counts.values())]
        for option in first:
            won[option] += math.prod((chances[vote] for vote in sequence), start=Fraction(1)) / len(first)
    assert laws.plurality(chances, k) == won
    assert sum(won) == 1


def test_floats_and_rationals_agree_for_many_votes() -> None:
    exact = laws.plurality([Fraction(45, 100), Fraction(3, 10), Fraction(1, 4)], 60)
    for one, other in zip(exact, laws.plurality([0.45, 0.3, 0.25], 60), strict=True):
        assert math.isclose(one, other, rel_tol=1e-12)


def test_floats_do_without_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    quick = laws.plurality([0.5, 0.3, 0.2], 25)
    monkeypatch.setitem(sys.modules, "exoflow.llm.plurality", None)
    assert laws.plurality([0.5, 0.3, 0.2], 25) == pytest.approx(quick, rel=1e-12)


def test_ten_options_and_many_votes_are_counted() -> None:
    won = laws.plurality([0.19] + [0.09] * 9, 200)
    assert sum(won) == pytest.approx(1, rel=1e-12)
    assert won[1:] == pytest.approx([won[1]] * 9, rel=1e-12)
    assert won[0] == pytest.approx(0.97895, abs=1e-5)


def test_the_estimate_is_unbiased_over_all_samples_that_could_have_been() -> None:
    chances = {"a": Fraction(2, 5), "b": Fraction(7, 20), "c": Fraction(3, 20), None: Fraction(1, 10)}
    n = 6
    for k in range(1, n + 1):
        expected = wins(chances, k)
        estimated = sum(
            multinomial(chances, counts) * laws.u_statistic(counts, k, "a") for counts in all_counts(list(chances), n)
        )
        assert estimated == expected, k


def wins(chances: dict[str | None, Fraction], k: int) -> Fraction:
    """How often "a" wins k votes, None abstaining."""
    won = Fraction(0)
    for sequence in itertools.product(chances, repeat=k):
        counts = Counter(vote for vote in sequence if vote is not None)
        first = [option for option, count in counts.items() if count == max(counts.values())]
        if "a" in first:
            won += math.prod((chances[vote] for vote in sequence), start=Fraction(1)) / len(first)
    return won


def all_counts(options: list[str | None], n: int) -> list[dict[str | None, int]]:
    if len(options) == 1:
        return [{options[0]: n}]
    return [{options[0]: first} | rest for first in range(n + 1) for rest in all_counts(options[1:], n - first)]


def multinomial(chances: dict[str | None, Fraction], counts: dict[str | None, int]) -> Fraction:
    ways = math.factorial(sum(counts.values()))
    for count in counts.values():
        ways //= math.factorial(count)
    return ways * math.prod((chances[option] ** count for option, count in counts.items()), start=Fraction(1))


@pytest.mark.parametrize(
    ("counts", "seen"),
    [
        ({"a": 5, "b": 4}, 1),
        ({"a": 4, "b": 5}, 0),
        ({"a": 4, "b": 4, "c": 1}, Fraction(1, 2)),
        ({"a": 2, "b": 2, "c": 2}, Fraction(1, 3)),
        ({"a": 2, None: 7}, 1),
        ({"b": 2, None: 1}, 0),
        ({None: 3}, 0),
    ],
)
def test_with_all_samples_the_estimate_is_the_vote_that_was_seen(
    counts: dict[str | None, int], seen: Fraction | int
) -> None:
    assert laws.u_statistic(counts, sum(counts.values()), "a") == seen


def test_without_replacement_is_not_with_replacement() -> None:
    """p = .6, n = K = 9: with replacement .673, the truth .733."""
    p, n = Fraction(3, 5), 9
    mine = bootstrap = Fraction(0)
    for right in range(n + 1):
        weight = math.comb(n, right) * p**right * (1 - p) ** (n - right)
        mine += weight * laws.u_statistic({"t": right, "f": n - right}, 9, "t")
        bootstrap += weight * laws.binary(1, Fraction(right, n), 0, 9)
    assert f"{float(mine):.3f}" == f"{float(laws.binary(1, p, 0, 9)):.3f}" == "0.733"
    assert f"{float(bootstrap):.3f}" == "0.673"


def test_two_options_have_a_closed_form_that_is_the_general_one() -> None:
    closed = laws.u_curve({"a": 7, "b": 5}, "a")
    rest = laws._beside([[math.comb(5, j) for j in range(6)]], 1, 5, ordered=False)
    assert rest[1][1] == 5
    for k, value in enumerate(closed, start=1):
        counted = Fraction(0)
        for right in range(k + 1):
            share = Fraction(1) if 2 * right > k else Fraction(1, 2) if 2 * right == k else Fraction(0)
            counted += share * math.comb(7, right) * math.comb(5, k - right)
        assert value == counted / math.comb(12, k)


def test_the_margin_law_comes_out_to_its_digits() -> None:
    assert f"{laws.margin_accuracy(0.6, 3):.6f}" == "0.771429"
    assert f"{laws.margin_draws(0.6, 3):.6f}" == "8.142857"
    assert laws.margin_accuracy(Fraction(3, 5), 3) == Fraction(27, 35)
    assert laws.margin_draws(Fraction(3, 5), 3) == Fraction(57, 7)


def test_the_margin_law_at_its_edges() -> None:
    assert laws.margin_draws(Fraction(1, 2), 4) == 16
    assert laws.margin_draws(1, 3) == 3
    assert laws.margin_accuracy(1, 3) == 1
    assert laws.margin_accuracy(0, 3) == 0


@pytest.mark.parametrize(
    ("first", "second", "value"), [(4, 0, 0.96875), (3, 0, 0.9375), (6, 1, 0.96484375), (5, 1, 0.9375)]
)
def test_the_confidence_of_a_leader_is_a_tail_of_coin_tosses(first: int, second: int, value: float) -> None:
    assert laws.beta_confidence(first, second) == value


def test_two_samples_an_item_bound_three_votes() -> None:
    """Any mixture of items lies between the bounds; a law with two kinds at 0 or 1 meets them."""
    for alpha, p1, p2 in [(0.5, 0.85, 0.4), (0.3, 0.9, 0.05), (0.7, 0.6, 0.45)]:
        share, one, two = map(laws.exact, (alpha, p1, p2))
        m1, m2 = share * one + (1 - share) * two, share * one**2 + (1 - share) * two**2
        least, most = laws.three_vote_bounds(m1, m2)
        assert least <= laws.binary(share, one, two, 3) <= most
    sharp = laws.three_vote_bounds(Fraction(1, 2), Fraction(1, 2))  # items are known or not: more votes change nothing
    assert sharp == (Fraction(1, 2), Fraction(1, 2))


def test_best_of_n_comes_to_what_the_verifier_lets_through() -> None:
    assert laws.verified_limit(Fraction(1, 2), Fraction(9, 10), Fraction(1, 10)) == Fraction(9, 10)
    assert laws.verified_limit(0.5, 1, 0) == 1
    with pytest.raises(ValueError, match="nothing passes"):
        laws.verified_limit(0.5, 0, 0)


WRONG = {
    "a share above 1": lambda: laws.binary(1.2, 0.8, 0.3, 3),
    "no votes": lambda: laws.binary(0.5, 0.8, 0.3, 0),
    "a float of votes": lambda: laws.binary(0.5, 0.8, 0.3, 2.0),  # type: ignore[call-overload]
    "easy items that are hard": lambda: laws.best_k(0.5, 0.4, 0.3),
    "chances that do not sum to 1": lambda: laws.plurality([0.5, 0.4], 3),
    "more votes than samples": lambda: laws.u_statistic({"a": 2, "b": 1}, 4, "a"),
    "a negative count": lambda: laws.u_statistic({"a": -1, "b": 3}, 1, "a"),
    "no truth": lambda: laws.u_statistic({"a": 1}, 1, None),
    "moments that none have": lambda: laws.three_vote_bounds(0.5, 0.1),
    "no number": lambda: laws.binary(Decimal("nan"), 0.8, 0.3, 3),
    "no margin": lambda: laws.margin_draws(0.6, 0),
}


def test_a_chance_that_is_text_is_refused_by_its_name() -> None:
    with pytest.raises(TypeError, match=r"p1='\.85' must be a number, from 0 to 1"):
        laws.binary(0.5, ".85", 0.4, 3)  # type: ignore[call-overload]  # that is what is tested


@pytest.mark.parametrize("what", WRONG)
def test_what_makes_no_sense_is_refused(what: str) -> None:
    with pytest.raises(ValueError, match=r"=|sum|no more|negative"):
        WRONG[what]()
