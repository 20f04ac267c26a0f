"""Gates rebuilt from the log: who set them, that this was before the run, and every value measured again."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from audit.canonical import parse_time
from audit.certificates import AUTHORITY, PRIVACY_OFFICER, RELEASE_MANAGER, Identity
from audit.enrolment import enrolments, witness_policy
from audit.entry import GATES_SET, PRIVACY_AUDIT_REPORTED
from audit.errors import ReleaseError, TraceError
from audit.evidence import Evidence
from audit.gates import WITNESSES, AuditFigure, Figures, Gate, measure
from audit.metrics_trace import MetricsTrace
from audit.release import GateSet, ReleaseStatement
from audit.run_trace import RunTrace
from audit.statement import GATES, PRIVACY_AUDITED
from audit.witness_policy import WitnessPolicy

GATE_SETTERS = frozenset({RELEASE_MANAGER})
AUDITORS = frozenset({PRIVACY_OFFICER, AUTHORITY})
_DAY = 86_400  # seconds


@dataclass(frozen=True)
class GateSetTrace:
    """The gates in force when a run started."""

    index: int
    digest: str  # of the signed statement
    set_by: Identity
    set_at: datetime
    gates: GateSet


@dataclass(frozen=True)
class GateTrace:
    """A gate with the value the log gives, and what it comes from."""

    name: str
    comparison: str
    threshold: float
    value: float
    detail: str


def gates_in_force(evidence: Evidence, task: str, *, before: int) -> GateSetTrace:
    """The last gates set for a task before an entry (the run's start).

    Raises TraceError when there are none, or a release manager did not sign them: gates chosen when the figures
    are known prove nothing.
    """
    found: GateSetTrace | None = None
    for logged in evidence.of_kind(GATES_SET):
        signed = logged.entry.signed("gates")
        if signed.statement["task"] != task or logged.index >= before:
            continue
        signer = evidence.verify(logged, signed, GATES, GATE_SETTERS)
        try:
            gates = GateSet.from_json(signed.statement)
        except ReleaseError as error:
            raise TraceError(f"{logged}: {error}") from error
        found = GateSetTrace(logged.index, signed.digest, signer, logged.entry.time, gates)
    if found is None:
        raise TraceError(f"task {task}: no gates were set before entry {before}; set them before the run they judge")
    return found


def last_audit(evidence: Evidence, *, before: int, at: datetime) -> AuditFigure | None:
    """The last empirical privacy audit logged before an entry; its age is counted at `at`.

    Raises TraceError when somebody else than a privacy officer or the authority signed it.
    """
    found: AuditFigure | None = None
    for logged in evidence.of_kind(PRIVACY_AUDIT_REPORTED):
        if logged.index >= before:
            continue
        signed = logged.entry.signed("audit")
        evidence.verify(logged, signed, PRIVACY_AUDITED, AUDITORS)
        statement = signed.statement
        found = AuditFigure(
            index=logged.index,
            passed=statement["passed"],
            quick=statement["quick"],
            claim=float(statement["claim"]),
            lower_bound=float(statement["lower_bound"]),
            age_days=(at - parse_time(statement["audited_at"], "audited_at")).total_seconds() / _DAY,
        )
    return found


def figures_of(
    evidence: Evidence,
    run: RunTrace,
    metrics: tuple[MetricsTrace, ...],
    *,
    predecessor: str | None,
    before: int,
    at: datetime,
) -> Figures:
    """What the gates of a release are measured from: the log before its proposal, entry `before`, at time `at`.

    `predecessor` is the version of the certified release of the task.
    """
    return Figures(
        epsilon=run.epsilon,
        training=frozenset(hospital.site for hospital in run.hospitals if hospital.rounds_joined),
        evaluating=run.plan.evaluation_sites,
        metrics={each.site: each.values for each in metrics},
        predecessor=predecessor,
        compared_with=run.plan.compared_with,
        audit=last_audit(evidence, before=before, at=at),
        witnesses=len(_witnesses(evidence, before=before).witnesses),
    )


def measured(gates: GateSet, figures: Figures) -> tuple[Gate, ...]:
    """Every gate of a set with its value; raises ReleaseError for one that cannot be measured."""
    return tuple(Gate(rule.name, rule.comparison, rule.threshold, measure(rule, figures).value) for rule in gates.rules)


def trace_gates(statement: ReleaseStatement, in_force: GateSetTrace, figures: Figures) -> tuple[GateTrace, ...]:
    """Measures every gate again.

    Raises ReleaseError unless the statement holds exactly the gates in force, with the policy set beside them
    and the values the log gives.
    """
    if statement.gate_set != in_force.digest:
        raise ReleaseError(
            f"gates: expected the set in force when the run started, {in_force.digest} (entry {in_force.index}), "
            f"got {statement.gate_set}"
        )
    if statement.policy != in_force.gates.policy:
        raise ReleaseError(f"policy: expected the one set with the gates in entry {in_force.index}, got another")
    stated = {gate.rule: gate for gate in statement.gates}
    missing = [str(rule) for rule in in_force.gates.rules if rule not in stated]
    added = [str(rule) for rule in stated if rule not in in_force.gates.rules]
    if missing or added:
        raise ReleaseError(
            f"gates: expected exactly those set in entry {in_force.index}; "
            f"missing {', '.join(missing) or 'none'}, added or changed {', '.join(added) or 'none'}"
        )
    traces: list[GateTrace] = []
    for rule in in_force.gates.rules:
        found, gate = measure(rule, figures), stated[rule]
        if found.value != gate.value:
            raise ReleaseError(
                f"gate {gate.name}: the log gives {found.value}, the release statement says {gate.value}"
            )
        traces.append(GateTrace(gate.name, gate.comparison, gate.threshold, gate.value, found.detail))
    return tuple(traces)


def witnesses_needed(evidence: Evidence, gates: GateSet, *, before: int) -> WitnessPolicy:
    """Whose cosignatures the checkpoint of a release's dossier needs: those enrolled before entry `before`.

    The threshold is that of the gate `witnesses`, 0 when there is none.
    """
    threshold = next((int(rule.threshold) for rule in gates.rules if rule.name == WITNESSES), 0)
    return _witnesses(evidence, before=before, threshold=threshold)


def _witnesses(evidence: Evidence, *, before: int, threshold: int = 0) -> WitnessPolicy:
    return witness_policy([each for each in enrolments(evidence) if each.index < before], threshold)
