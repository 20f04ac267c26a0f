"""The discrete Gaussian sampler and the shares of the noise."""

from __future__ import annotations

import hashlib
import math
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from privacy import noise
from privacy.errors import NoiseError
from privacy.keystream import Keystream, keystream_from
from privacy.noise import discrete_gaussian, noise_shares, share_sigma


def seeded(text: str) -> Any:
    """A source of random bytes that is the same in every run."""
    return Keystream(hashlib.sha256(text.encode()).digest())


def chi_square(sample: NDArray[np.int64], sigma: float) -> float:
    """The p-value of a sample against the exact probabilities, with both tails as one cell each."""
    reach = math.ceil(4 * sigma)
    x = np.arange(-40 * reach, 40 * reach + 1, dtype=np.float64)
    weights = np.exp(-(x**2) / (2 * sigma**2))
    probabilities = np.bincount(cells(x.astype(np.int64), reach), weights / weights.sum())
    counts = np.bincount(cells(sample, reach), minlength=2 * reach + 3)
    return float(stats.chisquare(counts, len(sample) * probabilities).pvalue)


def cells(values: NDArray[np.int64], reach: int) -> NDArray[np.int64]:
    return np.clip(values, -reach - 1, reach + 1) + reach + 1


@pytest.mark.parametrize("sigma", [2.0, 2.5, 3.0, 4.7, 8.0])
def test_chi_square_against_the_exact_probabilities(sigma: float) -> None:
    sample = discrete_gaussian(1_000_000, sigma, seeded(f"chi-square {sigma}"))
    assert chi_square(sample, sigma) > 0.001


def test_the_chi_square_would_see_a_wrong_sampler() -> None:
    rounded = np.rint(np.random.default_rng(5).normal(0, 3.0, 1_000_000)).astype(np.int64)
    assert chi_square(rounded, 3.0) < 1e-4
    assert chi_square(discrete_gaussian(1_000_000, 2.97, seeded("1% too small")), 3.0) < 1e-4
    noise_and_zeros = [discrete_gaussian(990_000, 3.0, seeded("zero")), np.zeros(10_000, dtype=np.int64)]
    twice_zero = np.concatenate(noise_and_zeros)
    assert chi_square(twice_zero, 3.0) < 1e-4


@pytest.mark.parametrize("sigma", [2.0, 1000.5, 2.0**24, 2.0**40])
def test_moments(sigma: float) -> None:
    sample = discrete_gaussian(1_000_000, sigma, seeded(f"moments {sigma}"))
    scaled = sample / sigma
    assert sample.dtype == np.int64
    assert sample.shape == (1_000_000,)
    assert abs(scaled.mean()) < 4e-3  # 4 standard errors
    assert abs((scaled**2).mean() - 1.0) < 5e-3  # 0.5%, 3.5 standard errors
    assert abs(float(stats.skew(scaled))) < 1e-2
    assert abs(float(stats.kurtosis(scaled))) < 2e-2


def test_large_noise_follows_the_normal_law() -> None:
    sample = discrete_gaussian(200_000, 2.0**30, seeded("normal"))
    assert stats.kstest(sample / 2.0**30, "norm").pvalue > 0.001


def test_low_bits_are_uniform() -> None:
    """Rounded floating-point noise of this size would leave its lowest bits at zero."""
    sample = discrete_gaussian(200_000, 2.0**40, seeded("bits"))
    for bit in range(12):
        assert abs(((sample >> bit) & 1).mean() - 0.5) < 5e-3


def test_coordinates_are_independent() -> None:
    sample = discrete_gaussian(400_000, 50.0, seeded("independent")) / 50.0
    for lag in (1, 2, 3, 65_536):
        assert abs((sample[:-lag] * sample[lag:]).mean()) < 8e-3


def test_the_same_bytes_give_the_same_noise_and_others_do_not() -> None:
    first = discrete_gaussian(1000, 100.0, seeded("a"))
    assert np.array_equal(first, discrete_gaussian(1000, 100.0, seeded("a")))
    assert not np.array_equal(first, discrete_gaussian(1000, 100.0, seeded("b")))
    source = seeded("c")
    assert not np.array_equal(discrete_gaussian(1000, 100.0, source), discrete_gaussian(1000, 100.0, source))


@pytest.mark.parametrize("size", [0, 1, 2, 100, 65_537])
def test_every_size(size: int) -> None:
    sample = discrete_gaussian(size, 7.0, seeded("size"))
    assert sample.shape == (size,)
    assert sample.dtype == np.int64


@pytest.mark.parametrize("sigma", [0.0, 1.999, -3.0, 2.0**40 + 1024, math.inf, math.nan, True])
def test_sigma_out_of_range(sigma: float) -> None:
    with pytest.raises(NoiseError, match="sigma"):
        discrete_gaussian(10, sigma, seeded("x"))


@pytest.mark.parametrize("size", [-1, (1 << 28) + 1, 1.0, True])
def test_size_out_of_range(size: Any) -> None:
    with pytest.raises(NoiseError, match="size"):
        discrete_gaussian(size, 2.0, seeded("x"))


def test_the_fast_decisions_are_the_exact_ones() -> None:
    """Every decision once in float64 and once in 120 digits: the same noise from the same words."""
    count, sigma = 2000, 5.3
    fast = noise._propose(count, sigma, seeded("decisions"))
    exact: list[int] = []
    t = math.floor(sigma) + 1
    first, second, third = seeded("decisions").words(3 * count).reshape(3, count).tolist()
    for word, geometric, coin in zip(first, second, third, strict=True):
        assert word >> 1 < (1 << 63) // t * t
        magnitude = noise._decide((word >> 1) % t, geometric, coin, t, sigma, seeded("more"))
        if magnitude is not None and not (word & 1 and magnitude == 0):
            exact.append(-magnitude if word & 1 else magnitude)
    assert fast.tolist() == exact


@pytest.mark.parametrize(
    ("second", "third"),
    [
        pytest.param(int(noise._exp_thresholds()[-1]), 1 << 40, id="quotient at exp(-1)"),
        pytest.param(0, 1 << 63, id="quotient beyond the table"),
        pytest.param((1 << 64) - 1, None, id="coin at its probability"),
    ],
)
def test_undecided_proposals_take_the_exact_path(
    second: int, third: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    sigma, t = 100.0, 101
    if third is None:  # X = U = 0, so the coin falls with probability exp(-sigma^2 / (2 t^2))
        third = int(Decimal(-(sigma**2) / (2 * t * t)).exp() * (1 << 64))

    class Words(Keystream):
        def words(self, count: int) -> NDArray[np.uint64]:
            assert count == 3
            return np.array([0, second, third], dtype=np.uint64)

    calls: list[int] = []
    real = noise._decide

    def watched(*arguments: Any) -> int | None:
        calls.append(1)
        return real(*arguments)

    monkeypatch.setattr(noise, "_decide", watched)
    noise._propose(1, sigma, Words(bytes(32)))
    assert calls == [1]


def test_incomplete_cycles_of_the_residue_are_dropped() -> None:
    """Words of the last, incomplete cycle modulo t would favour small residues."""

    class Words(Keystream):
        def words(self, count: int) -> NDArray[np.uint64]:
            return np.array([((1 << 63) - 1) << 1, (1 << 64) - 1, 0], dtype=np.uint64)

    assert ((1 << 63) - 1) >= (1 << 63) // 6 * 6
    assert noise._propose(1, 5.0, Words(bytes(32))).size == 0


def test_negative_zero_is_dropped_once() -> None:
    class Words(Keystream):
        sign = 0

        def words(self, count: int) -> NDArray[np.uint64]:
            return np.array([self.sign, (1 << 64) - 1, 0], dtype=np.uint64)

    source = Words(bytes(32))
    assert noise._propose(1, 5.0, source).tolist() == [0]
    source.sign = 1
    assert noise._propose(1, 5.0, source).tolist() == []


def test_keystream_is_aes_256_ctr() -> None:
    """Against the block cipher itself, counter by counter."""
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

    seed = bytes(range(32))
    blocks = b"".join(counter.to_bytes(16, "big") for counter in range(4))
    expected = Cipher(algorithms.AES256(seed), modes.ECB()).encryptor().update(blocks)  # noqa: S305
    stream = Keystream(seed)
    assert stream(5) + stream(27) + stream(32) == expected
    assert Keystream(seed).words(8).tolist() == np.frombuffer(expected, dtype="<u8").tolist()
    with pytest.raises(NoiseError, match="32 bytes"):
        Keystream(bytes(16))
    with pytest.raises(NoiseError, match="32 bytes"):
        keystream_from(lambda count: bytes(count - 1))


@pytest.mark.parametrize(
    ("sites", "colluders", "dropouts", "shares"), [(1, 0, 0, 1), (2, 1, 0, 1), (8, 1, 1, 6), (50, 16, 10, 24)]
)
def test_shares(sites: int, colluders: int, dropouts: int, shares: int) -> None:
    assert noise_shares(sites, colluders, dropouts) == shares
    sigma = share_sigma(
        noise_multiplier=1.5, l2_sensitivity=4096.0, sites=sites, colluders=colluders, dropouts=dropouts
    )
    assert sigma == pytest.approx(1.5 * 4096.0 / math.sqrt(shares))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"colluders": 0}, "at least 1 with 4 hospitals"),
        ({"colluders": 2, "dropouts": 2}, "must be at least 1"),
        ({"sites": 0}, "sites"),
        ({"sites": 4.0}, "sites"),
        ({"dropouts": -1}, "dropouts"),
        ({"colluders": True}, "colluders"),
        ({"noise_multiplier": 0.0}, "noise_multiplier"),
        ({"noise_multiplier": math.nan}, "noise_multiplier"),
        ({"noise_multiplier": math.inf}, "noise_multiplier"),
        ({"l2_sensitivity": 0.0}, "l2_sensitivity"),
        ({"l2_sensitivity": math.inf}, "l2_sensitivity"),
    ],
)
def test_shares_that_would_not_protect(change: dict[str, Any], match: str) -> None:
    good = {"noise_multiplier": 1.0, "l2_sensitivity": 10.0, "sites": 4, "colluders": 1, "dropouts": 1}
    with pytest.raises(NoiseError, match=match):
        share_sigma(**{**good, **change})


def test_the_sum_of_the_honest_shares_has_the_promised_variance() -> None:
    """8 hospitals, 1 colluder, 1 dropout: the other 6 bring noise of noise_multiplier * sensitivity."""
    sigma = share_sigma(noise_multiplier=2.0, l2_sensitivity=1000.0, sites=8, colluders=1, dropouts=1)
    honest = np.sum([discrete_gaussian(500_000, sigma, seeded(f"site {site}")) for site in range(6)], axis=0)
    assert (honest.astype(np.float64) ** 2).mean() == pytest.approx((2.0 * 1000.0) ** 2, rel=0.008)
