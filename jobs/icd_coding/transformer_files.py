"""The files of a transformer: which of them decide its features, and the digest that names them.

A plan names a model by the digest over exactly the files that are read to compute features:

    config.json                    the architecture
    tokenizer.json                 from text to tokens, with the special tokens
    model.safetensors              the weights; or
    model.safetensors.index.json   and the shards it names

Everything else in a model's folder (read-mes, other formats, other frameworks) is neither read nor copied. Pickled
weights and code that comes with a model are refused: both run as they are loaded. A digest is over the canonical
list of these names and their SHA-256, so two hospitals with one digest hold the same model, byte for byte.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

from audit.canonical import canonical_json, digest_of
from jobs.icd_coding.errors import EncoderError

CONFIG = "config.json"
TOKENIZER = "tokenizer.json"
WEIGHTS = "model.safetensors"
WEIGHTS_INDEX = "model.safetensors.index.json"
READ_PATTERNS = (CONFIG, TOKENIZER, "*.safetensors", WEIGHTS_INDEX)
"""What to fetch of a published model: every file that may be read."""

_FORMAT = "zegel transformer v1"
_SHARD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}\.safetensors")
_PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


def decisive_files(folder: Path) -> tuple[str, ...]:
    """Names of the files that decide the features, sorted.

    Raises: EncoderError naming what is missing and what to do: no folder, no tokenizer.json, weights in another form
        than safetensors, an index that names files elsewhere.
    """
    if not folder.is_dir():
        raise EncoderError(f"{folder}: expected a folder with a model's files")
    for name, advice in (
        (CONFIG, "give the folder that holds the model itself"),
        (TOKENIZER, "write it with the model's library: AutoTokenizer.from_pretrained(...).save_pretrained(...)"),
    ):
        if not (folder / name).is_file():
            raise EncoderError(f"{folder}: {name} is missing; {advice}")
    if (folder / WEIGHTS).is_file():
        return tuple(sorted((CONFIG, TOKENIZER, WEIGHTS)))
    if (folder / WEIGHTS_INDEX).is_file():
        return tuple(sorted((CONFIG, TOKENIZER, WEIGHTS_INDEX, *_shards(folder))))
    pickled = sorted(path.name for pattern in _PICKLED for path in folder.glob(pattern))
    if pickled:
        raise EncoderError(
            f"{folder}: {pickled[0]} holds pickled weights, which can run code as they are loaded; "
            f"expected {WEIGHTS}: convert them where that is safe, with the model's save_pretrained(...)"
        )
    raise EncoderError(f"{folder}: no weights; expected {WEIGHTS}")


def model_digest(folder: Path) -> str:
    """`sha256:<hex>` of the model: over the canonical list of its decisive files' names and digests.

    Raises: EncoderError as `decisive_files`, and when a file cannot be read.
    """
    files = {}
    for name in decisive_files(folder):
        try:
            with (folder / name).open("rb") as handle:
                files[name] = "sha256:" + hashlib.file_digest(handle, "sha256").hexdigest()
        except OSError as error:
            raise EncoderError(f"{folder / name} cannot be read: {error}") from error
    return digest_of(canonical_json({"format": _FORMAT, "files": files}))


def check_own_code(folder: Path) -> None:
    """Refuse a model whose configuration names code of its own. Raises EncoderError."""
    config = _json(folder / CONFIG)
    if "auto_map" in config:
        raise EncoderError(
            f"{folder / CONFIG}: auto_map names code that comes with the model, which is never run here; "
            "use a model of an architecture that the transformers library holds itself"
        )


def _shards(folder: Path) -> set[str]:
    index = _json(folder / WEIGHTS_INDEX)
    named = index.get("weight_map")
    if not isinstance(named, dict) or not named:
        raise EncoderError(f"{folder / WEIGHTS_INDEX}: expected a weight_map from tensors to files")
    shards = {str(name) for name in named.values()}
    for name in sorted(shards):
        if not _SHARD.fullmatch(name):  # also keeps an index from reaching outside the folder
            raise EncoderError(f"{folder / WEIGHTS_INDEX}: {name!r} is not a safetensors file beside it")
        if not (folder / name).is_file():
            raise EncoderError(f"{folder}: {name} is missing; the index names it")
    return shards


def _json(path: Path) -> dict[str, object]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise EncoderError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(value, dict):
        raise EncoderError(f"{path}: expected a JSON object")
    return value
