"""What events cost: epsilon by privacy loss distributions (reported) and by Renyi DP (admission).

Two accountants, because they answer two questions:
- `epsilon`: privacy loss distributions (PLD), composed numerically and rounded pessimistically. The tightest
  sound answer for events that were fixed before anything was released. It is what is reported.
- `rdp_epsilon`: Renyi DP. Looser, but it makes a valid *filter*: with the order fixed before the first
  release (`filter_order`), jobs may be chosen in view of earlier releases and the budget still holds
  (Feldman and Zrnic 2021, Lecuyer 2021). Taking the best of many orders after each release would not be
  covered, nor is composing PLDs and stopping (arXiv 2602.06756). The ledger admits by this number.

Private selection (`Tuning`) has no privacy loss distribution; with one among the events `epsilon` is by Renyi DP
for all of them, and `accountant(events)` says so.

Invariants:
- Unit patient; neighbours by adding or removing one; the larger of the two directions counts.
- Nothing costs 0; a release without noise costs infinity; an unknown event raises `EventError`.
- Both are upper bounds. Epsilon never falls when an event is added, a count or sampling_prob grows, or noise
  shrinks.

| question | answer |
|---|---|
| no events, or sampling_prob 0 | 0 |
| noise_multiplier 0 | inf |
| sampling_prob 1 | the Gaussian mechanism, composed exactly |
| a tuning whose trial costs 0 | above 0: which trial was best is published |
| delta not in (0, 1), NaN | `AccountingError` |

Reference: sampling_prob 0.01, noise multiplier 1, 1000 rounds, delta 1e-5: PLD 1.828, RDP 2.101; the best of a
geometric number of such runs, 10 on average: RDP 4.103.

Source: Koskela et al. 2020 and Doroshenko et al. 2022 (arXiv 2207.04380) for PLD; Mironov, Talwar, Zhang 2019
(arXiv 1908.10530) for RDP; Canonne, Kamath, Steinke 2020 proposition 12 for its conversion; Feldman and
Zrnic 2021 (arXiv 2008.11193) for the filter.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.metadata import version
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from privacy.errors import AccountingError
from privacy.events import Charge, Repeated, Tuning, tally
from privacy.selection import selection_rdp

RDP_ORDERS: tuple[float, ...] = (
    *(round(1.1 + 0.1 * step, 1) for step in range(99)),  # 1.1 .. 10.9
    *(float(order) for order in range(11, 64)),
    *(80.0, 96.0, 128.0, 192.0, 256.0, 512.0, 1024.0),
)
MAX_EPSILON = 200.0  # of a budget or a target
PLD_GRID = 1e-4
# Beyond these the accountants' arithmetic would fail; each replacement costs more, so the bound stays one.
_LEAST_NOISE = 1e-6  # less is taken as no noise
_MOST_NOISE = 1e6
_LEAST_PROB = 1e-9
_GRIDS = ((10.0, PLD_GRID), (200.0, 1e-3), (2000.0, 1e-2))  # up to this RDP epsilon, this grid

Gaussians: TypeAlias = tuple[tuple[float, float, int], ...]
"""(sampling_prob, noise_multiplier, count), sorted."""


@dataclass(frozen=True)
class Composition:
    """What the accountants are asked: equal events merged, those that cost nothing left out.

    Attributes:
        gaussians: The sampled Gaussian mechanisms.
        tunings: (one trial's mechanisms, mean_trials, shape, count), sorted.
    """

    gaussians: Gaussians
    tunings: tuple[tuple[Gaussians, float, float | None, int], ...] = ()


@cache
def _library() -> str:
    return f"dp-accounting {version('dp-accounting')}"


def accountant(events: Iterable[Charge | Repeated] = ()) -> str:
    """Name and version of the accountant that `epsilon` uses for these events, for the record of a run."""
    if compose(events).tunings:
        return f"{_library()} RDP (the events hold a tuning, which PLD cannot price)"
    return f"{_library()} PLD (pessimistic, 1e-4 grid; coarser above epsilon 10)"


def admission_accountant() -> str:
    """Name and version of the admitting accountant, for the record of a run."""
    return f"{_library()} RDP filter (order fixed before the first release)"


def epsilon(events: Iterable[Charge | Repeated], delta: float, *, grid: float | None = None) -> float:
    """The epsilon to report, by privacy loss distributions; by Renyi DP if a tuning is among the events.

    Takes about 0.5 s for a new sampled event and is remembered for the life of the process.

    Args:
        events: What was, or would be, done to a patient's data.
        delta: In (0, 1).
        grid: Distance of the losses that are told apart; coarser is faster, larger, and as sound. Without it
            1e-4, or coarser above epsilon 10.

    Returns:
        Epsilon >= 0. Infinite if an event has no noise, or above 2000, where the numbers mean nothing.

    Raises:
        AccountingError: If `delta` is out of range.
        EventError: If something else than an event is among the events.
    """
    check_delta(delta)
    composition = compose(events)
    bound = _rdp_composed(composition, delta)
    for largest, usual in _GRIDS:
        if bound <= largest:
            return bound if composition.tunings else pld_epsilon(composition.gaussians, delta, grid or usual)
    return math.inf


def rdp_epsilon(events: Iterable[Charge | Repeated], delta: float, *, order: float | None = None) -> float:
    """Epsilon by Renyi DP.

    Args:
        events: What was, or would be, done to a patient's data.
        delta: In (0, 1).
        order: One of `RDP_ORDERS`: the price in a filter that fixed this order. Without it the best order is
            taken, which is sound for events that do not depend on earlier releases.

    Returns:
        Epsilon >= 0, infinite if an event has no noise.

    Raises:
        AccountingError: If `delta` or `order` is out of range.
        EventError: If something else than an event is among the events.
    """
    check_delta(delta)
    return _rdp_composed(compose(events), delta, order=order)


def filter_order(events: Iterable[Charge | Repeated], *, target_epsilon: float, delta: float) -> float:
    """The order for an RDP filter whose budget would be used by work like these events.

    The events are scaled up until they fill the budget, and the order that is best there is taken. What fits
    the budget at its best order fits it at this one too. To be called before anything was released: the order
    must not depend on a release.

    Returns:
        One of `RDP_ORDERS`.

    Raises:
        AccountingError: If `target_epsilon` is not in (0, 200] or `delta` is out of range.
    """
    check_delta(delta)
    check_epsilon(target_epsilon)
    composition = compose(events)
    curve = _rdp_of(composition)
    scale = 1.0
    if curve.any() and _best(curve, delta)[0] <= target_epsilon:
        scale = _largest_true(lambda factor: _best(factor * curve, delta)[0] <= target_epsilon, 1.0)
    return _best(scale * curve, delta)[1]


def compose(events: Iterable[Charge | Repeated]) -> Composition:
    """What the accountants need to know of events; see `Composition`."""
    gaussians: dict[tuple[float, float], int] = {}
    tunings: dict[tuple[Gaussians, float, float | None], int] = {}
    for event, count in tally(events).items():
        if isinstance(event, Tuning):
            trial = (compose(event.trial).gaussians, event.mean_trials, event.shape)
            tunings[trial] = tunings.get(trial, 0) + count
        elif event.sampling_prob > 0.0:
            prob, sigma = max(event.sampling_prob, _LEAST_PROB), min(event.noise_multiplier, _MOST_NOISE)
            key = (prob, sigma if sigma >= _LEAST_NOISE else 0.0)
            gaussians[key] = gaussians.get(key, 0) + count * event.mechanisms
    return Composition(
        tuple((*key, count) for key, count in sorted(gaussians.items())),
        tuple((*trial, count) for trial, count in sorted(tunings.items(), key=repr)),
    )


def check_delta(delta: float) -> None:
    """Raises `AccountingError` unless 0 < delta < 1."""
    if isinstance(delta, bool) or not 0.0 < delta < 1.0:
        raise AccountingError(f"delta must be in (0, 1), got {delta!r}")


def check_epsilon(target_epsilon: float) -> None:
    """Raises `AccountingError` unless the budget or target is a number in (0, 200]."""
    if isinstance(target_epsilon, bool) or not 0.0 < target_epsilon <= MAX_EPSILON:
        raise AccountingError(
            f"epsilon must be in (0, {MAX_EPSILON:g}], for more protects nobody; got {target_epsilon!r}"
        )


# --- privacy loss distributions ---------------------------------------------------------------------------


@lru_cache(maxsize=4096)
def pld_epsilon(gaussians: Gaussians, delta: float, grid: float) -> float:
    """PLD epsilon on a grid of losses `grid` apart. Coarser is faster, larger, and as sound."""
    from dp_accounting.pld import privacy_loss_distribution as pld

    if not gaussians:
        return 0.0
    if any(sigma == 0.0 for _, sigma, _ in gaussians):
        return math.inf
    total = None
    # Gaussians without sampling compose exactly: the precisions 1/sigma^2 add.
    precision = math.fsum(count / sigma**2 for prob, sigma, count in gaussians if prob == 1.0)
    parts = [(1.0, 1.0 / math.sqrt(precision), 1)] if precision else []
    for prob, sigma, count in [*parts, *(part for part in gaussians if part[0] < 1.0)]:
        part = pld.from_gaussian_mechanism(
            sigma, sampling_prob=prob, value_discretization_interval=grid, pessimistic_estimate=True
        )
        part = part.self_compose(count) if count > 1 else part
        total = part if total is None else total.compose(part)
    assert total is not None  # noqa: S101 - the composition is not empty
    return max(0.0, float(total.get_epsilon_for_delta(delta)))


# --- Renyi DP ---------------------------------------------------------------------------------------------


class _NotConverged(logging.Filter):
    """Drops dp-accounting's notice that an order did not converge: we take that order's cost as infinite."""

    def filter(self, record: logging.LogRecord) -> bool:
        return "failed to converge" not in str(record.msg)


@contextmanager
def _quiet() -> Iterator[None]:
    logger, notice = logging.getLogger("absl"), _NotConverged()
    logger.addFilter(notice)
    try:
        yield
    finally:
        logger.removeFilter(notice)


@lru_cache(maxsize=4096)
def _rdp_once(prob: float, sigma: float) -> NDArray[np.float64]:
    """Renyi divergence of one event at each of `RDP_ORDERS`."""
    import dp_accounting
    from dp_accounting import rdp

    if sigma == 0.0:
        return np.full(len(RDP_ORDERS), math.inf)
    event = dp_accounting.GaussianDpEvent(sigma)
    with _quiet():
        ledger = rdp.RdpAccountant(RDP_ORDERS)
        ledger.compose(dp_accounting.PoissonSampledDpEvent(prob, event) if prob < 1.0 else event)
    # Next to zero a cost may come out a rounding error below it; further below, the order is not trusted.
    curve: NDArray[np.float64] = np.where(ledger.rdp < -1e-9, math.inf, np.maximum(ledger.rdp, 0.0))
    curve.setflags(write=False)
    return curve


def _rdp_of_gaussians(gaussians: Gaussians) -> NDArray[np.float64]:
    total = np.zeros(len(RDP_ORDERS))
    for prob, sigma, count in gaussians:
        total += count * _rdp_once(prob, sigma)
    return total


def _rdp_of(composition: Composition) -> NDArray[np.float64]:
    total = _rdp_of_gaussians(composition.gaussians)
    for trial, mean_trials, shape, count in composition.tunings:
        curve = selection_rdp(np.array(RDP_ORDERS), _rdp_of_gaussians(trial), mean_trials=mean_trials, shape=shape)
        total += count * curve
    return total


def _at_orders(curve: NDArray[np.float64], delta: float) -> NDArray[np.float64]:
    orders = np.array(RDP_ORDERS)
    costs: NDArray[np.float64] = curve + np.log1p(-1.0 / orders) - (math.log(delta) + np.log(orders)) / (orders - 1.0)
    return np.maximum(costs, 0.0)


def _best(curve: NDArray[np.float64], delta: float) -> tuple[float, float]:
    costs = _at_orders(curve, delta)
    index = int(np.argmin(costs))
    return float(costs[index]), RDP_ORDERS[index]


def _rdp_composed(composition: Composition, delta: float, *, order: float | None = None) -> float:
    if order is not None and order not in RDP_ORDERS:
        raise AccountingError(f"order must be one of the accountant's Renyi orders (RDP_ORDERS), got {order!r}")
    if composition == Composition(()):
        return 0.0
    curve = _rdp_of(composition)
    if order is None:
        return _best(curve, delta)[0]
    return float(_at_orders(curve, delta)[RDP_ORDERS.index(order)])


def _largest_true(holds: Callable[[float], bool], start: float) -> float:
    """The largest x >= start with holds(x), to 0.1%, for a condition that holds at `start` and once fails."""
    low, high = start, 2.0 * start
    while holds(high):
        low, high = high, 2.0 * high
    while high / low > 1.001:
        middle = math.sqrt(low * high)
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low
