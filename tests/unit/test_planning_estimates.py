"""What a k-vote among n logged samples gets right: unbiased, from all subsets at once."""

import itertools
import math
import random
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest

from exoflow.llm import laws
from exoflow.llm.planning import Log, curve
from exoflow.llm.planning.estimate import Rule, accuracies, silence

Said = tuple[str | None, bool]
"""An answer and whether it passed; A is right."""


def log_of(samples: list[Said], item: str = "q", judged: bool = True) -> Log:
    return Log(
        {"id": item, "index": i, "answer": answer, "abstained": answer is None, "correct": answer == "A"}
        | ({"passed": passed} if judged and answer is not None else {})
        for i, (answer, passed) in enumerate(samples)
    )


def won(drawn: tuple[Said, ...], rule: Rule) -> Fraction:
    """How likely A wins among these, as the rules are written down."""
    voters = [each for each in drawn if each[1] and each[0] is not None]
    if rule == "vote" or not voters:
        voters = list(drawn)
    if rule == "first_passing":
        return Fraction(sum(answer == "A" for answer, _ in voters), len(voters))
    counts = Counter(answer for answer, _ in voters if answer is not None)
    most = max(counts.values(), default=0)
    leaders = [answer for answer, count in counts.items() if count == most]
    return Fraction(int("A" in leaders), max(1, len(leaders)))


@pytest.mark.parametrize("rule", ["vote", "filter_vote", "first_passing"])
def test_an_estimate_is_the_mean_over_all_subsets(rule: Rule) -> None:
    chance = random.Random(11)
    for _ in range(25):
        n = chance.randint(1, 8)
        said = [(chance.choice(["A", "A", "B", "C", None]), chance.random() < 0.5) for _ in range(n)]
        (item,) = log_of(said).items
        estimates = accuracies(item, rule)
        for k in range(1, n + 1):
            subsets = list(itertools.combinations(said, k))
            assert estimates[k - 1] == pytest.approx(
                float(sum(won(s, rule) for s in subsets) / len(subsets)), abs=1e-12
            )


def test_the_estimate_of_all_samples_is_the_vote_that_was_seen() -> None:
    for said in (["A", "A", "B"], ["B", "C", "B"], ["A", "B"], ["A", None, None], [None, None]):
        (item,) = log_of([(each, False) for each in said]).items
        assert accuracies(item, "vote")[-1] == float(won(tuple((each, False) for each in said), "vote"))


def test_the_estimate_is_unbiased_with_any_number_of_options() -> None:
    chances, n = (Fraction(4, 10), Fraction(35, 100), Fraction(25, 100)), 6
    expected = [0.0] * n
    for counts in itertools.product(range(n + 1), repeat=3):
        if sum(counts) != n:
            continue
        ways = math.factorial(n) / math.prod(math.factorial(count) for count in counts)
        likely = ways * math.prod(float(p) ** count for p, count in zip(chances, counts, strict=True))
        said: list[Said] = [(name, False) for name, count in zip("ABC", counts, strict=True) for _ in range(count)]
        (item,) = log_of(said).items
        expected = [e + likely * a for e, a in zip(expected, accuracies(item, "vote"), strict=True)]
    for k in range(1, n + 1):
        assert expected[k - 1] == pytest.approx(float(laws.plurality(chances, k)[0]), abs=1e-12)


def test_drawing_with_replacement_is_biased_and_the_estimate_is_not() -> None:
    p, n = 0.6, 9
    ours = replaced = 0.0
    for right in range(n + 1):
        likely = math.comb(n, right) * p**right * (1 - p) ** (n - right)
        (item,) = log_of([("A", False)] * right + [("B", False)] * (n - right)).items
        ours += likely * accuracies(item, "vote")[n - 1]
        replaced += likely * float(laws.binary(1, Fraction(right, n), 0, n))  # as Chen et al. draw
    assert round(replaced, 3) == 0.673
    assert round(ours, 3) == round(float(laws.binary(1, p, 0, n)), 3) == 0.733


def test_samples_that_abstain_are_drawn_and_all_of_them_are_wrong() -> None:
    log = log_of([("A", False), (None, False), (None, False), ("B", False)], judged=False)
    assert accuracies(log.items[0], "vote")[0] == 0.25
    assert list(silence(log.items, 4)) == pytest.approx([1 / 2, 1 / 6, 0, 0])
    assert curve(log)[2].silent == pytest.approx(1 / 6)


def test_any_of_several_correct_answers_may_win() -> None:
    log = Log(
        {"id": "q", "index": i, "answer": answer, "correct": answer in ("4", "four")}
        for i, answer in enumerate(["4", "four", "5"])
    )
    assert accuracies(log.items[0], "vote") == pytest.approx(np.full(3, 2 / 3))


def test_many_samples_are_no_matter() -> None:
    said: list[Said] = [("A", False)] * 150 + [("B", False)] * 100
    (item,) = log_of(said).items
    estimates = accuracies(item, "vote")
    assert estimates[0] == pytest.approx(150 / 250)
    assert np.all(np.diff(estimates) >= -1e-12)
    assert estimates[-1] == 1.0
