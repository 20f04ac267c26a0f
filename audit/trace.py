"""The trace: a release followed back to versions, rounds, hospitals, metrics, epsilon and approvals.

Everything is rebuilt from log entries; nothing the release statement says is taken over without finding it
there. A version that grew out of an earlier run's version is followed back through that run as well, as far
as the entries reach.

Raises TraceError (or ReleaseError for statement, policy and gates) at the first thing that does not fit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from audit.canonical import canonical_json, digest_of
from audit.certificates import Identity, root_fingerprint
from audit.entry import (
    METRICS_REPORTED,
    RELEASE_CERTIFIED,
    RELEASE_PROPOSED,
    VERSION_CREATED,
)
from audit.errors import ReleaseError, TraceError
from audit.evidence import Evidence, Logged
from audit.release import DEFAULT_POLICY, Approval, Policy, ReleaseStatement, check_approvals
from audit.run_trace import RunTrace, trace_run
from audit.statement import METRICS


@dataclass(frozen=True)
class MetricsTrace:
    """What one hospital reported about the version."""

    index: int
    site: str
    organisation: str
    digest: str  # of the signed statement
    cohort: Any
    values: Mapping[str, Mapping[str, Any]]  # by metric: value, lower, upper
    mechanism: Mapping[str, Any]


@dataclass(frozen=True)
class GateTrace:
    """A gate, and whether its value could be derived from the hospitals' own statements."""

    name: str
    comparison: str
    threshold: float
    value: float
    derived: bool


@dataclass(frozen=True)
class ReleaseTrace:
    """The whole story of a certified release, every part of it found in the log."""

    consortium: str
    root_fingerprint: str
    release: str
    version: str
    statement_digest: str
    proposer: Identity
    proposed_at: datetime
    certified_at: datetime
    certified_index: int
    policy: Policy
    approvals: tuple[Approval, ...]
    epsilon: float
    delta: float
    accountant: str
    gates: tuple[GateTrace, ...]
    metrics: tuple[MetricsTrace, ...]
    sites_without_metrics: tuple[str, ...]  # the plan wanted them to evaluate; the statement lists no metrics
    runs: tuple[RunTrace, ...]  # oldest first; the last one made the version

    @property
    def run(self) -> RunTrace:
        """The run that made the version."""
        return self.runs[-1]


def trace_version(evidence: Evidence, version: str, plans: Mapping[str, bytes], policy: Policy) -> tuple[RunTrace, ...]:
    """The runs that led to a version, oldest first.

    `plans` maps plan hashes to the plans' bytes; `policy.plan` says whose approval each plan needed.
    """
    runs: list[RunTrace] = []
    wanted, before = version, evidence.entries[-1].index + 1
    while True:
        created = [e for e in evidence.of_kind(VERSION_CREATED, version=wanted) if e.index < before]
        if not created:
            if not runs:
                raise TraceError(f"version {version}: no {VERSION_CREATED} entry made it")
            return tuple(reversed(runs))
        if len(created) > 1:
            raise TraceError(f"version {wanted}: expected one {VERSION_CREATED} entry, got {len(created)}")
        run = trace_run(evidence, created[0], plans, policy.plan)
        runs.append(run)
        # Entries before the run's start only: the search goes back in the log and so must end.
        wanted, before = run.initial_version, run.started_index


def trace_release(evidence: Evidence, statement_bytes: bytes, plans: Mapping[str, bytes]) -> ReleaseTrace:
    """Rebuilds a release from its statement's bytes and the evidence, and checks every link.

    Raises TraceError for a gap or contradiction, ReleaseError for a malformed statement, missing approvals,
    a policy weaker than `DEFAULT_POLICY`, or a gate whose value the hospitals' metrics do not give.
    """
    statement = ReleaseStatement.from_bytes(statement_bytes)
    digest = digest_of(statement_bytes)
    what = f"release {statement.release}"
    if statement.consortium != evidence.founding.consortium:
        raise TraceError(f"{what}: expected consortium {evidence.founding.consortium}, got {statement.consortium}")
    statement.policy.demand_at_least(DEFAULT_POLICY)
    proposed = evidence.only(RELEASE_PROPOSED, what, statement=digest)
    certified = evidence.only(RELEASE_CERTIFIED, what, release=statement.release)
    for logged in (proposed, certified):
        logged.expect("release", statement.release, logged.body["release"])
        logged.expect("version", statement.version, logged.body["version"])
    certified.expect("statement", digest, certified.body["statement"])
    if not proposed.index < certified.index:
        raise TraceError(f"{certified}: certified before it was proposed in {proposed}")
    proposer = evidence.person(proposed, statement.proposer)
    approvals = _approvals(evidence, statement, digest, proposed, certified, proposer)
    runs = trace_version(evidence, statement.version, plans, statement.policy)
    run = runs[-1]
    if run.finished_index > proposed.index:
        raise TraceError(f"{proposed}: proposed before its run finished in entry {run.finished_index}")
    _compare(what, statement, run)
    metrics = _metrics(evidence, statement, proposed)
    return ReleaseTrace(
        consortium=statement.consortium,
        root_fingerprint=root_fingerprint(evidence.root),
        release=statement.release,
        version=statement.version,
        statement_digest=digest,
        proposer=proposer,
        proposed_at=proposed.entry.time,
        certified_at=certified.entry.time,
        certified_index=certified.index,
        policy=statement.policy,
        approvals=approvals,
        epsilon=statement.epsilon,
        delta=statement.delta,
        accountant=statement.accountant,
        gates=_gates(statement, run, metrics),
        metrics=metrics,
        sites_without_metrics=tuple(sorted(set(run.plan.evaluation_sites) - set(statement.evaluation_sites))),
        runs=runs,
    )


def _approvals(
    evidence: Evidence,
    statement: ReleaseStatement,
    digest: str,
    proposed: Logged,
    certified: Logged,
    proposer: Identity,
) -> tuple[Approval, ...]:
    what = f"release {statement.release}"
    approvals = evidence.approvals("release", digest, after=proposed.index, before=certified.index)
    present = {approval.approver.certificate_digest for approval in approvals}
    for listed in certified.body["approvals"]:
        if listed not in present:
            raise TraceError(f"{certified}: lists an approval by certificate {listed}, which is not in the log")
    check_approvals(
        what,
        approvals,
        statement.policy.release,
        proposer=proposer,
        organisations=statement.policy.organisations,
    )
    return tuple(approvals)


def _compare(what: str, statement: ReleaseStatement, run: RunTrace) -> None:
    contributed = sorted(hospital.site for hospital in run.hospitals if hospital.rounds_joined)
    comparisons: list[tuple[str, object, object]] = [
        ("run_id", run.run_id, statement.run_id),
        ("plan_hash", run.plan.plan_hash, statement.plan_hash),
        ("epsilon", run.epsilon, statement.epsilon),
        ("delta", run.delta, statement.delta),
        ("accountant", run.accountant, statement.accountant),
        ("sites", contributed, sorted(statement.sites)),
    ]
    for field, logged, stated in comparisons:
        if logged != stated:
            raise TraceError(f"{what}: {field}: the log says {logged}, the release statement {stated}")
    stray = sorted(set(statement.evaluation_sites) - set(run.plan.evaluation_sites))
    if stray:
        raise TraceError(f"{what}: metrics of {', '.join(stray)}, which the plan does not name as evaluating")


def _metrics(evidence: Evidence, statement: ReleaseStatement, proposed: Logged) -> tuple[MetricsTrace, ...]:
    reported: dict[str, Logged] = {}
    for logged in evidence.of_kind(METRICS_REPORTED, version=statement.version):
        if logged.index < proposed.index:
            reported.setdefault(digest_of(canonical_json(logged.body["metrics"])), logged)
    traces: list[MetricsTrace] = []
    for site, digest in sorted(statement.metrics.items()):
        found = reported.get(digest)
        if found is None:
            raise TraceError(
                f"release {statement.release}: metrics {digest} of {site} not reported before its proposal"
            )
        signed = found.entry.signed("metrics")
        found.expect("site", site, found.body["site"])
        identity = evidence.verify_site(found, signed, METRICS, site)
        for field, expected in (("version", statement.version), ("run_id", statement.run_id)):
            if signed.statement[field] != expected:
                raise TraceError(f"{found}: {field}: expected {expected}, got {signed.statement[field]}")
        traces.append(
            MetricsTrace(
                index=found.index,
                site=site,
                organisation=identity.organisation,
                digest=digest,
                cohort=signed.statement["cohort"],
                values=signed.statement["values"],
                mechanism=signed.statement["mechanism"],
            )
        )
    return tuple(traces)


def _gates(statement: ReleaseStatement, run: RunTrace, metrics: tuple[MetricsTrace, ...]) -> tuple[GateTrace, ...]:
    values = {m.site: {name: float(entry["value"]) for name, entry in m.values.items()} for m in metrics}
    traces: list[GateTrace] = []
    for gate in statement.gates:
        derived = gate.derive(epsilon=run.epsilon, metrics=values)
        if derived is not None and derived != gate.value:
            raise ReleaseError(f"gate {gate.name}: the log gives {derived}, the release statement says {gate.value}")
        traces.append(GateTrace(gate.name, gate.comparison, gate.threshold, gate.value, derived is not None))
    return tuple(traces)
