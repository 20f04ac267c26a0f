"""A federation small enough for tests: 256 features, four codes, a few patients, real keys, masks and ledgers."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from jobs.errors import SiteError
from jobs.icd_coding.encoder import HashedNgrams
from jobs.icd_coding.model import LinearModel, version_id
from jobs.plan import Plan
from jobs.transport import Message, Transport
from privacy.accounting import accountant, epsilon
from privacy.events import FeatureMean, MetricRelease, Repeated, TrainingRound
from site_packages.dataset import Dataset, dataset_from_records
from site_packages.simulation import Simulation, SiteRecords

CODES = ("H25", "I10", "K40", "M17")
SITES = ("amstel", "berkel", "dommel", "geul")
WORDS = {
    "H25": "staar troebele lens oog",
    "I10": "hoge bloeddruk hypertensie",
    "K40": "liesbreuk hernia lies",
    "M17": "knie artrose slijtage",
}
FEATURES = 256
NOW = datetime(2026, 11, 22, 5, 0, 0, tzinfo=UTC)


def clock() -> datetime:
    return NOW


def seeded(seed: int) -> Callable[[int], bytes]:
    """Bytes for a test; what is generated with them protects nobody."""
    return random.Random(seed).randbytes  # noqa: S311


def letters(site: str, patients: int, *, codes: tuple[str, ...] = CODES) -> Dataset:
    """One admission for each patient."""
    generator = random.Random(f"letters {site}")  # noqa: S311
    chosen = [generator.choice(codes) for _ in range(patients)]
    return dataset_from_records(
        [f"{site}-{number:03}" for number in range(patients)],
        [f"opname wegens {WORDS.get(code, 'iets anders')}, kamer {generator.randrange(100)}" for code in chosen],
        chosen,
    )


def records(sites: tuple[str, ...] = SITES, *, patients: int = 12, test: int = 6) -> dict[str, SiteRecords]:
    return {site: SiteRecords(letters(site, patients), letters(f"{site} test", test)) for site in sites}


@cache
def _cost(rounds: int, sampling_prob: float, noise: float, mean_noise: float | None, delta: float) -> float:
    steps = Repeated(TrainingRound(sampling_prob, noise), rounds)
    mean = [] if mean_noise is None else [FeatureMean(mean_noise, "mean")]
    return math.ceil(epsilon([*mean, steps], delta) * 1000) / 1000


@cache
def _report_cost(noise: float, delta: float) -> float:
    return math.ceil(epsilon([MetricRelease(noise, "counts")], delta) * 1000) / 1000


def plan_values(**changes: Any) -> dict[str, Any]:
    """The fields of a valid plan for `SITES`; epsilon follows from the noise unless given."""
    sites = changes.get("sites", SITES)
    dropouts = changes.get("dropouts", 0)
    codes = changes.get("label_space", CODES)
    shape = LinearModel(features=FEATURES, labels=len(codes))
    values: dict[str, Any] = {
        "name": "small",
        "consortium": "Delta",
        "task": "icd_coding",
        "sites": sites,
        "evaluation_sites": (),
        "minimum_sites": len(sites) - dropouts,
        "label_system": "ICD-10 (WHO 2019), three characters",
        "label_space": codes,
        "encoder": HashedNgrams(features=FEATURES).config(),
        "model": {"kind": "linear", "bias_scale": 0.05, "label_smoothing": 0.1},
        "estimator": "dp-sgd",
        "optimiser": {"learning_rate": 2.0, "momentum": 0.5, "averaged_rounds": 0},
        "rounds": 2,
        "local_steps": 1,
        "sampling_prob": 1.0,
        "l2_clip_norm": 0.5,
        "noise_multiplier": 3.0,
        "feature_mean_noise_multiplier": 4.0,
        "noise_mode": "distributed",
        "colluders": 1,
        "dropouts": 0,
        "scale": 1 << 24,
        "ring_bits": 64,
        "max_patients_per_round": 1 << 20,
        "nominal_patients": 48,
        "delta": 1e-5,
        "unit": "patient",
        "neighboring_relation": "ADD_OR_REMOVE_ONE",
        "accountant": accountant(),
        "evaluation": {
            "thresholds": [0.3, 0.6],
            "precision_target": 0.9,
            "noise_multiplier": 2.0,
            "epsilon": _report_cost(2.0, 1e-5),
            "delta": 1e-5,
            "predecessor": None,
        },
        "initial_version": version_id(shape.initial().to_bytes()),
    }
    values |= changes
    if "epsilon" not in changes:
        values["epsilon"] = _cost(
            values["rounds"],
            values["sampling_prob"],
            values["noise_multiplier"],
            values["feature_mean_noise_multiplier"],
            values["delta"],
        )
    return values


def small_plan(**changes: Any) -> Plan:
    return Plan(**plan_values(**changes))


def unprotected_plan(**changes: Any) -> Plan:
    return small_plan(epsilon=None, noise_multiplier=0.0, feature_mean_noise_multiplier=0.0, **changes)


Answer = Message | SiteError
Alter = Callable[[str, str, Message, Callable[[], Answer]], Any]
"""(method, site, request, the real call) -> what the coordinator gets."""


class AlteringTransport:
    """A transport whose answers a test may change, hospital by hospital. `calls` is what was asked."""

    def __init__(self, inner: Transport, alter: Alter) -> None:
        self._inner = inner
        self._alter = alter
        self.calls: list[tuple[str, str]] = []

    def call(self, method: str, requests: Mapping[str, Message], *, timeout_s: float) -> Mapping[str, Answer]:
        answers: dict[str, Answer] = {}
        for site, request in requests.items():
            self.calls.append((method, site))

            def real(site: str = site, request: Message = request) -> Answer:
                return self._inner.call(method, {site: request}, timeout_s=timeout_s)[site]

            answers[site] = self._alter(method, site, request, real)
        return answers


def simulation(folder: Path, plan: Plan, *, alter: Alter | None = None, seed: int = 1, **settings: Any) -> Simulation:
    """A federation over `records()`, ready to run."""
    settings.setdefault("records", records(tuple(sorted({*plan.sites, *plan.evaluation_sites}))))
    if alter is not None:
        settings["wrap"] = lambda inner: AlteringTransport(inner, alter)
    return Simulation(plan=plan, folder=folder, random_bytes=seeded(seed), clock=clock, **settings)


def bodies(entries: list[tuple[str, dict[str, Any]]], kind: str) -> list[dict[str, Any]]:
    return [body for name, body in entries if name == kind]
