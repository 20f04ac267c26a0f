"""Text encoders: from the letters of an admission to one feature vector.

A plan names a `TextEncoder`: a value made from JSON that knows how wide its vectors are and which models it needs,
and reads no file. A hospital opens it and gets an `OpenedEncoder`, which maps n texts to an (n, features) matrix of
float32. The coordinator never opens one.

The embedded default, `HashedNgrams`, counts character n-grams and hashes each to a column (the "hashing trick",
Weinberger et al. 2009, arXiv:0902.2206), by scikit-learn's `HashingVectorizer`; it needs no files, so it is its own
opened encoder. `transformer` reads letters with an installed model, `combined` puts several encoders side by side.

Invariants:

- Nothing about any patient's text is in an encoder: no vocabulary is collected, no model is fitted. Every hospital
  computes the same columns from the same plan without exchanging anything.
- Every row has Euclidean norm at most 1: 1 as a rule, 0 for a text without content. The norm bounds what one
  patient can add to any sum of feature vectors.
- `HashedNgrams` is deterministic: MurmurHash3 of the n-gram's UTF-8 bytes; text is brought to Unicode NFC and lower
  case first.

    >>> encoder = HashedNgrams(features=4096, n_min=2, n_max=5)
    >>> encoder.encode(["pijn op de borst"]).shape
    (1, 4096)
    >>> encoder_from_config(encoder.config()) == encoder
    True
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
from scipy import sparse

from jobs.icd_coding.combined import CombinedEncoder, Part
from jobs.icd_coding.errors import EncoderError
from jobs.icd_coding.model import FeatureRows
from jobs.icd_coding.transformer import TransformerEncoder

MAX_FEATURES = 2**22
MAX_NGRAM = 8
KINDS = ("hashed-ngrams", "transformer", "combined")


Progress: TypeAlias = Callable[[int, int], None]
"""Called with (texts done, texts in all) while a long encoding goes on."""


def no_progress(done: int, total: int) -> None:
    """Tells nobody."""


class OpenedEncoder(Protocol):
    """Turns texts into feature vectors."""

    @property
    def features(self) -> int:
        """Number of columns of every encoded matrix."""
        ...

    def encode(self, texts: Sequence[str]) -> FeatureRows:
        """Encode n texts.

        Returns: (n, features) float32, sparse or dense, rows of Euclidean norm at most 1 (0 for a text without
            content).
        Raises: EncoderError when a model it needs is not installed, is damaged or cannot be run.
        """
        ...


class TextEncoder(Protocol):
    """What a plan says about encoding. A value without files: the coordinator has no more than this."""

    @property
    def name(self) -> str:
        """The kind of encoder, as written in a plan."""
        ...

    @property
    def features(self) -> int:
        """Number of columns of every encoded matrix."""
        ...

    @property
    def kinds(self) -> frozenset[str]:
        """Its kind and the kinds of its parts: a hospital must allow every one of them."""
        ...

    @property
    def model_digests(self) -> frozenset[str]:
        """The models a hospital must have installed; empty when it needs none."""
        ...

    def config(self) -> dict[str, Any]:
        """JSON object from which `encoder_from_config` builds an equal encoder."""
        ...

    def opened(
        self, *, models: Path | None = None, cache: Path | None = None, progress: Progress = no_progress
    ) -> OpenedEncoder:
        """The encoder ready for texts. Nothing is read yet; files are opened when a text needs them.

        Args:
            models: folder in which every installed model has a folder named by the hex digits of its digest.
            cache: folder for feature vectors computed before, private like the texts; None keeps none.
            progress: told while texts are encoded for the first time.
        """
        ...


@dataclass(frozen=True)
class HashedNgrams:
    """Hashed character n-grams with sublinear counts and rows of norm 1.

    Attributes:
        features: columns; a power of two in 2..2**22.
        n_min, n_max: shortest and longest n-gram in characters, 1 <= n_min <= n_max <= 8.
        word_boundaries: True takes n-grams inside words only, each word padded by a blank on both sides
            (scikit-learn's "char_wb"); False lets them run across words.
        signed: True adds -1 for half of the n-grams, so that collisions cancel on average.
    """

    features: int = 4096
    n_min: int = 2
    n_max: int = 5
    word_boundaries: bool = True
    signed: bool = True

    def __post_init__(self) -> None:
        for field, kind in (
            ("features", int),
            ("n_min", int),
            ("n_max", int),
            ("word_boundaries", bool),
            ("signed", bool),
        ):
            value = getattr(self, field)
            if type(value) is not kind:
                raise EncoderError(f"hashed-ngrams: {field} must be {kind.__name__}, got {value!r}")
        if not 2 <= self.features <= MAX_FEATURES or self.features & (self.features - 1):
            raise EncoderError(
                f"hashed-ngrams: features must be a power of two in 2..{MAX_FEATURES}, got {self.features}"
            )
        if not 1 <= self.n_min <= self.n_max <= MAX_NGRAM:
            raise EncoderError(
                f"hashed-ngrams: expected 1 <= n_min <= n_max <= {MAX_NGRAM}, "
                f"got n_min={self.n_min}, n_max={self.n_max}"
            )

    @property
    def name(self) -> str:
        return "hashed-ngrams"

    @property
    def kinds(self) -> frozenset[str]:
        return frozenset({self.name})

    @property
    def model_digests(self) -> frozenset[str]:
        return frozenset()

    def opened(
        self, *, models: Path | None = None, cache: Path | None = None, progress: Progress = no_progress
    ) -> HashedNgrams:
        """Itself: it needs no files, and counting again is faster than reading a cache."""
        return self

    def encode(self, texts: Sequence[str]) -> sparse.csr_matrix:
        """Encode n texts as hashed n-gram counts c -> sign(c) (1 + ln |c|), each row scaled to norm 1.

        A text without a single n-gram, and one whose n-grams all cancel, gives a row of zeros.

        Returns: (n, features) float32 in canonical CSR form (sorted columns, no stored zeros).
        """
        from sklearn.feature_extraction.text import HashingVectorizer  # takes a second to import

        vectorizer = HashingVectorizer(
            analyzer="char_wb" if self.word_boundaries else "char",
            ngram_range=(self.n_min, self.n_max),
            n_features=self.features,
            alternate_sign=self.signed,
            norm=None,
            lowercase=True,
            dtype=np.float64,
        )
        if not texts:
            return sparse.csr_matrix(np.zeros((0, self.features), dtype=np.float32))
        counts = vectorizer.transform(unicodedata.normalize("NFC", text) for text in texts)
        rows = sparse.csr_matrix(counts, dtype=np.float64)
        rows.eliminate_zeros()
        rows.sort_indices()
        rows.data = np.sign(rows.data) * (1.0 + np.log(np.abs(rows.data)))
        norms = np.sqrt(np.asarray(rows.multiply(rows).sum(axis=1)).ravel())
        entries_per_row = np.diff(rows.indptr)
        rows.data /= np.repeat(norms, entries_per_row)
        return rows.astype(np.float32)

    def config(self) -> dict[str, Any]:
        return {"kind": self.name, **asdict(self)}


def encoder_from_config(config: Mapping[str, Any]) -> TextEncoder:
    """Build the encoder a plan names. Reads no file.

    Raises: EncoderError for an unknown kind, an unknown or missing field, or a value out of range. Nothing
    is filled in by default, so two hospitals that read the same plan build the same encoder.
    """
    if not isinstance(config, Mapping):
        raise EncoderError(f"encoder: expected an object, got {type(config).__name__}")
    given = dict(config)
    kind = given.pop("kind", None)
    if kind == "hashed-ngrams":
        return HashedNgrams(**_exactly(HashedNgrams, kind, given))
    if kind == "transformer":
        return TransformerEncoder(**_exactly(TransformerEncoder, kind, given))
    if kind == "combined":
        parts = _exactly(CombinedEncoder, kind, given)["parts"]
        if not isinstance(parts, Sequence) or isinstance(parts, str):
            raise EncoderError(f"encoder combined: parts must be a list, got {type(parts).__name__}")
        return CombinedEncoder(tuple(_part(part, number) for number, part in enumerate(parts, start=1)))
    raise EncoderError(f"encoder: unknown kind {kind!r}; this version knows {', '.join(KINDS)}")


def _part(value: object, number: int) -> Part:
    where = f"encoder combined: part {number}"
    if not isinstance(value, Mapping) or set(value) != {"share", "encoder"}:
        raise EncoderError(f"{where}: expected an object with share and encoder")
    encoder = value["encoder"]
    if isinstance(encoder, Mapping) and encoder.get("kind") == "combined":  # one level says all there is to say
        raise EncoderError(f"{where}: a combined encoder cannot be part of another; list its parts here")
    return Part(share=value["share"], encoder=encoder_from_config(encoder))


def _exactly(
    cls: type[HashedNgrams | TransformerEncoder | CombinedEncoder], kind: str, given: dict[str, Any]
) -> dict[str, Any]:
    """`given` when it has exactly the fields of `cls`."""
    known = {field.name for field in fields(cls)}
    if unknown := sorted(given.keys() - known, key=str):
        raise EncoderError(f"encoder {kind}: unknown fields {unknown}; known are {sorted(known)}")
    if missing := sorted(known - given.keys()):
        raise EncoderError(f"encoder {kind}: missing fields {missing}")
    return given
