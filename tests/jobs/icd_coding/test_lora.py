"""The fine-tuned model's shape, start and file: from the plan alone, the same everywhere, read back strictly."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

from jobs.icd_coding.errors import EncoderError, ModelFormatError
from jobs.icd_coding.lora import LoraModel, LoraParameters, Target, lora_model

ENCODER = {
    "kind": "transformer",
    "model": "small",
    "digest": "sha256:" + 64 * "a",
    "features": 6,
    "max_tokens": 8,
    "chunks": 2,
    "pooling": "mean",
}
CONFIG: dict[str, Any] = {
    "kind": "lora",
    "rank": 2,
    "alpha": 4,
    "targets": {"layer.1.query": [6, 6], "layer.0.up": [12, 6]},
    "head_scale": 8.0,
    "bias_scale": 0.5,
    "label_smoothing": 0.1,
    "seed": 7,
}
MODEL = lora_model(CONFIG, ENCODER, labels=3)
START = "a17e2be0a6ed85075d6595893a42868a6b3f097e87c552661b4b2e0c2c6ed082"  # of the start's file


def test_the_plan_alone_gives_shapes_and_length() -> None:
    assert MODEL.targets == (Target("layer.0.up", 12, 6), Target("layer.1.query", 6, 6))
    assert list(MODEL.shapes.items()) == [
        ("layer.0.up.lora_A", (2, 6)),
        ("layer.0.up.lora_B", (12, 2)),
        ("layer.1.query.lora_A", (2, 6)),
        ("layer.1.query.lora_B", (6, 2)),
        ("head.weight", (3, 6)),
        ("head.bias", (3,)),
    ]
    assert MODEL.vector_length == 12 + 24 + 12 + 12 + 18 + 3 == len(MODEL.initial().to_vector())


def test_the_coordinator_needs_no_torch() -> None:
    program = (
        "import sys, jobs.icd_coding.lora; "
        "sys.exit(str(sorted({'torch', 'transformers', 'peft', 'opacus'} & sys.modules.keys())))"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert found.stderr.strip() == "[]"


def test_the_start_is_fixed_for_ever() -> None:
    """A run of tomorrow's version must start where today's does."""
    start = MODEL.initial()
    assert hashlib.sha256(start.to_bytes()).hexdigest() == START
    first = start.tensors["layer.0.up.lora_A"]
    word = int.from_bytes(hashlib.shake_256(b"zegel lora v1\n7\nlayer.0.up.lora_A\n").digest(4), "little")
    assert first[0, 0] == np.float32(((word >> 8) / 2**23 - 1) / 6**0.5)
    assert np.abs(first).max() <= 6**-0.5 and len(set(first.ravel().tolist())) == first.size
    assert not any(tensor.any() for name, tensor in start.tensors.items() if not name.endswith("lora_A"))
    assert start.to_bytes() == MODEL.initial().to_bytes()


def test_seed_and_layer_decide_the_start() -> None:
    other = lora_model({**CONFIG, "seed": 8}, ENCODER, labels=3).initial()
    start = MODEL.initial()
    assert not np.array_equal(start.tensors["layer.0.up.lora_A"], other.tensors["layer.0.up.lora_A"])
    assert not np.array_equal(start.tensors["layer.0.up.lora_A"], start.tensors["layer.1.query.lora_A"])


def test_vector_and_file_there_and_back() -> None:
    vector = np.random.default_rng(0).normal(size=MODEL.vector_length)
    parameters = MODEL.from_vector(vector)
    np.testing.assert_array_equal(parameters.to_vector(), vector.astype(np.float32).astype(np.float64))
    loaded = MODEL.load(parameters.to_bytes())
    assert list(loaded.tensors) == list(MODEL.shapes)
    np.testing.assert_array_equal(loaded.to_vector(), parameters.to_vector())
    assert loaded.to_bytes() == parameters.to_bytes()
    assert MODEL.from_vector(-0.0 * vector).to_bytes() == MODEL.from_vector(0.0 * vector).to_bytes()


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e39])
def test_numbers_that_are_not_finite_are_refused(bad: float) -> None:
    vector = np.zeros(MODEL.vector_length)
    vector[13] = bad
    with pytest.raises(ModelFormatError, match="lora_B holds NaN or infinite"):
        MODEL.from_vector(vector)


@pytest.mark.parametrize("length", [0, 80, 82])
def test_another_length_is_refused(length: int) -> None:
    with pytest.raises(ModelFormatError, match=r"expected a vector of shape \(81,\)"):
        MODEL.from_vector(np.zeros(length))


def file_with(**changes: np.ndarray[Any, Any] | None) -> bytes:
    tensors = {**MODEL.initial().tensors, **changes}
    return bytes(save({name: tensor for name, tensor in tensors.items() if tensor is not None}))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not a readable safetensors file"),
        (MODEL.initial().to_bytes()[:-1], "not a readable safetensors file"),
        (file_with(**{"head.bias": None}), "expected tensors"),
        (file_with(extra=np.zeros(1, np.float32)), "expected tensors"),
        (file_with(**{"head.bias": np.zeros(4, np.float32)}), "head.bias must be float32 of shape"),
        (file_with(**{"head.bias": np.zeros(3)}), "head.bias must be float32 of shape"),
        (file_with(**{"head.bias": np.full(3, np.nan, np.float32)}), "head.bias holds NaN"),
        (file_with(**{"head.bias": np.full(3, -0.0, np.float32)}), "not in canonical form"),
    ],
)
def test_another_file_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(ModelFormatError, match=message):
        MODEL.load(data)


def test_parameters_are_float32() -> None:
    with pytest.raises(ModelFormatError, match="must be float32"):
        LoraParameters({"head.bias": np.zeros(3)})  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "linear"}, "kind 'lora', got 'linear'"),
        ({"dropout": 0.1}, r"unknown settings \['dropout'\]"),
        ({"rank": None}, r"missing settings \['rank'\]"),
        ({"rank": 0}, "1 <= rank"),
        ({"rank": 7}, "rank 7 is more than"),
        ({"rank": True}, "rank: expected a whole number"),
        ({"rank": 2.0}, "rank: expected a whole number"),
        ({"seed": -1}, "0 <= seed"),
        ({"seed": 2**53}, "0 <= seed"),
        ({"alpha": 0}, "alpha > 0"),
        ({"alpha": float("nan")}, "alpha > 0"),
        ({"alpha": "4"}, "alpha: expected a number"),
        ({"head_scale": float("inf")}, "head_scale > 0"),
        ({"bias_scale": -1}, "bias_scale >= 0"),
        ({"label_smoothing": 1.0}, "label_smoothing < 1"),
        ({"label_smoothing": False}, "label_smoothing: expected a number"),
        ({"targets": {}}, "1 to 1024 targets"),
        ({"targets": ["query"]}, "expected an object of layers"),
        ({"targets": {"a": [6]}}, r"a: expected \[outputs, inputs\]"),
        ({"targets": {"a": [6, True]}}, r"a: expected \[outputs, inputs\]"),
        ({"targets": {"a": [6, 0]}}, "expected widths in 1"),
        ({"targets": {"a": [6, 2**17 + 1]}}, "expected widths in 1"),
        ({"targets": {"a..b": [6, 6]}}, "expected the name of a layer"),
        ({"targets": {"": [6, 6]}}, "expected the name of a layer"),
        ({"targets": {1: [6, 6]}}, "expected names of layers"),
    ],
)
def test_impossible_settings_are_refused(changes: dict[str, Any], message: str) -> None:
    config = {name: value for name, value in {**CONFIG, **changes}.items() if value is not None}
    with pytest.raises(ModelFormatError, match=message):
        lora_model(config, ENCODER, labels=3)


def test_it_needs_a_transformer_and_codes() -> None:
    ngrams = {"kind": "hashed-ngrams", "features": 8, "n_min": 1, "n_max": 2, "word_boundaries": True, "signed": True}
    with pytest.raises(ModelFormatError, match="kind 'transformer', got 'hashed-ngrams'"):
        lora_model(CONFIG, ngrams, labels=3)
    with pytest.raises(EncoderError, match="unknown kind"):
        lora_model(CONFIG, {**ENCODER, "kind": "oracle"}, labels=3)
    with pytest.raises(ModelFormatError, match="labels >= 2"):
        lora_model(CONFIG, ENCODER, labels=1)


def test_targets_come_sorted_and_once() -> None:
    twice = {**vars(MODEL), "targets": MODEL.targets[::-1]}
    with pytest.raises(ModelFormatError, match="sorted by name"):
        LoraModel(**twice)
