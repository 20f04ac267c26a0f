"""Gates: what each measures, and that no figure never means a good figure."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit.canonical import digest_of, format_time
from audit.errors import AuditError, ReleaseError, TraceError
from audit.gates import AT_LEAST, AT_MOST, AuditFigure, Figures, Gate, GateRule, measure
from audit.release import GateSet, Policy

if TYPE_CHECKING:
    from tests.audit.conftest import Story
else:
    Story = object

NEW, OLD = digest_of(b"new"), digest_of(b"old")


def figure(value: float | None, half: float = 0.1) -> dict[str, Any]:
    if value is None:
        return {"value": None, "lower": None, "upper": None}
    return {"value": value, "lower": value - half, "upper": value + half}


def site(hit: float | None, admissions: float | None = 100, **further: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {"hit@1": figure(hit), "admissions": figure(admissions, 5), **further}


FIGURES = Figures(
    epsilon=1.5,
    training=frozenset({"a", "b"}),
    evaluating=("a", "b", "c", "d"),
    metrics={"a": site(0.8, 300), "b": site(0.7), "c": site(0.6), "d": site(0.5, 300)},
    audit=AuditFigure(index=3, passed=True, quick=False, claim=1.5, lower_bound=0.4, age_days=30.0),
    witnesses=2,
)


def value(name: str, comparison: str = AT_LEAST, figures: Figures = FIGURES, threshold: float = 0.5) -> float:
    return measure(GateRule(name, comparison, threshold), figures).value


def test_metrics_of_one_hospital_and_of_the_worst() -> None:
    assert value("hit@1@a") == 0.8
    assert value("hit@1@every-site") == 0.5
    assert value("hit@1@every-site", AT_MOST) == 0.8
    assert value("hit@1@every-non-training-site") == 0.5
    assert value("hit@1@every-non-training-site", AT_MOST) == 0.6
    assert value("hit@1.lower@every-site") == pytest.approx(0.4)
    assert value("hit@1.upper@a") == pytest.approx(0.9)
    assert measure(GateRule("hit@1@every-site", AT_LEAST, 0.5), FIGURES).detail == "d's, the worst of 4"


def test_epsilon_audit_and_witnesses() -> None:
    assert value("epsilon", AT_MOST) == 1.5
    assert value("empirical-audit", AT_MOST, threshold=90) == 30.0
    assert value("witnesses", AT_LEAST, threshold=2) == 2


def test_the_gap_is_pooled_by_admissions() -> None:
    inside, outside = (0.8 * 300 + 0.7 * 100) / 400, (0.6 * 100 + 0.5 * 300) / 400
    assert value("gap:hit@1", AT_MOST) == pytest.approx(inside - outside)
    half = math.hypot(0.75, 0.25) * 0.1 * math.sqrt(2)  # independent hospitals: variances add
    assert value("gap:hit@1.upper", AT_MOST) == pytest.approx(inside - outside + half)


def compared(
    chapters: Mapping[str, tuple[float | None, float, float]], overall: tuple[float, float] = (0.8, 0.7)
) -> Figures:
    """Two hospitals with the same figures: per chapter true admissions, new and old hit@1."""
    values = site(overall[0], 200, **{"predecessor-hit@1": figure(overall[1], 0.01)})
    values["hit@1"] = figure(overall[0], 0.01)
    for chapter, (count, new, old) in chapters.items():
        hidden = count is None
        values[f"true/{chapter}"] = figure(count, 3)
        values[f"hit@1/{chapter}"] = figure(None if hidden else new, 0.01)
        values[f"predecessor-hit@1/{chapter}"] = figure(None if hidden else old, 0.01)
    return replace(
        FIGURES,
        training=frozenset({"a"}),
        evaluating=("a", "b"),
        metrics={"a": values, "b": values},
        predecessor=OLD,
        compared_with=OLD,
    )


def worst(figures: Figures) -> tuple[float, str]:
    found = measure(GateRule("predecessor:hit@1/chapters", AT_LEAST, -0.02), figures)
    return found.value, found.detail


def test_no_chapter_is_worse_than_the_predecessor() -> None:
    margin = 0.01  # two hospitals, two versions: 0.01 / sqrt(2) * sqrt(2)
    low, detail = worst(compared({"I": (100, 0.8, 0.7), "IX": (50, 0.65, 0.70)}))
    assert low == pytest.approx(-0.05 - margin)
    assert detail.startswith("chapter IX: -0.050 [-0.060, -0.040], the worst of 2 chapters")
    low, detail = worst(compared({"I": (100, 0.9, 0.7)}))
    assert low == pytest.approx(0.1 - margin)
    assert detail.startswith("all chapters together")


def test_a_chapter_suppressed_everywhere_is_named_not_judged() -> None:
    low, detail = worst(compared({"I": (100, 0.8, 0.8), "XVI": (None, 0.0, 0.9)}))
    assert low == pytest.approx(-0.01)
    assert detail.endswith("too few admissions to judge XVI")


def test_the_first_release_of_a_task_has_nothing_to_be_worse_than() -> None:
    assert value("predecessor:hit@1/chapters", figures=replace(FIGURES, predecessor=None), threshold=-0.02) == 0.0


CHAPTER = {"I": (100.0, 0.8, 0.7)}
MISSING: list[tuple[str, str, str, Figures, str]] = [
    ("unknown metric", "recall@a", AT_LEAST, FIGURES, "a reported no recall; it reported admissions, hit@1"),
    ("unknown hospital", "hit@1@z", AT_LEAST, FIGURES, "z reported no hit@1; it reported nothing"),
    (
        "suppressed",
        "hit@1@every-site",
        AT_LEAST,
        replace(FIGURES, metrics={**FIGURES.metrics, "b": site(None)}),
        "b reported hit@1 without a value",
    ),
    (
        "one hospital silent",
        "hit@1@every-site",
        AT_LEAST,
        replace(FIGURES, metrics={"a": site(0.9)}),
        "b reported no hit@1",
    ),
    (
        "no other hospital",
        "hit@1@every-non-training-site",
        AT_LEAST,
        replace(FIGURES, training=frozenset("abcd")),
        "no such",
    ),
    ("gap without others", "gap:hit@1", AT_MOST, replace(FIGURES, training=frozenset("abcd")), "that did not among"),
    (
        "gap without counts",
        "gap:hit@1",
        AT_MOST,
        replace(FIGURES, metrics={**FIGURES.metrics, "b": site(0.7, None)}),
        "b suppressed hit@1 or its count",
    ),
    ("no audit", "empirical-audit", AT_MOST, replace(FIGURES, audit=None), "no empirical privacy audit is logged"),
    (
        "no comparison",
        "predecessor:hit@1/chapters",
        AT_LEAST,
        replace(FIGURES, predecessor=OLD),
        "compared with nothing",
    ),
    (
        "compared with another",
        "predecessor:hit@1/chapters",
        AT_LEAST,
        replace(compared(CHAPTER), compared_with=NEW),
        "expected a comparison with sha256:",
    ),
    ("no chapters", "predecessor:hit@1/chapters", AT_LEAST, compared({}), "no hospital reported predecessor-hit@1 by"),
    (
        "all chapters suppressed",
        "predecessor:hit@1/chapters",
        AT_LEAST,
        compared({"I": (None, 0.8, 0.7)}),
        "every chapter is suppressed",
    ),
]


@pytest.mark.parametrize(
    ("case", "name", "comparison", "figures", "message"), MISSING, ids=[each[0] for each in MISSING]
)
def test_no_figure_fails(case: str, name: str, comparison: str, figures: Figures, message: str) -> None:
    threshold = -0.02 if name.startswith("predecessor") else 1.0
    with pytest.raises(ReleaseError, match=f"gate {name}: .*{message}"):
        measure(GateRule(name, comparison, threshold), figures)


AUDITS: list[tuple[str, dict[str, Any], str]] = [
    ("failed", {"passed": False}, "failed"),
    ("bound above the claim", {"lower_bound": 1.6}, "found epsilon 1.6, the claim was 1.5"),
    ("quick", {"quick": True}, "a quick one"),
    ("of the future", {"age_days": -1.0}, "dated after"),
]


@pytest.mark.parametrize(("case", "changes", "message"), AUDITS, ids=[each[0] for each in AUDITS])
def test_an_audit_that_does_not_count(case: str, changes: dict[str, Any], message: str) -> None:
    assert FIGURES.audit is not None
    with pytest.raises(ReleaseError, match=message):
        measure(GateRule("empirical-audit", AT_MOST, 90), replace(FIGURES, audit=replace(FIGURES.audit, **changes)))


NO_RULES: list[tuple[str, str, float, str]] = [
    ("beauty", AT_LEAST, 0.5, "not a metric hospitals report"),
    ("@a", AT_LEAST, 0.5, "not a metric"),
    ("hit@", AT_LEAST, 0.5, "not a metric"),
    (".lower@a", AT_LEAST, 0.5, "not a metric"),
    ("gap:", AT_MOST, 0.5, "not a metric"),
    ("gap:hit@1", AT_LEAST, 0.5, "expected comparison at_most"),
    ("epsilon", AT_LEAST, 1, "expected comparison at_most"),
    ("epsilon", AT_MOST, 0, "above 0"),
    ("empirical-audit", AT_MOST, -1, "above 0"),
    ("witnesses", AT_MOST, 2, "expected comparison at_least"),
    ("witnesses", AT_LEAST, 1.5, "whole number"),
    ("witnesses", AT_LEAST, 0, "whole number"),
    ("predecessor:hit@1", AT_LEAST, -0.1, "expected predecessor:<metric>/chapters"),
    ("predecessor:/chapters", AT_LEAST, -0.1, "expected predecessor:<metric>/chapters"),
    ("predecessor:hit@1.lower/chapters", AT_LEAST, -0.1, "expected predecessor:<metric>/chapters"),
    ("predecessor:hit@1/chapters", AT_LEAST, 0.1, "from -1 to 0"),
    ("predecessor:hit@1/chapters", AT_MOST, -0.1, "expected comparison at_least"),
    ("hit@1@a", "near", 0.5, "at_least or at_most"),
    ("hit@1@a", AT_LEAST, math.nan, "number"),
    ("hit@1@a", AT_LEAST, math.inf, "number"),
    ("hit\n@a", AT_LEAST, 0.5, "printable"),
]


@pytest.mark.parametrize(("name", "comparison", "threshold", "message"), NO_RULES)
def test_what_is_no_gate(name: str, comparison: str, threshold: float, message: str) -> None:
    with pytest.raises(ReleaseError, match=message):
        GateRule(name, comparison, threshold)
    with pytest.raises(ReleaseError, match=message):
        Gate(name, comparison, threshold, 0.5)


def test_gates_pass_on_the_right_side_only() -> None:
    assert Gate("hit@1@a", AT_LEAST, 0.5, 0.5).passed
    assert not Gate("hit@1@a", AT_LEAST, 0.5, 0.49).passed
    assert Gate("epsilon", AT_MOST, 2, 2).passed
    assert not Gate("epsilon", AT_MOST, 2, 2.1).passed
    assert not Gate("epsilon", AT_MOST, 2, math.nan).passed
    gate = Gate("epsilon", AT_MOST, 2, 1)
    assert Gate.from_json(gate.to_json()) == gate
    with pytest.raises(ReleaseError, match="says passed=False"):
        Gate.from_json({**gate.to_json(), "passed": False})


shares = st.floats(0, 1)
halves = st.floats(0, 0.5)


@settings(derandomize=True, max_examples=60, deadline=None)
@given(st.lists(st.tuples(shares, shares, halves, st.floats(10, 500)), min_size=2, max_size=6))
def test_the_predecessor_gate_is_never_kinder_than_its_worst_chapter(
    chapters: list[tuple[float, float, float, float]],
) -> None:
    """With one hospital: at or below every chapter's difference, and down as far as the intervals are wide."""
    values = site(0.9, 1000, **{"predecessor-hit@1": figure(0.1)})
    for number, (new, old, half, count) in enumerate(chapters):
        values[f"true/{number}"] = figure(count, 1)
        values[f"hit@1/{number}"], values[f"predecessor-hit@1/{number}"] = figure(new, half), figure(old, half)
    figures = replace(FIGURES, evaluating=("a",), metrics={"a": values}, predecessor=OLD, compared_with=OLD)
    low, _ = worst(figures)
    for new, old, half, _ in chapters:
        assert low <= new - old - half * math.sqrt(2) + 1e-9


# -- set before the run


def test_gates_of_the_statement_are_those_set(story: Story) -> None:
    story.found()
    story.gates = (Gate("micro_f1@every-site", AT_LEAST, 0.1, 0.7),)
    story.run()
    story.release()
    with pytest.raises(
        ReleaseError,
        match=r"missing micro_f1@every-site >= 0\.6, epsilon <= 2, added or changed micro_f1@every-site >= 0\.1",
    ):
        story.trace()


def later(story: Story) -> None:
    """Easier gates, once the figures are known."""
    story.gates = story.gates[1:]
    story.set_gates()


def test_gates_set_after_the_run_started_do_not_judge_it(story: Story) -> None:
    story.found()
    story.run()
    later(story)
    story.release()
    with pytest.raises(ReleaseError, match=r"expected the set in force when the run started, sha256:.* \(entry"):
        story.trace()


def test_the_last_gates_before_the_run_count(story: Story) -> None:
    story.found()
    later(story)
    story.run()
    story.release()
    trace = story.trace()
    assert [gate.name for gate in trace.gates] == ["epsilon"]
    assert trace.gate_set.digest == story.gate_set


def test_no_gates_no_release(story: Story) -> None:
    story.hooks["gates.set"] = lambda fields: fields.update(skip=True)
    with pytest.raises(TraceError, match="task icd_coding: no gates were set before entry"):
        story.tell().trace()


BAD_SETS: list[tuple[str, Callable[[dict[str, Any]], None], str]] = [
    ("by an officer", lambda f: f.update(signer="Bob"), "expected role release_manager, got privacy_officer"),
    ("of another task", lambda f: f.update(task="other"), "no gates were set"),
    ("with a weak policy", lambda f: f.update(policy=Policy().to_json()), "at least 2 organisations, got 1"),
    ("without gates", lambda f: f.update(gates=[]), "at least one gate"),
    ("a gate twice", lambda f: f.update(gates=f["gates"][:1] * 2), "listed twice"),
    ("a gate nobody measures", lambda f: f["gates"][0].update(name="beauty"), "not a metric"),
    (
        "with a stricter policy than the statement's",
        lambda f: f["policy"].update(plan=["authority", "privacy_officer"]),
        "policy: expected the one set",
    ),
]


@pytest.mark.parametrize(("case", "change", "message"), BAD_SETS, ids=[each[0] for each in BAD_SETS])
def test_gate_sets_that_do_not_count(
    story: Story, case: str, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    story.hooks["signed gates"] = change
    with pytest.raises(AuditError, match=message):
        story.tell().trace()


def test_values_must_follow_from_the_metrics(story: Story) -> None:
    story.gates = (Gate("micro_f1@every-site", AT_LEAST, 0.6, 0.8),)
    with pytest.raises(ReleaseError, match=r"the log gives 0\.7, the release statement says 0\.8"):
        story.tell().trace()


def test_a_gate_set_reads_itself() -> None:
    gates = GateSet("icd_coding", (GateRule("epsilon", AT_MOST, 8.0),), Policy(organisations=2), None)
    assert GateSet.from_json(gates.to_json()) == gates


# -- the empirical audit


def with_audit(story: Story, days: float, threshold: float = 30) -> Story:
    story.gates = (Gate("empirical-audit", AT_MOST, threshold, days),)
    return story


def test_the_last_audit_counts_by_its_age_at_the_proposal(story: Story) -> None:
    def audit(fields: dict[str, Any]) -> None:
        moment = fields["story"].now
        fields["story"].audited(passed=False)
        fields["story"].audited(audited_at=format_time(moment - timedelta(days=20)))
        fields["story"].hooks["release statement"] = lambda f: f.update(
            gates=(Gate("empirical-audit", AT_MOST, 30, (f["time"] - moment).total_seconds() / 86_400 + 20),)
        )

    with_audit(story, 20).hooks["before run"] = audit
    trace = story.tell().trace()
    assert trace.gates[0].detail.endswith("lower bound 0.4 beside a claim of 1.5")
    assert 20 < trace.gates[0].value < 20.01


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"passed": False}, "failed: it found epsilon 0.4"),
        ({"quick": True}, "was a quick one"),
        ({"signer": "Carol"}, "expected role authority or privacy_officer, got release_manager"),
        (None, "no empirical privacy audit is logged"),
    ],
    ids=["failed", "quick", "by a release manager", "none"],
)
def test_audits_that_stop_a_release(story: Story, changes: dict[str, Any] | None, message: str) -> None:
    with_audit(story, 1).found()
    if changes is not None:
        story.audited()
        story.hooks["signed privacy-audited"] = lambda fields: fields.update(changes)
        story.audited()
    story.run()
    story.release()
    with pytest.raises(AuditError, match=message):
        story.trace()


def test_a_statement_may_not_choose_the_time_its_audit_is_judged_at(story: Story) -> None:
    story.hooks["release statement"] = lambda fields: fields.update(time=fields["time"] - timedelta(days=10))
    with pytest.raises(TraceError, match="the statement is dated 2026-11-12"):
        story.tell().trace()
