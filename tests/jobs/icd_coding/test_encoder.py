"""The hashed n-gram encoder: deterministic, bounded rows, strict configuration."""

import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.icd_coding.encoder import HashedNgrams, TextEncoder, encoder_from_config
from jobs.icd_coding.errors import EncoderError

LETTERS = [
    "Patiënt kwam met pijn op de borst.\n\nGeen aanwijzingen voor infarct. Vg: appendectomie.",
    "Жалобы на боль во всех суставах, более в крупных.",
    "pijn",
    "",
    "   ",
]


def test_rows_have_norm_one_and_empty_texts_are_zero() -> None:
    rows = HashedNgrams(features=4096).encode(LETTERS)
    assert rows.shape == (5, 4096)
    assert rows.dtype == np.float32
    norms = np.linalg.norm(rows.toarray(), axis=1)
    np.testing.assert_allclose(norms[:3], 1, atol=1e-6)
    assert not norms[3:].any()


def test_no_texts_give_no_rows() -> None:
    assert HashedNgrams(features=8).encode([]).shape == (0, 8)


def test_a_row_does_not_depend_on_the_others() -> None:
    encoder = HashedNgrams(features=1024)
    together = encoder.encode(LETTERS).toarray()
    for i, text in enumerate(LETTERS):
        assert (encoder.encode([text]).toarray()[0] == together[i]).all()


def test_known_columns() -> None:
    """Pins the hash, so that a model trained today reads tomorrow's text the same way."""
    rows = HashedNgrams(features=64, n_min=3, n_max=3).encode(["aab aab"])
    # " aa", "aab", "ab " twice each: three columns of equal weight.
    assert rows.indices.tolist() == [13, 15, 24]
    np.testing.assert_allclose(np.abs(rows.data), 3**-0.5, rtol=1e-6)
    assert np.sign(rows.data).tolist() == [1, 1, 1]


def test_counts_are_sublinear() -> None:
    row = HashedNgrams(features=2**16, n_min=1, n_max=1, word_boundaries=False, signed=False).encode(["aaab"])
    once, thrice = sorted(row.data.tolist())
    assert thrice / once == pytest.approx(1 + np.log(3), rel=1e-6)


def test_composed_and_decomposed_letters_and_case_are_one() -> None:
    encoder = HashedNgrams()
    composed, decomposed, upper = encoder.encode(["patiënt", "patie\u0308nt", "PATIËNT"]).toarray()
    assert (composed == decomposed).all()
    assert (composed == upper).all()


@pytest.mark.parametrize("signed", [True, False])
def test_sign(signed: bool) -> None:
    values = HashedNgrams(signed=signed).encode(LETTERS).data
    assert bool(values.min() < 0) is signed


def test_word_boundaries_keep_ngrams_inside_words() -> None:
    inside = HashedNgrams(n_min=3, n_max=3, word_boundaries=True)
    across = HashedNgrams(n_min=3, n_max=3, word_boundaries=False)
    assert (inside.encode(["ab cd"]).toarray() == inside.encode(["cd ab"]).toarray()).all()
    assert (across.encode(["ab cd"]).toarray() != across.encode(["cd ab"]).toarray()).any()


@settings(derandomize=True, max_examples=50)
@given(st.lists(st.text(max_size=60), max_size=5), st.integers(1, 10), st.integers(1, 4), st.booleans())
def test_any_text_gives_finite_rows_of_norm_at_most_one(texts: list[str], log2: int, n_min: int, signed: bool) -> None:
    rows = HashedNgrams(features=2**log2, n_min=n_min, n_max=n_min + 1, signed=signed).encode(texts).toarray()
    norms = np.linalg.norm(rows.astype(np.float64), axis=1)
    assert rows.shape == (len(texts), 2**log2)
    assert all(norm == 0 or abs(norm - 1) < 1e-5 for norm in norms)


def test_config_round_trip() -> None:
    encoder = HashedNgrams(features=2048, n_min=1, n_max=4, word_boundaries=False, signed=False)
    rebuilt: TextEncoder = encoder_from_config(encoder.config())
    assert rebuilt == encoder
    assert rebuilt.config() == {
        "kind": "hashed-ngrams",
        "features": 2048,
        "n_min": 1,
        "n_max": 4,
        "word_boundaries": False,
        "signed": False,
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "word2vec"}, "unknown kind 'word2vec'"),
        ({"kind": None}, "unknown kind None"),
        ({"features": 1000}, "power of two"),
        ({"features": 1}, "power of two"),
        ({"features": 2**23}, "power of two"),
        ({"features": 4096.0}, "features must be int"),
        ({"features": True}, "features must be int"),
        ({"signed": 1}, "signed must be bool"),
        ({"n_min": 0}, "n_min=0"),
        ({"n_min": 5, "n_max": 4}, "n_min=5"),
        ({"n_max": 9}, "n_max=9"),
        ({"vocabulary": ["tumor"]}, "unknown fields"),
    ],
)
def test_bad_config_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(EncoderError, match=message):
        encoder_from_config({**HashedNgrams().config(), **change})


def test_missing_field_is_refused() -> None:
    config = HashedNgrams().config()
    del config["n_max"]
    with pytest.raises(EncoderError, match="missing fields \\['n_max'\\]"):
        encoder_from_config(config)


def test_speed_of_short_texts() -> None:
    complaint = "Боли в правом плече с иррадиацией в локтевой сустав, усиливаются ночью"
    texts = [f"{complaint}, {day}-й день" for day in range(500)]
    started = time.perf_counter()
    HashedNgrams().encode(texts)
    assert 500 / (time.perf_counter() - started) > 300  # far below what an idle core does, for busy machines
