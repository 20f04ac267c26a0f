"""One patient's weight in what a hospital computes."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import sparse

from jobs.icd_coding.model import Parameters
from jobs.plan import Plan
from jobs.terms import aggregation_terms, evaluation_terms, linear_model, plan_model
from privacy.secagg.quantisation import quantise
from site_packages.dataset import Dataset, dataset_from_records
from site_packages.learner import LinearLearner
from site_packages.local_work import LocalWork
from tests.jobs.small_federation import CODES, FEATURES, letters, seeded, small_plan

torch.set_num_threads(1)
PLAN = small_plan()
MEAN, STEP = 1, 2
LENGTH = (FEATURES + 1) * len(CODES)
NOBODY = letters("nobody", 0)


def parameters(seed: int, spread: float = 1.0) -> Parameters:
    generator = np.random.default_rng(seed)
    start = linear_model(PLAN).initial()
    return Parameters(
        weight=generator.normal(0, spread, start.weight.shape).astype(np.float32),
        bias=generator.normal(0, spread, start.bias.shape).astype(np.float32),
        feature_mean=generator.normal(0, 0.02, start.feature_mean.shape).astype(np.float32),
    )


def dataset(texts: list[str], codes: list[str]) -> Dataset:
    return dataset_from_records([f"p{number:03}" for number in range(len(texts))], texts, codes)


def contribution(training: Dataset, model: Parameters, number: int, plan: Plan = PLAN) -> NDArray[np.float64]:
    return LocalWork(plan, training, NOBODY).contribution(model, number, seeded(1))


@settings(derandomize=True, max_examples=25, deadline=None, database=None)
@given(
    texts=st.lists(st.text(max_size=60), min_size=1, max_size=6),
    numbers=st.lists(st.integers(0, len(CODES) - 1), min_size=6, max_size=6),
    left_out=st.integers(0, 5),
    seed=st.integers(0, 1000),
    spread=st.sampled_from([0.0, 1.0, 100.0]),
)
def test_a_patient_moves_each_sum_by_at_most_the_clip(
    texts: list[str], numbers: list[int], left_out: int, seed: int, spread: float
) -> None:
    """Neighbours by one patient, everybody sampled: in float before noise, and in the integers that are masked."""
    codes = [CODES[number] for number in numbers[: len(texts)]]
    gone = left_out % len(texts)
    whole = dataset(texts, codes)
    neighbour = dataset(texts[:gone] + texts[gone + 1 :], codes[:gone] + codes[gone + 1 :])
    model = parameters(seed, spread)
    for number, clip in ((MEAN, 1.0), (STEP, PLAN.l2_clip_norm)):
        terms = aggregation_terms(PLAN, number)
        first, second = contribution(whole, model, number), contribution(neighbour, model, number)
        assert np.linalg.norm(first - second) <= clip
        integers = [quantise(each, scale=terms.scale, bound=terms.bound) for each in (first, second)]
        moved = float(np.linalg.norm((integers[0] - integers[1]).astype(np.float64)))
        assert moved <= clip * terms.scale + terms.dimension**0.5
        if number == MEAN:
            assert not first[FEATURES:].any()


def test_the_clip_is_reached() -> None:
    """So that the bound above is one that could be broken."""
    one = dataset(["staar van het rechteroog"], ["H25"])
    nobody = dataset([], [])
    wrong = parameters(3, spread=100.0)
    for number, clip in ((MEAN, 1.0), (STEP, PLAN.l2_clip_norm)):
        moved = np.linalg.norm(contribution(one, wrong, number) - contribution(nobody, wrong, number))
        assert moved == pytest.approx(clip, rel=1e-5)


def test_a_patient_with_many_admissions_counts_once() -> None:
    texts = [f"opname {number} wegens liesbreuk" for number in range(9)]
    training = dataset_from_records(["p1"] * 9, texts, ["K40"] * 9)
    for number, clip in ((MEAN, 1.0), (STEP, PLAN.l2_clip_norm)):
        assert np.linalg.norm(contribution(training, parameters(1, 50.0), number)) <= clip
    # Which admission stands for the patient is drawn anew.
    work = LocalWork(PLAN, training, NOBODY)
    drawn = {work.contribution(parameters(1), MEAN, seeded(seed)).tobytes() for seed in range(12)}
    assert len(drawn) > 1


def linear(work: LocalWork) -> LinearLearner:
    assert isinstance(work._learner, LinearLearner)
    return work._learner


def dense(training: Dataset) -> NDArray[np.float32]:
    rows = linear(LocalWork(PLAN, training, NOBODY)).rows
    assert sparse.issparse(rows)
    return np.asarray(rows.toarray())


def with_rows(work: LocalWork, rows: NDArray[np.float32]) -> LocalWork:
    linear(work).rows = sparse.csr_matrix(rows)
    return work


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_records_with_numbers_that_are_not_finite_are_dropped_and_counted(
    bad: float, caplog: pytest.LogCaptureFixture
) -> None:
    training = letters("amstel", 5)
    rows = dense(training)
    rows[2, 7] = bad
    others = training.take(np.array([0, 1, 3, 4]))
    for number in (MEAN, STEP):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            total = with_rows(LocalWork(PLAN, training, NOBODY), rows).contribution(parameters(2), number, seeded(1))
        assert np.isfinite(total).all()
        expected = contribution(others, parameters(2), number)
        assert np.abs(total - expected).max() < 1e-12
        assert f"round {number}: 1 records with numbers that are not finite were left out" in caplog.text


def test_an_encoder_that_breaks_its_promise_is_held_to_it() -> None:
    """A row longer than 1 still moves the mean by at most 1."""
    training = letters("amstel", 1)
    rows = dense(training) * np.float32(40)
    total = with_rows(LocalWork(PLAN, training, NOBODY), rows).contribution(parameters(2), MEAN, seeded(1))
    assert 0.999 < np.linalg.norm(total) <= 1.0


@pytest.mark.parametrize("number", [MEAN, STEP])
def test_codes_outside_the_label_space_are_left_out(number: int) -> None:
    training = letters("amstel", 8, codes=(*CODES, "Z99", "A00"))
    known = np.array([index for index, code in enumerate(training.categories) if code in CODES])
    assert 0 < len(known) < 8
    work = LocalWork(PLAN, training, NOBODY)
    assert work.training.patients == len(known)
    total = work.contribution(parameters(4), number, seeded(1))
    assert np.array_equal(total, contribution(training.take(known), parameters(4), number))
    assert total.any()


@pytest.mark.parametrize("number", [MEAN, STEP])
@pytest.mark.parametrize("training", [NOBODY, letters("x", 3, codes=("Z99",))], ids=["no records", "no known code"])
def test_an_empty_hospital_gives_zeros(training: Dataset, number: int) -> None:
    total = contribution(training, parameters(5), number)
    assert total.shape == (LENGTH,)
    assert total.dtype == np.float64
    assert not total.any()


def test_nobody_sampled_gives_zeros() -> None:
    plan = small_plan(sampling_prob=1e-9, epsilon=5.0)
    assert not contribution(letters("amstel", 20), parameters(5), STEP, plan).any()
    # The mean is of everybody all the same.
    assert contribution(letters("amstel", 20), parameters(5), MEAN, plan).any()


def test_sampled_patients_are_a_part_of_all(caplog: pytest.LogCaptureFixture) -> None:
    """With half of them sampled, different randomness gives different sums, all below everybody's bound."""
    plan = small_plan(sampling_prob=0.5, epsilon=5.0)
    work = LocalWork(plan, letters("amstel", 20), NOBODY)
    sums = [work.contribution(parameters(6), STEP, seeded(seed)) for seed in range(6)]
    assert len({each.tobytes() for each in sums}) > 1
    assert max(float(np.linalg.norm(each)) for each in sums) <= 20 * plan.l2_clip_norm
    assert not caplog.text


# -- evaluation --------------------------------------------------------------------------------------------------


def test_counts_of_the_evaluation() -> None:
    texts = ["a", "b", "c", "d", "e"]
    codes = ["H25", "I10", "K40", "K40", "Z99"]
    work = LocalWork(PLAN, NOBODY, dataset(texts, codes))
    start = linear_model(PLAN).initial()
    # Scores by hand: everybody H25 at .97, then I10, K40 and M17 in this order.
    model = replace(start, bias=np.array([5.0, 1.0, 0.5, 0.0], dtype=np.float32))
    counts = work.metric_counts(model, seeded(1))
    named = dict(zip(evaluation_terms(PLAN).layout.names, counts.tolist(), strict=True))
    assert {name: count for name, count in named.items() if count} == {
        "admissions": 5, "right@1": 1, "right@3": 4,
        "automatic 0.3": 5, "automatic right 0.3": 1, "automatic 0.6": 5, "automatic right 0.6": 1,
        "true/VII": 1, "true/IX": 1, "true/XI": 2, "predicted/VII": 5, "right/VII": 1,
    }  # fmt: skip
    assert counts.dtype == np.int64


def test_a_patient_moves_each_count_by_at_most_one() -> None:
    test = dataset_from_records(
        ["p1", "p1", "p1", "p2", "p3", "p3"], ["a", "b", "c", "d", "e", "f"], ["H25"] * 3 + ["I10"] + ["K40"] * 2
    )
    model = parameters(7)
    for rows in ([3, 4, 5], [0, 1, 2, 4, 5], [0, 1, 2, 3]):
        whole = LocalWork(PLAN, NOBODY, test).metric_counts(model, seeded(1))
        assert whole[0] == 3
        part = LocalWork(PLAN, NOBODY, test.take(np.array(rows))).metric_counts(model, seeded(1))
        assert part[0] == 2


def test_neighbours_counts_differ_by_at_most_one_with_one_admission_each() -> None:
    test = letters("amstel", 9)
    model = parameters(8)
    whole = LocalWork(PLAN, NOBODY, test).metric_counts(model, seeded(1))
    for gone in range(9):
        others = test.take(np.array([row for row in range(9) if row != gone]))
        part = LocalWork(PLAN, NOBODY, others).metric_counts(model, seeded(1))
        assert set((whole - part).tolist()) <= {0, 1}
        assert whole[0] - part[0] == 1


def test_nobody_to_evaluate_gives_zeros() -> None:
    assert LocalWork(PLAN, NOBODY, NOBODY).metric_counts(parameters(1), seeded(1)).sum() == 0


def test_two_labels_have_no_third_best() -> None:
    plan = small_plan(label_space=("H25", "I10"), epsilon=5.0)
    model = plan_model(plan).initial()
    work = LocalWork(plan, NOBODY, dataset(["a", "b"], ["H25", "Z99"]))
    assert work.metric_counts(model, seeded(1))[:3].tolist() == [2, 1, 1]
