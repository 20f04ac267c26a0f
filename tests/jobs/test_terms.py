"""What follows from a plan: noise shares, the ring, the recipe, and how noisy counts become metrics."""

from __future__ import annotations

import math
from typing import Any

import pytest

from jobs.errors import PlanError
from jobs.icd_coding.errors import CodingError
from jobs.plan import Plan
from jobs.terms import (
    Predecessor,
    aggregation_terms,
    check_terms,
    evaluation_terms,
    linear_model,
    plan_recipe,
    secagg_parameters,
)
from privacy.errors import NoiseError
from privacy.events import FeatureMean, MetricRelease, TrainingRound
from tests.jobs.small_federation import CODES, FEATURES, SITES, plan_values, small_plan, unprotected_plan

SIX = (*SITES, "vecht", "zenne")
LENGTH = (FEATURES + 1) * len(CODES)


@pytest.mark.parametrize(
    ("sites", "colluders", "dropouts", "shares"),
    [(SITES, 1, 0, 3), (SITES, 2, 0, 2), (SITES, 1, 1, 2), (SIX, 1, 0, 5), (SIX, 2, 1, 3), (SIX, 4, 1, 1)],
)
def test_the_noise_is_whole_without_colluders_and_dropouts(
    sites: tuple[str, ...], colluders: int, dropouts: int, shares: int
) -> None:
    """n - t - D shares together have the standard deviation noise multiplier times sensitivity, rounding included."""
    plan = small_plan(sites=sites, colluders=colluders, dropouts=dropouts, epsilon=5.0)
    step = aggregation_terms(plan, 2)
    assert step.event == TrainingRound(1.0, 3.0)
    assert step.noise_std * math.sqrt(shares) == pytest.approx(3.0 * (0.5 * 2**24 + math.sqrt(LENGTH)), rel=1e-12)
    mean = aggregation_terms(plan, 1)
    assert isinstance(mean.event, FeatureMean)
    assert mean.noise_std * math.sqrt(shares) == pytest.approx(4.0 * (2**24 + math.sqrt(FEATURES)), rel=1e-12)
    assert (mean.dimension, step.dimension, step.scale) == (FEATURES, LENGTH, 2**24)


def test_an_unprotected_plan_has_no_shares() -> None:
    assert [aggregation_terms(unprotected_plan(), number).noise_std for number in (1, 2, 3)] == [0.0] * 3


def test_every_hospital_fits_the_ring_at_its_bound() -> None:
    plan = small_plan(ring_bits=32, scale=1 << 10, max_patients_per_round=1000)
    terms = aggregation_terms(plan, 2)
    assert terms.bound >= 1000 * 0.5 * 2**10
    assert len(SITES) * (terms.bound + 6 * terms.noise_std) < 2**31


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ring_bits": 32}, "more than the 2\\^32 ring"),
        ({"ring_bits": 32, "scale": 1 << 10}, "more than the 2\\^32 ring"),
        ({"scale": 1 << 50}, "2\\^64 ring|2 to 2\\^40"),
        ({"max_patients_per_round": 2**53 - 1}, "more than the 2\\^64 ring"),
        ({"l2_clip_norm": 1e9}, "2\\^64 ring|2 to 2\\^40"),
    ],
)
def test_a_sum_that_could_wrap_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        check_terms(small_plan(epsilon=5.0, **changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scale": 1, "noise_multiplier": 0.01, "feature_mean_noise_multiplier": None}, "standard deviation of 0"),
        ({"scale": 1, "feature_mean_noise_multiplier": 0.01}, "noise of aggregation 1"),
        ({"noise_multiplier": 1e6}, "2 to 2\\^40; lower the scale or the noise"),
    ],
)
def test_noise_that_the_sampler_cannot_draw_is_refused_before_anything_is_spent(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(PlanError, match=message):
        check_terms(small_plan(epsilon=5.0, **changes))


def test_dropouts_beyond_the_threshold_are_refused() -> None:
    with pytest.raises(PlanError, match="allowed_dropouts: expected 0-1 for 4 hospitals"):
        secagg_parameters(small_plan(dropouts=2, epsilon=5.0), "run")


def test_the_recipe_is_the_plans() -> None:
    recipe = plan_recipe(small_plan(sampling_prob=0.5))
    assert (recipe.rounds, recipe.sampling_prob, recipe.l2_clip_norm, recipe.learning_rate) == (2, 0.5, 0.5, 2.0)
    assert (recipe.momentum, recipe.bias_scale, recipe.label_smoothing, recipe.centring) == (0.5, 0.05, 0.1, True)
    assert not plan_recipe(small_plan(feature_mean_noise_multiplier=None)).centring


def merged(field: str, **changes: Any) -> Plan:
    part = {name: value for name, value in {**plan_values()[field], **changes}.items() if value is not ...}
    return small_plan(**{field: part})


@pytest.mark.parametrize(
    ("field", "changes", "error", "message"),
    [
        ("optimiser", {"momentum": ...}, PlanError, "settings missing or unknown: momentum"),
        ("optimiser", {"adam": 1}, PlanError, "settings missing or unknown: adam"),
        ("optimiser", {"learning_rate": "fast"}, PlanError, "learning_rate: expected a number, got 'fast'"),
        ("optimiser", {"learning_rate": None}, PlanError, "learning_rate: expected a number"),
        ("optimiser", {"learning_rate": [1]}, PlanError, "learning_rate: expected a number"),
        ("optimiser", {"momentum": False}, PlanError, "momentum: expected a number"),
        ("optimiser", {"averaged_rounds": 0.5}, PlanError, "averaged_rounds: expected a whole number"),
        ("optimiser", {"averaged_rounds": 3}, CodingError, "averaged_rounds <= rounds"),
        ("optimiser", {"learning_rate": 0}, CodingError, "learning_rate > 0"),
        ("optimiser", {"momentum": 1}, CodingError, "momentum < 1"),
        ("model", {"label_smoothing": 1}, CodingError, "label_smoothing < 1"),
        ("model", {"bias_scale": -1}, CodingError, "bias_scale"),
        ("model", {"bias_scale": ...}, PlanError, "settings missing or unknown: bias_scale"),
        ("model", {"kind": "forest"}, PlanError, "model: unknown kind 'forest'"),
        ("model", {"kind": ...}, PlanError, "model: unknown kind None"),
        ("encoder", {"kind": "word2vec"}, CodingError, "unknown kind 'word2vec'"),
        ("encoder", {"features": 255}, CodingError, "power of two"),
        ("encoder", {"n_max": ...}, CodingError, "missing fields"),
    ],
)
def test_a_malformed_setting_is_named(
    field: str, changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        check_terms(merged(field, **changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"thresholds": ...}, "expected exactly the fields"),
        ({"noise": 1}, "expected exactly the fields"),
        ({"thresholds": 0.5}, "thresholds: expected numbers between 0 and 1"),
        ({"thresholds": ["0.5"]}, "thresholds: expected numbers between 0 and 1"),
        ({"thresholds": [0.0, 0.5]}, "thresholds: expected numbers between 0 and 1"),
        ({"thresholds": [0.5, 1]}, "thresholds: expected numbers between 0 and 1"),
        ({"thresholds": [0.6, 0.5]}, "thresholds: must ascend"),
        ({"thresholds": [0.5, 0.5]}, "thresholds: must ascend"),
        *(
            ({name: wrong}, rf"evaluation\.{name}: expected a positive number")
            for name in ("precision_target", "noise_multiplier", "epsilon", "delta")
            for wrong in (0, -1, "1", None, True, [1])
        ),
        ({"delta": 1}, r"evaluation\.delta: in \(0, 1\)"),
        ({"noise_multiplier": 0.1}, r"evaluation\.noise_multiplier: .*smaller epsilon"),
    ],
)
def test_a_malformed_evaluation_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        evaluation_terms(merged("evaluation", **changes))


def test_a_report_is_one_release_of_all_counts() -> None:
    terms = evaluation_terms(small_plan())
    # admissions, right@1, right@3, two per threshold and three histograms over chapters
    assert terms.noise_std == pytest.approx(2 * math.sqrt(10))
    assert isinstance(terms.event, MetricRelease)
    assert terms.event.noise_multiplier == 2.0
    assert terms.predecessor is None


DIGESTS = {"plan_hash": "sha256:" + "a" * 64, "version": "sha256:" + "b" * 64}


def test_a_predecessor_is_compared_on_the_same_admissions() -> None:
    terms = evaluation_terms(merged("evaluation", predecessor=DIGESTS))
    assert terms.predecessor == Predecessor(**DIGESTS)
    assert terms.layout.predecessor
    assert terms.noise_std == pytest.approx(2 * math.sqrt(15))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("sha256:00", "expected null or exactly"),
        ({"version": DIGESTS["version"]}, "expected null or exactly"),
        ({**DIGESTS, "more": 1}, "expected null or exactly"),
        ({**DIGESTS, "version": "b" * 64}, r"predecessor\.version: expected sha256"),
        ({**DIGESTS, "plan_hash": None}, r"predecessor\.plan_hash: expected sha256"),
    ],
)
def test_a_malformed_predecessor_is_named(value: Any, message: str) -> None:
    with pytest.raises(PlanError, match=message):
        evaluation_terms(merged("evaluation", predecessor=value))


def test_colluders_that_leave_no_noise_are_refused() -> None:
    """Were a plan made without its own check, the noise's would still refuse it."""
    plan = small_plan()
    object.__setattr__(plan, "colluders", 4)
    with pytest.raises(NoiseError, match="at least 1"):
        aggregation_terms(plan, 2)


def test_the_shape_follows_encoder_and_labels() -> None:
    shape = linear_model(small_plan())
    assert (shape.features, shape.labels, shape.vector_length) == (FEATURES, len(CODES), LENGTH)
    assert secagg_parameters(small_plan(), "run").dimension == LENGTH


TEN = tuple(f"hospital {number:02}" for number in range(10))


@pytest.mark.parametrize(
    ("colluders", "dropouts", "threshold"), [(1, 1, 7), (3, 3, 7), (4, 2, 8), (6, 1, 9), (8, 0, 10)]
)
def test_as_many_may_collude_with_a_lying_server_as_the_noise_is_for(
    colluders: int, dropouts: int, threshold: int
) -> None:
    terms = secagg_parameters(small_plan(sites=TEN, colluders=colluders, dropouts=dropouts, epsilon=5.0), "run")
    assert terms.threshold == threshold
    assert terms.colluders >= colluders
    if threshold + dropouts == len(TEN):
        with pytest.raises(PlanError, match=f"allowed_dropouts: expected 0-{dropouts} for 10 hospitals"):
            secagg_parameters(small_plan(sites=TEN, colluders=colluders, dropouts=dropouts + 1, epsilon=5.0), "run")
