"""Per-patient gradients of the linear model, clipped and summed.

For one sampled patient with text vector x, target y (the true code, smoothed) and confidences
p = softmax(W x' + b), the gradient of the cross-entropy is the outer product of (p - y) and (x', bias_scale).
Each patient's gradient is scaled down to a norm of at most `l2_clip_norm` and added up (Abadi et al. 2016,
arXiv:1607.00133). Nothing is divided by the batch size, which is private; no noise is added here.

Formal guarantees, for every finite or non-finite input:

- each patient adds a vector of Euclidean norm at most `l2_clip_norm` (up to float64 rounding);
- so adding or removing one patient moves the sum by at most `l2_clip_norm`;
- an admission with a NaN or infinite feature adds nothing and is counted, and an empty batch gives zeros.

`clipping` computes it; its modes give the same sum. Rows are made dense in physical batches, so memory stays bounded.
"""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse

from jobs.icd_coding.clipping import ClippingMode, clipping
from jobs.icd_coding.errors import BatchError
from jobs.icd_coding.model import FeatureRows, Parameters, centred_rows

PHYSICAL_BATCH = 512  # rows made dense at a time
_LARGEST_NORM_SQUARED = 1e100  # far above any encoder's 1; keeps products of norms finite


def clipped_gradient_sum(
    parameters: Parameters,
    rows: FeatureRows,
    labels: NDArray[np.integer],
    l2_clip_norm: float,
    *,
    bias_scale: float = 1.0,
    label_smoothing: float = 0.0,
    mode: ClippingMode = "book-keeping",
) -> tuple[NDArray[np.float64], int]:
    """The sum of the patients' clipped gradients.

    Args:
        parameters: the round's model.
        rows: (n, features), one admission per sampled patient.
        labels: (n,) label numbers in 0..labels-1.
        l2_clip_norm: the bound C on one patient's contribution, > 0.
        bias_scale: the constant feature that stands for the bias, >= 0; 0 leaves the bias untrained.
            The bias part of the sum is the gradient of b / bias_scale.
        label_smoothing: 0 <= s < 1; the target is 1 - s on the true code plus s spread evenly over all codes.
            A fixed rule, so it costs no privacy; it keeps scores small, which helps when they carry noise.
        mode: who computes it.

    Returns: the sum as a float64 vector in the order of `model.to_vector`, and how many patients were dropped
        because a feature was NaN, infinite or absurdly large. That count is private and stays here.
    Raises: BatchError if shapes or labels do not fit; nothing is computed then.

    Edge cases: no rows -> zeros; row of zeros with bias_scale 0 -> adds zeros; NaN or inf row -> dropped.
    """
    shape = parameters.shape
    if rows.ndim != 2 or rows.shape[1] != shape.features:
        raise BatchError(f"features: expected {shape.features} columns, got shape {rows.shape}")
    if labels.shape != (rows.shape[0],):
        raise BatchError(f"labels: expected {rows.shape[0]} of them, got shape {labels.shape}")
    if labels.dtype.kind not in "iu" or (len(labels) and not 0 <= labels.min() <= labels.max() < shape.labels):
        raise BatchError(f"labels: expected whole numbers in 0..{shape.labels - 1}; drop unknown codes first")
    if not (np.isfinite(l2_clip_norm) and l2_clip_norm > 0):
        raise BatchError(f"l2_clip_norm: expected a positive number, got {l2_clip_norm}")
    if not (np.isfinite(bias_scale) and bias_scale >= 0):
        raise BatchError(f"bias_scale: expected a number >= 0, got {bias_scale}")
    if not 0 <= label_smoothing < 1:
        raise BatchError(f"label_smoothing: expected a number in [0, 1), got {label_smoothing}")
    model = _Scores(parameters, bias_scale=bias_scale)
    clipped = clipping(model, l2_clip_norm, mode)
    dropped = 0
    for start in range(0, rows.shape[0], PHYSICAL_BATCH):
        part, truth = rows[start : start + PHYSICAL_BATCH], labels[start : start + PHYSICAL_BATCH]
        usable = _squared_norms(part) <= _LARGEST_NORM_SQUARED  # False for NaN too
        if not usable.all():
            dropped += int((~usable).sum())
            part, truth = part[usable], truth[usable]
        inputs = torch.from_numpy(centred_rows(part, parameters.feature_mean))
        losses = _losses(model, inputs, torch.from_numpy(truth.astype(np.int64)), label_smoothing)
        dropped += clipped.add(losses, patients=len(inputs))
    totals = clipped.total()
    bias = totals["bias.weight"].ravel() if bias_scale > 0 else np.zeros(shape.labels)
    return np.concatenate([totals["weight.weight"].ravel(), bias]), dropped


def _squared_norms(rows: FeatureRows) -> NDArray[np.float64]:
    """Of each row; inf or NaN where a feature is, or is absurdly large."""
    with np.errstate(over="ignore", invalid="ignore"):
        if sparse.issparse(rows):
            wide = rows.astype(np.float64)
            return np.asarray(wide.multiply(wide).sum(axis=1), dtype=np.float64).ravel()
        dense = np.asarray(rows)
        return np.asarray(np.einsum("ij,ij->i", dense, dense, dtype=np.float64))


class _Scores(torch.nn.Module):
    """The model in float64, as two layers: the weights, and the bias as the weight of a constant feature."""

    def __init__(self, parameters: Parameters, *, bias_scale: float) -> None:
        super().__init__()
        self._bias_scale = bias_scale
        self.weight = _linear(parameters.weight.astype(np.float64))
        bias = parameters.bias.astype(np.float64)[:, None]
        self.bias = _linear(bias / bias_scale if bias_scale > 0 else bias)
        self.bias.requires_grad_(bias_scale > 0)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """(n, labels) scores of centred rows."""
        constant = inputs.new_full((len(inputs), 1), self._bias_scale if self._bias_scale > 0 else 1.0)
        scores: torch.Tensor = self.weight(inputs) + self.bias(constant)
        return scores


def _linear(weight: NDArray[np.float64]) -> torch.nn.Linear:
    # Made without start values: drawing them would move torch's global generator.
    layer = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
    layer.weight = torch.nn.Parameter(torch.from_numpy(weight))
    return layer


def _losses(
    model: _Scores, inputs: torch.Tensor, labels: torch.Tensor, label_smoothing: float
) -> Callable[[], torch.Tensor]:
    return lambda: torch.nn.functional.cross_entropy(
        model(inputs), labels, reduction="none", label_smoothing=label_smoothing
    )
