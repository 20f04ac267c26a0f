"""Releases with documents: a told story whose statement binds them, and what people sign besides."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import date
from typing import TYPE_CHECKING, Any

from audit.canonical import digest_of
from audit.certificates import identity_of, root_fingerprint
from audit.documents.candidate import NOTES, PRIVACY_CURVE, SOFTWARE, Candidate, candidate_of
from audit.documents.collection import ENVELOPE, MODEL_SIGNATURE, PROVENANCE, bound_documents
from audit.documents.notes import CoderAgreement, DriftTrigger, KnownFailure, ReleaseNotes
from audit.documents.privacy_curve import PrivacyCurve
from audit.documents.provenance import MODEL_FILE, PAYLOAD_TYPE
from audit.documents.software import Software
from audit.dsse import Envelope, sign_envelope
from audit.gate_trace import figures_of, gates_in_force, trace_gates
from audit.metrics_trace import trace_metrics
from audit.model_signing import sign_model
from audit.release import ReleaseStatement
from audit.trace import trace_version
from audit.version_trace import plan_hashes_behind

if TYPE_CHECKING:
    from tests.audit.conftest import Story
else:
    Story = object

Documents = dict[str, bytes]
NOTES_OF_2027 = ReleaseNotes(
    title="Day admissions coder",
    intended_use="Proposes the main diagnosis of a day admission from its letters.",
    users=("trained medical coders",),
    exclusions=("clinical decisions",),
    icd_edition="ICD-10 2019, Dutch translation",
    coding_rules="national guideline 2025",
    language="nl",
    licence="Apache-2.0",
    known_failures=(KnownFailure("laterality is missed", "check the side"),),
    drift_triggers=(DriftTrigger("audited precision", "below .90 in a month", "raise the threshold"),),
    rollback=None,
    expires=date(2027, 12, 31),
    coder_agreement=CoderAgreement(0.78, 0.74, 0.82, 600, "double coding 2025"),
    contact="coding office",
)
SOFTWARE_OF_2027 = Software(
    version="1.2.3",
    source=digest_of(b"source"),
    commit=None,
    record=None,
    constraints=digest_of(b"constraints"),
    python="3.11.9",
    packages=(("cryptography", "46.0.0"), ("torch", "2.6.0")),
)


def figure(value: float | None, spread: float | None = 0.04) -> dict[str, float | None]:
    if value is None or spread is None:
        return {"value": value, "lower": None, "upper": None}
    return {"value": value, "lower": value - spread, "upper": value + spread}


def rich_metrics(statement: dict[str, Any]) -> None:
    """A hook: figures per chapter, of which one chapter is suppressed at hospital-b."""
    values = {
        "micro_f1": statement["values"]["micro_f1"],  # the gate is on this one
        "hit@1": figure(0.5),
        "hit@3": figure(0.75),
        "threshold": figure(0.6, None),
        "coverage": figure(0.4),
        "precision": figure(0.93),
    }
    for chapter, true, predicted in (("II", 200, 190), ("IX", 100, 110), ("X", 40, 40)):
        small = statement["site"] == "hospital-b" and chapter == "X"
        values[f"true/{chapter}"] = figure(None if small else true, None)
        values[f"predicted/{chapter}"] = figure(predicted, None)
        values[f"hit@1/{chapter}"] = figure(None if small else 0.6)
    statement["values"] = values
    statement["mechanism"] = {"type": "gaussian", "noise_std": 4.0}


def candidate_in(story: Story, draft: ReleaseStatement, inputs: Mapping[str, bytes]) -> Candidate:
    """The candidate of a statement that is about to be proposed in a story."""
    evidence = story.evidence()
    plans = {each: story.artifacts[each] for each in plan_hashes_behind(evidence, draft.version)}
    runs = trace_version(evidence, draft.version, plans, draft.policy)
    metrics = trace_metrics(evidence, runs[-1], before=evidence.size)
    gate_set = gates_in_force(evidence, draft.task, before=runs[-1].started_index)
    before = draft.predecessor.version if draft.predecessor else None
    figures = figures_of(evidence, runs[-1], metrics, predecessor=before, before=evidence.size, at=draft.time)
    return candidate_of(
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


def inputs_of(story: Story, *, notes: ReleaseNotes = NOTES_OF_2027) -> Documents:
    curve = PrivacyCurve(
        story.run_id, "pld", 1e-6, tuple((n, 1.5 * n / story.rounds) for n in range(1, story.rounds + 1))
    )
    return {NOTES: notes.to_bytes(), SOFTWARE: SOFTWARE_OF_2027.to_bytes(), PRIVACY_CURVE: curve.to_bytes()}


def documented(
    story: Story, *, notes: ReleaseNotes = NOTES_OF_2027, spoil: Callable[[Documents], None] | None = None
) -> Story:
    """Tells the story so that its release binds documents; `spoil` changes them before anybody approves."""

    def bind(fields: dict[str, Any]) -> None:
        inputs = inputs_of(story, notes=notes)
        documents = bound_documents(candidate_in(story, ReleaseStatement(**fields), inputs), inputs)
        if spoil is not None:
            spoil(documents)
        fields["documents"] = {name: story.store(content) for name, content in documents.items()}

    story.hooks.setdefault("signed metrics", rich_metrics)
    story.hooks["release statement"] = bind
    return story.tell()


def envelope_by(story: Story, *who: str, payload: bytes | None = None) -> bytes:
    """A DSSE envelope over the release's provenance by these people."""
    assert story.statement is not None
    content = story.artifacts[story.statement.documents[PROVENANCE]] if payload is None else payload
    holders = [story.keys.holders[each] for each in who]
    signatures = tuple(sign_envelope(PAYLOAD_TYPE, content, each.key, each.certificate) for each in holders)
    return Envelope(PAYLOAD_TYPE, content, signatures).to_bytes()


def model_signature_by(story: Story, who: str) -> bytes:
    holder = story.keys.holders[who]
    return sign_model(story.version, MODEL_FILE, holder.key, holder.certificate)


def signed_by_approvers(story: Story) -> Documents:
    """What the two approvers sign besides."""
    return {ENVELOPE: envelope_by(story, "Bob", "Carol"), MODEL_SIGNATURE: model_signature_by(story, "Carol")}
