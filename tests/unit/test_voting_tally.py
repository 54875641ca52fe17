"""Votes counted, ties broken, and when it is enough: pure functions of the votes in sample order."""

from __future__ import annotations

import random
from collections import Counter
from decimal import Decimal
from fractions import Fraction

import pytest

from exoflow.llm import laws
from exoflow.llm.voting.stops import BetaStop, Budget, Heard, Margin, Stop, Window
from exoflow.llm.voting.tally import Ties, check_ties, tally, winner


def heard(votes: str, nano_usd: int = 0) -> Heard:
    """``.`` abstains."""
    result = Heard()
    for vote in votes:
        result.hear(None if vote == "." else vote, nano_usd)
    return result


def first(n: int) -> int:
    return 0


def test_votes_are_counted_in_the_order_in_which_they_came() -> None:
    counted = tally(["b", "a", None, "b", "c"])
    assert counted.counts == {"b": 2, "a": 1, "c": 1}
    assert list(counted.counts) == ["b", "a", "c"]
    assert (counted.n_valid, counted.margin, counted.tie, counted.leaders) == (4, 1, False, ["b"])


def test_a_lone_answer_is_ahead_by_all_its_votes() -> None:
    assert tally(["a", "a", None]).margin == 2


def test_nobody_wins_where_nobody_votes() -> None:
    counted = tally([None, None])
    assert (counted.n_valid, counted.margin, counted.tie) == (0, 0, False)
    assert winner(counted, "seeded", first) is None


def test_weights_are_summed_exactly_so_that_ties_are_ties() -> None:
    counted = tally(["a", "b", "a", "b"], [0.1, 0.2, 0.2, 0.1])
    assert counted.tie
    assert counted.weights["a"] == Fraction(0.1) + Fraction(0.2)
    assert tally(["a", "b"], [0.3, 0.1 + 0.2]).leaders == ["b"]  # 0.30000000000000004


@pytest.mark.parametrize(("ties", "wins"), [("first", "b"), ("abstain", None), ("seeded", "a"), ("extend", "a")])
def test_a_tie_goes_as_it_was_said(ties: Ties, wins: str | None) -> None:
    counted = tally(["b", "a", "c", "a", "b"])
    assert counted.tie
    assert counted.margin == 0
    assert winner(counted, ties, lambda n: n - 1) == wins


def test_there_is_no_other_way_to_break_a_tie() -> None:
    with pytest.raises(ValueError, match="seeded, first, abstain, extend"):
        check_ties("random")


def test_ten_thousand_ties_go_half_to_each_and_the_same_in_every_replay() -> None:
    """The draw of a flow: seeded by the run and the item's path, as ``exoflow.rng()`` is."""

    def drawn(item: int) -> object:
        return winner(tally(["a", "b"]), "seeded", random.Random(f"run/vote#{item}/rng#0").randrange)

    found = [drawn(item) for item in range(10_000)]
    assert found == [drawn(item) for item in range(10_000)]
    assert abs(Counter(found)["a"] - 5_000) < 200  # four standard deviations


@pytest.mark.parametrize(
    ("votes", "stops"),
    [
        ("AAAA", True),
        ("AAA", False),
        ("AAABAAA", True),
        ("AAABAA", False),
        ("AAAAABAABA", True),
        ("AAAAABAB", False),
        ("AAAAABBAA", False),
        ("AAAA.", True),
        ("A.A.A", False),
        ("AAABBB", False),
        ("", False),
    ],
)
def test_the_beta_rule_stops_where_the_table_says(votes: str, stops: bool) -> None:
    """4-0, 6-1 and 8-2 and not 3-0, 5-1, 6-2."""
    assert BetaStop(0.95).enough(heard(votes)) is stops


def test_the_beta_rule_looks_at_the_first_two_of_many() -> None:
    assert BetaStop(0.95).enough(heard("AAAAAABCDE"))  # 6-1
    assert not BetaStop(0.95).enough(heard("AAAAABCDE"))  # 5-1


@pytest.mark.parametrize(
    ("votes", "stops"),
    [("AAAAA", True), ("BAAAAA", True), ("AAAA", False), ("AAAAB", False), ("AA.AAA", True), ("AAAAABA", False)],
)
def test_a_window_stops_where_the_last_votes_agree(votes: str, stops: bool) -> None:
    assert Window(5).enough(heard(votes)) is stops


@pytest.mark.parametrize(("votes", "stops"), [("AAA", True), ("ABAAA", True), ("AAB", False), ("ABCAA", False)])
def test_a_margin_stops_where_the_first_is_so_far_ahead(votes: str, stops: bool) -> None:
    assert Margin(3).enough(heard(votes)) is stops


def test_a_budget_makes_one_call_to_see_what_calls_cost() -> None:
    budget = Budget(usd=Decimal("0.00001"))
    assert budget.affords(heard(""), 0)
    assert not budget.affords(heard(""), 1)


def test_a_budget_counts_what_is_under_way_at_the_dearest_price() -> None:
    budget = Budget(usd=0.00001)  # 10,000 billionths
    known = heard("A", 3_000)
    assert budget.affords(known, 0)
    assert budget.affords(known, 1)
    assert not budget.affords(known, 2)
    assert not budget.enough(known)
    assert budget.enough(heard("AAA", 3_000))


def test_a_budget_without_prices_would_never_end() -> None:
    with pytest.raises(ValueError, match="prices="):
        Budget(usd=1).enough(heard("A", 0))


def test_the_first_of_two_rules_ends_it() -> None:
    both = BetaStop(0.95) | Budget(usd=0.00001)
    assert both.enough(heard("AAAA", 1))
    assert both.enough(heard("ABAB", 2_500))
    assert not both.enough(heard("ABAB", 1))
    assert not both.affords(heard("A", 6_000), 0)
    assert both == BetaStop(0.95) | Budget(usd="0.00001")


@pytest.mark.parametrize(
    "wrong", [lambda: BetaStop(95), lambda: Window(1), lambda: Margin(0), lambda: Budget(usd=0)],
    ids=["a confidence of 95", "a window of one", "no margin", "no money"],
)  # fmt: skip
def test_a_rule_that_makes_no_sense_is_refused(wrong: object) -> None:
    with pytest.raises(ValueError, match=r"between|takes|more than 0"):
        wrong()  # type: ignore[operator]


def stopped(rule: Stop, p: float, chance: random.Random, most: int) -> tuple[bool, int]:
    so_far = Heard()
    while len(so_far.votes) < most and not rule.enough(so_far):
        so_far.hear("right" if chance.random() < p else "wrong")
    return so_far.tally.leaders == ["right"], len(so_far.votes)


def test_in_index_order_long_answers_have_their_say_and_in_completion_order_they_have_not() -> None:
    """Eleven at once, right with p = .6 in 1,000 tokens, wrong in 10: who counts as they come has heard the wrong."""
    chance = random.Random(11)
    in_index_order = as_they_come = 0
    for _ in range(2_000):
        lengths = [1_000 if chance.random() < 0.6 else 10 for _ in range(40)]
        in_index_order += first_ahead(lengths)
        as_they_come += first_ahead(sorted(lengths[:11]) + lengths[11:])
    assert abs(in_index_order / 2_000 - laws.margin_accuracy(0.6, 3)) < 0.038  # four standard errors
    assert as_they_come / 2_000 < 0.2


def first_ahead(lengths: list[int]) -> bool:
    so_far = Heard()
    for length in lengths:
        so_far.hear(length)
        if Margin(3).enough(so_far):
            break
    return so_far.tally.leaders == [1_000]


def test_a_margin_is_as_right_and_as_long_as_its_law_says() -> None:
    chance = random.Random(7)
    runs = [stopped(Margin(3), 0.6, chance, 10_000) for _ in range(4_000)]
    right, draws = sum(won for won, _ in runs) / len(runs), sum(n for _, n in runs) / len(runs)
    assert abs(right - laws.margin_accuracy(0.6, 3)) < 0.027  # four standard errors
    assert abs(draws - laws.margin_draws(0.6, 3)) < 0.4


def test_rules_of_nonsense_are_refused() -> None:
    for usd in (float("nan"), "much"):
        with pytest.raises(ValueError, match="an amount of money is a number, more than 0"):
            Budget(usd=usd)
    with pytest.raises(TypeError, match="stop=3 must be a rule"):
        BetaStop() | 3  # type: ignore[operator]  # that is what is tested
    with pytest.raises(ValueError, match="a confidence lies between"):
        BetaStop("high")  # type: ignore[arg-type]  # that is what is tested
