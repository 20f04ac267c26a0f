"""One-round ridge regression from differentially private sums.

Every patient contributes once, in one secure aggregation. With x the patient's text vector, centred by a mean that
was released before (zeros: not centred), and y the one-hot code, let

    z = (x, bias_scale) / sqrt(1 + bias_scale^2)                       so |z| <= 1
    v = [ sqrt(g) * upper triangle of z z^T, off-diagonals times sqrt 2 ; sqrt(1 - g) * z y^T ]

with g the plan's `gram_share`. The first part has the norm |z|^2 of the whole matrix z z^T, the second |z|, so
|v|^2 = g |z|^4 + (1 - g) |z|^2 <= 1. The sum of v over patients plus Gaussian noise is one Gaussian mechanism
(`privacy.events.StatisticsRelease`); all that `solve` does to it is post-processing.

What the noise does. Noise of standard deviation s on the packed sum is, on the Gram matrix G = sum z z^T, a symmetric
Gaussian matrix with off-diagonal standard deviation s / sqrt(2 g): its eigenvalues fill the semicircle of radius

    edge = 2 * s / sqrt(2 g) * sqrt(d),   d = features + 1             (Wigner 1958)

A true eigenvalue x above edge / 2 shows as w = x + edge^2 / 4x, in a direction whose squared cosine with the true one
is 1 - edge^2 / 4x^2. What minimises the Frobenius error given w is x times that square, sqrt(w^2 - edge^2) (the
argument of Gavish and Donoho 2017, arXiv:1405.7511, for a symmetric matrix); below the edge there is nothing but noise,
and the estimate is 0. So it is positive semi-definite, and

    W = (G_shrunk + lambda I)^-1 B,   lambda = ridge + regularisation * edge,   B = sum z y^T with its noise.

With g = 0 all of the budget goes to B, and the scatter between the codes' sums stands in for the Gram matrix: with
n_k patients of code k (from the constant feature), G ~ sum_k B_k B_k^T / n_k, and (B N^-1 B^T + lambda)^-1 B =
B (N^-1 B^T B + lambda)^-1 needs a labels x labels system only. The noise adds d s^2 to the diagonal of B^T B, which
is taken off; here edge = s (sqrt d + sqrt labels), the largest singular value of B's noise.

Formal guarantees, for every finite or non-finite input:

- each patient adds a vector of Euclidean norm at most `STATISTICS_L2_NORM` (up to float64 rounding);
- so adding or removing one patient moves the sum by at most that;
- an admission with a NaN or infinite feature adds nothing and is counted; no rows give zeros.

Source: sufficient-statistics perturbation, Vu and Slavkovic 2009; Wang 2018, arXiv:1803.02596.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, sparse

from jobs.icd_coding.errors import BatchError
from jobs.icd_coding.model import FeatureRows, LinearModel, Parameters, centred_rows

STATISTICS_L2_NORM = 1.0
"""The sensitivity of `statistics`: adding or removing one patient moves the sum by at most this."""

RIDGE = 1.5
"""Added to every eigenvalue also without noise; best on RuMedTop3, where 1 and 2 do nearly as well."""

_SCATTER_FLOOR = 0.5  # of the edge, in patients
_ROWS = 512  # rows made dense at a time
_LARGEST_NORM_SQUARED = 1e100  # far above any encoder's 1; keeps products of norms finite


def statistics_length(features: int, labels: int, *, gram_share: float) -> int:
    """Length of the vector a patient contributes: d (d + 1) / 2 + d * labels with d = features + 1.

    Without a Gram matrix (gram_share 0) the first part is absent. All arguments are public.
    """
    _check_share(gram_share)
    shape = LinearModel(features=features, labels=labels)
    d = shape.features + 1
    return (d * (d + 1) // 2 if gram_share > 0 else 0) + d * shape.labels


def statistics(
    rows: FeatureRows,
    labels: NDArray[np.integer],
    labels_count: int,
    *,
    gram_share: float,
    bias_scale: float,
    feature_mean: NDArray[np.floating] | None,
) -> tuple[NDArray[np.float64], int]:
    """The sum of the patients' vectors v, without noise.

    Args:
        rows: (n, features), one admission per patient. Rows longer than 1 after centring are scaled down to 1.
        labels: (n,) label numbers in 0..labels_count-1.
        gram_share: g, share of the squared norm that goes to the Gram matrix, in [0, 1).
        bias_scale: the constant feature, > 0.
        feature_mean: (features,) what rows are centred with; None or zeros for not at all.

    Returns: float64 of length `statistics_length`, and how many patients were dropped because a feature was NaN,
        infinite or absurdly large. That count is private and stays at the hospital.
    Raises: BatchError if shapes, labels or settings do not fit; nothing is computed then.

    Memory: the Gram matrix and the vector, 8 bytes * 1.5 (features + 1)^2 in all; 200 MB for 4,096 features.
    """
    if rows.ndim != 2:
        raise BatchError(f"statistics: expected (n, features) rows, got shape {rows.shape}")
    mean = np.zeros(rows.shape[1]) if feature_mean is None else feature_mean
    if mean.shape != (rows.shape[1],):
        raise BatchError(f"statistics: expected a mean of {rows.shape[1]} features, got shape {mean.shape}")
    if labels.shape != (rows.shape[0],):
        raise BatchError(f"statistics: expected {rows.shape[0]} labels, got shape {labels.shape}")
    if labels.dtype.kind not in "iu" or (len(labels) and not 0 <= labels.min() <= labels.max() < labels_count):
        raise BatchError(f"statistics: labels must be whole numbers in 0..{labels_count - 1}; drop unknown codes first")
    _check_share(gram_share)
    _check_bias(bias_scale)
    d = rows.shape[1] + 1
    vector = np.zeros(statistics_length(rows.shape[1], labels_count, gram_share=gram_share))
    moments = vector[len(vector) - d * labels_count :].reshape(labels_count, d)  # a view: sums of z, code by code
    gram = np.zeros((d, d), order="F") if gram_share > 0 else None
    dropped = 0
    for start in range(0, rows.shape[0], _ROWS):
        block = slice(start, start + _ROWS)
        part = rows[block]
        dense = np.asarray(part.toarray() if sparse.issparse(part) else part, dtype=np.float64)
        with np.errstate(over="ignore", invalid="ignore"):
            usable = np.einsum("ij,ij->i", dense, dense) <= _LARGEST_NORM_SQUARED  # False for NaN too
        dropped += int((~usable).sum())
        z = _augmented(centred_rows(dense[usable], mean), bias_scale)
        np.add.at(moments, labels[block][usable], z)
        if gram is not None and len(z):  # the upper triangle only
            gram = linalg.blas.dsyrk(1.0, z.T, beta=1.0, c=gram, overwrite_c=1)
    moments *= np.sqrt(1 - gram_share)
    if gram is not None:
        _pack(gram, np.sqrt(gram_share), vector)
    return vector, dropped


def solve(
    noisy: NDArray[np.float64],
    *,
    features: int,
    labels: int,
    gram_share: float,
    bias_scale: float,
    noise_std: float,
    regularisation: float,
    confidence_scale: float,
    feature_mean: NDArray[np.floating],
    ridge: float = RIDGE,
) -> Parameters:
    """The linear model from the noisy sum. Deterministic; costs no privacy.

    Args:
        noisy: (`statistics_length`,) the opened sum of all hospitals, noise included.
        noise_std: standard deviation of the noise on each coordinate, >= 0, from public constants.
        regularisation: how much of the noise's edge is added to that, >= 0.
        confidence_scale: regression values times this are the model's scores, > 0. Values are near the probability of
            a code, shrunk by lambda; the scale makes softmax of them a confidence.
        feature_mean: (features,) what the rows were centred with; the model centres with it too.
        ridge: what is added to every eigenvalue without noise, > 0; a patient adds at most 1 to an eigenvalue.
    Returns: parameters of a model on rows as the encoder makes them, for `model.scores`.
    Raises: BatchError if lengths or settings do not fit or the sum is not finite.
    """
    expected = statistics_length(features, labels, gram_share=gram_share)
    if noisy.shape != (expected,) or not np.isfinite(noisy).all():
        raise BatchError(f"statistics: expected {expected} finite numbers, got shape {noisy.shape}")
    if feature_mean.shape != (features,):
        raise BatchError(f"statistics: expected a mean of {features} features, got shape {feature_mean.shape}")
    _check_bias(bias_scale)
    for name, value in (("noise_std", noise_std), ("regularisation", regularisation)):
        if not (np.isfinite(value) and value >= 0):
            raise BatchError(f"{name}: expected a number >= 0, got {value}")
    for name, value in (("ridge", ridge), ("confidence_scale", confidence_scale)):
        if not (np.isfinite(value) and value > 0):
            raise BatchError(f"{name}: expected a positive number, got {value}")
    d = features + 1
    moments = noisy[expected - d * labels :].reshape(labels, d).T / np.sqrt(1 - gram_share)
    if gram_share > 0:
        edge = np.sqrt(2 * d) * noise_std / np.sqrt(gram_share)
        gram = _unpacked(noisy[: expected - d * labels], d, np.sqrt(gram_share))
        weight = _with_gram(gram, moments, edge, ridge + regularisation * edge)
    else:
        edge = noise_std * (np.sqrt(d) + np.sqrt(labels))
        patients = moments[-1] * np.sqrt(1 + bias_scale**2) / bias_scale
        weight = _with_class_scatter(moments, patients, noise_std, edge, ridge + regularisation * edge)
    scaled = weight.T * confidence_scale / np.sqrt(1 + bias_scale**2)
    with np.errstate(over="ignore"):  # overflow becomes inf, which Parameters refuses
        return Parameters(
            weight=np.ascontiguousarray(scaled[:, :features], dtype=np.float32),
            bias=(scaled[:, features] * bias_scale).astype(np.float32),
            feature_mean=np.asarray(feature_mean, dtype=np.float32),
        )


def _with_gram(gram: NDArray[np.float64], moments: NDArray[np.float64], edge: float, lam: float) -> NDArray[np.float64]:
    """(shrunk Gram + lam I)^-1 moments. Only eigenvalues above the edge count, so only they are computed."""
    if edge == 0:
        gram[np.diag_indices_from(gram)] += lam
        return np.asarray(linalg.solve(gram, moments, assume_a="pos", overwrite_a=True))
    values, vectors = linalg.eigh(gram, subset_by_value=(edge, np.inf), driver="evr", overwrite_a=True)
    shrunk = np.sqrt(np.maximum(values**2 - edge**2, 0.0))
    # (U S U^T + lam)^-1 = (1 - U S/(S + lam) U^T) / lam
    known = (shrunk / (shrunk + lam))[:, None] * (vectors.T @ moments)
    return np.asarray((moments - vectors @ known) / lam)


def _with_class_scatter(
    moments: NDArray[np.float64], patients: NDArray[np.float64], noise_std: float, edge: float, lam: float
) -> NDArray[np.float64]:
    """(scatter between codes + lam I)^-1 moments; `patients` is the noisy number of each code's patients."""
    inner = moments.T @ moments
    inner[np.diag_indices_from(inner)] -= len(moments) * noise_std**2
    values, vectors = linalg.eigh(inner)
    inner = (vectors * np.maximum(values, 0.0)) @ vectors.T
    # The sum of a code with few patients is mostly noise; without this floor it would dominate the scatter.
    inner /= (np.maximum(patients, 0.0) + max(_SCATTER_FLOOR * edge, 1.0))[:, None]
    inner[np.diag_indices_from(inner)] += lam
    return np.asarray(linalg.solve(inner.T, moments.T).T)


def _augmented(centred: NDArray[np.float64], bias_scale: float) -> NDArray[np.float64]:
    """z of each row: x of norm at most 1 and the constant, scaled so that |z| <= 1."""
    norms = np.sqrt(np.einsum("ij,ij->i", centred, centred))
    z = np.full((len(centred), centred.shape[1] + 1), bias_scale, dtype=np.float64)
    z[:, :-1] = centred / np.maximum(norms, 1.0)[:, None]
    z /= np.sqrt(1 + bias_scale**2)
    return z


def _pack(gram: NDArray[np.float64], scale: float, vector: NDArray[np.float64]) -> None:
    """Write the upper triangle row by row to the front of `vector`, off-diagonals times sqrt 2."""
    start = 0
    for row in range(len(gram)):
        end = start + len(gram) - row
        vector[start] = gram[row, row] * scale
        vector[start + 1 : end] = gram[row, row + 1 :] * (scale * np.sqrt(2))
        start = end


def _unpacked(packed: NDArray[np.float64], d: int, scale: float) -> NDArray[np.float64]:
    """The symmetric matrix that `_pack` wrote."""
    gram = np.empty((d, d))
    start = 0
    for row in range(d):
        end = start + d - row
        gram[row, row] = packed[start] / scale
        gram[row, row + 1 :] = packed[start + 1 : end] / (scale * np.sqrt(2))
        gram[row + 1 :, row] = gram[row, row + 1 :]
        start = end
    return gram


def _check_share(gram_share: float) -> None:
    if not 0 <= gram_share < 1:
        raise BatchError(f"gram_share: expected a number in [0, 1), got {gram_share}")


def _check_bias(bias_scale: float) -> None:
    if not (np.isfinite(bias_scale) and bias_scale > 0):
        raise BatchError(f"bias_scale: expected a positive number, got {bias_scale}")
