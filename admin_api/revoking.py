"""Suspending, reinstating and revoking certificates: one signed entry per certificate, in force at once for the log.

Signatures logged before it stay good. The server's door ends a hospital's session within seconds, the coordinator drops
it before the next round, and the other hospitals are sent the log's signed list (`jobs.standing`).
"""

from __future__ import annotations

from cryptography import x509

from admin_api.errors import OnboardingError
from admin_api.people import disclosed_now, is_called
from admin_api.recording import read_evidence, reason_of, record_judged, signed_by
from admin_api.signing import Signer
from audit.certificates import CONSORTIUM_ADMIN, LOG, SERVER, identity_of
from audit.disclosure import Disclosed, commitment_of
from audit.entry import CERTIFICATE_STATUS_CHANGED, Entry
from audit.errors import AuditError
from audit.evidence import Evidence
from audit.revocation import REINSTATED, REVOKED, SUSPENDED, Revocations
from audit.statement import CERTIFICATE_STATUS, one_or_list
from jobs.home import ConsortiumHome
from jobs.standing import read_standing

ACCOUNT = "lead"  # NVFlare's role of the consortium's own account


def change_status(
    home: ConsortiumHome, name: str, *, status: str, reason: str, admin: Signer, only: str | None = None
) -> tuple[str, ...]:
    """Suspend, reinstate or revoke all certificates of a person or hospital that this can be said of.

    Args:
        only: the digest of the one certificate to change, such as an old one whose key got lost after a renewal.
    Returns: the certificates' digests. Raises: ApprovalError unless a consortium admin asks, OnboardingError when
        nobody has this name, nothing is left to change, or no reason is given; nothing was logged then.
    """
    admin.require(CONSORTIUM_ADMIN)
    if not reason.strip() or not reason.isprintable():
        raise OnboardingError("give a --reason in printable text; the log commits to it")
    try:
        why = reason_of(reason, admin)
        evidence = read_evidence(home)
        chosen = _certificates(evidence, disclosed_now(home), name, status, only)
        fields = {
            "subject": one_or_list(chosen),
            "status": status,
            "reason": commitment_of(why),
            "name": identity_of(evidence.certificates[chosen[0]]).name,
        }
        signed = signed_by(home, admin, CERTIFICATE_STATUS, fields).to_json()
        entries = [
            Entry(CERTIFICATE_STATUS_CHANGED, home.clock(), {"digest": digest, "status": status, "revocation": signed})
            for digest in sorted(chosen, key=lambda each: each == admin.certificate_digest)  # the signing one last
        ]
        record_judged(home, lambda _: entries, beside=[why])
    except AuditError as error:
        raise OnboardingError(f"{name!r} is not {status}: {error}") from None
    return chosen


def current_revocations(home: ConsortiumHome) -> Revocations:
    """Every change of a certificate's status the log holds. Raises AuditError when one was not an admin's to make."""
    return read_evidence(home).revocations


def signed_revocations(home: ConsortiumHome) -> bytes:
    """The list for hospitals, who have no log: signed by the log's key over a fresh checkpoint."""
    signed = read_standing(home).signed
    if signed is None:
        raise RuntimeError("expected the standing of a log")
    return signed


def _certificates(evidence: Evidence, said: Disclosed, name: str, status: str, only: str | None) -> tuple[str, ...]:
    """The certificates of a holder whose status can change so; raises OnboardingError when there is none."""
    held = {
        digest: certificate
        for digest, certificate in evidence.certificates.items()
        if is_called(said, identity_of(certificate).name, name)
    }
    if not held:
        raise OnboardingError(f"nobody here is called {name!r}; `zegel audit log` shows who got certificates")
    _refuse_own_machines(name, held)
    if only is not None and only not in held:
        raise OnboardingError(f"{name!r} holds no certificate {only}; `zegel consortium certificates` lists them")
    held = {digest: certificate for digest, certificate in held.items() if only in (None, digest)}
    before = {REINSTATED: (SUSPENDED,), SUSPENDED: (None, REINSTATED), REVOKED: (None, REINSTATED, SUSPENDED)}[status]
    chosen = [digest for digest in held if _status(evidence, digest) in before]
    if not chosen:
        states = ", ".join(sorted({_status(evidence, digest) or "good" for digest in held}))
        raise OnboardingError(f"{name!r} cannot be {status}: every certificate is {states}")
    return tuple(sorted(chosen))


def _refuse_own_machines(name: str, held: dict[str, x509.Certificate]) -> None:
    roles = {identity_of(certificate).role for certificate in held.values()}
    if roles & {SERVER, LOG, ACCOUNT}:
        raise OnboardingError(
            f"{name!r} is the consortium's own {' and '.join(sorted(roles))}; if its key is stolen, found anew"
        )


def _status(evidence: Evidence, digest: str) -> str | None:
    change = evidence.revocations.last(digest)
    return None if change is None else change.status
