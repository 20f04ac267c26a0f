"""What one layer adds to each patient's gradient: its norm, and its clipped sum.

The gradient of a layer's parameters is fixed by two things that a forward and a backward pass leave behind: the
layer's input ("activation") and the gradient of the loss with respect to its output. For a linear layer and one
patient with T positions, activations a (T, inputs) and output gradients g (T, outputs), it is G = g^T a. Three ways
of holding it:

- `Kept`: G is formed at once and kept, so a and g can go. Forming G costs what the sum over patients costs anyway.
- `Factored`: only a and g are kept. |G|^2 = sum over positions t, s of (a_t . a_s)(g_t . g_s), the "ghost norm"
  (Goodfellow 2015, arXiv:1510.01799; Li et al. 2021, arXiv:2110.05679); with T = 1 it is |a|^2 |g|^2.
- `Lookups`: an embedding's gradient, which touches only the rows that the patient's letter names.

`Kept` or `Factored` is a matter of cost alone (the mixed rule of Bu et al. 2022, arXiv:2210.00038).

Formal guarantees, whatever the numbers, also in float32:

- A norm is never given too small. What is kept is measured with a margin for the rounding of the measurement;
  the factored norm is computed in float64 and widened by its largest possible rounding error, because its terms may
  cancel where those of the gradient do not.
- Sums over patients are float64, and what is summed is what was measured. So the bound on one patient's
  contribution does not depend on how the rest of the batch rounds.

Row numbers, ids, activations and gradients are private data.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from jobs.icd_coding.errors import ClippingError

_RUN = 64  # numbers whose squares are added in the module's own type before float64 takes over
_BLOCK = 8192  # coordinates widened to float64 at a time, so that they stay in the processor's cache
_KEPT_BYTES = 2**28  # the most per-patient gradients of one layer to keep, per physical batch

# What the two ways of a linear layer cost on a CPU core, in nanoseconds; only their ratio matters.
_NS_PER_KEPT_NUMBER = 1.6  # to write it, read it for the norm, read it for the sum
_NS_PER_PRODUCT = 0.017  # in a matrix product, float32
_NS_PER_WIDE_PRODUCT = 0.034  # in a matrix product, float64
_NS_PER_WIDENED_NUMBER = 1.0  # float32 to float64


@dataclass(frozen=True)
class Grouping:
    """Which rows of a batch belong to which patient.

    Attributes:
        rows_per_patient: rows of each patient, in the batch's order; each at least 1.
    """

    rows_per_patient: tuple[int, ...]

    @property
    def patients(self) -> int:
        return len(self.rows_per_patient)

    def of(self, leading: int, *, layer: str) -> Grouping:
        """The grouping of a layer whose tensors have this leading dimension: a row each, or a patient each.

        Raises: ClippingError for any other dimension: then nobody knows whose gradient is whose.
        """
        if leading == sum(self.rows_per_patient):
            return self
        if leading == self.patients:
            return Grouping((1,) * self.patients)
        raise ClippingError(
            f"layer {layer}: expected its input to have a row for each of {sum(self.rows_per_patient)} rows or "
            f"{self.patients} patients, got {leading}; give every row its own (also position ids)"
        )

    @property
    def uniform(self) -> int | None:
        """Rows of every patient, if all have the same number."""
        first = self.rows_per_patient[0] if self.rows_per_patient else 1
        return first if all(count == first for count in self.rows_per_patient) else None

    def spans(self) -> list[tuple[int, int]]:
        """First row and the row after the last, for each patient."""
        bounds = [0]
        for count in self.rows_per_patient:
            bounds.append(bounds[-1] + count)
        return list(pairwise(bounds))

    def patient_of_row(self) -> Tensor:
        """(rows,) the patient each row belongs to."""
        return torch.repeat_interleave(torch.arange(self.patients), torch.tensor(self.rows_per_patient))

    def summed(self, per_row: Tensor) -> Tensor:
        """(patients, ...) sums over each patient's rows of a (rows, ...) tensor."""
        if self.uniform == 1:
            return per_row
        if self.uniform is not None:
            return per_row.reshape(self.patients, self.uniform, *per_row.shape[1:]).sum(1)
        summed = per_row.new_zeros((self.patients, *per_row.shape[1:]))
        return summed.index_add_(0, self.patient_of_row(), per_row)


class Part(Protocol):
    """A parameter's share of every patient's gradient in one physical batch."""

    @property
    def name(self) -> str:
        """The parameter."""
        ...

    def squared_norms(self) -> Tensor:
        """(patients,) float64, at least the square of the Euclidean norm; NaN or inf where numbers are not finite."""
        ...

    def add_clipped(self, total: Tensor, factors: Tensor) -> None:
        """Add sum over patients of factor * gradient to `total`, float64 of the parameter's shape.

        A patient with factor 0 adds nothing, whatever its numbers.
        """
        ...


@dataclass(frozen=True, eq=False)
class Kept:
    """Per-patient gradients of one parameter, (patients, size)."""

    name: str
    gradients: Tensor

    def squared_norms(self) -> Tensor:
        patients, size = self.gradients.shape
        whole = size - size % _RUN
        # Runs of 64 bound the rounding of their norm by 64 units whatever order the library adds in.
        runs = torch.linalg.vector_norm(self.gradients[:, :whole].view(patients, -1, _RUN), dim=-1).double()
        squares = torch.linalg.vecdot(runs, runs)
        if whole < size:
            rest = self.gradients[:, whole:].double()
            squares = squares + torch.linalg.vecdot(rest, rest)
        widened: Tensor = squares * (1.0 + 40 * torch.finfo(self.gradients.dtype).eps)
        return widened

    def add_clipped(self, total: Tensor, factors: Tensor) -> None:
        out = factors == 0
        if out.any():
            self.gradients[out] = 0.0  # 0 * NaN would be NaN
        flat = total.view(-1)
        for start in range(0, flat.numel(), _BLOCK):
            block = slice(start, start + _BLOCK)
            flat[block].addmv_(self.gradients[:, block].double().T, factors)


@dataclass(frozen=True, eq=False)
class Factored:
    """A linear layer's weight, as activations (rows, T, inputs) and output gradients (rows, T, outputs)."""

    name: str
    activations: Tensor
    output_gradients: Tensor
    grouping: Grouping

    def squared_norms(self) -> Tensor:
        if self.grouping.uniform == 1 and self.activations.shape[1] == 1:
            wide_a, wide_g = self.activations[:, 0], self.output_gradients[:, 0]
            if wide_a.dtype == torch.float32:
                wide_a, wide_g = wide_a.double(), wide_g.double()
            # A product of two norms cannot cancel: one unit of rounding per addition is all there is.
            widening = 1.0 + (wide_a.shape[1] + wide_g.shape[1]) * torch.finfo(torch.float64).eps
            norms: Tensor = torch.linalg.vector_norm(wide_a, dim=1) * torch.linalg.vector_norm(wide_g, dim=1)
            return norms.square() * widening
        return torch.stack([self._ghost(first, last) for first, last in self.grouping.spans()])

    def _ghost(self, first: int, last: int) -> Tensor:
        a = self.activations[first:last].flatten(0, 1).double()
        g = self.output_gradients[first:last].flatten(0, 1).double()
        ghost = ((a @ a.T) * (g @ g.T)).sum()
        # The terms may cancel: this is the most that rounding can have taken from their sum.
        largest = (torch.linalg.vector_norm(a, dim=1) * torch.linalg.vector_norm(g, dim=1)).sum()
        additions = a.shape[1] + g.shape[1] + a.shape[0] ** 2
        slack = additions * torch.finfo(torch.float64).eps * largest.square()
        # Not clamp: it would turn NaN into a number on some platforms; a NaN must stay one.
        return torch.where(ghost < 0, slack, ghost + slack)

    def add_clipped(self, total: Tensor, factors: Tensor) -> None:
        rows, positions, inputs = self.activations.shape
        per_row = factors if self.grouping.uniform == 1 else factors[self.grouping.patient_of_row()]
        scaled = self.output_gradients.double() * per_row[:, None, None]
        activations = self.activations
        out = per_row == 0
        if out.any():  # 0 * NaN would be NaN
            scaled[out] = 0.0
            activations = activations.clone()
            activations[out] = 0.0
        total.addmm_(
            scaled.reshape(rows * positions, -1).T, activations.reshape(rows * positions, inputs).to(torch.float64)
        )


@dataclass(frozen=True, eq=False)
class Lookups:
    """An embedding's weight: for each patient, the rows it looked up and the gradients of each.

    Attributes:
        patients: (distinct,) the patient of each row touched.
        ids: (distinct,) the row of the table; a pair of patient and id appears once.
        gradients: (distinct, width) the patient's gradient for that row.
        count: patients in the batch.
    """

    name: str
    patients: Tensor
    ids: Tensor
    gradients: Tensor
    count: int

    def squared_norms(self) -> Tensor:
        wide = self.gradients.double()
        squares = torch.zeros(self.count, dtype=torch.float64)
        return squares.index_add_(0, self.patients, torch.linalg.vecdot(wide, wide))

    def add_clipped(self, total: Tensor, factors: Tensor) -> None:
        per_row = factors[self.patients]
        kept = per_row != 0
        total.index_add_(0, self.ids[kept], self.gradients[kept].double() * per_row[kept, None])


def linear_parts(
    layer: nn.Linear, names: dict[str, str], activation: Tensor, gradient: Tensor, grouping: Grouping
) -> list[Part]:
    """The parts of a linear layer's trained parameters.

    Args:
        names: full names of the trained ones among "weight" and "bias".
        activation: (rows, ..., inputs). gradient: (rows, ..., outputs).
    """
    rows = activation.shape[0]
    a = activation.reshape(rows, -1, layer.in_features)
    g = gradient.reshape(rows, -1, layer.out_features)
    parts: list[Part] = []
    if "weight" in names:
        if keeps_gradients(grouping, a.shape[1], layer.out_features, layer.in_features, a.element_size()):
            parts.append(Kept(names["weight"], _outer_products(a, g, grouping).flatten(1)))
        else:
            parts.append(Factored(names["weight"], a, g, grouping))
    if "bias" in names:
        parts.append(Kept(names["bias"], grouping.summed(g.sum(1))))
    return parts


def keeps_gradients(grouping: Grouping, positions: int, outputs: int, inputs: int, bytes_per_number: int) -> bool:
    """Whether forming a linear layer's per-patient gradients is cheaper than the norm of their factors.

    Args: positions: per row. The answer depends on shapes alone, so it tells nothing about a patient.
    """
    rows = sum(grouping.rows_per_patient)
    per_patient = positions * rows / max(grouping.patients, 1)
    held = grouping.patients if grouping.uniform is not None else rows
    size = outputs * inputs
    if per_patient <= 1 or held * size * bytes_per_number > _KEPT_BYTES:
        return False
    kept = size * (_NS_PER_KEPT_NUMBER + _NS_PER_PRODUCT * per_patient)
    factored = _NS_PER_WIDE_PRODUCT * per_patient * (size + per_patient * (outputs + inputs))
    factored += _NS_PER_WIDENED_NUMBER * per_patient * (outputs + inputs)
    return kept <= factored


def _outer_products(a: Tensor, g: Tensor, grouping: Grouping) -> Tensor:
    """(patients, outputs, inputs): g^T a of each patient's positions."""
    uniform = grouping.uniform
    if uniform is None:
        return grouping.summed(torch.bmm(g.transpose(1, 2), a))
    a = a.reshape(grouping.patients, -1, a.shape[2])
    g = g.reshape(grouping.patients, -1, g.shape[2])
    return torch.bmm(g.transpose(1, 2), a)


def layer_norm_parts(
    layer: nn.LayerNorm, names: dict[str, str], activation: Tensor, gradient: Tensor, grouping: Grouping
) -> list[Part]:
    """The parts of a layer norm's scale ("weight") and shift ("bias"). activation and gradient: (rows, ..., *shape)."""
    shape = layer.normalized_shape
    rows = activation.shape[0]
    g = gradient.reshape(rows, -1, *shape)
    parts: list[Part] = []
    if "weight" in names:
        normalised = nn.functional.layer_norm(activation, list(shape), eps=layer.eps).reshape(g.shape)
        parts.append(Kept(names["weight"], grouping.summed((g * normalised).sum(1)).flatten(1)))
    if "bias" in names:
        parts.append(Kept(names["bias"], grouping.summed(g.sum(1)).flatten(1)))
    return parts


def embedding_parts(
    layer: nn.Embedding, names: dict[str, str], activation: Tensor, gradient: Tensor, grouping: Grouping
) -> list[Part]:
    """The part of an embedding's table. activation: (rows, ...) ids. gradient: (rows, ..., width)."""
    if "weight" not in names:
        return []
    rows = activation.shape[0]
    ids = activation.reshape(rows, -1).long()
    owner = grouping.patient_of_row()[:, None].expand_as(ids)
    keys = (owner * layer.num_embeddings + ids).reshape(-1)
    g = gradient.reshape(-1, layer.embedding_dim)
    if layer.padding_idx is not None:  # torch gives the padding's row no gradient either
        real = ids.reshape(-1) != layer.padding_idx
        keys, g = keys[real], g[real]
    distinct, place = torch.unique(keys, return_inverse=True)
    gradients = g.new_zeros((len(distinct), layer.embedding_dim)).index_add_(0, place, g)
    return [
        Lookups(
            names["weight"],
            distinct // layer.num_embeddings,
            distinct % layer.num_embeddings,
            gradients,
            grouping.patients,
        )
    ]


PartsOf = Callable[[Any, dict[str, str], Tensor, Tensor, Grouping], list[Part]]

PARTS: dict[type[nn.Module], PartsOf] = {
    nn.Linear: linear_parts,
    nn.LayerNorm: layer_norm_parts,
    nn.Embedding: embedding_parts,
}
"""The layers whose gradients can be clipped. Exact types: a subclass may compute something else."""
