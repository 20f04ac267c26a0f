"""The terms of one run's secure aggregation, the same at every hospital and at the server.

A hospital takes them from the plan it approved, never from the server. Their digest goes into every signature
and every derived key, so two parties that hold different terms cannot even exchange a key.

All limits count from the plan's hospitals, n = `len(sites)`, also in a round where fewer take part:
  - threshold t = floor(2n/3) + 1 unless the plan asks for more. With c colluding hospitals a lying server can
    neither open two survivors' sets of one round nor learn both masks of one hospital as long as 2t > n + c,
    which the default gives for every c <= n/3.
  - minimum survivors = n - D, D the dropouts the noise was calibrated for. D <= n - t, so n - D >= t.
  - masks are shared along a graph that stays connected whichever c colluding hospitals and D missing ones are
    taken out of it, so that the others' masks cancel in the sum of all of them and in no smaller one. It is a
    Harary graph: on the circle of the sorted names, each hospital and the nearest c + D + 1. Where that is
    everybody, as with the most dropouts and few hospitals, the graph is complete.

Sources: Bonawitz et al., Practical Secure Aggregation for Privacy-Preserving Machine Learning (CCS 2017),
section 6.2 (active adversaries); Bell et al., Secure Single-Server Aggregation with (Poly)Logarithmic Overhead
(CCS 2020), masks along a sparse graph; Harary, The Maximum Connectivity of a Graph (PNAS 1962).
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import rfc8785

from privacy.secagg.errors import SecAggParameterError

MIN_SITES = 3
MAX_SITES = 50
MAX_DIMENSION = 1 << 28  # coordinates; 2 GiB in the 2^64 ring
MAX_NAME_LENGTH = 100  # characters
MAX_NAME_BYTES = 255  # in UTF-8
MAX_ROUND = (1 << 31) - 1

RingBits = Literal[32, 64]
RingVector = np.ndarray[tuple[int], np.dtype[np.uint64]] | np.ndarray[tuple[int], np.dtype[np.uint32]]
SignedVector = np.ndarray[tuple[int], np.dtype[np.int64]] | np.ndarray[tuple[int], np.dtype[np.int32]]


def default_threshold(sites: int) -> int:
    """Returns floor(2n/3) + 1, the smallest Shamir threshold that withstands a lying server."""
    return 2 * sites // 3 + 1


def threshold_against(colluders: int, *, sites: int) -> int:
    """Returns the smallest threshold that withstands a lying server with this many hospitals, from the default on.

    It may be more than `sites`: then nothing protects the others, and `SecAggParameters` refuses it.
    """
    return max(default_threshold(sites), (sites + colluders) // 2 + 1)


def is_name(value: object) -> bool:
    """Whether a value can name a hospital, consortium or run: 1-100 printable characters."""
    return (
        isinstance(value, str)
        and 1 <= len(value) <= MAX_NAME_LENGTH
        and value.isprintable()
        and len(value.encode()) <= MAX_NAME_BYTES
    )


@dataclass(frozen=True, kw_only=True)
class SecAggParameters:
    """What every party of a run agrees on before the first message.

    Attributes:
      consortium: the consortium's name.
      run_id: the run's id; a run's rounds are numbered from 1 and never reused.
      sites: the plan's hospitals, 3-50 names, sorted, each once.
      dimension: coordinates of every vector, 1-2^28.
      allowed_dropouts: D, how many of `sites` may be missing from a sum; 0 <= D <= n - threshold.
      ring_bits: 64, or 32 where `quantisation.check_no_wrap` proves the sum fits.
      shamir_threshold: at least `default_threshold(n)`, at most n; None for the default.

    Raises:
      SecAggParameterError: a value is out of its range.
    """

    consortium: str
    run_id: str
    sites: tuple[str, ...]
    dimension: int
    allowed_dropouts: int
    ring_bits: RingBits = 64
    shamir_threshold: int | None = None

    def __post_init__(self) -> None:
        for label, name in (("consortium", self.consortium), ("run_id", self.run_id)):
            if not is_name(name):
                raise SecAggParameterError(f"{label}: expected 1-{MAX_NAME_LENGTH} printable characters, got {name!r}")
        n = len(self.sites)
        if not MIN_SITES <= n <= MAX_SITES:
            raise SecAggParameterError(f"sites: expected {MIN_SITES}-{MAX_SITES} hospitals, got {n}")
        for site in self.sites:
            if not is_name(site):
                raise SecAggParameterError(
                    f"sites: expected names of 1-{MAX_NAME_LENGTH} printable characters, got {site!r}"
                )
        if list(self.sites) != sorted(set(self.sites)):
            raise SecAggParameterError(f"sites: expected sorted names, each once, got {', '.join(self.sites)}")
        if not 1 <= self.dimension <= MAX_DIMENSION:
            raise SecAggParameterError(f"dimension: expected 1-{MAX_DIMENSION}, got {self.dimension}")
        if self.ring_bits not in (32, 64):
            raise SecAggParameterError(f"ring_bits: expected 32 or 64, got {self.ring_bits}")
        least = default_threshold(n)
        if not least <= self.threshold <= n:
            raise SecAggParameterError(
                f"shamir_threshold: expected {least}-{n} for {n} hospitals, got {self.threshold}; "
                f"a smaller one lets a lying server open two sums of one round"
            )
        if not 0 <= self.allowed_dropouts <= n - self.threshold:
            raise SecAggParameterError(
                f"allowed_dropouts: expected 0-{n - self.threshold} for {n} hospitals and threshold "
                f"{self.threshold}, got {self.allowed_dropouts}; allow fewer dropouts, or fewer colluders where their "
                f"number raised the threshold above {least}"
            )

    @property
    def threshold(self) -> int:
        """How many shares open a secret, and how many must have signed one survivors' set."""
        return default_threshold(len(self.sites)) if self.shamir_threshold is None else self.shamir_threshold

    @property
    def minimum_survivors(self) -> int:
        """The fewest hospitals a sum may contain: n - D, at least the threshold."""
        return len(self.sites) - self.allowed_dropouts

    @property
    def colluders(self) -> int:
        """c, the most hospitals that may work with a lying server: 2t - n - 1, at least one."""
        return 2 * self.threshold - len(self.sites) - 1

    @property
    def mask_degree(self) -> int:
        """With how many hospitals each one shares a mask: c + D + 1, or one more, or all."""
        n, needed = len(self.sites), self.colluders + self.allowed_dropouts + 1
        if needed >= n - 1:
            return n - 1
        return needed + (needed % 2) * (n % 2)  # an odd degree needs an even number of hospitals

    def share_a_mask(self, site: str, peer: str) -> bool:
        """Whether these two hospitals share a mask; the same from both ends."""
        n, distance = len(self.sites), abs(self.index(site) - self.index(peer))
        distance = min(distance, n - distance)  # around the circle
        opposite = self.mask_degree % 2 == 1 and 2 * distance == n
        return site != peer and (distance <= self.mask_degree // 2 or opposite)

    @property
    def ring_dtype(self) -> np.dtype[np.uint64] | np.dtype[np.uint32]:
        """The dtype of a masked vector: little-endian uint64 or uint32."""
        return np.dtype("<u8") if self.ring_bits == 64 else np.dtype("<u4")

    @property
    def run_label(self) -> str:
        """The run's key in a hospital's durable memory."""
        return f"{self.consortium}/{self.run_id}"

    def index(self, site: str) -> int:
        """A hospital's x coordinate in every secret sharing of the run, 1..n."""
        return self.sites.index(site) + 1

    @cached_property
    def digest(self) -> str:
        """`sha256:` digest of the terms, in canonical JSON."""
        terms: dict[str, int | str | list[str]] = {
            "allowed_dropouts": self.allowed_dropouts,
            "consortium": self.consortium,
            "dimension": self.dimension,
            "mask_degree": self.mask_degree,
            "protocol": "zegel secagg v1",
            "ring_bits": self.ring_bits,
            "run_id": self.run_id,
            "sites": list(self.sites),
            "threshold": self.threshold,
        }
        return "sha256:" + hashlib.sha256(rfc8785.dumps(terms)).hexdigest()

    def context(self, use: str, **fields: str | int | Mapping[str, str]) -> bytes:
        """Canonical bytes that say what a key, ciphertext or signature is for.

        Canonical JSON makes it injective: two different uses, runs, rounds or peers never give the same
        bytes.
        """
        return rfc8785.dumps(
            {
                **fields,
                "consortium": self.consortium,
                "run_id": self.run_id,
                "terms": self.digest,
                "use": use,
            }
        )
