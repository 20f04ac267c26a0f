"""Revocation: certificates that must no longer be relied on, as the log has it.

A certificate is good until the log says otherwise. It can be suspended and reinstated; revoked is for ever.
What counts is the order of the log, not a date somebody states: a signature logged before the change stays
good, one logged after it is none. So a stolen key cannot be used with an old date once the log knows.

Live checks, which see no log, get the same facts as a list signed by the log's key over its checkpoint.
Whoever keeps the last list can refuse an older one by its tree size.

Invariants:
- Changes stand in log order, and each follows from the one before it (`_NEXT`).
- A list has exactly one spelling; one that is not signed by the log's key is refused.

The signed text: a line `zegel revocations v1`, the checkpoint's three lines (origin, size, root), then one line
`<entry index> <status> <certificate digest>` per change, in log order.

All fields are public. Source: C2SP signed-note (the signature's form).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from audit.canonical import check_digest
from audit.errors import CanonicalError, CertificateError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from audit.checkpoint import Checkpoint
    from audit.note import VerifierKey

SUSPENDED = "suspended"
REINSTATED = "reinstated"
REVOKED = "revoked"
STATUSES = (SUSPENDED, REINSTATED, REVOKED)
HEADER = "zegel revocations v1"
# From a certificate's last status (None: none yet) to those that may follow.
_NEXT: Mapping[str | None, tuple[str, ...]] = {
    None: (SUSPENDED, REVOKED),
    SUSPENDED: (REINSTATED, REVOKED),
    REINSTATED: (SUSPENDED, REVOKED),
    REVOKED: (),
}
_LINE = re.compile(r"(0|[1-9][0-9]{0,18}) ([a-z]+) (sha256:[0-9a-f]{64})", re.ASCII)


@dataclass(frozen=True)
class StatusChange:
    """What a `certificate.status` entry says."""

    index: int  # of the entry
    certificate: str  # digest
    status: str


@dataclass(frozen=True)
class Revocations:
    """Every change of a certificate's status, in log order.

    Making one raises CertificateError for a change that cannot follow: nobody comes back after being revoked,
    and what was not suspended is not reinstated.
    """

    changes: tuple[StatusChange, ...] = ()

    def __post_init__(self) -> None:
        last: dict[str, str] = {}
        before = -1
        for change in self.changes:
            what = f"entry {change.index}: certificate {change.certificate}"
            if change.index <= before:
                raise CertificateError(f"{what}: status changes are not in log order")
            allowed = _NEXT[last.get(change.certificate)]
            if change.status not in allowed:
                now = last.get(change.certificate, "good")
                raise CertificateError(
                    f"{what}: is {now} and cannot be {change.status}; "
                    f"possible: {', '.join(allowed) or 'nothing, revoked is for ever'}"
                )
            last[change.certificate] = change.status
            before = change.index

    def then(self, change: StatusChange) -> Revocations:
        """With one more change; raises CertificateError when it cannot follow."""
        return Revocations((*self.changes, change))

    def last(self, certificate: str, *, before: int | None = None) -> StatusChange | None:
        """The latest change of a certificate's status among the entries up to `before` (exclusive; None: all)."""
        found: StatusChange | None = None
        for change in self.changes:
            if change.certificate == certificate and (before is None or change.index < before):
                found = change
        return found

    def check(self, certificate: str, *, before: int | None = None) -> None:
        """Raises CertificateError when a certificate (by digest) is suspended or revoked.

        `before` is the index of the entry whose signature is judged; None asks for now.
        """
        change = self.last(certificate, before=before)
        if change is not None and change.status != REINSTATED:
            raise CertificateError(
                f"certificate {certificate} is {change.status} since entry {change.index}: nothing signed with it "
                "counts after that"
            )


NO_REVOCATIONS = Revocations()


def sign_revocations(revocations: Revocations, checkpoint: Checkpoint, key: Ed25519PrivateKey) -> bytes:
    """The list as a note signed by the log's key: all changes in the tree of `checkpoint`, and no later one.

    Raises CertificateError when a change lies beyond the tree.
    """
    from audit.note import sign_note

    _check_within(revocations, checkpoint)
    lines = [f"{change.index} {change.status} {change.certificate}\n" for change in revocations.changes]
    return sign_note(f"{HEADER}\n{checkpoint.to_text()}{''.join(lines)}", checkpoint.origin, key)


def open_revocations(data: bytes, key: VerifierKey) -> tuple[Checkpoint, Revocations]:
    """A signed list and the tree it speaks for.

    Compare the tree's size with that of the last list seen: a smaller one hides changes. Raises NoteError for a
    missing or wrong signature, CheckpointError or CertificateError for a malformed list or another log's.
    """
    from audit.checkpoint import Checkpoint
    from audit.note import verify_note

    header, separator, rest = verify_note(data, key).partition("\n")
    if header != HEADER or not separator:
        raise CertificateError(f"list of revocations: expected the line {HEADER!r}, got {header[:60]!r}")
    lines = rest.split("\n")
    checkpoint = Checkpoint.from_text("\n".join(lines[:3]) + "\n")
    if checkpoint.origin != key.name:
        raise CertificateError(f"list of revocations: expected the log {key.name}, got {checkpoint.origin}")
    changes: list[StatusChange] = []
    for line in lines[3:-1]:
        match = _LINE.fullmatch(line)
        if match is None or match[2] not in STATUSES:
            raise CertificateError(f"list of revocations: expected index, status and digest, got {line[:60]!r}")
        try:
            changes.append(StatusChange(int(match[1]), check_digest(match[3], "certificate"), match[2]))
        except CanonicalError as error:
            raise CertificateError(f"list of revocations: {error}") from error
    revocations = Revocations(tuple(changes))
    _check_within(revocations, checkpoint)
    return checkpoint, revocations


def _check_within(revocations: Revocations, checkpoint: Checkpoint) -> None:
    if revocations.changes and revocations.changes[-1].index >= checkpoint.size:
        raise CertificateError(
            f"list of revocations: entry {revocations.changes[-1].index} lies beyond the tree of {checkpoint.size}"
        )
