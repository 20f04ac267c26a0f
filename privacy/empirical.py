"""How much a mechanism really leaks, from one run: a lower bound on epsilon to hold beside the claim.

The auditor makes m canaries, tosses a fair coin for each, and puts those that fell on heads among the patients. An
attacker who sees what the run released scores every canary and guesses a few: the highest scores "was in", the lowest
"was not". If the run is (epsilon, delta)-private for each canary, no attacker is right much more often than a coin that
falls right with probability e^epsilon / (1 + e^epsilon). Being right more often than that refutes the claim.

Formal guarantees, for every attacker and every number of guesses fixed before the run:
- `p_value`: if the mechanism is (epsilon, delta)-private, a value of at most a comes up with probability at most a;
- `epsilon_lower_bound`: with probability at least `confidence` it is not above the true epsilon;
- `OneRun` tries the numbers of guesses `GUESS_SHARES` and pays for all of them (Bonferroni), so the best may be taken.

A small bound proves nothing good: a weak attack gives 0. Only a bound above the claim proves something, namely that the
claim is false.

Edge values:

| question | answer |
|---|---|
| no guesses, or none right | p-value 1, bound 0 |
| at most half of the guesses right | bound 0 |
| all guesses right | the bound is finite: it grows with the logarithm of the guesses |
| delta 0 | allowed: pure epsilon |
| delta 1, epsilon infinite | p-value 1: nothing can be refuted |
| delta outside [0, 1], NaN, more right than guessed | `AccountingError` |

Source: Steinke, Nasr, Jagielski 2023, arXiv 2305.08846, theorem 5.2 (approximate differential privacy).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from privacy.errors import AccountingError

GUESS_SHARES = (0.5, 0.2, 0.1, 0.05)
"""Shares of the canaries that are guessed, half as in and half as out. Fixed before any run; all are paid for."""

CONFIDENCE = 0.95
_STEP = 0.05  # of epsilon, in the search for the first that is not refuted
_PRECISION = 1e-4  # of the bound
_LARGEST = 100.0  # epsilon; no number of canaries that fits in memory could refute it


def p_value(canaries: int, guesses: int, correct: int, epsilon: float, delta: float) -> float:
    """How likely at least `correct` right guesses are, at most, if the run is (epsilon, delta)-private.

    Args:
        canaries: m, each in or out by a fair coin of its own, >= 1.
        guesses: r, the number of guesses made, fixed beforehand, 0..m.
        correct: v, how many were right, 0..r.
        epsilon: of the claim, >= 0 or infinite.
        delta: of the claim, in [0, 1].

    Returns:
        Pr[W >= v] + 2 m delta max_i Pr[v - i <= W < v] / i, at most 1, where W counts the successes of r tosses with
        probability e^epsilon / (1 + e^epsilon).

    Raises:
        AccountingError: If a number is out of range.
    """
    from scipy import stats

    _check(canaries, guesses, correct, delta)
    if math.isnan(epsilon) or epsilon < 0:
        raise AccountingError(f"epsilon must not be negative, got {epsilon!r}")
    right = 1.0 / (1.0 + math.exp(-epsilon))
    tail = float(stats.binom.sf(correct - 1, guesses, right))
    if correct == 0 or delta == 0:
        return min(1.0, tail)
    fewer = stats.binom.pmf(np.arange(correct - 1, -1, -1), guesses, right)  # of v - 1, v - 2, ..., 0
    slack = float((np.cumsum(fewer) / np.arange(1, correct + 1)).max())
    return min(1.0, tail + 2 * canaries * delta * slack)


def epsilon_lower_bound(
    canaries: int, guesses: int, correct: int, delta: float, confidence: float = CONFIDENCE
) -> float:
    """The largest epsilon below which every claim is refuted.

    Args:
        canaries, guesses, correct, delta: as in `p_value`.
        confidence: in (0, 1).

    Returns:
        The first epsilon whose p-value reaches 1 - confidence, to four decimals, rounded down; 0 if that of 0 does.

    Raises:
        AccountingError: If a number is out of range.
    """
    _check(canaries, guesses, correct, delta)
    if not 0 < confidence < 1:
        raise AccountingError(f"confidence must be in (0, 1), got {confidence!r}")
    level = 1 - confidence

    def refuted(epsilon: float) -> bool:
        return p_value(canaries, guesses, correct, epsilon, delta) < level

    # The first crossing, not any: with a delta the p-value need not grow everywhere.
    low = 0.0
    if not refuted(low):
        return 0.0
    while refuted(low + _STEP):
        low += _STEP
        if low > _LARGEST:
            return _LARGEST
    high = low + _STEP
    while high - low > _PRECISION:
        middle = (low + high) / 2
        low, high = (middle, high) if refuted(middle) else (low, middle)
    return round(math.floor(low / _PRECISION) * _PRECISION, 4)


@dataclass(frozen=True)
class OneRun:
    """What one attack on one run shows.

    Attributes:
        canaries: How many were tossed for.
        guesses: Made by the number of guesses that refutes most.
        correct: How many of these were right.
        lower_bound: On epsilon, at `confidence`.
        p_value: Of the claim; smaller than a only with probability a if the claim holds.
    """

    canaries: int
    guesses: int
    correct: int
    delta: float
    confidence: float
    lower_bound: float
    p_value: float


def one_run(
    scores: NDArray[np.float64],
    included: NDArray[np.bool_],
    *,
    claim: float,
    delta: float,
    confidence: float = CONFIDENCE,
) -> OneRun:
    """Guess from the scores, compare with the truth, and bound epsilon from below.

    Args:
        scores: (m,) the attacker's; the higher, the rather in.
        included: (m,) how the coins fell.
        claim: the epsilon to test, >= 0 or infinite.
        delta: of the claim.
        confidence: of the lower bound.

    Raises:
        AccountingError: If there are no canaries, the lengths differ, a score is NaN, or a number is out of range.
    """
    if scores.ndim != 1 or scores.shape != included.shape or not len(scores):
        raise AccountingError(f"expected a score for each canary, got {scores.shape} for {included.shape}")
    if np.isnan(scores).any():
        raise AccountingError("a canary's score is NaN; the attack is broken, and shows nothing")
    canaries = len(scores)
    order = np.argsort(scores, kind="stable")
    found = []
    for share in GUESS_SHARES:
        half = min(max(1, round(canaries * share / 2)), canaries // 2)
        correct = int(included[order[canaries - half :]].sum() + (~included[order[:half]]).sum())
        level = 1 - (1 - confidence) / len(GUESS_SHARES)
        bound = epsilon_lower_bound(canaries, 2 * half, correct, delta, level)
        chance = min(1.0, len(GUESS_SHARES) * p_value(canaries, 2 * half, correct, claim, delta))
        found.append(OneRun(canaries, 2 * half, correct, delta, confidence, bound, chance))
    return min(found, key=lambda each: (each.p_value, -each.lower_bound))


def _check(canaries: int, guesses: int, correct: int, delta: float) -> None:
    if not 0 <= correct <= guesses <= canaries or canaries < 1:
        raise AccountingError(
            f"expected 0 <= correct <= guesses <= canaries, got {correct} right of {guesses} on {canaries} canaries"
        )
    if not 0 <= delta <= 1:
        raise AccountingError(f"delta must be in [0, 1], got {delta!r}")
