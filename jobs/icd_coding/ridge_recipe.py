"""Settings of the one-round ridge estimator for a privacy budget.

Both functions look at public constants only, so they cost no privacy. What decides is the signal: with the whole
budget spent on one Gaussian mechanism of mu (see `recipe.gaussian_mu`), the noise on a sum over all patients is 1 / mu
patients wide, so mu * nominal patients is how many noise widths the sum of everybody is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from jobs.icd_coding.errors import CodingError
from jobs.icd_coding.recipe import gaussian_mu

MEAN_SHARE = 0.05
"""Share of the squared budget mu^2 for the feature mean, released before the statistics.

Gaussian mechanisms of mu_1 and mu_2 compose to exactly sqrt(mu_1^2 + mu_2^2): with the noise multiplier s that one
release would need, the mean gets s / sqrt(MEAN_SHARE) and the statistics s / sqrt(1 - MEAN_SHARE).
"""


@dataclass(frozen=True)
class RidgeSettings:
    """The constants of one ridge run; all public, all in the plan.

    Attributes:
        gram_share: share of the squared norm of a patient's contribution for the Gram matrix, [0, 1).
        bias_scale: the constant feature, > 0.
        regularisation: how much of the noise's edge is added to every eigenvalue, >= 0.
        confidence_scale: from regression values to scores, > 0.
        centring: release the mean feature vector in one aggregation before, see `MEAN_SHARE`.
    """

    gram_share: float
    bias_scale: float
    regularisation: float
    confidence_scale: float
    centring: bool

    def __post_init__(self) -> None:
        for holds, rule in (
            (0 <= self.gram_share < 1, "0 <= gram_share < 1"),
            (0 < self.bias_scale < math.inf, "bias_scale > 0"),
            (0 <= self.regularisation < math.inf, "regularisation >= 0"),
            (0 < self.confidence_scale < math.inf, "confidence_scale > 0"),
        ):
            if not holds:
                raise CodingError(f"ridge recipe: expected {rule}, got {self}")


def recommended_ridge(epsilon: float | None, *, nominal_patients: int, delta: float = 1e-5) -> RidgeSettings:
    """The settings to propose for a budget.

    Measured on RuMedTop3 (4,690 training records, 105 codes; tuned and measured on its 848 dev records, so a little
    optimistic), hashed 2-5-grams, delta 1e-5, noise for 8 hospitals of which 1 may collude with the server; two secure
    aggregations in all; mean and standard deviation over 5 noise seeds (no privacy: 1 run, it is deterministic):

    | epsilon | features | gram_share | noise multiplier of the statistics | hit@1 | hit@3 | macro-F1 |
    |---|---|---|---|---|---|---|
    | none | 4,096 | .3 | 0 | .458 | .704 | .279 |
    | 8 | 2,048 | .3 | .616 | .381 ± .008 | .594 ± .004 | .136 |
    | 3 | 2,048 | 0 | 1.427 | .343 ± .003 | .534 ± .011 | .109 |
    | 1 | 2,048 | 0 | 3.828 | .261 ± .007 | .427 ± .007 | .066 |

    On half of the records at epsilon 8, where the signal is below the limit for a Gram matrix, hit@3 is .547 without
    one and .528 with one (3 and 2 seeds).

    Args:
        epsilon: of mean and statistics together, in (0, 200]; None for no privacy.
        nominal_patients: the consortium's public estimate of its training patients, >= 1.
        delta: of the budget, in (0, 1).
    Raises: CodingError for a budget or constant out of range.
    """
    if _signal(epsilon, nominal_patients, delta) >= _GRAM_SIGNAL:
        gram_share, regularisation, confidence_scale = 0.3, 0.25, 12.0
    else:
        gram_share, regularisation, confidence_scale = 0.0, 0.5, 18.0
    return RidgeSettings(
        gram_share=gram_share,
        bias_scale=0.05,
        regularisation=regularisation,
        confidence_scale=confidence_scale,
        centring=True,
    )


def recommended_features(epsilon: float | None, *, nominal_patients: int, delta: float = 1e-5) -> int:
    """Columns of hashed n-grams to propose: fewer under noise, since the mean and the Gram matrix carry more of it
    the wider they are. Arguments and errors as `recommended_ridge`.
    """
    return 4096 if math.isinf(_signal(epsilon, nominal_patients, delta)) else 2048


_GRAM_SIGNAL = 5_000.0  # noise widths; below, the Gram matrix is too noisy to be worth a share of the budget


def _signal(epsilon: float | None, nominal_patients: int, delta: float) -> float:
    if nominal_patients < 1:
        raise CodingError(f"ridge recipe: expected nominal_patients >= 1, got {nominal_patients}")
    return math.inf if epsilon is None else gaussian_mu(epsilon, delta) * nominal_patients
