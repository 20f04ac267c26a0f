"""The plan: one text, one hash, and every malformed field named."""

from __future__ import annotations

import json
from typing import Any

import pytest

from audit.canonical import canonical_json, digest_of
from jobs.errors import PlanError
from jobs.plan import MAX_PLAN_BYTES, SCHEMA, Plan
from privacy.events import FeatureMean, LocalSteps, Repeated, StatisticsRelease, TrainingRound
from tests.jobs.small_federation import CODES, SITES, plan_values, small_plan, unprotected_plan


def as_json(**changes: Any) -> dict[str, Any]:
    """A valid plan as its JSON object, with some fields changed."""
    value: dict[str, Any] = {**json.loads(small_plan().to_bytes()), **changes}
    return value


def test_round_trip() -> None:
    plan = small_plan(evaluation_sites=("amstel", "zenne"))
    again = Plan.from_bytes(plan.to_bytes())
    assert again == plan
    assert again.to_bytes() == plan.to_bytes()
    assert again.hash == plan.hash


def test_the_hash_is_of_the_canonical_bytes_and_stable() -> None:
    # Nothing in it comes from a library that may change: not epsilon, not the accountant, not the model's file.
    fixed: dict[str, Any] = {"accountant": "fixed", "epsilon": 2.5, "initial_version": "sha256:" + 64 * "0"}
    fixed["evaluation"] = plan_values()["evaluation"] | {"epsilon": 2.5}
    plan = small_plan(**fixed)
    assert plan.hash == digest_of(plan.to_bytes())
    # If this changes, plans approved before can no longer be carried out: raise the schema's version instead.
    assert plan.hash == "sha256:74e98f7cdc1f646ac7b9bbd46bb4b4c17cc712e2d46ef70268aa74b3648e394f"


def test_every_field_is_in_the_hash() -> None:
    values = plan_values(evaluation_sites=("amstel",))
    plan = Plan(**values)
    changes: dict[str, Any] = {
        "name": "other", "consortium": "Other", "sites": (*SITES, "zenne"), "evaluation_sites": (),
        "label_system": "x", "label_space": CODES[:3], "encoder": {}, "model": {}, "optimiser": {}, "rounds": 3,
        "sampling_prob": 0.5, "l2_clip_norm": 1.0, "noise_multiplier": 1.0, "feature_mean_noise_multiplier": None,
        "colluders": 2, "dropouts": 1, "scale": 5, "ring_bits": 32, "max_patients_per_round": 5,
        "nominal_patients": 5, "epsilon": 1.0, "delta": 1e-6, "accountant": "x", "evaluation": {},
        "initial_version": "x",
    }  # fmt: skip
    # One value each, or they follow, or they only change together (see the tests of local noise and of ridge).
    fixed = {"task", "noise_mode", "estimator", "local_steps", "unit", "neighboring_relation", "minimum_sites"}
    assert set(changes) | fixed == set(values)
    hashes = {plan.hash}
    for name, value in changes.items():
        changed = {**values, name: value}
        changed["minimum_sites"] = len(changed["sites"]) - changed["dropouts"]
        hashes.add(Plan(**changed).hash)
    assert len(hashes) == len(changes) + 1


@pytest.mark.parametrize("name", sorted(plan_values()))
def test_a_missing_field_is_named(name: str) -> None:
    value = as_json()
    del value[name]
    with pytest.raises(PlanError, match=rf"missing field\(s\): {name}$"):
        Plan.from_bytes(canonical_json(value))


def test_an_unknown_field_is_named() -> None:
    with pytest.raises(PlanError, match=r"unknown field\(s\): noise_seed"):
        Plan.from_bytes(canonical_json(as_json(noise_seed=1)))


TEXTS = ("name", "consortium", "task", "label_system", "noise_mode", "estimator", "unit", "neighboring_relation",
         "accountant", "initial_version")  # fmt: skip
LISTS = ("sites", "evaluation_sites", "label_space")
OBJECTS = ("encoder", "model", "optimiser", "evaluation")
WHOLES = ("minimum_sites", "rounds", "local_steps", "colluders", "dropouts", "scale", "ring_bits",
          "max_patients_per_round", "nominal_patients")  # fmt: skip
NUMBERS = ("sampling_prob", "l2_clip_norm", "noise_multiplier", "delta")
MAYBE = ("epsilon", "feature_mean_noise_multiplier")
WRONG = [
    *((name, wrong) for name in TEXTS for wrong in (1, None, ["x"], True)),
    *((name, wrong) for name in LISTS for wrong in ("amstel", None, [1, 2, 3], {"amstel": 1})),
    *((name, wrong) for name in OBJECTS for wrong in ("x", None, ["kind"], 1)),
    *((name, wrong) for name in WHOLES for wrong in (1.5, "3", None, True)),
    *((name, wrong) for name in NUMBERS for wrong in ("0.5", None, True, [1])),
    *((name, wrong) for name in MAYBE for wrong in ("0.5", False, [1])),
]


def test_the_table_of_types_is_complete() -> None:
    assert {*TEXTS, *LISTS, *OBJECTS, *WHOLES, *NUMBERS, *MAYBE} == set(plan_values())


@pytest.mark.parametrize(("name", "wrong"), WRONG, ids=lambda value: json.dumps(value))
def test_a_mistyped_field_is_named(name: str, wrong: object) -> None:
    with pytest.raises(PlanError, match=rf"^{name}: expected"):
        Plan.from_bytes(canonical_json(as_json(**{name: wrong})))


RANGES: list[tuple[str, object, str]] = [
    ("name", "", "name: letters"),
    ("name", "x" * 65, "name: letters"),
    ("name", "-x", "name: letters"),
    ("name", "a\nb", "name: letters"),
    ("consortium", "é", "consortium: letters"),
    ("task", "chat", "task: expected 'icd_coding'"),
    ("sites", ["geul", "amstel", "berkel", "dommel"], "sites: must be sorted"),
    ("sites", ["amstel", "amstel", "berkel", "dommel"], "sites: must be sorted"),
    ("sites", ["amstel", "berkel"], "sites: secure aggregation needs 3 to 50"),
    ("sites", [f"site-{number:02}" for number in range(51)], "sites: secure aggregation needs 3 to 50"),
    ("sites", ["", "berkel", "dommel", "geul"], "sites: names of 1 to 100"),
    ("evaluation_sites", ["b", "a"], "evaluation_sites: must be sorted"),
    ("evaluation_sites", ["a\x07"], "evaluation_sites: names of"),
    ("evaluation_sites", ["a" * 101], "evaluation_sites: names of"),
    ("label_space", ["I10"], "label_space: 2 to 20000 codes, got 1"),
    ("label_space", ["I10", "H25"], "label_space: must be sorted"),
    ("label_space", ["H25", "H25"], "label_space: must be sorted"),
    ("label_space", [f"{number:05}" for number in range(20_001)], "label_space: 2 to 20000"),
    ("rounds", 0, "rounds: 1 to 10000"),
    ("rounds", 10_001, "rounds: 1 to 10000"),
    ("noise_mode", "central", "noise_mode: one of distributed, local"),
    ("estimator", "forest", "estimator: one of dp-sgd, ridge"),
    ("estimator", "ridge", "rounds: the ridge estimator needs 1"),
    ("local_steps", 2, "local_steps: 1 to 1 under distributed noise"),
    ("local_steps", 0, "local_steps: 1 to 1 under distributed noise"),
    ("colluders", 0, "colluders: at least 1"),
    ("colluders", 4, "4 hospitals cannot carry 4 colluders and 0 dropouts"),
    ("dropouts", -1, "dropouts: must not be negative"),
    ("dropouts", 3, "4 hospitals cannot carry 1 colluders and 3 dropouts"),
    ("minimum_sites", 3, "minimum_sites: expected sites - dropouts = 4, got 3"),
    ("sampling_prob", 0, "sampling_prob: in"),
    ("sampling_prob", 1.01, "sampling_prob: in"),
    ("l2_clip_norm", 0, "l2_clip_norm: must be positive"),
    ("l2_clip_norm", -1, "l2_clip_norm: must be positive"),
    ("delta", 0, "delta: in"),
    ("delta", 1, "delta: in"),
    ("epsilon", 0, "epsilon: positive"),
    ("epsilon", -3, "epsilon: positive"),
    ("noise_multiplier", 0, "noise_multiplier: must be positive"),
    ("feature_mean_noise_multiplier", 0, "feature_mean_noise_multiplier: must be positive"),
    ("epsilon", None, r"noise_multiplier: an unprotected plan \(epsilon null\) has no noise, got 3.0"),
    ("scale", 0, "scale: at least 1"),
    ("ring_bits", 48, "ring_bits: 32 or 64"),
    ("max_patients_per_round", 0, "max_patients_per_round: at least 1"),
    ("nominal_patients", 0, "nominal_patients: at least 1"),
    ("unit", "admission", "unit: expected 'patient'"),
    ("neighboring_relation", "REPLACE_ONE", "neighboring_relation: expected 'ADD_OR_REMOVE_ONE'"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "wrong", "message"), RANGES)
def test_a_value_out_of_range_is_named(name: str, wrong: object, message: str) -> None:
    with pytest.raises(PlanError, match=message):
        Plan.from_bytes(canonical_json(as_json(**{name: wrong})))


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), -1.0])
@pytest.mark.parametrize(
    "name", ["sampling_prob", "l2_clip_norm", "noise_multiplier", "feature_mean_noise_multiplier", "epsilon", "delta"]
)
def test_no_number_that_is_not_finite_is_a_plan(name: str, wrong: float) -> None:
    with pytest.raises(PlanError, match=name):
        small_plan(**{"epsilon": 5.0, name: wrong})


VALID = small_plan().to_bytes()
BYTES: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "plan: not JSON"),
    "not UTF-8": (b"\xff" + VALID, "plan: not JSON"),
    "a list": (b"[]", "expected a JSON object"),
    "a space": (VALID.replace(b'":', b'": ', 1), "not in canonical form"),
    "a line break at the end": (VALID + b"\n", "not in canonical form"),
    "another order": (json.dumps(json.loads(VALID), separators=(",", ":"), sort_keys=False).encode()[:-1]
                      + b',"aaa":1}', "not in canonical form"),
    "a key twice": (VALID[:-1] + b',"unit":"patient"}', "same key twice"),
    "NaN": (VALID.replace(b'"delta":0.00001', b'"delta":NaN'), "NaN is not a JSON number"),
    "1.0 for 1": (VALID.replace(b'"sampling_prob":1,', b'"sampling_prob":1.0,'), "not in canonical form"),
    "cut short": (VALID[:-5], "plan: not JSON"),
    "too long": (VALID + b" " * MAX_PLAN_BYTES, "at most 1048576 allowed"),
    "another schema": (VALID.replace(SCHEMA.encode(), b"zegel/plan/v1"), "expected a plan of schema"),
    "no schema": (canonical_json({key: value for key, value in json.loads(VALID).items() if key != "schema"}),
                  "expected a plan of schema"),
}  # fmt: skip


@pytest.mark.parametrize("case", BYTES)
def test_only_canonical_bytes_are_a_plan(case: str) -> None:
    data, message = BYTES[case]
    assert data != VALID
    with pytest.raises(PlanError, match=message):
        Plan.from_bytes(data)


@pytest.mark.parametrize(
    ("mean_noise", "aggregations"), [(0.0, 3), (None, 2)], ids=["with the feature mean", "without"]
)
def test_an_unprotected_plan_has_no_noise_at_all(mean_noise: float | None, aggregations: int) -> None:
    plan = small_plan(epsilon=None, noise_multiplier=0.0, feature_mean_noise_multiplier=mean_noise)
    assert plan.aggregations == aggregations
    assert Plan.from_bytes(plan.to_bytes()) == plan
    with pytest.raises(PlanError, match="feature_mean_noise_multiplier: an unprotected plan"):
        small_plan(epsilon=None, noise_multiplier=0.0, feature_mean_noise_multiplier=0.5)


def test_events_follow_the_plan() -> None:
    plan = small_plan(sampling_prob=0.5)
    step = TrainingRound(0.5, 3.0)
    assert isinstance(plan.event(1), FeatureMean)
    assert [plan.event(2), plan.event(3)] == [step, step]
    assert plan.training_events() == (plan.event(1), Repeated(step, 2))
    assert plan.expected_batch == 24.0
    for outside in (0, 4):
        with pytest.raises(PlanError, match=rf"aggregation {outside} is not in 1..3"):
            plan.event(outside)
    assert small_plan(feature_mean_noise_multiplier=None).training_events() == (Repeated(TrainingRound(1.0, 3.0), 2),)
    assert unprotected_plan().event(2).noise_multiplier == 0.0


LOCAL = {"noise_mode": "local", "local_steps": 3}
RIDGE = {
    "estimator": "ridge", "rounds": 1, "l2_clip_norm": 1.0, "feature_mean_noise_multiplier": None,
    "optimiser": {"gram_share": 0.3, "regularisation": 1.0, "confidence_scale": 1.0},
    "model": {"kind": "linear", "bias_scale": 0.1}, "epsilon": 2.0,
}  # fmt: skip


def test_local_noise_is_paid_step_by_step() -> None:
    plan = small_plan(**LOCAL, epsilon=9.0)
    assert plan.event(2) == LocalSteps(1.0, 3.0, 3)
    assert plan.training_events() == (FeatureMean(4.0, plan.training_events()[0].purpose), Repeated(plan.event(2), 2))  # type: ignore[union-attr]
    assert plan.hash != small_plan(**{**LOCAL, "local_steps": 2}, epsilon=9.0).hash
    assert small_plan(noise_mode="local", epsilon=9.0).hash != small_plan(epsilon=9.0).hash


def test_a_ridge_plan_is_one_release_of_statistics() -> None:
    plan = small_plan(**RIDGE)
    assert plan.aggregations == 1
    (only,) = plan.training_events()
    assert isinstance(only, Repeated)
    assert only.count == 1
    assert isinstance(only.event, StatisticsRelease)
    assert only.event.noise_multiplier == plan.noise_multiplier
    assert plan.hash != small_plan(**{**RIDGE, "estimator": "dp-sgd"}).hash


@pytest.mark.parametrize("name", ["rounds", "sampling_prob", "l2_clip_norm"])
def test_a_ridge_plan_takes_everybody_once_at_norm_one(name: str) -> None:
    with pytest.raises(PlanError, match=f"{name}: the ridge estimator needs 1"):
        small_plan(**{**RIDGE, name: 2 if name == "rounds" else 0.5})


@pytest.mark.parametrize("steps", [0, -1, 1001])
def test_local_steps_are_bounded(steps: int) -> None:
    with pytest.raises(PlanError, match=f"local_steps: 1 to 1000 under local noise, got {steps}"):
        small_plan(**{**LOCAL, "local_steps": steps}, epsilon=9.0)
