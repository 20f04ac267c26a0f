"""Models that privacy would not allow, to compare with: trained in the clear on one hospital's or everybody's records.

They use the same features, clipping and optimiser as the federated model, without sampling, masks or noise, so that a
difference to the federated model is the price of privacy and nothing else. They exist for benchmarks on public data and
for the demo's synthetic letters.

Without privacy nobody needs Opacus: a linear layer's gradient for one patient is the outer product of the residual and
the features, so its norm is the product of theirs and the clipped sum is one matrix product.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from jobs.icd_coding.centring import feature_mean, feature_sum
from jobs.icd_coding.encoder import OpenedEncoder
from jobs.icd_coding.iterate import linear_from_iterate, to_iterate
from jobs.icd_coding.model import LinearModel, Parameters, centred_rows, softmax
from jobs.icd_coding.optimiser import OptimiserState, initial_state, published_iterate, step
from jobs.icd_coding.recipe import Hyperparameters
from site_packages.dataset import Dataset


def encode(
    encoder: OpenedEncoder, datasets: Sequence[Dataset], label_space: Sequence[str]
) -> tuple[sparse.csr_matrix, NDArray[np.int64]]:
    """Feature rows and label numbers of all admissions of these data sets; -1 is a code outside the label space."""
    rows = sparse.vstack([sparse.csr_matrix(encoder.encode(each.texts)) for each in datasets], format="csr")
    labels = np.concatenate([dataset.label_indices(label_space) for dataset in datasets])
    return rows, labels


def train_in_the_clear(
    rows: sparse.csr_matrix, labels: NDArray[np.int64], shape: LinearModel, recipe: Hyperparameters
) -> Parameters:
    """Full-batch training without noise on these records; memory is 4 bytes per admission and feature.

    Args:
        rows: (n, features), one row per admission; labels: (n,) in -1..labels-1, where -1 is left out.
        recipe: its sampling probability is not used: everybody takes part.
    """
    known = np.flatnonzero(labels >= 0)
    rows, labels = rows[known], labels[known]
    everybody = float(len(known))
    recipe = replace(recipe, sampling_prob=1.0)
    mean = shape.initial().feature_mean
    if recipe.centring:
        mean = feature_mean(feature_sum(rows)[0], expected_batch=everybody)
    inputs = centred_rows(rows, mean).astype(np.float32)
    state = initial_state(to_iterate(shape.initial(), bias_scale=recipe.bias_scale))

    def published(state: OptimiserState) -> Parameters:
        iterate = published_iterate(state, recipe)
        return linear_from_iterate(iterate, shape, bias_scale=recipe.bias_scale, feature_mean=mean)

    for _ in range(recipe.rounds):
        total = clear_gradient_sum(published(state), inputs, labels, recipe)
        state = step(state, total, recipe, expected_batch=everybody)
    return published(state)


def clear_gradient_sum(
    parameters: Parameters, inputs: NDArray[np.float32], labels: NDArray[np.int64], recipe: Hyperparameters
) -> NDArray[np.float64]:
    """What `gradient.clipped_gradient_sum` gives for these records, in float32 arithmetic.

    Args:
        inputs: (n, features) centred rows; labels: (n,) in 0..labels-1.
    Returns: (labels * features + labels,) float64.
    """
    residual = softmax((inputs @ parameters.weight.T + parameters.bias).astype(np.float64))
    residual -= recipe.label_smoothing / residual.shape[1]
    residual[np.arange(len(labels)), labels] -= 1 - recipe.label_smoothing
    lengths = np.sqrt(np.einsum("ij,ij->i", inputs, inputs) + recipe.bias_scale**2)
    norms = np.linalg.norm(residual, axis=1) * lengths
    residual *= np.minimum(1.0, recipe.l2_clip_norm / np.maximum(norms, np.finfo(np.float64).tiny))[:, None]
    weight = residual.astype(np.float32).T @ inputs
    return np.concatenate([weight.ravel().astype(np.float64), residual.sum(axis=0) * recipe.bias_scale])
