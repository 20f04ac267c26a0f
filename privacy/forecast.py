"""What a plan would cost a patient at one hospital, before anything is done: the forecast.

The same releases protect differently against different people, because not everybody sees, or can subtract, the
same noise. Three epsilons say so:

| name | who looks | noise that still protects |
|---|---|---|
| `released_model` | whoever gets the model, and works with no hospital | of all n - D hospitals that deliver |
| `against_server` | the server, and up to t hospitals that tell it their noise | of the n - t - D others |
| `against_everyone` | the server and all other hospitals: nobody is trusted | the hospital's own |

In local mode each hospital adds all of the noise by itself and the three are one number. So it is for
`LocalSteps` in any mode.

Invariants:
- Nothing here looks at data: the arguments are a plan's public parameters.
- released_model <= against_server <= against_everyone, up to the grid of losses.

Source: Kairouz, Liu, Steinke 2021, arXiv 2102.06387 (distributed noise).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from privacy import accounting
from privacy.accounting import check_delta
from privacy.answers import Progress, in_silence, remembered
from privacy.errors import AccountingError
from privacy.events import Charge, LocalSteps, Repeated, tally, with_noise_scaled
from privacy.noise import noise_shares

DISTRIBUTED, LOCAL = "distributed", "local"
NOISE_MODES = (DISTRIBUTED, LOCAL)


@dataclass(frozen=True)
class Forecast:
    """What a plan costs a patient at one hospital, for the officer who decides. All values are public.

    Attributes:
        released_model: Epsilon against whoever sees the model alone.
        against_server: Epsilon against anybody who sees the opened sums and the model, the server included, with
            at most `colluders` hospitals on its side. The plan's epsilon is this one.
        against_server_rdp: The same by Renyi DP: what the hospital's budget must admit.
        against_everyone: Epsilon if the server and all other hospitals work together.
        against_everyone_rdp: The same by Renyi DP.
        delta: Of all of them.
        noise_mode: "distributed" or "local".
        sites: n, the hospitals that train.
        colluders: t, the hospitals that may tell the server their noise.
        dropouts: D, the hospitals that may be missing from an opened sum.
        accountant: Name and version of what gave the epsilons that are not by Renyi DP.
    """

    released_model: float
    against_server: float
    against_server_rdp: float
    against_everyone: float
    against_everyone_rdp: float
    delta: float
    noise_mode: str
    sites: int
    colluders: int
    dropouts: int
    accountant: str

    def to_json(self) -> dict[str, Any]:
        """The forecast as a JSON object. An infinite epsilon is null."""
        values = asdict(self)
        return {
            name: None if isinstance(value, float) and math.isinf(value) else value for name, value in values.items()
        }


def forecast(
    events: Iterable[Charge | Repeated],
    *,
    delta: float,
    sites: int,
    colluders: int,
    dropouts: int,
    noise_mode: str = DISTRIBUTED,
    cache_dir: Path | None = None,
    progress: Progress = in_silence,
) -> Forecast:
    """Prices all that a plan does to a training hospital's patients.

    Takes 1 to 5 seconds, a fraction of one when cached.

    Args:
        events: With the noise of the opened sums in distributed mode, with the hospital's own in local mode; as the
            plan's `training_events` gives them.
        delta: In (0, 1).
        sites: Hospitals that train, n >= 1.
        colluders: t; at least 1 where there are several hospitals.
        dropouts: D; n - t - D >= 1.
        noise_mode: One of `NOISE_MODES`.
        cache_dir: Folder in which answers are kept, made if missing.
        progress: Told before each epsilon that takes time.

    Returns:
        The forecast; the same numbers whether cached or not.

    Raises:
        AccountingError, EventError, NoiseError: If a parameter is out of range.
    """
    check_delta(delta)
    if noise_mode not in NOISE_MODES:
        raise AccountingError(f"noise_mode must be one of {', '.join(NOISE_MODES)}, got {noise_mode!r}")
    shares = noise_shares(sites, colluders, dropouts)
    counts = tally(events)

    def seen_by(who: str, noise: float) -> tuple[float, float]:
        """(PLD, RDP) where `noise` times the noise of the opened sums protects."""
        progress(f"epsilon against {who}")
        if noise_mode == LOCAL:
            noise = 1.0
        items = [
            Repeated(event if isinstance(event, LocalSteps) else with_noise_scaled(event, noise), count)
            for event, count in counts.items()
        ]
        question = {"question": "epsilon", "delta": delta, "events": [item.to_json() for item in items]}
        answer = remembered(
            cache_dir,
            question,
            lambda: {
                "epsilon": repr(accounting.epsilon(items, delta)),
                "rdp": repr(accounting.rdp_epsilon(items, delta)),
            },
        )
        return float(answer["epsilon"]), float(answer["rdp"])

    model = seen_by("whoever gets the model", math.sqrt((sites - dropouts) / shares))
    server = seen_by("the server and its colluders", 1.0)
    everyone = seen_by("everyone else together", 1.0 / math.sqrt(shares))
    return Forecast(
        released_model=model[0],
        against_server=server[0],
        against_server_rdp=server[1],
        against_everyone=everyone[0],
        against_everyone_rdp=everyone[1],
        delta=delta,
        noise_mode=noise_mode,
        sites=sites,
        colluders=colluders,
        dropouts=dropouts,
        accountant=accounting.accountant(counts),
    )
