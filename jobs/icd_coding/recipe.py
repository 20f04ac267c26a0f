"""Training settings for a privacy budget.

`recommended` looks at public constants only: the budget, the consortium's nominal number of patients, the
sampling probability. It never sees data, so it costs no privacy.

How the settings follow from the budget. With everybody sampled in every round, training to (epsilon, delta)
is one Gaussian mechanism of some mu (Dong, Roth, Su 2022, arXiv:1905.02383). If the steps of a run add up
to a path of length s (learning rate / (1 - momentum) * rounds, in units of the clip norm), then noise gives
a score a standard deviation of about s / (mu * nominal patients), whatever the number of rounds. So the
path is chosen in proportion to mu * nominal patients, up to the length that is best without noise, and few
rounds are enough.
"""

from dataclasses import dataclass
from math import ceil

import numpy as np

from jobs.icd_coding.errors import CodingError


@dataclass(frozen=True)
class Hyperparameters:
    """The constants of one training run; all public, all in the plan.

    Attributes:
        rounds: gradient rounds, >= 1.
        sampling_prob: chance of each patient to be in a round, (0, 1].
        l2_clip_norm: bound on one patient's gradient, > 0.
        learning_rate: step per gradient in units of the clip norm (see `optimiser`), > 0.
        momentum: heavy-ball coefficient, [0, 1).
        averaged_rounds: how many last iterates the final model is the mean of, 0..rounds; 0 takes the last.
        bias_scale: the constant feature that trains the bias, >= 0.
        label_smoothing: share of the target spread over all codes, [0, 1).
        centring: release the mean feature vector in one aggregation before the first round, at about the cost
            of a round.
    """

    rounds: int
    sampling_prob: float
    l2_clip_norm: float
    learning_rate: float
    momentum: float
    averaged_rounds: int
    bias_scale: float
    label_smoothing: float
    centring: bool

    def __post_init__(self) -> None:
        for holds, rule in (
            (self.rounds >= 1, "rounds >= 1"),
            (0 < self.sampling_prob <= 1, "0 < sampling_prob <= 1"),
            (0 < self.l2_clip_norm < float("inf"), "l2_clip_norm > 0"),
            (0 < self.learning_rate < float("inf"), "learning_rate > 0"),
            (0 <= self.momentum < 1, "0 <= momentum < 1"),
            (0 <= self.averaged_rounds <= self.rounds, "0 <= averaged_rounds <= rounds"),
            (0 <= self.bias_scale < float("inf"), "bias_scale >= 0"),
            (0 <= self.label_smoothing < 1, "0 <= label_smoothing < 1"),
        ):
            if not holds:
                raise CodingError(f"recipe: expected {rule}, got {self}")

    @property
    def aggregations(self) -> int:
        """Secure aggregations in all: the rounds and, if any, the feature mean."""
        return self.rounds + int(self.centring)


_PATH_PER_SIGNAL = 0.65  # path length per (mu * nominal patients)
_LONGEST_PATH = 26_000.0  # best without noise, in units of an unclipped gradient
_LONGEST_STEP = 900.0  # of that path in one round; longer steps overshoot
_FEWEST_ROUNDS = 15


def recommended(
    epsilon: float | None,
    *,
    nominal_patients: int,
    delta: float = 1e-5,
    sampling_prob: float = 1.0,
    rounds: int | None = None,
) -> Hyperparameters:
    """The settings to propose for a budget.

    Measured on RuMedTop3 (4,690 training records, 105 codes; tuned and measured on its 848 dev records, so a
    little optimistic), 4,096 hashed 2-5-grams, delta 1e-5, noise for 8 hospitals of which 1 may collude with the
    server; mean and standard deviation over 5 noise seeds (no privacy: 1 run, it is deterministic):

    | epsilon | rounds + mean | noise multiplier | hit@1 | hit@3 | macro-F1 |
    |---|---|---|---|---|---|
    | none | 29 + 1 | 0 | .463 | .716 | .321 |
    | 8 | 15 + 1 | 2.401 | .414 ± .007 | .640 ± .005 | .207 |
    | 3 | 15 + 1 | 5.563 | .362 ± .006 | .547 ± .010 | .125 |
    | 1 | 15 + 1 | 14.923 | .268 ± .006 | .415 ± .012 | .063 |

    At epsilon 8, half of the patients in each of 30 rounds does no better than all of them in 15: .402 / .628
    (2 seeds). Without privacy 8,192 features give .466 / .716 and 3-5-grams .459 / .711.

    Args:
        epsilon: the whole run's budget, in (0, 200]; None trains without privacy.
        nominal_patients: the consortium's public estimate of its training patients, >= 1.
        delta: of the budget, in (0, 1).
        sampling_prob: chance of each patient to be in a round, in (0, 1].
        rounds: gradient rounds if the wish fixes them; with fewer than proposed the path is cut short.
    Raises: CodingError for a budget or constant out of range.
    """
    if nominal_patients < 1:
        raise CodingError(f"recipe: expected nominal_patients >= 1, got {nominal_patients}")
    if epsilon is None:
        clip, momentum, smoothing, path = 1.0, 0.8, 0.1, _LONGEST_PATH
    else:
        clip, momentum, smoothing = 0.5, 0.5, 0.2
        signal = gaussian_mu(epsilon, delta) * nominal_patients
        path = min(_PATH_PER_SIGNAL * signal, _LONGEST_PATH * clip)
    longest_step = _LONGEST_STEP * clip
    if rounds is None:
        rounds = max(_FEWEST_ROUNDS, ceil(path / longest_step))
    step = min(path / max(rounds, 1), longest_step)
    return Hyperparameters(
        rounds=rounds,
        sampling_prob=sampling_prob,
        l2_clip_norm=clip,
        learning_rate=step * (1 - momentum),
        momentum=momentum,
        averaged_rounds=0,
        bias_scale=0.05,
        label_smoothing=smoothing,
        centring=True,
    )


def gaussian_mu(epsilon: float, delta: float) -> float:
    """The mu at which one Gaussian mechanism, sensitivity over noise, is exactly (epsilon, delta)-private.

    Solves Phi(mu/2 - epsilon/mu) - e^epsilon Phi(-mu/2 - epsilon/mu) = delta (Balle and Wang 2018,
    arXiv:1805.06530). It sets a step length here; the privacy spent is the accountant's business.

    Raises: CodingError unless 0 < epsilon <= 200 and 0 < delta < 1.
    """
    from scipy import optimize, stats

    if not (0 < epsilon <= 200 and 0 < delta < 1):
        raise CodingError(f"recipe: expected 0 < epsilon <= 200 and 0 < delta < 1, got {epsilon} and {delta}")

    def excess(mu: float) -> float:
        larger = stats.norm.cdf(mu / 2 - epsilon / mu)
        smaller = np.exp(epsilon + stats.norm.logcdf(-mu / 2 - epsilon / mu))
        return float(larger - smaller) - delta

    return float(optimize.brentq(excess, 1e-6, 100.0))
