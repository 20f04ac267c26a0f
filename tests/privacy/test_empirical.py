"""The bound's formula and edge cases, and what each direct test sees and does not see."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from privacy.empirical import GUESS_SHARES, epsilon_lower_bound, one_run, p_value
from privacy.empirical_checks import (
    Check,
    contribution,
    noise_fresh,
    noise_shape,
    noise_variance,
    sampling,
)
from privacy.errors import AccountingError

ALARM = 1e-3


def generator(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


# -- one run ---------------------------------------------------------------------------------------------------------


def by_the_paper(m: int, r: int, v: int, epsilon: float, delta: float) -> float:
    """Theorem 5.2 of arXiv 2305.08846, term by term."""
    p = math.exp(epsilon) / (1 + math.exp(epsilon))

    def at_least(k: int) -> float:
        return math.fsum(math.comb(r, w) * p**w * (1 - p) ** (r - w) for w in range(max(k, 0), r + 1))

    beta = at_least(v)
    return beta + 2 * m * delta * max(((at_least(v - i) - beta) / i for i in range(1, v + 1)), default=0.0)


@pytest.mark.parametrize(
    ("m", "r", "v", "epsilon", "delta"),
    [
        (10, 10, 10, 0.0, 0.0),
        (10, 4, 3, 0.5, 1e-3),
        (50, 20, 18, 1.0, 1e-5),
        (50, 20, 0, 1.0, 1e-2),
        (60, 40, 30, 2.0, 1e-2),
        (60, 0, 0, 1.0, 1e-2),
    ],
)
def test_the_p_value_is_the_theorems(m: int, r: int, v: int, epsilon: float, delta: float) -> None:
    assert p_value(m, r, v, epsilon, delta) == pytest.approx(min(1.0, by_the_paper(m, r, v, epsilon, delta)))


def test_a_coin_cannot_be_refuted_and_a_certain_guesser_can() -> None:
    assert epsilon_lower_bound(1000, 500, 250, 1e-6) == 0.0
    assert epsilon_lower_bound(1000, 0, 0, 1e-6) == 0.0
    # All of r guesses right, delta 0: p^r = 0.05, so epsilon = ln(p / (1 - p)) with p = 0.05^(1/r).
    for guesses in (1, 10, 200):
        p = 0.05 ** (1 / guesses)
        wanted = max(0.0, math.log(p / (1 - p)))
        assert epsilon_lower_bound(500, guesses, guesses, 0.0) == pytest.approx(wanted, abs=2e-4)


def test_a_delta_weakens_the_bound() -> None:
    bounds = [epsilon_lower_bound(1000, 100, 95, delta) for delta in (0.0, 1e-6, 1e-4, 1e-3, 1.0)]
    assert bounds == sorted(bounds, reverse=True)
    assert bounds[0] > 2 > 0 == bounds[-1]


@settings(derandomize=True, max_examples=30, deadline=None)
@given(r=st.integers(1, 60), share=st.floats(0, 1), delta=st.sampled_from([0.0, 1e-6, 1e-3]))
def test_everything_below_the_bound_is_refuted_and_the_bound_is_not(r: int, share: float, delta: float) -> None:
    v = round(share * r)
    bound = epsilon_lower_bound(2 * r, r, v, delta)
    assert p_value(2 * r, r, v, bound + 2e-4, delta) >= 0.05 - 1e-9
    for below in np.linspace(0, bound, 7)[:-1] if bound else ():
        assert p_value(2 * r, r, v, float(below), delta) < 0.05 + 1e-9


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((10, 11, 5, 1e-6), "guesses"),
        ((10, 5, 6, 1e-6), "correct"),
        ((10, 5, -1, 1e-6), "correct"),
        ((0, 0, 0, 1e-6), "canaries"),
        ((10, 5, 5, -0.1), "delta"),
        ((10, 5, 5, 1.1), "delta"),
        ((10, 5, 5, math.nan), "delta"),
        ((10, 5, 5, 1e-6, 1.0), "confidence"),
        ((10, 5, 5, 1e-6, math.nan), "confidence"),
    ],
)
def test_what_has_no_answer_is_refused(arguments: tuple[int, int, int, float], told: str) -> None:
    with pytest.raises(AccountingError, match=told):
        epsilon_lower_bound(*arguments)
    with pytest.raises(AccountingError, match="epsilon"):
        p_value(10, 5, 5, -1.0, 0.0)


def randomised_response(count: int, epsilon: float, seed: int) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Each canary's coin, told truly with probability e^eps / (1 + e^eps): exactly epsilon-private."""
    rng = generator(seed)
    included = rng.random(count) < 0.5
    truly = rng.random(count) < 1 / (1 + math.exp(-epsilon))
    return np.where(included == truly, 1.0, -1.0) + rng.random(count) * 0.1, included


def test_a_tight_mechanism_gives_a_tight_bound_that_is_seldom_above_the_truth() -> None:
    found = [one_run(*randomised_response(2000, 1.0, seed), claim=1.0, delta=0.0) for seed in range(60)]
    bounds = [each.lower_bound for each in found]
    assert sum(bound > 1.0 for bound in bounds) <= 6  # 3 expected at most; 7 or more in 1 of 30
    assert np.mean(bounds) > 0.7
    assert sum(each.p_value < ALARM for each in found) == 0


def test_a_false_claim_is_refuted() -> None:
    scores, included = randomised_response(2000, 2.0, seed=1)
    assert one_run(scores, included, claim=1.0, delta=1e-9).p_value < 1e-6
    assert one_run(scores, included, claim=math.inf, delta=1e-6).p_value == 1.0


def test_the_guesses_are_the_extremes_and_bad_scores_are_refused() -> None:
    included = np.array([True, False] * 50)
    perfect = one_run(np.where(included, 1.0, -1.0), included, claim=0.1, delta=0.0)
    assert perfect.correct == perfect.guesses == 50
    assert perfect.canaries == 100
    inverted = one_run(np.where(included, -1.0, 1.0), included, claim=0.1, delta=0.0)
    assert (inverted.correct, inverted.lower_bound) == (0, 0.0)
    single = one_run(np.array([1.0]), np.array([True]), claim=1.0, delta=0.0)
    assert (single.guesses, single.p_value) == (0, 1.0)
    for scores in (np.array([1.0, math.nan]), np.zeros(0), np.zeros(3)):
        with pytest.raises(AccountingError):
            one_run(scores, included[: len(scores) if len(scores) == 2 else 0], claim=1.0, delta=0.0)
    assert len(GUESS_SHARES) == len(set(GUESS_SHARES))


# -- noise -----------------------------------------------------------------------------------------------------------


def noise(seed: int, *, releases: int = 5, size: int = 4000) -> list[NDArray[np.float64]]:
    return list(generator(seed).standard_normal((releases, size)))


NOISE_TESTS: tuple[Callable[..., Check], ...] = (noise_variance, noise_shape, noise_fresh)


@pytest.mark.parametrize("test", NOISE_TESTS, ids=lambda test: test.__name__)
def test_sound_noise_fails_as_seldom_as_promised(test: Callable[..., Check]) -> None:
    chances = np.array([test(noise(seed, size=1000), false_alarm=ALARM).p_value for seed in range(300)])
    assert (chances < ALARM).sum() == 0
    for level in (0.05, 0.2):  # never more often than promised, up to chance
        assert stats.binomtest(int((chances < level).sum()), 300, level, alternative="greater").pvalue > 1e-3


@pytest.mark.parametrize(
    ("spoil", "failing"),
    [
        (lambda each: [0 * one for one in each], {"noise-variance", "noise-shape"}),
        (lambda each: [one / 4 for one in each], {"noise-variance"}),
        (lambda each: [one * 0.95 for one in each], {"noise-variance"}),
        (lambda each: [one * 1.05 for one in each], {"noise-variance"}),
        (lambda each: [*each[:-1], each[-1] * 0.8], {"noise-variance"}),
        (lambda each: [*each[:-2], each[-1] * 0.8, each[-1] * 1.2], {"noise-variance", "noise-fresh"}),
        (lambda each: [*each[:-1], each[0]], {"noise-fresh"}),
        (lambda each: [*each[:-1], -each[0]], {"noise-fresh"}),
        (lambda each: [np.sign(one) for one in each], {"noise-shape"}),
        (lambda each: [(one**2 - 1) / math.sqrt(2) for one in each], {"noise-shape"}),
    ],
    ids=[
        "off",
        "quarter",
        "less",
        "more",
        "one round less",
        "errors that cancel",
        "reused",
        "negated",
        "signs",
        "skewed",
    ],
)
def test_spoilt_noise_is_named(
    spoil: Callable[[list[NDArray[np.float64]]], list[NDArray[np.float64]]], failing: set[str]
) -> None:
    spoilt = spoil(noise(1))
    found = {check.name for test in NOISE_TESTS if not (check := test(spoilt, false_alarm=ALARM)).passed}
    # A reused release also makes the shape's sample smaller than it looks, which may or may not show.
    assert found - {"noise-shape"} == failing - {"noise-shape"}
    assert failing <= found


def test_noise_variance_measures_and_gives_an_interval() -> None:
    check = noise_variance(noise(2, size=50_000), false_alarm=ALARM)
    assert check.lower is not None and check.upper is not None
    assert check.lower < check.measured < check.upper
    assert check.upper - check.lower == pytest.approx(2 * 1.96 * math.sqrt(2 / 250_000), rel=0.02)


@pytest.mark.parametrize("test", NOISE_TESTS, ids=lambda test: test.__name__)
def test_too_little_noise_to_test_is_an_error(test: Callable[..., Check]) -> None:
    for releases in ([], noise(1, size=10), [*noise(1), np.zeros(3)], [np.full(2000, math.nan)] * 2):
        with pytest.raises(AccountingError, match="noise"):
            test(releases, false_alarm=ALARM)
    with pytest.raises(AccountingError, match="same length"):
        noise_fresh([np.zeros(1000), np.zeros(1001)], false_alarm=ALARM)


# -- contributions and sampling --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "q", "passes"), [(1.0, 1.0, True), (1.0, 0.25, True), (2.0, 1.0, False), (4.0, 0.25, False)]
)
def test_contributions_above_the_clip_fail(size: float, q: float, passes: bool) -> None:
    rng = generator(3)
    took_part = rng.random((20, 400)) < q
    check = contribution(
        took_part * size + 8 * rng.standard_normal((20, 400)), noise_std=8, sampling_prob=q, false_alarm=ALARM
    )
    assert check.passed is passes
    assert check.lower is not None and check.upper is not None
    assert check.lower < size < check.upper


def test_contributions_need_something_to_measure() -> None:
    for shape, std, q in (((0, 3), 1.0, 1.0), ((2, 2), 0.0, 1.0), ((2, 2), 1.0, 0.0)):
        with pytest.raises(AccountingError, match="contribution"):
            contribution(np.zeros(shape), noise_std=std, sampling_prob=q, false_alarm=ALARM)


def poisson(seed: int, q: float = 0.25) -> NDArray[np.bool_]:
    return np.asarray(generator(seed).random((200, 200)) < q)


def test_poisson_sampling_fails_as_seldom_as_promised() -> None:
    found = [sampling(poisson(seed), 0.25, false_alarm=ALARM) for seed in range(300)]
    assert all(check.passed for checks in found for check in checks)
    for position, first in enumerate(found[0]):
        chances = np.array([checks[position].p_value for checks in found])
        tail = stats.binomtest(int((chances < 0.05).sum()), 300, 0.05, alternative="greater")
        assert tail.pvalue > 1e-3, first.name


def fixed_size() -> NDArray[np.bool_]:
    rng, took_part = generator(4), np.zeros((200, 200), dtype=bool)
    for row in took_part:
        row[rng.permutation(200)[:50]] = True
    return took_part


def epochs() -> NDArray[np.bool_]:
    rng, took_part = generator(5), np.zeros((200, 200), dtype=bool)
    for epoch in range(50):
        took_part[4 * epoch + np.repeat(np.arange(4), 50), rng.permutation(200)] = True
    return took_part


def favourites() -> NDArray[np.bool_]:
    return np.asarray(generator(6).random((200, 200)) < np.repeat([0.1, 0.4], 100))


def in_groups() -> NDArray[np.bool_]:
    return np.repeat(generator(7).random((200, 50)) < 0.25, 4, axis=1)


def twice() -> NDArray[np.bool_]:
    return np.repeat(generator(8).random((100, 200)) < 0.25, 2, axis=0)


@pytest.mark.parametrize(
    ("took_part", "failing"),
    [
        (fixed_size(), {"sampling-batch-size"}),
        (epochs(), {"sampling-batch-size", "sampling-patients", "sampling-independence"}),
        (favourites(), {"sampling-patients", "sampling-independence"}),
        (in_groups(), {"sampling-batch-size"}),
        (twice(), {"sampling-patients", "sampling-independence"}),
        (poisson(9, 0.27), {"sampling-rate"}),
        (
            np.ones((200, 200), dtype=bool),
            {"sampling-rate", "sampling-batch-size", "sampling-patients", "sampling-independence"},
        ),
        (
            np.zeros((200, 200), dtype=bool),
            {"sampling-rate", "sampling-batch-size", "sampling-patients", "sampling-independence"},
        ),
    ],
    ids=["fixed size", "epochs", "favourites", "in groups", "each batch twice", "too often", "everybody", "nobody"],
)
def test_other_sampling_is_named(took_part: NDArray[np.bool_], failing: set[str]) -> None:
    found = {check.name for check in sampling(took_part, 0.25, false_alarm=ALARM) if not check.passed}
    assert failing <= found
    if failing == {"sampling-batch-size"}:
        assert found == failing


def test_too_little_sampling_to_test_is_an_error() -> None:
    for shape, q in (((10, 200), 0.5), ((200, 10), 0.5), ((200, 200), 1.0), ((200, 200), 0.0)):
        with pytest.raises(AccountingError, match="sampling"):
            sampling(np.zeros(shape, dtype=bool), q, false_alarm=ALARM)
