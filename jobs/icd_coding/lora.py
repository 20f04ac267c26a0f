"""The fine-tuned coding model: a frozen public encoder, low-rank adapters in some of its layers, and a linear head.

An adapter changes a layer's output W x into W x + (alpha / rank) B A x (Hu et al. 2021, arXiv:2106.09685); only A, B
and the head are trained, so what a round adds up stays small. A letter's vector is the mean of its token vectors, as
`transformer` has it, scaled to norm 1; the scores are head_scale (V x + bias_scale b).

This module knows shapes and numbers, not the encoder: the coordinator has no encoder. `lora_learner` puts them
together at a hospital.

Invariants:

- Shapes follow from the plan alone, so the vector's length is known before any model is loaded. A hospital whose
  encoder has other layers refuses.
- The start is the same everywhere: A from the plan's seed (see `initial`), B and the head zero. So version 0 scores
  every code alike, and with B at zero the encoder is the frozen one.
- The model file is a safetensors file of float32 tensors, `<layer>.lora_A` (rank, inputs), `<layer>.lora_B` (outputs,
  rank), `head.weight` (labels, features) and `head.bias` (labels,), and nothing else; equal numbers, equal bytes.
- The flat vector holds them in this order: the layers by name, A before B, each row by row; then the head.

Two settings are step sizes in disguise: scores move with the square of head_scale and of alpha / rank for one step of
the optimiser. They let the head and the adapters, whose gradients differ in size, share one learning rate and one clip.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jobs.icd_coding.encoder import encoder_from_config
from jobs.icd_coding.errors import ModelFormatError
from jobs.icd_coding.model import load_tensors, tensor_bytes
from jobs.icd_coding.transformer import TransformerEncoder

MAX_RANK = 256
MAX_WIDTH = 2**17  # inputs or outputs of one layer
MAX_TARGETS = 1024  # adapted layers
MAX_SCALE = 1e6
MAX_SEED = 2**53 - 1  # the largest whole number that JSON holds exactly everywhere

_PATH = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z0-9_]+)*")
_SETTINGS = ("rank", "alpha", "targets", "head_scale", "bias_scale", "label_smoothing", "seed")


@dataclass(frozen=True)
class Target:
    """A linear layer of the encoder that gets an adapter."""

    path: str  # its name in the encoder, such as encoder.layer.0.attention.self.query
    outputs: int
    inputs: int


@dataclass(frozen=True)
class LoraModel:
    """The model's public shape and constants.

    Attributes:
        encoder: the frozen encoder the plan names.
        labels: number of codes in the plan's label space.
        rank, alpha: of every adapter.
        targets: adapted layers, sorted by path.
        head_scale: what the head's scores are multiplied with, > 0.
        bias_scale: the constant feature that trains the bias, >= 0; 0 leaves it untrained.
        label_smoothing: share of the target spread over all codes, [0, 1).
        seed: of A's start.
    """

    encoder: TransformerEncoder
    labels: int
    rank: int
    alpha: float
    targets: tuple[Target, ...]
    head_scale: float
    bias_scale: float
    label_smoothing: float
    seed: int

    def __post_init__(self) -> None:
        for holds, rule in (
            (self.labels >= 2, "labels >= 2"),
            (1 <= self.rank <= MAX_RANK, f"1 <= rank <= {MAX_RANK}"),
            (0 < self.alpha <= MAX_SCALE, "alpha > 0"),
            (1 <= len(self.targets) <= MAX_TARGETS, f"1 to {MAX_TARGETS} targets"),
            (0 < self.head_scale <= MAX_SCALE, "head_scale > 0"),
            (0 <= self.bias_scale <= MAX_SCALE, "bias_scale >= 0"),
            (0 <= self.label_smoothing < 1, "0 <= label_smoothing < 1"),
            (0 <= self.seed <= MAX_SEED, f"0 <= seed <= {MAX_SEED}"),
        ):
            if not holds:
                raise ModelFormatError(f"lora: expected {rule}")
        for target in self.targets:
            if not _PATH.fullmatch(target.path):
                raise ModelFormatError(f"lora: targets: expected the name of a layer, got {target.path!r}")
            if not (1 <= target.outputs <= MAX_WIDTH and 1 <= target.inputs <= MAX_WIDTH):
                raise ModelFormatError(
                    f"lora: targets: {target.path}: expected widths in 1..{MAX_WIDTH}, "
                    f"got [{target.outputs}, {target.inputs}]"
                )
            if self.rank > min(target.outputs, target.inputs):
                raise ModelFormatError(
                    f"lora: targets: {target.path}: rank {self.rank} is more than [{target.outputs}, {target.inputs}] "
                    "has; choose a lower rank"
                )
        paths = [target.path for target in self.targets]
        if paths != sorted(set(paths)):
            raise ModelFormatError("lora: targets: expected distinct layers, sorted by name")

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Tensor names and shapes, in the order of the flat vector."""
        shapes: dict[str, tuple[int, ...]] = {}
        for target in self.targets:
            shapes[f"{target.path}.lora_A"] = (self.rank, target.inputs)
            shapes[f"{target.path}.lora_B"] = (target.outputs, self.rank)
        shapes["head.weight"] = (self.labels, self.encoder.features)
        shapes["head.bias"] = (self.labels,)
        return shapes

    @property
    def vector_length(self) -> int:
        """Length of the flat vector that a round adds up."""
        return sum(math.prod(shape) for shape in self.shapes.values())

    def initial(self) -> LoraParameters:
        """The start: A uniform in [-1, 1) / sqrt(inputs) from the seed, everything else zero.

        The numbers of a tensor are SHAKE-256 of "zegel lora v1", the seed and the tensor's name, each ended by a
        line feed, read as little-endian 32-bit words: (word >> 8) / 2^23 - 1, exact in float32, then divided.
        """
        tensors = {}
        for name, shape in self.shapes.items():
            tensors[name] = np.zeros(shape, dtype=np.float32)
            if name.endswith(".lora_A"):
                stream = hashlib.shake_256(f"zegel lora v1\n{self.seed}\n{name}\n".encode())
                words = np.frombuffer(stream.digest(4 * math.prod(shape)), dtype="<u4").reshape(shape)
                uniform = (words >> 8).astype(np.float64) / 2**23 - 1.0
                tensors[name] = (uniform / math.sqrt(shape[1])).astype(np.float32)
        return LoraParameters(tensors)

    def load(self, data: bytes) -> LoraParameters:
        """Read a model file that must have this shape.

        Raises: ModelFormatError naming the first difference, or if the file is not in canonical form.
        """
        tensors = load_tensors(data, np.float32, self.shapes, what="model")
        return LoraParameters({name: tensors[name] for name in self.shapes})

    def from_vector(self, vector: NDArray[np.float64]) -> LoraParameters:
        """The parameters whose flat vector, rounded to float32, is this one.

        Raises: ModelFormatError on a wrong length or numbers that are not finite in float32.
        """
        if vector.shape != (self.vector_length,):
            raise ModelFormatError(f"model: expected a vector of shape {(self.vector_length,)}, got {vector.shape}")
        with np.errstate(over="ignore"):  # overflow becomes inf, which LoraParameters refuses
            narrow = vector.astype(np.float32)
        tensors, start = {}, 0
        for name, shape in self.shapes.items():
            size = math.prod(shape)
            tensors[name] = narrow[start : start + size].reshape(shape)
            start += size
        return LoraParameters(tensors)


@dataclass(frozen=True, eq=False)
class LoraParameters:
    """A model's numbers: float32 tensors by name, in the order of `LoraModel.shapes`."""

    tensors: Mapping[str, NDArray[np.float32]]

    def __post_init__(self) -> None:
        for name, tensor in self.tensors.items():
            if tensor.dtype != np.float32:
                raise ModelFormatError(f"model: {name} must be float32, got {tensor.dtype}")
            if not np.isfinite(tensor).all():
                raise ModelFormatError(f"model: {name} holds NaN or infinite numbers; refuse this version")

    def to_bytes(self) -> bytes:
        """The model file. Equal numbers give equal bytes."""
        return tensor_bytes(dict(self.tensors))

    def to_vector(self) -> NDArray[np.float64]:
        """All tensors, one after the other, as float64."""
        return np.concatenate([tensor.ravel() for tensor in self.tensors.values()]).astype(np.float64)


def lora_model(config: Mapping[str, Any], encoder: Mapping[str, Any], *, labels: int) -> LoraModel:
    """The model that a plan describes.

    Args:
        config: the plan's `model`: {"kind": "lora", "rank", "alpha", "targets": {layer: [outputs, inputs]},
            "head_scale", "bias_scale", "label_smoothing", "seed"}. `lora_learner.lora_targets` lists a model's layers.
        encoder: the plan's `encoder`, of kind "transformer".
        labels: number of codes in the plan's label space.
    Raises: ModelFormatError naming a missing, unknown, mistyped or impossible setting; EncoderError for the encoder's.
    """
    given = dict(config)
    if given.pop("kind", None) != "lora":
        raise ModelFormatError(f"lora: expected a model of kind 'lora', got {config.get('kind')!r}")
    if unknown := sorted(given.keys() - set(_SETTINGS), key=str):
        raise ModelFormatError(f"lora: unknown settings {unknown}; known are {sorted(_SETTINGS)}")
    if missing := sorted(set(_SETTINGS) - given.keys()):
        raise ModelFormatError(f"lora: missing settings {missing}")
    for name in ("rank", "seed"):
        if type(given[name]) is not int:
            raise ModelFormatError(f"lora: {name}: expected a whole number, got {given[name]!r}")
    for name in ("alpha", "head_scale", "bias_scale", "label_smoothing"):
        if isinstance(given[name], bool) or not isinstance(given[name], (int, float)):
            raise ModelFormatError(f"lora: {name}: expected a number, got {given[name]!r}")
    opened = encoder_from_config(encoder)
    if not isinstance(opened, TransformerEncoder):
        raise ModelFormatError(f"lora: expected an encoder of kind 'transformer', got {opened.name!r}")
    return LoraModel(
        encoder=opened,
        labels=labels,
        rank=given["rank"],
        alpha=float(given["alpha"]),
        targets=_targets(given["targets"]),
        head_scale=float(given["head_scale"]),
        bias_scale=float(given["bias_scale"]),
        label_smoothing=float(given["label_smoothing"]),
        seed=given["seed"],
    )


def _targets(given: Any) -> tuple[Target, ...]:
    if not isinstance(given, Mapping):
        raise ModelFormatError(f"lora: targets: expected an object of layers, got {type(given).__name__}")
    targets = []
    for path, widths in sorted(given.items(), key=lambda item: str(item[0])):
        if not isinstance(path, str):
            raise ModelFormatError(f"lora: targets: expected names of layers, got {path!r}")
        if not isinstance(widths, (list, tuple)) or len(widths) != 2 or any(type(width) is not int for width in widths):
            raise ModelFormatError(f"lora: targets: {path}: expected [outputs, inputs], got {widths!r}")
        targets.append(Target(path, outputs=widths[0], inputs=widths[1]))
    return tuple(targets)
