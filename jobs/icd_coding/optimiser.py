"""The coordinator's step: from a round's noisy sum of clipped gradients to the next model.

Everything here is a function of sums that were released with noise and of the plan's public constants, so it
costs no privacy. The gradient estimate is

    g = -sum / (expected_batch * l2_clip_norm)

in units of the clip norm, which keeps the learning rate independent of it (De et al. 2022, arXiv:2204.13650).
Heavy-ball momentum follows, v <- momentum v + learning_rate g and w <- w + v, and the run ends in the mean of
the last iterates when the plan averages.

Invariants:

- The state is a value: a step returns a new one, and the same state and sum always give the same next state.
- Under local noise a round brings the mean of the hospitals' own steps instead of a gradient; `move` takes it as it is.
- The state's file holds all that a coordinator needs to go on after a crash; it holds nothing private.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from jobs.icd_coding.errors import BatchError, ModelFormatError
from jobs.icd_coding.model import load_tensors, tensor_bytes
from jobs.icd_coding.recipe import Hyperparameters


@dataclass(frozen=True, eq=False)
class OptimiserState:
    """Where a run stands after some rounds.

    Attributes:
        iterate: (length,) the model's vector, a linear model's bias in units of the recipe's bias_scale.
        velocity: the same length, the momentum.
        tail_sum: the same length, the sum of the iterates that will be averaged.
        rounds_done: gradient rounds stepped so far.
        tail_count: how many iterates `tail_sum` holds.
    """

    iterate: NDArray[np.float64]
    velocity: NDArray[np.float64]
    tail_sum: NDArray[np.float64]
    rounds_done: int
    tail_count: int


def initial_state(start: NDArray[np.float64]) -> OptimiserState:
    """The state before the first round, at rest at `start`."""
    return OptimiserState(
        iterate=start.copy(),
        velocity=np.zeros(len(start)),
        tail_sum=np.zeros(len(start)),
        rounds_done=0,
        tail_count=0,
    )


def step(
    state: OptimiserState,
    noisy_sum: NDArray[np.float64],
    recipe: Hyperparameters,
    *,
    expected_batch: float,
) -> OptimiserState:
    """Take one round's step.

    Args:
        noisy_sum: the decoded sum over hospitals of `gradient.clipped_gradient_sum`, noise included.
        recipe: the plan's constants.
        expected_batch: sampling_prob * nominal patients of the plan: public, > 0.
    Raises: RuntimeError after the recipe's last round; BatchError if the sum has another length or is not
        finite, or expected_batch is not positive. The state stays as it was.
    """
    _check_sum(state, noisy_sum, recipe)
    if not (np.isfinite(expected_batch) and expected_batch > 0):
        raise BatchError(f"expected_batch: expected a positive number, got {expected_batch}")
    estimate = noisy_sum / (-expected_batch * recipe.l2_clip_norm)
    velocity = recipe.momentum * state.velocity + recipe.learning_rate * estimate
    return _advanced(state, state.iterate + velocity, velocity, recipe)


def move(
    state: OptimiserState, moves: NDArray[np.float64], recipe: Hyperparameters, *, hospitals: int
) -> OptimiserState:
    """Take one round of local steps: the mean of the hospitals' moves of the iterate.

    Args:
        moves: the decoded sum over hospitals of `local_steps.local_move`.
        hospitals: how many are in the sum, >= 1; public.
    Raises: as `step`.
    """
    _check_sum(state, moves, recipe)
    return _advanced(state, state.iterate + moves / hospitals, state.velocity, recipe)


def skipped(state: OptimiserState) -> OptimiserState:
    """The state after a round whose sum was lost: nothing moves, and the momentum waits."""
    return replace(state, rounds_done=state.rounds_done + 1)


def _check_sum(state: OptimiserState, total: NDArray[np.float64], recipe: Hyperparameters) -> None:
    if state.rounds_done >= recipe.rounds:
        raise RuntimeError(f"optimiser: all {recipe.rounds} rounds of the plan are done")
    if total.shape != state.iterate.shape:
        raise BatchError(f"gradient sum: expected shape {state.iterate.shape}, got {total.shape}")
    if not np.isfinite(total).all():
        raise BatchError("gradient sum: holds NaN or infinite numbers; abort the round")


def _advanced(
    state: OptimiserState, iterate: NDArray[np.float64], velocity: NDArray[np.float64], recipe: Hyperparameters
) -> OptimiserState:
    averaged = state.rounds_done >= recipe.rounds - recipe.averaged_rounds
    return OptimiserState(
        iterate=iterate,
        velocity=velocity,
        tail_sum=state.tail_sum + iterate if averaged else state.tail_sum,
        rounds_done=state.rounds_done + 1,
        tail_count=state.tail_count + int(averaged),
    )


def published_iterate(state: OptimiserState, recipe: Hyperparameters) -> NDArray[np.float64]:
    """The vector this state stands for: the iterate; after the last round, the mean of the last iterates."""
    done = state.rounds_done == recipe.rounds and state.tail_count > 0
    return state.tail_sum / state.tail_count if done else state.iterate.copy()


def state_bytes(state: OptimiserState) -> bytes:
    """The state as a safetensors file of float64; equal states give equal bytes."""
    return tensor_bytes(
        {
            "iterate": state.iterate,
            "velocity": state.velocity,
            "tail_sum": state.tail_sum,
            "position": np.array([state.rounds_done, state.tail_count], dtype=np.float64),
        }
    )


def load_state(data: bytes, length: int) -> OptimiserState:
    """Read `state_bytes`.

    Raises: ModelFormatError if the bytes are not a state for vectors of this length.
    """
    vector = (length,)
    tensors = load_tensors(
        data,
        np.float64,
        {"iterate": vector, "velocity": vector, "tail_sum": vector, "position": (2,)},
        what="optimiser state",
    )
    rounds_done, tail_count = tensors["position"].tolist()
    if not (rounds_done.is_integer() and tail_count.is_integer() and 0 <= tail_count <= rounds_done):
        raise ModelFormatError(f"optimiser state: impossible position {rounds_done}, {tail_count}")
    return OptimiserState(
        iterate=tensors["iterate"],
        velocity=tensors["velocity"],
        tail_sum=tensors["tail_sum"],
        rounds_done=int(rounds_done),
        tail_count=int(tail_count),
    )
