"""The register: what the log says about the consortium as a whole, complete as of one checkpoint.

Inclusion proofs show that an entry is in the log, never that another one is not. For the entries in which an
absence would mislead (a revoked certificate, a withdrawn release, a stricter set of gates, a failed audit) the
log's key signs how many there are and where: the indices of all entries of `REGISTER_KINDS` in one tree. A
dossier holds the register and every entry it lists.

What this proves: the log's keeper committed to this list. One left out is then a signed lie, which anybody
with a copy of the log, or a witness with the entries, can show to a third party. It does not prove that the
list is true to somebody who has nothing but the dossier.

The signed text: `zegel register v1`, the checkpoint's three lines, then one line `<index> <kind>` per entry.

Source: C2SP signed-note (the signature's form).
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from audit.checkpoint import Checkpoint
from audit.entry import (
    CERTIFICATE_STATUS_CHANGED,
    GATES_SET,
    PRIVACY_AUDIT_REPORTED,
    RELEASE_CERTIFIED,
    RELEASE_PROPOSED,
    RELEASE_SUPERSEDED,
    RELEASE_WITHDRAWN,
    VALUE_ERASED,
    WITHDRAWAL_PROPOSED,
    WITNESS_ENROLLED,
    Entry,
)
from audit.errors import DossierError
from audit.note import VerifierKey, sign_note, verify_note

HEADER = "zegel register v1"
REGISTER_KINDS = frozenset(
    {
        CERTIFICATE_STATUS_CHANGED,
        GATES_SET,
        PRIVACY_AUDIT_REPORTED,
        RELEASE_CERTIFIED,
        RELEASE_PROPOSED,
        RELEASE_SUPERSEDED,
        RELEASE_WITHDRAWN,
        VALUE_ERASED,
        WITHDRAWAL_PROPOSED,
        WITNESS_ENROLLED,
    }
)
_LINE = re.compile(r"(0|[1-9][0-9]{0,18}) ([a-z.]+)", re.ASCII)


def register_of(entries: Iterable[tuple[int, Entry]]) -> dict[int, str]:
    """Index and kind of the entries that belong into the register."""
    return {index: entry.kind for index, entry in entries if entry.kind in REGISTER_KINDS}


def sign_register(register: dict[int, str], checkpoint: Checkpoint, key: Ed25519PrivateKey) -> bytes:
    """The register of the tree of `checkpoint` as a note signed by the log's key."""
    lines = [f"{index} {kind}\n" for index, kind in sorted(register.items())]
    return sign_note(f"{HEADER}\n{checkpoint.to_text()}{''.join(lines)}", checkpoint.origin, key)


def check_register(data: bytes, key: VerifierKey, checkpoint: Checkpoint, entries: Iterable[tuple[int, Entry]]) -> int:
    """How many entries the register lists, all of which are among `entries` and no others of its kinds.

    Raises NoteError for a missing or wrong signature, DossierError for a register of another tree, a malformed
    one, and for an entry that is listed and not there or there and not listed.
    """
    text = verify_note(data, key)
    head = f"{HEADER}\n{checkpoint.to_text()}"
    if not text.startswith(head):
        raise DossierError("register: expected the register of the checkpoint's tree, got another one")
    listed: dict[int, str] = {}
    for line in text[len(head) :].split("\n")[:-1]:
        match = _LINE.fullmatch(line)
        if match is None or match[2] not in REGISTER_KINDS or int(match[1]) <= max(listed, default=-1):
            raise DossierError(f"register: expected ascending lines of index and kind, got {line[:60]!r}")
        listed[int(match[1])] = match[2]
    there = register_of(entries)
    for index in sorted(set(listed) | set(there)):
        if listed.get(index) != there.get(index):
            raise DossierError(
                f"register: entry {index}: it says {listed.get(index) or 'nothing'}, "
                f"the dossier holds {there.get(index) or 'nothing'}"
            )
    return len(listed)
