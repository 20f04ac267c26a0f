"""How long the opened sum of honest hospitals can be: a bound from public numbers alone.

Masks hide what one hospital sends, so a vector far longer than its patients' clipped vectors can make it cannot be seen
on the way. What can be looked at is the sum. The bounds here hold for honest hospitals except with a probability of
3 * 2^-64; a sum beyond them is not one of honest hospitals.

What that finds, and what not: let B be the bound on the signal and s the standard deviation of the noise in the sum. A
vector whose length exceeds twice the bound is always found. One of length p hides where p^2 is below about
B^2 + 2 B s sqrt(2 x) + 2 s^2 sqrt(d x): the longer the noise (s sqrt(d)), the longer a vector that drowns in it. And
nothing says whose it is, nor that a vector within the bound is an honest one.

Sources: Hsu, Kakade, Zhang, A tail inequality for quadratic forms of subgaussian random vectors (2012), theorem 2.1
with the unit matrix; Boucheron, Lugosi, Massart, Concentration Inequalities (2013), section 2.8 (Bernstein); Canonne,
Kamath, Steinke, The discrete Gaussian for differential privacy (2020): sub-Gaussian with its own parameter.
"""

import math

from privacy.secagg.errors import SecAggParameterError
from privacy.secagg.quantisation import TAIL

EXPONENT = -math.log(TAIL)  # x: each inequality below fails with probability at most exp(-x)


def most_sampled(expected: float, *, population: float) -> float:
    """The most patients that Poisson sampling takes, except with probability 2^-64.

    Args:
      expected: the number expected, 0 or more.
      population: how many there are at most.
    """
    _at_least_zero(expected=expected, population=population)
    return min(population, expected + math.sqrt(2 * expected * EXPONENT) + EXPONENT / 3)


def noise_norm_bound(*, dimension: int, noise_std: float) -> float:
    """L2 norm of `dimension` independent discrete Gaussians, or sums of them, except with probability 2^-64.

    |N|^2 <= s^2 (d + 2 sqrt(d x) + 2 x).
    """
    _at_least_zero(noise_std=noise_std)
    if dimension < 1:
        raise SecAggParameterError(f"dimension: expected 1 or more, got {dimension}")
    return noise_std * math.sqrt(dimension + 2 * math.sqrt(dimension * EXPONENT) + 2 * EXPONENT)


def noisy_norm_bound(signal: float, *, dimension: int, noise_std: float) -> float:
    """L2 norm of a vector S of at most `signal` plus noise N that does not depend on it, but with probability 2^-63.

    |S + N|^2 = |S|^2 + 2 <S, N> + |N|^2, and <S, N> is sub-Gaussian with parameter |S| s, so at most
    |S| s sqrt(2 x). That is below (|S| + |N|)^2, and by much where the noise is long.
    """
    _at_least_zero(signal=signal)
    noise = noise_norm_bound(dimension=dimension, noise_std=noise_std)
    return math.sqrt(signal**2 + 2 * signal * noise_std * math.sqrt(2 * EXPONENT) + noise**2)


def rounding_norm(*, dimension: int, vectors: int) -> float:
    """The most that rounding moves a sum of so many vectors, in integer units: half a unit in each coordinate."""
    return vectors * math.sqrt(dimension) / 2


def _at_least_zero(**values: float) -> None:
    for name, value in values.items():
        if not (math.isfinite(value) and value >= 0):
            raise SecAggParameterError(f"{name}: expected 0 or more, got {value}")
