"""The coordinator's step: formulas by hand, resuming from a file, refusals."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from jobs.icd_coding.errors import BatchError, ModelFormatError
from jobs.icd_coding.gradient import clipped_gradient_sum
from jobs.icd_coding.iterate import linear_from_iterate
from jobs.icd_coding.model import LinearModel, Parameters, scores, tensor_bytes
from jobs.icd_coding.optimiser import (
    OptimiserState,
    initial_state,
    load_state,
    published_iterate,
    state_bytes,
    step,
)
from jobs.icd_coding.recipe import Hyperparameters

SHAPE = LinearModel(features=4, labels=3)
START = np.zeros(SHAPE.vector_length)
RECIPE = Hyperparameters(
    rounds=4,
    sampling_prob=1.0,
    l2_clip_norm=0.5,
    learning_rate=2.0,
    momentum=0.5,
    averaged_rounds=2,
    bias_scale=0.1,
    label_smoothing=0.0,
    centring=False,
)


def published(
    state: OptimiserState, recipe: Hyperparameters, feature_mean: NDArray[np.float32] | None = None
) -> Parameters:
    iterate = published_iterate(state, recipe)
    return linear_from_iterate(iterate, SHAPE, bias_scale=recipe.bias_scale, feature_mean=feature_mean)


def sums(rounds: int = 4) -> list[NDArray[np.float64]]:
    return list(np.random.default_rng(0).normal(size=(rounds, SHAPE.vector_length)))


def run(recipe: Hyperparameters, given: list[NDArray[np.float64]]) -> OptimiserState:
    state = initial_state(START)
    for noisy_sum in given:
        state = step(state, noisy_sum, recipe, expected_batch=10)
    return state


def test_momentum_and_averaging_by_hand() -> None:
    given = sums()
    velocity, iterate, iterates = np.zeros(15), np.zeros(15), []
    for noisy_sum in given:
        velocity = 0.5 * velocity - 2.0 * noisy_sum / (10 * 0.5)
        iterate = iterate + velocity
        iterates.append(iterate)
    scale = np.array([1.0] * 12 + [0.1] * 3)
    final = published(run(RECIPE, given), RECIPE)
    np.testing.assert_allclose(final.to_vector(), scale * (iterates[2] + iterates[3]) / 2, rtol=1e-6)
    third = published(run(RECIPE, given[:3]), RECIPE)
    np.testing.assert_allclose(third.to_vector(), scale * iterates[2], rtol=1e-6)
    last = replace(RECIPE, averaged_rounds=0)
    np.testing.assert_allclose(published(run(last, given), last).to_vector(), scale * iterates[3], rtol=1e-6)


def test_a_step_changes_nothing_it_was_given() -> None:
    state, given = run(RECIPE, sums(1)), sums(2)[1]
    before, sum_before = state_bytes(state), given.copy()
    step(state, given, RECIPE, expected_batch=10)
    assert state_bytes(state) == before
    assert (given == sum_before).all()


@pytest.mark.parametrize("crash_after", range(4))
def test_resuming_from_the_file_gives_the_same_model(crash_after: int) -> None:
    given = sums()
    state = load_state(state_bytes(run(RECIPE, given[:crash_after])), SHAPE.vector_length)
    for noisy_sum in given[crash_after:]:
        state = step(state, noisy_sum, RECIPE, expected_batch=10)
    assert state_bytes(state) == state_bytes(run(RECIPE, given))


def test_the_feature_mean_travels_with_the_model() -> None:
    mean = np.array([0.5, 0, 0, 0], dtype=np.float32)
    parameters = published(initial_state(START), RECIPE, feature_mean=mean)
    assert parameters.feature_mean.tolist() == mean.tolist()


def test_descends_towards_the_labels() -> None:
    """Rounds of clipped sums without noise fit a separable set, bias included."""
    recipe = replace(RECIPE, rounds=40, learning_rate=4.0, averaged_rounds=0, bias_scale=0.5)
    rows = np.repeat(np.eye(4)[:3], 5, axis=0)
    labels = np.repeat(np.arange(3), 5)
    state = initial_state(START)
    for _ in range(recipe.rounds):
        total, _ = clipped_gradient_sum(
            published(state, recipe),
            rows,
            labels,
            recipe.l2_clip_norm,
            bias_scale=recipe.bias_scale,
        )
        state = step(state, total, recipe, expected_batch=15)
    final = scores(published(state, recipe), rows)
    assert (final.argmax(axis=1) == labels).all()
    assert (np.sort(final)[:, -1] - np.sort(final)[:, -2] > 2).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_broken_sum_aborts(bad: float) -> None:
    broken = sums()[0]
    broken[3] = bad
    with pytest.raises(BatchError, match="abort the round"):
        step(initial_state(START), broken, RECIPE, expected_batch=10)


@pytest.mark.parametrize("batch", [0.0, -1.0, np.inf, np.nan])
def test_expected_batch_must_be_positive(batch: float) -> None:
    with pytest.raises(BatchError, match="expected_batch"):
        step(initial_state(START), sums()[0], RECIPE, expected_batch=batch)


def test_a_sum_of_another_length_is_refused() -> None:
    with pytest.raises(BatchError, match="expected shape"):
        step(initial_state(START), np.zeros(14), RECIPE, expected_batch=10)


def test_no_step_after_the_last_round() -> None:
    with pytest.raises(RuntimeError, match="all 4 rounds"):
        step(run(RECIPE, sums()), sums()[0], RECIPE, expected_batch=10)


def state_file(**changes: NDArray[np.float64]) -> bytes:
    state = run(RECIPE, sums(3))
    named = {
        "iterate": state.iterate,
        "velocity": state.velocity,
        "tail_sum": state.tail_sum,
        "position": np.array([3.0, 1.0]),
    }
    return tensor_bytes({**named, **changes})


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"nonsense", "not a readable safetensors file"),
        (state_file(velocity=np.zeros(14)), "velocity must be float64 of shape"),
        (state_file(iterate=np.full(15, np.nan)), "NaN"),
        (state_file(position=np.array([1.0, 2.0])), "impossible position"),
        (state_file(position=np.array([2.5, 1.0])), "impossible position"),
        (state_file(position=np.array([1.0, -1.0])), "impossible position"),
        (state_file(more=np.zeros(1)), "expected tensors"),
    ],
)
def test_a_broken_state_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(ModelFormatError, match=message):
        load_state(data, SHAPE.vector_length)


def test_the_state_file_used_above_is_otherwise_good() -> None:
    assert load_state(state_file(), SHAPE.vector_length).rounds_done == 3
