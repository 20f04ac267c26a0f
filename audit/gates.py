"""Gates: thresholds a release must pass, fixed before anybody knows the figures.

A gate's name says what is measured; whoever has the evidence measures it again:

    <metric>@<hospital>             what that hospital reported
    <metric>@every-site             the worst over the hospitals the plan lets evaluate
    <metric>@every-non-training-site  the worst over those among them that trained nothing
    gap:<metric>                    training minus non-training hospitals, each pooled by admissions
    predecessor:<metric>/chapters   how surely no ICD-10 chapter is worse than under the release it replaces
    epsilon                         of the run
    empirical-audit                 days since the last empirical privacy audit, which must have passed
    witnesses                       organisations that cosign the log

`<metric>.lower` and `<metric>.upper` stand for the ends of the hospitals' 95% intervals.

Invariants:
- A gate on something that was not reported, or was suppressed, fails: no figure never means a good figure.
- Only gates listed here exist; one that nobody can measure again would be a claim.
- A gate's result follows from value, comparison and threshold.

`predecessor:` compares both versions on the same admissions, in every chapter and over all. Its value is the
smallest lower end of the 95% intervals of (new minus old), so a threshold of -0.02 asks for evidence that no
chapter lost more than two points, and thin evidence fails. Chapters suppressed at every hospital cannot be
judged and are named.

Source: Zou and Donner 2008, Statistics in Medicine 27:1693 (intervals of sums and differences from the
intervals of their parts, MOVER); FDA 2016, Non-Inferiority Clinical Trials (the lower end as the criterion).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from audit.canonical import shown
from audit.errors import EntryError, ReleaseError
from audit.schema import fields_of, name, number, one_of, present

AT_LEAST = "at_least"
AT_MOST = "at_most"
EVERY_SITE = "every-site"
EVERY_NON_TRAINING_SITE = "every-non-training-site"
EPSILON = "epsilon"
EMPIRICAL_AUDIT = "empirical-audit"
WITNESSES = "witnesses"
ADMISSIONS = "admissions"  # the metric hospitals are pooled by
GAP = "gap:"
PREDECESSOR = "predecessor:"
CHAPTERS = "/chapters"
_ENDS = {".lower": "lower", ".upper": "upper"}


@dataclass(frozen=True)
class Figure:
    """A number with its 95% interval; `lower` <= `value` <= `upper`."""

    value: float
    lower: float
    upper: float


@dataclass(frozen=True)
class AuditFigure:
    """The last empirical privacy audit before a proposal."""

    index: int
    passed: bool
    quick: bool
    claim: float
    lower_bound: float
    age_days: float


@dataclass(frozen=True)
class Figures:
    """All that gates are measured from."""

    epsilon: float
    training: frozenset[str]  # hospitals that contributed
    evaluating: tuple[str, ...]  # hospitals the plan lets evaluate
    metrics: Mapping[str, Mapping[str, Mapping[str, Any]]]  # by hospital and metric: value, lower, upper, or null
    predecessor: str | None = None  # version of the release this one would replace
    compared_with: str | None = None  # version the hospitals compared it with
    audit: AuditFigure | None = None
    witnesses: int = 0  # organisations enrolled as witnesses


@dataclass(frozen=True)
class GateRule:
    """A gate before it is measured. Making one raises ReleaseError for a name or comparison nobody can measure."""

    name: str
    comparison: str  # "at_least" or "at_most"
    threshold: float

    def __post_init__(self) -> None:
        try:
            _RULE(self.to_json(), "gate")
        except EntryError as error:
            raise ReleaseError(str(error)) from error
        _check_rule(self)

    def to_json(self) -> dict[str, Any]:
        """The form in a signed set of gates."""
        return {"name": self.name, "comparison": self.comparison, "threshold": self.threshold}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> GateRule:
        """Reads that form; raises ReleaseError."""
        try:
            _RULE(value, "gate")
        except EntryError as error:
            raise ReleaseError(str(error)) from error
        return cls(value["name"], value["comparison"], float(value["threshold"]))

    def __str__(self) -> str:
        return f"{self.name} {'>=' if self.comparison == AT_LEAST else '<='} {self.threshold:g}"


@dataclass(frozen=True)
class Gate:
    """A gate with its measured value. Making one raises ReleaseError like `GateRule`."""

    name: str
    comparison: str
    threshold: float
    value: float

    def __post_init__(self) -> None:
        GateRule(self.name, self.comparison, self.threshold)

    @property
    def rule(self) -> GateRule:
        """The gate as it was set."""
        return GateRule(self.name, self.comparison, self.threshold)

    @property
    def passed(self) -> bool:
        """Whether the value is on the right side of the threshold; equality passes, NaN never does."""
        if self.comparison == AT_LEAST:
            return self.value >= self.threshold
        return self.value <= self.threshold

    def to_json(self) -> dict[str, Any]:
        """The form in the release statement."""
        return {**self.rule.to_json(), "value": self.value, "passed": self.passed}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Gate:
        """Reads that form; raises ReleaseError when the stated result does not follow from the numbers."""
        gate = cls(value["name"], value["comparison"], float(value["threshold"]), float(value["value"]))
        if value["passed"] is not gate.passed:
            raise ReleaseError(
                f"gate {gate.name}: says passed={shown(value['passed'])}, but {gate.value} {gate.comparison} "
                f"{gate.threshold} is {gate.passed}"
            )
        return gate


@dataclass(frozen=True)
class Measured:
    """A gate's value and what it comes from, in words."""

    value: float
    detail: str


def check_distinct(rules: Iterable[GateRule | Gate], what: str) -> None:
    """Raises ReleaseError when there is no gate, or one twice."""
    names = [rule.name for rule in rules]
    if not names:
        raise ReleaseError(f"{what}: expected at least one gate, got none")
    if len(set(names)) != len(names):
        raise ReleaseError(f"{what}: a gate is listed twice")


def measure(rule: GateRule, figures: Figures) -> Measured:
    """The gate's value. Raises ReleaseError, naming the gate, when a figure it needs is missing or suppressed."""
    try:
        return _measure(rule, figures)
    except ReleaseError as error:
        raise ReleaseError(f"gate {rule.name}: {error}") from error


def _measure(rule: GateRule, figures: Figures) -> Measured:
    if rule.name == EPSILON:
        return Measured(figures.epsilon, "the run's")
    if rule.name == EMPIRICAL_AUDIT:
        return _audit_age(figures.audit)
    if rule.name == WITNESSES:
        return Measured(figures.witnesses, "organisations enrolled; that they cosigned is checked with the checkpoint")
    if rule.name.startswith(GAP):
        return _gap(rule.name.removeprefix(GAP), figures)
    if rule.name.startswith(PREDECESSOR):
        return _against_predecessor(rule.name.removeprefix(PREDECESSOR).removesuffix(CHAPTERS), figures)
    metric, _, where = rule.name.rpartition("@")
    values = {site: _read(figures, site, metric) for site in _sites(where, figures)}
    pick = min if rule.comparison == AT_LEAST else max
    site = pick(values, key=lambda each: values[each])
    return Measured(values[site], f"{site}'s" if len(values) == 1 else f"{site}'s, the worst of {len(values)}")


def _check_rule(rule: GateRule) -> None:
    what = f"gate {shown(rule.name)}"
    only: str | None = None
    if rule.name in (EPSILON, EMPIRICAL_AUDIT) or rule.name.startswith(GAP):
        only = AT_MOST
    elif rule.name == WITNESSES or rule.name.startswith(PREDECESSOR):
        only = AT_LEAST
    if only is not None and rule.comparison != only:
        raise ReleaseError(f"{what}: expected comparison {only}, got {rule.comparison}")
    if rule.name == WITNESSES and (rule.threshold < 1 or rule.threshold != int(rule.threshold)):
        raise ReleaseError(f"{what}: expected a whole number of at least 1, got {rule.threshold}")
    if rule.name in (EPSILON, EMPIRICAL_AUDIT) and rule.threshold <= 0:
        raise ReleaseError(f"{what}: expected a threshold above 0, got {rule.threshold}")
    if rule.name in (EPSILON, EMPIRICAL_AUDIT, WITNESSES):
        return
    if rule.name.startswith(PREDECESSOR):
        metric = rule.name.removeprefix(PREDECESSOR).removesuffix(CHAPTERS)
        if not rule.name.endswith(CHAPTERS) or not metric or "/" in metric or _end(metric) is not None:
            raise ReleaseError(f"{what}: expected {PREDECESSOR}<metric>{CHAPTERS}")
        if not -1 <= rule.threshold <= 0:
            # Above 0 a first release, which has nothing to be worse than, could never pass.
            raise ReleaseError(f"{what}: expected a threshold from -1 to 0, got {rule.threshold}")
        return
    metric, separator, where = rule.name.rpartition("@")
    if rule.name.startswith(GAP):
        metric, separator, where = rule.name.removeprefix(GAP), "@", "all"
    bare = metric[: -len(".lower")] if _end(metric) is not None else metric
    if not separator or not where or not bare:
        raise ReleaseError(
            f"{what}: not a metric hospitals report; use METRIC@SITE, METRIC@{EVERY_SITE}, "
            f"METRIC@{EVERY_NON_TRAINING_SITE}, {GAP}METRIC, {PREDECESSOR}METRIC{CHAPTERS}, {EPSILON}, "
            f"{EMPIRICAL_AUDIT} or {WITNESSES}"
        )


def _end(metric: str) -> str | None:
    """Which end of the interval a metric's name asks for; None: the value."""
    return next((end for suffix, end in _ENDS.items() if metric.endswith(suffix)), None)


def _sites(where: str, figures: Figures) -> list[str]:
    if where == EVERY_SITE:
        sites = sorted(figures.evaluating)
    elif where == EVERY_NON_TRAINING_SITE:
        sites = sorted(set(figures.evaluating) - figures.training)
    else:
        return [where]
    if not sites:
        raise ReleaseError("the plan lets no such hospital evaluate")
    return sites


def _read(figures: Figures, site: str, metric: str) -> float:
    end = _end(metric)
    bare = metric if end is None else metric[: -len(f".{end}")]
    value = _entry(figures, site, bare)[end or "value"]
    if value is None:
        raise ReleaseError(f"{site} reported {bare} without {end or 'a value'} (suppressed); nothing to compare")
    return float(value)


def _entry(figures: Figures, site: str, metric: str) -> Mapping[str, Any]:
    reported = figures.metrics.get(site, {})
    if metric not in reported:
        known = ", ".join(sorted(each for each in reported if "/" not in each)) or "nothing"
        raise ReleaseError(f"{site} reported no {metric}; it reported {known}")
    return reported[metric]


def _figure(entry: Mapping[str, Any]) -> Figure | None:
    """The figure with its interval; None when any part is suppressed."""
    parts = [entry[part] for part in ("value", "lower", "upper")]
    if any(part is None for part in parts):
        return None
    value, lower, upper = map(float, parts)
    return Figure(value, min(lower, value), max(upper, value))


def _audit_age(audit: AuditFigure | None) -> Measured:
    if audit is None:
        raise ReleaseError("no empirical privacy audit is logged; run `zegel privacy audit` and log its report")
    what = f"the last audit (entry {audit.index})"
    if not audit.passed or audit.lower_bound > audit.claim:
        raise ReleaseError(f"{what} failed: it found epsilon {audit.lower_bound:g}, the claim was {audit.claim:g}")
    if audit.quick:
        raise ReleaseError(f"{what} was a quick one, which proves less; run a full one")
    if audit.age_days < 0:
        raise ReleaseError(f"{what} is dated after the proposal")
    return Measured(
        audit.age_days, f"entry {audit.index}: lower bound {audit.lower_bound:g} beside a claim of {audit.claim:g}"
    )


def _gap(metric: str, figures: Figures) -> Measured:
    end = _end(metric)
    bare = metric if end is None else metric[: -len(f".{end}")]
    inside = sorted(set(figures.evaluating) & figures.training)
    outside = sorted(set(figures.evaluating) - figures.training)
    if not inside or not outside:
        raise ReleaseError("expected hospitals that trained and hospitals that did not among those that evaluate")
    difference = _difference(_pooled(figures, inside, bare), _pooled(figures, outside, bare))
    value = float(getattr(difference, end or "value"))
    return Measured(value, f"{len(inside)} training against {len(outside)} other hospitals")


def _pooled(figures: Figures, sites: Sequence[str], metric: str) -> Figure:
    parts: list[tuple[float, Figure]] = []
    for site in sites:
        weight, figure = _figure(_entry(figures, site, ADMISSIONS)), _figure(_entry(figures, site, metric))
        if weight is None or figure is None or weight.value <= 0:
            raise ReleaseError(f"{site} suppressed {metric} or its count of admissions; nothing to compare")
        parts.append((weight.value, figure))
    return _mean(parts)


def _against_predecessor(metric: str, figures: Figures) -> Measured:
    if figures.predecessor is None:
        return Measured(0.0, "the first release of its task; there is nothing to be worse than")
    if figures.compared_with != figures.predecessor:
        raise ReleaseError(
            f"expected a comparison with {figures.predecessor}, the certified release's version; the hospitals "
            f"compared with {figures.compared_with or 'nothing'}"
        )
    old = f"predecessor-{metric}"
    sites = sorted(figures.evaluating)
    worst = _difference(_pooled(figures, sites, metric), _pooled(figures, sites, old))
    where, judged, unjudged = "all chapters together", 0, []
    reported = {each for site in sites for each in figures.metrics.get(site, {})}
    chapters = sorted(each.removeprefix(f"{old}/") for each in reported if each.startswith(f"{old}/"))
    if not chapters:
        raise ReleaseError(f"no hospital reported {old} by chapter")
    for chapter in chapters:
        new_parts, old_parts = [], []
        for site in sites:
            entries = [_entry(figures, site, f"{each}/{chapter}") for each in ("true", metric, old)]
            weight, new_figure, old_figure = map(_figure, entries)
            if weight is not None and new_figure is not None and old_figure is not None and weight.value > 0:
                new_parts.append((weight.value, new_figure))
                old_parts.append((weight.value, old_figure))
        if not new_parts:
            unjudged.append(chapter)
            continue
        judged += 1
        difference = _difference(_mean(new_parts), _mean(old_parts))
        if difference.lower < worst.lower:
            worst, where = difference, f"chapter {chapter}"
    if not judged:
        raise ReleaseError("every chapter is suppressed at every hospital; nothing to compare")
    note = f"; too few admissions to judge {', '.join(unjudged)}" if unjudged else ""
    return Measured(
        worst.lower,
        f"{where}: {worst.value:+.3f} [{worst.lower:+.3f}, {worst.upper:+.3f}], the worst of {judged} chapters{note}",
    )


def _mean(parts: Sequence[tuple[float, Figure]]) -> Figure:
    """The weighted mean of independent figures."""
    total = math.fsum(weight for weight, _ in parts)
    shares = [(weight / total, figure) for weight, figure in parts]
    value = math.fsum(share * figure.value for share, figure in shares)
    below = math.sqrt(math.fsum((share * (figure.value - figure.lower)) ** 2 for share, figure in shares))
    above = math.sqrt(math.fsum((share * (figure.upper - figure.value)) ** 2 for share, figure in shares))
    return Figure(value, value - below, value + above)


def _difference(one: Figure, other: Figure) -> Figure:
    """One minus the other. Figures of the same admissions go up and down together, so this is wider than needed."""
    value = one.value - other.value
    below = math.hypot(one.value - one.lower, other.upper - other.value)
    above = math.hypot(one.upper - one.value, other.value - other.lower)
    return Figure(value, value - below, value + above)


_RULE = fields_of({"name": name, "comparison": one_of(AT_LEAST, AT_MOST), "threshold": number()}, further=False)
GATE_FIELDS = fields_of(
    {
        "name": name,
        "comparison": one_of(AT_LEAST, AT_MOST),
        "threshold": number(),
        "value": number(),
        "passed": present,
    },
    further=False,
)
