"""Curves: intervals over items that cover, choices that know of themselves, refusals that say what to do, plots."""

from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from exoflow.llm import laws
from exoflow.llm.planning import Curve, Log, curve
from exoflow.llm.planning.resampling import choose, chosen, means

ALPHA, EASY, HARD = 0.6, 0.85, 0.4
N = 11


def logged(rights: list[int], n: int = N, usd: float = 0.001) -> Log:
    """A log in which item i has rights[i] correct answers of n."""
    return Log(
        {"id": f"q{i}", "index": j, "answer": "A" if j < right else "B", "correct": j < right, "usd": usd}
        for i, right in enumerate(rights)
        for j in range(n)
    )


def mixed(items: int, seed: int = 1, n: int = N) -> list[int]:
    random = np.random.default_rng(seed)
    return [int(each) for each in random.binomial(n, np.where(random.random(items) < ALPHA, EASY, HARD))]


def covered(replications: int) -> tuple[np.ndarray, float, float]:
    """How often the truth of each k, of the chosen k, and of its gain lies in its interval of 95 %."""
    by_right = np.array(
        [[float(each) for each in laws.u_curve({"A": right, "B": N - right}, "A")] for right in range(N + 1)]
    )
    truth = np.array([float(laws.binary(ALPHA, EASY, HARD, k)) for k in range(1, N + 1)])
    each_k, of_chosen, of_gain = np.zeros(N), 0, 0
    for seed in range(replications):
        found = means(by_right[mixed(100, seed)], 1000, 1_000_000 + seed)  # not the numbers that made the items
        low, high = found.interval()
        each_k += (low <= truth) & (truth <= high)
        choice = choose(found, "max", np.append(found.mean[0], found.resampled[:, 0]))
        of_chosen += choice.value.low <= truth[choice.at] <= choice.value.high
        of_gain += choice.gain.low <= truth[choice.at] - truth[0] <= choice.gain.high
    return each_k / replications, of_chosen / replications, of_gain / replications


@pytest.mark.big
def test_intervals_of_95_percent_cover_so_often_over_1000_sets_of_100_items() -> None:
    each_k, of_chosen, of_gain = covered(1000)
    assert np.all((each_k >= 0.92) & (each_k <= 0.97))
    assert 0.92 <= of_chosen <= 0.97
    assert 0.92 <= of_gain <= 0.98


def test_intervals_of_95_percent_cover_about_so_often() -> None:
    each_k, of_chosen, of_gain = covered(120)
    assert np.all(each_k >= 0.89)
    assert of_chosen >= 0.89
    assert of_gain >= 0.89


def test_a_curve_rises_and_falls_with_the_law() -> None:
    found = curve(logged(mixed(4000, n=15), 15), replicates=200)
    for k in (1, 3, 5, 11, 15):
        assert found[k].accuracy == pytest.approx(float(laws.binary(ALPHA, EASY, HARD, k)), abs=0.02)
    assert found[4].accuracy == pytest.approx(found[3].accuracy)
    assert found.best_k("max").k in (3, 5, 7)


def test_differences_are_paired_by_item() -> None:
    found = curve(logged(mixed(100)))
    assert found[1].gain == found[1].gain_low == found[1].gain_high == 0
    for point in found.points[2:]:
        assert point.gain == pytest.approx(point.accuracy - found[1].accuracy)
        assert point.gain_high - point.gain_low < 0.75 * (point.high - point.low)  # apart, it would be 1.4 of it


def test_the_same_seed_gives_the_same_intervals_and_another_gives_others() -> None:
    log = logged(mixed(50))
    assert curve(log).points == curve(log).points
    assert curve(log, seed=1)[3].low != curve(log)[3].low
    assert curve(log, seed=1)[3].accuracy == curve(log)[3].accuracy


def test_1se_is_the_first_within_one_standard_error_of_the_best_and_max_the_first_of_the_best() -> None:
    mean, error = np.array([0.5, 0.58, 0.6, 0.6, 0.55]), np.array([0.1, 0.1, 0.03, 0.5, 0.1])
    assert chosen(mean, error, "max") == 2
    assert chosen(mean, error, "1se") == 1
    assert chosen(np.array([0.4, 0.4 + 1e-16]), np.zeros(2), "max") == 0  # no rounding decides


def test_a_choice_says_where_it_is_found_when_items_are_resampled() -> None:
    found = curve(logged(mixed(100)))
    for rule in ("max", "1se"):
        k, (low, high) = found.best_k(rule)
        assert low <= k <= high
    assert found.best_k("1se").k <= found.best_k("max").k
    sure = curve(logged([N] * 30 + [0] * 3))
    assert sure.best_k("max") == (1, (1, 1))  # more calls change nothing


def test_calls_and_money_are_those_of_an_item_on_average() -> None:
    found = curve(logged(mixed(10), usd=0.002), ks=[1, 5])
    assert [(point.calls, point.usd) for point in found.points] == [(1, pytest.approx(0.002)), (5, pytest.approx(0.01))]


def test_unequal_numbers_of_samples_are_used_up_to_the_fewest() -> None:
    rows = [each.as_row() for each in logged([3, 5, 0])]
    short = Log(row for row in rows if row["id"] != "q2" or row["index"] < 4)  # type: ignore[operator]
    assert curve(short).ks == (1, 2, 3, 4)
    with pytest.raises(ValueError, match=r"k = 5 needs as many samples of each item; 1 item \('q2'\) with fewer"):
        curve(short, ks=[1, 5])


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"ks": range(1, 21)}, "ask for ks up to 11, or collect more"),
        ({"ks": [0, 1]}, "whole numbers from 1"),
        ({"ks": []}, "at least one"),
        ({"rule": "majority"}, "rule is one of vote, filter_vote, first_passing"),
        ({"rule": "filter_vote"}, "needs judged samples"),
        ({"ci": "normal"}, "ci is 'cluster-bootstrap'"),
        ({"replicates": 0}, "intervals need some"),
        ({"replicates": "9"}, "intervals need some"),
    ],
)
def test_what_cannot_be_estimated_is_refused(asked: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        curve(logged([3, 5]), **asked)  # type: ignore[arg-type]


def test_a_curve_needs_labels_and_samples() -> None:
    with pytest.raises(ValueError, match="give their rows of the data set an answer"):
        curve([{"id": "q", "index": 0, "answer": "A"}])
    with pytest.raises(ValueError, match="empty"):
        curve([])


def test_a_judge_that_knows_makes_filter_vote_better_and_costs_a_call_a_sample() -> None:
    rows = [{**row.as_row(), "passed": bool(row.correct)} for row in logged([2, 4, 0, 9])]
    plain, filtered = curve(rows), curve(rows, rule="filter_vote")
    assert filtered[5].accuracy > plain[5].accuracy + 0.2
    assert filtered[5].calls == 10
    assert curve(rows, rule="first_passing")[11].accuracy == 0.75  # one item has nothing that is right


@pytest.fixture(scope="module")
def drawn() -> Curve:
    return curve(logged(mixed(100)))


@pytest.mark.parametrize("x", ["calls", "usd"])
def test_a_plot_is_written_as_png_and_svg_and_marks_the_choice(drawn: Curve, x: str, tmp_path: Path) -> None:
    drawn.plot(x, tmp_path / "c.png")  # type: ignore[arg-type]
    drawn.plot(x, tmp_path / "c.svg")  # type: ignore[arg-type]
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")
    text = "".join(ET.parse(tmp_path / "c.svg").getroot().itertext())
    assert f"k = {drawn.best_k().k}, the least within one standard error of the best" in text
    assert ("calls for a question" if x == "calls" else "US dollars for 1,000 questions") in text
    again = (tmp_path / "c.svg").read_bytes()
    drawn.plot(x, tmp_path / "c.svg")  # type: ignore[arg-type]
    assert (tmp_path / "c.svg").read_bytes() == again


def test_a_plot_that_cannot_be_is_refused(drawn: Curve, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"as \.png or \.svg"):
        drawn.plot(path=tmp_path / "c.pdf")
    with pytest.raises(ValueError, match="x is 'calls' or 'usd'"):
        drawn.plot("tokens")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="rule is 'max' or '1se'"):
        drawn.best_k("2se")  # type: ignore[arg-type]


def test_a_table_has_a_line_a_k_and_marks_the_best(drawn: Curve) -> None:
    lines = drawn.table().splitlines()
    assert len(lines) == 1 + N
    (best,) = (line for line in lines if line.endswith("  best"))
    assert best.split()[0] == str(drawn.best_k("max").k)


def test_intervals_of_one_question_or_of_few_are_told_not_to_be_believed(drawn: Curve) -> None:
    for rights, told in ([7], "one item"), ([7, 9], "2 items"):
        few = curve(logged(rights))
        assert len(few.cautions) == 1
        assert told in few.cautions[0]
        assert few.table().endswith(few.cautions[0])
        assert few.plot().get_suptitle() == few.cautions[0]
    assert drawn.cautions == ()


def test_ks_that_are_no_whole_numbers_are_refused() -> None:
    log = Log([{"id": item, "index": index, "answer": "A", "correct": True} for item in "ab" for index in range(3)])
    for ks in (5, [1.5], ["three"]):
        with pytest.raises(ValueError, match="ks are whole numbers from 1"):
            curve(log, ks)  # type: ignore[arg-type]  # that is what is tested
    assert curve(log, np.arange(1, 3)).ks == (1, 2)
