"""The length of an opened sum: never too long among honest hospitals, and a round with one that is too long is lost."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from audit.canonical import digest_of
from audit.entry import ROUND_ABORTED, ROUND_COMPLETED, Entry
from audit.statement import sign_statement
from jobs.errors import RunInterrupted, SiteError
from jobs.plan import Plan
from jobs.terms import PATIENTS_SLACK, aggregate_norm_bound, aggregation_terms, secagg_parameters
from jobs.transport import Message
from privacy.noise import discrete_gaussian
from site_packages.dataset import dataset_from_records
from site_packages.limits import TRAINING, Limits
from site_packages.simulation import Simulation, SiteRecords
from tests.jobs.small_federation import NOW, SITES, Answer, bodies, records, seeded, simulation, small_plan
from tests.jobs.small_federation import unprotected_plan as without_noise

torch.set_num_threads(1)
RIDGE = {
    "estimator": "ridge",
    "model": {"kind": "linear", "bias_scale": 0.05},
    "optimiser": {"gram_share": 0.5, "regularisation": 1.0, "confidence_scale": 1.0},
    "rounds": 1,
    "l2_clip_norm": 1.0,
}
STEPS = {"noise_mode": "local", "local_steps": 4, "epsilon": 50.0, "colluders": 1}
PLANS: dict[str, Callable[[], Plan]] = {
    "protected": small_plan,
    "half of the patients": lambda: small_plan(sampling_prob=0.5, epsilon=50.0),
    "a dropout": lambda: small_plan(dropouts=1),
    "the small ring": lambda: small_plan(ring_bits=32, scale=1 << 12, max_patients_per_round=64),
    "coarse units": lambda: small_plan(scale=8),
    "unprotected": lambda: without_noise(rounds=4),
    "unprotected, long steps": lambda: without_noise(
        rounds=4, optimiser={"learning_rate": 900.0, "momentum": 0.8, "averaged_rounds": 0}
    ),
    "local steps": lambda: small_plan(**STEPS),
    "local steps, unprotected": lambda: without_noise(noise_mode="local", local_steps=4),
    "local steps, momentum": lambda: small_plan(
        **STEPS, optimiser={"learning_rate": 300.0, "momentum": 0.9, "averaged_rounds": 0}
    ),
    "ridge": lambda: small_plan(**RIDGE),
    "ridge, unprotected": lambda: without_noise(**RIDGE),
}


def alike(patients: int) -> dict[str, SiteRecords]:
    """Hospitals whose patients are all the same one: their vectors point one way, so no sum is longer."""
    made = {}
    for site in SITES:
        names = [f"{site}-{number}" for number in range(patients)]
        same = dataset_from_records(names, ["opname wegens staar"] * patients, ["H25"] * patients)
        made[site] = SiteRecords(same, same)
    return made


@pytest.mark.parametrize("who", ["ordinary", "twice as many, all alike"])
@pytest.mark.parametrize("kind", PLANS)
def test_honest_hospitals_never_make_it(kind: str, who: str, tmp_path: Path) -> None:
    plan = PLANS[kind]()
    norms: dict[int, float] = {}
    whole = simulation(
        tmp_path,
        plan,
        limits=Limits(data_is_public=plan.epsilon is None),
        records=records() if who == "ordinary" else alike(24),
        opened=lambda number, total: norms.__setitem__(number, float(np.linalg.norm(total))),
    )
    whole.run()
    assert not bodies(whole.entries, ROUND_ABORTED)
    assert set(norms) == set(range(1, plan.aggregations + 1))
    for number, norm in norms.items():
        assert norm <= aggregate_norm_bound(plan, number, hospitals=len(SITES))


TIGHT: dict[str, dict[str, Any]] = {
    "one step": {},
    "ten local steps": {
        "noise_mode": "local",
        "local_steps": 10,
        "feature_mean_noise_multiplier": None,
        "l2_clip_norm": 0.01,  # so short that every patient is clipped, and so slow that the direction stays
        "optimiser": {"learning_rate": 0.1, "momentum": 0.0, "averaged_rounds": 0},
    },
}


@pytest.mark.parametrize("kind", TIGHT)
def test_the_bound_is_not_far_from_what_hospitals_can_make(kind: str, tmp_path: Path) -> None:
    """With twice the patients, all alike and no noise, the bound is met up to rounding: it could not be lower."""
    none = {"epsilon": None, "noise_multiplier": 0.0, "feature_mean_noise_multiplier": 0.0}
    plan = small_plan(**{"rounds": 1, **none, **TIGHT[kind]})
    norms: list[float] = []
    whole = simulation(
        tmp_path,
        plan,
        limits=Limits(data_is_public=True),
        records=alike(24),
        opened=lambda number, total: norms.append(float(np.linalg.norm(total))),
    )
    whole.run()
    assert len(norms) == plan.aggregations
    for number, norm in enumerate(norms, start=1):
        assert norm / aggregate_norm_bound(plan, number, hospitals=len(SITES)) == pytest.approx(1.0, abs=2e-3)


@pytest.mark.parametrize("hospitals", [3, 4])
def test_noise_alone_is_within_a_few_percent_of_its_share(hospitals: int) -> None:
    plan = small_plan(dropouts=1, nominal_patients=1, noise_multiplier=30.0, feature_mean_noise_multiplier=40.0)
    terms = aggregation_terms(plan, 2)
    bound = aggregate_norm_bound(plan, 2, hospitals=hospitals)
    expected = terms.noise_std / terms.scale * math.sqrt(hospitals * terms.dimension)
    assert 1.0 < bound / expected < 1.35
    noise = sum(discrete_gaussian(terms.dimension, terms.noise_std, seeded(site)) for site in range(hospitals))
    assert 0.75 < float(np.linalg.norm(np.asarray(noise, dtype=np.float64))) / terms.scale / bound < 1.0


def test_the_bound_grows_with_what_may_lengthen_a_sum() -> None:
    bound = aggregate_norm_bound(small_plan(), 2, hospitals=4)
    assert aggregate_norm_bound(small_plan(), 2, hospitals=3) < bound
    assert aggregate_norm_bound(small_plan(nominal_patients=480), 2, hospitals=4) > bound
    assert aggregate_norm_bound(small_plan(noise_multiplier=6.0), 2, hospitals=4) > 1.5 * bound
    assert aggregate_norm_bound(small_plan(sampling_prob=0.1, epsilon=50.0), 2, hospitals=4) < bound


def poisoned(add: Callable[[Plan, int], np.ndarray[Any, np.dtype[np.int64]]], *numbers: int, **settings: Any) -> Any:
    """A federation in which dommel sends a vector of its own choice in some rounds, all signed and masked in order."""
    holder: list[Simulation] = []

    def alter(method: str, site: str, request: Message, real: Callable[[], Answer]) -> Any:
        answer = real()
        if (method, site) != ("round", "dommel") or (number := request["secagg"]["round"]) not in numbers:
            return answer
        assert not isinstance(answer, SiteError)
        vector = answer["secagg"]["vector"] + add(holder[0].plan, number).astype("<u8")
        statement = {**answer["receipt"]["statement"], "masked_upload": digest_of(vector.tobytes())}
        receipt = sign_statement(statement, *holder[0].keyring.sites["dommel"]).to_json()
        return {"secagg": {**answer["secagg"], "vector": vector}, "receipt": receipt}

    plan = settings.pop("plan", None) or small_plan(rounds=3)
    holder.append(simulation(settings.pop("folder"), plan, alter=alter, **settings))
    return holder[0]


def of_length(times: float, *, place: str = "everywhere") -> Callable[[Plan, int], np.ndarray[Any, np.dtype[np.int64]]]:
    """A vector of this multiple of the bound."""

    def make(plan: Plan, number: int) -> np.ndarray[Any, np.dtype[np.int64]]:
        terms = aggregation_terms(plan, number)
        length = times * aggregate_norm_bound(plan, number, hospitals=len(plan.sites)) * terms.scale
        vector = np.zeros(secagg_parameters(plan, "run").dimension)
        if place == "everywhere":
            vector[: terms.dimension] = length / math.sqrt(terms.dimension)
        else:
            vector[{"first": 0, "last": -1}[place]] = -length
        return np.rint(vector).astype(np.int64)

    return make


@pytest.mark.parametrize(
    ("number", "place"), [(1, "everywhere"), (2, "everywhere"), (2, "first"), (1, "last")]
)  # (1, "last"): beyond the feature mean's dimension, where honest hospitals send zeros
def test_a_poisoned_sum_is_logged_and_not_used_and_stays_paid_for(number: int, place: str, tmp_path: Path) -> None:
    whole = poisoned(of_length(2.1, place=place), number, folder=tmp_path)
    with pytest.raises(RunInterrupted, match=rf"round {number}: the sum of 4 hospitals has L2 norm .*masks hide whose"):
        whole.run()
    (body,) = bodies(whole.entries, ROUND_ABORTED)
    Entry(ROUND_ABORTED, NOW, body).to_bytes()
    assert (body["round"], body["participants"], body["dropped"]) == (number, list(SITES), [])
    assert "honest ones make at most" in body["reason"]
    assert whole.states[-1].lost == (number,)
    done = bodies(whole.entries, ROUND_COMPLETED)
    assert [entry["round"] for entry in done] == list(range(1, number))
    version = done[-1]["version_out"] if done else whole.plan.initial_version
    for site in SITES:
        assert f"round {number}" in whole.ledgers[site].committed(whole.run_id, TRAINING)
    # Somebody looked, and it goes on: with a new round, from the version before.
    whole.run()
    done = bodies(whole.entries, ROUND_COMPLETED)
    assert [entry["round"] for entry in done] == [each for each in (1, 2, 3, 4) if each != number]
    assert done[number - 1]["version_in"] == version


def test_what_drowns_in_the_noise_is_not_found(tmp_path: Path) -> None:
    """As the document says: a vector well below the bound passes, and moves the model."""
    poison = of_length(0.5)
    whole = poisoned(poison, 2, 3, 4, folder=tmp_path / "poisoned")
    honest = simulation(tmp_path / "honest", whole.plan)
    assert whole.run().version != honest.run().version
    assert not bodies(whole.entries, ROUND_ABORTED)


def test_more_patients_than_the_plan_can_mean_are_a_reason_as_well(tmp_path: Path) -> None:
    patients = math.ceil(12 * PATIENTS_SLACK * 1.5)
    whole = simulation(
        tmp_path, without_noise(rounds=1), limits=Limits(data_is_public=True), records=alike(patients)
    )  # fmt: skip
    with pytest.raises(RunInterrupted, match=r"more than 2 times the 48 patients the plan counts with"):
        whole.run()
