"""Requests for certificates: who asks for what, and who must agree before the root signs.

Whoever holds the root key could make anybody up. So a certificate for a hospital or a person needs the approvals of two
people of two organisations: a consortium admin, and a privacy officer or somebody of the authority. They approve the
digest of a description that follows from the issued certificate and its entry, so anybody with the log can check later
that exactly this was approved. A person's name stands in it as the commitment that the log holds anyway.

Rules:
- A person's last decision counts, for `VALID_FOR`; while their certificate counts. A refusal stands until it is taken
  back or expires.
- Nobody approves their own first certificate, or one in another role. Whoever has a certificate may approve the next
  one in the same role: it is their old key that vouches for the new one.
- While there are no two such people (a consortium is being founded, or they are gone), the root's holder issues alone,
  and the entry says so by naming no approval.

An entry says who approved in `approvals`. Entries older than this rule lack the field; after the first that has it, all
must. What this protects is the log as a whole: a dossier holds certificates, not the approvals they rest on.

All fields are public.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from cryptography.hazmat.primitives import serialization

from audit.canonical import canonical_json, digest_of
from audit.certificates import (
    AUTHORITY,
    CLIENT,
    CONSORTIUM_ADMIN,
    PEOPLE,
    PRIVACY_OFFICER,
    Identity,
    identity_of,
    load_certificate,
    public_key_of,
    relying_party_of,
)
from audit.entry import CERTIFICATE_ISSUED, Entry
from audit.errors import CertificateError, ReleaseError, TraceError
from audit.evidence import Evidence, Logged
from audit.release import APPROVE, REFUSE, Approval

SCHEMA = "zegel/certificate-request/v1"
REQUEST = "request"  # the kind of an approval's subject
HOSPITAL, PERSON, PASSKEY = "hospital", "person", "passkey"
VALID_FOR = timedelta(days=30)
SECOND_ROLES = frozenset({PRIVACY_OFFICER, AUTHORITY})  # beside a consortium admin
DECIDERS = SECOND_ROLES | {CONSORTIUM_ADMIN}


@dataclass(frozen=True)
class CertificateRequest:
    """What is approved."""

    name: str | None  # a hospital's; None for people
    holder: str | None  # commitment to a person's name; None for hospitals
    organisation: str
    role: str
    key: str  # sha256:<hex of the public key's SubjectPublicKeyInfo>
    relying_party: str | None = None  # of a passkey

    @property
    def kind(self) -> str:
        """Hospital, person (a key in a file) or passkey."""
        if self.role not in PEOPLE:
            return HOSPITAL
        return PERSON if self.relying_party is None else PASSKEY

    def to_json(self) -> dict[str, Any]:
        """The description whose digest people approve."""
        return {
            "schema": SCHEMA,
            "kind": self.kind,
            "name": self.name,
            "holder": self.holder,
            "organisation": self.organisation,
            "role": self.role,
            "key": self.key,
            "relying_party": self.relying_party,
        }

    @property
    def digest(self) -> str:
        """Of the canonical JSON."""
        return digest_of(canonical_json(self.to_json()))


def request_behind(entry: Entry) -> CertificateRequest | None:
    """The request that a `certificate.issued` entry answers; None for the consortium's own machines."""
    certificate = load_certificate(entry.body["certificate"].encode("ascii"))
    role = entry.body["role"]
    if role not in PEOPLE | {CLIENT}:
        return None
    spki = public_key_of(certificate).public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return CertificateRequest(
        name=None if role in PEOPLE else entry.body["name"],
        holder=entry.body["holder"],
        organisation=entry.body["organisation"],
        role=role,
        key=digest_of(spki),
        relying_party=relying_party_of(certificate),
    )


def approving(evidence: Evidence, request: CertificateRequest, *, at: datetime, before: int) -> tuple[str, ...]:
    """Digests of the certificates whose approvals let `request` be answered at `at`; none while nobody can approve.

    `evidence` holds the certificates, their statuses and the approvals of requests, at least those before entry
    `before`. Raises ReleaseError when people could approve and have not, or somebody refused.
    """
    what = f"request {request.digest} ({request.kind}, {request.organisation})"
    people = _people(evidence, at=at, before=before)
    # Also where the one who asks is one of the two: otherwise the root's holder could multiply the few there are.
    if not any(_fit(one, other) for one, _ in people for other, _ in people):
        return ()
    standing = {each.certificate_digest for each, holder in people if not _own(request, each, holder)}
    last: dict[tuple[str, str], Approval] = {}
    for approval in evidence.approvals(REQUEST, request.digest, after=-1, before=before):
        last[approval.approver.person] = approval
    counting = [
        each for each in last.values() if each.approver.certificate_digest in standing and each.time > at - VALID_FOR
    ]
    for approval in counting:
        if approval.decision == REFUSE:
            raise ReleaseError(f"{what}: refused by {approval.approver}: {approval.reason or 'no reason given'}")
    given = [approval.approver for approval in counting if approval.decision == APPROVE]
    if not any(_fit(one, other) for one in given for other in given):
        have = ", ".join(map(str, given)) or "nobody"
        raise ReleaseError(
            f"{what}: expected approval by a {CONSORTIUM_ADMIN} and by a {PRIVACY_OFFICER} or somebody of the "
            f"{AUTHORITY}, of two organisations, within {VALID_FOR.days} days; got it from {have}"
        )
    return tuple(sorted(each.certificate_digest for each in given))


def check_issued(evidence: Evidence, entries: Iterable[Logged]) -> tuple[list[int], list[int]]:
    """The indices of these `certificate.issued` entries: of those that rest on approvals, and of those that the root's
    holder issued alone, since nobody could approve.

    `evidence` holds the whole log, or all its certificates, statuses and approvals. Raises TraceError or ReleaseError
    for the first entry that names other approvals than it rests on.
    """
    approved: list[int] = []
    alone: list[int] = []
    first = next(
        (each.index for each in evidence.of_kind(CERTIFICATE_ISSUED) if "approvals" in each.body), evidence.size
    )
    for logged in entries:
        request = request_behind(logged.entry)
        if request is None or logged.index < first:
            continue
        if "approvals" not in logged.body:
            raise TraceError(f"{logged}: expected the approvals it rests on; entry {first} has them")
        expected = list(approving(evidence, request, at=logged.entry.time, before=logged.index))
        logged.expect("approvals", expected, logged.body["approvals"])
        (approved if expected else alone).append(logged.index)
    return approved, alone


def _people(evidence: Evidence, *, at: datetime, before: int) -> list[tuple[Identity, str]]:
    """Who decides about requests, and the commitments to their names: those whose certificates count."""
    found: list[tuple[Identity, str]] = []
    holders = {each.body["digest"]: each for each in evidence.of_kind(CERTIFICATE_ISSUED) if each.index < before}
    for digest, logged in holders.items():
        certificate = evidence.certificates[digest]
        identity = identity_of(certificate)
        if identity.role not in DECIDERS:
            continue
        if not certificate.not_valid_before_utc <= at <= certificate.not_valid_after_utc:
            continue
        try:
            evidence.revocations.check(digest, before=before)
        except CertificateError:
            continue
        found.append((identity, logged.body["holder"]))
    return found


def _own(request: CertificateRequest, identity: Identity, holder: str) -> bool:
    """Whether somebody would vouch for themselves: for their own request, unless it renews this certificate."""
    renews = (identity.role, identity.organisation) == (request.role, request.organisation)
    return holder == request.holder and not renews


def _fit(one: Identity, other: Identity) -> bool:
    return (
        one.role == CONSORTIUM_ADMIN
        and other.role in SECOND_ROLES
        and one.person != other.person
        and one.organisation.casefold() != other.organisation.casefold()
    )
