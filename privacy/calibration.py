"""How much noise a plan needs, and what a plan would cost: calibration and forecast.

Invariants:
- A calibrated noise multiplier is the smallest on a public grid of thousandths for which the reporting
  accountant's epsilon is at most the target.
- Nothing here looks at data: the arguments are a plan's public parameters.
- The cache on disk only saves time. It is never read for admission: the ledger prices events by itself.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import rfc8785

from privacy import accounting
from privacy.accounting import check_delta, check_epsilon
from privacy.errors import AccountingError
from privacy.events import Event, Repeated, TrainingRound, tally
from privacy.noise import noise_shares

_PER_UNIT = 1000  # the grid of noise multipliers: thousandths
_MAX_STEPS = _PER_UNIT << 20  # of that grid


def calibrate_noise_multiplier(
    *,
    epsilon: float,
    delta: float,
    rounds: int,
    sampling_prob: float,
    extra_events: Iterable[Event | Repeated] = (),
    cache_dir: Path | None = None,
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

    Returns:
        A multiple of 0.001.

    Raises:
        AccountingError: If a parameter is out of range or no noise would be enough.
        EventError: If `rounds`, `sampling_prob` or an extra event is out of range.
    """
    check_epsilon(epsilon)
    check_delta(delta)
    extra = [Repeated(event, count) for event, count in sorted(tally(extra_events).items(), key=repr)]
    rounds_once = Repeated(TrainingRound(sampling_prob, 1.0), rounds)
    if rounds_once.event.sampling_prob == 0.0:
        raise AccountingError("sampling_prob is 0: nobody takes part, so there is no noise to calibrate")
    question = {
        "question": "noise multiplier",
        "epsilon": epsilon,
        "delta": delta,
        "rounds": rounds_once.to_json(),
        "extra_events": [item.to_json() for item in extra],
    }
    answer = _remembered(cache_dir, question, lambda: {"steps": _smallest_noise(epsilon, delta, rounds_once, extra)})
    return int(answer["steps"]) / _PER_UNIT


def _smallest_noise(target: float, delta: float, rounds: Repeated, extra: list[Repeated]) -> int:
    """The answer in thousandths: a search with a coarse grid of losses, corrected with the reported one."""
    alone = accounting.epsilon(extra, delta)
    if alone >= target:
        raise AccountingError(
            f"the plan's other releases alone cost epsilon {alone:.4f}, the target is {target:g}: "
            "raise the target or give them more noise"
        )

    def events(steps: int) -> list[Event | Repeated]:
        return [*extra, Repeated(replace(rounds.event, noise_multiplier=steps / _PER_UNIT), rounds.count)]

    def roughly(steps: int) -> bool:
        if accounting.rdp_epsilon(events(steps), delta) > 10.0 * target + 10.0:
            return False  # hopeless, and a PLD of this spread would be slow
        grid = 1e-3 if target <= 5.0 else 1e-2
        return accounting.pld_epsilon(accounting.compose(events(steps)), delta, grid) <= target

    def surely(steps: int) -> bool:
        return accounting.epsilon(events(steps), delta) <= target

    # First guess: the central limit of the composed rounds as one Gaussian of mean mu (Dong, Roth, Su 2019).
    tail = math.log(1.0 / delta)
    mu = math.sqrt(2.0) * (math.sqrt(tail + target) - math.sqrt(tail))
    spread = rounds.count * rounds.event.sampling_prob**2
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


@dataclass(frozen=True)
class Forecast:
    """What a plan costs a patient at one hospital, for the officer who decides. All values are public.

    Attributes:
        against_server: Epsilon (PLD) against anybody who sees the opened sums and the model, the server
            included, with at most `colluders` hospitals on its side.
        against_server_rdp: The same by Renyi DP: what the ledger's admission will ask for.
        without_aggregation: Epsilon (PLD) if every other hospital colludes with the server, so that only the
            hospital's own share of the noise protects.
        without_aggregation_rdp: The same by Renyi DP.
        delta: Of all four.
        colluders: t, the hospitals that may collude.
        noise_multiplier: Of the opened sum.
        accountant: Name and version.
    """

    against_server: float
    against_server_rdp: float
    without_aggregation: float
    without_aggregation_rdp: float
    delta: float
    colluders: int
    noise_multiplier: float
    accountant: str

    def to_json(self) -> dict[str, Any]:
        """The forecast as a JSON object. An infinite epsilon is null."""
        values = asdict(self)
        return {
            name: None if isinstance(value, float) and math.isinf(value) else value for name, value in values.items()
        }


def forecast(
    *,
    delta: float,
    rounds: int,
    sampling_prob: float,
    noise_multiplier: float,
    sites: int,
    colluders: int,
    dropouts: int,
    extra_events: Iterable[Event | Repeated] = (),
    cache_dir: Path | None = None,
) -> Forecast:
    """Prices a plan from its public parameters.

    For local noise, where every hospital adds all of it, ask with sites=1, colluders=0, dropouts=0: both
    epsilons are then the same.

    Args:
        delta: In (0, 1).
        rounds: Number of training rounds, >= 1.
        sampling_prob: Of a patient in a round, in [0, 1].
        noise_multiplier: Of the opened sum, >= 0.
        sites: Hospitals in the plan.
        colluders: Hospitals that may collude with the server.
        dropouts: Hospitals that may be missing from an opened sum.
        extra_events: What the plan releases beside the rounds, by secure aggregation with the same shares.
        cache_dir: Folder in which answers are kept, made if missing.

    Returns:
        The forecast; the same numbers whether cached or not.

    Raises:
        AccountingError, EventError, NoiseError: If a parameter is out of range.
    """
    check_delta(delta)
    shares = noise_shares(sites, colluders, dropouts)
    counts = tally([Repeated(TrainingRound(sampling_prob, noise_multiplier), rounds), *extra_events])
    together = [Repeated(event, count) for event, count in counts.items()]
    alone = [
        Repeated(replace(item.event, noise_multiplier=item.event.noise_multiplier / math.sqrt(shares)), item.count)
        for item in together
    ]

    def reported(events: list[Repeated]) -> float:
        question = {"question": "epsilon", "delta": delta, "events": [item.to_json() for item in events]}
        answer = _remembered(cache_dir, question, lambda: {"epsilon": repr(accounting.epsilon(events, delta))})
        return float(answer["epsilon"])

    return Forecast(
        against_server=reported(together),
        against_server_rdp=accounting.rdp_epsilon(together, delta),
        without_aggregation=reported(alone),
        without_aggregation_rdp=accounting.rdp_epsilon(alone, delta),
        delta=delta,
        colluders=colluders,
        noise_multiplier=float(noise_multiplier),
        accountant=accounting.accountant(),
    )


def _remembered(
    cache_dir: Path | None, question: dict[str, Any], compute: Callable[[], dict[str, Any]]
) -> dict[str, Any]:
    """`compute()`, or what it gave for the same question to the same accountant earlier."""
    if cache_dir is None:
        return compute()
    asked = {**question, "accountant": accounting.accountant()}
    path = cache_dir / f"{hashlib.sha256(rfc8785.dumps(asked)).hexdigest()}.json"
    if path.exists():
        try:
            kept = json.loads(path.read_bytes())
        except ValueError:
            kept = None  # cut short by a crash or a full disk: compute again and replace it
        if isinstance(kept, dict) and kept.get("asked") == asked and isinstance(kept.get("answer"), dict):
            return dict(kept["answer"])
    answer = compute()
    cache_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=cache_dir, suffix=".part", delete=False) as part:
        part.write(rfc8785.dumps({"asked": asked, "answer": answer}))
    os.replace(part.name, path)  # noqa: PTH105 - several processes may write the same answer at once
    return answer
