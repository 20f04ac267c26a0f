"""`zegel privacy`: anyone's questions about epsilon, answered from public parameters alone.

Heavy imports stay inside the commands so that `--help` is quick.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

privacy_app = typer.Typer(
    no_args_is_help=True,
    help=(
        "What training costs in privacy, and how much noise a budget needs.\n\n"
        "Epsilon bounds how much anyone can learn from the released model about one patient: whether "
        "the patient's whole history was in the data or not changes the odds of any conclusion by at most "
        "a factor e^epsilon, except with probability about delta. Smaller is safer: under 1 is strong, "
        "over 10 is weak. "
        "No data is read: the answers follow from a plan's public parameters."
    ),
)

SamplingRate = Annotated[
    float,
    typer.Option(
        "--sampling-rate",
        help="Chance of each patient to be in a step, drawn anew each time (Poisson); 0 to 1.",
    ),
]
Steps = Annotated[int, typer.Option("--steps", help="Number of optimiser steps (rounds) in the whole training.")]
Delta = Annotated[
    float,
    typer.Option("--delta", help="Probability that the bound may fail; at most 1 in 10 times the number of patients."),
]
Hospitals = Annotated[
    int | None,
    typer.Option(
        "--hospitals",
        help="Hospitals that train together. With it, the epsilons against others than the server as well.",
    ),
]
Colluders = Annotated[int, typer.Option("--colluders", help="Hospitals that may tell the server their noise.")]
Dropouts = Annotated[int, typer.Option("--dropouts", help="Hospitals that may be missing from a step.")]
NoiseMode = Annotated[
    str,
    typer.Option(
        "--noise-mode",
        help="distributed: each hospital adds a share of the noise; local: each adds all of it.",
    ),
]
Trials = Annotated[
    float | None,
    typer.Option(
        "--tuning-trials",
        help=(
            "The whole training is tried a random number of times, this many on average, and only the best is "
            "published."
        ),
    ),
]
Shape = Annotated[
    float,
    typer.Option(
        "--tuning-shape",
        help="How the number of trials is drawn: 1 geometric, 0 logarithmic, other numbers negative binomial.",
    ),
]
CacheDir = Annotated[
    Path | None, typer.Option("--cache-dir", help="Folder that keeps answers, so that asking again is quick.")
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on standard output, for programs.")]


@contextmanager
def _refusals() -> Iterator[None]:
    from privacy.errors import PrivacyError

    try:
        yield
    except PrivacyError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from error


def _show(answer: dict[str, Any], as_json: bool, lines: list[str]) -> None:
    typer.echo(json.dumps(answer, sort_keys=True) if as_json else "\n".join(lines))


@contextmanager
def _watched(*, quiet: bool) -> Iterator[Callable[[str], None]]:
    """Tells on standard error, if that is a terminal, what is being computed."""
    if quiet:
        yield lambda doing: None
        return
    from rich.console import Console

    with Console(stderr=True).status("computing") as status:
        yield status.update


def _finite(value: float) -> float | None:
    return None if value == float("inf") else value


@privacy_app.command("epsilon")
def epsilon_command(
    sampling_rate: SamplingRate,
    noise_multiplier: Annotated[
        float,
        typer.Option("--noise-multiplier", help="Noise of a step: its standard deviation over the clipping norm."),
    ],
    steps: Steps,
    delta: Delta,
    hospitals: Hospitals = None,
    colluders: Colluders = 1,
    dropouts: Dropouts = 0,
    noise_mode: NoiseMode = "distributed",
    tuning_trials: Trials = None,
    tuning_shape: Shape = 1.0,
    cache_dir: CacheDir = None,
    as_json: AsJson = False,
) -> None:
    """What a training costs: epsilon by privacy loss distributions (reported) and by Renyi DP (admission).

    Example: zegel privacy epsilon --sampling-rate .01 --noise-multiplier 1 --steps 1000 --delta 1e-5

    With --hospitals it also says against whom: whoever has the model, the server with some hospitals on its side,
    or the server with all other hospitals.
    """
    from privacy.events import NEIGHBORING_RELATION, UNIT, Charge, Repeated, TrainingRound, Tuning
    from privacy.forecast import LOCAL, forecast

    with _refusals(), _watched(quiet=as_json) as progress:
        training = Repeated(TrainingRound(sampling_rate, noise_multiplier), steps)
        events: list[Charge | Repeated] = [
            training if tuning_trials is None else Tuning((training,), tuning_trials, tuning_shape)
        ]
        plan = forecast(
            events,
            delta=delta,
            sites=1 if hospitals is None else hospitals,
            colluders=0 if hospitals is None else colluders,
            dropouts=0 if hospitals is None else dropouts,
            noise_mode=noise_mode,
            cache_dir=cache_dir,
            progress=progress,
        )
    answer: dict[str, Any] = {
        "epsilon": _finite(plan.against_server),
        "epsilon_rdp": _finite(plan.against_server_rdp),
        "delta": delta,
        "sampling_prob": sampling_rate,
        "noise_multiplier": noise_multiplier,
        "steps": steps,
        "tuning": None if tuning_trials is None else {"mean_trials": tuning_trials, "shape": tuning_shape},
        "unit": UNIT,
        "neighboring_relation": NEIGHBORING_RELATION,
        "accountant": plan.accountant,
    }
    by = "PLD" if tuning_trials is None else "Renyi DP, for a tuning is among the events"
    lines = [
        f"epsilon {plan.against_server:.4f} at delta {delta:g}, per {UNIT}   ({by}: the number to report)",
        f"epsilon {plan.against_server_rdp:.4f} by Renyi DP   (what a hospital's budget must admit)",
    ]
    if hospitals is not None:
        answer |= {
            "hospitals": hospitals,
            "colluders": colluders,
            "dropouts": dropouts,
            "noise_mode": noise_mode,
            "epsilon_released_model": _finite(plan.released_model),
            "epsilon_against_everyone": _finite(plan.against_everyone),
            "epsilon_against_everyone_rdp": _finite(plan.against_everyone_rdp),
        }
        if noise_mode == LOCAL:
            lines.append("  holds against everybody else: each hospital adds all of the noise itself")
        else:
            lines += [
                f"  holds against the server with at most {colluders} of {hospitals} hospitals on its side",
                f"epsilon {plan.released_model:.4f} against whoever has the released model alone",
                f"epsilon {plan.against_everyone:.4f} if all other hospitals side with the server",
            ]
    lines.append(f"accountant: {plan.accountant}")
    _show(answer, as_json, lines)


@privacy_app.command("noise")
def noise_command(
    sampling_rate: SamplingRate,
    epsilon: Annotated[float, typer.Option("--epsilon", help="The epsilon to stay within, by PLD.")],
    steps: Steps,
    delta: Delta,
    cache_dir: CacheDir = None,
    as_json: AsJson = False,
) -> None:
    """How much noise a target needs: the smallest noise multiplier, in thousandths, within epsilon.

    Example: zegel privacy noise --epsilon 3 --sampling-rate .01 --steps 1000 --delta 1e-6
    """
    from privacy import accounting
    from privacy.calibration import calibrate_noise_multiplier
    from privacy.events import NEIGHBORING_RELATION, UNIT, Repeated, TrainingRound

    with _refusals(), _watched(quiet=as_json) as progress:
        multiplier = calibrate_noise_multiplier(
            epsilon=epsilon,
            delta=delta,
            rounds=steps,
            sampling_prob=sampling_rate,
            cache_dir=cache_dir,
            progress=progress,
        )
        events = [Repeated(TrainingRound(sampling_rate, multiplier), steps)]
        reached, admitted = accounting.epsilon(events, delta), accounting.rdp_epsilon(events, delta)
    answer = {
        "noise_multiplier": multiplier,
        "epsilon": reached,
        "epsilon_rdp": admitted,
        "target_epsilon": epsilon,
        "delta": delta,
        "sampling_prob": sampling_rate,
        "steps": steps,
        "unit": UNIT,
        "neighboring_relation": NEIGHBORING_RELATION,
        "accountant": accounting.accountant(),
    }
    lines = [
        f"noise multiplier {multiplier:.3f}",
        f"epsilon {reached:.4f} at delta {delta:g}, per {UNIT}   (PLD: the number to report)",
        f"epsilon {admitted:.4f} by Renyi DP   (what a hospital's budget must admit)",
        f"accountant: {accounting.accountant()}",
    ]
    _show(answer, as_json, lines)
