"""The accountant's curve of a run, computed from the plan when its release is proposed."""

from __future__ import annotations

import math

from audit.documents.privacy_curve import PrivacyCurve
from audit.run_trace import RunTrace
from jobs.plan import Plan

MAX_POINTS = 60


def privacy_curve(plan: Plan, run: RunTrace) -> PrivacyCurve | None:
    """Epsilon after each of the run's rounds, at most 60 points; None where it is not finite (no noise)."""
    from privacy.curve import epsilon_curve

    rounds = len(run.rounds)
    values = epsilon_curve([plan.event(number) for number in range(1, rounds + 1)], run.delta)
    if not all(math.isfinite(value) for value in values):
        return None
    step = -(-rounds // MAX_POINTS)
    shown = sorted({*range(step, rounds + 1, step), 1, rounds})
    points = tuple((number, round(values[number - 1], 4)) for number in shown)
    return PrivacyCurve(run.run_id, run.plan.accountant, run.delta, points)
