"""Suspending, reinstating and revoking certificates: one signed entry per certificate, in force at once for the log.

Signatures logged before it stay good. Whether a running connection ends is the federation's business; whoever checks
signatures while work runs asks `audit.revocation.Revocations` (`current_revocations`, or the signed list).
"""

from __future__ import annotations

from cryptography import x509

from admin_api.errors import OnboardingError
from admin_api.people import Person
from admin_api.recording import read_evidence, record_judged, signed_by
from audit.certificates import CONSORTIUM_ADMIN, LOG, SERVER, identity_of
from audit.checkpoint import open_checkpoint
from audit.entry import CERTIFICATE_STATUS_CHANGED, Entry
from audit.errors import AuditError
from audit.evidence import Evidence
from audit.note import VerifierKey
from audit.revocation import REINSTATED, REVOKED, SUSPENDED, Revocations, sign_revocations
from audit.statement import CERTIFICATE_STATUS
from jobs.home import ConsortiumHome


def change_status(home: ConsortiumHome, name: str, *, status: str, reason: str, admin: Person) -> tuple[str, ...]:
    """Suspend, reinstate or revoke all certificates of a person or hospital that this can be said of.

    Returns: the certificates' digests. Raises: ApprovalError unless a consortium admin asks, OnboardingError when
        nobody has this name, nothing is left to change, or no reason is given; nothing was logged then.
    """
    admin.require(CONSORTIUM_ADMIN)
    if not reason.strip() or not reason.isprintable():
        raise OnboardingError("give a --reason in printable text; it stays in the log")
    try:
        evidence = read_evidence(home)
        chosen = _certificates(evidence, name, status)
        entries = [
            Entry(
                CERTIFICATE_STATUS_CHANGED,
                home.clock(),
                {
                    "digest": digest,
                    "status": status,
                    "revocation": signed_by(
                        home,
                        admin,
                        CERTIFICATE_STATUS,
                        {"subject": digest, "status": status, "reason": reason.strip(), "name": name},
                    ).to_json(),
                },
            )
            for digest in sorted(chosen, key=lambda each: each == admin.certificate_digest)  # the signing one last
        ]
        record_judged(home, lambda _: entries)
    except AuditError as error:
        raise OnboardingError(f"{name!r} is not {status}: {error}") from None
    return chosen


def current_revocations(home: ConsortiumHome) -> Revocations:
    """Every change of a certificate's status the log holds. Raises AuditError when one was not an admin's to make."""
    return read_evidence(home).revocations


def signed_revocations(home: ConsortiumHome) -> bytes:
    """The list for hospitals, who have no log: signed by the log's key over a fresh checkpoint."""
    signed = home.sign_checkpoint()
    checkpoint = open_checkpoint(signed, VerifierKey.parse(home.config().log_vkey))
    changes = tuple(each for each in current_revocations(home).changes if each.index < checkpoint.size)
    return sign_revocations(Revocations(changes), checkpoint, home.log_key())


def _certificates(evidence: Evidence, name: str, status: str) -> tuple[str, ...]:
    """The certificates of a holder whose status can change so; raises OnboardingError when there is none."""
    held = {
        digest: certificate
        for digest, certificate in evidence.certificates.items()
        if identity_of(certificate).name == name
    }
    if not held:
        raise OnboardingError(f"nobody here is called {name!r}; `zegel audit log` shows who got certificates")
    _refuse_own_machines(name, held)
    before = {REINSTATED: (SUSPENDED,), SUSPENDED: (None, REINSTATED), REVOKED: (None, REINSTATED, SUSPENDED)}[status]
    chosen = [digest for digest in held if _status(evidence, digest) in before]
    if not chosen:
        states = ", ".join(sorted({_status(evidence, digest) or "good" for digest in held}))
        raise OnboardingError(f"{name!r} cannot be {status}: every certificate is {states}")
    return tuple(sorted(chosen))


def _refuse_own_machines(name: str, held: dict[str, x509.Certificate]) -> None:
    roles = {identity_of(certificate).role for certificate in held.values()}
    if roles & {SERVER, LOG}:
        raise OnboardingError(
            f"{name!r} is the consortium's own {' and '.join(sorted(roles))}; if its key is stolen, found anew"
        )


def _status(evidence: Evidence, digest: str) -> str | None:
    change = evidence.revocations.last(digest)
    return None if change is None else change.status
