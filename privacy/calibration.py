"""How much noise a plan needs: calibration.

Invariants:
- A calibrated noise multiplier is the smallest on a public grid of thousandths for which the reporting
  accountant's epsilon is at most the target.
- Nothing here looks at data: the arguments are a plan's public parameters.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from privacy import accounting
from privacy.accounting import check_delta, check_epsilon
from privacy.answers import Progress, in_silence, remembered
from privacy.errors import AccountingError
from privacy.events import Charge, Repeated, TrainingRound, tally

_PER_UNIT = 1000  # the grid of noise multipliers: thousandths
_MAX_STEPS = _PER_UNIT << 20  # of that grid


def calibrate_noise_multiplier(
    *,
    epsilon: float,
    delta: float,
    rounds: int,
    sampling_prob: float,
    extra_events: Iterable[Charge | Repeated] = (),
    cache_dir: Path | None = None,
    progress: Progress = in_silence,
) -> float:
    """The smallest noise multiplier with which the training rounds and `extra_events` cost at most `epsilon`.

    Takes 1 to 5 seconds, milliseconds when cached.

    Args:
        epsilon: Target of the reporting accountant (PLD), in (0, 200].
        delta: In (0, 1).
        rounds: Number of training rounds, >= 1.
        sampling_prob: Of a patient in a round, in (0, 1].
        extra_events: What the plan releases beside the rounds, at its own noise.
        cache_dir: Folder in which answers are kept, made if missing.
        progress: Told before each noise multiplier that is tried.

    Returns:
        A multiple of 0.001.

    Raises:
        AccountingError: If a parameter is out of range or no noise would be enough.
        EventError: If `rounds`, `sampling_prob` or an extra event is out of range.
    """
    check_epsilon(epsilon)
    check_delta(delta)
    extra = [Repeated(event, count) for event, count in sorted(tally(extra_events).items(), key=repr)]
    once = TrainingRound(sampling_prob, 1.0)
    if once.sampling_prob == 0.0:
        raise AccountingError("sampling_prob is 0: nobody takes part, so there is no noise to calibrate")
    question = {
        "question": "noise multiplier",
        "epsilon": epsilon,
        "delta": delta,
        "rounds": Repeated(once, rounds).to_json(),
        "extra_events": [item.to_json() for item in extra],
    }
    answer = remembered(
        cache_dir, question, lambda: {"steps": _smallest_noise(epsilon, delta, once, rounds, extra, progress)}
    )
    return int(answer["steps"]) / _PER_UNIT


def _smallest_noise(
    target: float, delta: float, once: TrainingRound, rounds: int, extra: list[Repeated], progress: Progress
) -> int:
    """The answer in thousandths: a search with a coarse grid of losses, corrected with the reported one."""
    alone = accounting.epsilon(extra, delta)
    if alone >= target:
        raise AccountingError(
            f"the plan's other releases alone cost epsilon {alone:.4f}, the target is {target:g}: "
            "raise the target or give them more noise"
        )

    def events(steps: int) -> list[Charge | Repeated]:
        progress(f"trying noise multiplier {steps / _PER_UNIT:.3f}")
        return [*extra, Repeated(replace(once, noise_multiplier=steps / _PER_UNIT), rounds)]

    def roughly(steps: int) -> bool:
        tried = events(steps)
        if accounting.rdp_epsilon(tried, delta) > 10.0 * target + 10.0:
            return False  # hopeless, and a PLD of this spread would be slow
        return accounting.epsilon(tried, delta, grid=1e-3 if target <= 5.0 else 1e-2) <= target

    def surely(steps: int) -> bool:
        return accounting.epsilon(events(steps), delta) <= target

    # First guess: the central limit of the composed rounds as one Gaussian of mean mu (Dong, Roth, Su 2019).
    tail = math.log(1.0 / delta)
    mu = math.sqrt(2.0) * (math.sqrt(tail + target) - math.sqrt(tail))
    spread = rounds * once.sampling_prob**2
    guess = round(_PER_UNIT / math.sqrt(math.log1p(mu * mu / spread)))
    # Widen by 2% of the guess, then doubling; the reported grid of losses moves the answer by little.
    found = _smallest(roughly, guess, max(1, guess // 50))
    return _smallest(surely, found, 1)


def _smallest(holds: Callable[[int], bool], guess: int, width: int) -> int:
    """The smallest integer >= 1 from which `holds` is true, for a condition that, once true, stays true."""
    guess = min(max(guess, 1), _MAX_STEPS)
    if holds(guess):
        high, low = guess, guess - width
        while low >= 1 and holds(low):
            high, low, width = low, low - 2 * width, 2 * width
        low = max(low, 0)
    else:
        low, high = guess, guess + width
        while not holds(high):
            if high >= _MAX_STEPS:
                raise AccountingError(
                    f"no noise multiplier up to {_MAX_STEPS // _PER_UNIT} reaches the target: "
                    "raise the target or plan fewer rounds"
                )
            low, high, width = high, min(high + 2 * width, _MAX_STEPS), 2 * width
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high
