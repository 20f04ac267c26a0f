"""The transformer encoder: frozen features of a letter from an installed Hugging Face model.

A letter is cut into consecutive chunks of tokens, the model reads each chunk, and the letter's vector is the mean of
the last layer's token vectors over all chunks, scaled to norm 1. The model is frozen and public: it is named in the
plan by the digest of its files and is the same at every hospital, so its features hold nothing of anybody's letters.

Invariants:

- The value `TransformerEncoder` reads no file and imports no torch; the coordinator needs only its width.
- An installed model is used only when its files have the digest of the plan. No network, no code of the model's own.
- With every letter in the cache, the model is not loaded and torch is not imported.
- The same letters on the same machine give the same vectors up to float32 rounding (which letters are read in one
  batch moves the last bits, as another machine does). That is harmless: vectors stay at the hospital, and only
  their norm matters for privacy.

    >>> encoder = TransformerEncoder(model="all-MiniLM-L6-v2", digest="sha256:" + 64 * "0", features=384,
    ...                              max_tokens=256, chunks=8, pooling="mean")
    >>> encoder.features
    384
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from audit.canonical import canonical_json, check_digest, hex_of
from audit.errors import CanonicalError
from jobs.icd_coding.errors import EncoderError, EncoderNotInstalled
from jobs.icd_coding.transformer_cache import FeatureCache
from jobs.icd_coding.transformer_files import model_digest

if TYPE_CHECKING:
    from jobs.icd_coding.transformer_model import LoadedTransformer

MAX_TRANSFORMER_FEATURES = 2**14
MAX_TOKENS = 2**14  # of one chunk
MAX_CHUNKS = 2**10
MAX_MODEL_NAME = 200  # characters
POOLINGS = ("mean",)
DEFAULT_MAX_TOKENS = 256
DEFAULT_CHUNKS = 8

_WINDOW = 256  # letters read between two writes to the cache: what a kill loses
_KEY_PREFIX = b"zegel transformer features v1\n"


@dataclass(frozen=True, kw_only=True)
class TransformerEncoder:
    """What a plan says about frozen features of a transformer; all of it is public.

    Attributes:
        model: its name, for people; the digest decides.
        digest: of the model's files, see `transformer_files`.
        features: width of the model's token vectors, 1..16384.
        max_tokens: tokens of one chunk, special tokens included, 8..16384; no more than the model can read at once.
        chunks: most chunks of a letter, 1..1024; what comes after them is not read.
        pooling: "mean": over all tokens of all chunks.
    """

    model: str
    digest: str
    features: int
    max_tokens: int
    chunks: int
    pooling: str

    def __post_init__(self) -> None:
        if not isinstance(self.model, str) or not 0 < len(self.model) <= MAX_MODEL_NAME or not self.model.isprintable():
            raise EncoderError(
                f"transformer: model must be a name of 1 to {MAX_MODEL_NAME} printable characters, got {self.model!r}"
            )
        try:
            check_digest(self.digest, "transformer: digest")
        except CanonicalError as error:
            raise EncoderError(str(error)) from None
        for field, least, most in (
            ("features", 1, MAX_TRANSFORMER_FEATURES),
            ("max_tokens", 8, MAX_TOKENS),
            ("chunks", 1, MAX_CHUNKS),
        ):
            value = getattr(self, field)
            if type(value) is not int or not least <= value <= most:
                raise EncoderError(f"transformer: {field} must be a whole number in {least}..{most}, got {value!r}")
        if self.pooling not in POOLINGS:
            raise EncoderError(f"transformer: pooling must be one of {', '.join(POOLINGS)}, got {self.pooling!r}")

    @property
    def name(self) -> str:
        return "transformer"

    @property
    def kinds(self) -> frozenset[str]:
        return frozenset({self.name})

    @property
    def model_digests(self) -> frozenset[str]:
        return frozenset({self.digest})

    def config(self) -> dict[str, Any]:
        return {"kind": self.name, **asdict(self)}

    def opened(
        self,
        *,
        models: Path | None = None,
        cache: Path | None = None,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> OpenedTransformer:
        """The encoder with its files; see `encoder.TextEncoder`. Raises: EncoderError without a models folder."""
        if models is None:
            raise EncoderError(f"transformer {self.model}: needs the folder of installed models")
        digits = hex_of(self.digest)
        kept = None if cache is None else FeatureCache(cache / f"{digits}.db", features=self.features)
        return OpenedTransformer(self, models / digits, kept, progress)


class OpenedTransformer:
    """A transformer encoder that can read: loads its model when it meets the first letter not in the cache."""

    def __init__(
        self,
        encoder: TransformerEncoder,
        folder: Path,
        cache: FeatureCache | None,
        progress: Callable[[int, int], None],
    ) -> None:
        self._encoder = encoder
        self._folder = folder
        self._cache = cache
        self._progress = progress
        self._model: LoadedTransformer | None = None
        shaping = {key: value for key, value in encoder.config().items() if key != "model"}
        self._key_prefix = _KEY_PREFIX + canonical_json(shaping) + b"\n"

    @property
    def features(self) -> int:
        return self._encoder.features

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Encode n letters; equal letters are read once.

        Returns: (n, features) float32, rows of norm 1; zeros for a letter without a token.
        Raises: EncoderNotInstalled, or EncoderError when the model is damaged or cannot be run, or the cache cannot be
            read or written. What was computed before stays in the cache.
        """
        cleaned = [clean_text(text) for text in texts]
        keys = [hashlib.sha256(self._key_prefix + text.encode()).digest() for text in cleaned]
        known = {} if self._cache is None else self._cache.read(list(dict.fromkeys(keys)))
        # Windows of letters of like length waste little on padding.
        missing = sorted({key: text for key, text in zip(keys, cleaned, strict=True) if key not in known}.items(),
                         key=lambda item: (len(item[1]), item[0]))  # fmt: skip
        done = 0
        for window in _windows(missing):
            vectors = self._vectors([text for _, text in window])
            fresh = {key: vector for (key, _), vector in zip(window, vectors, strict=True)}
            if self._cache is not None:
                self._cache.write(fresh)
            known |= fresh
            done += len(window)
            self._progress(done, len(missing))
        rows = np.zeros((len(keys), self.features), dtype=np.float32)
        for row, key in enumerate(keys):
            rows[row] = known[key]
        return rows

    def _vectors(self, texts: Sequence[str]) -> NDArray[np.float32]:
        if self._model is None:
            self._model = self._loaded()
        sums = self._model.token_sums(texts, max_tokens=self._encoder.max_tokens, chunks=self._encoder.chunks)
        norms = np.linalg.norm(sums, axis=1, keepdims=True)
        norms[norms == 0] = 1.0
        return np.asarray(sums / norms, dtype=np.float32)

    def _loaded(self) -> LoadedTransformer:
        encoder = self._encoder
        if not self._folder.is_dir():
            raise EncoderNotInstalled(
                f"transformer {encoder.model}: the model {encoder.digest} is not installed in {self._folder.parent}; "
                "install it with `zegel site encoder add`"
            )
        found = model_digest(self._folder)
        if found != encoder.digest:
            raise EncoderError(
                f"{self._folder}: expected the model {encoder.digest}, its files are {found}; they were altered: "
                "remove it and install it again with `zegel site encoder add`"
            )
        from jobs.icd_coding.transformer_model import load_transformer

        model = load_transformer(self._folder)
        if model.features != encoder.features:
            raise EncoderError(
                f"transformer {encoder.model}: expected {encoder.features} features, the model has {model.features}"
            )
        return model


def encoder_config_from_folder(
    folder: Path, *, name: str, max_tokens: int = DEFAULT_MAX_TOKENS, chunks: int = DEFAULT_CHUNKS
) -> dict[str, Any]:
    """What a plan says about the model in `folder`, after the model read one chunk of full length.

    Args:
        folder: a model's files on this machine, of any origin.
        name: for people, such as the name it is published under.
    Returns: the config of a `TransformerEncoder`.
    Raises: EncoderError when the files are not a usable model, or it cannot read `max_tokens` at once.
    """
    from jobs.icd_coding.transformer_model import load_transformer

    digest = model_digest(folder)
    model = load_transformer(folder)
    encoder = TransformerEncoder(
        model=name, digest=digest, features=model.features, max_tokens=max_tokens, chunks=chunks, pooling="mean"
    )
    # Any word is at least one token, so this fills more than one chunk of any model.
    model.token_sums(["1 " * (max_tokens + 1)], max_tokens=max_tokens, chunks=1)
    return encoder.config()


def clean_text(text: str) -> str:
    """Unicode NFC; half a surrogate pair, which no tokenizer takes, becomes a question mark."""
    return unicodedata.normalize("NFC", text.encode("utf-8", "replace").decode("utf-8"))


def _windows(items: Sequence[tuple[bytes, str]]) -> Iterator[Sequence[tuple[bytes, str]]]:
    for start in range(0, len(items), _WINDOW):
        yield items[start : start + _WINDOW]
