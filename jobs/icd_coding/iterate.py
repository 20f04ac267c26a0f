"""From a model's parameters to the vector that an optimiser moves, and back.

For the linear model the vector's last part is the bias in units of `bias_scale`, since a gradient's bias part belongs
to the constant feature of that size. Any other model's vector is moved as it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from jobs.icd_coding.model import LinearModel, Parameters

if TYPE_CHECKING:
    from jobs.icd_coding.lora import LoraModel, LoraParameters


def to_iterate(parameters: Parameters | LoraParameters, *, bias_scale: float) -> NDArray[np.float64]:
    """The vector an optimiser moves. A bias that is not trained (bias_scale 0) does not move."""
    vector = parameters.to_vector()
    if isinstance(parameters, Parameters):
        bias = vector[parameters.weight.size :]
        bias /= bias_scale if bias_scale > 0 else 1.0
    return vector


def from_iterate(
    iterate: NDArray[np.float64],
    shape: LinearModel | LoraModel,
    *,
    bias_scale: float,
    feature_mean: NDArray[np.floating] | None = None,
) -> Parameters | LoraParameters:
    """The model that a vector stands for; `feature_mean` is the linear model's.

    Raises: ModelFormatError on a wrong length or numbers that are not finite in float32.
    """
    if isinstance(shape, LinearModel):
        return linear_from_iterate(iterate, shape, bias_scale=bias_scale, feature_mean=feature_mean)
    return shape.from_vector(iterate)


def linear_from_iterate(
    iterate: NDArray[np.float64],
    shape: LinearModel,
    *,
    bias_scale: float,
    feature_mean: NDArray[np.floating] | None = None,
) -> Parameters:
    """`from_iterate` of the linear model."""
    vector = iterate.copy()
    vector[shape.labels * shape.features :] *= bias_scale
    return shape.from_vector(vector, feature_mean=feature_mean)
