"""How good the coding is, and when a code may be assigned without a coder.

Confidence is the largest softmax probability; an admission is right when the code with it is the true one.
A true label of -1 stands for a code outside the plan's label space: such an admission is never right.

The threshold for automatic coding carries a finite-sample promise. Thresholds are tested from the strictest
down, each by an exact binomial test of "precision is below the target", stopping at the first test that
fails to reject (fixed-sequence testing, Angelopoulos et al. 2021, arXiv:2110.01052). The chosen threshold
then misses the target with probability at most `alpha` over the draw of the calibration set. The counts per
threshold add up, so they may come from a secure sum; but one threshold pooled over hospitals promises nothing
for any one of them, so calibrate at each hospital, on its own cases.

Scores, labels and counts are private data until they are released with noise; see `metric_report`.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from jobs.icd_coding.errors import EvaluationError
from jobs.icd_coding.model import softmax

DEFAULT_GRID: tuple[float, ...] = tuple(percent / 100 for percent in range(99, 4, -1))
"""Thresholds .99, .98, ... .05, fixed before any outcome is seen."""


@dataclass(frozen=True)
class Coverage:
    """The largest share of admissions that can be coded at a precision.

    Attributes:
        threshold: smallest confidence accepted; infinity if no prefix reaches the target.
        coverage: share of all admissions at or above the threshold, 0..1.
        precision: share of those that are right, 0..1; None if there are none.
    """

    threshold: float
    coverage: float
    precision: float | None


@dataclass(frozen=True)
class Calibration:
    """A threshold for automatic coding and the evidence for it.

    Attributes:
        threshold: code automatically at or above it; None: only suggest, the evidence is too thin.
        admissions: calibration admissions at or above the threshold (0 if None).
        errors: how many of them were wrong.
        target_precision, alpha: the promise: precision >= target, broken with probability at most alpha.
    """

    threshold: float | None
    admissions: int
    errors: int
    target_precision: float
    alpha: float


@dataclass(frozen=True)
class Interval:
    """A proportion with its interval, all in 0..1; value is None when nothing was counted."""

    value: float | None
    lower: float
    upper: float


def _check(score: NDArray[np.floating], truth: NDArray[np.integer]) -> None:
    if score.ndim != 2 or truth.shape != (score.shape[0],):
        raise EvaluationError(
            f"evaluation: expected (n, labels) scores and n labels, got {score.shape} and {truth.shape}"
        )
    if not np.isfinite(score).all():
        raise EvaluationError("evaluation: scores hold NaN or infinite numbers")
    if len(truth) and not -1 <= truth.min() <= truth.max() < score.shape[1]:
        raise EvaluationError(f"evaluation: labels must be in -1..{score.shape[1] - 1} (-1: unknown code)")


def top_labels(score: NDArray[np.floating], k: int) -> NDArray[np.int64]:
    """The k best labels of each row, best first; equal scores in the order of the label space.

    Args: score: (n, labels). Returns: (n, k).
    """
    return np.argsort(-score, axis=1, kind="stable")[:, :k].astype(np.int64)


def hit_at_k(score: NDArray[np.floating], truth: NDArray[np.integer], k: int) -> float:
    """Share of admissions whose true code is among the k best, 0..1.

    Raises: EvaluationError if there are no admissions, or shapes and labels do not fit.
    """
    _check(score, truth)
    if not len(truth):
        raise EvaluationError("hit@k: no admissions to evaluate")
    return float((top_labels(score, k) == truth[:, None]).any(axis=1).mean())


def macro_f1(score: NDArray[np.floating], truth: NDArray[np.integer]) -> float:
    """Mean F1 of the best label over the codes that occur in the truth, each code counting the same, 0..1.

    A code that is predicted but never true has no F1 of its own; it lowers the others' recall instead.
    Raises: EvaluationError if there are no admissions with a known code, or shapes and labels do not fit.
    """
    _check(score, truth)
    present = np.unique(truth[truth >= 0])
    if not len(present):
        raise EvaluationError("macro-F1: no admission with a known code")
    guess = top_labels(score, 1)[:, 0]
    labels = score.shape[1]
    right = np.bincount(truth[(guess == truth)], minlength=labels)[present]
    guessed = np.bincount(guess, minlength=labels)[present]
    true = np.bincount(truth[truth >= 0], minlength=labels)[present]
    return float((2 * right / (guessed + true)).mean())


def confidence_and_correct(
    score: NDArray[np.floating], truth: NDArray[np.integer]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """For each admission the best label's softmax probability, and whether that label is the true one."""
    _check(score, truth)
    if not len(truth):
        return np.zeros(0), np.zeros(0, dtype=np.bool_)
    confidence = softmax(score.astype(np.float64)).max(axis=1)
    return confidence, top_labels(score, 1)[:, 0] == truth


def coverage_at_precision(
    confidence: NDArray[np.floating], correct: NDArray[np.bool_], target_precision: float
) -> Coverage:
    """The largest confidence-ordered prefix of these labelled admissions with precision >= target.

    It describes a labelled set and promises nothing for new admissions: for that, `calibrate`.
    Admissions with the same confidence are accepted or left out together.
    """
    _check_pairs(confidence, correct)
    if not 0 < target_precision <= 1:
        raise EvaluationError(f"target precision: expected a number in (0, 1], got {target_precision}")
    if not len(confidence):
        raise EvaluationError("coverage: no admissions to evaluate")
    order = np.argsort(-confidence, kind="stable")
    ranked = confidence[order]
    precision = np.cumsum(correct[order]) / np.arange(1, len(order) + 1)
    last_of_ties = np.append(ranked[1:] != ranked[:-1], True)
    reached = np.flatnonzero(last_of_ties & (precision >= target_precision))
    if not len(reached):
        return Coverage(threshold=float("inf"), coverage=0.0, precision=None)
    best = int(reached[-1])
    return Coverage(threshold=float(ranked[best]), coverage=(best + 1) / len(order), precision=float(precision[best]))


def grid_counts(
    confidence: NDArray[np.floating], correct: NDArray[np.bool_], grid: tuple[float, ...] = DEFAULT_GRID
) -> NDArray[np.int64]:
    """Per threshold how many admissions are at or above it and how many of those are wrong.

    Returns: (len(grid), 2) whole numbers; the counts of several hospitals may be added.
    """
    _check_pairs(confidence, correct)
    accepted = confidence[None, :] >= np.asarray(grid)[:, None]
    return np.stack([accepted.sum(axis=1), (accepted & ~correct[None, :]).sum(axis=1)], axis=1).astype(np.int64)


def calibrate(
    counts: NDArray[np.integer],
    *,
    target_precision: float,
    alpha: float = 0.05,
    grid: tuple[float, ...] = DEFAULT_GRID,
    tolerated_errors: int = 2,
) -> Calibration:
    """The lowest threshold that fixed-sequence testing supports.

    Starting at the strictest threshold, test H0 "precision < target" with the exact p-value
    Pr[Binomial(n, 1 - target) <= errors]; go on while p <= alpha, stop at the first failure. Thresholds with
    too few admissions to pass with `tolerated_errors` errors are passed over: a first test that any single
    mistake fails would end most calibrations before they began. That depends on confidences only, never on an
    outcome, so the promise stands.

    Args:
        counts: as `grid_counts` makes them, for this grid.
        target_precision: in (0, 1). alpha: in (0, 1).
        grid: strictly descending thresholds, chosen before outcomes were seen.
        tolerated_errors: >= 0, chosen before outcomes were seen. The default needs 124 admissions at or above
            a threshold for a target of .95, and 61 for .9.

    Raises: EvaluationError if the grid does not descend, the counts do not fit it or are impossible.
    """
    from scipy import stats

    if not (0 < target_precision < 1 and 0 < alpha < 1):
        raise EvaluationError(
            f"calibration: target precision and alpha must be in (0, 1), got {target_precision} and {alpha}"
        )
    if not grid or any(later >= earlier for earlier, later in pairwise(grid)):
        raise EvaluationError("calibration: the grid must be strictly descending and not empty")
    if counts.shape != (len(grid), 2):
        raise EvaluationError(f"calibration: expected counts of shape {(len(grid), 2)}, got {counts.shape}")
    if (counts < 0).any() or (counts[:, 1] > counts[:, 0]).any() or (np.diff(counts, axis=0) < 0).any():
        raise EvaluationError("calibration: counts must be >= 0, errors <= admissions, growing down the grid")
    chosen = Calibration(threshold=None, admissions=0, errors=0, target_precision=target_precision, alpha=alpha)
    admissions, errors = counts[:, 0], counts[:, 1]
    thin = np.asarray(stats.binom.cdf(tolerated_errors, admissions, 1 - target_precision) > alpha)
    passes = np.asarray(stats.binom.cdf(errors, admissions, 1 - target_precision) <= alpha)
    for i, threshold in enumerate(grid):
        if thin[i]:
            continue
        if not passes[i]:
            break
        chosen = Calibration(
            threshold=threshold,
            admissions=int(admissions[i]),
            errors=int(errors[i]),
            target_precision=target_precision,
            alpha=alpha,
        )
    return chosen


def proportion_interval(part: float, whole: float, *, noise_std: float = 0.0, confidence: float = 0.95) -> Interval:
    """A proportion part/whole with an interval that covers sampling and the noise of a private release.

    The interval is every p with |part - p whole| <= z sqrt(whole p (1 - p) + noise_std^2 (1 + p^2)): Wilson's
    score interval when there is no noise, Fieller's for a ratio when there is. It is approximate: for a
    promise use `calibrate`.

    Args:
        part, whole: counts, possibly with noise (then perhaps negative or part > whole).
        noise_std: standard deviation of the noise on each count.
        confidence: in (0, 1).
    """
    from scipy import stats

    if not (noise_std >= 0 and 0 < confidence < 1 and np.isfinite([part, whole, noise_std]).all()):
        raise EvaluationError(
            f"interval: expected finite counts, noise_std >= 0 and confidence in (0, 1), "
            f"got {part}, {whole}, {noise_std}, {confidence}"
        )
    if whole <= 0:
        return Interval(value=None, lower=0.0, upper=1.0)
    value = min(max(part / whole, 0.0), 1.0)
    z = float(stats.norm.ppf(0.5 + confidence / 2))
    noise = (z * noise_std) ** 2
    a, b, c = whole**2 + z**2 * whole - noise, 2 * part * whole + z**2 * whole, part**2 - noise
    if a <= 0:  # the noise alone could explain any ratio
        return Interval(value=value, lower=0.0, upper=1.0)
    root = max(b * b - 4 * a * c, 0.0) ** 0.5
    lower, upper = (b - root) / (2 * a), (b + root) / (2 * a)
    return Interval(value=value, lower=min(max(lower, 0.0), value), upper=max(min(upper, 1.0), value))


def _check_pairs(confidence: NDArray[np.floating], correct: NDArray[np.bool_]) -> None:
    if confidence.ndim != 1 or correct.shape != confidence.shape or correct.dtype != np.bool_:
        raise EvaluationError(
            f"evaluation: expected two flat arrays of equal length, correct as booleans, "
            f"got shapes {confidence.shape} and {correct.shape}"
        )
    if not np.isfinite(confidence).all():
        raise EvaluationError("evaluation: confidences hold NaN or infinite numbers")
