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

from audit.canonical import digest_of, format_time
from audit.certificates import Identity, root_fingerprint
from audit.entry import RELEASE_CERTIFIED, RELEASE_PROPOSED, VERSION_CREATED
from audit.errors import TraceError
from audit.evidence import MAX_CLOCK_SKEW, Evidence, Logged
from audit.gate_trace import GateSetTrace, GateTrace, figures_of, gates_in_force, trace_gates
from audit.metrics_trace import MetricsTrace, trace_metrics
from audit.release import DEFAULT_POLICY, Approval, Policy, Predecessor, ReleaseStatement, check_approvals
from audit.release_state import Standing, standings
from audit.run_trace import RunTrace, trace_run


@dataclass(frozen=True)
class ReleaseTrace:
    """The whole story of a certified release, every part of it found in the log."""

    consortium: str
    root_fingerprint: str
    release: str
    task: str
    version: str
    statement_digest: str
    documents: Mapping[str, str]  # by name: digest, as approved
    predecessor: Predecessor | None
    standing: Standing
    proposer: Identity
    proposed_at: datetime
    certified_at: datetime
    certified_index: int
    policy: Policy
    approvals: tuple[Approval, ...]
    epsilon: float
    delta: float
    accountant: str
    gate_set: GateSetTrace
    gates: tuple[GateTrace, ...]
    metrics: tuple[MetricsTrace, ...]
    sites_without_metrics: tuple[str, ...]  # the plan wanted them to evaluate; they reported nothing
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
    proposed.expect("proposer", statement.proposer, proposed.entry.signed("proposal").certificate)
    standing, predecessor = _standing(evidence, statement, proposed)
    proposer = standing.proposer
    approvals = _approvals(evidence, statement, digest, proposed, certified, proposer)
    runs = trace_version(evidence, statement.version, plans, statement.policy)
    run = runs[-1]
    if run.finished_index > proposed.index:
        raise TraceError(f"{proposed}: proposed before its run finished in entry {run.finished_index}")
    _compare(what, statement, run)
    metrics = trace_metrics(evidence, run, before=proposed.index)
    if dict(statement.metrics) != {each.site: each.digest for each in metrics}:
        reported = ", ".join(f"{each.site} {each.digest}" for each in metrics) or "none"
        raise TraceError(f"{what}: metrics: expected the first report of every hospital, which are {reported}")
    _check_time(proposed, statement)
    gate_set = gates_in_force(evidence, statement.task, before=run.started_index)
    figures = figures_of(
        evidence,
        run,
        metrics,
        predecessor=None if predecessor is None else predecessor.version,
        before=proposed.index,
        at=statement.time,
    )
    return ReleaseTrace(
        consortium=statement.consortium,
        root_fingerprint=root_fingerprint(evidence.root),
        release=statement.release,
        task=statement.task,
        version=statement.version,
        statement_digest=digest,
        documents=statement.documents,
        predecessor=predecessor,
        standing=standing,
        proposer=proposer,
        proposed_at=proposed.entry.time,
        certified_at=certified.entry.time,
        certified_index=certified.index,
        policy=statement.policy,
        approvals=approvals,
        epsilon=statement.epsilon,
        delta=statement.delta,
        accountant=statement.accountant,
        gate_set=gate_set,
        gates=trace_gates(statement, gate_set, figures),
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


def _standing(evidence: Evidence, statement: ReleaseStatement, proposed: Logged) -> tuple[Standing, Predecessor | None]:
    """Where the release stands, and the release it was to replace, both as the log's replay gives them."""
    releases = standings(evidence)
    standing = releases[statement.release]
    proposed.expect("task", statement.task, proposed.body["task"])
    replaced = None if standing.predecessor is None else releases[standing.predecessor]
    predecessor = None if replaced is None else Predecessor(replaced.release, replaced.statement, replaced.version)
    if predecessor != statement.predecessor:
        raise TraceError(
            f"release {statement.release}: predecessor: the log says {predecessor}, the release statement "
            f"{statement.predecessor}"
        )
    return standing, predecessor


def _check_time(proposed: Logged, statement: ReleaseStatement) -> None:
    """The age of an audit is counted at the statement's time, which must not be chosen for it."""
    if abs(proposed.entry.time - statement.time) > MAX_CLOCK_SKEW:
        raise TraceError(
            f"{proposed}: the statement is dated {format_time(statement.time)}, it was logged at "
            f"{format_time(proposed.entry.time)}"
        )


def _compare(what: str, statement: ReleaseStatement, run: RunTrace) -> None:
    contributed = sorted(hospital.site for hospital in run.hospitals if hospital.rounds_joined)
    comparisons: list[tuple[str, object, object]] = [
        ("run_id", run.run_id, statement.run_id),
        ("task", run.plan.task, statement.task),
        ("plan_hash", run.plan.plan_hash, statement.plan_hash),
        ("epsilon", run.epsilon, statement.epsilon),
        ("delta", run.delta, statement.delta),
        ("accountant", run.accountant, statement.accountant),
        ("sites", contributed, sorted(statement.sites)),
    ]
    for field, logged, stated in comparisons:
        if logged != stated:
            raise TraceError(f"{what}: {field}: the log says {logged}, the release statement {stated}")
