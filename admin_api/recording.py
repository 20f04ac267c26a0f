"""Writing to the log what people sign: judged against the log it is appended to, and nothing in between.

The log is read, the entries are built and judged as the verifier will judge them (`audit.certification.admit`), and
appended only if the log has not grown meanwhile. If it has, everything is done again on the new log, so two commands
at once act one after the other: of two that certify, the second finds the first's entry and is told.

Personal values that the entries commit to are stored beside the log before the append, and taken away again when the
log refuses. A machine that stops in between leaves a value that no entry knows; `zegel audit check` names it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from admin_api.signing import Signer
from audit.canonical import format_time
from audit.certification import admit
from audit.disclosure import REASON, Disclosure
from audit.entry import Entry
from audit.errors import LogConflictError, LogError
from audit.evidence import Evidence
from audit.statement import SignedStatement
from jobs.home import ConsortiumHome

ATTEMPTS = 10  # a run appends a few entries a minute; a reader is not overtaken ten times


def read_evidence(home: ConsortiumHome) -> Evidence:
    """The whole log as evidence. Raises AuditError when it does not hold together."""
    with home.log() as log:
        return Evidence(log.entries(), home.root())


def record_judged(
    home: ConsortiumHome, build: Callable[[Evidence], Sequence[Entry]], *, beside: Sequence[Disclosure | None] = ()
) -> Sequence[Entry]:
    """Append what `build` makes of the log, and sign the log.

    `build` may be called again when somebody else appended first; it must not act on anything but its argument.
    `beside` are the values that the entries commit to.
    Returns: the entries appended; none when `build` makes none. Raises: what `build` raises, AuditError for entries
        nobody would rely on, LogConflictError when others never stop appending; nothing was appended then.
    """
    for attempt in range(1, ATTEMPTS + 1):
        evidence = read_evidence(home)
        entries = build(evidence)
        if not entries:
            break
        admit(evidence, entries)
        try:
            _append(home, entries, beside, expected_size=evidence.size)
            break
        except LogConflictError:
            if attempt == ATTEMPTS:
                raise
    home.sign_checkpoint()
    return entries


def _append(
    home: ConsortiumHome,
    entries: Sequence[Entry],
    beside: Sequence[Disclosure | None],
    *,
    expected_size: int,
) -> None:
    """Store values beside the log and append the entries that commit to them. Raises LogError; nothing is left then."""
    store = home.disclosures()
    values = [each for each in beside if each is not None]
    for each in values:
        store.put(each)
    try:
        with home.log() as log:
            log.append(entries, expected_size=expected_size)
    except LogError:
        for each in values:
            store.erase(each.commitment)
        raise


def reason_of(text: str, signer: Signer) -> Disclosure | None:
    """What a signer wrote, to be committed to; None when it is empty. Raises DisclosureError for unprintable text."""
    return Disclosure.made(REASON, text.strip(), signer.random_bytes) if text.strip() else None


def signed_by(home: ConsortiumHome, signer: Signer, statement_type: str, fields: Mapping[str, Any]) -> SignedStatement:
    """A statement of this consortium, dated now, signed. An act asks for one, and writes nothing before it has it."""
    statement = {
        "type": statement_type,
        "consortium": home.config().name,
        "time": format_time(signer.now(home.clock)),
        **fields,
    }
    return signer.sign(statement)


def in_own_name(signer: Signer) -> dict[str, str]:
    """The fields by which a person names themself in a statement; the name is the person id."""
    identity = signer.identity
    return {"name": identity.name, "organisation": identity.organisation, "role": identity.role}
