"""The documents of a candidate, made when a release is proposed so that its approvals bind them."""

from __future__ import annotations

from admin_api.dossier_documents.ml_bom import check_ml_bom
from admin_api.dossier_documents.privacy_curve import privacy_curve
from admin_api.dossier_documents.software import record_software
from audit.certificates import identity_of, root_fingerprint
from audit.documents.candidate import NOTES, PRIVACY_CURVE, SOFTWARE, candidate_of
from audit.documents.collection import ML_BOM, bound_documents
from audit.documents.notes import ReleaseNotes
from audit.documents.software import Software
from audit.evidence import Evidence
from audit.gate_trace import figures_of, gates_in_force, trace_gates
from audit.metrics_trace import trace_metrics
from audit.release import ReleaseStatement
from audit.run_trace import RunTrace
from audit.trace import trace_version
from audit.version_trace import plan_hashes_behind
from jobs.home import ConsortiumHome
from jobs.records import load_plan


def candidate_documents(
    home: ConsortiumHome,
    evidence: Evidence,
    draft: ReleaseStatement,
    notes: bytes | None,
    *,
    software: Software | None = None,
) -> dict[str, bytes]:
    """The documents that the approvals of a release will bind, by name.

    Args:
        evidence: the log as it is; the proposal is its next entry.
        draft: the release statement without documents, as it is about to be proposed.
        notes: the release notes as a person wrote them; None when there are none.
        software: None records this machine's.

    Raises: AuditError for notes that cannot be read or a version whose story has a gap, ReleaseRefused for a bill of
        materials that other tools would refuse.
    """
    plans = {each: home.artifacts().get(each) for each in plan_hashes_behind(evidence, draft.version)}
    runs = trace_version(evidence, draft.version, plans, draft.policy)
    run = runs[-1]
    inputs = _inputs(home, draft, run, notes, record_software() if software is None else software)
    metrics = trace_metrics(evidence, run, before=evidence.size)
    gate_set = gates_in_force(evidence, draft.task, before=run.started_index)
    figures = figures_of(
        evidence,
        run,
        metrics,
        predecessor=None if draft.predecessor is None else draft.predecessor.version,
        before=evidence.size,
        at=draft.time,
    )
    candidate = candidate_of(
        draft,
        root_fingerprint=root_fingerprint(evidence.root),
        proposer=identity_of(evidence.certificates[draft.proposer]),
        runs=runs,
        metrics=metrics,
        gate_set=gate_set,
        gates=trace_gates(draft, gate_set, figures),
        plan=plans[draft.plan_hash],
        inputs=inputs,
    )
    documents = bound_documents(candidate, inputs)
    check_ml_bom(documents[ML_BOM])
    return documents


def _inputs(
    home: ConsortiumHome, draft: ReleaseStatement, run: RunTrace, notes: bytes | None, software: Software
) -> dict[str, bytes]:
    inputs = {SOFTWARE: software.to_bytes()}
    if notes is not None:
        inputs[NOTES] = ReleaseNotes.from_text(notes).to_bytes()
    curve = privacy_curve(load_plan(home, draft.plan_hash), run)
    if curve is not None:
        inputs[PRIVACY_CURVE] = curve.to_bytes()
    return inputs
