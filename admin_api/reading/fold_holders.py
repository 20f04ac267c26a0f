"""Certificates, data manifests, gates, audits, witnesses and erasures: from the entry to its rows."""

from __future__ import annotations

import hashlib

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from admin_api.reading.fold import CERTIFICATE, MANIFEST, PERSON, Fold, listed, signed_digest
from admin_api.reading.tables import (
    CertificateRow,
    ErasureRow,
    GateSetRow,
    ManifestRow,
    PrivacyAuditRow,
    WitnessRow,
)
from audit.canonical import DIGEST_PREFIX, canonical_json
from audit.certificates import CLIENT, load_certificate, relying_party_of
from audit.entry import (
    ACCESS_ENDED,
    ACCESS_GRANTED,
    ACCESS_REFUSED,
    CERTIFICATE_ISSUED,
    CERTIFICATE_STATUS_CHANGED,
    GATES_SET,
    PRIVACY_AUDIT_REPORTED,
    SITE_MANIFEST,
    VALUE_ERASED,
    WITNESS_ENROLLED,
)


def certificate_issued(fold: Fold) -> None:
    body = fold.body
    certificate = load_certificate(body["certificate"].encode("ascii"))
    key = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    fold.rows.put(
        CertificateRow,
        digest=body["digest"],
        entry=fold.index,
        time=fold.time,
        holder=body["name"],
        name=body["holder"],
        organisation=body["organisation"],
        role=body["role"],
        not_before=body["not_before"],
        not_after=body["not_after"],
        key=DIGEST_PREFIX + hashlib.sha256(key).hexdigest(),
        relying_party=relying_party_of(certificate),
    )
    fold.holder(body["role"], body["name"])
    fold.mention(CERTIFICATE, body["digest"])
    if body["role"] == CLIENT:
        fold.hospital(body["name"])["organisation"] = body["organisation"]


def certificate_status(fold: Fold) -> None:
    signed = fold.body["revocation"]
    row = fold.rows.change(CertificateRow, fold.body["digest"])
    if row is not None:
        row["status"] = fold.body["status"]
        row["status_entry"], row["status_time"] = fold.index, fold.time
        row["status_by"], row["status_reason"] = signed["certificate"], signed["statement"]["reason"]
        fold.holder(row["role"], row["holder"])
        if row["role"] == CLIENT:
            fold.hospital(row["holder"])
    fold.mention(CERTIFICATE, fold.body["digest"])
    fold.signer(signed["certificate"])


def site_manifest(fold: Fold) -> None:
    site, signed = fold.body["site"], fold.body["manifest"]
    said = {
        field: signed["statement"][field]
        for field in ("manifest", "patients", "admissions", "period_first", "period_last")
    }
    fold.rows.put(ManifestRow, entry=fold.index, time=fold.time, site=site, certificate=signed["certificate"], **said)
    hospital = fold.hospital(site)
    hospital.update(said)
    hospital["manifests"] += 1
    if hospital["data_entry"] is None:
        hospital["data_entry"], hospital["data_time"] = fold.index, fold.time
    fold.mention(MANIFEST, said["manifest"])


def gates_set(fold: Fold) -> None:
    signed = fold.body["gates"]
    statement = signed["statement"]
    fold.rows.put(
        GateSetRow,
        entry=fold.index,
        time=fold.time,
        task=statement["task"],
        digest=signed_digest(signed),
        certificate=signed["certificate"],
        gates=listed(statement["gates"]),
        policy=canonical_json(statement["policy"]).decode(),
        reason=statement["reason"],
    )
    fold.signer(signed["certificate"])


def privacy_audited(fold: Fold) -> None:
    signed = fold.body["audit"]
    fields = ("audited_at", "report", "software", "claim", "lower_bound", "delta", "passed", "quick")
    said = {field: signed["statement"][field] for field in fields}
    fold.rows.put(PrivacyAuditRow, entry=fold.index, time=fold.time, certificate=signed["certificate"], **said)
    fold.signer(signed["certificate"])


def witness_enrolled(fold: Fold) -> None:
    signed = fold.body["enrolment"]
    statement = signed["statement"]
    fold.rows.put(
        WitnessRow,
        folded=statement["organisation"].casefold(),
        entry=fold.index,
        time=fold.time,
        name=statement["name"],
        organisation=statement["organisation"],
        vkey=statement["vkey"],
        certificate=signed["certificate"],
    )
    fold.signer(signed["certificate"])


def value_erased(fold: Fold) -> None:
    fold.rows.put(ErasureRow, commitment=fold.body["commitment"], entry=fold.index)
    fold.signer(fold.body["erasure"]["certificate"])


def access(fold: Fold) -> None:
    """Somebody signed in, was refused or was signed out: accounts are person ids, or a hospital contact's."""
    fold.mention(PERSON, *{fold.body[field] for field in ("account", "by") if fold.body.get(field) is not None})


FOLDS = {
    CERTIFICATE_ISSUED: certificate_issued,
    CERTIFICATE_STATUS_CHANGED: certificate_status,
    SITE_MANIFEST: site_manifest,
    GATES_SET: gates_set,
    PRIVACY_AUDIT_REPORTED: privacy_audited,
    WITNESS_ENROLLED: witness_enrolled,
    VALUE_ERASED: value_erased,
    ACCESS_GRANTED: access,
    ACCESS_REFUSED: access,
    ACCESS_ENDED: access,
}
