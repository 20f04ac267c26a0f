"""Clipped sums of per-patient gradients: checked against a loop, bounded, and robust to broken rows."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import sparse

from jobs.icd_coding.clipping import ClippingMode
from jobs.icd_coding.errors import BatchError
from jobs.icd_coding.gradient import PHYSICAL_BATCH, clipped_gradient_sum
from jobs.icd_coding.model import LinearModel, Parameters, scores, softmax

SHAPE = LinearModel(features=16, labels=5)
MODES: list[ClippingMode] = ["book-keeping", "ghost", "hooks"]


def some_parameters(seed: int = 0, scale: float = 1.0) -> Parameters:
    rng = np.random.default_rng(seed)
    return SHAPE.from_vector(
        scale * rng.normal(size=SHAPE.vector_length),
        feature_mean=0.1 * rng.normal(size=SHAPE.features),
    )


def batch(rows: int, seed: int = 1) -> tuple[sparse.csr_matrix, NDArray[np.int64]]:
    rng = np.random.default_rng(seed)
    dense = rng.normal(size=(rows, SHAPE.features)) * (rng.random((rows, SHAPE.features)) < 0.5)
    dense /= np.maximum(np.linalg.norm(dense, axis=1, keepdims=True), 1e-9)
    return sparse.csr_matrix(dense.astype(np.float32)), rng.integers(0, SHAPE.labels, rows)


def by_hand(
    parameters: Parameters,
    rows: sparse.csr_matrix,
    labels: NDArray[np.int64],
    clip: float,
    bias_scale: float,
    label_smoothing: float = 0.0,
) -> NDArray[np.float64]:
    """The definition, patient by patient, with the clipping factor min(1, C / (norm + 1e-6))."""
    total = np.zeros(SHAPE.vector_length)
    for i in range(rows.shape[0]):
        x = rows[[i]].toarray()[0].astype(np.float64)
        if x.any():
            x -= parameters.feature_mean
            x /= np.linalg.norm(x)
        error = softmax(scores(parameters, rows[[i]]))[0]
        error -= label_smoothing / SHAPE.labels
        error[labels[i]] -= 1 - label_smoothing
        gradient = np.concatenate([np.outer(error, x).ravel(), bias_scale * error])
        total += gradient * min(1.0, clip / (float(np.linalg.norm(gradient)) + 1e-6))
    return total


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("clip", [0.05, 0.9, 100.0])
@pytest.mark.parametrize(("bias_scale", "smoothing"), [(0.0, 0.0), (0.3, 0.2), (1.0, 0.0)])
def test_equals_a_loop_over_patients(mode: ClippingMode, clip: float, bias_scale: float, smoothing: float) -> None:
    parameters = some_parameters()
    rows, labels = batch(40)
    total, dropped = clipped_gradient_sum(
        parameters, rows, labels, clip, bias_scale=bias_scale, label_smoothing=smoothing, mode=mode
    )
    assert dropped == 0
    assert total.dtype == np.float64
    expected = by_hand(parameters, rows, labels, clip, bias_scale, smoothing)
    np.testing.assert_allclose(total, expected, atol=1e-9)


@pytest.mark.parametrize("mode", MODES)
def test_physical_batches_add_up(mode: ClippingMode) -> None:
    parameters = some_parameters()
    rows, labels = batch(2 * PHYSICAL_BATCH + 3)
    total, _ = clipped_gradient_sum(parameters, rows, labels, 0.5, mode=mode)
    np.testing.assert_allclose(total, by_hand(parameters, rows, labels, 0.5, 1.0), atol=1e-9)


@pytest.mark.parametrize("mode", MODES)
def test_dense_rows_give_the_same_and_are_left_alone(mode: ClippingMode) -> None:
    rows, labels = batch(20)
    dense = rows.toarray()
    given = dense.copy()
    total, _ = clipped_gradient_sum(some_parameters(), dense, labels, 0.5, mode=mode)
    np.testing.assert_array_equal(total, clipped_gradient_sum(some_parameters(), rows, labels, 0.5, mode=mode)[0])
    assert (dense == given).all()


@settings(derandomize=True, max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    scale=st.sampled_from([0.0, 1.0, 1e3, 1e8]),
    clip=st.floats(1e-3, 10),
    mode=st.sampled_from(MODES),
    stretch=st.sampled_from([1.0, 1e-9, 1e6, 1e40]),
)
def test_one_patient_contributes_at_most_the_clip_norm(
    seed: int, scale: float, clip: float, mode: ClippingMode, stretch: float
) -> None:
    """Whatever the model and whatever the row: also rows an encoder would never make."""
    rows, labels = batch(1, seed=seed)
    total, _ = clipped_gradient_sum(
        some_parameters(seed, scale), rows.toarray().astype(np.float64) * stretch, labels, clip, mode=mode
    )
    assert np.linalg.norm(total) <= clip * (1 + 1e-12)


@settings(derandomize=True, max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), without=st.integers(0, 29), mode=st.sampled_from(MODES))
def test_neighbours_differ_by_at_most_the_clip_norm(seed: int, without: int, mode: ClippingMode) -> None:
    parameters = some_parameters(seed)
    rows, labels = batch(30, seed=seed)
    kept = np.arange(30) != without
    total, _ = clipped_gradient_sum(parameters, rows, labels, 0.2, mode=mode)
    neighbour, _ = clipped_gradient_sum(parameters, rows[kept], labels[kept], 0.2, mode=mode)
    assert np.linalg.norm(total - neighbour) <= 0.2 * (1 + 1e-9)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e200])
def test_a_broken_row_is_dropped_and_counted(mode: ClippingMode, bad: float) -> None:
    parameters = some_parameters()
    rows, labels = batch(10)
    broken = rows.toarray().astype(np.float64)
    broken[3, 2] = bad
    total, dropped = clipped_gradient_sum(parameters, broken, labels, 0.5, mode=mode)
    kept = np.arange(10) != 3
    assert dropped == 1
    np.testing.assert_allclose(
        total, clipped_gradient_sum(parameters, rows[kept], labels[kept], 0.5, mode=mode)[0], atol=1e-12
    )


@pytest.mark.parametrize("mode", MODES)
def test_only_broken_rows_or_none_give_zeros(mode: ClippingMode) -> None:
    parameters = some_parameters()
    rows, labels = batch(4)
    empty, dropped = clipped_gradient_sum(parameters, rows[:0], labels[:0], 0.5, mode=mode)
    assert empty.tolist() == [0.0] * SHAPE.vector_length and dropped == 0
    all_broken, dropped = clipped_gradient_sum(parameters, np.full((4, 16), np.nan), labels, 0.5, mode=mode)
    assert all_broken.tolist() == [0.0] * SHAPE.vector_length and dropped == 4


def test_without_a_bias_its_part_is_zero_but_it_still_scores() -> None:
    parameters = some_parameters()
    rows, labels = batch(10)
    total, _ = clipped_gradient_sum(parameters, rows, labels, 10.0, bias_scale=0.0)
    assert total[-SHAPE.labels :].tolist() == [0.0] * SHAPE.labels
    np.testing.assert_allclose(total, by_hand(parameters, rows, labels, 10.0, 0.0), atol=1e-9)


@pytest.mark.parametrize(
    ("rows", "labels", "clip", "bias_scale", "message"),
    [
        (np.zeros((2, 15)), np.zeros(2, np.int64), 1.0, 1.0, "expected 16 columns"),
        (np.zeros((2, 16)), np.zeros(3, np.int64), 1.0, 1.0, "labels: expected 2"),
        (np.zeros((2, 16)), np.array([0, 5]), 1.0, 1.0, "whole numbers in 0..4"),
        (np.zeros((2, 16)), np.array([0, -1]), 1.0, 1.0, "whole numbers in 0..4"),
        (np.zeros((2, 16)), np.array([0.0, 1.0]), 1.0, 1.0, "whole numbers in 0..4"),
        (np.zeros((2, 16)), np.zeros(2, np.int64), 0.0, 1.0, "l2_clip_norm"),
        (np.zeros((2, 16)), np.zeros(2, np.int64), np.nan, 1.0, "l2_clip_norm"),
        (np.zeros((2, 16)), np.zeros(2, np.int64), np.inf, 1.0, "l2_clip_norm"),
        (np.zeros((2, 16)), np.zeros(2, np.int64), 1.0, -0.1, "bias_scale"),
    ],
)
def test_wrong_shapes_are_refused(
    rows: NDArray[np.float64], labels: NDArray[np.int64], clip: float, bias_scale: float, message: str
) -> None:
    with pytest.raises(BatchError, match=message):
        clipped_gradient_sum(some_parameters(), rows, labels, clip, bias_scale=bias_scale)


@pytest.mark.parametrize("smoothing", [-0.1, 1.0, np.nan])
def test_impossible_smoothing_is_refused(smoothing: float) -> None:
    rows, labels = batch(2)
    with pytest.raises(BatchError, match="label_smoothing"):
        clipped_gradient_sum(some_parameters(), rows, labels, 1.0, label_smoothing=smoothing)


def test_nothing_is_drawn_from_global_generators() -> None:
    rows, labels = batch(3)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    clipped_gradient_sum(some_parameters(), rows, labels, 1.0)
    assert torch.equal(torch.get_rng_state(), before)
