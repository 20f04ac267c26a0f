"""The one-round ridge estimator: bounded contributions, exact packing, and the solution it should give."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from scipy import sparse

from jobs.icd_coding import ridge as ridge_module
from jobs.icd_coding.errors import BatchError
from jobs.icd_coding.evaluation import hit_at_k
from jobs.icd_coding.model import centred_rows, scores
from jobs.icd_coding.ridge import STATISTICS_L2_NORM, solve, statistics, statistics_length

ROUNDING = 1e-12  # of float64 sums; the caller's clip margin is far larger

ROWS = hnp.arrays(
    np.float64,
    st.tuples(st.integers(1, 5), st.just(4)),
    elements=st.floats(allow_nan=True, allow_infinity=True, width=64) | st.floats(-2, 2),
)


def units(generator: np.random.Generator, n: int, features: int) -> NDArray[np.float64]:
    rows = generator.normal(size=(n, features))
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))


def summed(rows: Any, labels: Any, labels_count: int = 3, **change: Any) -> tuple[NDArray[np.float64], int]:
    given_settings: dict[str, Any] = {
        "gram_share": 0.3,
        "bias_scale": 0.2,
        "feature_mean": np.zeros(rows.shape[-1]),
    } | change
    return statistics(rows, np.asarray(labels), labels_count, **given_settings)


def solved(noisy: NDArray[np.float64], features: int, labels: int, **change: Any) -> Any:
    given_settings: dict[str, Any] = {
        "gram_share": 0.3,
        "bias_scale": 0.2,
        "noise_std": 0.0,
        "ridge": 1.0,
        "regularisation": 0.5,
        "confidence_scale": 1.0,
        "feature_mean": np.zeros(features),
    } | change
    return solve(noisy, features=features, labels=labels, **given_settings)


@settings(derandomize=True, max_examples=100, deadline=None)
@given(
    ROWS,
    st.integers(0, 2),
    st.sampled_from([0.0, 1e-9, 0.3, 0.999]),
    st.floats(1e-6, 100),
    hnp.arrays(np.float64, 4, elements=st.floats(-1, 1)),
)
def test_one_patient_moves_the_sum_by_at_most_one(
    rows: NDArray[np.float64], label: int, gram_share: float, bias_scale: float, mean: NDArray[np.float64]
) -> None:
    labels = np.full(len(rows), label)
    change: dict[str, Any] = {"gram_share": gram_share, "bias_scale": bias_scale, "feature_mean": mean}
    with_patient, dropped = summed(rows, labels, **change)
    without, dropped_before = summed(rows[1:], labels[1:], **change)
    assert np.isfinite(with_patient).all()
    moved = float(np.linalg.norm(with_patient - without))
    assert moved <= STATISTICS_L2_NORM + ROUNDING * len(rows)
    usable = bool(np.abs(rows[0]).max() < 1e49)  # False for NaN
    if usable:
        assert dropped == dropped_before and moved > 0
    if not np.isfinite(rows[0]).all():
        assert dropped == dropped_before + 1 and moved == 0


def test_a_patient_of_norm_one_uses_all_of_the_bound() -> None:
    """Nothing of the budget is wasted: a centred row of norm 1 contributes a vector of norm 1."""
    for share in (0.0, 0.3, 0.9):
        vector, _ = summed(units(np.random.default_rng(1), 1, 6), [0], gram_share=share)
        assert np.linalg.norm(vector) == pytest.approx(1)


@pytest.mark.parametrize("gram_share", [0.0, 0.25])
def test_the_vector_is_the_packed_moments(gram_share: float) -> None:
    generator = np.random.default_rng(2)
    rows, labels, mean = units(generator, 700, 5) * 0.9, generator.integers(0, 4, 700), generator.normal(size=5) * 0.1
    vector, dropped = summed(rows, labels, 4, gram_share=gram_share, feature_mean=mean)
    assert (vector.shape, dropped) == ((statistics_length(5, 4, gram_share=gram_share),), 0)
    z = np.hstack([centred_rows(rows, mean), np.full((700, 1), 0.2)]) / np.sqrt(1.04)
    moments = z.T @ np.eye(4)[labels]
    packed = vector[: len(vector) - 24]
    np.testing.assert_allclose(vector[len(vector) - 24 :].reshape(4, 6).T, moments * np.sqrt(1 - gram_share))
    if gram_share:
        gram = z.T @ z
        expected = [gram[i, j] * (1 if i == j else np.sqrt(2)) for i in range(6) for j in range(i, 6)]
        np.testing.assert_allclose(packed, np.array(expected) * 0.5, atol=1e-12)
        np.testing.assert_allclose(ridge_module._unpacked(packed, 6, 0.5), gram, atol=1e-12)
    else:
        assert not len(packed)


def test_sums_add_up_over_hospitals_and_blocks() -> None:
    generator = np.random.default_rng(3)
    rows, labels = units(generator, 1300, 7), generator.integers(0, 3, 1300)
    whole, _ = summed(rows, labels)
    parts = [summed(rows[start::3], labels[start::3])[0] for start in range(3)]
    np.testing.assert_allclose(sum(parts), whole, atol=1e-9)
    np.testing.assert_allclose(summed(sparse.csr_matrix(rows), labels)[0], whole, atol=1e-9)
    np.testing.assert_allclose(summed(rows.astype(np.float32), labels)[0], whole, atol=1e-4)


def test_squared_terms_only_grow_with_patients() -> None:
    generator = np.random.default_rng(4)
    rows, labels = units(generator, 30, 4), generator.integers(0, 3, 30)
    diagonals = [0, 5, 9, 12, 14]  # of a packed 5 x 5 matrix
    sums = np.array([summed(rows[:n], labels[:n])[0][diagonals] for n in range(31)])
    assert (np.diff(sums, axis=0) >= 0).all()
    assert not sums[0].any()


def test_no_patients_give_zeros_and_a_model_that_says_nothing() -> None:
    vector, dropped = summed(np.zeros((0, 4)), np.zeros(0, dtype=np.int64))
    assert dropped == 0 and not vector.any()
    for share in (0.0, 0.3):
        empty = np.zeros(statistics_length(4, 3, gram_share=share))
        model = solved(empty, 4, 3, gram_share=share, noise_std=2.0)
        assert not model.weight.any() and not model.bias.any()


def test_rows_that_are_not_finite_are_dropped_and_counted() -> None:
    rows = units(np.random.default_rng(5), 600, 4)
    labels = np.zeros(600, dtype=np.int64)
    clean, _ = summed(np.delete(rows, [3, 520, 599], axis=0), labels[3:])
    rows[3, 0], rows[520, 1], rows[599] = np.nan, np.inf, 1e60
    vector, dropped = summed(rows, labels)
    assert dropped == 3
    np.testing.assert_allclose(vector, clean, atol=1e-9)


@pytest.mark.parametrize("gram_share", [0.01, 0.3, 0.9])
def test_without_noise_it_is_ridge_regression(gram_share: float) -> None:
    from sklearn.linear_model import Ridge

    generator = np.random.default_rng(6)
    rows, labels, mean = units(generator, 400, 12), generator.integers(0, 5, 400), generator.normal(size=12) * 0.05
    vector, _ = summed(rows, labels, 5, gram_share=gram_share, feature_mean=mean)
    model = solved(vector, 12, 5, gram_share=gram_share, feature_mean=mean, ridge=2.0, confidence_scale=3.0)
    z = np.hstack([centred_rows(rows, mean.astype(np.float32)), np.full((400, 1), 0.2)]) / np.sqrt(1.04)
    oracle = Ridge(alpha=2.0, fit_intercept=False).fit(z, np.eye(5)[labels])
    np.testing.assert_allclose(scores(model, rows), 3 * oracle.predict(z), atol=1e-5)


def test_class_scatter_is_ridge_with_the_scatter_between_codes_as_gram_matrix() -> None:
    generator = np.random.default_rng(7)
    rows, labels = units(generator, 500, 9), generator.integers(0, 4, 500)
    vector, _ = summed(rows, labels, 4, gram_share=0.0)
    model = solved(vector, 9, 4, gram_share=0.0, ridge=2.0)
    moments = vector.reshape(4, 10).T
    scatter = (moments / (np.bincount(labels) + 1)) @ moments.T  # one patient is the floor without noise
    weight = np.linalg.solve(scatter + 2.0 * np.eye(10), moments).T / np.sqrt(1.04)
    np.testing.assert_allclose(model.weight, weight[:, :9], atol=1e-6)
    np.testing.assert_allclose(model.bias, weight[:, 9] * 0.2, atol=1e-6)


def test_pure_noise_has_no_eigenvalue_far_above_the_edge() -> None:
    """The edge is where the module says: nothing of a large noise-only matrix is taken for signal."""
    d, share, noise_std = 401, 0.3, 5.0
    noise = np.random.default_rng(8).normal(size=d * (d + 1) // 2) * noise_std
    edge = np.sqrt(2 * d) * noise_std / np.sqrt(share)
    values = np.linalg.eigvalsh(ridge_module._unpacked(noise, d, np.sqrt(share)))
    assert values.max() == pytest.approx(edge, rel=0.05)
    assert values.min() == pytest.approx(-edge, rel=0.05)


@pytest.mark.parametrize("gram_share", [0.0, 0.3])
def test_it_learns_under_noise(gram_share: float) -> None:
    generator = np.random.default_rng(9)
    centres = units(generator, 5, 20)

    def draw(n: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        labels = generator.integers(0, 5, n)
        rows = centres[labels] + 0.15 * generator.normal(size=(n, 20))
        return rows / np.linalg.norm(rows, axis=1, keepdims=True), labels

    rows, labels = draw(3000)
    vector, _ = summed(rows, labels, 5, gram_share=gram_share)
    noisy = vector + generator.normal(size=len(vector)) * 4.0
    model = solved(noisy, 20, 5, gram_share=gram_share, noise_std=4.0, confidence_scale=10.0)
    fresh, truth = draw(1000)
    assert hit_at_k(scores(model, fresh), truth, 1) > 0.85
    nonsense = solved(noisy - vector, 20, 5, gram_share=gram_share, noise_std=4.0)
    assert hit_at_k(scores(nonsense, rows), labels, 1) < 0.5


def test_more_noise_shrinks_the_model() -> None:
    generator = np.random.default_rng(10)
    rows, labels = units(generator, 500, 8), generator.integers(0, 3, 500)
    for share in (0.0, 0.3):
        vector, _ = summed(rows, labels, gram_share=share)
        sizes = [np.abs(solved(vector, 8, 3, gram_share=share, noise_std=std).weight).sum() for std in (10, 100, 1000)]
        assert sizes == sorted(sizes, reverse=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": [0, 1]}, "expected 3 labels"),
        ({"labels": [0, 1, 3]}, "whole numbers in 0..2"),
        ({"labels": [0, 1, -1]}, "whole numbers in 0..2"),
        ({"labels": [0.0, 1.0, 2.0]}, "whole numbers in 0..2"),
        ({"rows": np.zeros(3)}, "features\\) rows"),
        ({"feature_mean": np.zeros(5)}, "mean of 4 features"),
        ({"gram_share": 1.0}, "gram_share"),
        ({"gram_share": -0.1}, "gram_share"),
        ({"gram_share": float("nan")}, "gram_share"),
        ({"bias_scale": 0.0}, "bias_scale"),
        ({"bias_scale": float("inf")}, "bias_scale"),
    ],
)
def test_bad_statistics_are_refused(change: dict[str, Any], message: str) -> None:
    given_settings: dict[str, Any] = {
        "rows": np.zeros((3, 4)),
        "labels": [0, 1, 2],
        "feature_mean": np.zeros(4),
    } | change
    rows, labels = given_settings.pop("rows"), given_settings.pop("labels")
    with pytest.raises(BatchError, match=message):
        summed(rows, labels, **given_settings)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"noisy": np.zeros(26)}, "expected 30 finite numbers"),
        ({"noisy": np.full(30, np.nan)}, "expected 30 finite numbers"),
        ({"feature_mean": np.zeros(3)}, "mean of 4 features"),
        ({"noise_std": -1.0}, "noise_std"),
        ({"regularisation": float("nan")}, "regularisation"),
        ({"ridge": 0.0}, "ridge"),
        ({"confidence_scale": float("inf")}, "confidence_scale"),
        ({"bias_scale": -1.0}, "bias_scale"),
        ({"gram_share": 2.0}, "gram_share"),
    ],
)
def test_bad_settings_are_refused(change: dict[str, Any], message: str) -> None:
    given_settings = {"noisy": np.zeros(30)} | change
    with pytest.raises(BatchError, match=message):
        solved(given_settings.pop("noisy"), 4, 3, **given_settings)
