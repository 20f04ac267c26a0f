"""Clipped sums of per-patient gradients: one interface, and who implements it.

- "book-keeping", the default: our own, `bookkeeping.BookKeeping`. Nothing but torch is loaded.
- "hooks" and "ghost": Opacus, `opacus_clipping.OpacusClipping`. What ours is tested against and measured beside.

All add the same vectors: every patient's gradient times min(1, C / (norm + 1e-6)).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

ClippingMode = Literal["book-keeping", "hooks", "ghost"]


class Clipping(Protocol):
    """Adds up clipped per-patient gradients of a module's trained parameters."""

    def add(self, losses: Callable[[], Tensor], *, patients: int, rows_per_patient: Sequence[int] | None = None) -> int:
        """Add one physical batch; returns how many patients were dropped. See `BookKeeping.add`."""
        ...

    def total(self) -> dict[str, NDArray[np.float64]]:
        """The sum so far by parameter name, (parameter's shape) float64."""
        ...

    def close(self) -> None:
        """Leave the module as it was found."""
        ...


def clipping(module: nn.Module, l2_clip_norm: float, mode: ClippingMode = "book-keeping") -> Clipping:
    """Clipping of this module's parameters that have `requires_grad`.

    Raises: ClippingError if they cannot be clipped; BatchError if the bound is not a positive number.
    """
    if mode == "book-keeping":
        from jobs.icd_coding.bookkeeping import BookKeeping

        return BookKeeping(module, l2_clip_norm)
    from jobs.icd_coding.opacus_clipping import OpacusClipping  # seconds to import

    return OpacusClipping(module, l2_clip_norm, mode)
