"""The released mean feature vector: bounded contributions, public denominator."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import sparse

from jobs.icd_coding.centring import FEATURE_L2_NORM, feature_mean, feature_sum
from jobs.icd_coding.encoder import HashedNgrams
from jobs.icd_coding.errors import BatchError


def test_sum_of_unit_rows_is_their_sum() -> None:
    rows = HashedNgrams(features=64).encode([f"klacht nummer {i}" for i in range(1200)])
    total, dropped = feature_sum(rows)
    np.testing.assert_allclose(total, rows.toarray().astype(np.float64).sum(axis=0), atol=1e-4)
    assert total.dtype == np.float64 and dropped == 0
    np.testing.assert_allclose(feature_sum(rows.toarray())[0], total, atol=1e-9)


@settings(derandomize=True, max_examples=50)
@given(seed=st.integers(0, 2**32 - 1), stretch=st.sampled_from([0.0, 0.5, 1.0, 7.0, 1e100]))
def test_one_patient_moves_the_sum_by_at_most_the_norm(seed: int, stretch: float) -> None:
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(20, 8)) * stretch
    moved = feature_sum(rows)[0] - feature_sum(rows[1:])[0]
    assert np.linalg.norm(moved) <= FEATURE_L2_NORM * (1 + 1e-9)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e200])
def test_broken_rows_are_dropped_and_counted(bad: float) -> None:
    rows = np.eye(4)
    rows[2, 0] = bad
    total, dropped = feature_sum(rows)
    assert total.tolist() == [1, 1, 0, 1] and dropped == 1


def test_no_rows_give_zeros() -> None:
    total, dropped = feature_sum(sparse.csr_matrix(np.zeros((0, 4))))
    assert total.tolist() == [0, 0, 0, 0] and dropped == 0


def test_mean_divides_by_the_public_constant() -> None:
    assert feature_mean(np.array([2.0, -4.0]), expected_batch=8).tolist() == [0.25, -0.5]


@pytest.mark.parametrize(
    ("total", "batch", "message"),
    [
        (np.array([np.nan]), 8.0, "finite"),
        (np.zeros((2, 2)), 8.0, "flat"),
        (np.zeros(2), 0.0, "expected_batch"),
        (np.zeros(2), np.inf, "expected_batch"),
    ],
)
def test_impossible_means_are_refused(total: NDArray[np.float64], batch: float, message: str) -> None:
    with pytest.raises(BatchError, match=message):
        feature_mean(total, expected_batch=batch)


def test_a_vector_is_not_a_matrix() -> None:
    with pytest.raises(BatchError, match="matrix"):
        feature_sum(np.zeros(3))
