"""The empirical privacy audit: train with canaries, attack what was released, and test noise, clipping and sampling.

Nothing on the path under test is replaced or told that it is tested: plans are proposed, approved and guarded, ledgers
are on disk, coordinator and participants aggregate securely, and noise comes from the operating system. What is special
is the data, which consists of canaries alone, and that the plan has little epsilon, so that a leak stands out.

Three kinds of evidence:
- an attack on a whole run, whose success gives a lower bound on epsilon (`privacy.empirical`);
- tests of what was released: variance, shape and freshness of the noise, and what a canary adds to a sum;
- tests of the hospital's own computation, before noise: who takes part in a round, and how far one patient more moves
  a sum.

A failed check refutes a claim. A passed audit does not prove privacy: the proof is the accounting, and the audit shows
that the code does what the accounting takes for granted.

Formal guarantee: sound code fails with probability at most `FALSE_ALARM`. Every check states its own share of it.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audit.canonical import format_time
from audit.entry import ROUND_COMPLETED
from jobs.plan import LOCAL, RIDGE, Plan
from privacy.accounting import rdp_epsilon
from privacy.empirical import CONFIDENCE, OneRun, one_run
from privacy.empirical_checks import Check, contribution, noise_fresh, noise_shape, noise_variance
from site_packages.limits import TRAINING
from site_packages.privacy_audit_attack import Onlooker, Seen, log_likelihood_ratio, releases, seen_statistics, seen_sum
from site_packages.privacy_audit_canaries import Canaries, toss
from site_packages.privacy_audit_plans import DELTA, Configuration
from site_packages.privacy_audit_probes import sampling_checks, sensitivity_check
from site_packages.simulation import Simulation

SCHEMA = "zegel/privacy-audit/v1"
FALSE_ALARM = 0.002  # probability that sound code fails the whole audit, at most; half of it for the attacks
_BUDGET = 100.0  # epsilon that each hospital's officer allows: enough
_KINDS = 5  # of direct tests with a false alarm, in each configuration

RandomBytes = Callable[[int], bytes]
Tell = Callable[[str, float], None]
"""Told what goes on and how much of the whole is done, 0..1."""


@dataclass(frozen=True)
class ConfigurationReport:
    """What one configuration showed."""

    configuration: Configuration
    plan: Plan
    attack: OneRun
    checks: tuple[Check, ...]

    @property
    def claim(self) -> float:
        """The plan's epsilon."""
        return _claim(self.plan)

    @property
    def passed(self) -> bool:
        return all(check.passed for check in self.checks)

    def to_json(self) -> dict[str, Any]:
        plan = self.plan
        return {
            "name": self.configuration.name,
            "description": self.configuration.description,
            "estimator": plan.estimator,
            "noise_mode": plan.noise_mode,
            "plan_hash": plan.hash,
            "epsilon": self.claim,
            "delta": plan.delta,
            "rounds": plan.rounds,
            "sampling_prob": plan.sampling_prob,
            "noise_multiplier": plan.noise_multiplier,
            "feature_mean_noise_multiplier": plan.feature_mean_noise_multiplier,
            "l2_clip_norm": plan.l2_clip_norm,
            "hospitals": len(plan.sites),
            "colluders": plan.colluders,
            "dropouts": plan.dropouts,
            "canaries": self.attack.canaries,
            "guesses": self.attack.guesses,
            "correct": self.attack.correct,
            "lower_bound": self.attack.lower_bound,
            "checks": [check.to_json() for check in self.checks],
        }


@dataclass(frozen=True)
class AuditReport:
    """What an audit showed; `to_json` is what `zegel privacy audit --json` writes and the log may hold."""

    software: str
    time: str
    quick: bool
    configurations: tuple[ConfigurationReport, ...]

    @property
    def passed(self) -> bool:
        return all(configuration.passed for configuration in self.configurations)

    @property
    def closest(self) -> ConfigurationReport:
        """The configuration whose lower bound came closest to its claim, or went farthest beyond."""
        return max(self.configurations, key=lambda each: each.attack.lower_bound / each.claim)

    def to_json(self) -> dict[str, Any]:
        """The report, schema `zegel/privacy-audit/v1`; finite numbers only, ready for canonical JSON."""
        closest = self.closest
        return {
            "schema": SCHEMA,
            "software": self.software,
            "time": self.time,
            "quick": self.quick,
            "passed": self.passed,
            "claim": closest.claim,
            "delta": closest.plan.delta,
            "lower_bound": closest.attack.lower_bound,
            "confidence": CONFIDENCE,
            "false_alarm": FALSE_ALARM,
            "configurations": [each.to_json() for each in self.configurations],
        }


def audit(
    configurations: Sequence[Configuration],
    *,
    quick: bool,
    random_bytes: RandomBytes = os.urandom,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    tell: Tell = lambda what, done: None,
) -> AuditReport:
    """Audit every configuration.

    Args:
        configurations: at least one.
        quick: what the report says about the configurations.
        random_bytes: of the coins and of every hospital; seeded in tests only.
        tell: told about progress.

    Raises: RunAborted and what it raises from, if the run itself fails: then nothing was shown.
    """
    level = FALSE_ALARM / 2 / len(configurations)
    reports = []
    for number, configuration in enumerate(configurations):

        def told(what: str, done: float, number: int = number, name: str = configuration.name) -> None:
            tell(f"{name}: {what}", (number + done) / len(configurations))

        reports.append(_audit_one(configuration, level=level, random_bytes=random_bytes, clock=clock, tell=told))
    return AuditReport(f"zegel {version('zegel')}", format_time(clock()), quick, tuple(reports))


def _audit_one(
    configuration: Configuration,
    *,
    level: float,
    random_bytes: RandomBytes,
    clock: Callable[[], datetime],
    tell: Tell,
) -> ConfigurationReport:
    tell("plan", 0.0)
    plan = configuration.plan()
    canaries = toss(
        configuration.canaries,
        features=configuration.features,
        hospitals=configuration.hospitals,
        random_bytes=random_bytes,
    )
    run = _train(configuration, plan, canaries, random_bytes, clock, tell)
    tell("attack", 0.8)
    found = _seen(plan, run, canaries)
    attack = one_run(log_likelihood_ratio(found), canaries.included, claim=_claim(plan), delta=plan.delta)
    checks = [_attack_check(attack, _claim(plan), level)]
    level /= _KINDS
    noise = [each.noise for each in found]
    checks += [noise_variance(noise, false_alarm=level), noise_shape(noise, false_alarm=level)]
    if len(noise) > 1:
        checks.append(noise_fresh(noise, false_alarm=level))
    if configuration.lost_round is None and plan.feature_mean_noise_multiplier is None:
        checks.append(
            contribution(
                np.array([each.along[canaries.included] for each in found]),
                noise_std=found[0].noise_std,
                sampling_prob=plan.sampling_prob,
                false_alarm=level,
            )
        )
    checks.append(_ledger_check(plan, run.spent))
    tell("sensitivity and sampling", 0.9)
    if plan.sampling_prob == 1 and plan.noise_mode != LOCAL:  # under local noise a sum without it is never seen
        checks.append(sensitivity_check(plan, random_bytes))
    if plan.sampling_prob < 1 and plan.noise_mode != LOCAL:
        checks += sampling_checks(plan, random_bytes, false_alarm=level)
    return ConfigurationReport(configuration, plan, attack, tuple(checks))


@dataclass(frozen=True)
class _Run:
    """What is kept of a run.

    Attributes:
        models: every version, from the first.
        opened: the sums as the server opened them.
        hospitals: how many were in each aggregation.
        spent: the epsilon by Renyi DP, at `DELTA`, that each hospital's ledger holds.
    """

    models: list[bytes]
    opened: list[NDArray[np.float64]]
    hospitals: list[int]
    spent: list[float]


def _seen(plan: Plan, run: _Run, canaries: Canaries) -> list[Seen]:
    rows = canaries.rows(int(plan.encoder["features"]))
    if plan.estimator == RIDGE:
        return [seen_statistics(plan, run.opened[-1], run.hospitals[-1], rows, canaries.labels)]
    return [seen_sum(plan, each, rows, canaries.labels) for each in releases(plan, run.models, run.hospitals)]


def _train(
    configuration: Configuration,
    plan: Plan,
    canaries: Canaries,
    random_bytes: RandomBytes,
    clock: Callable[[], datetime],
    tell: Tell,
) -> _Run:
    lost = {} if configuration.lost_round is None else {configuration.lost_round: plan.sites[-1]}
    onlookers: list[Onlooker] = []
    opened: list[NDArray[np.float64]] = []

    def wrap(transport: Any) -> Onlooker:
        onlookers.append(Onlooker(transport, lost=lost))
        return onlookers[-1]

    with tempfile.TemporaryDirectory(prefix="zegel-audit-") as folder:
        simulation = Simulation(
            plan=plan,
            records=canaries.records(plan.sites),
            folder=Path(folder),
            budget=(_BUDGET, DELTA),
            random_bytes=random_bytes,
            clock=clock,
            wrap=wrap,
            opened=lambda number, total: opened.append(total),
            progress=lambda step: tell(f"round {step.round} of {step.rounds}", 0.05 + 0.75 * step.round / step.rounds),
        )
        outcome = simulation.run()
        spent = [
            cohort.spent_rdp
            for ledger in simulation.ledgers.values()
            for cohort in ledger.summary().cohorts
            if cohort.cohort == TRAINING
        ]
    hospitals = [len(body["participants"]) for kind, body in simulation.entries if kind == ROUND_COMPLETED]
    return _Run([*onlookers[0].models, outcome.model], opened, hospitals, spent)


def _ledger_check(plan: Plan, spent: list[float]) -> Check:
    """Whether every hospital's ledger holds all that was released, also of rounds it was lost from."""
    released = rdp_epsilon(plan.training_events(), DELTA)
    least = min(spent)
    return Check(
        "ledger",
        least >= released * (1 - 1e-9),
        least,
        released,
        None,
        None,
        None,
        0.0,
        "epsilon (Renyi DP) spent in the hospital's ledger that holds least, beside that of what was released",
    )


def _attack_check(attack: OneRun, claim: float, level: float) -> Check:
    return Check(
        "one-run-bound",
        attack.p_value >= level,
        attack.lower_bound,
        claim,
        attack.lower_bound,
        None,
        attack.p_value,
        level,
        f"epsilon that an attack proves at least: {attack.correct} of {attack.guesses} guesses about "
        f"{attack.canaries} canaries were right",
    )


def _claim(plan: Plan) -> float:
    return math.inf if plan.epsilon is None else plan.epsilon
