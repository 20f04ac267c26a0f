"""The linear coding model: one row of weights and one bias per ICD-10 code of the plan's label space.

A text vector x (norm 1) is first centred, x' = (x - m) / |x - m|, where m is the mean feature vector that
the federation released under differential privacy (zeros when the plan releases none); the scores are
W x' + b and a code's confidence is the softmax of the scores.

Invariants:

- The model file is a safetensors file with exactly three little-endian float32 tensors, `weight`
  (labels, features), `bias` (labels,) and `feature_mean` (features,), and nothing else. The same numbers
  always give the same bytes, so a version's id is the digest of its file.
- What is loaded is finite and has the shape the plan says, or loading raises.
- The flat vector that rounds add up is float64, `weight` row by row and then `bias`.

    >>> shape = LinearModel(features=4096, labels=105)
    >>> version_id(shape.initial().to_bytes())[:7]
    'sha256:'
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as safetensors_load
from safetensors.numpy import save as safetensors_save
from scipy import sparse

from jobs.icd_coding.errors import BatchError, ModelFormatError

Number = TypeVar("Number", np.float32, np.float64)

FeatureRows = sparse.csr_matrix | NDArray[np.floating]
"""An (n, features) matrix of text vectors, sparse as an encoder makes it or dense."""

_SCORING_ROWS = 512  # rows made dense at a time while scoring


@dataclass(frozen=True)
class LinearModel:
    """The model's public shape.

    Attributes:
        features: length of a text vector.
        labels: number of codes in the plan's label space; label i is the i-th code of the plan.
    """

    features: int
    labels: int

    def __post_init__(self) -> None:
        if self.features < 1 or self.labels < 2:
            raise ModelFormatError(
                f"model: expected features >= 1 and labels >= 2, got {self.features} and {self.labels}"
            )

    @property
    def vector_length(self) -> int:
        """Length of the flat vector a round adds up: labels * features + labels."""
        return self.labels * self.features + self.labels

    def initial(self) -> Parameters:
        """All zeros: every code equally likely, no centring. The same for every run of that shape."""
        return Parameters(
            weight=np.zeros((self.labels, self.features), dtype=np.float32),
            bias=np.zeros(self.labels, dtype=np.float32),
            feature_mean=np.zeros(self.features, dtype=np.float32),
        )

    def load(self, data: bytes) -> Parameters:
        """Read a model file that must have this shape.

        Raises: ModelFormatError if the bytes are not a safetensors file, or a tensor is missing, unexpected, of
            another type or shape, or not finite, or the file is not what `Parameters.to_bytes` writes for them.
        """
        tensors = load_tensors(
            data,
            np.float32,
            {
                "weight": (self.labels, self.features),
                "bias": (self.labels,),
                "feature_mean": (self.features,),
            },
            what="model",
        )
        return Parameters(**tensors)

    def from_vector(
        self, vector: NDArray[np.float64], *, feature_mean: NDArray[np.floating] | None = None
    ) -> Parameters:
        """The parameters whose flat vector, rounded to float32, is this one.

        Args:
            vector: length `vector_length`.
            feature_mean: length `features`; zeros if None.
        Raises: ModelFormatError on a wrong length or numbers that are not finite in float32.
        """
        if vector.shape != (self.vector_length,):
            raise ModelFormatError(f"model: expected a vector of shape {(self.vector_length,)}, got {vector.shape}")
        mean = np.zeros(self.features) if feature_mean is None else feature_mean
        with np.errstate(over="ignore"):  # overflow becomes inf, which Parameters refuses
            narrow = vector.astype(np.float32)
            narrow_mean = np.asarray(mean).astype(np.float32)
        split = self.labels * self.features
        return Parameters(
            weight=narrow[:split].reshape(self.labels, self.features),
            bias=narrow[split:],
            feature_mean=narrow_mean,
        )


@dataclass(frozen=True, eq=False)
class Parameters:
    """A model's numbers: weight (labels, features), bias (labels,), feature_mean (features,), all float32."""

    weight: NDArray[np.float32]
    bias: NDArray[np.float32]
    feature_mean: NDArray[np.float32]

    def __post_init__(self) -> None:
        for name in ("weight", "bias", "feature_mean"):
            array = getattr(self, name)
            if array.dtype != np.float32:
                raise ModelFormatError(f"model: {name} must be float32, got {array.dtype}")
            if not np.isfinite(array).all():
                raise ModelFormatError(f"model: {name} holds NaN or infinite numbers; refuse this version")
        if self.weight.ndim != 2:
            raise ModelFormatError(f"model: weight must have 2 dimensions, got {self.weight.ndim}")
        labels, features = self.weight.shape
        LinearModel(features=features, labels=labels)
        for name, expected in (("bias", (labels,)), ("feature_mean", (features,))):
            if getattr(self, name).shape != expected:
                raise ModelFormatError(f"model: {name} must have shape {expected}, got {getattr(self, name).shape}")

    @property
    def shape(self) -> LinearModel:
        return LinearModel(features=self.weight.shape[1], labels=self.weight.shape[0])

    def to_bytes(self) -> bytes:
        """The model file. Equal numbers give equal bytes (-0.0 is written as 0.0)."""
        return tensor_bytes({"weight": self.weight, "bias": self.bias, "feature_mean": self.feature_mean})

    def to_vector(self) -> NDArray[np.float64]:
        """Weight row by row, then bias, as float64 of length labels * features + labels."""
        return np.concatenate([self.weight.ravel(), self.bias]).astype(np.float64)


def tensor_bytes(tensors: dict[str, NDArray[Number]]) -> bytes:
    """A safetensors file; -0.0 is written as 0.0, so equal numbers give equal bytes."""
    return bytes(safetensors_save({name: np.ascontiguousarray(t + t.dtype.type(0)) for name, t in tensors.items()}))


def load_tensors(
    data: bytes, dtype: type[Number], shapes: dict[str, tuple[int, ...]], *, what: str
) -> dict[str, NDArray[Number]]:
    """Read a safetensors file whose names and shapes must be exactly `shapes`, all of one type and finite.

    Args: what: the thing read, for messages.
    Raises: ModelFormatError naming the first difference, also if the file is not what `tensor_bytes` writes
        for these numbers (extra metadata would give the same numbers two digests).
    """
    try:
        tensors = safetensors_load(data)
    except (SafetensorError, KeyError, ValueError, TypeError, OverflowError) as error:
        raise ModelFormatError(f"{what}: not a readable safetensors file: {error}") from error
    if tensors.keys() != shapes.keys():
        raise ModelFormatError(f"{what}: expected tensors {sorted(shapes)}, got {sorted(tensors)}")
    for name, shape in shapes.items():
        tensor = tensors[name]
        if tensor.dtype != dtype or tensor.shape != shape:
            raise ModelFormatError(
                f"{what}: {name} must be {np.dtype(dtype)} of shape {shape}, got {tensor.dtype} of shape {tensor.shape}"
            )
        if not np.isfinite(tensor).all():
            raise ModelFormatError(f"{what}: {name} holds NaN or infinite numbers")
    if tensor_bytes(tensors) != data:
        raise ModelFormatError(f"{what}: the file is not in canonical form (metadata, order or zeros differ)")
    return dict(tensors)


def version_id(data: bytes) -> str:
    """The version's name: `sha256:` and the hex digest of the model file."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def centred_rows(rows: FeatureRows, feature_mean: NDArray[np.floating]) -> NDArray[np.float64]:
    """Dense (n, features) float64: the mean subtracted and every row scaled back to norm 1.

    With a mean of zeros the rows are returned as they are. A row of zeros (an empty text) stays zero, so that
    nothing is learnt or predicted from an absent text; so does a row equal to the mean.
    """
    dense = np.array(rows.toarray() if sparse.issparse(rows) else rows, dtype=np.float64)  # a copy, ours
    if not feature_mean.any():
        return dense
    empty = ~dense.any(axis=1)
    dense -= feature_mean
    dense[empty] = 0.0
    norms = np.sqrt(np.einsum("ij,ij->i", dense, dense))
    norms[norms == 0] = 1.0
    dense /= norms[:, None]
    return dense


def scores(parameters: Parameters, rows: FeatureRows) -> NDArray[np.float64]:
    """Scores W x' + b, (n, labels) float64; memory stays bounded however many rows there are.

    Raises: BatchError if the rows' width is not the model's.
    """
    if rows.ndim != 2 or rows.shape[1] != parameters.shape.features:
        raise BatchError(f"features: expected {parameters.shape.features} columns, got shape {rows.shape}")
    weight = parameters.weight.astype(np.float64).T
    result = np.empty((rows.shape[0], parameters.shape.labels))
    for start in range(0, rows.shape[0], _SCORING_ROWS):
        block = slice(start, start + _SCORING_ROWS)
        result[block] = centred_rows(rows[block], parameters.feature_mean) @ weight + parameters.bias
    return result


def softmax(score: NDArray[np.float64]) -> NDArray[np.float64]:
    """Confidences in 0..1 that sum to 1 in each row, without overflow for large scores."""
    shifted = np.exp(score - score.max(axis=1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True), dtype=np.float64)
