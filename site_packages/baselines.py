"""Models that privacy would not allow, to compare with: trained in the clear on one hospital's or everybody's records.

They use the same features, the same clipped gradients and the same optimiser as the federated model, without sampling,
masks or noise. So a difference to the federated model is the price of privacy, and nothing else. They exist for
benchmarks on public data and for the demo's synthetic letters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from jobs.icd_coding.centring import feature_mean, feature_sum
from jobs.icd_coding.encoder import TextEncoder
from jobs.icd_coding.gradient import clipped_gradient_sum
from jobs.icd_coding.model import LinearModel, Parameters, initial_parameters
from jobs.icd_coding.optimiser import initial_state, published_parameters, step
from jobs.icd_coding.recipe import Hyperparameters
from site_packages.dataset import Dataset


def encode(
    encoder: TextEncoder, datasets: Sequence[Dataset], label_space: Sequence[str]
) -> tuple[sparse.csr_matrix, NDArray[np.int64]]:
    """Feature rows and label numbers of all admissions of these data sets; -1 is a code outside the label space."""
    rows = sparse.vstack([encoder.encode(dataset.texts) for dataset in datasets], format="csr")
    labels = np.concatenate([dataset.label_indices(label_space) for dataset in datasets])
    return rows, labels


def train_in_the_clear(
    rows: sparse.csr_matrix, labels: NDArray[np.int64], shape: LinearModel, recipe: Hyperparameters
) -> Parameters:
    """Full-batch training without noise on these records.

    Args:
        rows: (n, features), one row per admission; labels: (n,) in -1..labels-1, where -1 is left out.
        recipe: its sampling probability is not used: everybody takes part.
    """
    known = np.flatnonzero(labels >= 0)
    rows, labels = rows[known], labels[known]
    everybody = float(len(known))
    recipe = replace(recipe, sampling_prob=1.0)
    mean = initial_parameters(shape).feature_mean
    if recipe.centring:
        mean = feature_mean(feature_sum(rows)[0], expected_batch=everybody)
    state = initial_state(shape)
    for _ in range(recipe.rounds):
        parameters = published_parameters(state, shape, recipe, feature_mean=mean)
        total, _ = clipped_gradient_sum(
            parameters,
            rows,
            labels,
            recipe.l2_clip_norm,
            bias_scale=recipe.bias_scale,
            label_smoothing=recipe.label_smoothing,
        )
        state = step(state, total, recipe, expected_batch=everybody)
    return published_parameters(state, shape, recipe, feature_mean=mean)
