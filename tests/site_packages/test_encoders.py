"""Installing text models at a hospital: whole or not at all, private, and nothing but what decides the features."""

from __future__ import annotations

import inspect
import json
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from admin_api.cli import app
from jobs.icd_coding import transformer
from jobs.icd_coding.encoder import encoder_from_config
from jobs.icd_coding.errors import EncoderError
from site_packages import encoder_commands
from site_packages.dataset import current_dataset, open_dataset
from site_packages.encoders import (
    InstalledModel,
    add_model,
    add_published_model,
    cache_folder,
    installed_digests,
    installed_models,
    models_folder,
    remove_model,
)
from site_packages.errors import EncoderStoreError
from site_packages.home import SiteHome
from tests.jobs.icd_coding.tiny_transformer import FEATURES, write_tiny_transformer

DECISIVE = {"config.json", "tokenizer.json", "model.safetensors"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model's folder as somebody publishes it, with much that must not be copied."""
    folder = write_tiny_transformer(tmp_path_factory.mktemp("made") / "tiny-model")
    (folder / "README.md").write_text("A model.")
    (folder / "pytorch_model.bin").write_bytes(b"pickled")
    (folder / "modeling_own.py").write_text("raise SystemExit('code of the model ran')")
    (folder / "onnx").mkdir()
    return folder


@pytest.fixture
def home(tmp_path: Path) -> Path:
    site = SiteHome(tmp_path / "home")
    site.create("sint-anna", "sint_anna", "example")
    return site.path


def zegel(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout, result.stderr


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_an_added_model_is_whole_private_and_usable(home: Path, made: Path) -> None:
    model = add_model(home, made, name="tiny", max_tokens=16, chunks=2)
    place = models_folder(home) / model.digest.removeprefix("sha256:")
    assert {path.name for path in place.iterdir()} == DECISIVE | {"about.json"}
    assert {path.name for path in models_folder(home).iterdir()} == {place.name}
    assert place.stat().st_mode & 0o777 == models_folder(home).stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in place.iterdir()} == {0o600}
    assert (model.features, model.config["max_tokens"], model.config["chunks"]) == (FEATURES, 16, 2)
    assert model.bytes == sum((place / name).stat().st_size for name in DECISIVE)
    assert installed_models(home) == (model,)
    assert installed_digests(home) == {model.digest}
    encoder = encoder_from_config(model.config)
    rows = encoder.opened(models=models_folder(home), cache=cache_folder(home)).encode(["a b", ""])
    assert rows.shape == (2, FEATURES)
    assert installed_models(home) == (model,)  # the cache beside the models is none


def test_adding_again_changes_what_is_said_and_mends_what_is_damaged(home: Path, made: Path) -> None:
    first = add_model(home, made, name="tiny", max_tokens=16)
    place = models_folder(home) / first.digest.removeprefix("sha256:")
    inode = (place / "model.safetensors").stat().st_ino
    second = add_model(home, made, name="renamed", max_tokens=32)
    assert (place / "model.safetensors").stat().st_ino == inode
    assert installed_models(home) == (second,)
    assert (second.digest, second.name, second.config["max_tokens"]) == (first.digest, "renamed", 32)
    whole = snapshot(place)
    for harm in (lambda: (place / "model.safetensors").write_bytes(b""), (place / "config.json").unlink):
        harm()
        add_model(home, made, name="renamed", max_tokens=32)
        assert snapshot(place) == whole
    assert {path.name for path in models_folder(home).iterdir()} == {place.name}


def test_two_models_stand_side_by_side_and_one_is_removed_with_its_vectors(
    home: Path, made: Path, tmp_path: Path
) -> None:
    other = write_tiny_transformer(tmp_path / "other", seed=1)
    one = add_model(home, made, name="one", max_tokens=16)
    two = add_model(home, other, name="two", max_tokens=16)
    assert [model.name for model in installed_models(home)] == ["one", "two"]
    for model in (one, two):
        encoder_from_config(model.config).opened(models=models_folder(home), cache=cache_folder(home)).encode(["a"])
    assert len(list(cache_folder(home).iterdir())) == 2
    assert remove_model(home, one.digest) == one
    assert installed_models(home) == (two,)
    assert [path.stem for path in cache_folder(home).iterdir()] == [two.digest.removeprefix("sha256:")]
    with pytest.raises(EncoderStoreError, match="zegel site encoder list"):
        remove_model(home, one.digest)
    with pytest.raises(EncoderStoreError, match="expected sha256"):
        remove_model(home, "../../key")


def test_what_cannot_be_used_leaves_nothing_behind(home: Path, made: Path, tmp_path: Path) -> None:
    broken = Path(shutil.copytree(made, tmp_path / "broken"))
    config = json.loads((broken / "config.json").read_text())
    (broken / "config.json").write_text(json.dumps(config | {"auto_map": {"AutoModel": "modeling_own.Model"}}))
    before = snapshot(home)
    for folder, message in ((broken, "auto_map"), (tmp_path / "absent", "expected a folder"), (home, "is missing")):
        with pytest.raises(EncoderError, match=message):
            add_model(home, folder, name="tiny")
    with pytest.raises(EncoderError, match="says 60 positions"):
        add_model(home, made, name="tiny", max_tokens=61)
    assert snapshot(home) == before
    assert not list(models_folder(home).iterdir())


def test_what_a_crash_left_is_cleared(home: Path, made: Path) -> None:
    left = models_folder(home) / ".adding-left" / "model"
    left.mkdir(parents=True)
    (left / "about.json").write_text("{}")
    assert installed_models(home) == ()
    model = add_model(home, made, name="tiny", max_tokens=16)
    assert [path.name for path in models_folder(home).iterdir()] == [model.digest.removeprefix("sha256:")]


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"name": "x", "source": "x", "bytes": 1, "config": {}}'])
def test_an_unreadable_description_is_said_so(home: Path, made: Path, content: str) -> None:
    model = add_model(home, made, name="tiny", max_tokens=16)
    (models_folder(home) / model.digest.removeprefix("sha256:") / "about.json").write_text(content)
    with pytest.raises(EncoderStoreError, match="zegel site encoder add"):
        installed_digests(home)


def test_a_published_model_is_fetched_and_added(home: Path, made: Path) -> None:
    asked: list[tuple[str, str | None]] = []

    def fetch(published: str, revision: str | None, folder: Path) -> None:
        asked.append((published, revision))
        for name in DECISIVE:
            shutil.copy(made / name, folder / name)

    model = add_published_model(home, "example/tiny", fetch=fetch, revision="v1", max_tokens=16)
    assert asked == [("example/tiny", "v1")]
    assert (model.name, model.source) == ("example/tiny", "example/tiny@v1")
    named = add_published_model(home, "example/tiny", fetch=fetch, name="ours", max_tokens=16)
    assert (named.name, named.source, named.digest) == ("ours", "example/tiny", model.digest)


def test_commands(home: Path, made: Path) -> None:
    def answered(*arguments: object) -> Any:
        code, out, _ = zegel("site", "encoder", *arguments, "--home", home, "--json")
        assert code == 0
        return json.loads(out)

    assert answered("list") == {"models": []}
    added = answered("add", made, "--max-tokens", 16)
    assert added["name"] == "tiny-model"
    assert encoder_from_config(added["config"]).features == FEATURES
    assert answered("list") == {"models": [added]}
    code, out, _ = zegel("site", "encoder", "add", made, "--max-tokens", 16, "--home", home)
    assert code == 0 and added["config"]["digest"] in out and '"kind":"transformer"' in out and "limits.json" in out
    code, out, _ = zegel("site", "encoder", "list", "--home", home)
    assert code == 0 and "tiny-model: 16 features" in out
    assert answered("remove", added["config"]["digest"]) == added
    code, out, _ = zegel("site", "encoder", "list", "--home", home)
    assert code == 0 and "No model is installed" in out


def test_letters_are_read_before_a_run(home: Path, made: Path, tmp_path: Path) -> None:
    model = add_model(home, made, name="tiny", max_tokens=16)
    code, _, err = zegel("site", "encoder", "prepare", model.digest, "--home", home)
    assert code == 1 and "zegel site import" in err
    assert zegel("sample", "--out", tmp_path / "tables", "--hospitals", 1, "--admissions", 40)[0] == 0
    (admissions,) = (tmp_path / "tables").glob("*/admissions.csv")
    assert zegel("site", "import", admissions.parent, "--home", home)[0] == 0
    code, out, _ = zegel("site", "encoder", "prepare", model.digest, "--chunks", 3, "--home", home, "--json")
    assert code == 0
    told = json.loads(out)
    assert told["config"] == model.config | {"chunks": 3}
    dataset = open_dataset(current_dataset(home))
    assert told["admissions"] == len(dataset.texts) > 0
    asked: list[tuple[int, int]] = []
    encoder_from_config(told["config"]).opened(
        models=models_folder(home), cache=cache_folder(home), progress=lambda *done: asked.append(done)
    ).encode(dataset.texts)
    assert not asked  # everything is in the cache
    code, out, _ = zegel("site", "encoder", "prepare", model.digest, "--chunks", 3, "--home", home)
    assert code == 0 and f"letters of {len(dataset.texts)} admissions" in out


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("add", "intfloat/e5-small"), 1, "add --from-hub"),
        (("prepare", "sha256:" + 64 * "0"), 1, "zegel site encoder list"),
        (("prepare", "sha256:00"), 1, "expected sha256"),
        (("add", "/nowhere", "--revision", "v1"), 2, "--from-hub"),
        (("add", "/nowhere", "--max-tokens", "1"), 2, "max-tokens"),
        (("remove", "sha256:00"), 1, "expected sha256"),
        (("remove", "sha256:" + 64 * "0"), 1, "zegel site encoder list"),
    ],
)
def test_bad_commands_are_told(home: Path, arguments: tuple[str, ...], code: int, message: str) -> None:
    got, out, err = zegel("site", "encoder", *arguments, "--home", home)
    assert (got, out) == (code, "")
    assert message in err


def test_outside_a_hospitals_folder_nothing_is_done(tmp_path: Path, made: Path) -> None:
    for arguments in (("add", made), ("list",), ("remove", "sha256:" + 64 * "0")):
        code, _, err = zegel("site", "encoder", *arguments, "--home", tmp_path)
        assert code == 1 and "not a hospital's folder" in err
    assert not list(tmp_path.iterdir())


def test_the_commands_defaults_are_the_encoders() -> None:
    parameters = inspect.signature(encoder_commands.add).parameters
    assert parameters["max_tokens"].default == transformer.DEFAULT_MAX_TOKENS
    assert parameters["chunks"].default == transformer.DEFAULT_CHUNKS


def test_the_json_of_a_model_has_its_fields(home: Path, made: Path) -> None:
    model = add_model(home, made, name="tiny", max_tokens=16)
    assert InstalledModel(**json.loads(json.dumps(model.to_json()))) == model


def test_a_cache_of_another_model_is_never_read(home: Path, made: Path, tmp_path: Path) -> None:
    """Vectors lie in one file per model, under keys that commit to the model as well."""
    one = add_model(home, made, name="one", max_tokens=16)
    two = add_model(home, write_tiny_transformer(tmp_path / "other", seed=1), name="two", max_tokens=16)
    rows: dict[str, Any] = {}
    for model in (one, two):
        opened = encoder_from_config(model.config).opened(models=models_folder(home), cache=cache_folder(home))
        rows[model.name] = opened.encode(["a b c"])
    files = {name: cache_folder(home) / f"{model.digest.removeprefix('sha256:')}.db" for name, model in
             (("one", one), ("two", two))}  # fmt: skip
    shutil.copy(files["one"], files["two"])
    again = encoder_from_config(two.config).opened(models=models_folder(home), cache=cache_folder(home))
    np.testing.assert_array_equal(again.encode(["a b c"]), rows["two"])
    assert not np.allclose(rows["one"], rows["two"])
    connection = sqlite3.connect(files["two"])
    assert connection.execute("SELECT count(*) FROM feature").fetchone() == (2,)
    connection.close()
