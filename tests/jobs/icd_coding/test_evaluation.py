"""Metrics against scikit-learn and by hand, and the promise of the calibrated threshold."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats
from sklearn.metrics import f1_score, top_k_accuracy_score

from jobs.icd_coding.errors import EvaluationError
from jobs.icd_coding.evaluation import (
    DEFAULT_GRID,
    calibrate,
    confidence_and_correct,
    coverage_at_precision,
    grid_counts,
    hit_at_k,
    macro_f1,
    proportion_interval,
    top_labels,
)


def some_scores(n: int = 300, labels: int = 7, seed: int = 0) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, labels, n)
    return rng.normal(size=(n, labels)) + 2 * np.eye(labels)[truth], truth


@pytest.mark.parametrize("k", [1, 3])
def test_hit_at_k_agrees_with_sklearn(k: int) -> None:
    score, truth = some_scores()
    assert hit_at_k(score, truth, k) == pytest.approx(top_k_accuracy_score(truth, score, k=k))


def test_macro_f1_agrees_with_sklearn_over_the_codes_in_the_truth() -> None:
    score, truth = some_scores()
    guess = score.argmax(axis=1)
    assert macro_f1(score, truth) == pytest.approx(f1_score(truth, guess, average="macro"))
    few = truth < 3
    expected = f1_score(truth[few], guess[few], average="macro", labels=[0, 1, 2])
    assert macro_f1(score[few], truth[few]) == pytest.approx(expected)


def test_ties_go_by_the_order_of_the_label_space() -> None:
    assert top_labels(np.array([[1.0, 2.0, 2.0, 0.0]]), 3).tolist() == [[1, 2, 0]]


def test_unknown_codes_are_never_right() -> None:
    score = np.array([[2.0, 1.0], [2.0, 1.0]])
    truth = np.array([0, -1])
    assert hit_at_k(score, truth, 2) == 0.5
    assert macro_f1(score, truth) == pytest.approx(2 / 3)  # the second guess costs precision
    assert confidence_and_correct(score, truth)[1].tolist() == [True, False]


CASES: list[tuple[list[float], list[bool], float, float, float, float | None]] = [
    # confidence, correct, target, coverage, threshold, precision
    ([0.9, 0.8, 0.7, 0.6], [True, True, False, False], 1.0, 0.5, 0.8, 1.0),
    ([0.6, 0.7, 0.8, 0.9], [False, False, True, True], 1.0, 0.5, 0.8, 1.0),
    ([0.9, 0.8, 0.7, 0.6], [True, False, True, True], 0.75, 1.0, 0.6, 0.75),  # the larger prefix wins
    ([0.9, 0.9, 0.9], [True, True, False], 0.9, 0.0, float("inf"), None),  # ties go together
    ([0.9, 0.5], [False, False], 0.5, 0.0, float("inf"), None),
    ([0.9], [True], 0.95, 1.0, 0.9, 1.0),
]


@pytest.mark.parametrize(("confidence", "correct", "target", "coverage", "threshold", "precision"), CASES)
def test_coverage_at_precision(
    confidence: list[float],
    correct: list[bool],
    target: float,
    coverage: float,
    threshold: float,
    precision: float | None,
) -> None:
    found = coverage_at_precision(np.array(confidence), np.array(correct), target)
    assert (found.coverage, found.threshold, found.precision) == (coverage, threshold, precision)


def test_grid_counts_of_two_hospitals_add_up() -> None:
    rng = np.random.default_rng(0)
    confidence, correct = rng.random(200), rng.random(200) < 0.7
    whole = grid_counts(confidence, correct)
    parts = grid_counts(confidence[:80], correct[:80]) + grid_counts(confidence[80:], correct[80:])
    assert (whole == parts).all()
    assert whole[DEFAULT_GRID.index(0.5)].tolist() == [
        int((confidence >= 0.5).sum()),
        int((~correct[confidence >= 0.5]).sum()),
    ]


def test_calibration_stops_at_the_first_failure() -> None:
    grid = (0.9, 0.8, 0.7, 0.6)
    counts = np.array([[100, 1], [150, 1], [200, 20], [1000, 20]])
    found = calibrate(counts, target_precision=0.95, grid=grid)
    # .9 is too thin to test, .8 passes, .7 fails, and .6 would pass but is never reached.
    assert (found.threshold, found.admissions, found.errors) == (0.8, 150, 1)
    assert stats.binom.cdf(1, 150, 0.05) <= 0.05 < stats.binom.cdf(20, 200, 0.05)
    assert stats.binom.cdf(20, 1000, 0.05) <= 0.05


@pytest.mark.parametrize(
    ("admissions", "errors", "tolerated", "passes"),
    [
        (58, 0, 0, False),
        (59, 0, 0, True),
        (92, 1, 0, False),
        (93, 1, 0, True),
        (123, 0, 2, False),  # too thin for two errors: passed over, whatever the outcome
        (124, 2, 2, True),
        (124, 3, 2, False),
    ],
)
def test_calibration_at_the_edge_of_the_exact_test(admissions: int, errors: int, tolerated: int, passes: bool) -> None:
    counts = np.array([[admissions, errors]])
    found = calibrate(counts, target_precision=0.95, grid=(0.5,), tolerated_errors=tolerated)
    assert (found.threshold == 0.5) is passes


def test_no_evidence_means_no_automatic_coding() -> None:
    empty = grid_counts(np.zeros(0), np.zeros(0, dtype=np.bool_))
    assert calibrate(empty, target_precision=0.95).threshold is None
    assert calibrate(empty, target_precision=0.95).admissions == 0


def test_the_promise_is_kept_and_the_plug_in_threshold_breaks_it() -> None:
    """Confidence c is right with probability .5 + .5 c: the precision above t is known exactly."""
    rng = np.random.default_rng(1)
    runs, n = 600, 1000
    broken, plug_in_broken, used = 0, 0, 0
    for _ in range(runs):
        confidence = rng.random(n)
        correct = rng.random(n) < 0.5 + 0.5 * confidence
        found = calibrate(grid_counts(confidence, correct), target_precision=0.9)
        if found.threshold is not None:
            used += 1
            broken += 0.5 + 0.5 * (1 + found.threshold) / 2 < 0.9
        plug_in = coverage_at_precision(confidence, correct, 0.9).threshold
        plug_in_broken += 0.5 + 0.5 * (1 + plug_in) / 2 < 0.9
    assert used > 0.8 * runs
    assert broken <= runs * 0.05 + 3 * (runs * 0.05 * 0.95) ** 0.5
    assert plug_in_broken > 0.25 * runs


@pytest.mark.parametrize(
    ("counts", "grid", "message"),
    [
        ([[1, 0]], (0.5, 0.4), "counts of shape"),
        ([[1, 0], [2, 0]], (0.4, 0.5), "descending"),
        ([[1, 0], [2, 0]], (0.5, 0.5), "descending"),
        ([[1, 2]], (0.5,), "errors <= admissions"),
        ([[-1, -1]], (0.5,), "counts must be"),
        ([[5, 0], [4, 0]], (0.5, 0.4), "growing"),
    ],
)
def test_impossible_counts_are_refused(counts: list[list[int]], grid: tuple[float, ...], message: str) -> None:
    with pytest.raises(EvaluationError, match=message):
        calibrate(np.array(counts), target_precision=0.95, grid=grid)


@pytest.mark.parametrize(("target", "alpha"), [(1.0, 0.05), (0.0, 0.05), (0.95, 0.0), (0.95, 1.0)])
def test_impossible_promises_are_refused(target: float, alpha: float) -> None:
    with pytest.raises(EvaluationError, match="must be in"):
        calibrate(np.array([[1, 0]]), target_precision=target, alpha=alpha, grid=(0.5,))


@pytest.mark.parametrize(("part", "whole"), [(0, 10), (3, 10), (10, 10), (456, 848)])
def test_interval_without_noise_is_wilsons(part: int, whole: int) -> None:
    found = proportion_interval(part, whole)
    wilson = stats.binomtest(part, whole).proportion_ci(method="wilson")
    assert (found.lower, found.upper) == pytest.approx((wilson.low, wilson.high))
    assert found.value == part / whole


def test_interval_with_noise_covers() -> None:
    rng = np.random.default_rng(2)
    hits, runs, rate = 0, 2000, 0.3
    for _ in range(runs):
        part = rng.binomial(200, rate) + rng.normal(0, 12)
        found = proportion_interval(part, 200 + rng.normal(0, 12), noise_std=12)
        hits += found.lower <= rate <= found.upper
    assert 0.93 <= hits / runs <= 0.97


@pytest.mark.parametrize(("part", "whole", "noise"), [(5, 3, 10.0), (-4, 20, 30.0), (2, -1, 1.0), (0, 0, 0.0)])
def test_interval_of_nothing_says_nothing(part: float, whole: float, noise: float) -> None:
    found = proportion_interval(part, whole, noise_std=noise)
    assert (found.lower, found.upper) == (0, 1)
    assert found.value is None or 0 <= found.value <= 1
    assert (found.value is None) is (whole <= 0)


@pytest.mark.parametrize(
    ("score", "truth", "message"),
    [
        (np.zeros((2, 3)), np.zeros(3, np.int64), "n labels"),
        (np.zeros(3), np.zeros(3, np.int64), "n labels"),
        (np.array([[np.nan, 0.0]]), np.zeros(1, np.int64), "NaN"),
        (np.zeros((1, 3)), np.array([3]), "-1..2"),
        (np.zeros((1, 3)), np.array([-2]), "-1..2"),
        (np.zeros((0, 3)), np.zeros(0, np.int64), "no admissions"),
    ],
)
def test_malformed_scores_are_refused(score: NDArray[np.float64], truth: NDArray[np.int64], message: str) -> None:
    with pytest.raises(EvaluationError, match=message):
        hit_at_k(score, truth, 1)


def test_malformed_confidences_are_refused() -> None:
    with pytest.raises(EvaluationError, match="flat arrays"):
        coverage_at_precision(np.zeros(2), np.zeros(3, np.bool_), 0.9)
    with pytest.raises(EvaluationError, match="NaN"):
        grid_counts(np.array([np.nan]), np.array([True]))
    with pytest.raises(EvaluationError, match="finite"):
        proportion_interval(1, 2, noise_std=-1)
