"""Timings: where the time of a round goes, by the name of the part.

A stopwatch is made for each round, or for each call at a hospital, and passed to whoever spends the time. Every moment
from its start on belongs to exactly one part, so the parts add up to the whole.

What a coordinator measures is public. A hospital's own timings stay there: how long its work takes tells a little about
how many patients were sampled.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

REST = "rest"  # the part of whatever was given no name


@dataclass(frozen=True)
class TimedCall:
    """How long a hospital took over one call."""

    method: str
    round: int | None  # where the call is of a round
    seconds: Mapping[str, float]  # by part


class Stopwatch:
    """Adds up the seconds of named parts.

        watch = Stopwatch()
        with watch("masking"):
            ...
        watch.read()  # {"rest": 0.0001, "masking": 0.2}

    A part inside another takes its time from the outer one. Not for use by several threads at once.

    Args: clock: seconds, never going back.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._seconds: dict[str, float] = {}
        self._part = REST
        self._since = clock()

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        """The time inside belongs to `part`, also when it ends in an exception."""
        outer = self._turn_to(part)
        try:
            yield
        finally:
            self._turn_to(outer)

    def read(self) -> Mapping[str, float]:
        """Seconds by part, up to now."""
        self._turn_to(self._part)
        return dict(self._seconds)

    def _turn_to(self, part: str) -> str:
        now, before = self._clock(), self._part
        self._seconds[before] = self._seconds.get(before, 0.0) + now - self._since
        self._part, self._since = part, now
        return before
