"""The linear model: its file, its flat vector, its scores."""

import hashlib
import json
import struct

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import sparse

from jobs.icd_coding.encoder import HashedNgrams
from jobs.icd_coding.errors import BatchError, ModelFormatError
from jobs.icd_coding.model import LinearModel, Parameters, centred_rows, scores, softmax, tensor_bytes, version_id

SHAPE = LinearModel(features=8, labels=3)


def some_parameters(seed: int = 0) -> Parameters:
    rng = np.random.default_rng(seed)
    return SHAPE.from_vector(rng.normal(size=SHAPE.vector_length), feature_mean=rng.normal(size=SHAPE.features) * 0.1)


def tensors(**changes: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
    parameters = some_parameters()
    named = {"weight": parameters.weight, "bias": parameters.bias, "feature_mean": parameters.feature_mean}
    return {**named, **changes}


def test_vector_order_is_weight_rows_then_bias() -> None:
    vector = np.arange(SHAPE.vector_length, dtype=np.float64)
    parameters = SHAPE.from_vector(vector)
    assert parameters.weight[1].tolist() == list(range(8, 16))
    assert parameters.bias.tolist() == [24, 25, 26]
    assert not parameters.feature_mean.any()
    assert (parameters.to_vector() == vector).all()


def test_initial_parameters_are_zero_and_have_a_known_version() -> None:
    data = SHAPE.initial().to_bytes()
    assert SHAPE.initial().to_vector().tolist() == [0.0] * 27
    assert version_id(data) == "sha256:" + hashlib.sha256(data).hexdigest()
    assert data == SHAPE.initial().to_bytes()


def test_file_round_trip() -> None:
    parameters = some_parameters()
    loaded = SHAPE.load(parameters.to_bytes())
    assert (loaded.to_vector() == parameters.to_vector()).all()
    assert (loaded.feature_mean == parameters.feature_mean).all()


def test_negative_zero_gives_the_same_version() -> None:
    vector = np.zeros(SHAPE.vector_length)
    assert SHAPE.from_vector(-vector).to_bytes() == SHAPE.from_vector(vector).to_bytes()


def test_file_is_independent_of_memory_layout() -> None:
    parameters = some_parameters()
    transposed = Parameters(
        weight=np.asfortranarray(parameters.weight),
        bias=parameters.bias[::-1][::-1],
        feature_mean=parameters.feature_mean,
    )
    assert transposed.to_bytes() == parameters.to_bytes()


def with_metadata(data: bytes) -> bytes:
    (length,) = struct.unpack("<Q", data[:8])
    header = {"__metadata__": {"note": "hello"}, **json.loads(data[8 : 8 + length])}
    encoded = json.dumps(header, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % 8)
    return struct.pack("<Q", len(encoded)) + encoded + data[8 + length :]


def with_nan(data: bytes) -> bytes:
    return data[:-4] + struct.pack("<f", float("nan"))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not a readable safetensors file"),
        (b"\xff" * 64, "not a readable safetensors file"),
        (some_parameters().to_bytes()[:-1], "not a readable safetensors file"),
        (some_parameters().to_bytes() + b"\0", "not a readable safetensors file"),
        (with_metadata(some_parameters().to_bytes()), "canonical"),
        (with_nan(some_parameters().to_bytes()), "NaN or infinite"),
        (tensor_bytes({"weight": tensors()["weight"]}), "expected tensors"),
        (tensor_bytes(tensors(extra=np.zeros(1, np.float32))), "expected tensors"),
        (tensor_bytes(tensors(weight=np.zeros((8, 3), np.float32))), "weight must be float32 of shape"),
        (tensor_bytes(tensors(bias=np.zeros(4, np.float32))), "bias must be float32 of shape"),
        (
            tensor_bytes({name: t.astype(np.float64) for name, t in tensors().items()}),
            "must be float32 of shape .* got float64",
        ),
    ],
)
def test_a_file_that_is_not_this_model_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(ModelFormatError, match=message):
        SHAPE.load(data)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e39])
def test_parameters_must_be_finite_in_float32(bad: float) -> None:
    vector = np.zeros(SHAPE.vector_length)
    vector[5] = bad
    with pytest.raises(ModelFormatError, match="NaN or infinite"):
        SHAPE.from_vector(vector)


def test_vector_of_another_length_is_refused() -> None:
    with pytest.raises(ModelFormatError, match=r"\(27,\), got \(26,\)"):
        SHAPE.from_vector(np.zeros(26))


@pytest.mark.parametrize(("features", "labels"), [(0, 3), (8, 1)])
def test_impossible_shapes_are_refused(features: int, labels: int) -> None:
    with pytest.raises(ModelFormatError, match="features >= 1 and labels >= 2"):
        LinearModel(features=features, labels=labels)


def test_scores_match_the_formula_sparse_dense_and_across_blocks() -> None:
    parameters = some_parameters()
    rows = np.random.default_rng(1).normal(size=(1100, 8)).astype(np.float32)
    centred = rows.astype(np.float64) - parameters.feature_mean
    centred /= np.linalg.norm(centred, axis=1, keepdims=True)
    expected = centred @ parameters.weight.T.astype(np.float64) + parameters.bias
    np.testing.assert_allclose(scores(parameters, rows), expected, atol=1e-12)
    np.testing.assert_allclose(scores(parameters, sparse.csr_matrix(rows)), expected, atol=1e-12)


def test_scores_of_another_width_are_refused() -> None:
    with pytest.raises(BatchError, match="expected 8 columns"):
        scores(some_parameters(), np.zeros((2, 9)))


def test_centring() -> None:
    mean = np.array([0.5, 0.0, 0.0, 0.0], dtype=np.float32)
    rows = np.array([[1.0, 0, 0, 0], [0, 1, 0, 0], [0.5, 0, 0, 0], [0, 0, 0, 0]])
    given = rows.copy()
    centred = centred_rows(rows, mean)
    np.testing.assert_allclose(np.linalg.norm(centred, axis=1), [1, 1, 0, 0], atol=1e-12)
    np.testing.assert_allclose(centred[1], np.array([-0.5, 1, 0, 0]) / 1.25**0.5)
    assert (rows == given).all()
    assert (centred_rows(rows, np.zeros(4, np.float32)) == rows).all()


def test_softmax_is_stable_and_sums_to_one() -> None:
    confidence = softmax(np.array([[1e4, 0.0], [-1e4, -1e4], [0.0, np.log(3)]]))
    np.testing.assert_allclose(confidence, np.array([[1, 0], [0.5, 0.5], [0.25, 0.75]]))


def test_empty_text_scores_are_the_bias() -> None:
    parameters = some_parameters()
    rows = HashedNgrams(features=8, n_min=1, n_max=2).encode([""])
    assert scores(parameters, rows)[0].tolist() == parameters.bias.astype(np.float64).tolist()
