"""Poisson sampling of patients: each takes part independently with probability `sampling_prob`.

This is the sampling that the accountant's amplification assumes, so it is done exactly: a patient is in
if a uniform random real is below `sampling_prob`, whose binary expansion is drawn 64 bits at a time until
the comparison is decided. There is no fixed batch size and no shuffling.

Privacy: which patients are drawn, and how many, is private data. It never leaves the hospital: an empty
sample still takes part in the round with noise alone, and sums are divided by public constants only.

Source: Balle, Barthe, Gaboardi 2018, arXiv 1807.01647 (amplification by Poisson sampling).
"""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from privacy.errors import NoiseError
from privacy.keystream import Keystream, RandomBytes, keystream_from

_WORD = 1 << 64


def _below(remainder: Fraction, stream: Keystream) -> bool:
    """Whether a fresh uniform real in [0, 1) is below `remainder`, which is in [0, 1)."""
    while remainder:
        remainder *= _WORD
        threshold = math.floor(remainder)
        word = int(stream.words(1)[0])
        if word != threshold:
            return word < threshold
        remainder -= threshold
    return False


def poisson_sample(units: int, sampling_prob: float, random_bytes: RandomBytes) -> NDArray[np.int64]:
    """Draws the patients of one round.

    Args:
        units: Number of patients, >= 0. Private.
        sampling_prob: Probability of each patient, in [0, 1]. Public, from the plan.
        random_bytes: Source of randomness; `os.urandom` in production.

    Returns:
        The sampled indices in 0..units-1, ascending, int64, shape (sampled,); often a different number
        from draw to draw, and possibly none.

    Raises:
        NoiseError: If `units` is negative or `sampling_prob` is not in [0, 1].
    """
    if isinstance(units, bool) or not isinstance(units, int) or units < 0:
        raise NoiseError(f"the number of patients must be an integer >= 0, got {units!r}")
    if isinstance(sampling_prob, bool) or not 0.0 <= sampling_prob <= 1.0:
        raise NoiseError(f"sampling_prob must be in [0, 1], got {sampling_prob!r}")
    if sampling_prob == 1.0:
        return np.arange(units, dtype=np.int64)
    stream = keystream_from(random_bytes)
    scaled = Fraction(sampling_prob) * _WORD
    threshold = math.floor(scaled)
    words = stream.words(units)
    taken = words < np.uint64(threshold)
    # A word equal to the threshold (once in 2^64 patients) leaves the comparison open: draw further bits.
    for index in np.flatnonzero(words == np.uint64(threshold)):
        taken[index] = _below(scaled - threshold, stream)
    return np.flatnonzero(taken).astype(np.int64, copy=False)
