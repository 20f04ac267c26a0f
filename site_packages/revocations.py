"""What a hospital knows about suspended and revoked certificates: the log's signed list, remembered.

A hospital has no log. It is sent the list with every call that opens a run or a round, and believes it because the
log's key signed it, whose certificate the root vouches for. It keeps the last list durably before it relies on it.

Invariants:
- a list never goes back: an older tree, a missing change, or a change within a tree that was said to hold none is
  refused, also after a restart;
- two lists of one tree size are the same list;
- without a list nothing is decided: the caller refuses.

What a list cannot show is that it is the newest there is: a server that keeps a revocation to itself sends the last
list again. The log's witnesses and everybody who reads the log see what it kept back.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from cryptography import x509

from audit.certificates import LOG, load_certificate, verify_certificate
from audit.checkpoint import Checkpoint, log_origin, log_verifier_key
from audit.durable_file import write_durably
from audit.errors import AuditError, CertificateError
from audit.note import VerifierKey
from audit.revocation import NO_REVOCATIONS, Revocations, open_revocations


class KnownRevocations:
    """The revocations this hospital knows of.

    Args:
        path: where the last list is kept.
        consortium: whose log it must be.
        root: vouches for the log's key.
    """

    def __init__(self, path: Path, *, consortium: str, root: x509.Certificate, clock: Callable[[], datetime]) -> None:
        self._path = path
        self._origin = log_origin(consortium)
        self._root = root
        self._clock = clock
        self._key: VerifierKey | None = None
        self._note: bytes | None = None  # the last list, as kept
        self.current = NO_REVOCATIONS

    def trust(self, log_certificate: str) -> None:
        """Believe lists signed by the log of this certificate (PEM), and take up the list kept here before.

        Raises: CertificateError when the root does not vouch for it as this consortium's log, or the list kept here
            cannot be read with it: somebody has to look at why.
        """
        try:
            data = log_certificate.encode("ascii")
        except UnicodeEncodeError as error:
            raise CertificateError(f"certificate of the log: not PEM: {error}") from error
        certificate = load_certificate(data)
        identity = verify_certificate(certificate, self._root, at=self._clock(), roles=frozenset({LOG}))
        if identity.name != self._origin:
            raise CertificateError(f"expected the certificate of the log {self._origin}, got {identity.name}'s")
        key = log_verifier_key(certificate)
        kept = self._kept()
        if kept is not None:
            try:
                _, self.current = open_revocations(kept, key)
            except AuditError as error:
                raise CertificateError(
                    f"{self._path} is not a list of this log ({error}); ask the consortium, by another channel, for "
                    "the list of `zegel consortium revocations` and put it there"
                ) from None
        self._key, self._note = key, kept

    def take(self, note: bytes) -> Revocations:
        """Take a list as the newest one; it is durable when this returns.

        Raises: RuntimeError before `trust`; CertificateError or another AuditError for a list that is not the log's or
            goes back behind the last one; what was known stays known.
        """
        if self._key is None:
            raise RuntimeError("expected the log's certificate before a list")
        if note == self._note:
            return self.current
        tree, revocations = open_revocations(note, self._key)
        if self._note is not None:
            before, known = open_revocations(self._note, self._key)
            _check_follows(before, known, tree, revocations)
        write_durably(self._path, note)
        self._note, self.current = note, revocations
        return revocations

    def _kept(self) -> bytes | None:
        try:
            return self._path.read_bytes()
        except FileNotFoundError:
            return None


def _check_follows(before: Checkpoint, known: Revocations, tree: Checkpoint, revocations: Revocations) -> None:
    """Raises CertificateError unless the second list can be a later one of the same log."""
    if tree.size < before.size:
        raise CertificateError(
            f"list of revocations: expected one of at least {before.size} entries, as seen before, got {tree.size}; "
            "somebody shows an old list"
        )
    if tree.size == before.size and tree.root != before.root:
        raise CertificateError(f"list of revocations: two different logs of {tree.size} entries were shown here")
    within = tuple(change for change in revocations.changes if change.index < before.size)
    if within != known.changes:
        raise CertificateError(
            f"list of revocations: the first {before.size} entries held {len(known.changes)} changes as seen before, "
            f"now {len(within)} or others"
        )
