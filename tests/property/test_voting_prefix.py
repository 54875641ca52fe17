"""What an adaptive vote decides is a function of its samples in index order, however they are answered."""

from __future__ import annotations

import random
from collections import Counter

from hypothesis import given, strategies as st

from exoflow.llm import laws
from exoflow.llm.voting.stops import BetaStop, Heard, Margin, Stop, Window
from exoflow.llm.voting.tally import tally

rules = st.sampled_from([BetaStop(0.95), BetaStop(0.9), Window(3), Window(5), Margin(2), Margin(3)])
votes = st.lists(st.sampled_from(["a", "b", "c", None]), max_size=40)


@given(rules, votes)
def test_a_rule_sees_no_more_than_the_counts_and_the_end(rule: Stop, said: list[str | None]) -> None:
    heard = Heard()
    for vote in said:
        heard.hear(vote)
    assert heard.tally.counts == tally(said).counts == {k: v for k, v in Counter(said).items() if k is not None}
    first, second = [*sorted(heard.tally.counts.values(), reverse=True), 0, 0][:2]
    valid = [vote for vote in said if vote is not None]
    if isinstance(rule, BetaStop):
        expected = laws.beta_confidence(first, second) >= laws.exact(rule.confidence)
    elif isinstance(rule, Window):
        expected = len(valid) >= rule.size and len(set(valid[-rule.size :])) == 1
    else:
        assert isinstance(rule, Margin)
        expected = first - second >= rule.votes
    assert rule.enough(heard) is expected


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=30), st.integers(0, 10**6))
def test_the_order_of_votes_changes_no_count(said: list[str], seed: int) -> None:
    other = random.Random(seed).sample(said, len(said))
    one, two = tally(said), tally(other)
    assert one.counts == two.counts
    assert (one.margin, one.tie, one.n_valid) == (two.margin, two.tie, two.n_valid)
    assert set(one.leaders) == set(two.leaders)
