"""Canaries: patients made for an audit, so that an attacker could hardly ask for more.

Each canary's letter is one word, whose only n-gram of 8 characters (a blank, six digits, a blank) hashes to a column
that no other canary has. So its clipped gradient lies in a direction of its own, and the released sum along that
direction holds nothing but this canary and noise. Each has several admissions: if admissions were counted instead of
patients, it would stand out by that factor.

No patient data is used. The words are the same in every audit; the coins that decide who is in are not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from jobs.icd_coding.encoder import HashedNgrams
from site_packages.dataset import Dataset, dataset_from_records
from site_packages.errors import SampleError
from site_packages.simulation import SiteRecords

CODES = ("H25", "I10", "K40", "M17")  # the label space of an audit
ADMISSIONS = 3  # of every canary
_NGRAM = 8


def canary_encoder(features: int) -> HashedNgrams:
    """The encoder under which a word of six characters is one column."""
    return HashedNgrams(features=features, n_min=_NGRAM, n_max=_NGRAM)


def separate_words(count: int, features: int) -> list[str]:
    """Words that have a column each.

    Raises: SampleError if `features` leaves no room for so many.
    """
    # Hashing fills a share of the columns; twice as many words as columns fill 86% of them.
    words = [f"{number:06}" for number in range(2 * features)]
    columns = canary_encoder(features).encode(words).indices
    _, first = np.unique(columns, return_index=True)
    if count > len(first):
        raise SampleError(f"{count} canaries need more than {features} features, of which {len(first)} can be filled")
    return [words[index] for index in np.sort(first)[:count]]


@dataclass(frozen=True, eq=False)
class Canaries:
    """Canaries dealt to hospitals.

    Attributes:
        words: their letters.
        labels: (m,) their codes, as columns of `CODES`.
        hospital: (m,) where each would be treated, as a number.
        included: (m,) how the coins fell: what the attacker guesses.
    """

    words: tuple[str, ...]
    labels: NDArray[np.int64]
    hospital: NDArray[np.int64]
    included: NDArray[np.bool_]

    def rows(self, features: int) -> sparse.csr_matrix:
        """(m, features): everyone's text vector."""
        return canary_encoder(features).encode(self.words)

    def records(self, sites: Sequence[str]) -> dict[str, SiteRecords]:
        """The included canaries as hospitals' data sets; nobody to evaluate on."""
        records = {}
        for number, site in enumerate(sites):
            here = np.flatnonzero(self.included & (self.hospital == number))
            training = patients([self.words[index] for index in here], self.labels[here])
            records[site] = SiteRecords(training, training.take(np.zeros(0, dtype=np.int64)))
        return records


def toss(count: int, *, features: int, hospitals: int, random_bytes: Callable[[int], bytes]) -> Canaries:
    """Make canaries and toss a fair coin for each. Codes and hospitals are dealt in turn."""
    bits = np.unpackbits(np.frombuffer(random_bytes((count + 7) // 8), dtype=np.uint8))[:count]
    number = np.arange(count, dtype=np.int64)
    return Canaries(
        words=tuple(separate_words(count, features)),
        labels=number // hospitals % len(CODES),
        hospital=number % hospitals,
        included=bits.astype(bool),
    )


def patients(words: Sequence[str], labels: NDArray[np.int64]) -> Dataset:
    """One patient for each word, in this order, with `ADMISSIONS` admissions that are alike."""
    copies = range(ADMISSIONS)
    return dataset_from_records(
        [f"canary {number:06}" for number in range(len(words)) for _ in copies],
        [word for word in words for _ in copies],
        [CODES[label] for label in labels for _ in copies],
    )
