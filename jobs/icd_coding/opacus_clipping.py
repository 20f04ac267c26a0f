"""Clipped sums of per-patient gradients by Opacus.

"hooks" forms every row's gradient; "ghost" computes norms from each layer's input and output and goes through the
network backwards twice (Li et al. 2021, arXiv:2110.05679). Opacus' optimiser computes the norms, clips and adds up; a
patient's rows are added before it sees them. Same guarantees as `bookkeeping`, in the module's own precision.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from opacus.grad_sample import GradSampleModule, GradSampleModuleFastGradientClipping
from opacus.optimizers import DPOptimizer, DPOptimizerFastGradientClipping
from opacus.utils.fast_gradient_clipping_utils import DPTensorFastGradientClipping
from torch import Tensor, nn

from jobs.icd_coding.bookkeeping import trained_layers
from jobs.icd_coding.bookkeeping_layers import Grouping
from jobs.icd_coding.errors import BatchError, ClippingError


class OpacusClipping:
    """Opacus' module and optimiser around a module. It keeps Opacus' hooks until `close`."""

    def __init__(self, module: nn.Module, l2_clip_norm: float, mode: Literal["hooks", "ghost"]) -> None:
        """Args and errors as for `BookKeeping`."""
        if not (np.isfinite(l2_clip_norm) and l2_clip_norm > 0):
            raise BatchError(f"l2_clip_norm: expected a positive number, got {l2_clip_norm}")
        for layer in trained_layers(module):  # refuses what neither way can clip
            layer.module.train()  # Opacus looks only at layers in training; dropout stays as the caller left it
        self._ghost = mode == "ghost"
        self._parameters = {name: p for name, p in module.named_parameters() if p.requires_grad}
        optimiser = DPOptimizerFastGradientClipping if self._ghost else DPOptimizer
        self._optimiser = optimiser(
            torch.optim.SGD(list(self._parameters.values()), lr=0.0),
            noise_multiplier=0.0,
            max_grad_norm=l2_clip_norm,
            expected_batch_size=None,
            loss_reduction="sum",
        )
        if self._ghost:
            self._wrapped = GradSampleModuleFastGradientClipping(
                module, loss_reduction="sum", max_grad_norm=l2_clip_norm, use_ghost_clipping=True, strict=False
            )
        else:
            self._wrapped = GradSampleModule(module, loss_reduction="sum", strict=False)

    def add(self, losses: Callable[[], Tensor], *, patients: int, rows_per_patient: Sequence[int] | None = None) -> int:
        """As `BookKeeping.add`. Ghost clipping knows one row per patient and finite numbers only.

        Raises: also ClippingError where ghost clipping cannot do it.
        """
        counts = (1,) * patients if rows_per_patient is None else tuple(int(count) for count in rows_per_patient)
        if len(counts) != patients or any(count < 1 for count in counts):
            raise BatchError(f"rows_per_patient: expected {patients} counts of at least 1, got {counts}")
        if not patients:
            return 0
        with warnings.catch_warnings():
            # The lowest layer's input has no gradient, and needs none.
            warnings.filterwarnings("ignore", message="Full backward hook is firing", category=UserWarning)
            return self._add(losses, Grouping(counts))

    def _add(self, losses: Callable[[], Tensor], grouping: Grouping) -> int:
        if self._ghost and grouping.uniform != 1:
            raise ClippingError("ghost clipping of Opacus: one row per patient only; use hooks or book-keeping")
        patients = grouping.patients
        self._optimiser.zero_grad()
        loss = losses()
        if loss.shape != (patients,):
            raise BatchError(f"losses: expected shape {(patients,)}, got {tuple(loss.shape)}")
        dropped = 0
        if self._ghost:
            try:
                DPTensorFastGradientClipping(self._wrapped, self._optimiser, loss, "sum").backward()
            finally:
                self._wrapped.enable_hooks()
            if not torch.isfinite(self._wrapped.per_sample_gradient_norms).all() or not torch.isfinite(loss).all():
                raise ClippingError("ghost clipping of Opacus: a gradient is not finite; use hooks or book-keeping")
        else:
            loss.sum().backward()  # type: ignore[no-untyped-call]
            dropped = self._group(grouping, torch.isfinite(loss.detach()))
        # A skipped step is Opacus' way of a physical batch: it clips and accumulates, and does nothing else.
        self._optimiser.signal_skip_step()
        self._optimiser.step()
        return dropped

    def _group(self, grouping: Grouping, usable: Tensor) -> int:
        """Turn rows' gradients into patients', zero those that are not finite, and count them."""
        for name, parameter in self._parameters.items():
            rows: Tensor | None = parameter.grad_sample  # type: ignore[attr-defined]
            if rows is None:  # the losses do not depend on it
                rows = parameter.new_zeros((grouping.patients, *parameter.shape))
            gradients = grouping.of(rows.shape[0], layer=name).summed(rows)
            parameter.grad_sample = gradients  # type: ignore[attr-defined]
            norms = torch.linalg.vector_norm(gradients.flatten(1), dim=1, dtype=torch.float64)
            usable = usable & (norms < torch.finfo(parameter.dtype).max ** 0.5)  # False for NaN too
        for parameter in self._parameters.values():
            parameter.grad_sample[~usable] = 0.0  # type: ignore[attr-defined]
        return int((~usable).sum())

    def total(self) -> dict[str, NDArray[np.float64]]:
        """The sum so far by parameter name; zeros before the first batch."""
        sums = {}
        for name, parameter in self._parameters.items():
            summed: Tensor | None = getattr(parameter, "summed_grad", None)
            sums[name] = np.zeros(parameter.shape) if summed is None else summed.detach().double().numpy().copy()
        return sums

    def close(self) -> None:
        """Take Opacus' hooks and marks off the module again."""
        self._wrapped.to_standard_module()
