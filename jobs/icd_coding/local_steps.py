"""Steps that a hospital takes on its own before anything leaves, each with all of the noise.

Every step is one of DP-SGD: sampled patients, clipped gradients, noise that protects a patient against everybody else,
and heavy-ball momentum that starts at rest in each round. What leaves is how far the steps moved the model: a function
of noisy sums and public constants, so that it costs what the steps cost and nothing more.

Source: Abadi et al. 2016, arXiv:1607.00133; McMahan et al. 2018, arXiv:1710.06963 (local steps between averages).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from jobs.icd_coding.errors import BatchError
from jobs.icd_coding.recipe import Hyperparameters


def local_move(
    start: NDArray[np.float64],
    noisy_gradient_sum: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    recipe: Hyperparameters,
    *,
    steps: int,
    expected_batch: float,
) -> NDArray[np.float64]:
    """How far `steps` local steps move the iterate from `start`.

    Args:
        start: (length,) the round's iterate; see `iterate.to_iterate`.
        noisy_gradient_sum: the clipped gradient sum at an iterate, over a fresh sample and with fresh noise.
        recipe: the plan's constants; its rounds do not matter here.
        steps: >= 1.
        expected_batch: sampling_prob * the nominal number of patients of one hospital: public, > 0.
    Raises: BatchError if expected_batch is not positive.
    """
    if not (np.isfinite(expected_batch) and expected_batch > 0):
        raise BatchError(f"expected_batch: expected a positive number, got {expected_batch}")
    iterate, velocity = start.copy(), np.zeros(len(start))
    for _ in range(steps):
        estimate = noisy_gradient_sum(iterate) / (-expected_batch * recipe.l2_clip_norm)
        velocity = recipe.momentum * velocity + recipe.learning_rate * estimate
        iterate += velocity
    return iterate - start
