"""Poisson sampling of patients."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from privacy import sampling
from privacy.errors import NoiseError
from privacy.keystream import Keystream
from privacy.sampling import poisson_sample


def seeded(text: str) -> Any:
    return Keystream(hashlib.sha256(text.encode()).digest())


@pytest.mark.parametrize("prob", [0.001, 0.1, 0.5, 0.99])
def test_sizes_are_binomial_and_not_fixed(prob: float) -> None:
    source, units, draws = seeded(f"sizes {prob}"), 1000, 2000
    sizes = np.array([len(poisson_sample(units, prob, source)) for _ in range(draws)])
    spread = math.sqrt(units * prob * (1 - prob))
    assert abs(sizes.mean() - units * prob) < 4 * spread / math.sqrt(draws)
    assert abs(sizes.var() / spread**2 - 1.0) < 0.15


def test_every_patient_is_as_likely_and_alone() -> None:
    source, units, draws = seeded("patients"), 40, 5000
    taken = np.zeros((draws, units))
    for row in taken:
        row[poisson_sample(units, 0.3, source)] = 1.0
    assert stats.chisquare(taken.sum(axis=0)).pvalue > 0.001
    centred = (taken - 0.3) / math.sqrt(0.3 * 0.7)
    correlations = (centred.T @ centred / draws)[np.triu_indices(units, 1)]
    assert np.abs(correlations).max() < 5.0 / math.sqrt(draws)


def test_a_sample_is_a_sorted_set_of_indices() -> None:
    sample = poisson_sample(10_000, 0.2, seeded("sorted"))
    assert sample.dtype == np.int64
    assert (np.diff(sample) > 0).all()
    assert sample[0] >= 0
    assert sample[-1] < 10_000


@pytest.mark.parametrize(
    ("units", "prob", "expected"),
    [(0, 0.5, []), (3, 0.0, []), (3, 1.0, [0, 1, 2]), (0, 1.0, []), (3, 5e-324, [])],
    ids=["nobody there", "nobody drawn", "everybody", "everybody of nobody", "hardly ever"],
)
def test_edges(units: int, prob: float, expected: list[int]) -> None:
    sample = poisson_sample(units, prob, seeded("edges"))
    assert sample.tolist() == expected
    assert sample.dtype == np.int64


def test_empty_samples_happen() -> None:
    source = seeded("empty")
    empty = sum(len(poisson_sample(10, 0.1, source)) == 0 for _ in range(3000))
    assert empty / 3000 == pytest.approx(0.9**10, abs=0.03)


@pytest.mark.parametrize("prob", [-0.1, 1.0000001, math.nan, math.inf, True])
def test_probabilities_out_of_range(prob: float) -> None:
    with pytest.raises(NoiseError, match="sampling_prob"):
        poisson_sample(10, prob, seeded("x"))


@pytest.mark.parametrize("units", [-1, 2.0, True, "3"])
def test_units_out_of_range(units: Any) -> None:
    with pytest.raises(NoiseError, match="patients"):
        poisson_sample(units, 0.5, seeded("x"))


class Scripted(Keystream):
    """Gives the words it was told."""

    def __init__(self, words: Iterable[int]) -> None:
        super().__init__(bytes(32))
        self._script = list(words)

    def words(self, count: int) -> NDArray[np.uint64]:
        taken, self._script = self._script[:count], self._script[count:]
        return np.array(taken, dtype=np.uint64)


@pytest.mark.parametrize(
    ("words", "below"),
    [
        pytest.param([(1 << 62) - 1], True, id="clearly below"),
        pytest.param([(1 << 62) + 1], False, id="clearly above"),
        pytest.param([1 << 62, 0], True, id="tie, then below"),
        pytest.param([1 << 62, 1 << 63], False, id="tie to the end"),
        pytest.param([1 << 62, (1 << 63) + 1], False, id="tie, then above"),
    ],
)
def test_ties_are_decided_by_further_bits(words: list[int], below: bool) -> None:
    """A uniform real below 1/4 + 2^-65, drawn 64 bits at a time."""
    assert sampling._below(Fraction(1, 4) + Fraction(1, 1 << 65), Scripted(words)) is below


def test_a_tie_in_a_sample_is_decided(monkeypatch: pytest.MonkeyPatch) -> None:
    # 2^-63 + 2^-65 as float64: threshold word 2, remainder 1/2 of a word.
    prob = 2.0**-63 + 2.0**-65
    for last, expected in (((1 << 63) - 1, [0, 1]), (1 << 63, [0])):
        stream = Scripted([1, 2, 3, last])
        monkeypatch.setattr(sampling, "keystream_from", lambda _, stream=stream: stream)
        assert poisson_sample(3, prob, bytes).tolist() == expected
