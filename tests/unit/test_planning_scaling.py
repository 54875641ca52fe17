"""The scaling model: fitted on few calls, it foretells many; where it often does not, it says so."""

from pathlib import Path

import numpy as np
import pytest

from exoflow.llm import laws
from exoflow.llm.planning import Log, Scaling, curve, fit_accuracies, fit_scaling

TASKS = [(0.5, 0.85, 0.4), (0.6, 0.85, 0.4), (0.5, 0.65, 0.4), (0.4, 0.85, 0.1)]
FAR = range(1, 100, 2)


def exact(alpha: float, p1: float, p2: float, ks: range) -> np.ndarray:
    """Curves of ten items that the law knows: ``[10, ks]``."""
    of = [[float(laws.binary(1, p, 0, k)) for k in ks] for p in (p1, p2)]
    return np.array([of[0]] * round(10 * alpha) + [of[1]] * round(10 * (1 - alpha)))


def fitted(task: tuple[float, float, float], most: int) -> Scaling:
    ks = range(1, most + 1, 2)
    return fit_accuracies(ks, exact(*task, ks), replicates=200)


@pytest.mark.parametrize("task", TASKS)
def test_a_fit_to_11_calls_foretells_99(task: tuple[float, float, float]) -> None:
    model = fitted(task, 11)
    error = np.array(model.predict(FAR)) - exact(*task, FAR).mean(axis=0)
    assert np.mean(error**2) <= 7.4e-6
    assert model.predict(99) == pytest.approx(model.predict([99])[0])


def test_the_best_k_is_that_of_the_law_or_as_good() -> None:
    for task in TASKS[:3]:
        k, (low, high) = fitted(task, 11).best_k()
        assert low <= k <= high
        best = float(laws.binary(*task, int(laws.best_k(*task))))
        assert float(laws.binary(*task, k)) == pytest.approx(best, abs=3e-4)


def test_1se_takes_no_more_calls_than_max() -> None:
    model = fitted((0.6, 0.85, 0.4), 11)
    assert model.best_k("1se").k <= model.best_k("max").k == 5
    with pytest.raises(ValueError, match="rule is 'max' or '1se'"):
        model.best_k("2se")  # type: ignore[arg-type]


def test_a_fit_on_five_calls_says_that_it_often_misplaces_the_best() -> None:
    few, many = fitted(TASKS[0], 5), fitted(TASKS[0], 11)
    assert any("misplaces" in caution for caution in few.cautions)
    assert "misplaces" in few.table()
    assert not any("misplaces" in caution for caution in many.cautions)


def test_a_fit_to_one_question_says_that_it_knows_of_no_other() -> None:
    assert "one item" in fit_accuracies([1, 3, 5, 7, 9, 11], np.array([[0.5, 0.6, 0.6, 0.6, 0.6, 0.5]])).cautions[0]


def test_a_curve_that_only_rises_has_no_best_and_says_so() -> None:
    rising = fitted((1.0, 0.6, 0.4), 11)
    assert rising.best_k().k == 99
    assert "no best k was found" in rising.table()


def test_rates_are_not_negative_and_even_votes_are_those_before() -> None:
    model = fitted(TASKS[1], 11)
    assert np.all(model.fits.a[:, :2] >= 1e-6)
    assert model.fits.easy.tolist() == [True] * 6 + [False] * 4
    assert model.predict(6) == model.predict(5)
    assert model.predict(np.int64(5)) == model.predict(5)
    for none in (0, 2.5, "3", [], [3, "5"]):
        with pytest.raises(ValueError, match="whole numbers from 1"):
            model.predict(none)  # type: ignore[call-overload]  # that is what is tested


def logged(rights: list[int], n: int) -> Log:
    return Log(
        {"id": f"q{i}", "index": j, "answer": "A" if j < right else "B", "correct": j < right}
        for i, right in enumerate(rights)
        for j in range(n)
    )


def test_only_odd_votes_are_fitted() -> None:
    log = logged([20, 17, 12, 7, 0, 10, 15], 20)
    assert fit_scaling(log).ks == tuple(range(1, 20, 2))
    assert fit_scaling(log, ks=range(1, 12)).ks == (1, 3, 5, 7, 9, 11)


def test_a_fit_needs_five_samples_and_labels() -> None:
    with pytest.raises(ValueError, match="collect 5 samples an item or more"):
        fit_scaling(logged([2, 3], 4))
    with pytest.raises(ValueError, match="three odd k"):
        fit_scaling(logged([2, 3], 7), ks=[1, 3, 9])
    with pytest.raises(ValueError, match="accuracy needs labels"):
        fit_scaling([{"id": "q", "index": i, "answer": "A"} for i in range(5)])
    for none in (5, [1, 3, "5"]):
        with pytest.raises(ValueError, match="ks are whole numbers from 1"):
            fit_scaling(logged([2, 3], 7), ks=none)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="replicates is 0"):
        fit_scaling(logged([2, 3], 7), replicates=0)


@pytest.mark.parametrize(("rights", "accuracy"), [([11, 11], 1), ([0, 0], 0), ([11, 0], 0.5)], ids=str)
def test_what_no_vote_changes_is_best_asked_once(rights: list[int], accuracy: float) -> None:
    model = fit_scaling(logged(rights, 11))
    assert model.predict([1, 3, 99]) == [accuracy] * 3
    assert model.best_k("max") == model.best_k("1se") == (1, (1, 1))


def test_a_log_is_fitted_as_well_as_its_samples_allow() -> None:
    random = np.random.default_rng(3)
    rights = random.binomial(20, np.where(random.random(400) < 0.6, 0.85, 0.4))
    log = logged([int(each) for each in rights], 20)
    seen, model = curve(log, replicates=100), fit_scaling(log, ks=range(1, 12))
    for k in (1, 3, 5, 7, 9, 11):
        assert model.predict(k) == pytest.approx(seen[k].accuracy, abs=0.005)
    assert model.predict(19) == pytest.approx(seen[19].accuracy, abs=0.03)


def test_its_plot_shows_what_it_knows_and_what_it_believes(tmp_path: Path) -> None:
    fitted(TASKS[0], 5).plot(tmp_path / "m.svg")
    text = (tmp_path / "m.svg").read_text()
    for words in ("estimated from the log", "the model, beyond", "often misplaces the best k", "the highest accuracy"):
        assert words in text
