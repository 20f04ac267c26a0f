"""Integer noise for sums under secure aggregation: exact discrete Gaussians from a CSPRNG.

Each hospital adds its share of the noise to its integer vector before masking. The opened sum then holds
noise of at least `noise_multiplier * l2_sensitivity`, even when `dropouts` hospitals are missing and
`colluders` others know and subtract their own shares.

Invariants:
- Samples are integers from the first step to the last; no floating-point noise is ever rounded, so there
  are no holes in the low bits (Mironov 2012) and no negative zero.
- The sampler is exact: given uniform random bytes, P[x] is proportional to exp(-x^2 / (2 sigma^2)) over
  the integers, with `sigma` the float64 given. Comparisons are made in float64 where a bound on the rounding
  error decides them and in 120-digit arithmetic where it does not, after which at most 2^-300 per coordinate
  is left open. For 2^19 coordinates in 2^20 rounds the statistical distance is below 2^-260, nothing
  beside a delta of 10^-6; what remains is the assumption that AES-256-CTR looks random.
- A sum of n discrete Gaussians is not exactly a discrete Gaussian. The two differ by a factor of at most
  exp(tau) per coordinate, tau = 10 sum_{k<n} exp(-2 pi^2 sigma^2 k/(k+1)), which is below 10^-15 already at a
  share of 2 and far below at the millions used in practice. Hence a share below 2 is refused.

Source: Canonne, Kamath, Steinke 2020, arXiv 2004.00010, algorithm 3 (its two coins folded into one, for
speed); Kairouz, Liu, Steinke 2021, arXiv 2102.06387 (sums of discrete Gaussians).
"""

from __future__ import annotations

import math
from decimal import Decimal, localcontext
from fractions import Fraction
from functools import cache

import numpy as np
from numpy.typing import NDArray

from privacy.errors import NoiseError
from privacy.keystream import Keystream, RandomBytes, keystream_from

MIN_SIGMA = 2.0
MAX_SIGMA = 2.0**40
MAX_SIZE = 1 << 28  # coordinates: 2 GiB of int64
_CHUNK = 1 << 16  # proposals at a time, so that the arrays stay in the processor's cache
_ACCEPTANCE = 0.45  # a little under what the proposals achieve, see `_propose`
_EXTRA_BYTES = 40  # further bits for an undecided comparison
_DIGITS = 120  # of the arithmetic that decides it


def share_sigma(*, noise_multiplier: float, l2_sensitivity: float, sites: int, colluders: int, dropouts: int) -> float:
    """Standard deviation of the noise that each hospital adds.

    Formal guarantees: with at most `dropouts` hospitals missing from the sum and at most `colluders` of the
    others telling the adversary their shares, the noise unknown to the adversary has a standard deviation
    of at least `noise_multiplier * l2_sensitivity`.

    Args:
        noise_multiplier: Of the opened sum, > 0.
        l2_sensitivity: Largest change of the integer sum by one patient, in integer units, rounding
            included, > 0.
        sites: Hospitals in the plan, n.
        colluders: Hospitals that may tell their shares, t; at least 1 where there are several hospitals,
            for each knows its own share.
        dropouts: Hospitals that may be missing, D. A round with more must be aborted, not opened.

    Returns:
        `noise_multiplier * l2_sensitivity / sqrt(sites - colluders - dropouts)`.

    Raises:
        NoiseError: If a value is out of range or no honest hospital would be left to bring noise.
    """
    for name, value in (("noise_multiplier", noise_multiplier), ("l2_sensitivity", l2_sensitivity)):
        if isinstance(value, bool) or not math.isfinite(value) or value <= 0:
            raise NoiseError(f"{name} must be finite and above 0, got {value!r}")
    return noise_multiplier * l2_sensitivity / math.sqrt(noise_shares(sites, colluders, dropouts))


def noise_shares(sites: int, colluders: int, dropouts: int) -> int:
    """How many shares are sure to be in the sum and unknown to the adversary: n - t - D.

    Raises:
        NoiseError: If a number is out of range, `colluders` is 0 with several hospitals, or n - t - D < 1.
    """
    for name, count, least in (("sites", sites, 1), ("colluders", colluders, 0), ("dropouts", dropouts, 0)):
        if isinstance(count, bool) or not isinstance(count, int) or count < least:
            raise NoiseError(f"{name} must be an integer >= {least}, got {count!r}")
    if sites > 1 and colluders < 1:
        raise NoiseError(
            f"colluders must be at least 1 with {sites} hospitals: each knows and can subtract its own share"
        )
    shares = sites - colluders - dropouts
    if shares < 1:
        raise NoiseError(
            f"sites - colluders - dropouts must be at least 1, got {sites} - {colluders} - {dropouts}: "
            "add hospitals or allow fewer dropouts or colluders"
        )
    return shares


def discrete_gaussian(size: int, sigma: float, random_bytes: RandomBytes) -> NDArray[np.int64]:
    """Independent discrete Gaussian noise.

    Args:
        size: Number of coordinates, 0..2^28.
        sigma: Parameter of the distribution, 2..2^40; at these values also its standard deviation, to better
            than 1e-30.
        random_bytes: Source of randomness; `os.urandom` in production. 32 bytes seed an AES-256-CTR stream.

    Returns:
        int64, shape (size,).

    Raises:
        NoiseError: If a parameter is out of range.
    """
    if isinstance(size, bool) or not isinstance(size, int) or not 0 <= size <= MAX_SIZE:
        raise NoiseError(f"size must be an integer in [0, {MAX_SIZE}], got {size!r}")
    if isinstance(sigma, bool) or not MIN_SIGMA <= sigma <= MAX_SIGMA:
        raise NoiseError(
            f"sigma must be in [{MIN_SIGMA:g}, 2^40] integer units, got {sigma!r}: "
            "choose another scale for the integers"
        )
    stream = keystream_from(random_bytes)
    noise = np.empty(size, dtype=np.int64)
    filled = 0
    while filled < size:
        proposals = min(_CHUNK, int((size - filled) / _ACCEPTANCE) + 32)
        accepted = _propose(proposals, float(sigma), stream)[: size - filled]
        noise[filled : filled + len(accepted)] = accepted
        filled += len(accepted)
    return noise


@cache
def _exp_thresholds() -> NDArray[np.uint64]:
    """floor(exp(-k) 2^64) for k = 45..1, ascending (exp(-45) is the first below 2^-64)."""
    with localcontext(prec=_DIGITS):
        return np.array([int(Decimal(-k).exp() * (1 << 64)) for k in range(45, 0, -1)], dtype=np.uint64)


def _propose(count: int, sigma: float, stream: Keystream) -> NDArray[np.int64]:
    """The accepted ones of `count` proposals, in order.

    A proposal is X = U + t V, t = floor(sigma) + 1, U uniform on 0..t-1, V geometric with
    P[V >= k] = exp(-k), and a sign. With A = V - X^2 / (2 sigma^2) - sigma^2 / (2 t^2), which is never
    positive, accepting with probability exp(A) leaves exp(-X^2 / (2 sigma^2)); dropping the negative zero
    counts 0 once. About 0.48 of the proposals survive.
    """
    t = math.floor(sigma) + 1
    first, second, third = stream.words(3 * count).reshape(3, count)
    # U: 63 bits reduced modulo t, without the last incomplete cycle, so that every residue is equally likely.
    bits = first >> np.uint64(1)
    whole = bits < np.uint64((1 << 63) // t * t)
    residue = bits % np.uint64(t)
    # V: how many of exp(-1), exp(-2), ... are above the uniform real whose first 64 bits are `second`.
    thresholds = _exp_thresholds()
    place = np.searchsorted(thresholds, second, side="right")
    quotient = len(thresholds) - place
    open_quotient = second == thresholds[np.maximum(place - 1, 0)]
    magnitude = residue.astype(np.int64) + t * quotient
    # The coin. The exponent is off by less than 2^-44 where exp(A) > 2^-64, so exp(A) by a factor 1 +- 2^-43.
    ratio = magnitude / sigma
    probability = np.exp(quotient - 0.5 * ratio * ratio - 0.5 * (sigma / t) ** 2)
    uniform = third * 2.0**-64
    accepted = uniform < probability
    open_coin = np.abs(uniform - probability) <= probability * 2.0**-42 + 2.0**-62
    for index in np.flatnonzero(open_quotient | open_coin):
        exact = _decide(int(residue[index]), int(second[index]), int(third[index]), t, sigma, stream)
        accepted[index] = exact is not None
        magnitude[index] = 0 if exact is None else exact
    negative = (first & np.uint64(1)).astype(bool)
    accepted &= whole & ~(negative & (magnitude == 0))
    return np.where(negative, -magnitude, magnitude)[accepted]


def _decide(residue: int, second: int, third: int, t: int, sigma: float, random_bytes: RandomBytes) -> int | None:
    """One proposal again, with 320 more bits for each uniform real and 120 digits: its magnitude, or None."""
    with localcontext(prec=_DIGITS):

        def real(word: int) -> Decimal:
            extended = (word << 8 * _EXTRA_BYTES) | int.from_bytes(random_bytes(_EXTRA_BYTES), "big")
            return Decimal(extended) / (1 << (64 + 8 * _EXTRA_BYTES))

        geometric, coin = real(second), real(third)
        quotient = 0
        while geometric < Decimal(-quotient - 1).exp():
            quotient += 1
        magnitude = residue + t * quotient
        variance = Fraction(sigma) ** 2
        exponent = quotient - Fraction(magnitude) ** 2 / (2 * variance) - variance / (2 * t * t)
        return magnitude if coin < (Decimal(exponent.numerator) / exponent.denominator).exp() else None
