"""How long sums and noise can be: the bounds hold, and are not far from the truth."""

import math
import random

import numpy as np
import pytest

from privacy.noise import discrete_gaussian
from privacy.secagg.aggregate_norm import (
    EXPONENT,
    most_sampled,
    noise_norm_bound,
    noisy_norm_bound,
    rounding_norm,
)
from privacy.secagg.errors import SecAggParameterError


def random_bytes(seed: int) -> random.Random:
    return random.Random(seed)  # noqa: S311 - a fixed seed is meant


def test_the_exponent_is_that_of_the_tail() -> None:
    assert math.exp(-EXPONENT) == pytest.approx(2.0**-64)


@pytest.mark.parametrize(("dimension", "sigma"), [(1, 3.0), (10, 2.0), (1000, 4.0), (20_000, 100.0)])
def test_noise_stays_within_its_bound(dimension: int, sigma: float) -> None:
    bound = noise_norm_bound(dimension=dimension, noise_std=sigma)
    for seed in range(10):
        noise = discrete_gaussian(dimension, sigma, random_bytes(seed).randbytes)
        assert float(np.linalg.norm(noise)) <= bound
    assert bound <= sigma * (math.sqrt(dimension) + math.sqrt(2 * EXPONENT))  # the square's expansion, from above


def test_for_long_vectors_the_bound_is_the_noises_own_length() -> None:
    assert noise_norm_bound(dimension=10**6, noise_std=1.0) == pytest.approx(1000, rel=0.008)


@pytest.mark.parametrize("signal", [0.0, 1.0, 50.0, 10_000.0])
def test_a_vector_with_noise_is_shorter_than_both_together(signal: float) -> None:
    dimension, sigma = 1000, 3.0
    noise = noise_norm_bound(dimension=dimension, noise_std=sigma)
    bound = noisy_norm_bound(signal, dimension=dimension, noise_std=sigma)
    assert max(signal, noise) <= bound <= signal + noise
    direction = np.zeros(dimension)
    direction[0] = signal
    for seed in range(10):
        noisy = direction + discrete_gaussian(dimension, sigma, random_bytes(seed).randbytes)
        assert float(np.linalg.norm(noisy)) <= bound


def test_without_noise_the_bound_is_the_signal() -> None:
    assert noisy_norm_bound(12.5, dimension=100, noise_std=0.0) == 12.5
    assert noise_norm_bound(dimension=100, noise_std=0.0) == 0.0


@pytest.mark.parametrize("rate", [0.0, 0.001, 0.01, 0.3, 0.9, 1.0])
@pytest.mark.parametrize("population", [1, 50, 5000])
def test_no_sample_is_larger(population: int, rate: float) -> None:
    most = most_sampled(population * rate, population=population)
    assert population * rate <= most <= population
    drawn = np.random.default_rng(1).binomial(population, rate, 1000)
    assert drawn.max() <= most


def test_the_bound_on_samples_is_the_tail_of_the_binomial() -> None:
    """Exactly, for 4000 patients at one in ten: above the bound lies less than 2^-64, and not absurdly less."""
    count, rate = 4000, 0.1
    most = math.floor(most_sampled(count * rate, population=count))
    tail = sum(
        math.exp(
            math.lgamma(count + 1)
            - math.lgamma(k + 1)
            - math.lgamma(count - k + 1)
            + k * math.log(rate)
            + (count - k) * math.log1p(-rate)
        )
        for k in range(most + 1, count + 1)
    )
    assert 2.0**-80 < tail < 2.0**-64


def test_rounding_moves_half_a_unit_a_coordinate() -> None:
    vectors = np.random.default_rng(2).normal(size=(7, 400)) * 100
    moved = np.rint(vectors).sum(axis=0) - vectors.sum(axis=0)
    assert float(np.linalg.norm(moved)) <= rounding_norm(dimension=400, vectors=7) == 70.0


@pytest.mark.parametrize("bad", [-1.0, math.nan, math.inf])
def test_impossible_numbers_are_refused(bad: float) -> None:
    with pytest.raises(SecAggParameterError, match="expected 0 or more"):
        noise_norm_bound(dimension=1, noise_std=bad)
    with pytest.raises(SecAggParameterError, match="expected 0 or more"):
        noisy_norm_bound(bad, dimension=1, noise_std=1.0)
    with pytest.raises(SecAggParameterError, match="expected 0 or more"):
        most_sampled(bad, population=1)
    with pytest.raises(SecAggParameterError, match="1 or more"):
        noise_norm_bound(dimension=0, noise_std=1.0)
