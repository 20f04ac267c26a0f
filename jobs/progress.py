"""What a watcher of a run is told after each step. All of it is public."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from jobs.plan import Plan
from privacy.curve import epsilon_curve


@dataclass(frozen=True)
class Progress:
    """One step of a run that is over."""

    stage: str  # joining, training, aborted, evaluating, done
    round: int
    rounds: int
    participants: tuple[str, ...]
    epsilon: float  # spent by the training patients so far
    seconds: float  # since this coordinator began
    round_seconds: float
    timings: Mapping[str, float] = field(default_factory=dict)  # seconds of the round by part


class Reporter:
    """Tells a watcher where a run is and what it has spent.

    Args: tell: called after each step; must not raise.
    """

    def __init__(self, plan: Plan, tell: Callable[[Progress], None]) -> None:
        self._plan = plan
        self._tell = tell
        self._began = time.monotonic()
        events = [plan.event(number) for number in range(1, plan.aggregations + 1)]
        self._epsilon = [0.0, *epsilon_curve(events, plan.delta)]
        if plan.epsilon is not None:
            self._epsilon[-1] = min(self._epsilon[-1], plan.epsilon)  # the plan's is computed on a finer grid

    def __call__(
        self, stage: str, number: int, participants: Sequence[str], *, timings: Mapping[str, float] | None = None
    ) -> None:
        """Tell of a step after round `number`.

        Args: timings: where the round's time went, if the step is a finished round.
        """
        parts = timings or {}
        self._tell(
            Progress(
                stage=stage,
                round=number,
                rounds=self._plan.aggregations,
                participants=tuple(participants),
                epsilon=self._epsilon[number],
                seconds=time.monotonic() - self._began,
                round_seconds=sum(parts.values()),
                timings=parts,
            )
        )
