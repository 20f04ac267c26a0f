"""The combined encoder: parts side by side, rows of norm at most 1, strict configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from jobs.icd_coding.combined import CombinedEncoder, Part
from jobs.icd_coding.encoder import HashedNgrams, encoder_from_config
from jobs.icd_coding.errors import EncoderError
from jobs.icd_coding.transformer import TransformerEncoder, encoder_config_from_folder
from tests.jobs.icd_coding.tiny_transformer import FEATURES, write_tiny_transformer

SHORT, LONG = HashedNgrams(features=64, n_min=1, n_max=2), HashedNgrams(features=32, n_min=3, n_max=4)
CONFIG = {
    "kind": "combined",
    "parts": [{"share": 0.75, "encoder": SHORT.config()}, {"share": 0.25, "encoder": LONG.config()}],
}


def test_columns_are_the_parts_weighted() -> None:
    encoder = encoder_from_config(CONFIG)
    assert encoder == CombinedEncoder((Part(0.75, SHORT), Part(0.25, LONG)))
    assert encoder.config() == CONFIG
    assert (encoder.name, encoder.features) == ("combined", 96)
    assert encoder.kinds == {"combined", "hashed-ngrams"}
    assert encoder.model_digests == frozenset()
    texts = ["pijn op de borst", "koorts"]
    rows = encoder.opened().encode(texts)
    assert sparse.issparse(rows) and rows.dtype == np.float32
    np.testing.assert_allclose(rows[:, :64].toarray(), SHORT.encode(texts).toarray() * 0.75**0.5, rtol=1e-6)
    np.testing.assert_allclose(rows[:, 64:].toarray(), LONG.encode(texts).toarray() * 0.5, rtol=1e-6)


@settings(derandomize=True, max_examples=40)
@given(st.lists(st.text(max_size=40), max_size=4), st.floats(0.001, 0.999))
def test_any_text_gives_rows_of_norm_at_most_one(texts: list[str], share: float) -> None:
    rows = sparse.csr_matrix(CombinedEncoder((Part(share, SHORT), Part(1 - share, LONG))).opened().encode(texts))
    assert rows.shape == (len(texts), 96)
    assert (np.linalg.norm(np.asarray(rows.todense(), dtype=np.float64), axis=1) <= 1 + 1e-6).all()


def test_ngrams_beside_a_transformer(tmp_path: Path) -> None:
    folder = write_tiny_transformer(tmp_path / "model")
    config = encoder_config_from_folder(folder, name="tiny", max_tokens=16)
    folder.rename(tmp_path / config["digest"].removeprefix("sha256:"))
    parts = [{"share": 0.6, "encoder": SHORT.config()}, {"share": 0.4, "encoder": config}]
    encoder = encoder_from_config({"kind": "combined", "parts": parts})
    assert encoder.features == 64 + FEATURES
    assert encoder.kinds == {"combined", "hashed-ngrams", "transformer"}
    assert encoder.model_digests == {config["digest"]}
    told: list[tuple[int, int]] = []
    opened = encoder.opened(models=tmp_path, cache=tmp_path / "cache", progress=lambda *done: told.append(done))
    rows = opened.encode(["a b c", "", "d"])
    assert sparse.issparse(rows) and opened.features == rows.shape[1] == encoder.features
    np.testing.assert_allclose(np.linalg.norm(np.asarray(rows.todense()), axis=1), [1, 0, 1], atol=1e-6)
    assert told == [(3, 3)]
    plain = TransformerEncoder(**{key: value for key, value in config.items() if key != "kind"})
    twice = CombinedEncoder((Part(0.5, plain), Part(0.5, plain))).opened(models=tmp_path).encode(["a b c"])
    assert isinstance(twice, np.ndarray) and twice.dtype == np.float32  # nothing sparse: dense
    np.testing.assert_allclose(np.linalg.norm(twice, axis=1), 1, atol=1e-6)


def part(share: object, encoder: object) -> dict[str, object]:
    return {"share": share, "encoder": encoder}


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (None, "parts must be a list"),
        ("ab", "parts must be a list"),
        ([], "2 to 8 parts, got 0"),
        ([part(1, SHORT.config())], "between 0 and 1, got 1"),
        ([part(0.5, SHORT.config())], "2 to 8 parts, got 1"),
        ([part(0.5, SHORT.config()), part(0.4, LONG.config())], "must sum to 1, got 0.9"),
        ([part("0.5", SHORT.config()), part(0.5, LONG.config())], "share must be a number"),
        ([part(True, SHORT.config()), part(0.5, LONG.config())], "share must be a number"),
        ([part(float("nan"), SHORT.config()), part(0.5, LONG.config())], "share must be a number"),
        ([part(0.5, SHORT.config()), part(0.5, CONFIG)], "part 2: a combined encoder cannot be part"),
        ([part(0.5, SHORT.config()), {"share": 0.5}], "part 2: expected an object with share and encoder"),
        ([part(0.5, SHORT.config()), part(0.5, {"kind": "word2vec"})], "unknown kind 'word2vec'"),
        ([part(0.1, SHORT.config())] * 10, "2 to 8 parts, got 10"),
    ],
)
def test_bad_parts_are_refused(parts: Any, message: str) -> None:
    with pytest.raises(EncoderError, match=message):
        encoder_from_config({"kind": "combined", "parts": parts})


def test_unknown_fields_are_refused() -> None:
    with pytest.raises(EncoderError, match="unknown fields \\['weights'\\]"):
        encoder_from_config(CONFIG | {"weights": []})
