"""Standing: who holds which certificate and whether it still counts, as the log has it now.

Whoever lets somebody take part asks this first: the server at its door, the coordinator before every round, whoever
appends what hospitals signed. Hospitals, who have no log, get the part about revocation as a list signed by the log.

Invariants:
- a hospital with no certificate that counts now is barred: it is not asked, and what it says is not taken;
- a statement whose certificate the log bars is never appended: its signature would count for nothing, and a run with it
  in would be traced by nobody. The check and the append see the same log.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from cryptography import x509

from audit.certificates import CLIENT, certificate_pem, identity_of
from audit.checkpoint import Checkpoint, open_checkpoint
from audit.entry import CERTIFICATE_ISSUED, CERTIFICATE_STATUS_CHANGED, CONSORTIUM_FOUNDED, Entry
from audit.errors import CertificateError, LogConflictError
from audit.evidence import Evidence
from audit.note import VerifierKey
from audit.revocation import NO_REVOCATIONS, REVOKED, Revocations, StatusChange, sign_revocations
from jobs.errors import SignerBarred
from jobs.home import ConsortiumHome

if TYPE_CHECKING:
    from audit.store import Log

_KINDS = (CONSORTIUM_FOUNDED, CERTIFICATE_ISSUED, CERTIFICATE_STATUS_CHANGED)
_SIGNED_FIELDS = ("acceptance", "refusal", "metrics", "enrolment", "manifest")  # of entries, each one statement
ATTEMPTS = 20  # to append between others' appends


@dataclass(frozen=True)
class Standing:
    """Certificates and what became of them. All of it is public."""

    certificates: Mapping[str, x509.Certificate]  # every certificate issued, by digest
    revocations: Revocations = NO_REVOCATIONS
    signed: bytes | None = None  # the same revocations as the log's signed list; None where there is no log
    log_certificate: str | None = None  # PEM of whose key signed it

    def check(self, digest: str, *, at: datetime) -> x509.Certificate:
        """The certificate with this digest. Raises CertificateError unless it was issued here and counts at `at`."""
        certificate = self.certificates.get(digest)
        if certificate is None:
            raise CertificateError(f"certificate {digest} was not issued by this consortium")
        first, last = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        if not first <= at <= last:
            raise CertificateError(f"certificate {digest}: expected a time from {first} to {last}, got {at}")
        self.revocations.check(digest)
        return certificate

    def barred(self, *, at: datetime) -> Mapping[str, str]:
        """Every hospital that holds no certificate that counts at `at`, and why, by the certificate issued last."""
        reasons: dict[str, str] = {}
        good: set[str] = set()
        for digest, certificate in self.certificates.items():
            holder = identity_of(certificate)
            if holder.role != CLIENT:
                continue
            try:
                self.check(digest, at=at)
                good.add(holder.name)
            except CertificateError as error:
                reasons[holder.name] = str(error)
        return {name: reason for name, reason in reasons.items() if name not in good}

    def revoked_for_ever(self, name: str) -> bool:
        """Whether every certificate of a hospital is revoked: it does not come back under this name."""
        changes = [
            self.revocations.last(digest)
            for digest, certificate in self.certificates.items()
            if identity_of(certificate).name == name
        ]
        return bool(changes) and all(change is not None and change.status == REVOKED for change in changes)


class LogStanding:
    """The standing as the log has it; the log is read again only where it has grown. Several threads may ask."""

    def __init__(self, home: ConsortiumHome) -> None:
        self._home = home
        self._seen = 0  # entries
        self._standing: Standing | None = None
        self._one_at_a_time = threading.Lock()

    def __call__(self) -> Standing:
        """Raises AuditError when the log cannot be read or does not hold together."""
        with self._one_at_a_time:
            return self._newest()

    def _newest(self) -> Standing:
        with self._home.log() as log:
            size = log.size
            changed = any(
                next(log.entries(kind=kind, since=self._seen), None) is not None
                for kind in (CERTIFICATE_ISSUED, CERTIFICATE_STATUS_CHANGED)
            )
        if self._standing is None or changed:
            self._standing = read_standing(self._home)
        self._seen = size
        return self._standing


def read_standing(home: ConsortiumHome) -> Standing:
    """The standing as of now, with the list signed over a fresh checkpoint. Raises AuditError, FederationError."""
    signed = home.sign_checkpoint()
    checkpoint = open_checkpoint(signed, VerifierKey.parse(home.config().log_vkey))
    evidence = certificate_evidence(home, size=checkpoint.size)
    return Standing(
        certificates=evidence.certificates,
        revocations=evidence.revocations,
        signed=signed_list(home, evidence.revocations, checkpoint),
        log_certificate=(home.path / "log.crt").read_text(encoding="ascii"),
    )


def certificate_evidence(home: ConsortiumHome, *, size: int | None = None) -> Evidence:
    """Certificates and what became of them, in the log's first `size` entries; None: as it is now. Nothing is signed.

    Raises AuditError for a log that does not hold together.
    """
    with home.log() as log:
        return Evidence(_of_certificates(log, log.size if size is None else size), home.root())


def signed_list(home: ConsortiumHome, revocations: Revocations, checkpoint: Checkpoint) -> bytes:
    """The list for hospitals, who have no log: signed by the log's key."""
    return sign_revocations(revocations, checkpoint, home.log_key())


def append_standing(log: Log, entry: Entry) -> int:
    """Append an entry if every certificate that signed something in it counts; returns the entry's index.

    Raises: SignerBarred, and nothing is appended, when the log suspended or revoked one before; LogConflictError when
        others never stop appending.
    """
    left = ATTEMPTS
    while True:
        size = log.size
        revocations = Revocations(tuple(_changes(log, size)))
        try:
            for digest in _signers(entry.body):
                revocations.check(digest)
        except CertificateError as error:
            raise SignerBarred(f"{entry.kind} is not logged: {error}") from None
        try:
            return log.append([entry], expected_size=size)[0]
        except LogConflictError:
            left -= 1
            if not left:
                raise


def certificate_pems(standing: Standing) -> list[str]:
    """Every certificate as PEM, for hospitals."""
    return [certificate_pem(certificate) for certificate in standing.certificates.values()]


def _of_certificates(log: Log, size: int) -> list[tuple[int, Entry]]:
    found = [pair for kind in _KINDS for pair in log.entries(kind=kind) if pair[0] < size]
    return sorted(found, key=lambda pair: pair[0])


def _changes(log: Log, size: int) -> Iterator[StatusChange]:
    for index, entry in log.entries(kind=CERTIFICATE_STATUS_CHANGED):
        if index < size:
            yield StatusChange(index, entry.body["digest"], entry.body["status"])


def _signers(body: Mapping[str, Any]) -> Iterator[str]:
    """Digests of the certificates that signed the statements in an entry's body."""
    for statement in [body[field] for field in _SIGNED_FIELDS if field in body] + list(body.get("receipts", [])):
        yield statement["certificate"]
