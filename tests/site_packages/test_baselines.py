"""Training in the clear: the same gradients as the federated way, without its protection."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import sparse

from jobs.icd_coding.evaluation import hit_at_k
from jobs.icd_coding.gradient import clipped_gradient_sum
from jobs.icd_coding.model import LinearModel, Parameters, centred_rows, scores
from jobs.icd_coding.recipe import Hyperparameters
from jobs.terms import plan_encoder
from site_packages.baselines import clear_gradient_sum, encode, train_in_the_clear
from tests.jobs.small_federation import CODES, FEATURES, letters, small_plan

torch.set_num_threads(1)
SHAPE = LinearModel(features=FEATURES, labels=len(CODES))
RECIPE = Hyperparameters(
    rounds=6,
    sampling_prob=1.0,
    l2_clip_norm=0.5,
    learning_rate=4.0,
    momentum=0.5,
    averaged_rounds=2,
    bias_scale=0.1,
    label_smoothing=0.1,
    centring=True,
)
ENCODER = plan_encoder(small_plan()).opened()


def test_encoding_puts_data_sets_under_each_other() -> None:
    first, second = letters("amstel", 3), letters("berkel", 4, codes=("I10", "Z99"))
    rows, labels = encode(ENCODER, [first, second], CODES)
    assert rows.shape == (7, FEATURES)
    assert labels.tolist() == [CODES.index(c) if c in CODES else -1 for c in (*first.categories, *second.categories)]
    assert np.array_equal(rows[3:].toarray(), sparse.csr_matrix(ENCODER.encode(second.texts)).toarray())


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
@pytest.mark.parametrize("clip", [0.05, 0.5, 100.0])
def test_the_clear_sum_is_what_opacus_clips_and_adds(clip: float, smoothing: float) -> None:
    generator = np.random.default_rng(3)
    model = Parameters(
        weight=generator.normal(0, 2, (SHAPE.labels, SHAPE.features)).astype(np.float32),
        bias=generator.normal(0, 2, SHAPE.labels).astype(np.float32),
        feature_mean=generator.normal(0, 0.02, SHAPE.features).astype(np.float32),
    )
    rows, labels = encode(ENCODER, [letters("amstel", 12)], CODES)
    recipe = Hyperparameters(**{**vars(RECIPE), "l2_clip_norm": clip, "label_smoothing": smoothing})
    clear = clear_gradient_sum(model, centred_rows(rows, model.feature_mean).astype(np.float32), labels, recipe)
    private, dropped = clipped_gradient_sum(
        model, rows, labels, clip, bias_scale=recipe.bias_scale, label_smoothing=smoothing
    )
    assert dropped == 0
    assert clear.shape == private.shape
    assert np.abs(clear - private).max() < 1e-5 * max(1.0, clip)


def test_it_learns_what_the_letters_say() -> None:
    rows, labels = encode(ENCODER, [letters("amstel", 60)], CODES)
    model = train_in_the_clear(rows, labels, SHAPE, RECIPE)
    test_rows, truth = encode(ENCODER, [letters("berkel", 30)], CODES)
    assert hit_at_k(scores(model, test_rows), truth, 1) > 0.9
    assert model.feature_mean.any()


def test_unknown_codes_are_left_out_and_sampling_is_not_used() -> None:
    rows, labels = encode(ENCODER, [letters("amstel", 20, codes=(*CODES, "Z99"))], CODES)
    assert (labels == -1).any()
    known = labels >= 0
    sampled = Hyperparameters(**{**vars(RECIPE), "sampling_prob": 0.5})
    first = train_in_the_clear(rows, labels, SHAPE, sampled)
    second = train_in_the_clear(sparse.csr_matrix(rows[np.flatnonzero(known)]), labels[known], SHAPE, RECIPE)
    assert np.array_equal(first.weight, second.weight)
    assert np.array_equal(first.bias, second.bias)


def test_without_centring_the_mean_is_zero() -> None:
    rows, labels = encode(ENCODER, [letters("amstel", 8)], CODES)
    model = train_in_the_clear(rows, labels, SHAPE, Hyperparameters(**{**vars(RECIPE), "centring": False}))
    assert not model.feature_mean.any()
    assert np.abs(model.weight - SHAPE.initial().weight).max() > 0.1
