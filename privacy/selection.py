"""Private selection: Renyi DP of publishing the best of a random number of trials.

A trial is run a number of times that is drawn in secret, and the best result alone is published. How the number
is drawn decides the price: a fixed number of trials would cost about as much as publishing all of them.

| distribution of the number K | `shape` | bound |
|---|---|---|
| truncated negative binomial | > 0; 1 is geometric | theorem 2 |
| logarithmic | 0 | theorem 2 |
| Poisson (with K = 0 nothing is published) | None | theorem 6 |

Invariants:
- Curves are Renyi divergences at ascending orders, all above 1; an infinite value says that nothing is known there.
- Every result is an upper bound, never below the trial's own curve, and does not fall with the order.

Source: Papernot and Steinke 2021, arXiv 2110.03620; from Renyi DP to delta: Canonne, Kamath, Steinke 2020
proposition 12, and Bretagnolle and Huber 1979.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from privacy.errors import AccountingError

Curve = NDArray[np.float64]

# A trial's cost that came out as zero may be a rounding error above it; theorem 6 takes a square root of it.
_LEAST_COST = 1e-12


def selection_rdp(orders: Curve, trial: Curve, *, mean_trials: float, shape: float | None) -> Curve:
    """Renyi divergence, at each order, of the best of K trials.

    Args:
        orders: (k,) ascending, all above 1.
        trial: (k,) of one trial, its score included; >= 0, infinite where unknown.
        mean_trials: E[K], >= 1.
        shape: See the module's table.

    Returns:
        (k,) >= `trial`.

    Raises:
        AccountingError: If a parameter is out of range.
    """
    if not math.isfinite(mean_trials) or mean_trials < 1.0:
        raise AccountingError(f"the mean number of trials must be finite and at least 1, got {mean_trials!r}")
    if shape is not None and (not math.isfinite(shape) or shape < 0.0):
        raise AccountingError(f"the shape must be finite and not negative, or None, got {shape!r}")
    if orders.shape != trial.shape or not (orders > 1.0).all() or not (np.diff(orders) > 0.0).all():
        raise AccountingError("orders must ascend, be above 1, and have one cost each")
    cost = np.maximum(trial, _LEAST_COST)
    choice = math.log(mean_trials) / (orders - 1.0)
    if shape is None:
        bound = cost + choice + mean_trials * _deltas(orders, cost)
    else:
        log_gamma = math.log(_success_probability(mean_trials, shape))
        bound = cost + choice + (1.0 + shape) * np.min((1.0 - 1.0 / orders) * cost - log_gamma / orders)
    # Renyi divergence grows with the order: a bound at a higher order holds at the lower ones.
    monotone: Curve = np.minimum.accumulate(bound[::-1])[::-1]
    return monotone


def _deltas(orders: Curve, cost: Curve) -> Curve:
    """For each order a, a delta with which a trial is (log(1 + 1/(a - 1)), delta)-DP; at most 1."""
    epsilons = np.log1p(1.0 / (orders - 1.0))
    known = np.isfinite(cost)
    if not known.any():
        return np.ones_like(orders)
    at, of = orders[known], cost[known]
    exponents = (at - 1.0) * (of - epsilons[:, None] + np.log1p(-1.0 / at)) - np.log(at)
    # The total variation distance, delta at epsilon 0, is at most sqrt(1 - exp(-divergence)) at any of these orders.
    variation = math.sqrt(-math.expm1(-float(of.min())))
    deltas: Curve = np.minimum(np.exp(exponents.min(axis=1)), variation)
    return deltas


def _success_probability(mean: float, shape: float) -> float:
    """Gamma of the truncated negative binomial distribution with this mean, to 1e-12 and rounded down (which costs)."""

    def mean_at(gamma: float) -> float:
        log_gamma = math.log(gamma)
        once = -log_gamma if shape == 0.0 else -math.expm1(shape * log_gamma) / shape
        return (1.0 - gamma) / (gamma * once)

    if mean == 1.0:
        return 1.0
    low, high = 0.5 / (mean + shape + 1.0), 1.0  # the mean falls from above `mean` to 1 on the way
    while mean_at(low) < mean:
        low /= 2.0
    while high - low > 1e-12 * low:
        middle = 0.5 * (low + high)
        if middle in (low, high) or middle == 1.0:
            break
        low, high = (middle, high) if mean_at(middle) >= mean else (low, middle)
    return low
