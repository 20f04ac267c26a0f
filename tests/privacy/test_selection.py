"""Private selection: our bound is that of dp-accounting, and is sound at the edges."""

from __future__ import annotations

import math

import numpy as np
import pytest
from dp_accounting import dp_event
from dp_accounting import rdp as peer
from hypothesis import given, settings
from hypothesis import strategies as st

from privacy.errors import AccountingError
from privacy.selection import selection_rdp

ORDERS = np.array([1.1, 1.5, 2.0, 3.0, 5.0, 8.0, 16.0, 32.0, 64.0, 256.0])


def of_gaussian(sigma: float) -> np.ndarray:
    return ORDERS / (2.0 * sigma**2)


@pytest.mark.parametrize("mean_trials", [1.0, 1.5, 3.0, 10.0, 1000.0])
@pytest.mark.parametrize("shape", [0.0, 1e-9, 0.5, 1.0, 2.0, 50.0, None])
@pytest.mark.parametrize("sigma", [0.7, 4.0, 60.0])
def test_it_is_the_bound_of_dp_accounting(sigma: float, shape: float | None, mean_trials: float) -> None:
    ours = selection_rdp(ORDERS, of_gaussian(sigma), mean_trials=mean_trials, shape=shape)
    accountant = peer.RdpAccountant(ORDERS)
    accountant.compose(
        dp_event.RepeatAndSelectDpEvent(
            dp_event.GaussianDpEvent(sigma), mean_trials, math.inf if shape is None else shape
        )
    )
    theirs = np.minimum.accumulate(accountant.rdp[::-1])[::-1]
    assert np.allclose(ours, theirs, rtol=1e-6, atol=1e-7)


@settings(derandomize=True, max_examples=100, deadline=None)
@given(
    sigma=st.floats(0.3, 100.0),
    mean_trials=st.floats(1.0, 1e6),
    shape=st.one_of(st.none(), st.floats(0.0, 1000.0)),
)
def test_it_costs_at_least_a_trial_and_more_with_more_trials(
    sigma: float, mean_trials: float, shape: float | None
) -> None:
    trial = of_gaussian(sigma)
    bound = selection_rdp(ORDERS, trial, mean_trials=mean_trials, shape=shape)
    assert (bound >= trial).all()
    assert (np.diff(bound) >= 0.0).all()
    more = selection_rdp(ORDERS, trial, mean_trials=2.0 * mean_trials, shape=shape)
    assert (more >= bound - 1e-9).all()
    noisier = selection_rdp(ORDERS, of_gaussian(2.0 * sigma), mean_trials=mean_trials, shape=shape)
    assert (noisier <= bound + 1e-9).all()


@pytest.mark.parametrize("shape", [0.0, 1.0, None])
def test_what_is_unknown_at_some_orders_is_not_taken_for_free(shape: float | None) -> None:
    trial = of_gaussian(2.0)
    known = selection_rdp(ORDERS, trial, mean_trials=5.0, shape=shape)
    trial[-3:] = math.inf
    bound = selection_rdp(ORDERS, trial, mean_trials=5.0, shape=shape)
    assert np.isinf(bound[-3:]).all()
    assert (bound[:-3] >= known[:-3] - 1e-12).all()
    assert np.isfinite(bound[:-3]).all()
    nothing = selection_rdp(ORDERS, np.full(len(ORDERS), math.inf), mean_trials=5.0, shape=shape)
    assert np.isinf(nothing).all()


@pytest.mark.parametrize("shape", [0.0, 1.0, None])
def test_a_trial_that_seems_free_is_not_free_to_choose_from(shape: float | None) -> None:
    """A cost that rounds to zero may be above it; choosing tells which trial was best."""
    bound = selection_rdp(ORDERS, np.zeros(len(ORDERS)), mean_trials=100.0, shape=shape)
    assert (bound > 0.0).all()


@pytest.mark.parametrize(
    ("mean_trials", "shape"),
    [(0.99, 1.0), (math.nan, 1.0), (math.inf, 1.0), (2.0, -0.1), (2.0, math.nan), (2.0, math.inf)],
)
def test_parameters_out_of_range(mean_trials: float, shape: float) -> None:
    with pytest.raises(AccountingError):
        selection_rdp(ORDERS, of_gaussian(1.0), mean_trials=mean_trials, shape=shape)


@pytest.mark.parametrize("orders", [ORDERS[:-1], ORDERS[::-1], ORDERS - 0.1, np.full(len(ORDERS), 2.0)])
def test_orders_must_ascend_above_one(orders: np.ndarray) -> None:
    with pytest.raises(AccountingError, match="orders"):
        selection_rdp(orders, of_gaussian(1.0), mean_trials=2.0, shape=1.0)
