"""Text encoders: from the letters of an admission to one feature vector.

A `TextEncoder` maps n texts to an (n, features) matrix of float32. The embedded default, `HashedNgrams`,
counts character n-grams and hashes each to a column (the "hashing trick", Weinberger et al. 2009,
arXiv:0902.2206), by scikit-learn's `HashingVectorizer`.

Invariants:

- No vocabulary: the encoder is a pure function of its configuration, so nothing about any patient's text can
  leak through it and every hospital computes the same columns without exchanging anything.
- Deterministic: MurmurHash3 of the n-gram's UTF-8 bytes; text is brought to Unicode NFC and lower case first.
- Every row has Euclidean norm 1, or is all zeros when the text holds no n-gram. The norm bounds what one
  patient can add to any sum of feature vectors.

    >>> encoder = HashedNgrams(features=4096, n_min=2, n_max=5)
    >>> encoder.encode(["pijn op de borst"]).shape
    (1, 4096)
    >>> encoder_from_config(encoder.config()) == encoder
    True
"""

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Protocol

import numpy as np
from scipy import sparse

from jobs.icd_coding.errors import EncoderError

MAX_FEATURES = 2**22
MAX_NGRAM = 8


class TextEncoder(Protocol):
    """Turns texts into feature vectors; a pure function of its configuration."""

    @property
    def name(self) -> str:
        """The kind of encoder, as written in a plan."""
        ...

    @property
    def features(self) -> int:
        """Number of columns of every encoded matrix."""
        ...

    def encode(self, texts: Sequence[str]) -> sparse.csr_matrix:
        """Encode n texts.

        Returns: (n, features) float32, rows of Euclidean norm 1 (or 0 for a text without content).
        """
        ...

    def config(self) -> dict[str, Any]:
        """JSON object from which `encoder_from_config` builds an equal encoder."""
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
    """Build the encoder a plan names.

    Raises: EncoderError for an unknown kind, an unknown or missing field, or a value out of range. Nothing
    is filled in by default, so two hospitals that read the same plan build the same encoder.
    """
    if not isinstance(config, Mapping):
        raise EncoderError(f"encoder: expected an object, got {type(config).__name__}")
    given = dict(config)
    kind = given.pop("kind", None)
    if kind != "hashed-ngrams":
        raise EncoderError(f"encoder: unknown kind {kind!r}; this version knows 'hashed-ngrams'")
    known = {field.name for field in fields(HashedNgrams)}
    if unknown := sorted(given.keys() - known, key=str):
        raise EncoderError(f"encoder hashed-ngrams: unknown fields {unknown}; known are {sorted(known)}")
    if missing := sorted(known - given.keys()):
        raise EncoderError(f"encoder hashed-ngrams: missing fields {missing}")
    return HashedNgrams(**given)
