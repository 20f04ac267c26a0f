"""Which documents a dossier has, how each is made, and how far each can be checked.

*Bound* documents exist before anybody approves; the release statement holds their digests. *Later* documents need the
approvals or the log, so only the manifest, which the log's key signs, covers them. Documents that follow from the
evidence are made again here and compared byte by byte. The others are signatures and an outside authority's word:
checked as far as the cryptography goes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509

from audit.canonical import digest_of, format_time
from audit.certificates import PEOPLE, RELEASE_MANAGER, certificate_digest, verify_certificate
from audit.documents.bridge import bridge_study
from audit.documents.candidate import INPUTS, PRIVACY_CURVE, Candidate, candidate_of
from audit.documents.form import FORM, form_of
from audit.documents.ml_bom import ml_bom
from audit.documents.model_card import model_card
from audit.documents.picture import release_picture
from audit.documents.provenance import MODEL_FILE, PAYLOAD_TYPE, provenance
from audit.documents.report import Certification, LogHead, candidate_report, release_report
from audit.dsse import Envelope
from audit.errors import AuditError, DocumentError
from audit.evidence import MAX_CLOCK_SKEW
from audit.model_signing import verify_model_signature
from audit.release import APPROVE, ReleaseStatement
from audit.time_stamp import verify_time_stamp
from audit.trace import ReleaseTrace

FOLDER = "documents/"
MEMBER = re.compile(r"documents/([a-z0-9][a-z0-9._-]{0,63})", re.ASCII)
BRIDGE = "bridge-study.json"
ML_BOM = "ml-bom.cdx.json"
MODEL_CARD = "model-card.md"
PROVENANCE = "provenance.json"
CANDIDATE_REPORT = "candidate.html"
DERIVED = (BRIDGE, ML_BOM, MODEL_CARD, PROVENANCE, CANDIDATE_REPORT)
ENVELOPE = "provenance.dsse.json"
MODEL_SIGNATURE = "model-signing.json"
TIME_STAMP = "checkpoint.tsr"
SIGNED = (ENVELOPE, MODEL_SIGNATURE)
REPORT = "report.html"
PICTURE = "trace.svg"
LATER = (*SIGNED, TIME_STAMP, REPORT, PICTURE)
_SAME = "made again from the evidence, byte by byte the same"
_NOT_COMPARED = "NOT COMPARED"


@dataclass(frozen=True)
class DocumentCheck:
    """A document, and how far it was checked."""

    name: str
    finding: str


def bound_documents(candidate: Candidate, inputs: Mapping[str, bytes]) -> dict[str, bytes]:
    """The documents that approvals bind: the inputs as they are, and those made from the candidate."""
    study = bridge_study(candidate)
    return {
        **{name: inputs[name] for name in INPUTS if name in inputs},
        BRIDGE: study.to_bytes(candidate),
        ML_BOM: ml_bom(candidate),
        MODEL_CARD: model_card(candidate, study),
        PROVENANCE: provenance(candidate),
        CANDIDATE_REPORT: candidate_report(candidate, study),
    }


def documents_after_certification(
    statement: ReleaseStatement,
    trace: ReleaseTrace,
    plan: bytes,
    bound: Mapping[str, bytes],
    further: Mapping[str, bytes],
    log: LogHead,
) -> dict[str, bytes]:
    """The later documents of a certified release: `further` (signatures, a time stamp) and the two made here.

    `plan` is the plan of the run that made the version, `bound` the documents that the statement's digests name.
    """
    candidate = candidate_of_trace(statement, trace, plan, bound)
    present = {*bound, *further, REPORT, PICTURE}
    return {**further, **_made_later(candidate, trace, _certification(statement, trace, log, present))}


def candidate_of_trace(
    statement: ReleaseStatement, trace: ReleaseTrace, plan: bytes, inputs: Mapping[str, bytes]
) -> Candidate:
    """The candidate that a certified release was."""
    return candidate_of(
        statement,
        root_fingerprint=trace.root_fingerprint,
        proposer=trace.proposer,
        runs=trace.runs,
        metrics=trace.metrics,
        gate_set=trace.gate_set,
        gates=trace.gates,
        plan=plan,
        inputs=inputs,
    )


def _certification(
    statement: ReleaseStatement, trace: ReleaseTrace, log: LogHead, present: Iterable[str]
) -> Certification:
    return Certification(
        statement_digest=trace.statement_digest,
        approvals=trace.approvals,
        standing=trace.standing,
        certified_at=trace.certified_at,
        certified_index=trace.certified_index,
        log=log,
        documents=tuple(sorted(statement.documents.items())),
        present=tuple(name for name in (*SIGNED, TIME_STAMP) if name in set(present)),
    )


def _made_later(candidate: Candidate, trace: ReleaseTrace, certification: Certification) -> dict[str, bytes]:
    return {
        REPORT: release_report(candidate, bridge_study(candidate), certification),
        PICTURE: release_picture(trace),
    }


def check_documents(
    documents: Mapping[str, bytes],
    statement: ReleaseStatement,
    trace: ReleaseTrace,
    plan: bytes,
    log: LogHead,
    *,
    certificates: Mapping[str, x509.Certificate],
    root: x509.Certificate,
) -> tuple[DocumentCheck, ...]:
    """How far each document of a dossier holds, in the order of their names.

    `documents` are the members under `documents/` by their names there; `trace` is the verified release, `plan` its
    verified plan, and `certificates` are those announced in the log. Raises DocumentError naming the first document
    that is missing, unknown, changed, or not what the evidence gives.
    """
    bound = statement.documents
    _check_names(documents, bound)
    for name, digest in sorted(bound.items()):
        if digest_of(documents[name]) != digest:
            raise DocumentError(
                f"{FOLDER}{name}: expected digest {digest} as approved, got {digest_of(documents[name])}"
            )
    candidate = candidate_of_trace(statement, trace, plan, documents)
    expected = _made_later(candidate, trace, _certification(statement, trace, log, documents))
    if bound:
        expected |= bound_documents(candidate, documents)
    checks: list[DocumentCheck] = []
    for name, content in sorted(documents.items()):
        if name in INPUTS:
            finding = "as approved" + (", ends within the run's epsilon" if name == PRIVACY_CURVE else "")
        elif name in expected:
            finding = _same(name, content, expected[name])
        elif name == ENVELOPE:
            finding = _check_envelope(content, documents, trace, certificates, root)
        elif name == MODEL_SIGNATURE:
            finding = _check_model_signature(content, trace, certificates, root)
        else:
            stamp = verify_time_stamp(content, log.checkpoint)
            if stamp.time < trace.certified_at - MAX_CLOCK_SKEW:
                raise DocumentError(
                    f"{FOLDER}{name}: dated {format_time(stamp.time)}, before the certification it should follow"
                )
            finding = (
                f"over the checkpoint, {format_time(stamp.time)} by {stamp.authority}; its own root is not checked"
            )
        checks.append(DocumentCheck(name, finding))
    return tuple(checks)


def summary(checks: Iterable[DocumentCheck]) -> str:
    """The findings in a line; what was not compared comes first and by name."""
    found = list(checks)
    odd = [f"{each.name} {each.finding}" for each in found if each.finding.startswith(_NOT_COMPARED)]
    again = sum(each.finding == _SAME for each in found)
    words = [f"{len(found)} documents, {again} of them made again byte by byte"]
    words += [f"{each.name} {each.finding}" for each in found if each.name in (*SIGNED, TIME_STAMP)]
    return ", ".join([*odd, *words])


def _check_names(documents: Mapping[str, bytes], bound: Mapping[str, str]) -> None:
    unknown = sorted(set(documents) - set(INPUTS) - set(DERIVED) - set(LATER))
    if unknown:
        raise DocumentError(f"{FOLDER}{unknown[0]}: no document of a dossier has this name")
    unbound = sorted((set(documents) & {*INPUTS, *DERIVED}) - set(bound))
    if unbound:
        raise DocumentError(f"{FOLDER}{unbound[0]}: is not among the documents that the approvals bind")
    missing = sorted(set(bound) - set(documents))
    if missing:
        raise DocumentError(f"{FOLDER}{missing[0]}: approved with the release, but not in the dossier")
    absent = sorted(({*DERIVED, REPORT, PICTURE} if bound else {REPORT, PICTURE}) - set(documents))
    if absent:
        raise DocumentError(f"{FOLDER}{absent[0]}: expected in every dossier")


def _same(name: str, content: bytes, expected: bytes) -> str:
    if content == expected:
        return _SAME
    form = form_of(content)
    if form is not None and form != FORM:
        return f"{_NOT_COMPARED}: form {form}, this verifier makes form {FORM}; use the version of Zegel that made it"
    lines = zip(content.splitlines(), expected.splitlines(), strict=False)
    number = next((i for i, (one, other) in enumerate(lines, start=1) if one != other), None)
    where = f"line {number}" if number else "its length"
    raise DocumentError(f"{FOLDER}{name}: is not what the evidence gives; differs first in {where}")


def _check_envelope(
    content: bytes,
    documents: Mapping[str, bytes],
    trace: ReleaseTrace,
    certificates: Mapping[str, x509.Certificate],
    root: x509.Certificate,
) -> str:
    envelope = Envelope.from_bytes(content)
    if envelope.payload_type != PAYLOAD_TYPE or envelope.payload != documents.get(PROVENANCE):
        raise DocumentError(f"{FOLDER}{ENVELOPE}: expected a signature over {PROVENANCE}, got one over something else")
    names = [_signer(ENVELOPE, each, trace, root, PEOPLE) for each in envelope.verify(certificates)]
    return f"signed by {', '.join(names)}"


def _check_model_signature(
    content: bytes, trace: ReleaseTrace, certificates: Mapping[str, x509.Certificate], root: x509.Certificate
) -> str:
    certificate = verify_model_signature(content, trace.version, MODEL_FILE)
    if certificate_digest(certificate) not in certificates:
        raise DocumentError(f"{FOLDER}{MODEL_SIGNATURE}: its certificate was never announced in the log")
    return f"signed by {_signer(MODEL_SIGNATURE, certificate, trace, root, frozenset({RELEASE_MANAGER}))}"


def _signer(
    name: str, certificate: x509.Certificate, trace: ReleaseTrace, root: x509.Certificate, roles: frozenset[str]
) -> str:
    """Who signed beside their approval: only an approver of this release, judged at the time of the approval."""
    digest = certificate_digest(certificate)
    times: list[datetime] = [
        each.time for each in trace.approvals if each.decision == APPROVE and each.approver.certificate_digest == digest
    ]
    if not times:
        raise DocumentError(f"{FOLDER}{name}: signed with certificate {digest}, which approved nothing here")
    try:
        return str(verify_certificate(certificate, root, at=times[-1], roles=roles))
    except AuditError as error:
        raise DocumentError(f"{FOLDER}{name}: {error}") from error
