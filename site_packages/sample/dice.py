"""Random choices that are the same on every machine and every Python.

Only `random.Random.random()` is used: its sequence for a text seed is promised to stay, the other methods'
sequences are not. Nothing here is for secrets.
"""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import TypeVar

T = TypeVar("T")


class Dice:
    """A seeded source of choices."""

    def __init__(self, seed: str) -> None:
        self.roll = random.Random(seed).random  # noqa: S311 - repeatable on purpose; uniform in [0, 1)

    def chance(self, probability: float) -> bool:
        """True with this probability."""
        return self.roll() < probability

    def below(self, n: int) -> int:
        """One of 0..n-1."""
        return int(self.roll() * n)

    def between(self, low: int, high: int) -> int:
        """One of low..high, both included."""
        return low + int(self.roll() * (high - low + 1))

    def pick(self, choices: Sequence[T]) -> T:
        """One of the choices, all equally likely."""
        return choices[int(self.roll() * len(choices))]

    def shuffled(self, items: Sequence[T]) -> list[T]:
        """The items in another order (Fisher-Yates)."""
        result = list(items)
        for last in range(len(result) - 1, 0, -1):
            other = self.below(last + 1)
            result[last], result[other] = result[other], result[last]
        return result

    def around(self, low: int, mode: int, high: int) -> int:
        """One of low..high, most often near the mode."""
        first, second = self.roll(), self.roll()
        near = min(first, second)
        return round(mode - (mode - low) * near) if self.chance(0.5) else round(mode + (high - mode) * near)


class Weighted:
    """Choices with weights."""

    def __init__(self, weights: dict[str, float]) -> None:
        self.choices = tuple(weights)
        self._sums = tuple(accumulate(weights.values()))

    def draw(self, dice: Dice) -> str:
        """One choice, as likely as its share of the weights."""
        return self.choices[min(bisect_right(self._sums, dice.roll() * self._sums[-1]), len(self.choices) - 1)]
