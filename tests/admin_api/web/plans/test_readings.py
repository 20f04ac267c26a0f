"""What an attacker can conclude at an epsilon, against the mechanism whose trade-off is known exactly."""

from __future__ import annotations

import math

import pytest
from scipy import stats

from admin_api.web.plans.forecast import FALSE_POSITIVES, power, surest


@pytest.mark.parametrize("mu", [0.25, 0.5, 1.0, 2.0, 3.0])
@pytest.mark.parametrize("epsilon", [0.1, 0.5, 1.0, 3.0, 8.0])
def test_no_test_of_a_gaussian_mechanism_has_more_power_than_is_said(mu: float, epsilon: float) -> None:
    """The Gaussian mechanism at mu is (epsilon, delta)-private for this delta (Dong, Roth, Su 2022, corollary 2.13)."""
    delta = float(stats.norm.cdf(-epsilon / mu + mu / 2) - math.exp(epsilon) * stats.norm.cdf(-epsilon / mu - mu / 2))
    best = float(stats.norm.cdf(stats.norm.ppf(FALSE_POSITIVES) + mu))
    assert best <= power(epsilon, delta) + 1e-12


def test_readings_grow_with_epsilon_and_end_in_certainty() -> None:
    epsilons = [0.0, 0.1, 1.0, 3.0, 8.0, 50.0, 1000.0, math.inf]
    for values in ([surest(each) for each in epsilons], [power(each, 1e-5) for each in epsilons]):
        assert values == sorted(values)
        assert values[-1] == 1.0
    assert surest(0.0) == 0.5
    assert power(0.0, 0.0) == pytest.approx(FALSE_POSITIVES)


def test_surest_is_bayes_with_the_largest_ratio_of_likelihoods() -> None:
    for epsilon in (0.5, 2.0, 6.0):
        odds = math.exp(epsilon) * 1.0
        assert surest(epsilon) == pytest.approx(odds / (1 + odds))
