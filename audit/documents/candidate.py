"""A candidate: everything a document may say about a release before anybody has approved it.

The same value is made twice: from the log when the release is proposed, and from the dossier by its verifier. The
documents that approvals bind are functions of it alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from audit.certificates import Identity
from audit.documents.notes import ReleaseNotes
from audit.documents.privacy_curve import PrivacyCurve
from audit.documents.software import Software
from audit.gate_trace import GateSetTrace, GateTrace
from audit.metrics_trace import MetricsTrace
from audit.plan_trace import read_plan
from audit.release import ReleaseStatement
from audit.run_trace import RunTrace

NOTES = "release-notes.json"
SOFTWARE = "software.json"
PRIVACY_CURVE = "privacy-curve.json"
INPUTS = (NOTES, SOFTWARE, PRIVACY_CURVE)


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A proposed release, verified against the log, and what people state beside it."""

    consortium: str
    root_fingerprint: str
    release: str
    version: str
    predecessor: str | None  # the release it would replace
    epsilon: float
    delta: float
    accountant: str
    time: datetime  # of the release statement
    proposer: Identity
    gate_set: GateSetTrace
    gates: tuple[GateTrace, ...]
    runs: tuple[RunTrace, ...]  # oldest first; the last one made the version
    metrics: tuple[MetricsTrace, ...]
    sites_without_metrics: tuple[str, ...]
    plan: Mapping[str, Any]  # of the last run
    notes: ReleaseNotes | None
    software: Software | None
    curve: PrivacyCurve | None

    @property
    def run(self) -> RunTrace:
        """The run that made the version."""
        return self.runs[-1]

    @property
    def title(self) -> str:
        """What people call the model."""
        return self.notes.title if self.notes else f"{self.consortium} {self.plan.get('task', 'model')}"


def candidate_of(
    statement: ReleaseStatement,
    *,
    root_fingerprint: str,
    proposer: Identity,
    runs: tuple[RunTrace, ...],
    metrics: tuple[MetricsTrace, ...],
    gate_set: GateSetTrace,
    gates: tuple[GateTrace, ...],
    plan: bytes,
    inputs: Mapping[str, bytes],
) -> Candidate:
    """The candidate of a release statement whose runs, metrics and gates were traced.

    `inputs` holds those of `INPUTS` that were given; the statement's own digests of documents do not enter, since
    the documents are made from the candidate. Raises DocumentError for a malformed input or one of another run.
    """
    run = runs[-1]
    curve = PrivacyCurve.from_bytes(inputs[PRIVACY_CURVE]) if PRIVACY_CURVE in inputs else None
    if curve is not None:
        curve.check(run)
    return Candidate(
        consortium=statement.consortium,
        root_fingerprint=root_fingerprint,
        release=statement.release,
        version=statement.version,
        predecessor=statement.predecessor.release if statement.predecessor else None,
        epsilon=statement.epsilon,
        delta=statement.delta,
        accountant=statement.accountant,
        time=statement.time,
        proposer=proposer,
        gate_set=gate_set,
        gates=gates,
        runs=runs,
        metrics=metrics,
        sites_without_metrics=tuple(sorted(set(run.plan.evaluation_sites) - set(statement.evaluation_sites))),
        plan=read_plan(plan),
        notes=ReleaseNotes.from_bytes(inputs[NOTES]) if NOTES in inputs else None,
        software=Software.from_bytes(inputs[SOFTWARE]) if SOFTWARE in inputs else None,
        curve=curve,
    )
