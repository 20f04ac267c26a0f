"""The curve of epsilon over a run, against the reporting accountant."""

from __future__ import annotations

import math

import pytest

from privacy.accounting import epsilon
from privacy.curve import epsilon_curve
from privacy.errors import AccountingError
from privacy.events import Event, FeatureMean, LocalSteps, TrainingRound

DELTA = 1e-5
MEAN = FeatureMean(6.0, "mean")
STEP = TrainingRound(1.0, 4.0)
SAMPLED = TrainingRound(0.1, 1.5)
LOCAL = LocalSteps(0.1, 1.5, 3)


@pytest.mark.parametrize(
    "events",
    [[STEP] * 5, [MEAN, *[STEP] * 4], [MEAN, *[SAMPLED] * 6], [STEP, SAMPLED, STEP, MEAN], [MEAN, LOCAL, LOCAL]],
    ids=["steps", "mean and steps", "sampled", "mixed", "local steps"],
)
def test_every_point_is_the_accountants(events: list[Event]) -> None:
    curve = epsilon_curve(events, DELTA)
    assert len(curve) == len(events)
    assert curve == sorted(curve)
    for done in (1, len(events)):
        reported = epsilon(events[:done], DELTA)
        assert reported - 1e-3 <= curve[done - 1] <= reported + 1e-2


def test_more_noise_and_larger_delta_cost_less() -> None:
    (base,) = epsilon_curve([STEP], DELTA)
    assert epsilon_curve([TrainingRound(1.0, 5.0)], DELTA)[0] < base < epsilon_curve([STEP], 1e-6)[0]


def test_a_release_without_noise_makes_everything_after_it_infinite() -> None:
    curve = epsilon_curve([STEP, TrainingRound(1.0, 0.0), STEP], DELTA)
    assert math.isfinite(curve[0])
    assert curve[1:] == [math.inf, math.inf]


def test_local_steps_are_as_many_rounds() -> None:
    assert epsilon_curve([LOCAL], DELTA)[0] == pytest.approx(epsilon_curve([SAMPLED] * 3, DELTA)[-1], abs=1e-6)


def test_nobody_sampled_costs_nothing() -> None:
    nobody = TrainingRound(0.0, 0.0)
    assert epsilon_curve([nobody, nobody], DELTA) == [0.0, 0.0]
    before, after = epsilon_curve([STEP, nobody], DELTA)
    assert before == after > 0


def test_nothing_released() -> None:
    assert epsilon_curve([], DELTA) == []


def test_next_to_no_noise_is_infinite_and_takes_no_memory() -> None:
    """A grid of losses for this noise would have 10^11 points."""
    assert epsilon_curve([TrainingRound(1.0, 1e-4)] * 2, DELTA) == [math.inf] * 2
    first, second = epsilon_curve([TrainingRound(1.0, 0.08)] * 2, DELTA)
    assert second == pytest.approx(epsilon([TrainingRound(1.0, 0.08)] * 2, DELTA), abs=0.1)
    assert first < second


@pytest.mark.parametrize("delta", [0.0, 1.0, -1e-5, float("nan")])
def test_delta_is_checked(delta: float) -> None:
    with pytest.raises(AccountingError, match="delta must be in"):
        epsilon_curve([STEP], delta)
