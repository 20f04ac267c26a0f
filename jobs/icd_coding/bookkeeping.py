"""Book-keeping: clipped sums of per-patient gradients at about the cost of an ordinary gradient.

One forward pass notes what goes into every trained layer, one backward pass notes the gradient of what comes out,
and no weight gradient is computed on the way (Bu et al. 2022, arXiv:2210.00038). From the two follow each patient's
gradient norm over all parameters together, the factor min(1, C / norm), and one weighted sum per parameter.
`bookkeeping_layers` has the layers' part of it.

The unit is the patient. A patient may hold several rows of a batch (the chunks of a long letter); their gradients
are added before anything is clipped.

Formal guarantees, for every finite or non-finite input:

- each patient adds a vector of Euclidean norm at most `l2_clip_norm`, over all trained parameters together;
- a patient whose loss, activations or gradient are not finite adds nothing and is counted;
- a parameter is clipped or the module is refused before anything is computed, never trained unclipped.

What the module must promise, because nothing here can see it: a row's outputs depend on that row alone (or, above a
pooling of chunks, on that patient's rows alone). Batch normalisation breaks this and is refused.

In float32 the numbers of a row differ in their last bits with the rows beside it, since matrix products choose their
order by shape. So two neighbouring data sets' sums may differ by l2_clip_norm and about 1e-7 of it for every patient in
the sum, far below the noise. In float64 it is 1e-16 for every patient.

    >>> layer = nn.Linear(3, 2)
    >>> keeper = BookKeeping(layer, l2_clip_norm=1.0)
    >>> inputs, labels = torch.eye(3), torch.tensor([0, 1, 1])
    >>> keeper.add(lambda: nn.functional.cross_entropy(layer(inputs), labels, reduction="none"), patients=3)
    0
    >>> keeper.total()["weight"].shape
    (2, 3)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from jobs.icd_coding.bookkeeping_layers import PARTS, Grouping, Part
from jobs.icd_coding.errors import BatchError, ClippingError

NORM_FLOOR = 1e-6  # added to every norm before dividing, as Opacus does, so that both give the same sum


@dataclass(frozen=True, eq=False)
class TrainedLayer:
    """A layer with trained parameters.

    Attributes:
        path: where it is in the module, for messages.
        names: the trained ones of its parameters, "weight" and "bias", and their full names in the module.
    """

    path: str
    module: nn.Module
    names: dict[str, str]


class BookKeeping:
    """Adds up the clipped per-patient gradients of a module's trained parameters, physical batch by physical batch."""

    def __init__(self, module: nn.Module, l2_clip_norm: float) -> None:
        """Looks the module over. Trained are the parameters with `requires_grad`.

        Args: l2_clip_norm: the bound C on one patient's contribution, > 0.
        Raises: ClippingError if a trained parameter is in a layer that cannot be clipped, or is shared, or is
            neither float32 nor float64, or there is none; BatchError for an impossible bound.
        """
        if not (np.isfinite(l2_clip_norm) and l2_clip_norm > 0):
            raise BatchError(f"l2_clip_norm: expected a positive number, got {l2_clip_norm}")
        self._module = module
        self._clip = l2_clip_norm
        self._trained = trained_layers(module)
        shapes = dict(module.named_parameters())
        self._totals = {
            name: torch.zeros(shapes[name].shape, dtype=torch.float64)
            for name, parameter in shapes.items()
            if parameter.requires_grad
        }

    def add(
        self,
        losses: Callable[[], Tensor],
        *,
        patients: int,
        rows_per_patient: Sequence[int] | None = None,
    ) -> int:
        """Clip the patients' gradients of one physical batch and add them to the sum.

        Args:
            losses: runs the module's forward pass once and returns (patients,) losses, in the order of the rows.
            patients: number of patients in the batch.
            rows_per_patient: how many of the module's rows each patient has, at least 1 each, a patient's rows being
                next to each other; None is one row each.
        Returns: how many patients were dropped because a number was not finite. Private: it stays at the hospital.
        Raises: ClippingError if a layer was used twice or not at all, or its rows are not the patients'; BatchError
            if the losses do not fit. The sum stays as it was.

        Not for several threads at once on one module: its parameters are set aside during the call.
        """
        counts = (1,) * patients if rows_per_patient is None else tuple(int(count) for count in rows_per_patient)
        if len(counts) != patients or any(count < 1 for count in counts):
            raise BatchError(f"rows_per_patient: expected {patients} counts of at least 1, got {counts}")
        if not patients:
            return 0
        record = _Record(Grouping(counts))
        with ExitStack() as stack:
            for layer in self._trained:
                for key in layer.names:
                    parameter = getattr(layer.module, key)
                    # Autograd then computes no weight gradient; what it would be, the record knows.
                    parameter.requires_grad_(False)
                    stack.callback(parameter.requires_grad_, True)
                handle = layer.module.register_forward_hook(record.watch(layer), with_kwargs=True)
                stack.callback(handle.remove)
            with torch.enable_grad():
                loss = losses()
            if loss.shape != (patients,):
                raise BatchError(f"losses: expected shape {(patients,)}, got {tuple(loss.shape)}")
            for layer in self._trained:
                if layer.path not in record.seen:
                    raise ClippingError(f"layer {layer.path}: trained, but the forward pass does not call it")
            if loss.requires_grad:
                loss.sum().backward()  # type: ignore[no-untyped-call]
        with torch.no_grad():
            return self._clip_and_add(record.parts, loss.detach())

    def _clip_and_add(self, parts: list[Part], loss: Tensor) -> int:
        squares = torch.zeros(len(loss), dtype=torch.float64)
        for part in parts:
            squares += part.squared_norms()
        norms = squares.sqrt()
        usable = torch.isfinite(norms) & torch.isfinite(loss)
        factors = (self._clip / (norms + NORM_FLOOR)).clamp(max=1.0)
        factors[~usable] = 0.0
        for part in parts:
            part.add_clipped(self._totals[part.name], factors)
        return int((~usable).sum())

    def total(self) -> dict[str, NDArray[np.float64]]:
        """The sum so far by parameter name, in the module's order; zeros before the first batch."""
        return {name: np.array(total.numpy()) for name, total in self._totals.items()}

    def close(self) -> None:
        """Nothing to undo: the module is left as it was after every `add`."""


class _Record:
    """What one forward and one backward pass leave behind."""

    def __init__(self, grouping: Grouping) -> None:
        self._grouping = grouping
        self.seen: set[str] = set()
        self.parts: list[Part] = []

    def watch(self, layer: TrainedLayer) -> Callable[..., Tensor]:
        """A forward hook that waits for the gradient of the layer's output."""

        def hook(module: nn.Module, inputs: tuple[Any, ...], options: dict[str, Any], output: Tensor) -> Tensor:
            if layer.path in self.seen:
                raise ClippingError(
                    f"layer {layer.path}: used twice in one forward pass; norms of shared weights are not supported"
                )
            self.seen.add(layer.path)
            activation: Tensor = (inputs[0] if inputs else options["input"]).detach()
            grouping = self._grouping.of(activation.shape[0], layer=layer.path)
            written = activation._version

            def collect(gradient: Tensor) -> None:
                if activation._version != written:
                    raise ClippingError(f"layer {layer.path}: its input was overwritten after it was read")
                with torch.no_grad():
                    self.parts += PARTS[type(module)](module, layer.names, activation, gradient.detach(), grouping)

            if not output.requires_grad:
                output.requires_grad_(True)  # nothing below is trained: the backward pass ends here
            output.register_hook(collect)  # type: ignore[no-untyped-call]
            return output

        return hook


def trained_layers(module: nn.Module) -> list[TrainedLayer]:
    """The layers that hold trained parameters.

    Raises: ClippingError naming the first parameter that could not be clipped.
    """
    layers: list[TrainedLayer] = []
    owners: dict[int, str] = {}
    dtypes: dict[torch.dtype, str] = {}
    for path, child in module.named_modules(remove_duplicate=False):
        if isinstance(child, _BatchNorm) and (child.training or not child.track_running_stats):
            raise ClippingError(f"layer {path}: batch normalisation mixes patients; there is no gradient per patient")
        names: dict[str, str] = {}
        for key, parameter in child.named_parameters(recurse=False, remove_duplicate=False):
            if not parameter.requires_grad:
                continue
            name = f"{path}.{key}" if path else key
            if type(child) not in PARTS:
                known = ", ".join(sorted(kind.__name__ for kind in PARTS))
                raise ClippingError(
                    f"parameter {name}: a {type(child).__name__} cannot be clipped per patient (known: {known}); "
                    "freeze it with requires_grad_(False)"
                )
            if isinstance(child, nn.Embedding) and (
                child.max_norm is not None or child.scale_grad_by_freq or child.sparse
            ):
                raise ClippingError(
                    f"parameter {name}: max_norm, scale_grad_by_freq and sparse embeddings are not supported"
                )
            memory = parameter.untyped_storage().data_ptr()
            if parameter.numel() and owners.setdefault(memory, name) != name:
                raise ClippingError(f"parameter {name}: tied to {owners[memory]}; tied weights are not supported")
            dtypes.setdefault(parameter.dtype, name)
            names[key] = name
        if names:
            layers.append(TrainedLayer(path or type(child).__name__, child, names))
    if not layers:
        raise ClippingError("module: nothing to train; no parameter has requires_grad")
    if len(dtypes) > 1 or not dtypes.keys() <= {torch.float32, torch.float64}:
        raise ClippingError(f"parameters: expected all float32 or all float64, got {dtypes}")
    return layers
