"""Local noise: each hospital adds all of it to every step it takes, and sends only where the steps led."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from audit.entry import ROUND_COMPLETED, RUN_FINISHED
from jobs.icd_coding.local_steps import local_move
from jobs.icd_coding.model import Parameters
from jobs.icd_coding.training import Training
from jobs.plan import Plan
from jobs.terms import aggregation_terms, plan_model, plan_recipe
from privacy.accounting import epsilon
from privacy.events import Event, FeatureMean, LocalSteps, Repeated
from privacy.noise import discrete_gaussian
from privacy.secagg.quantisation import dequantise, quantise
from site_packages.limits import Limits
from site_packages.local_work import LocalWork
from tests.jobs.small_federation import SITES, letters, seeded, simulation, small_plan, unprotected_plan

PUBLIC = Limits(data_is_public=True)
NOBODY = letters("nobody", 0)


def local_plan(**changes: Any) -> Plan:
    steps = changes.setdefault("local_steps", 3)
    values: dict[str, Any] = {"noise_mode": "local", "noise_multiplier": 8.0, "feature_mean_noise_multiplier": 9.0}
    values |= changes
    events: list[Event | Repeated] = [FeatureMean(9.0, "mean"), Repeated(LocalSteps(1.0, 8.0, steps), 2)]
    values.setdefault("epsilon", float(np.ceil(epsilon(events, 1e-5) * 1000) / 1000))
    return small_plan(**values)


def test_a_whole_run_spends_every_local_step_and_ends_in_a_version(tmp_path: Path) -> None:
    plan = local_plan()
    whole = simulation(tmp_path, plan)
    outcome = whole.run()
    rounds = [body for kind, body in whole.entries if kind == ROUND_COMPLETED]
    assert [body["receipts"][0]["statement"]["privacy_event"]["kind"] for body in rounds] == [
        "feature-mean",
        "local-steps",
        "local-steps",
    ]
    assert rounds[1]["receipts"][0]["statement"]["privacy_event"] == LocalSteps(1.0, 8.0, 3).to_json()
    (ended,) = [body for kind, body in whole.entries if kind == RUN_FINISHED]
    assert (ended["version"], ended["epsilon"]) == (outcome.version, plan.epsilon)
    for site in SITES:
        spent = {row.cohort: row for row in whole.ledgers[site].summary().cohorts}["training"]
        assert spent.spent == pytest.approx(epsilon(plan.training_events(), plan.delta), rel=1e-9)


def test_without_noise_one_local_step_is_the_distributed_step(tmp_path: Path) -> None:
    """The mean of the hospitals' steps over a share of the patients is the step over all of them."""
    changes: dict[str, Any] = {"optimiser": {"learning_rate": 2.0, "momentum": 0.0, "averaged_rounds": 0}}
    outcomes = [
        simulation(tmp_path / mode, unprotected_plan(noise_mode=mode, **changes), limits=PUBLIC).run()
        for mode in ("local", "distributed")
    ]
    first, second = (each.parameters for each in outcomes)
    assert isinstance(first, Parameters)
    assert isinstance(second, Parameters)
    assert np.abs(second.weight).max() > 0.01
    assert np.abs(first.weight - second.weight).max() < 1e-6
    assert np.array_equal(first.feature_mean, second.feature_mean)


def one_round(plan: Plan, seed: int) -> NDArray[np.float64]:
    work = LocalWork(plan, letters("amstel", 6), NOBODY)
    return work.contribution(plan_model(plan).initial(), 2, seeded(seed))


def test_the_noise_of_a_step_is_the_hospitals_own_and_full() -> None:
    """What one noisy step moved beyond the clear one is learning rate x noise over the hospital's nominal batch."""
    plan = local_plan(local_steps=1)
    clear = unprotected_plan(noise_mode="local")
    terms = aggregation_terms(plan, 2)
    assert terms.noise_std == 0.0
    assert terms.step_noise_std == pytest.approx(8.0 * (0.5 * 2**24 + terms.dimension**0.5))
    noise = np.concatenate([one_round(plan, seed) - one_round(clear, seed) for seed in range(8)])
    expected = 2.0 * 8.0 / (plan.nominal_patients / len(SITES))  # lr * multiplier * clip / (batch * clip)
    assert noise.std() == pytest.approx(expected, rel=0.03)
    assert abs(noise.mean()) < 4 * expected / len(noise) ** 0.5


def test_every_local_step_brings_fresh_noise() -> None:
    single, triple = (one_round(local_plan(local_steps=steps, epsilon=20.0), 1) for steps in (1, 3))
    # Momentum .5: the second and third step carry part of the earlier ones' noise along.
    growth = (1 + 0.5 + 0.25) ** 2 + 1.5**2 + 1
    assert triple.std() / single.std() == pytest.approx(growth**0.5, rel=0.1)


def test_a_patient_moves_a_steps_sum_by_at_most_the_clip() -> None:
    """Neighbours, no noise, one step: the move differs by at most learning rate / nominal batch."""
    plan = unprotected_plan(noise_mode="local")
    everybody = letters("amstel", 7)
    start = plan_model(plan).initial()
    whole = LocalWork(plan, everybody, NOBODY).contribution(start, 2, seeded(1))
    most = 2.0 / (plan.nominal_patients / len(SITES))
    moved = []
    for gone in range(7):
        others = everybody.take(np.array([row for row in range(7) if row != gone]))
        moved.append(np.linalg.norm(whole - LocalWork(plan, others, NOBODY).contribution(start, 2, seeded(1))))
    # Rounding to integers in the step may add one unit in each coordinate.
    assert max(moved) <= most * (1 + len(whole) ** 0.5 / (0.5 * 2**24))
    assert max(moved) > 0.9 * most


def test_the_move_is_momentum_over_fresh_sums() -> None:
    plan = local_plan()
    recipe = plan_recipe(plan)
    given = [np.array([1.0, -2.0]), np.array([0.5, 0.0]), np.array([-4.0, 1.0])]
    left = list(given)
    move = local_move(np.array([3.0, 3.0]), lambda _: left.pop(0), recipe, steps=3, expected_batch=10.0)
    velocity, position = np.zeros(2), np.zeros(2)
    for gradient in given:
        velocity = 0.5 * velocity - 2.0 * gradient / (10.0 * 0.5)
        position += velocity
    assert move == pytest.approx(position)
    assert left == []


def test_the_next_version_is_the_mean_of_the_moves() -> None:
    plan = local_plan()
    training = Training(plan)
    length = plan_model(plan).vector_length
    training.apply(1, np.zeros(256), hospitals=4)
    training.apply(2, np.full(length, 8.0), hospitals=4)
    assert isinstance(training.parameters, Parameters)
    assert (training.parameters.weight == 2.0).all()
    assert training.parameters.bias == pytest.approx(2.0 * 0.05)


def test_what_is_sent_fits_the_ring_whatever_the_steps_did() -> None:
    plan = local_plan(ring_bits=32, scale=1 << 12)
    terms = aggregation_terms(plan, 2)
    assert len(SITES) * terms.bound < 2**31
    far = quantise(np.array([1e30, -1e30]), scale=terms.scale, bound=terms.bound)
    assert far.tolist() == [terms.bound, -terms.bound]
    noisy = discrete_gaussian(2, terms.step_noise_std, seeded(1))
    assert np.isfinite(dequantise(noisy, scale=terms.scale)).all()
