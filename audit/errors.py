"""Errors of the audit room. All descend from `AuditError`.

    AuditError
    ├── CanonicalError       bytes are not the one canonical form (JSON, base64, digest, time)
    ├── CertificateError     a certificate is not what its use needs
    ├── StatementError       a signed statement is malformed, not ours, or its signature is wrong
    ├── ProofError           a Merkle proof, or the numbers given with it, do not hold
    ├── NoteError            a signed note or verifier key is malformed or not signed by the key
    ├── CheckpointError      a checkpoint is malformed or of another log
    ├── CosignatureError     a witness's signature is wrong, or too few witnesses signed
    ├── TileError            tiles or an exported log are not what the checkpoint says
    ├── WitnessError         a witness refuses, or was not understood (one subclass per reason)
    │   ├── WitnessRequestError     the request is malformed
    │   ├── UnknownLogError         the witness does not watch this log
    │   ├── UnsignedCheckpointError the checkpoint is not signed by the log's key
    │   ├── StaleSizeError          the witness last cosigned another size
    │   │   └── RollbackError       ... a larger one: the log was set back, or an old message arrived late
    │   ├── InconsistentLogError    nothing proves that the log still contains what the witness cosigned
    │   ├── SplitViewError          the log signed two different trees of one size
    │   └── WitnessStateError       the witness's memory is lost or damaged: it must not sign
    ├── EntryError           a log entry does not follow its schema
    ├── LogError             the log cannot do what was asked
    │   ├── StaleLogError    the database is older than, or differs from, what was signed
    │   ├── CorruptLogError  a row of the log is not what its hashes say
    │   ├── LogConflictError the log grew since the caller looked
    │   └── StaleFileError   a file was replaced by another process meanwhile
    ├── ArtifactError        an artifact is missing or its bytes changed
    ├── DisclosureError      a value beside the log is not the one committed to, or was erased
    ├── ReleaseError         a release statement or policy is malformed, or approvals are missing
    ├── TraceError           the log's entries do not tell one unbroken story
    ├── DocumentError        a document of a dossier is malformed or does not follow from the evidence
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


class CosignatureError(AuditError):
    """A witness's signature or key that is not what it says, or too few of them."""


class TileError(AuditError):
    """Tiles, entry bundles or an exported log that are not what the checkpoint says."""


class WitnessError(AuditError):
    """A witness refuses to cosign, or cannot be understood.

    `kept` says whether and where the witness kept what it was shown.
    """

    kept = ""

    def __str__(self) -> str:
        return super().__str__() + self.kept


class WitnessRequestError(WitnessError):
    """A request a witness cannot read, or whose sizes contradict each other."""


class UnknownLogError(WitnessError):
    """A checkpoint of a log that the witness was not asked to watch."""


class UnsignedCheckpointError(WitnessError):
    """A checkpoint without a good signature of its log."""


class StaleSizeError(WitnessError):
    """The request starts from another size than the witness cosigned last, which is `size`."""

    def __init__(self, message: str, size: int) -> None:
        super().__init__(message)
        self.size = size


class RollbackError(StaleSizeError):
    """The log signed a smaller tree after the one this witness cosigned."""


class InconsistentLogError(WitnessError):
    """A signed checkpoint that is not proved to continue the one the witness cosigned."""


class SplitViewError(WitnessError):
    """Two checkpoints of one size, both signed by the log, with different roots: proof that it shows two histories."""


class WitnessStateError(WitnessError):
    """The witness's key or memory is missing, damaged or in use wrongly; it must not sign."""


class EntryError(AuditError):
    """A log entry that does not follow the schema of its kind."""


class LogError(AuditError):
    """The log cannot do what was asked of it."""


class StaleLogError(LogError):
    """The database does not continue the last signed checkpoint; signing would fork the log."""


class CorruptLogError(LogError):
    """A stored row is not what the hashes say it must be."""


class LogConflictError(LogError):
    """The log is not as long as it was when the caller decided what to append."""


class StaleFileError(LogError):
    """A file that was to be replaced no longer holds what was read from it."""


class ArtifactError(AuditError):
    """An artifact is missing, or its bytes are not those of its digest."""


class DisclosureError(AuditError):
    """A personal value does not open its commitment, or must not be shown any more."""


class ReleaseError(AuditError):
    """A release statement or approval policy is malformed, or its approvals do not suffice."""


class TraceError(AuditError):
    """The entries do not tell one unbroken story of a release."""


class DocumentError(AuditError):
    """A document of a dossier is malformed, or is not what the evidence gives."""


class DossierError(AuditError):
    """A dossier failed a check.

    `check` names the check, `passed` holds the checks that succeeded before it.
    """

    def __init__(self, message: str, *, check: str = "container", passed: Sequence[Check] = ()) -> None:
        super().__init__(message)
        self.check = check
        self.passed = tuple(passed)
