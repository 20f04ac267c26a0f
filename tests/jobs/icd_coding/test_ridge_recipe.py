"""Settings of the ridge estimator: from public constants, within bounds, and what they promise together."""

from __future__ import annotations

import math
from typing import Any

import pytest

from jobs.icd_coding.errors import CodingError
from jobs.icd_coding.recipe import gaussian_mu
from jobs.icd_coding.ridge_recipe import MEAN_SHARE, RidgeSettings, recommended_features, recommended_ridge


@pytest.mark.parametrize("nominal_patients", [1, 1_000, 100_000, 10_000_000])
def test_more_budget_never_gives_up_the_gram_matrix_or_columns(nominal_patients: int) -> None:
    budgets = (0.1, 0.5, 1, 3, 8, 50, 200, None)
    settings = [recommended_ridge(epsilon, nominal_patients=nominal_patients) for epsilon in budgets]
    widths = [recommended_features(epsilon, nominal_patients=nominal_patients) for epsilon in budgets]
    shares = [chosen.gram_share for chosen in settings]
    assert shares == sorted(shares) and shares[-1] > 0
    assert widths == sorted(widths)
    assert all(width & (width - 1) == 0 for width in widths)


def test_the_settings_of_the_documented_runs() -> None:
    """RuMedTop3's 4,690 patients, on both sides of the Gram matrix's worth."""
    shares = [recommended_ridge(epsilon, nominal_patients=4690).gram_share for epsilon in (None, 8, 3, 1)]
    assert shares == [0.3, 0.3, 0.0, 0.0]


def test_mean_and_statistics_cost_the_whole_budget_together() -> None:
    """With the shares as the module says, the accountant prices both releases like one."""
    from privacy.accounting import epsilon
    from privacy.events import FeatureMean, StatisticsRelease

    noise = 1 / gaussian_mu(3.0, 1e-5)
    events: list[FeatureMean | StatisticsRelease] = [
        FeatureMean(noise / math.sqrt(MEAN_SHARE), "mean"),
        StatisticsRelease(noise / math.sqrt(1 - MEAN_SHARE), "statistics"),
    ]
    assert epsilon(events, 1e-5) == pytest.approx(3.0, rel=2e-3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gram_share": 1.0}, "gram_share < 1"),
        ({"gram_share": float("nan")}, "gram_share < 1"),
        ({"bias_scale": 0.0}, "bias_scale > 0"),
        ({"regularisation": -1.0}, "regularisation >= 0"),
        ({"confidence_scale": math.inf}, "confidence_scale > 0"),
    ],
)
def test_settings_out_of_range_are_refused(change: dict[str, Any], message: str) -> None:
    good: dict[str, Any] = {
        "gram_share": 0.3,
        "bias_scale": 0.05,
        "regularisation": 0.25,
        "confidence_scale": 12.0,
        "centring": True,
    }
    RidgeSettings(**good)
    with pytest.raises(CodingError, match=message):
        RidgeSettings(**(good | change))


@pytest.mark.parametrize(
    ("epsilon", "patients", "delta"), [(0.0, 10, 1e-5), (201.0, 10, 1e-5), (1.0, 0, 1e-5), (1.0, 10, 0.0), (1, 10, 1.0)]
)
def test_budgets_out_of_range_are_refused(epsilon: float, patients: int, delta: float) -> None:
    for recommended in (recommended_ridge, recommended_features):
        with pytest.raises(CodingError, match="recipe: expected"):
            recommended(epsilon, nominal_patients=patients, delta=delta)
