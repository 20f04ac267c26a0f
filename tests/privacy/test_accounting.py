"""Both accountants: reference values, edges, one contract, and an independent third accountant."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any

import dp_accounting
import pytest
from dp_accounting import pld, rdp
from hypothesis import given, settings
from hypothesis import strategies as st

from privacy import accounting
from privacy.errors import AccountingError, EventError
from privacy.events import Charge, CountRelease, LabelCounts, LocalSteps, Repeated, TrainingRound, Tuning, to_dp_event

Accountant = Callable[[Sequence[Charge | Repeated], float], float]


def rdp_at_eight(events: Sequence[Charge | Repeated], delta: float) -> float:
    return accounting.rdp_epsilon(events, delta, order=8.0)


ACCOUNTANTS = pytest.mark.parametrize(
    "price",
    [
        pytest.param(accounting.epsilon, id="pld"),
        pytest.param(accounting.rdp_epsilon, id="rdp"),
        pytest.param(rdp_at_eight, id="rdp filter"),
    ],
)


def rounds(prob: float, sigma: float, count: int) -> list[Charge | Repeated]:
    return [Repeated(TrainingRound(prob, sigma), count)]


def test_reference_value() -> None:
    assert accounting.epsilon(rounds(0.01, 1.0, 1000), 1e-5) == pytest.approx(1.828, abs=1e-3)
    assert accounting.rdp_epsilon(rounds(0.01, 1.0, 1000), 1e-5) == pytest.approx(2.1014, abs=1e-3)


@pytest.mark.parametrize(
    ("mean_trials", "shape", "expected"),
    [(10.0, 1.0, 4.103), (10.0, 0.0, 3.523), (1.0, 1.0, 2.119)],
    ids=["geometric", "logarithmic", "one trial"],
)
def test_reference_value_of_a_tuning(mean_trials: float, shape: float, expected: float) -> None:
    tuning = Tuning((Repeated(TrainingRound(0.01, 1.0), 1000),), mean_trials, shape)
    assert accounting.epsilon([tuning], 1e-5) == pytest.approx(expected, abs=1e-3)
    peer = rdp.RdpAccountant(accounting.RDP_ORDERS)
    peer.compose(to_dp_event(tuning))
    assert accounting.rdp_epsilon([tuning], 1e-5) == pytest.approx(peer.get_epsilon(1e-5), rel=1e-6)


def test_with_a_tuning_everything_is_by_renyi_dp_and_says_so() -> None:
    tuning = Tuning((Repeated(TrainingRound(1.0, 40.0), 10),), 5.0, 1.0)
    events: list[Charge | Repeated] = [*rounds(0.05, 2.0, 20), Repeated(tuning, 2)]
    together = accounting.rdp_epsilon(events, 1e-5)
    assert accounting.epsilon(events, 1e-5) == together
    assert accounting.epsilon(rounds(0.05, 2.0, 20), 1e-5) < together
    assert "RDP" in accounting.accountant(events)
    assert "PLD" in accounting.accountant(rounds(0.05, 2.0, 20))
    # Composition at each order: two tunings cost twice one's divergence.
    assert accounting.rdp_epsilon([Repeated(tuning, 2)], 1e-5) == accounting.rdp_epsilon([tuning, tuning], 1e-5)
    assert accounting.epsilon([Tuning((Repeated(TrainingRound(0.1, 0.0), 1),), 2.0, 1.0)], 1e-5) == math.inf
    order = accounting.filter_order(events, target_epsilon=10.0, delta=1e-5)
    assert accounting.rdp_epsilon(events, 1e-5, order=order) <= 10.0


@settings(derandomize=True, max_examples=25, deadline=None)
@given(
    prob=st.sampled_from([0.0, 0.01, 0.3, 1.0]),
    sigma=st.sampled_from([0.0, 0.8, 3.0]),
    steps=st.integers(1, 30),
    count=st.integers(1, 5),
)
def test_local_steps_cost_what_as_many_rounds_cost(prob: float, sigma: float, steps: int, count: int) -> None:
    local = [Repeated(LocalSteps(prob, sigma, steps), count)]
    assert accounting.compose(local) == accounting.compose(rounds(prob, sigma, steps * count))
    split = [LocalSteps(prob, sigma, steps)] * count
    assert accounting.compose(split) == accounting.compose(local)


def prv_epsilon(prob: float, sigma: float, count: int, delta: float) -> tuple[float, float]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # prv-accountant imports with deprecation warnings
        from prv_accountant import PoissonSubsampledGaussianMechanism, PRVAccountant

        accountant = PRVAccountant(
            prvs=[PoissonSubsampledGaussianMechanism(sampling_probability=prob, noise_multiplier=sigma)],
            max_self_compositions=[count],
            eps_error=0.01,
            delta_error=delta / 1000,
        )
        low, _, high = accountant.compute_epsilon(delta=delta, num_self_compositions=[count])
    return float(low), float(high)


@pytest.mark.parametrize(
    ("prob", "sigma", "count", "delta"),
    [(0.01, 1.0, 1000, 1e-5), (0.2, 4.0, 60, 1e-6), (0.002, 0.7, 1500, 1e-6)],
)
def test_a_third_accountant_agrees(prob: float, sigma: float, count: int, delta: float) -> None:
    low, high = prv_epsilon(prob, sigma, count, delta)
    reported = accounting.epsilon(rounds(prob, sigma, count), delta)
    assert low <= reported <= high
    assert reported == accounting.epsilon([LocalSteps(prob, sigma, count)], delta)
    assert reported <= accounting.rdp_epsilon(rounds(prob, sigma, count), delta)


@pytest.mark.parametrize(
    "events",
    [rounds(0.1, 3.0, 20), rounds(1.0, 12.0, 60), [LabelCounts(3.0, "codes")]],
    ids=["q.1", "q1", "counts"],
)
def test_prices_are_those_of_dp_accounting(events: list[Charge | Repeated]) -> None:
    peer = pld.PLDAccountant(dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE)
    renyi = rdp.RdpAccountant(accounting.RDP_ORDERS)
    for item in events:
        peer.compose(to_dp_event(item))
        renyi.compose(to_dp_event(item))
    assert accounting.epsilon(events, 1e-6) == pytest.approx(peer.get_epsilon(1e-6), rel=1e-6)
    assert accounting.rdp_epsilon(events, 1e-6) == pytest.approx(renyi.get_epsilon(1e-6), rel=1e-9)


def test_the_gaussian_mechanism_is_exact() -> None:
    """60 rounds of all patients are one Gaussian of noise 10/sqrt(60), whose delta has a closed form."""
    epsilon = accounting.epsilon(rounds(1.0, 10.0, 60), 1e-5)
    closed_form = dp_accounting.get_epsilon_gaussian(10.0 / math.sqrt(60.0), 1e-5)
    assert epsilon == pytest.approx(closed_form, abs=1e-4)


@ACCOUNTANTS
class TestEveryAccountant:
    """The contract. Each is an upper bound that moves the right way."""

    def test_nothing_costs_nothing(self, price: Accountant) -> None:
        assert price([], 1e-5) == 0.0
        assert price(rounds(0.0, 1.0, 100), 1e-5) == 0.0
        assert price(rounds(0.0, 0.0, 100), 1e-5) == 0.0
        assert price([LocalSteps(0.0, 1.0, 100)], 1e-5) == 0.0

    def test_no_noise_is_no_protection(self, price: Accountant) -> None:
        assert price([TrainingRound(0.01, 0.0)], 1e-5) == math.inf
        assert price([LocalSteps(0.01, 0.0, 1)], 1e-5) == math.inf
        assert price([TrainingRound(0.01, 5.0), CountRelease(0.0, "plain")], 1e-5) == math.inf

    @pytest.mark.parametrize("delta", [0.0, 1.0, -1e-5, math.nan, math.inf, True])
    def test_delta_out_of_range(self, price: Accountant, delta: float) -> None:
        with pytest.raises(AccountingError, match="delta"):
            price([TrainingRound(0.1, 1.0)], delta)

    def test_an_unknown_event_is_an_error(self, price: Accountant) -> None:
        stranger: Any = dp_accounting.GaussianDpEvent(100.0)
        with pytest.raises(EventError):
            price([TrainingRound(0.1, 1.0), stranger], 1e-5)

    def test_order_and_grouping_do_not_matter(self, price: Accountant) -> None:
        first, second = TrainingRound(0.05, 2.0), CountRelease(5.0, "wards")
        together = price([Repeated(first, 3), second], 1e-5)
        assert price([first, second, first, first], 1e-5) == pytest.approx(together, rel=1e-9)

    def test_a_release_costs_what_a_round_of_everybody_costs(self, price: Accountant) -> None:
        assert price([CountRelease(4.0, "wards")], 1e-5) == price([TrainingRound(1.0, 4.0)], 1e-5)

    @pytest.mark.parametrize(
        ("prob", "sigma", "count", "delta"),
        [(0.1, 3.0, 6, 1e-5), (1.0, 8.0, 12, 1e-7)],
        ids=["sampled", "everybody"],
    )
    def test_monotone(self, price: Accountant, prob: float, sigma: float, count: int, delta: float) -> None:
        base = price(rounds(prob, sigma, count), delta)
        slack = 1e-4  # of the grid of losses
        assert price(rounds(prob, sigma, count + 7), delta) >= base - slack
        assert price(rounds(prob, sigma * 0.8, count), delta) >= base - slack
        assert price(rounds(min(1.0, prob * 1.3), sigma, count), delta) >= base - slack
        assert price(rounds(prob, sigma, count), delta / 10.0) >= base - slack
        assert price([*rounds(prob, sigma, count), LabelCounts(9.0, "codes")], delta) >= base - slack


def test_pld_is_below_rdp_at_every_order() -> None:
    events = [*rounds(0.1, 3.0, 20), CountRelease(8.0, "wards")]
    best = accounting.rdp_epsilon(events, 1e-6)
    assert accounting.epsilon(events, 1e-6) < best
    assert best == min(accounting.rdp_epsilon(events, 1e-6, order=order) for order in accounting.RDP_ORDERS)


def test_coarser_grids_stay_above() -> None:
    composition = accounting.compose(rounds(0.2, 3.0, 20))
    fine = accounting.pld_epsilon(composition.gaussians, 1e-5, 1e-4)
    assert fine <= accounting.pld_epsilon(composition.gaussians, 1e-5, 1e-3) <= fine + 0.01
    assert accounting.epsilon(rounds(0.2, 3.0, 20), 1e-5) == fine
    assert accounting.epsilon(rounds(0.2, 3.0, 20), 1e-5, grid=1e-2) >= fine


def test_hopeless_events_are_answered_quickly() -> None:
    assert accounting.epsilon(rounds(1.0, 0.01, 1000), 1e-5) == math.inf
    assert accounting.rdp_epsilon(rounds(1.0, 0.01, 1000), 1e-5) > 1e6


def test_orders_that_do_not_converge_are_left_out_in_silence(capsys: pytest.CaptureFixture[str]) -> None:
    before = list(logging.getLogger("absl").filters)
    assert accounting.rdp_epsilon([TrainingRound(0.37, 3.7)], 1e-5) < 2.0
    assert capsys.readouterr() == ("", "")
    assert logging.getLogger("absl").filters == before


@pytest.mark.parametrize("order", [1.0, 7.77, math.nan, 2048.0])
def test_only_public_orders(order: float) -> None:
    with pytest.raises(AccountingError, match="order"):
        accounting.rdp_epsilon([TrainingRound(0.1, 1.0)], 1e-5, order=order)


@pytest.mark.parametrize(
    "events",
    [rounds(0.01, 1.0, 1000), rounds(1.0, 10.0, 60), rounds(0.005, 0.8, 500)],
    ids=["q.01", "q1", "q.005"],
)
def test_what_fits_at_the_best_order_fits_the_filter(events: list[Charge | Repeated]) -> None:
    cost = accounting.rdp_epsilon(events, 1e-6)
    for budget in (cost, 1.01 * cost, 3.0 * cost, 10.0 * cost):
        order = accounting.filter_order(events, target_epsilon=budget, delta=1e-6)
        assert accounting.rdp_epsilon(events, 1e-6, order=order) <= budget


def test_the_filter_order_suits_a_full_budget() -> None:
    """At the chosen order, work of the same kind fills the budget as well as at any order."""
    order = accounting.filter_order(rounds(0.01, 1.0, 100), target_epsilon=3.0, delta=1e-6)
    counts = range(100, 10_000, 100)
    full = max(n for n in counts if accounting.rdp_epsilon(rounds(0.01, 1.0, n), 1e-6) <= 3.0)
    assert accounting.rdp_epsilon(rounds(0.01, 1.0, full), 1e-6, order=order) <= 3.0


@pytest.mark.parametrize("budget", [0.0, -1.0, math.inf, math.nan, 200.1, True])
def test_budgets_out_of_range(budget: float) -> None:
    with pytest.raises(AccountingError, match="epsilon"):
        accounting.filter_order(rounds(0.1, 1.0, 1), target_epsilon=budget, delta=1e-5)


def test_the_accountants_name_themselves() -> None:
    assert version("dp-accounting") in accounting.accountant()
    assert accounting.accountant().startswith("dp-accounting 0.6.0 PLD (pessimistic, 1e-4 grid")
    assert "RDP" in accounting.admission_accountant()


@pytest.mark.parametrize(
    ("prob", "sigma", "low", "high"),
    [
        pytest.param(1e-12, 1.0, 0.0, 0.2, id="hardly anybody"),
        pytest.param(5e-324, 1.0, 0.0, 0.2, id="the smallest probability"),
        pytest.param(0.1, 1e6, 0.0, 0.01, id="very much noise"),
        pytest.param(0.1, 1e300, 0.0, 0.01, id="noise without end"),
        pytest.param(1.0, 1e300, 0.0, 0.01, id="noise without end for everybody"),
        pytest.param(math.nextafter(1.0, 0.0), 5.0, 0.7, 0.9, id="all but everybody"),
        pytest.param(0.1, 1e-3, 1000.0, math.inf, id="hardly any noise"),
        pytest.param(0.1, 1e-200, math.inf, math.inf, id="noise whose square vanishes"),
        pytest.param(1.0, 5e-324, math.inf, math.inf, id="the least noise"),
    ],
)
def test_extreme_events_are_priced(prob: float, sigma: float, low: float, high: float) -> None:
    for price in (accounting.epsilon, accounting.rdp_epsilon):
        assert low <= price([TrainingRound(prob, sigma)], 1e-5) <= high
