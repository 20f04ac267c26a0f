"""Per-patient gradients of the linear model, clipped and summed by Opacus.

For one sampled patient with text vector x, target y (the true code, smoothed) and confidences
p = softmax(W x' + b), the gradient of the cross-entropy is the outer product of (p - y) and (x', bias_scale).
Opacus computes each patient's norm, scales the gradient down to at most `l2_clip_norm` and adds up (Abadi et
al. 2016, arXiv:1607.00133). Nothing is divided by the batch size, which is private; no noise is added here.

Formal guarantees, for every finite or non-finite input:

- each patient adds a vector of Euclidean norm at most `l2_clip_norm` (up to float64 rounding);
- so adding or removing one patient moves the sum by at most `l2_clip_norm`;
- an admission with a NaN or infinite feature adds nothing and is counted, and an empty batch gives zeros.

Two ways of Opacus give the same sum: "hooks" keeps every patient's gradient, (rows, labels, features);
"ghost" computes norms from the layer's input and output alone (Li et al. 2021, arXiv:2110.05679) and needs no
such tensor. Wide layers use ghost. Rows are made dense in physical batches, so memory stays bounded.
"""

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from opacus.grad_sample import GradSampleModule, GradSampleModuleFastGradientClipping
from opacus.optimizers import DPOptimizer, DPOptimizerFastGradientClipping
from opacus.utils.fast_gradient_clipping_utils import DPLossFastGradientClipping
from scipy import sparse

from jobs.icd_coding.errors import BatchError
from jobs.icd_coding.model import FeatureRows, Parameters, centred_rows

GradSampleMode = Literal["hooks", "ghost"]

PHYSICAL_BATCH = 512  # rows made dense at a time
_HOOKS_BYTES = 2**26  # the most per-sample gradients that hooks may hold at a time, in bytes
_LARGEST_NORM_SQUARED = 1e100  # far above any encoder's 1; keeps products of norms finite


def grad_sample_mode(labels: int, features: int) -> GradSampleMode:
    """The way of Opacus for a layer of this size: "hooks" if a batch's gradients are small, else "ghost"."""
    return "hooks" if PHYSICAL_BATCH * labels * (features + 1) * 8 <= _HOOKS_BYTES else "ghost"


def clipped_gradient_sum(
    parameters: Parameters,
    rows: FeatureRows,
    labels: NDArray[np.integer],
    l2_clip_norm: float,
    *,
    bias_scale: float = 1.0,
    label_smoothing: float = 0.0,
    mode: GradSampleMode | None = None,
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
        mode: which way Opacus clips; chosen by the layer's size if None.

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
    chosen = mode or grad_sample_mode(shape.labels, shape.features)
    layer = _layer(parameters, bias_scale=bias_scale)
    clipper = _Clipper(layer, l2_clip_norm, label_smoothing, chosen)
    dropped = 0
    for start in range(0, rows.shape[0], PHYSICAL_BATCH):
        batch = slice(start, start + PHYSICAL_BATCH)
        part = rows[batch]
        dense = np.asarray(part.toarray() if sparse.issparse(part) else part, dtype=np.float64)
        with np.errstate(over="ignore", invalid="ignore"):
            usable = np.einsum("ij,ij->i", dense, dense) <= _LARGEST_NORM_SQUARED  # False for NaN too
        dropped += int((~usable).sum())
        if not usable.any():
            continue
        inputs = centred_rows(dense[usable], parameters.feature_mean)
        if layer.in_features > shape.features:
            inputs = np.hstack([inputs, np.full((len(inputs), 1), bias_scale)])
        clipper.add(torch.from_numpy(inputs), torch.from_numpy(labels[batch][usable].astype(np.int64)))
    total = clipper.total()
    weight, bias = total[:, : shape.features], total[:, shape.features :]
    if not bias.size:
        bias = np.zeros((shape.labels, 1))
    return np.concatenate([weight.ravel(), bias.ravel()]), dropped


def _layer(parameters: Parameters, *, bias_scale: float) -> torch.nn.Linear:
    """The model as one float64 layer; a trained bias is the weight of a constant last feature."""
    weight = parameters.weight.astype(np.float64)
    if bias_scale > 0:
        weight = np.hstack([weight, parameters.bias.astype(np.float64)[:, None] / bias_scale])
    # Made without start values: drawing them would move torch's global generator.
    layer = torch.nn.Linear(
        weight.shape[1], weight.shape[0], bias=bias_scale == 0, dtype=torch.float64, device="meta"
    ).to_empty(device="cpu")
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(weight))
        if layer.bias is not None:
            layer.bias.copy_(torch.from_numpy(parameters.bias.astype(np.float64)))
            layer.bias.requires_grad_(False)
    return layer


class _Clipper:
    """Opacus' module, optimiser and loss around one layer; adds up clipped gradients batch by batch."""

    def __init__(
        self, layer: torch.nn.Linear, l2_clip_norm: float, label_smoothing: float, mode: GradSampleMode
    ) -> None:
        ghost = mode == "ghost"
        sgd = torch.optim.SGD([layer.weight], lr=0.0)
        optimiser = DPOptimizerFastGradientClipping if ghost else DPOptimizer
        self._weight = layer.weight
        self._optimiser = optimiser(
            sgd,
            noise_multiplier=0.0,
            max_grad_norm=l2_clip_norm,
            expected_batch_size=None,
            loss_reduction="sum",
        )
        cross_entropy = torch.nn.CrossEntropyLoss(reduction="sum", label_smoothing=label_smoothing)
        if ghost:
            self._module = GradSampleModuleFastGradientClipping(
                layer, loss_reduction="sum", max_grad_norm=l2_clip_norm, use_ghost_clipping=True
            )
            self._loss = DPLossFastGradientClipping(self._module, self._optimiser, cross_entropy, loss_reduction="sum")
        else:
            self._module = GradSampleModule(layer, loss_reduction="sum")
            self._loss = cross_entropy

    def add(self, inputs: torch.Tensor, labels: torch.Tensor) -> None:
        """Clip the gradients of one physical batch and add them to the sum."""
        self._optimiser.zero_grad()
        inputs.requires_grad_(True)  # torch warns when a module's backward hook has no input to report on
        self._loss(self._module(inputs), labels).backward()
        # A skipped step is Opacus' way of a physical batch: it clips and accumulates, and does nothing else.
        self._optimiser.signal_skip_step()
        self._optimiser.step()

    def total(self) -> NDArray[np.float64]:
        """The sum so far, (labels, inputs); zeros before the first batch."""
        summed: torch.Tensor | None = getattr(self._weight, "summed_grad")  # noqa: B009
        if summed is None:
            return np.zeros(tuple(self._weight.shape))
        return np.asarray(summed.detach().numpy(), dtype=np.float64)
