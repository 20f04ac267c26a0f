"""Direct tests of what the accounting takes for granted: noise as large as claimed and fresh, clipped contributions,
and Poisson sampling.

Each test compares what was observed with what was claimed and gives a `Check`. A check fails only if what was seen is
less likely than its `false_alarm` under the claim, so a whole audit's false alarms add up to at most the sum of its
checks' (union bound). They are far sharper than an attack: half a percent of missing noise shows, where an attack
may miss a half.

Noise is given in units of its claimed standard deviation. A discrete Gaussian of thousands of units or more cannot be
told from a Gaussian, so chi-square and normal tests are exact for all purposes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from privacy.errors import AccountingError

_SHOWN = 0.95  # of the intervals that are shown beside a measured value
_LEAST_NOISE = 500  # samples; the tests rest on large numbers


@dataclass(frozen=True)
class Check:
    """One comparison of the code with its claim.

    Attributes:
        name: what is checked, one word or a few with hyphens.
        passed: whether the claim stands.
        measured: what was seen.
        claimed: what the claim says `measured` is, or is at most.
        lower, upper: a 95% interval of what `measured` estimates; None where nothing is left to chance.
        p_value: how likely something as far off is under the claim; None where nothing is left to chance.
        false_alarm: probability at most with which sound code fails this check.
        detail: one plain sentence.
    """

    name: str
    passed: bool
    measured: float
    claimed: float
    lower: float | None
    upper: float | None
    p_value: float | None
    false_alarm: float
    detail: str

    def to_json(self) -> dict[str, Any]:
        """A JSON object of finite numbers and texts."""
        return asdict(self)


def noise_variance(releases: Sequence[NDArray[np.float64]], *, false_alarm: float) -> Check:
    """Whether released noise has its claimed variance, over all releases and in each of them.

    Args:
        releases: the noise of each release, in units of its claimed standard deviation.
        false_alarm: of this check.

    Returns: `measured` is the variance over the claimed one; two-sided, since too much noise is a defect as well.
    Raises: AccountingError with fewer than 500 samples in a release.
    """
    from scipy import stats

    _enough(releases)
    energy = [float(np.dot(noise, noise)) for noise in releases]
    sizes = [noise.size for noise in releases]
    total, size = math.fsum(energy), sum(sizes)
    overall = _two_sided_chi_square(total, size)
    alone = [_two_sided_chi_square(part, count) for part, count in zip(energy, sizes, strict=True)]
    worst = int(np.argmin(alone))
    chance = min(1.0, 2 * min(overall, len(alone) * alone[worst]))
    tail = (1 - _SHOWN) / 2
    return Check(
        "noise-variance",
        chance >= false_alarm,
        total / size,
        1.0,
        total / float(stats.chi2.ppf(1 - tail, size)),
        total / float(stats.chi2.ppf(tail, size)),
        chance,
        false_alarm,
        f"variance of the released noise over the claimed one, from {size:,} numbers in {len(sizes)} releases; "
        f"the release farthest off is number {worst + 1} with {energy[worst] / sizes[worst]:.4f}",
    )


def noise_shape(releases: Sequence[NDArray[np.float64]], *, false_alarm: float) -> Check:
    """Whether released noise is Gaussian, whatever its size (Kolmogorov-Smirnov, scaled by the measured variance).

    Scaling by what was measured makes the test milder, never sharper.

    Returns: `measured` is the largest distance of the distribution functions.
    Raises: AccountingError with fewer than 500 samples in a release.
    """
    from scipy import stats

    _enough(releases)
    noise = np.concatenate(releases)
    spread = math.sqrt(float(np.dot(noise, noise)) / noise.size)
    distance, chance = 1.0, 0.0  # no noise at all has no shape
    if spread > 0:
        result = stats.kstest(noise / spread, "norm", method="asymp")
        distance, chance = float(result.statistic), float(result.pvalue)
    return Check(
        "noise-shape",
        chance >= false_alarm,
        distance,
        0.0,
        None,
        None,
        chance,
        false_alarm,
        f"largest distance of the noise's distribution from a Gaussian, from {noise.size:,} numbers",
    )


def noise_fresh(releases: Sequence[NDArray[np.float64]], *, false_alarm: float) -> Check:
    """Whether every release has noise of its own: no two releases of the same length are correlated.

    Returns: `measured` is the correlation farthest from 0.
    Raises: AccountingError with fewer than 500 samples in a release, or no two releases to compare.
    """
    from scipy import stats

    _enough(releases)
    pairs = [(a, b) for a, b in combinations(range(len(releases)), 2) if releases[a].size == releases[b].size]
    if not pairs:
        raise AccountingError("noise: there are no two releases of the same length to compare")
    lengths = [math.sqrt(float(np.dot(noise, noise))) for noise in releases]
    furthest, chance = 0.0, 1.0
    for a, b in pairs:
        if lengths[a] == 0 or lengths[b] == 0:
            continue  # nothing to correlate; the variance says what is wrong
        correlation = float(np.dot(releases[a], releases[b])) / (lengths[a] * lengths[b])
        alone = 2 * float(stats.norm.sf(abs(correlation) * math.sqrt(releases[a].size)))
        if alone < chance:
            furthest, chance = correlation, alone
    chance = min(1.0, len(pairs) * chance)
    return Check(
        "noise-fresh",
        chance >= false_alarm,
        furthest,
        0.0,
        None,
        None,
        chance,
        false_alarm,
        f"correlation of the noise of two releases, the farthest from 0 of {len(pairs)} pairs",
    )


def contribution(
    alignments: NDArray[np.float64], *, noise_std: float, sampling_prob: float, false_alarm: float
) -> Check:
    """Whether one patient moves a released sum by no more than the clip.

    Args:
        alignments: (releases, included canaries) the released sum along each included canary's own direction, in
            units of the clip. The directions are orthogonal.
        noise_std: of the released sum in one direction, in units of the clip.
        sampling_prob: chance of each canary to be in a release.
        false_alarm: of this check.

    Returns: `measured` is the mean contribution of a canary that takes part, in units of the clip; at most 1 claimed.
    Raises: AccountingError if there is nothing to measure.
    """
    from scipy import stats

    if not alignments.size or not 0 < sampling_prob <= 1 or not noise_std > 0:
        raise AccountingError("contribution: nothing to measure: expected canaries, a sampling probability and noise")
    # Each is a Bernoulli(sampling_prob) contribution of at most 1, plus noise.
    error = math.sqrt((noise_std**2 + sampling_prob * (1 - sampling_prob)) / alignments.size) / sampling_prob
    mean = float(alignments.mean()) / sampling_prob
    chance = float(stats.norm.sf((mean - 1.0) / error))
    reach = float(stats.norm.ppf(0.5 + _SHOWN / 2)) * error
    return Check(
        "contribution",
        chance >= false_alarm,
        mean,
        1.0,
        mean - reach,
        mean + reach,
        chance,
        false_alarm,
        f"what one patient adds to a released sum, in units of the clip, mean over {alignments.size:,} contributions",
    )


def sampling(took_part: NDArray[np.bool_], sampling_prob: float, *, false_alarm: float) -> tuple[Check, ...]:
    """Whether patients took part independently of each other and of earlier rounds, with the plan's probability.

    Four checks, each with a quarter of `false_alarm`: the overall rate (exact binomial); the spread of a round's size
    (fixed batches have none; patients drawn together have too much); the spread of a patient's rounds (an epoch's
    shuffle has none; favourites have too much); and how often a patient is in two rounds running, in rounds 1 and 2,
    3 and 4, ... (exact binomial).

    Args:
        took_part: (rounds, patients); at least 40 of each.
        sampling_prob: in (0, 1).

    Raises: AccountingError if there is too little to test.
    """
    rounds, patients = took_part.shape
    if rounds < 40 or patients < 40 or not 0 < sampling_prob < 1:
        raise AccountingError(f"sampling: too little to test: {rounds} rounds of {patients} patients")
    level = false_alarm / 4
    even = rounds // 2 * 2
    both = took_part[0:even:2] & took_part[1:even:2]
    return (
        _rate(
            "sampling-rate",
            took_part,
            sampling_prob,
            level,
            f"share of {rounds} rounds that each of {patients} patients took part in",
        ),
        _spread(
            "sampling-batch-size",
            took_part.sum(axis=1),
            patients,
            sampling_prob,
            level,
            "variance of the number of patients in a round, over that of independent patients",
        ),
        _spread(
            "sampling-patients",
            took_part.sum(axis=0),
            rounds,
            sampling_prob,
            level,
            "variance of the number of rounds of a patient, over that of independent rounds",
        ),
        _rate(
            "sampling-independence",
            both,
            sampling_prob**2,
            level,
            "share of pairs of consecutive rounds that a patient took part in twice",
        ),
    )


def _rate(name: str, hits: NDArray[np.bool_], claimed: float, false_alarm: float, detail: str) -> Check:
    from scipy import stats

    count, size = int(hits.sum()), hits.size
    below = float(stats.binom.cdf(count, size, claimed))
    above = float(stats.binom.sf(count - 1, size, claimed))
    chance = min(1.0, 2 * min(below, above))
    interval = stats.binomtest(count, size).proportion_ci(confidence_level=_SHOWN, method="wilson")
    return Check(
        name,
        chance >= false_alarm,
        count / size,
        claimed,
        float(interval.low),
        float(interval.high),
        chance,
        false_alarm,
        detail,
    )


def _spread(
    name: str, counts: NDArray[np.int64], tosses: int, sampling_prob: float, false_alarm: float, detail: str
) -> Check:
    from scipy import stats

    variance = tosses * sampling_prob * (1 - sampling_prob)
    total = float(((counts - tosses * sampling_prob) ** 2).sum() / variance)
    size = len(counts)
    chance = _two_sided_chi_square(total, size)
    tail = (1 - _SHOWN) / 2
    return Check(
        name,
        chance >= false_alarm,
        total / size,
        1.0,
        total / float(stats.chi2.ppf(1 - tail, size)),
        total / float(stats.chi2.ppf(tail, size)),
        chance,
        false_alarm,
        detail,
    )


def _two_sided_chi_square(total: float, degrees: int) -> float:
    from scipy import stats

    return min(1.0, 2 * min(float(stats.chi2.cdf(total, degrees)), float(stats.chi2.sf(total, degrees))))


def _enough(releases: Sequence[NDArray[np.float64]]) -> None:
    sizes = [noise.size for noise in releases]
    if not sizes or min(sizes) < _LEAST_NOISE:
        raise AccountingError(f"noise: expected at least {_LEAST_NOISE} numbers of each release, got {sizes}")
    if not all(np.isfinite(noise).all() for noise in releases):
        raise AccountingError("noise: a release holds numbers that are not finite")
