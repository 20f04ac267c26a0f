"""Evidence: log entries made searchable, and the certificates they announce.

Invariants:
- The first entry founds the consortium and names the root certificate and the log's key; nothing else may.
- A certificate counts only when an entry announced it before it was used: the log shows every certificate
  that ever mattered, so a second certificate made for somebody cannot stay hidden.
- No two people or machines share a key. A person has one id and one commitment to a name, in every certificate.
- A signature counts only when its certificate was valid both at the time the signer states and at the time
  the log recorded it, the signer does not claim a time after the log's, and no earlier entry suspended or
  revoked the certificate.

Inclusion of the entries in the log is not this module's concern: the caller has it proved.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from audit.canonical import format_time
from audit.certificates import (
    CLIENT,
    CONSORTIUM_ADMIN,
    LOG,
    PEOPLE,
    Identity,
    certificate_digest,
    certificate_pem,
    identity_of,
    load_certificate,
    public_key_of,
    relying_party_of,
    root_fingerprint,
    verify_certificate,
)
from audit.checkpoint import log_origin, log_verifier_key
from audit.entry import APPROVAL_GIVEN, CERTIFICATE_ISSUED, CERTIFICATE_STATUS_CHANGED, CONSORTIUM_FOUNDED, Entry
from audit.errors import AuditError, TraceError
from audit.note import VerifierKey
from audit.release import Approval
from audit.revocation import Revocations, StatusChange
from audit.statement import APPROVAL, CERTIFICATE_STATUS, PROPOSAL, SignedStatement, listed, verify_statement

MAX_CLOCK_SKEW = timedelta(minutes=5)  # between a signer's clock and the log's


@dataclass(frozen=True)
class Logged:
    """An entry and its place in the log."""

    index: int
    entry: Entry

    @property
    def body(self) -> Mapping[str, Any]:
        """The entry's body."""
        return self.entry.body

    def expect(self, field: str, expected: object, got: object) -> None:
        """Raises TraceError naming the entry and the field unless both are equal."""
        if expected != got:
            raise TraceError(f"{self}: {field}: expected {expected}, got {got}")

    def __str__(self) -> str:
        return f"entry {self.index} ({self.entry.kind})"


@dataclass(frozen=True)
class Founding:
    """What the first entry says, verified against the root certificate."""

    consortium: str
    log_key: VerifierKey
    log_certificate: x509.Certificate
    server: str


class Evidence:
    """Entries in log order with their certificates, under one root."""

    def __init__(self, entries: Iterable[tuple[int, Entry]], root: x509.Certificate) -> None:
        """Raises TraceError when the entries are out of order, do not start with the founding, or announce a
        certificate that is not what they say.
        """
        self.root = root
        self.entries: Sequence[Logged] = tuple(Logged(index, entry) for index, entry in entries)
        self._by_kind: dict[str, list[Logged]] = {}
        previous = -1
        for logged in self.entries:
            if logged.index <= previous:
                raise TraceError(f"{logged} follows entry {previous}: expected ascending indices")
            previous = logged.index
            self._by_kind.setdefault(logged.entry.kind, []).append(logged)
        self.founding = self._found()
        self.certificates: dict[str, x509.Certificate] = {}
        self._issued_at: dict[str, int] = {}
        self._load_certificates()
        self.revocations = Revocations()
        self._load_statuses()

    @property
    def size(self) -> int:
        """Of the log, as far as these entries reach: one more than the last one's index."""
        return self.entries[-1].index + 1

    def of_kind(self, kind: str, **fields: object) -> list[Logged]:
        """The entries of a kind whose body holds these values, in log order."""
        return [
            logged
            for logged in self._by_kind.get(kind, [])
            if all(logged.body[field] == value for field, value in fields.items())
        ]

    def only(self, kind: str, what: str, **fields: object) -> Logged:
        """The one entry of a kind with these values; raises TraceError when there is none or another."""
        found = self.of_kind(kind, **fields)
        if len(found) != 1:
            where = ": " + ", ".join(f"entry {logged.index}" for logged in found) if found else ""
            raise TraceError(f"{what}: expected exactly one {kind} entry, got {len(found)}{where}")
        return found[0]

    def verify(self, logged: Logged, signed: SignedStatement, statement_type: str, roles: frozenset[str]) -> Identity:
        """Who signed a statement that `logged` holds. Raises TraceError naming the entry."""
        try:
            identity = verify_statement(
                signed,
                self.certificates,
                self.root,
                expected_type=statement_type,
                consortium=self.founding.consortium,
                roles=roles,
            )
        except AuditError as error:
            raise TraceError(f"{logged}: {error}") from error
        self._check_use(logged, signed.certificate)
        if signed.time > logged.entry.time + MAX_CLOCK_SKEW:
            raise TraceError(
                f"{logged}: signed at {format_time(signed.time)}, after it was logged at "
                f"{format_time(logged.entry.time)}"
            )
        return identity

    def verify_site(self, logged: Logged, signed: SignedStatement, statement_type: str, site: str) -> Identity:
        """Like `verify`, for a hospital's statement about itself: signer and `site` field must both be
        `site`.
        """
        identity = self.verify(logged, signed, statement_type, frozenset({CLIENT}))
        if identity.name != site or signed.statement["site"] != site:
            raise TraceError(
                f"{logged}: expected a statement of {site} by {site}, got one of {signed.statement['site']} "
                f"by {identity.name}"
            )
        return identity

    def verify_person(
        self, logged: Logged, signed: SignedStatement, statement_type: str, roles: frozenset[str]
    ) -> Identity:
        """Like `verify`, for a statement in which a person names themself: name, organisation and role must be
        the certificate's.
        """
        signer = self.verify(logged, signed, statement_type, roles)
        stated = tuple(signed.statement[field] for field in ("name", "organisation", "role"))
        if stated != (signer.name, signer.organisation, signer.role):
            raise TraceError(f"{logged}: signed by {signer}, but the statement names {' / '.join(stated)}")
        return signer

    def proposer(self, logged: Logged, kind: str, digest: str, roles: frozenset[str]) -> Identity:
        """Who proposed the plan or release that `logged` puts forward, by their own signature."""
        signed = logged.entry.signed("proposal")
        logged.expect("proposal's subject", {"kind": kind, "digest": digest}, signed.statement["subject"])
        return self.verify_person(logged, signed, PROPOSAL, roles)

    def approvals(self, kind: str, digest: str, *, after: int, before: int) -> list[Approval]:
        """The verified decisions about a plan, release or withdrawal logged between two entries, in log order."""
        found: list[Approval] = []
        subject = {"kind": kind, "digest": digest}
        for logged in self.of_kind(APPROVAL_GIVEN):
            signed = logged.entry.signed("approval")
            statement = signed.statement
            if statement["subject"] != subject or not after < logged.index < before:
                continue
            found.append(
                Approval(
                    approver=self.verify_person(logged, signed, APPROVAL, PEOPLE),
                    decision=statement["decision"],
                    meaning=statement["meaning"],
                    reason=statement["reason"],
                    time=signed.time,
                    index=logged.index,
                    relying_party=relying_party_of(self.certificates[signed.certificate]),
                )
            )
        return found

    def _found(self) -> Founding:
        founded = self.only(CONSORTIUM_FOUNDED, "founding")
        if founded.index != 0:
            raise TraceError(f"{founded}: expected the founding to be entry 0")
        body = founded.body
        fingerprint = root_fingerprint(self.root)
        if body["root_certificate"] != fingerprint:
            raise TraceError(
                f"{founded}: expected the root certificate given, {fingerprint}, got {body['root_certificate']}"
            )
        with _blamed(founded):
            certificate = load_certificate(body["log_certificate"].encode())
            identity = verify_certificate(certificate, self.root, at=founded.entry.time, roles=frozenset({LOG}))
            key = VerifierKey.parse(body["log_vkey"])
            if key != log_verifier_key(certificate):
                raise TraceError(f"log_vkey: expected key and name of the log's certificate, got {key}")
            if identity.name != log_origin(body["name"]):
                raise TraceError(f"log certificate: expected name {log_origin(body['name'])}, got {identity.name}")
        return Founding(body["name"], key, certificate, body["server"])

    def _load_certificates(self) -> None:
        holders: dict[bytes, Identity] = {}
        names: dict[str, str] = {}  # person id to the commitment to the name, and back
        for logged in self.of_kind(CERTIFICATE_ISSUED):
            body = logged.body
            with _blamed(logged):
                certificate = load_certificate(body["certificate"].encode())
                if body["certificate"] != certificate_pem(certificate):
                    raise TraceError("certificate is not in its one PEM spelling")
                identity = identity_of(certificate)
                stated = {key: body[key] for key in ("digest", "name", "organisation", "role")}
                found = {
                    "digest": certificate_digest(certificate),
                    "name": identity.name,
                    "organisation": identity.organisation,
                    "role": identity.role,
                }
                validity = (body["not_before"], body["not_after"])
                actual = (
                    format_time(certificate.not_valid_before_utc),
                    format_time(certificate.not_valid_after_utc),
                )
                if stated != found or validity != actual:
                    raise TraceError(
                        f"expected {found} valid {actual} as the certificate says, got {stated} {validity}"
                    )
                key = public_key_of(certificate).public_bytes(
                    serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
                )
                _check_holder(identity, body["holder"], names)
                holder = holders.setdefault(key, identity)
                if holder.person != identity.person:
                    raise TraceError(f"{identity.name} and {holder.name} hold the same key")
                self.certificates[identity.certificate_digest] = certificate
                self._issued_at.setdefault(identity.certificate_digest, logged.index)

    def _load_statuses(self) -> None:
        # In log order, each judged by those before it: a suspended admin reinstates nobody, least of all herself.
        for logged in self.of_kind(CERTIFICATE_STATUS_CHANGED):
            signed = logged.entry.signed("revocation")
            self.verify(logged, signed, CERTIFICATE_STATUS, frozenset({CONSORTIUM_ADMIN}))
            if logged.body["digest"] not in listed(signed.statement["subject"]):
                logged.expect("digest", signed.statement["subject"], logged.body["digest"])
            logged.expect("status", signed.statement["status"], logged.body["status"])
            with _blamed(logged):
                change = StatusChange(logged.index, logged.body["digest"], logged.body["status"])
                self.revocations = self.revocations.then(change)

    def _check_use(self, logged: Logged, digest: str) -> None:
        certificate = self.certificates[digest]
        if self._issued_at[digest] >= logged.index:
            raise TraceError(f"{logged}: uses certificate {digest}, announced only in entry {self._issued_at[digest]}")
        # At the log's time too: a stolen key that has expired cannot be used with a date in the past.
        first, last = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        if not first - MAX_CLOCK_SKEW <= logged.entry.time <= last:
            raise TraceError(
                f"{logged}: expected its certificate to be valid at {format_time(logged.entry.time)}, "
                f"got {format_time(first)} to {format_time(last)}"
            )
        with _blamed(logged):
            self.revocations.check(digest, before=logged.index)


def _check_holder(identity: Identity, commitment: str | None, names: dict[str, str]) -> None:
    if (commitment is None) == (identity.role in PEOPLE):
        raise TraceError(f"holder: expected a commitment to the name of a person, and of nobody else; got {commitment}")
    if commitment is None:
        return
    for one, other in ((identity.name, commitment), (commitment, identity.name)):
        if names.setdefault(one, other) != other:
            raise TraceError(f"holder: expected {names[one]} beside {one}, as in an earlier certificate, got {other}")


class _blamed:  # noqa: N801 - reads as a word in `with _blamed(entry)`
    """Turns errors inside into TraceErrors that name the entry."""

    def __init__(self, logged: Logged) -> None:
        self._logged = logged

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, AuditError):
            raise TraceError(f"{self._logged}: {error}") from error
