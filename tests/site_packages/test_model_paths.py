"""Every way a plan may train: one patient's weight in it, and a whole run over it, under both noise modes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from audit.canonical import hex_of
from jobs.icd_coding.model import version_id
from jobs.icd_coding.transformer import encoder_config_from_folder
from jobs.icd_coding.transformer_files import model_digest
from jobs.plan import LOCAL, Plan
from jobs.terms import aggregation_terms, plan_model
from privacy.secagg.quantisation import quantise
from site_packages.dataset import Dataset, dataset_from_records
from site_packages.limits import TRAINING, Limits
from site_packages.local_work import LocalWork
from tests.jobs.icd_coding.tiny_transformer import write_tiny_transformer
from tests.jobs.small_federation import CODES, SITES, letters, records, seeded, simulation, small_plan

torch.set_num_threads(1)
NOBODY = letters("nobody", 0)
PATHS = ("n-grams", "transformer", "combined", "fine-tuned", "ridge", "ridge on a transformer")
LETTERS = ("a b c", "d e f g", "h i", "j k l m n o p", "q", "r s t u v w x y z " * 9)  # the last one has several chunks


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hospital's folder of installed encoders, with one tiny one."""
    made = write_tiny_transformer(tmp_path_factory.mktemp("made") / "tiny")
    folder = tmp_path_factory.mktemp("installed")
    made.rename(folder / hex_of(model_digest(made)))
    return folder


@pytest.fixture(scope="module")
def transformer(models: Path) -> dict[str, Any]:
    (folder,) = models.iterdir()
    return dict(encoder_config_from_folder(folder, name="tiny", max_tokens=20, chunks=3))


def settings(path: str, transformer: dict[str, Any]) -> dict[str, Any]:
    """The plan's fields for a path; distributed noise, and an epsilon that is not looked at here."""
    ngrams = small_plan().encoder
    share = {"n-grams": ngrams, "transformer": transformer}
    combined = {"kind": "combined", "parts": [{"share": 0.5, "encoder": each} for each in share.values()]}
    ridge = {
        "estimator": "ridge", "rounds": 1, "l2_clip_norm": 1.0, "model": {"kind": "linear", "bias_scale": 0.5},
        "optimiser": {"gram_share": 0.3, "regularisation": 1.0, "confidence_scale": 1.0},
    }  # fmt: skip
    lora = {
        "kind": "lora", "rank": 2, "alpha": 4.0, "head_scale": 4.0, "bias_scale": 0.5, "label_smoothing": 0.1,
        "targets": {f"encoder.layer.{n}.attention.self.{each}": [16, 16] for n in "01" for each in ("query", "value")},
        "seed": 1,
    }  # fmt: skip
    changes: dict[str, dict[str, Any]] = {
        "n-grams": {},
        "transformer": {"encoder": transformer},
        "combined": {"encoder": combined},
        "fine-tuned": {"encoder": transformer, "model": lora, "feature_mean_noise_multiplier": None},
        "ridge": ridge,
        "ridge on a transformer": {**ridge, "encoder": transformer, "feature_mean_noise_multiplier": None},
    }
    return changes[path]


def plan_for(path: str, transformer: dict[str, Any], **changes: Any) -> Plan:
    plan = small_plan(**{"epsilon": 60.0, "noise_multiplier": 1.0, **settings(path, transformer), **changes})
    return replace(plan, initial_version=version_id(plan_model(plan).initial().to_bytes()))


def of(patients: int) -> Dataset:
    """Letters of which the last patient has three; all are short but one."""
    who = [*range(patients), patients - 1, patients - 1]
    return dataset_from_records(
        [f"p{number:02}" for number in who],
        [LETTERS[number % len(LETTERS)] for number in range(len(who))],
        [CODES[number % len(CODES)] for number in range(len(who))],
    )


def without(dataset: Dataset, patient: int) -> Dataset:
    return dataset.take(np.flatnonzero(dataset.patient_index != patient))


def trained(plan: Plan) -> Any:
    """A model some way into training, so that gradients are not those of the start."""
    vector = plan_model(plan).initial().to_vector()
    rng = np.random.default_rng(5)
    return plan_model(plan).from_vector(vector + rng.normal(0, 0.3, len(vector)))


@pytest.mark.parametrize("path", PATHS)
def test_a_patient_moves_each_sum_by_at_most_the_clip(path: str, models: Path, transformer: dict[str, Any]) -> None:
    """Same randomness, one patient removed with the whole history: before noise, in floats and in the integers."""
    plan = plan_for(path, transformer)
    whole = of(5)
    work = LocalWork(plan, whole, NOBODY, models=models)
    most: dict[int, float] = {}
    for number in range(1, min(plan.aggregations, 2) + 1):
        terms = aggregation_terms(plan, number)
        model = trained(plan)
        first = work.contribution(model, number, seeded(1))
        # Removing the last patient leaves the draws of the others as they were.
        second = LocalWork(plan, without(whole, 4), NOBODY, models=models).contribution(model, number, seeded(1))
        moved = float(np.linalg.norm(first - second))
        most[number] = moved / terms.l2_clip
        assert moved <= terms.l2_clip
        rounded = [quantise(each, scale=terms.scale, bound=terms.bound) for each in (first, second)]
        apart = np.linalg.norm((rounded[0] - rounded[1]).astype(np.float64))
        assert apart <= terms.l2_clip * terms.scale + terms.dimension**0.5
    assert max(most.values()) > 0.2  # so that the bound is one that could be broken


@pytest.mark.parametrize("path", ["n-grams", "transformer", "fine-tuned"])
def test_a_patient_moves_a_local_step_by_at_most_the_clip(path: str, models: Path, transformer: dict[str, Any]) -> None:
    plan = plan_for(path, transformer, epsilon=None, noise_multiplier=0.0, noise_mode=LOCAL, local_steps=1,
                    feature_mean_noise_multiplier=None)  # fmt: skip
    whole, model = of(5), trained(plan)
    sums = [
        LocalWork(plan, each, NOBODY, models=models).contribution(model, 1, seeded(1))
        for each in (whole, without(whole, 4))
    ]
    step = plan.optimiser["learning_rate"] / (plan.nominal_patients / len(SITES) * plan.l2_clip_norm)
    terms = aggregation_terms(plan, 1)
    moved = float(np.linalg.norm(sums[0] - sums[1])) / step
    assert moved <= terms.l2_clip + terms.dimension**0.5 / terms.scale
    assert moved > 0.2 * terms.l2_clip


RUNS = [
    *((path, "distributed") for path in PATHS[1:]),
    *((path, "local") for path in ("transformer", "combined", "fine-tuned", "ridge")),
]


@pytest.fixture(scope="module")
def allowed() -> Iterator[Limits]:
    yield Limits(encoders=("hashed-ngrams", "transformer", "combined"), minimum_noise_multiplier=0.1)


@pytest.mark.parametrize(("path", "mode"), RUNS, ids=lambda value: str(value))
def test_a_whole_run(
    path: str, mode: str, models: Path, transformer: dict[str, Any], allowed: Limits, tmp_path: Path
) -> None:
    changes: dict[str, Any] = {"noise_mode": mode, "evaluation_sites": ("zenne",), "epsilon": 150.0}
    if mode == "local" and not path.startswith("ridge"):
        changes["local_steps"] = 2
    plan = plan_for(path, transformer, **changes)
    sites = (*SITES, "zenne")
    whole = simulation(
        tmp_path, plan, records=records(sites, patients=4, test=4), models=models, limits=allowed, budget=(190.0, 1e-5)
    )
    outcome = whole.run()
    assert outcome.version != plan.initial_version
    again = plan_model(plan).load(outcome.model)
    assert np.array_equal(again.to_vector(), outcome.parameters.to_vector())
    assert list(outcome.metrics) == ["zenne"]
    for site in SITES:
        keys = whole.ledgers[site].committed(whole.run_id, TRAINING)
        assert keys == {f"round {number}" for number in range(1, plan.aggregations + 1)}
