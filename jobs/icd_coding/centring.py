"""The mean feature vector, released once, so that what all texts share is taken out of the model's input.

Character n-grams of any two letters overlap: most of a text vector says "this is a Dutch letter". Under
noise that common part drowns what tells codes apart. One extra aggregation before the first round adds up
the sampled patients' feature vectors; its noisy sum, divided by a public constant, is the mean that
`model.centred_rows` subtracts from every text, in training and in use.

Formal guarantees: every patient adds a vector of norm at most `FEATURE_L2_NORM`; adding or removing one
patient moves the sum by at most that. With a round's noise multiplier and sampling it costs what a round
costs.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from jobs.icd_coding.errors import BatchError
from jobs.icd_coding.model import FeatureRows

FEATURE_L2_NORM = 1.0
"""The sensitivity of `feature_sum`: an encoder's rows have norm 1, and longer ones are scaled down to it."""

_ROWS = 512  # rows made dense at a time


def feature_sum(rows: FeatureRows) -> tuple[NDArray[np.float64], int]:
    """Add up the feature vectors of one admission per sampled patient.

    Args: rows: (n, features).
    Returns: the float64 sum of length `features`, zeros for no rows; and how many rows were dropped because a
        feature was NaN, infinite or absurdly large, a private number that stays at the hospital.
    """
    if rows.ndim != 2:
        raise BatchError(f"features: expected a matrix, got shape {rows.shape}")
    total = np.zeros(rows.shape[1])
    dropped = 0
    for start in range(0, rows.shape[0], _ROWS):
        part = rows[start : start + _ROWS]
        dense = np.asarray(part.toarray() if sparse.issparse(part) else part, dtype=np.float64)
        with np.errstate(over="ignore", invalid="ignore"):
            norms = np.sqrt(np.einsum("ij,ij->i", dense, dense))
        usable = np.isfinite(norms)
        dropped += int((~usable).sum())
        total += (dense[usable] / np.maximum(norms[usable] / FEATURE_L2_NORM, 1.0)[:, None]).sum(axis=0)
    return total, dropped


def feature_mean(noisy_sum: NDArray[np.float64], *, expected_batch: float) -> NDArray[np.float32]:
    """The mean to centre with: the noisy sum over a public constant, never over the private count.

    Args:
        noisy_sum: (features,), as the aggregation released it.
        expected_batch: sampling_prob * nominal patients of the plan, > 0.
    Raises: BatchError if the sum is not finite or the constant not positive.
    """
    if not (np.isfinite(expected_batch) and expected_batch > 0):
        raise BatchError(f"expected_batch: expected a positive number, got {expected_batch}")
    if noisy_sum.ndim != 1 or not np.isfinite(noisy_sum).all():
        raise BatchError("feature sum: expected a flat vector of finite numbers")
    return (noisy_sum / expected_batch).astype(np.float32)
