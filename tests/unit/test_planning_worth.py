"""What calls are worth: money on both sides."""

from decimal import Decimal
from fractions import Fraction

import pytest

from exoflow.llm import laws
from exoflow.llm.planning import Log, plan


def logged(rights: list[int], n: int, usd: object = "0.001") -> Log:
    return Log(
        {"id": f"q{i}", "index": j, "answer": "A" if j < right else "B", "correct": j < right, "usd": usd}
        for i, right in enumerate(rights)
        for j in range(n)
    )


LOG = logged([11, 9, 8, 7, 7, 3], 11)


def test_each_k_is_weighed_in_money_against_one_call() -> None:
    found = plan(LOG, value_per_correct=1)
    one, three = found.rows[0], found.rows[2]
    assert (one.k, one.calls, three.k, three.calls) == (1, 1, 3, 3)
    assert three.usd == pytest.approx(0.003)
    assert three.net_usd == pytest.approx(three.accuracy - 0.003)
    assert three.gain == pytest.approx(three.accuracy - one.accuracy - 0.002)
    assert one.gain == one.gain_range.low == one.gain_range.high == 0
    assert three.gain_range.low <= three.gain <= three.gain_range.high


def test_the_best_is_that_of_the_highest_gain_the_fewest_calls_of_equals() -> None:
    dear, cheap = plan(LOG, 1, usd_per_call=0.5), plan(LOG, Decimal(1), usd_per_call=0)
    assert dear.best.k == 1
    assert cheap.best.gain == pytest.approx(max(row.gain for row in cheap.rows))
    assert cheap.best.k % 2 == 1  # an even k is as good as the one before, and dearer
    low, high = cheap.best_range
    assert low <= cheap.best.k <= high
    assert next(line for line in cheap.table().splitlines() if "best" in line).split()[0] == str(cheap.best.k)


def test_a_plan_for_one_question_says_that_it_knows_of_no_other() -> None:
    found = plan(logged([7], 2), 1)
    assert "one item" in found.cautions[0]
    assert found.cautions[0] in found.table()
    assert not plan(logged([7] * 30, 11), 1).cautions


def test_a_call_costs_what_the_log_says_or_what_one_says() -> None:
    assert plan(LOG, 1).rows[10].usd == pytest.approx(0.011)
    assert plan(LOG, 1, usd_per_call=Decimal("0.01")).rows[10].usd == pytest.approx(0.11)
    judged = [{**row.as_row(), "passed": True} for row in LOG]
    assert plan(judged, 1, usd_per_call=0.01, rule="filter_vote").rows[10].usd == pytest.approx(0.22)


def test_amounts_that_are_none_are_refused() -> None:
    with pytest.raises(ValueError, match="the log says no cost: give usd_per_call="):
        plan(logged([1], 2, usd=0), 1)
    with pytest.raises(ValueError, match="value_per_correct is -1"):
        plan(LOG, -1)
    with pytest.raises(ValueError, match="usd_per_call is nan"):
        plan(LOG, 1, usd_per_call=float("nan"))
    for value in ("0.1", Decimal("nan"), None):
        with pytest.raises(ValueError, match=r"value_per_correct is .*, no amount of dollars"):
            plan(LOG, value)  # type: ignore[arg-type]  # that is what is tested
    with pytest.raises(ValueError, match="replicates is 0"):
        plan(LOG, 1, replicates=0)


def test_two_samples_an_item_bound_a_vote_of_three() -> None:
    found = plan(logged([2, 2, 1, 1, 0], 2), 1)
    assert found.three == pytest.approx(tuple(map(float, laws.three_vote_bounds(Fraction(6, 10), Fraction(4, 10)))))
    assert "k = 3 is between 0.600 and 0.667" in found.table()
    assert plan(LOG, 1).three is None  # it can be estimated
    assert plan(logged([1, 1], 2), 1).three is not None  # pairs that agree less often than any chances allow


def test_the_bounds_are_sharp() -> None:
    """Chances of 0 and q reach the upper one, of 1 and q the lower."""
    for q, share in ((Fraction(2, 3), Fraction(1, 4)), (Fraction(1, 5), Fraction(1, 2))):
        for end, other in ((1, Fraction(0)), (0, Fraction(1))):
            m1, m2, m3 = (share * q**i + (1 - share) * other**i for i in (1, 2, 3))
            assert laws.three_vote_bounds(m1, m2)[end] == 3 * m2 - 2 * m3
