"""Probes of the hospital's own computation, before any noise: who takes part, and how far one patient moves a sum.

Both ask `LocalWork.contribution`, which a hospital's participant calls in every round, and read the answer. What it
returns is private data in life; here it is about patients made for the purpose.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from jobs.icd_coding.model import LinearModel, Parameters
from jobs.plan import Plan
from jobs.terms import aggregation_terms
from privacy.empirical_checks import Check, sampling
from privacy.keystream import SEED_BYTES, Keystream
from privacy.secagg.quantisation import quantise
from site_packages.dataset import Dataset, dataset_from_records
from site_packages.local_work import LocalWork
from site_packages.privacy_audit_canaries import CODES, canary_encoder, patients, separate_words

PATIENTS, ROUNDS, FEATURES = 200, 200, 256  # of the sampling probe

RandomBytes = Callable[[int], bytes]


def participation(plan: Plan, random_bytes: RandomBytes) -> NDArray[np.bool_]:
    """Which of `PATIENTS` patients took part in which of `ROUNDS` rounds: (rounds, patients).

    Every patient's text is a column of its own, and at a model of zeros every gradient has something there.
    """
    plan = replace(
        plan,
        rounds=ROUNDS,
        encoder=canary_encoder(FEATURES).config(),
        optimiser={**plan.optimiser, "averaged_rounds": 0},
        feature_mean_noise_multiplier=None,
    )
    words = separate_words(PATIENTS, FEATURES)
    labels = np.arange(PATIENTS, dtype=np.int64) % len(CODES)
    cohort = patients(words, labels)
    work = LocalWork(plan, cohort, cohort.take(np.zeros(0, dtype=np.int64)))
    columns = canary_encoder(FEATURES).encode(words).indices
    shape = _shape(plan)
    start = shape.initial()
    took_part = np.zeros((ROUNDS, PATIENTS), dtype=bool)
    for number in range(1, ROUNDS + 1):
        total = work.contribution(start, number, random_bytes)
        weights = total[: shape.labels * shape.features].reshape(shape.labels, shape.features)
        took_part[number - 1] = np.abs(weights[:, columns]).max(axis=0) > 0
    return took_part


def sampling_checks(plan: Plan, random_bytes: RandomBytes, *, false_alarm: float) -> tuple[Check, ...]:
    """Whether the hospital samples patients as the plan says and the accounting assumes."""
    return sampling(participation(plan, random_bytes), plan.sampling_prob, false_alarm=false_alarm)


def sensitivity_check(plan: Plan, random_bytes: RandomBytes) -> Check:
    """Whether one patient more moves a hospital's integer vector by no more than what the noise is calibrated to.

    Neighbouring data sets are computed with the same randomness, so that they differ in nothing but that patient, for
    every kind of aggregation of the plan, at a model of zeros and at one far from it. Nothing is left to chance.
    """
    shape = _shape(plan)
    far = _far_parameters(shape, random_bytes)
    largest = 0.0
    everybody = _neighbours(plan)
    for number in sorted({1, plan.aggregations}):
        terms = aggregation_terms(plan, number)
        # The plan's words, not the code's: clip times scale, and one unit more in each coordinate for rounding.
        allowed = terms.l2_clip * plan.scale + math.sqrt(terms.dimension)
        for parameters in (shape.initial(), far):
            for without, with_one in everybody:
                seed = random_bytes(SEED_BYTES)
                vectors = [
                    quantise(
                        work.contribution(parameters, number, Keystream(seed)), scale=plan.scale, bound=terms.bound
                    )
                    for work in (without, with_one)
                ]
                moved = float(np.linalg.norm((vectors[1] - vectors[0]).astype(np.float64)))
                largest = max(largest, moved / allowed)
    return Check(
        "sensitivity",
        largest <= 1.0,
        largest,
        1.0,
        None,
        None,
        None,
        0.0,
        f"how far one patient more moves a hospital's vector, over what the noise is calibrated to; the most of "
        f"{len(everybody)} patients",
    )


def _shape(plan: Plan) -> LinearModel:
    return LinearModel(features=int(plan.encoder["features"]), labels=len(plan.label_space))


def _far_parameters(shape: LinearModel, random_bytes: RandomBytes) -> Parameters:
    """A model that is confidently wrong about nearly everybody, for long gradients."""
    bits = np.frombuffer(random_bytes(shape.labels * shape.features), dtype=np.int8).astype(np.float32)
    return Parameters(
        weight=bits.reshape(shape.labels, shape.features),
        bias=np.zeros(shape.labels, dtype=np.float32),
        feature_mean=np.zeros(shape.features, dtype=np.float32),
    )


_LETTERS = (
    ("000000",),
    ("000001", "000002", "000003"),  # several admissions, all different
    ("000004",) * 20,  # many that are alike
    (" ".join(f"{number:06}" for number in range(5000)),),  # a long letter
    ("",),
    ("\u0301\ufeff\U0001f9e0 \u00e9\u0065\u0301",),
)


def _neighbours(plan: Plan) -> list[tuple[LocalWork, LocalWork]]:
    """Pairs of hospitals that differ in one patient, the last."""
    words = separate_words(40, _shape(plan).features)
    base = patients(words, np.arange(len(words), dtype=np.int64) % len(CODES))
    nobody = base.take(np.zeros(0, dtype=np.int64))
    without = LocalWork(plan, base, nobody)
    return [
        (without, LocalWork(plan, _joined(base, letters, CODES[number % len(CODES)]), nobody))
        for number, letters in enumerate(_LETTERS)
    ]


def _joined(base: Dataset, letters: tuple[str, ...], code: str) -> Dataset:
    numbers = [base.patients[index] for index in base.patient_index]
    return dataset_from_records(
        [*numbers, *["the last"] * len(letters)], [*base.texts, *letters], [*base.categories, *[code] * len(letters)]
    )
