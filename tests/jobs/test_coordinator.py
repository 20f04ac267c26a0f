"""A whole run over the in-memory transport: what is recorded, what is summed, what the noise is."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import sparse

from audit.canonical import digest_of
from audit.certificates import CLIENT
from audit.entry import (
    METRICS_REPORTED,
    ROUND_COMPLETED,
    RUN_FINISHED,
    RUN_STARTED,
    SITE_ACCEPTED,
    VERSION_CREATED,
    Entry,
)
from audit.statement import ACCEPTANCE, METRICS, RECEIPT, SignedStatement, verify_statement
from jobs.coordinator import Outcome
from jobs.errors import RunAborted, SiteError
from jobs.icd_coding.model import LinearModel, Parameters, version_id
from jobs.icd_coding.training import Training
from jobs.plan import Plan
from jobs.progress import Progress
from jobs.terms import aggregation_terms, linear_model, plan_encoder, plan_recipe
from jobs.transport import Message
from privacy import accounting
from privacy.events import TrainingRound
from privacy.secagg.quantisation import dequantise, quantise
from site_packages.baselines import encode, train_in_the_clear
from site_packages.learner import linear_parameters
from site_packages.limits import TRAINING, VALIDATION, Limits
from site_packages.local_work import LocalWork
from site_packages.simulation import Simulation, SiteRecords
from tests.jobs.small_federation import (
    CODES,
    FEATURES,
    NOW,
    SITES,
    Answer,
    bodies,
    letters,
    records,
    seeded,
    simulation,
    small_plan,
    unprotected_plan,
)

torch.set_num_threads(1)
PUBLIC = Limits(data_is_public=True)
LENGTH = (FEATURES + 1) * len(CODES)


@dataclass(frozen=True)
class Finished:
    """A run that is over."""

    simulation: Simulation
    outcome: Outcome
    progress: list[Progress]

    @property
    def plan(self) -> Plan:
        return self.simulation.plan


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """Four hospitals train, one of them and a fifth evaluate."""
    progress: list[Progress] = []
    whole = simulation(
        tmp_path_factory.mktemp("run"),
        small_plan(evaluation_sites=("amstel", "zenne")),
        progress=progress.append,
    )
    return Finished(whole, whole.run(), progress)


def test_what_is_recorded_in_which_order(finished: Finished) -> None:
    assert [kind for kind, _ in finished.simulation.entries] == [
        RUN_STARTED,
        *[SITE_ACCEPTED] * 5,
        *[ROUND_COMPLETED] * 3,
        VERSION_CREATED,
        RUN_FINISHED,
        *[METRICS_REPORTED] * 2,
    ]


def test_every_entry_is_one_the_log_takes(finished: Finished) -> None:
    for kind, body in finished.simulation.entries:
        entry = Entry(kind, NOW, body)
        assert Entry.from_bytes(entry.to_bytes()) == entry


def test_the_chain_of_versions_is_unbroken(finished: Finished) -> None:
    entries, plan = finished.simulation.entries, finished.plan
    (started,), (ended,) = bodies(entries, RUN_STARTED), bodies(entries, RUN_FINISHED)
    (created,) = bodies(entries, VERSION_CREATED)
    assert started["initial_version"] == plan.initial_version
    version = plan.initial_version
    for number, body in enumerate(bodies(entries, ROUND_COMPLETED), start=1):
        assert (body["round"], body["version_in"], body["plan_hash"]) == (number, version, plan.hash)
        assert body["version_out"] != version
        version = body["version_out"]
        assert (body["participants"], body["dropped"]) == (list(SITES), [])
    assert version == ended["version"] == created["version"] == created["model"] == finished.outcome.version
    assert (created["parents"], created["rounds"], ended["rounds"]) == ([plan.initial_version], [1, 3], 3)
    assert (ended["epsilon"], ended["delta"], ended["accountant"]) == (plan.epsilon, plan.delta, plan.accountant)
    stored = finished.simulation.artifacts.get(version)
    assert stored == finished.outcome.model
    assert version_id(stored) == version
    loaded = LinearModel(features=FEATURES, labels=len(CODES)).load(stored)
    assert np.array_equal(loaded.weight, linear_parameters(finished.outcome.parameters).weight)


def test_every_statement_is_its_hospitals_and_names_its_ledger(finished: Finished) -> None:
    whole = finished.simulation
    signed: list[tuple[str, str, object]] = [
        *((body["acceptance"]["statement"]["site"], ACCEPTANCE, body["acceptance"])
          for body in bodies(whole.entries, SITE_ACCEPTED)),
        *((site, RECEIPT, receipt) for body in bodies(whole.entries, ROUND_COMPLETED)
          for site, receipt in zip(body["participants"], body["receipts"], strict=True)),
        *((body["site"], METRICS, body["metrics"]) for body in bodies(whole.entries, METRICS_REPORTED)),
    ]  # fmt: skip
    assert len(signed) == 5 + 3 * 4 + 2
    seen: dict[str, int] = {}
    for site, kind, value in signed:
        statement = SignedStatement.from_json(value)
        identity = verify_statement(
            statement,
            whole.keyring.certificates,
            whole.keyring.root,
            expected_type=kind,
            consortium="Delta",
            roles=frozenset({CLIENT}),
        )
        assert identity.name == statement.statement["site"] == site
        assert statement.statement["run_id"] == whole.run_id
        # The ledger only grows: each statement names a later row of the same ledger.
        position = whole.ledgers[site].position(statement.statement["ledger_head"])
        assert position > seen.get(site, 0)
        seen[site] = position
    assert set(seen) == {*SITES, "zenne"}


def test_a_receipts_event_is_the_plans(finished: Finished) -> None:
    for number, body in enumerate(bodies(finished.simulation.entries, ROUND_COMPLETED), start=1):
        for receipt in body["receipts"]:
            assert receipt["statement"]["privacy_event"] == finished.plan.event(number).to_json()
    uploads = [
        receipt["statement"]["masked_upload"]
        for body in bodies(finished.simulation.entries, ROUND_COMPLETED)
        for receipt in body["receipts"]
    ]
    assert len(set(uploads)) == 12


def test_every_ledger_holds_each_round_once(finished: Finished) -> None:
    plan = finished.plan
    whole = accounting.epsilon(plan.training_events(), plan.delta)
    assert plan.epsilon is not None
    assert plan.epsilon - 1e-3 <= whole <= plan.epsilon
    for site in SITES:
        cohorts = {cohort.cohort: cohort for cohort in finished.simulation.ledgers[site].summary().cohorts}
        training = cohorts[TRAINING]
        (run,) = training.runs
        assert (run.run_id, run.plan_hash) == (finished.simulation.run_id, plan.hash)
        assert (run.reserved, run.committed, run.is_open) == (3, 3, False)
        assert training.spent == whole
        assert training.reserved_rdp == 0
        evaluated = cohorts[VALIDATION]
        assert [(run.reserved, run.committed) for run in evaluated.runs] == ([(1, 1)] if site == "amstel" else [])
    cohorts = {cohort.cohort: cohort for cohort in finished.simulation.ledgers["zenne"].summary().cohorts}
    assert not cohorts[TRAINING].runs
    assert cohorts[TRAINING].spent == 0
    assert cohorts[VALIDATION].spent > 0


def test_what_was_reserved_is_in_the_acceptance(finished: Finished) -> None:
    accepted = {
        body["acceptance"]["statement"]["site"]: body["acceptance"]["statement"]["epsilon_reserved"]
        for body in bodies(finished.simulation.entries, SITE_ACCEPTED)
    }
    assert accepted == {**dict.fromkeys(SITES, finished.plan.epsilon), "zenne": 0}


def test_progress_tells_rounds_and_epsilon(finished: Finished) -> None:
    steps = finished.progress
    assert [(step.stage, step.round) for step in steps] == [
        ("joining", 0), ("training", 0), ("training", 1), ("training", 2), ("training", 3), ("evaluating", 3),
        ("done", 3),
    ]  # fmt: skip
    spent = [step.epsilon for step in steps]
    assert spent == sorted(spent)
    assert spent[0] == 0
    assert spent[2] == pytest.approx(accounting.epsilon([finished.plan.event(1)], 1e-5), abs=0.01)
    assert finished.plan.epsilon is not None
    assert finished.plan.epsilon - 0.01 <= spent[-1] <= finished.plan.epsilon
    assert steps[0].participants == (*SITES, "zenne")
    assert steps[3].participants == SITES
    assert all(step.seconds >= 0 for step in steps)


def test_bytes_are_counted_by_hospital(finished: Finished) -> None:
    transport = finished.simulation.transport
    model = len(finished.outcome.model)
    for site in SITES:
        assert 3 * 8 * LENGTH < transport.bytes_received[site] < 3 * 8 * LENGTH + 20_000
        assert transport.bytes_sent[site] > 3 * model
    assert transport.bytes_received["zenne"] < 10_000


def quantised_sum(plan: Plan, works: dict[str, LocalWork], parameters: Parameters, number: int) -> NDArray[np.float64]:
    terms = aggregation_terms(plan, number)
    total = np.zeros(LENGTH, dtype=np.int64)
    for work in works.values():
        total += quantise(work.contribution(parameters, number, seeded(0)), scale=terms.scale, bound=terms.bound)
    return dequantise(total, scale=terms.scale)[: terms.dimension]


def test_without_noise_the_decoded_sum_is_the_plain_sum(tmp_path: Path) -> None:
    """Masks cancel to the last bit: summing the hospitals' own vectors gives the very same versions."""
    plan = unprotected_plan()
    whole = simulation(tmp_path, plan, limits=PUBLIC)
    outcome = whole.run()
    works = {site: LocalWork(plan, each.training, each.test) for site, each in whole.records.items()}
    training = Training(plan)
    versions = []
    for number in range(1, plan.aggregations + 1):
        training.apply(number, quantised_sum(plan, works, linear_parameters(training.parameters), number), hospitals=4)
        versions.append(version_id(training.parameters.to_bytes()))
    assert versions == [body["version_out"] for body in bodies(whole.entries, ROUND_COMPLETED)]
    assert versions[-1] == outcome.version
    # Nothing was spent, and receipts name the events without noise for what they are.
    (cohort, _) = whole.ledgers["geul"].summary().cohorts
    assert (cohort.spent, list(cohort.runs)) == (0, [])
    event = bodies(whole.entries, ROUND_COMPLETED)[1]["receipts"][0]["statement"]["privacy_event"]
    assert event == TrainingRound(1.0, 0.0).to_json()


def test_without_privacy_it_is_training_on_the_pooled_records(tmp_path: Path) -> None:
    plan = unprotected_plan(rounds=4, optimiser={"learning_rate": 5.0, "momentum": 0.5, "averaged_rounds": 2})
    whole = simulation(tmp_path, plan, limits=PUBLIC)
    outcome = whole.run()
    encoded = [encode(plan_encoder(plan).opened(), [each.training], CODES) for each in whole.records.values()]
    rows = sparse.vstack([matrix for matrix, _ in encoded], format="csr")
    labels = np.concatenate([codes for _, codes in encoded])
    assert len(labels) == plan.nominal_patients
    pooled = train_in_the_clear(rows, labels, linear_model(plan), plan_recipe(plan))
    assert np.abs(pooled.weight).max() > 0.5
    for name in ("weight", "bias", "feature_mean"):
        assert np.abs(getattr(outcome.parameters, name) - getattr(pooled, name)).max() < 1e-4, name


@pytest.mark.parametrize(
    ("colluders", "dropouts", "missing"), [(1, 0, None), (2, 0, None), (1, 1, None), (1, 1, "berkel")]
)
def test_the_noise_of_the_decoded_sum(colluders: int, dropouts: int, missing: str | None, tmp_path: Path) -> None:
    """Hospitals without patients: what is decoded is the noise, n / (n - t - D) times the variance the plan needs.

    So what colluders know and dropouts take away is still there.
    """
    plan = small_plan(rounds=1, colluders=colluders, dropouts=dropouts)
    empty = {site: SiteRecords(letters(site, 0), letters(site, 0)) for site in SITES}

    def lose(method: str, site: str, request: Message, real: Callable[[], Answer]) -> Answer:
        if method == "round" and site == missing:
            return SiteError(site, "unreachable", "no answer")
        return real()

    outcome = simulation(tmp_path, plan, records=empty, alter=lose).run()
    present = len(SITES) - (missing is not None)
    expected = present / (len(SITES) - colluders - dropouts)
    # The first step is -learning rate * sum / (expected batch * clip); the mean is sum / nominal patients.
    parameters = linear_parameters(outcome.parameters)
    steps = parameters.weight.ravel() / (2.0 / (plan.nominal_patients * plan.l2_clip_norm))
    means = parameters.feature_mean * plan.nominal_patients
    for sample, sigma in ((steps, 3.0 * 0.5), (means, 4.0 * 1.0)):
        ratio = float(np.var(sample.astype(np.float64))) / sigma**2
        error = math.sqrt(2 / len(sample))
        assert abs(ratio / expected - 1) < 4 * error
        assert abs(float(np.mean(sample))) < 5 * sigma * math.sqrt(expected / len(sample))


def test_another_starting_model_than_the_plans_starts_nothing(tmp_path: Path) -> None:
    whole = simulation(tmp_path, small_plan(initial_version="sha256:" + 64 * "0"))
    with pytest.raises(RunAborted, match="the plan starts from sha256:0000"):
        whole.run()
    assert whole.entries == []
    assert sum(whole.transport.bytes_sent.values()) == 0


def test_a_data_set_the_log_does_not_know_ends_the_run_before_anything_is_spent(tmp_path: Path) -> None:
    announced = {site: frozenset({digest_of(digest_of(site.encode()).encode())}) for site in SITES}
    assert simulation(tmp_path / "known", small_plan(rounds=1), announced=announced).run().rounds == 2
    announced["dommel"] = frozenset({digest_of(b"the data set before")})
    whole = simulation(tmp_path / "unknown", small_plan(rounds=1), announced=announced)
    with pytest.raises(RunAborted, match=r"dommel: the log does not know its data set.*manifest-not-logged"):
        whole.run()
    assert whole.entries == []
    for site in SITES:
        summary = whole.ledgers[site].summary()
        assert all(not run.is_open and not run.committed for cohort in summary.cohorts for run in cohort.runs)


def test_sampled_patients_and_codes_outside_the_label_space(tmp_path: Path) -> None:
    """A run in which each round samples, and hospitals hold codes the plan does not know."""
    plan = small_plan(sampling_prob=0.5, label_space=CODES[:3])
    whole = simulation(tmp_path, plan, records=records())
    outcome = whole.run()
    assert linear_parameters(outcome.parameters).weight.shape == (3, FEATURES)
