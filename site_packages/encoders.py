"""The text models a hospital has installed, and how one gets there.

    encoders/<hex digits of the digest>/   the files that decide the features, and about.json
    encoders/cache/                        feature vectors of letters, private like the letters

Invariants:
- A model appears under its digest only when it is whole: it is copied, checked and tried in a folder beside, and
  renamed. A crash leaves a folder beginning with a dot, which the next change removes.
- Only the files that decide the features are copied: no code, no pickled weights. Folders 0700, files 0600.
- Nothing is fetched from a network unless the operator asks for it by name; a run never does.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from audit.canonical import check_digest, hex_of
from audit.errors import CanonicalError
from jobs.icd_coding.encoder import Progress, encoder_from_config, no_progress
from jobs.icd_coding.errors import EncoderError
from jobs.icd_coding.transformer import DEFAULT_CHUNKS, DEFAULT_MAX_TOKENS, encoder_config_from_folder
from jobs.icd_coding.transformer_files import READ_PATTERNS, check_own_code, decisive_files, model_digest
from site_packages.dataset import current_dataset, open_dataset
from site_packages.errors import EncoderStoreError

ABOUT = "about.json"
_SCRATCH = ".adding-"

Fetch = Callable[[str, str | None, Path], None]
"""(name, revision or None, folder to fetch into): brings a published model's files to this machine."""


@dataclass(frozen=True)
class InstalledModel:
    """One installed model; `config` is what a plan says to use it."""

    name: str
    source: str  # where it was copied from: a folder, or a published name and revision
    bytes: int
    config: dict[str, Any]

    @property
    def digest(self) -> str:
        return str(self.config["digest"])

    @property
    def features(self) -> int:
        return int(self.config["features"])

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def models_folder(home: Path) -> Path:
    """Where a hospital's models are; the `models` of `TextEncoder.opened`."""
    return home / "encoders"


def cache_folder(home: Path) -> Path:
    """Where feature vectors are kept; the `cache` of `TextEncoder.opened`."""
    return models_folder(home) / "cache"


def installed_models(home: Path) -> tuple[InstalledModel, ...]:
    """The installed models by name. Raises: EncoderStoreError when a model's about.json cannot be read."""
    folders = (path.parent for path in models_folder(home).glob(f"*/{ABOUT}") if not path.parent.name.startswith("."))
    return tuple(sorted((_about(folder) for folder in folders), key=lambda model: (model.name, model.digest)))


def installed_model(home: Path, digest: str) -> InstalledModel:
    """The installed model with this digest. Raises: EncoderStoreError when there is none."""
    try:
        folder = models_folder(home) / hex_of(digest)
    except CanonicalError as error:
        raise EncoderStoreError(str(error)) from None
    if not folder.is_dir():
        raise EncoderStoreError(f"no model {digest} is installed; `zegel site encoder list` shows those that are")
    return _about(folder)


def installed_digests(home: Path) -> frozenset[str]:
    """Digests of the installed models, for the guard. The files are checked when a model is loaded."""
    return frozenset(model.digest for model in installed_models(home))


def add_model(
    home: Path,
    folder: Path,
    *,
    name: str,
    source: str | None = None,
    max_tokens: int = DEFAULT_MAX_TOKENS,
    chunks: int = DEFAULT_CHUNKS,
) -> InstalledModel:
    """Copy the model in `folder` into the hospital's folder and try it.

    Adding a model again replaces what is said about it; its files are copied anew only if they were damaged.

    Args:
        name: for people and plans; max_tokens, chunks: what `config` proposes, see `TransformerEncoder`.
    Raises: EncoderError when it is not a usable model; nothing is installed then.
    """
    shelf = models_folder(home)
    shelf.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _alone(shelf), tempfile.TemporaryDirectory(dir=shelf, prefix=_SCRATCH) as scratch:
        copy = Path(scratch, "model")
        copy.mkdir(mode=0o700)
        files = decisive_files(folder)
        check_own_code(folder)  # before gigabytes are copied
        for file in files:
            shutil.copyfile(folder / file, copy / file)
            (copy / file).chmod(0o600)
            _sync(copy / file)
        config = encoder_config_from_folder(copy, name=name, max_tokens=max_tokens, chunks=chunks)
        size = sum((copy / file).stat().st_size for file in files)
        model = InstalledModel(name, source or str(folder.resolve()), size, config)
        about = copy / ABOUT
        about.write_text(json.dumps(model.to_json(), indent=2) + "\n", encoding="utf-8")
        about.chmod(0o600)
        _sync(about)
        place = shelf / hex_of(model.digest)
        if not place.exists():
            copy.rename(place)
        elif _is_intact(place, model.digest):
            about.replace(place / ABOUT)
        else:  # the damaged one goes with the scratch folder
            place.rename(Path(scratch, "damaged"))
            copy.rename(place)
        _sync(shelf)
    return model


def add_published_model(
    home: Path,
    published: str,
    *,
    fetch: Fetch,
    name: str | None = None,
    revision: str | None = None,
    max_tokens: int = DEFAULT_MAX_TOKENS,
    chunks: int = DEFAULT_CHUNKS,
) -> InstalledModel:
    """Fetch a published model and add it. Raises: EncoderStoreError when it cannot be fetched, else as `add_model`."""
    with tempfile.TemporaryDirectory(prefix="zegel-fetch-") as scratch:
        fetch(published, revision, Path(scratch))
        source = published if revision is None else f"{published}@{revision}"
        return add_model(
            home, Path(scratch), name=name or published, source=source, max_tokens=max_tokens, chunks=chunks
        )


def fetch_from_hub(published: str, revision: str | None, folder: Path) -> None:
    """Download the files that decide a model's features from the Hugging Face hub. Raises: EncoderStoreError."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        snapshot_download(published, revision=revision, local_dir=folder, allow_patterns=list(READ_PATTERNS))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError, ValueError) as error:
        says = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise EncoderStoreError(
            f"{published} cannot be fetched: {says}. On a machine without the network, bring the model's folder "
            "and give its path"
        ) from error


def remove_model(home: Path, digest: str) -> InstalledModel:
    """Remove an installed model and the feature vectors it made.

    Raises: EncoderStoreError when no model has this digest.
    """
    shelf, model = models_folder(home), installed_model(home, digest)
    digits = hex_of(model.digest)
    for suffix in (".db", ".db-journal"):
        (cache_folder(home) / f"{digits}{suffix}").unlink(missing_ok=True)
    with _alone(shelf), tempfile.TemporaryDirectory(dir=shelf, prefix=_SCRATCH) as scratch:
        (shelf / digits).rename(
            Path(scratch, "removed")
        )  # in one step; a crash later leaves only what the next adding removes
    return model


def prepare_features(home: Path, config: Mapping[str, Any], *, progress: Progress = no_progress) -> int:
    """Read every letter of the data set in use with this encoder, so that a run finds its features in the cache.

    Returns: how many admissions there are. Raises: EncoderError when the encoder cannot be used, DataError without a
        data set. What was read before an interruption is kept.
    """
    dataset = open_dataset(current_dataset(home))
    encoder = encoder_from_config(config).opened(
        models=models_folder(home), cache=cache_folder(home), progress=progress
    )
    encoder.encode(dataset.texts)
    return len(dataset.texts)


@contextmanager
def _alone(shelf: Path) -> Iterator[None]:
    """One change of the installed models at a time; clears what an interrupted one left."""
    descriptor = os.open(shelf, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        for left in shelf.glob(_SCRATCH + "*"):
            shutil.rmtree(left)
        yield
    finally:
        os.close(descriptor)  # also ends the lock


def _about(folder: Path) -> InstalledModel:
    path = folder / ABOUT
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        names = {field.name for field in fields(InstalledModel)}
        if not isinstance(value, dict) or set(value) != names or not isinstance(value["config"], dict):
            raise ValueError(f"expected the fields {', '.join(sorted(names))}")
        model = InstalledModel(**value)
        if hex_of(check_digest(value["config"].get("digest"))) != folder.name:
            raise ValueError("it is about another model")
    except (OSError, ValueError, CanonicalError) as error:
        raise EncoderStoreError(
            f"{path} cannot be read ({error}); move {folder} away and run `zegel site encoder add` again"
        ) from None
    return model


def _is_intact(folder: Path, digest: str) -> bool:
    try:
        return model_digest(folder) == digest
    except EncoderError:  # a file is missing: not intact, and about to be replaced
        return False


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
