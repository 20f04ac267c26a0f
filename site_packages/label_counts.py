"""How often each code occurs at a hospital, released once under differential privacy.

A consortium that chooses a label space, and an officer who asks whether a code has enough patients, need counts per
code. Exact counts of a rare code are close to a patient's record, so they leave with noise and are paid for.

Invariants:
- The codes counted come from a code table or a list, never from the data: which codes occur is what is asked.
- One admission of each training patient is drawn at random and counts for one code, so a patient moves one count by
  1: the L2 sensitivity is 1, and the release is the Gaussian mechanism, `LabelCounts(noise_multiplier)`.
- The spend is durable in the ledger before the data set is opened. A crash after it loses the release, not the record.
- What is told is post-processing of the noisy counts alone: counts below `threshold` are left out. It is the
  hospital's smallest cell, or more where the noise by itself would reach that for a code that nobody has.

Source: discrete Gaussian noise as in `privacy.noise`; Canonne, Kamath, Steinke 2020, arXiv 2004.00010.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audit.canonical import canonical_json, digest_of
from jobs.icd_coding.sampling import one_admission_per_patient
from privacy.events import LabelCounts
from privacy.ledger import Ledger
from privacy.noise import discrete_gaussian
from site_packages.dataset import Dataset
from site_packages.errors import SitePackagesError
from site_packages.limits import TRAINING, Limits

SCHEMA = "zegel/label-counts/v1"
PURPOSE = "counts per code, one admission of each training patient"
KEY = "label counts"
_SCALE = 1 << 10  # integer units per patient: the sampler wants a standard deviation of at least 2 units
_FALSE_CODES = 0.05  # chance that any code without a patient is told

RandomBytes = Callable[[int], bytes]


class LabelCountsError(SitePackagesError):
    """Label counts cannot be released as asked; nothing was spent."""


@dataclass(frozen=True)
class CountTerms:
    """What is released, from public values alone.

    Attributes:
        codes: Codes that are counted, sorted; public.
        noise_multiplier: Standard deviation of the noise on each count, in patients, since the sensitivity is 1.
        smallest_cell: Counts below it are never told.
    """

    codes: tuple[str, ...]
    noise_multiplier: float
    smallest_cell: int

    def __post_init__(self) -> None:
        if not self.codes or list(self.codes) != sorted(set(self.codes)):
            raise LabelCountsError("label counts: the codes must be sorted, without duplicates, and at least one")
        if not math.isfinite(self.noise_multiplier) or self.noise_multiplier <= 0.0:
            raise LabelCountsError(f"label counts: the noise must be positive, got {self.noise_multiplier!r}")

    @property
    def event(self) -> LabelCounts:
        """What the release does to the training patients."""
        return LabelCounts(self.noise_multiplier, PURPOSE)

    @property
    def threshold(self) -> int:
        """The least count that is told: noise alone reaches it for some code with probability at most 5%."""
        reach = self.noise_multiplier * math.sqrt(2.0 * math.log(len(self.codes) / _FALSE_CODES))
        return max(self.smallest_cell, math.ceil(reach))

    @property
    def digest(self) -> str:
        """Names these terms in the ledger, where a run has its plan."""
        terms = {
            "schema": SCHEMA,
            "codes": list(self.codes),
            "event": self.event.to_json(),
            "threshold": self.threshold,
        }
        return digest_of(canonical_json(terms))

    def told(self, noisy: Sequence[float]) -> dict[str, int]:
        """The counts that are told, whole numbers by code; post-processing of noisy counts, so it costs nothing."""
        counts = {code: round(value) for code, value in zip(self.codes, noisy, strict=True)}
        return {code: count for code, count in counts.items() if count >= self.threshold}


def check_limits(terms: CountTerms, *, delta: float, limits: Limits) -> None:
    """What the hospital allows at most holds for its own releases too. Raises LabelCountsError."""
    if terms.noise_multiplier < limits.minimum_noise_multiplier:
        raise LabelCountsError(
            f"label counts: the noise multiplier would be {terms.noise_multiplier:g}, the hospital's limits ask for at "
            f"least {limits.minimum_noise_multiplier:g}; ask for a smaller epsilon"
        )
    if delta > limits.maximum_delta:
        raise LabelCountsError(f"label counts: delta at most {limits.maximum_delta:g}, got {delta:g}")


def exact_counts(codes: Sequence[str], training: Dataset, random_bytes: RandomBytes) -> NDArray[np.int64]:
    """Private: patients per code, each with one admission drawn at random; codes outside the list are not counted.

    Returns: (codes,) int64; adding or removing one patient moves one count by at most 1.
    """
    everybody = np.arange(len(training.patients), dtype=np.int64)
    rows = one_admission_per_patient(training.patient_index, everybody, random_bytes)
    places = training.label_indices(codes)[rows]
    return np.bincount(places[places >= 0], minlength=len(codes)).astype(np.int64)


def release_label_counts(
    terms: CountTerms, *, ledger: Ledger, run_id: str, load_training: Callable[[], Dataset], random_bytes: RandomBytes
) -> dict[str, Any]:
    """Spend first, then count, then add noise.

    Args:
        ledger: the hospital's, with a budget for its training patients.
        run_id: new; it names the release in the ledger.
        load_training: opens the training side of the data set; called after the spend is durable.
        random_bytes: cryptographically secure, `os.urandom`.

    Returns: the noisy counts that are told, by code, and what an officer needs beside them.
    Raises: BudgetExceeded, BudgetMissing, LedgerError: nothing was read and nothing spent. DataError: the data set
        cannot be used; the spend stands, since a second try could not be told from a second release.
    """
    ledger.reserve(run_id, TRAINING, [terms.event], plan_hash=terms.digest)
    try:
        head = ledger.commit(run_id, KEY, terms.event, cohort=TRAINING)
        counts = exact_counts(terms.codes, load_training(), random_bytes)
        noise = discrete_gaussian(len(terms.codes), terms.noise_multiplier * _SCALE, random_bytes)
        told = terms.told(((counts * _SCALE + noise) / _SCALE).tolist())
    finally:
        ledger.close(run_id, cohort=TRAINING)
    return {
        "counts": told,
        "left_out": len(terms.codes) - len(told),
        "threshold": terms.threshold,
        "noise_std": terms.noise_multiplier,
        "terms": terms.digest,
        "event": terms.event.to_json(),
        "run_id": run_id,
        "ledger_head": ledger.hand_out(head),
    }
