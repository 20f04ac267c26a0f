"""Settings from public constants."""

from dataclasses import replace
from typing import Any

import pytest

from jobs.icd_coding.errors import CodingError
from jobs.icd_coding.recipe import gaussian_mu, recommended
from privacy.accounting import epsilon as accounted_epsilon
from privacy.events import Repeated, TrainingRound

PATIENTS = 4690


def path(epsilon: float | None, patients: int = PATIENTS) -> float:
    recipe = recommended(epsilon, nominal_patients=patients)
    return recipe.learning_rate / (1 - recipe.momentum) * recipe.rounds / recipe.l2_clip_norm


def test_the_path_grows_with_the_budget_and_the_patients() -> None:
    paths = [path(epsilon) for epsilon in (0.5, 1, 3, 8, 50, 200, None)]
    assert paths == sorted(paths) and len(set(paths[:4])) == 4
    assert path(1, 10 * PATIENTS) == pytest.approx(10 * path(1))
    assert path(200, 10**6) == pytest.approx(path(None))  # so much data that noise hardly matters


@pytest.mark.parametrize("epsilon", [0.1, 1, 3, 8, 200, None])
@pytest.mark.parametrize("patients", [1, 500, 4690, 10**6])
def test_rounds_stay_modest(epsilon: float | None, patients: int) -> None:
    recipe = recommended(epsilon, nominal_patients=patients)
    assert 15 <= recipe.rounds <= 30
    assert recipe.aggregations == recipe.rounds + 1
    assert replace(recipe, centring=False).aggregations == recipe.rounds


def test_given_rounds_are_kept_and_steps_stay_short() -> None:
    proposed = recommended(8, nominal_patients=PATIENTS)
    more = recommended(8, nominal_patients=PATIENTS, rounds=2 * proposed.rounds)
    assert more.rounds == 2 * proposed.rounds
    assert more.learning_rate == pytest.approx(proposed.learning_rate / 2)
    one = recommended(8, nominal_patients=PATIENTS, rounds=1)
    assert one.learning_rate < 2 * proposed.learning_rate


@pytest.mark.parametrize("epsilon", [1.0, 3.0])
def test_mu_agrees_with_the_accountant(epsilon: float) -> None:
    """One Gaussian release of noise 1/mu costs epsilon by the reporting accountant too."""
    event = Repeated(TrainingRound(1.0, 1 / gaussian_mu(epsilon, 1e-5)), 1)
    assert accounted_epsilon([event], 1e-5) == pytest.approx(epsilon, rel=5e-3)


@pytest.mark.parametrize(
    "arguments",
    [
        {"epsilon": 0.0},
        {"epsilon": -1.0},
        {"epsilon": float("nan")},
        {"epsilon": float("inf")},
        {"delta": 0.0},
        {"delta": 1.0},
        {"nominal_patients": 0},
        {"sampling_prob": 0.0},
        {"sampling_prob": 1.5},
        {"rounds": 0},
    ],
)
def test_impossible_wishes_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(CodingError, match="recipe: expected"):
        recommended(**{"epsilon": 3.0, "nominal_patients": PATIENTS, **arguments})


@pytest.mark.parametrize(
    "change",
    [
        {"rounds": 0},
        {"sampling_prob": 2.0},
        {"l2_clip_norm": 0.0},
        {"l2_clip_norm": float("nan")},
        {"learning_rate": float("inf")},
        {"momentum": 1.0},
        {"averaged_rounds": 16},
        {"bias_scale": -1.0},
        {"label_smoothing": 1.0},
    ],
)
def test_impossible_settings_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(CodingError, match=next(iter(change))):
        replace(recommended(3.0, nominal_patients=PATIENTS), **change)
