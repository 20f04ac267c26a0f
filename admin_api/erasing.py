"""Erasing personal values beside the log: the log says so first, then the file goes.

What is erased stays provable and becomes unreadable: every entry, signature and dossier holds as before. Copies that
were handed out - a dossier, a backup, a page somebody printed - are out of reach.

A person's name is erased only when none of their certificates counts any more. Until then it is needed: who approves
must be known by name, and a person whose name is gone could not be recognised when they ask for another certificate.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from admin_api.errors import ErasureRefused
from admin_api.people import is_called
from admin_api.recording import read_evidence, record_judged, signed_by
from admin_api.signing import Signer
from audit.canonical import check_digest
from audit.certificates import identity_of
from audit.disclosure import NAME, REASON, Disclosure, commitments_in, people_in
from audit.disclosure_store import Disclosures
from audit.entry import VALUE_ERASED, Entry
from audit.erasure import ERASERS
from audit.errors import AuditError
from audit.evidence import Evidence
from audit.revocation import REVOKED
from audit.statement import ERASURE, one_or_list
from jobs.home import ConsortiumHome

MOST_AT_ONCE = 500  # values that one statement lists; an entry holds it whole


@dataclass(frozen=True)
class Erasable:
    """What is to be erased, as it stands."""

    commitment: str
    field: str
    value: str | None  # None when it is no longer here, or the file is damaged
    logged: bool  # an entry holds the commitment
    erased: int | None  # the entry that erased it, when only the file is left


def erasable(
    home: ConsortiumHome, commitments: Sequence[str] = (), *, person: str | None = None
) -> tuple[Erasable, ...]:
    """The values behind these commitments, and all that a person is named by, wrote, or that was written about them.

    Args:
        person: a person id, or a name that was not erased yet.
    Raises: ErasureRefused for what is no commitment of this log, is erased already, or a person nobody knows.
    """
    try:
        evidence = read_evidence(home)
        store = home.disclosures()
        fields = _fields(evidence)
        gone = {each.body["commitment"]: each.index for each in evidence.of_kind(VALUE_ERASED)}
        here = set(store.commitments())
        wanted = [check_digest(each, "commitment") for each in commitments]
    except AuditError as error:
        raise ErasureRefused(str(error)) from None
    for commitment in wanted:
        if commitment not in fields and commitment not in here:
            raise ErasureRefused(f"{commitment} is no commitment of this log; `zegel audit entry N` shows an entry's")
        if commitment in gone and commitment not in here:
            raise ErasureRefused(f"{commitment} was erased already, in entry {gone[commitment]}")
    if person is not None:
        wanted += [
            each for each in _of_person(evidence, store, person, here - set(fields)) if each in here or each not in gone
        ]
    found = tuple(
        Erasable(each, fields.get(each, "value"), _value(store, each), each in fields, gone.get(each))
        for each in dict.fromkeys(wanted)
    )
    if not found:
        raise ErasureRefused("nothing to erase: give a commitment, or a --person of whom something is left")
    return found


def erase(home: ConsortiumHome, chosen: Sequence[Erasable], *, reason: str, admin: Signer) -> tuple[int, ...]:
    """Log that these values are erased, signed by an admin, and remove them.

    The reason is kept beside the log as every other, and can be erased itself. Erasing again what a stopped machine
    left half done removes the file and logs nothing.

    Returns: the indices of the entries. Raises: ApprovalError unless a consortium admin asks, ErasureRefused when the
        reason is missing or repeats what is erased, or a person's certificates still count; nothing was changed then.
    """
    admin.require(*sorted(ERASERS))
    why = _reason(reason, chosen, admin)
    store = home.disclosures()
    first: list[int] = []

    def build(evidence: Evidence) -> list[Entry]:
        _refuse_in_use(home, evidence, chosen)
        first[:] = [evidence.size]
        gone = {each.body["commitment"] for each in evidence.of_kind(VALUE_ERASED)}
        left = [each.commitment for each in chosen if each.logged and each.commitment not in gone]
        if not left:
            return []
        if len(left) > MOST_AT_ONCE:
            raise ErasureRefused(
                f"{len(left)} values at once: one signature is about {MOST_AT_ONCE} at most; give some by commitment"
            )
        fields = {"commitment": one_or_list(left), "reason": why.commitment}
        signed = signed_by(home, admin, ERASURE, fields).to_json()
        return [Entry(VALUE_ERASED, home.clock(), {"commitment": each, "erasure": signed}) for each in left]

    try:
        entries = record_judged(home, build, beside=[why])
    except AuditError as error:
        raise ErasureRefused(f"nothing was erased: {error}") from None
    for each in chosen:
        store.erase(each.commitment)
    return tuple(range(first[0], first[0] + len(entries)))


def _reason(reason: str, chosen: Iterable[Erasable], admin: Signer) -> Disclosure:
    if not reason.strip():
        raise ErasureRefused("give a --reason; it is kept beside the log like every other")
    for each in chosen:
        if each.value is not None and each.value.casefold() in reason.casefold():
            raise ErasureRefused(f"the --reason repeats the {each.field} it erases; write it without")
    try:
        return Disclosure.made(REASON, reason.strip(), admin.random_bytes)
    except AuditError as error:
        raise ErasureRefused(str(error)) from None


def _refuse_in_use(home: ConsortiumHome, evidence: Evidence, chosen: Iterable[Erasable]) -> None:
    names = {each.commitment for each in chosen if each.field == NAME}
    now = home.clock()
    for logged in evidence.entries:
        if names.isdisjoint(commitments_in(logged.entry)):
            continue
        digest = logged.body["digest"]
        last = evidence.revocations.last(digest)
        ends = evidence.certificates[digest].not_valid_after_utc
        if now <= ends and (last is None or last.status != REVOKED):
            raise ErasureRefused(
                f"the certificate of {logged.body['name']} counts until {ends:%Y-%m-%d}, and its holder must be known "
                "by name; first `zegel consortium revoke`, signed by another admin if it is an admin's"
            )


def _of_person(evidence: Evidence, store: Disclosures, person: str, strays: Iterable[str]) -> list[str]:
    """Commitments: the name, and every reason the person signed or that concerns their certificates."""
    said = store.disclosed((each.index, each.entry) for each in evidence.entries)
    held = {
        digest
        for digest, certificate in evidence.certificates.items()
        if is_called(said, identity_of(certificate).name, person)
    }
    # A command that was stopped before it could log left these.
    left = [each for each in strays if (_value(store, each) or "").casefold() == person.casefold()]
    if not held and not left:
        raise ErasureRefused(f"nobody here is called {person!r}; `zegel person list` shows everybody")
    found = [
        commitment
        for logged in evidence.entries
        if people_in(logged.entry) & held
        for commitment in commitments_in(logged.entry)
    ]
    return left + found


def _fields(evidence: Evidence) -> dict[str, str]:
    fields: dict[str, str] = {}
    for logged in evidence.entries:
        fields |= commitments_in(logged.entry)
    return fields


def _value(store: Disclosures, commitment: str) -> str | None:
    found = store.get(commitment)
    return None if found is None else found.value
