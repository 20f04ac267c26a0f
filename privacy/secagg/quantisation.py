"""From a clipped float sum to integers of the ring and back, with the bounds that make it safe.

A hospital adds its sampled patients' clipped vectors in float64, scales and rounds the sum once, clamps it,
adds its integer noise (elsewhere) and hands the int64 vector to `SecAggClient.mask`.

Invariants:
  - `rounded_l2_sensitivity` bounds how far the rounded sum moves when one patient is added or removed; noise
    is calibrated to it, not to the clip alone;
  - `check_no_wrap` proves, before the run, that the noisy sum over all hospitals stays inside the ring except
    with probability 2^-64; clamping enforces the proof's premise without telling anything about the data;
  - apart from that clamp no value is wrapped, cut or replaced: what is not finite or does not fit raises.

Sources: Kairouz, Liu, Steinke, The distributed discrete Gaussian mechanism for federated learning (2021);
Canonne, Kamath, Steinke, The discrete Gaussian for differential privacy (2020), for the sub-Gaussian tail.
"""

import enum
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from privacy.secagg.errors import SecAggParameterError, SecAggRangeError
from privacy.secagg.parameters import RingBits, RingVector, SignedVector

FloatVector = np.ndarray[Any, np.dtype[np.float64]]
IntVector = np.ndarray[Any, np.dtype[np.int64]]

CLIP_MARGIN = 2.0**-20  # relative; keeps float64 rounding of norms and sums inside the clip
TAIL = 2.0**-64  # accepted probability that noise carries a sum out of the ring, per round
MAX_INTEGER = 2.0**62  # clamp bounds stay below it, so float64 -> int64 is exact in range
_BLOCK = 1 << 16  # coordinates of random bits drawn at a time


class Rounding(enum.Enum):
    """How a scaled coordinate becomes an integer. Both have the same sensitivity bound."""

    NEAREST = "nearest"  # half to even; error at most 1/2
    STOCHASTIC = "stochastic"  # unbiased; error below 1


def clip_l2(vector: FloatVector, l2_clip: float) -> FloatVector:
    """Scales a vector down to an L2 norm of at most `l2_clip`; a shorter one is returned as it is.

    A clipped vector gets norm (1 - 2^-20) * l2_clip. The margin covers the float64 error of the norm
    (relative d * 2^-53 at worst, d <= 2^28), of adding up to 2^15 such vectors (2 * 2^30 * 2^-53 = 2^-22) and
    of scaling their sum (2^-37), so that one patient moves the sum as computed by at most `l2_clip`.

    Args:
      vector: one patient's vector; computed with in float64, whatever it comes in. Private.
      l2_clip: positive.

    Raises:
      SecAggRangeError: a coordinate is NaN or infinite.
      SecAggParameterError: the clip is not positive and finite.
    """
    _positive("l2_clip", l2_clip)
    vector = np.asarray(vector, dtype=np.float64)
    if not np.isfinite(vector).all():
        raise SecAggRangeError("vector: expected finite coordinates; leave the record out and count it")
    largest = float(np.abs(vector).max(initial=0.0))
    if largest == 0.0:
        return vector
    # Through the largest coordinate, so that squares neither overflow nor vanish.
    direction: FloatVector = vector / largest
    length = float(np.linalg.norm(direction))  # 1 to sqrt(d)
    limit = l2_clip * (1 - CLIP_MARGIN)
    if largest <= limit / length:
        return vector
    direction *= limit / length
    return direction


def quantise(
    vector: FloatVector,
    *,
    scale: float,
    bound: int,
    rounding: Rounding = Rounding.NEAREST,
    randomness: Callable[[int], bytes] | None = None,
) -> IntVector:
    """Scales a hospital's sum, rounds each coordinate and clamps it to [-bound, bound].

    Clamping moves no two vectors apart, so it does not raise the sensitivity, and unlike an error it does not
    show the server that the bound was met.

    Args:
      vector: float64, any length, private.
      scale: integer units per unit of the vector, positive.
      bound: from `NoWrap.bound`, below 2^62.
      rounding: nearest (half to even) or stochastic.
      randomness: cryptographically secure bytes; needed for stochastic rounding.

    Returns:
      int64, same length, private.

    Raises:
      SecAggRangeError: a coordinate is NaN or infinite, before or after scaling.
    """
    _positive("scale", scale)
    if not 1 <= bound < MAX_INTEGER:
        raise SecAggParameterError(f"bound: expected 1 to 2^62, got {bound}")
    with np.errstate(over="ignore", invalid="ignore"):
        scaled: FloatVector = vector.astype(np.float64) * scale
    if not np.isfinite(scaled).all():
        raise SecAggRangeError("vector: expected finite coordinates, also after scaling; got NaN or infinity")
    if rounding is Rounding.NEAREST:
        np.rint(scaled, out=scaled)
    else:
        if randomness is None:
            raise ValueError("stochastic rounding needs randomness")
        for start in range(0, scaled.size, _BLOCK):
            block = scaled[start : start + _BLOCK]
            words = np.frombuffer(randomness(8 * block.size), dtype="<u8")
            uniform = (words >> np.uint64(11)).astype(np.float64) * 2.0**-53  # in [0, 1)
            floor = np.floor(block)
            block[:] = floor + (block - floor + uniform >= 1.0)
    # The largest float64 not above `bound`, so that the clamp is never a rounding up.
    limit = float(bound) if int(float(bound)) <= bound else math.nextafter(float(bound), 0.0)
    np.clip(scaled, -limit, limit, out=scaled)
    return scaled.astype(np.int64)


def dequantise(total: SignedVector, *, scale: float) -> FloatVector:
    """Integers back to the vector's units: float64, `total / scale`."""
    _positive("scale", scale)
    return total.astype(np.float64) / scale


def rounded_l2_sensitivity(*, l2_clip: float, scale: float, dimension: int) -> float:
    """L2 sensitivity of `quantise` of a hospital's sum, in integer units: l2_clip * scale + sqrt(dimension).

    Formal guarantee: let x and x' be the sums with and without one patient, so |x - x'|_2 <= l2_clip. Then
    the rounded sums differ by at most the returned value in L2 norm, for every outcome of the rounding's
    randomness.

    Proof. Both roundings are R(y) = floor(y + u) per coordinate, up to ties: u = 1/2 for nearest, u uniform
    on [0, 1) and drawn independently of the data for stochastic; the same u serves both neighbours. From
    a - 1 < floor(a) <= a follows |floor(a) - floor(b)| < |a - b| + 1; for half to even, |rint(a) - a| <= 1/2
    gives |rint(a) - rint(b)| <= |a - b| + 1. So |R(s x) - R(s x')| <= s |x - x'| + 1 in every coordinate, and
    by the triangle inequality the L2 norm is at most s * l2_clip + |(1, ..., 1)|_2 = s * l2_clip + sqrt(d).
    Clamping is 1-Lipschitz in every coordinate and cannot enlarge it. For stochastic rounding the bound holds
    given u; a mechanism that is (eps, delta)-DP for every fixed u is (eps, delta)-DP when u is random. []

    The premise |x - x'|_2 <= l2_clip is about the sum as computed: add clipped vectors (`clip_l2`) in
    float64.

    Args:
      l2_clip: bound on one patient's vector, positive.
      scale: integer units per unit of the vector, positive.
      dimension: coordinates, 1 or more.
    """
    _positive("l2_clip", l2_clip)
    _positive("scale", scale)
    if dimension < 1:
        raise SecAggParameterError(f"dimension: expected 1 or more, got {dimension}")
    return l2_clip * scale + math.sqrt(dimension)


@dataclass(frozen=True)
class NoWrap:
    """The proof that a plan's noisy sum stays inside the ring.

    Attributes:
      bound: largest size of a hospital's rounded coordinate; give it to `quantise`.
      noise: largest size of the summed noise in any coordinate, except with probability 2^-64.
      capacity: largest positive value of the ring, 2^(bits-1) - 1; n * bound + noise <= capacity.
      max_patients_per_site: the most sampled patients per hospital the ring leaves room for without clamping.
    """

    bound: int
    noise: int
    capacity: int
    max_patients_per_site: int


def check_no_wrap(
    *,
    ring_bits: RingBits,
    sites: int,
    dimension: int,
    l2_clip: float,
    scale: float,
    noise_std: float,
    sampled_patients_per_site: int,
) -> NoWrap:
    """Proves that the noisy sum of all hospitals cannot wrap, or refuses the plan.

    A coordinate of one hospital's sum of m clipped vectors is at most m * l2_clip, so at most
    bound = ceil(m * l2_clip * scale) + 1 after scaling and rounding, and `quantise` clamps to it. The noise
    summed over n hospitals has variance v = n * noise_std^2. Discrete Gaussians are sub-Gaussian, Skellam's
    log-moment-generating function is v (cosh(a) - 1) <= v a^2 / (2 (1 - a/3)), so both are sub-gamma and
    Pr[|noise| > sqrt(2 v L) + L/3 in any of d coordinates] <= 2 d exp(-L) = 2^-64 at L = ln(2 d 2^64).

    Args:
      ring_bits: 32 or 64.
      sites: n, hospitals of the plan.
      dimension: d, coordinates.
      l2_clip: bound on one patient's vector.
      scale: integer units per unit of the vector.
      noise_std: standard deviation of ONE hospital's noise, in integer units; 0 for none.
      sampled_patients_per_site: m, the plan's cap on sampled patients that are not clamped.

    Raises:
      SecAggParameterError: n * bound + noise is more than 2^(bits-1) - 1; says what would fit.
    """
    _positive("l2_clip", l2_clip)
    _positive("scale", scale)
    if not (math.isfinite(noise_std) and noise_std >= 0):
        raise SecAggParameterError(f"noise_std: expected 0 or more, got {noise_std}")
    if sites < 1 or dimension < 1 or sampled_patients_per_site < 1:
        raise SecAggParameterError("expected sites, dimension and sampled_patients_per_site of 1 or more")
    capacity = (1 << (ring_bits - 1)) - 1
    exponent = math.log(2 * dimension / TAIL)
    tail = noise_std * math.sqrt(2 * sites * exponent) + exponent / 3 if noise_std else 0.0
    per_patient = l2_clip * scale
    if not (math.isfinite(tail) and math.isfinite(sampled_patients_per_site * per_patient)):
        raise SecAggParameterError("noise_std, l2_clip or scale: the bound overflows; choose a smaller scale")
    noise = math.ceil(tail)
    room = (capacity - noise) // sites - 2  # per hospital, less the rounding's 1 and the ceiling's 1
    fitting = max(0, math.floor(room / per_patient)) if room > 0 else 0
    bound = math.ceil(sampled_patients_per_site * per_patient) + 1
    if sites * bound + noise > capacity or bound >= MAX_INTEGER:
        raise SecAggParameterError(
            f"the noisy sum of {sites} hospitals may reach {sites * bound + noise}, more than the "
            f"2^{ring_bits} ring's {capacity}; at this clip, scale and noise it holds {fitting} sampled "
            f"patients per hospital, asked for {sampled_patients_per_site}: lower the scale or use the "
            f"2^64 ring"
        )
    return NoWrap(bound, noise, capacity, fitting)


def to_ring(vector: IntVector, *, dimension: int, ring_bits: RingBits) -> RingVector:
    """A signed vector as a fresh ring vector, in two's complement.

    Raises:
      SecAggRangeError: not int64, not one axis of `dimension`, or a value outside the 2^32 ring's signed
        range.
    """
    if not isinstance(vector, np.ndarray) or vector.dtype != np.dtype(np.int64):
        raise SecAggRangeError(f"vector: expected int64, got {getattr(vector, 'dtype', type(vector).__name__)}")
    if vector.shape != (dimension,):
        raise SecAggRangeError(f"vector: expected shape ({dimension},), got {vector.shape}")
    if ring_bits == 64:
        return vector.astype("<u8")
    low, high = -(1 << 31), (1 << 31) - 1
    if int(vector.min()) < low or int(vector.max()) > high:
        raise SecAggRangeError(f"vector: expected values of {low} to {high} in the 2^32 ring; use the 2^64 ring")
    return vector.astype("<u4")


def from_ring(vector: RingVector) -> SignedVector:
    """A ring vector read as signed: int64 or int32, sharing its memory."""
    return vector.view("<i8") if vector.dtype == np.dtype("<u8") else vector.view("<i4")


def _positive(name: str, value: float) -> None:
    if not (math.isfinite(value) and value > 0):
        raise SecAggParameterError(f"{name}: expected a positive finite number, got {value}")
