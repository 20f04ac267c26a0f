"""The process that computes forecasts: `python -m admin_api.web.plans.computing CACHE_DIR`.

An accountant may take half a minute, and one that nobody waits for any more must end at once. So it runs in a process
of its own, which `desk` starts and ends; with a low priority, so that pages stay fast. One question per line of
standard input, as JSON; lines of JSON on standard output: `doing` while it computes, then `answer` or `error`. One
forecast at a time is computed in a consortium's folder, however many processes serve its pages. The end of standard
input ends the process.
"""

from __future__ import annotations

import fcntl
import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TextIO

from pydantic import ValidationError

from admin_api.planning import plan_forecast
from admin_api.web.plans.terms import ForecastQuestion, wish_of
from jobs.errors import JobError
from jobs.icd_coding.errors import CodingError
from jobs.icd_coding.ridge_recipe import MEAN_SHARE
from jobs.plan import FEATURE_MEAN_PURPOSE, LOCAL, RIDGE, STATISTICS_PURPOSE, Plan
from jobs.proposal import make_plan
from jobs.terms import evaluation_terms
from privacy.accounting import rdp_epsilon
from privacy.answers import Progress, remembered
from privacy.calibration import calibrate_noise_multiplier
from privacy.curve import epsilon_curve
from privacy.errors import PrivacyError
from privacy.events import (
    Charge,
    Event,
    FeatureMean,
    LocalSteps,
    MetricRelease,
    Repeated,
    StatisticsRelease,
    TrainingRound,
)
from privacy.forecast import Forecast, forecast

LOCK_FILE = "computing.lock"
NICENESS = 10
_DEFAULT_ROUNDS = 15
_DEFAULT_LOCAL_STEPS = 3


def kept(cache_dir: Path, question: Mapping[str, Any], compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The answer to a question as it was kept, else `compute()`."""
    return remembered(cache_dir, {"question": "plan forecast", **question}, compute)


def answer_of(question: Mapping[str, Any], *, cache_dir: Path, progress: Progress) -> dict[str, Any]:
    """What a plan would cost, or costs.

    Args: question: `plan`, a plan's text, or `terms` (a `ForecastQuestion`) and `nominal_patients`; `deltas` at which
        hospitals hold budgets.
    Raises: PlanError, PrivacyError, CodingError: what cannot be.
    """
    deltas = [float(delta) for delta in question["deltas"]]
    if "plan" in question:
        plan = Plan.from_bytes(question["plan"].encode())
        return _of_plan(plan, deltas, cache_dir, progress)
    terms = ForecastQuestion.model_validate(question["terms"])
    nominal = int(question["nominal_patients"])
    if terms.noise_multiplier is None:
        plan = make_plan(
            wish_of(terms, consortium="forecast", nominal_patients=nominal), cache_dir=cache_dir, progress=progress
        )
        return _of_plan(plan, deltas, cache_dir, progress)
    return _of_noise(terms, terms.noise_multiplier, deltas, nominal, cache_dir, progress)


def _of_plan(plan: Plan, deltas: list[float], cache_dir: Path, progress: Progress) -> dict[str, Any]:
    outlook = plan_forecast(plan, cache_dir=cache_dir, progress=progress)
    report = evaluation_terms(plan)
    singles = [plan.event(number) for number in range(1, plan.aggregations + 1)]
    return {
        **_common(outlook, plan.training_events(), singles, report.event, deltas),
        "noise_multiplier": plan.noise_multiplier,
        "feature_mean_noise_multiplier": plan.feature_mean_noise_multiplier,
        "rounds": plan.rounds,
        "local_steps": plan.local_steps,
        "nominal_patients": plan.nominal_patients,
        "metrics_epsilon": report.epsilon,
        "l2_clip_norm": plan.l2_clip_norm,
    }


def _of_noise(
    terms: ForecastQuestion, noise: float, deltas: list[float], nominal: int, cache_dir: Path, progress: Progress
) -> dict[str, Any]:
    """With this noise; the sum of features that precedes the steps gets the share it has in a plan."""
    mean: FeatureMean | None = None
    steps = 1
    if terms.estimator == RIDGE:
        rounds = 1
        mean = FeatureMean(round(noise * MEAN_SHARE**-0.5, 3), FEATURE_MEAN_PURPOSE)
        each: Event = StatisticsRelease(noise, STATISTICS_PURPOSE)
    else:
        wanted = terms.rounds or _DEFAULT_ROUNDS
        mean = FeatureMean(round(noise / terms.sampling_prob, 3), FEATURE_MEAN_PURPOSE)
        if terms.noise_mode == LOCAL:
            steps = terms.local_steps or _DEFAULT_LOCAL_STEPS
            rounds = -(-wanted // steps)
            each = LocalSteps(terms.sampling_prob, noise, steps)
        else:
            rounds = wanted
            each = TrainingRound(terms.sampling_prob, noise)
    events: list[Charge | Repeated] = [mean, Repeated(each, rounds)]
    outlook = forecast(
        events, delta=terms.delta, sites=len(terms.sites), colluders=terms.colluders, dropouts=terms.dropouts,
        noise_mode=terms.noise_mode, cache_dir=cache_dir, progress=progress,
    )  # fmt: skip
    report_noise = calibrate_noise_multiplier(
        epsilon=terms.metrics_epsilon, delta=terms.delta, rounds=1, sampling_prob=1.0, cache_dir=cache_dir,
        progress=progress,
    )  # fmt: skip
    report = MetricRelease(report_noise, "counts of right and automatic codes")
    return {
        **_common(outlook, events, [mean, *[each] * rounds], report, deltas),
        "noise_multiplier": noise,
        "feature_mean_noise_multiplier": mean.noise_multiplier,
        "rounds": rounds,
        "local_steps": steps,
        "nominal_patients": nominal,
        "metrics_epsilon": terms.metrics_epsilon,
        "l2_clip_norm": 1.0 if terms.estimator == RIDGE else None,
    }


def _common(
    outlook: Forecast,
    events: tuple[Charge | Repeated, ...] | list[Charge | Repeated],
    singles: list[Event],
    report: MetricRelease,
    deltas: list[float],
) -> dict[str, Any]:
    return {
        "forecast": outlook.to_json(),
        "curve": [round(epsilon, 4) for epsilon in epsilon_curve(singles, outlook.delta)],
        # By Renyi DP, as ledgers count: what the plan alone takes of a budget kept at this delta.
        "costs": {
            repr(delta): {
                "training": round(rdp_epsilon(events, delta), 4),
                "validation": round(rdp_epsilon([report], delta), 4),
            }
            for delta in sorted({*deltas, outlook.delta})
        },
    }


def serve(questions: TextIO, answers: TextIO, cache_dir: Path) -> None:
    """Answer questions until there are no more."""

    def tell(**line: object) -> None:
        answers.write(json.dumps(line) + "\n")
        answers.flush()

    cache_dir.mkdir(parents=True, exist_ok=True)
    with (cache_dir / LOCK_FILE).open("w", encoding="ascii") as lock:
        for line in questions:
            question = json.loads(line)
            fcntl.flock(lock, fcntl.LOCK_EX)
            try:

                def compute(question: dict[str, Any] = question) -> dict[str, Any]:
                    return answer_of(question, cache_dir=cache_dir, progress=lambda doing: tell(doing=doing))

                tell(answer=kept(cache_dir, question, compute))
            except (JobError, PrivacyError, CodingError, ValidationError) as error:
                tell(error=str(error))
            finally:
                fcntl.flock(lock, fcntl.LOCK_UN)


def main() -> None:
    """The process."""
    os.nice(NICENESS)
    serve(sys.stdin, sys.stdout, Path(sys.argv[1]))


if __name__ == "__main__":
    main()
