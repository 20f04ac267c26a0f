"""Clip, scale, round, clamp: bounds hold exactly, the ring does not wrap, and what does not fit raises."""

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privacy.secagg.errors import SecAggParameterError, SecAggRangeError
from privacy.secagg.quantisation import (
    Rounding,
    check_no_wrap,
    clip_l2,
    dequantise,
    from_ring,
    quantise,
    rounded_l2_sensitivity,
    to_ring,
)
from privacy.secagg.simulate import seeded_randomness

BOUND = 2**61


def exact_norm_squared(vector: np.ndarray[Any, np.dtype[Any]]) -> Fraction:
    return sum((Fraction(float(x)) ** 2 for x in vector), Fraction(0))


@settings(derandomize=True, max_examples=60, deadline=None)
@given(
    st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=12),
    st.floats(1e-6, 1e6),
)
def test_a_clipped_vector_is_within_the_clip_in_exact_arithmetic(values: list[float], clip: float) -> None:
    vector = np.array(values)
    clipped = clip_l2(vector, clip)
    assert exact_norm_squared(clipped) <= Fraction(clip) ** 2
    if exact_norm_squared(vector) <= (Fraction(clip) * Fraction(0.999999)) ** 2:
        assert np.array_equal(clipped, vector)


@pytest.mark.parametrize("rounding", list(Rounding))
def test_neighbours_differ_by_at_most_the_rounded_sensitivity(rounding: Rounding) -> None:
    rng = np.random.default_rng(5)
    for dimension in (1, 3, 50, 400):
        for scale in (1.0, 16.0, 1000.0):
            limit = rounded_l2_sensitivity(l2_clip=0.2, scale=scale, dimension=dimension)
            for _ in range(20):
                patients = [clip_l2(rng.normal(size=dimension), 0.2) for _ in range(6)]
                with_all, without = np.sum(patients, axis=0), np.sum(patients[1:], axis=0)
                a, b = (
                    quantise(x, scale=scale, bound=BOUND, rounding=rounding, randomness=seeded_randomness(1))
                    for x in (with_all, without)
                )
                assert float(np.linalg.norm(a - b)) <= limit


def test_the_sensitivity_formula_and_that_rounding_needs_its_second_term() -> None:
    assert rounded_l2_sensitivity(l2_clip=0.5, scale=8.0, dimension=9) == 7.0
    x, y = np.full(100, 0.49), np.full(100, 0.51)
    moved = quantise(y, scale=1.0, bound=BOUND) - quantise(x, scale=1.0, bound=BOUND)
    assert float(np.linalg.norm(moved)) == 10.0  # although the vectors are only 0.2 apart


@pytest.mark.parametrize(
    ("value", "integer"), [(0.5, 0), (1.5, 2), (-0.5, 0), (-2.5, -2), (2.4, 2), (-2.6, -3), (1e30, BOUND)]
)
def test_nearest_rounding_and_clamping(value: float, integer: int) -> None:
    assert quantise(np.array([value]), scale=1.0, bound=BOUND).tolist() == [integer]


def test_the_clamp_never_rounds_up() -> None:
    bound = 2**61 - 1  # not a float64
    assert int(quantise(np.array([1e30]), scale=1.0, bound=bound)[0]) <= bound
    assert int(quantise(np.array([-1e30]), scale=1.0, bound=bound)[0]) >= -bound


def test_stochastic_rounding_is_unbiased_and_never_further_than_one() -> None:
    values = np.tile(np.array([0.25, -0.25, 3.9, 7.0]), 50_000)
    rounded = quantise(values, scale=1.0, bound=BOUND, rounding=Rounding.STOCHASTIC, randomness=seeded_randomness(3))
    assert float(np.abs(rounded - values).max()) < 1
    means = rounded.reshape(-1, 4).mean(axis=0)
    assert np.allclose(means, [0.25, -0.25, 3.9, 7.0], atol=5 * 0.5 / 50_000**0.5)
    assert means[3] == 7.0
    with pytest.raises(ValueError, match="needs randomness"):
        quantise(values, scale=1.0, bound=BOUND, rounding=Rounding.STOCHASTIC)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1e308])
def test_what_is_not_finite_is_refused(bad: float) -> None:
    with pytest.raises(SecAggRangeError, match="finite"):
        quantise(np.array([0.0, bad]), scale=100.0, bound=BOUND)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_clipping_refuses_what_is_not_finite(bad: float) -> None:
    with pytest.raises(SecAggRangeError, match="leave the record out"):
        clip_l2(np.array([0.0, bad]), 1.0)


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf])
def test_clip_and_scale_are_positive_and_finite(bad: float) -> None:
    for call in (
        lambda: clip_l2(np.ones(2), bad),
        lambda: quantise(np.ones(2), scale=bad, bound=5),
        lambda: dequantise(np.ones(2, np.int64), scale=bad),
        lambda: rounded_l2_sensitivity(l2_clip=bad, scale=1, dimension=1),
        lambda: rounded_l2_sensitivity(l2_clip=1, scale=bad, dimension=1),
    ):
        with pytest.raises(SecAggParameterError, match="positive finite"):
            call()


def test_dequantise_undoes_the_scale() -> None:
    vector = np.array([0.5, -3.25, 100.0])
    assert np.array_equal(dequantise(quantise(vector, scale=16.0, bound=BOUND), scale=16.0), vector)
    assert dequantise(np.array([-8], np.int32), scale=16.0).tolist() == [-0.5]


PLAN: dict[str, Any] = {
    "ring_bits": 32,
    "sites": 10,
    "dimension": 1_000_000,
    "l2_clip": 0.2,
    "scale": 10_000.0,
    "noise_std": 700.0,
    "sampled_patients_per_site": 500,
}


def test_a_plan_that_fits_and_the_largest_number_of_patients() -> None:
    proof = check_no_wrap(**PLAN)
    assert proof.capacity == 2**31 - 1
    assert proof.bound == 1_000_001
    assert 10 * proof.bound + proof.noise <= proof.capacity
    largest = proof.max_patients_per_site
    check_no_wrap(**(PLAN | {"sampled_patients_per_site": largest}))
    with pytest.raises(SecAggParameterError, match=rf"holds {largest} sampled patients"):
        check_no_wrap(**(PLAN | {"sampled_patients_per_site": largest + 1}))


def test_the_noise_bound_is_its_tail_at_two_to_the_minus_64() -> None:
    proof = check_no_wrap(**PLAN)
    std = 700.0 * 10**0.5
    assert 10.0 < proof.noise / std < 11.0  # 1e6 coordinates, 2^-64: about 10.8 standard deviations
    tail = 2 * PLAN["dimension"] * math.exp(-(proof.noise**2) / (2 * std**2))
    assert tail <= 2.0**-64
    assert check_no_wrap(**(PLAN | {"noise_std": 0.0})).noise == 0


@pytest.mark.parametrize(
    "change",
    [
        {"sampled_patients_per_site": 2_000_000},
        {"scale": 1e9},
        {"l2_clip": 1e5},
        {"noise_std": 1e9},
        {"ring_bits": 64, "scale": 1e18},
        {"sampled_patients_per_site": 0},
        {"noise_std": -1.0},
        {"noise_std": math.nan},
        {"scale": 1e308, "l2_clip": 1e308},
    ],
)
def test_a_plan_that_may_wrap_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(SecAggParameterError):
        check_no_wrap(**(PLAN | change))


def test_the_64_bit_ring_holds_what_the_32_bit_ring_does_not() -> None:
    wide = PLAN | {"scale": 1e8}
    with pytest.raises(SecAggParameterError, match=r"use the 2\^64 ring"):
        check_no_wrap(**wide)
    assert check_no_wrap(**(wide | {"ring_bits": 64})).capacity == 2**63 - 1


@pytest.mark.parametrize("bits", [32, 64])
def test_the_ring_round_trips_every_signed_value(bits: Any) -> None:
    edge = 2 ** (bits - 1)
    values = np.array([0, 1, -1, edge - 1, -edge], dtype=np.int64)
    ring = to_ring(values, dimension=5, ring_bits=bits)
    assert ring.tolist() == [0, 1, 2**bits - 1, edge - 1, edge]
    assert from_ring(ring).tolist() == values.tolist()
    ring[0] = 9
    assert values[0] == 0  # a copy


@pytest.mark.parametrize(
    "vector",
    [
        np.zeros(3, np.int64),
        np.zeros((2, 2), np.int64),
        np.zeros(4, np.float64),
        np.zeros(4, np.int32),
        np.array([0, 0, 0, 2**31], np.int64),
        np.array([0, 0, 0, -(2**31) - 1], np.int64),
        [0, 0, 0, 0],
    ],
)
def test_the_ring_refuses_other_vectors(vector: Any) -> None:
    with pytest.raises(SecAggRangeError, match="vector: expected"):
        to_ring(vector, dimension=4, ring_bits=32)
