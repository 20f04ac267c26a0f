"""Errors of the audit room. All descend from `AuditError`.

    AuditError
    ├── CanonicalError       bytes are not the one canonical form (JSON, base64, digest, time)
    ├── CertificateError     a certificate is not what its use needs
    ├── StatementError       a signed statement is malformed, not ours, or its signature is wrong
    ├── ProofError           a Merkle proof, or the numbers given with it, do not hold
    ├── NoteError            a signed note or verifier key is malformed or not signed by the key
    ├── CheckpointError      a checkpoint is malformed or of another log
    ├── EntryError           a log entry does not follow its schema
    ├── LogError             the log cannot do what was asked
    │   ├── StaleLogError    the database is older than, or differs from, what was signed
    │   └── CorruptLogError  a row of the log is not what its hashes say
    ├── ArtifactError        an artifact is missing or its bytes changed
    ├── ReleaseError         a release statement or policy is malformed, or approvals are missing
    ├── TraceError           the log's entries do not tell one unbroken story
    └── DossierError         a dossier failed one of the verifier's checks

A message names the thing, what was expected and what was found. Nothing here is ever raised for bad luck:
each error means that the input must not be relied on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from audit.verify import Check


class AuditError(Exception):
    """Anything the audit room refuses."""


class CanonicalError(AuditError):
    """Bytes or text that are not in the one form we accept."""


class CertificateError(AuditError):
    """A certificate that must not be used for what it was presented for."""


class StatementError(AuditError):
    """A signed statement that is malformed, not for us, or not signed by whom it says."""


class ProofError(AuditError):
    """A Merkle proof that does not prove."""


class NoteError(AuditError):
    """A signed note or verifier key that is malformed or not signed by the expected key."""


class CheckpointError(AuditError):
    """A checkpoint that is malformed or belongs to another log."""


class EntryError(AuditError):
    """A log entry that does not follow the schema of its kind."""


class LogError(AuditError):
    """The log cannot do what was asked of it."""


class StaleLogError(LogError):
    """The database does not continue the last signed checkpoint; signing would fork the log."""


class CorruptLogError(LogError):
    """A stored row is not what the hashes say it must be."""


class ArtifactError(AuditError):
    """An artifact is missing, or its bytes are not those of its digest."""


class ReleaseError(AuditError):
    """A release statement or approval policy is malformed, or its approvals do not suffice."""


class TraceError(AuditError):
    """The entries do not tell one unbroken story of a release."""


class DossierError(AuditError):
    """A dossier failed a check.

    `check` names the check, `passed` holds the checks that succeeded before it.
    """

    def __init__(self, message: str, *, check: str = "container", passed: Sequence[Check] = ()) -> None:
        super().__init__(message)
        self.check = check
        self.passed = tuple(passed)
