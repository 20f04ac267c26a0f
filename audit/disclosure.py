"""Disclosures: personal values beside the log, of which the log holds only salted commitments.

A log cannot forget, so people's names and the free text of their reasons never enter it. The log, and whatever is
signed, holds

    sha256(b"zegel commitment v1\\n" + canonical JSON of {"field", "salt", "value"})

with a random salt of 16 bytes. Salt and value stand in a file beside the log and travel with a dossier. Whoever has
them sees that they open the commitment; once they are erased, the commitment says nothing, not even to somebody who
guesses the value, and every hash and signature over it still holds.

Invariants:
- Nothing that is proved depends on a value: people are told apart by their person id (`audit.certificates`).
- A value is shown only if it opens a commitment that an entry holds under the same field, and no entry erased it.
- One person has one name: two person ids of one organisation are never shown with the same name.

A `Disclosure` is personal data. Everything else here is public.
Source: GDPR articles 4(5) and 17; RFC 8785 (bytes).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from audit.canonical import canonical_json, decode_base64, digest_of, encode_base64, parse_json_object, shown
from audit.certificates import PERSON_ID
from audit.entry import (
    APPROVAL_GIVEN,
    CERTIFICATE_ISSUED,
    CERTIFICATE_STATUS_CHANGED,
    GATES_SET,
    RELEASE_SUPERSEDED,
    VALUE_ERASED,
    WITHDRAWAL_PROPOSED,
    Entry,
)
from audit.errors import CanonicalError, DisclosureError

PREFIX = b"zegel commitment v1\n"
SCHEMA = "zegel/disclosures/v1"
SALT_SIZE = 16  # bytes
MAX_VALUE_SIZE = 4096  # characters
NAME = "name"  # of a person
REASON = "reason"  # free text in a signed statement
FIELDS = (NAME, REASON)
ERASED = "[erased]"
WITHHELD = "[not disclosed]"

# Where an entry of a kind holds a signed statement with a reason.
_STATEMENTS: Mapping[str, str] = {
    APPROVAL_GIVEN: "approval",
    CERTIFICATE_STATUS_CHANGED: "revocation",
    GATES_SET: "gates",
    RELEASE_SUPERSEDED: "supersession",
    VALUE_ERASED: "erasure",
    WITHDRAWAL_PROPOSED: "withdrawal",
}
COMMITTING = (CERTIFICATE_ISSUED, *_STATEMENTS)  # the kinds of entries that hold commitments
_TOKEN = re.compile(rf"{PERSON_ID.pattern}|sha256:[0-9a-f]{{64}}", re.ASCII)


@dataclass(frozen=True)
class Disclosure:
    """A value with what is needed to see that it is the one committed to. Making one raises DisclosureError when it
    has no committed form.
    """

    field: str  # "name" or "reason"
    value: str  # printable text
    salt: bytes

    def __post_init__(self) -> None:
        if self.field not in FIELDS:
            raise DisclosureError(f"disclosure: expected the field {' or '.join(FIELDS)}, got {shown(self.field)}")
        if not self.value.strip() or not self.value.isprintable() or len(self.value) > MAX_VALUE_SIZE:
            raise DisclosureError(
                f"{self.field}: expected 1 to {MAX_VALUE_SIZE} printable characters on one line, "
                f"got {len(self.value)}: {shown(self.value)}"
            )
        if len(self.salt) != SALT_SIZE:
            raise DisclosureError(f"{self.field}: expected a salt of {SALT_SIZE} bytes, got {len(self.salt)}")

    @property
    def commitment(self) -> str:
        """What the log holds: `sha256:<hex>`."""
        return digest_of(PREFIX + canonical_json(self.to_json()))

    def to_json(self) -> dict[str, Any]:
        """The JSON form."""
        return {"field": self.field, "salt": encode_base64(self.salt), "value": self.value}

    @classmethod
    def from_json(cls, value: object) -> Disclosure:
        """Reads the JSON form; raises DisclosureError for anything else."""
        if not isinstance(value, Mapping) or set(value) != {"field", "salt", "value"}:
            raise DisclosureError("disclosure: expected exactly field, salt and value")
        if not isinstance(value["field"], str) or not isinstance(value["value"], str):
            raise DisclosureError("disclosure: expected text in field and value")
        try:
            return cls(value["field"], value["value"], decode_base64(value["salt"], "salt"))
        except CanonicalError as error:
            raise DisclosureError(f"disclosure: {error}") from error

    @classmethod
    def made(cls, field: str, value: str, random_bytes: Callable[[int], bytes]) -> Disclosure:
        """With a fresh salt; `random_bytes` gives that many bytes nobody can foresee."""
        return cls(field, value, random_bytes(SALT_SIZE))


def commitment_of(disclosure: Disclosure | None) -> str | None:
    """What a statement holds for a value, or for none."""
    return None if disclosure is None else disclosure.commitment


def commitments_in(entry: Entry) -> dict[str, str]:
    """The commitments an entry holds: field by commitment."""
    if entry.kind == CERTIFICATE_ISSUED:
        holder = entry.body["holder"]
        return {} if holder is None else {holder: NAME}
    within = _STATEMENTS.get(entry.kind)
    if within is None or entry.body[within] is None:  # a supersession by certification is nobody's word
        return {}
    reason = entry.body[within]["statement"]["reason"]
    return {} if reason is None else {reason: REASON}


def people_in(entry: Entry) -> set[str]:
    """Whom an entry that holds a commitment is about, or who signed it: digests of certificates."""
    if entry.kind == CERTIFICATE_ISSUED:
        return {entry.body["digest"]}
    within = _STATEMENTS.get(entry.kind)
    if within is None or entry.body[within] is None:
        return set()
    signed = entry.body[within]
    about = {entry.body["digest"]} if entry.kind == CERTIFICATE_STATUS_CHANGED else set()
    return about | {signed["certificate"]}


@dataclass(frozen=True)
class Disclosed:
    """What may be shown in place of person ids and commitments."""

    names: Mapping[str, str] = field(default_factory=dict)  # by person id
    values: Mapping[str, str] = field(default_factory=dict)  # by commitment
    erased: Mapping[str, int] = field(default_factory=dict)  # commitment to the entry that says so
    withheld: frozenset[str] = frozenset()  # commitments without a value that no entry erased

    def value(self, commitment: str | None) -> str:
        """What a commitment stands for, or why that is not told; empty for none."""
        if commitment is None:
            return ""
        return self.values.get(commitment) or (ERASED if commitment in self.erased else WITHHELD)

    def name(self, person: str) -> str:
        """A person's name where it is known, else the person id."""
        return self.names.get(person, person)

    def in_words(self, text: str) -> str:
        """`text` with names in place of person ids, and values in place of commitments."""
        return _TOKEN.sub(lambda match: self._word(match[0]), text)

    def _word(self, token: str) -> str:
        if token in self.values or token in self.erased or token in self.withheld:
            return self.value(token)
        return self.name(token)

    def to_json(self) -> dict[str, Any]:
        """For machines."""
        return {"names": dict(self.names), "values": dict(self.values), "erased": dict(self.erased)}


NOTHING_DISCLOSED = Disclosed()


def disclosed(entries: Iterable[tuple[int, Entry]], disclosures: Iterable[Disclosure]) -> Disclosed:
    """What `disclosures` say about the entries.

    Raises DisclosureError for a value that opens no commitment of these entries, one under another field, one that an
    entry erased, and for one name of two people.
    """
    fields: dict[str, str] = {}
    holders: dict[str, str] = {}  # commitments to names by person id
    organisations: dict[str, str] = {}
    erased: dict[str, int] = {}
    for index, entry in entries:
        fields |= commitments_in(entry)
        if entry.kind == CERTIFICATE_ISSUED and entry.body["holder"] is not None:
            holders[entry.body["name"]] = entry.body["holder"]
            organisations[entry.body["name"]] = entry.body["organisation"]
        elif entry.kind == VALUE_ERASED:
            erased[entry.body["commitment"]] = index
    values: dict[str, str] = {}
    for disclosure in disclosures:
        commitment = disclosure.commitment
        if fields.get(commitment) != disclosure.field:
            raise DisclosureError(
                f"disclosed {disclosure.field}: opens {commitment}, which no entry here holds for a {disclosure.field};"
                " value or salt is not the one committed to"
            )
        if commitment in erased:
            raise DisclosureError(
                f"disclosed {disclosure.field}: {commitment} was erased in entry {erased[commitment]}; it must not be "
                "shown any more"
            )
        values[commitment] = disclosure.value
    names = {person: values[holder] for person, holder in holders.items() if holder in values}
    seen: dict[tuple[str, str], str] = {}
    for person, name in names.items():
        other = seen.setdefault((name.casefold(), organisations[person].casefold()), person)
        if other != person:
            raise DisclosureError(f"disclosed names: {person} and {other} are one person; a person has one id")
    return Disclosed(names, values, erased, frozenset(set(fields) - set(values) - set(erased)))


def pack_disclosures(disclosures: Iterable[Disclosure]) -> bytes:
    """The one spelling of a set of disclosures: canonical JSON, in the order of their commitments."""
    listed = sorted(disclosures, key=lambda each: each.commitment)
    return canonical_json({"schema": SCHEMA, "disclosures": [each.to_json() for each in listed]})


def unpack_disclosures(data: bytes) -> tuple[Disclosure, ...]:
    """Reads that spelling; raises DisclosureError for any other bytes."""
    try:
        value = parse_json_object(data, "disclosures")
    except CanonicalError as error:
        raise DisclosureError(str(error)) from error
    listed = value.get("disclosures")
    if not isinstance(listed, list):
        raise DisclosureError(f"disclosures: expected a list of disclosures, got {shown(listed)}")
    found = tuple(Disclosure.from_json(each) for each in listed)
    if len({each.commitment for each in found}) != len(found) or pack_disclosures(found) != data:
        raise DisclosureError(f"disclosures: expected schema {SCHEMA} and distinct values in the order of commitments")
    return found
