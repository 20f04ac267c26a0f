"""Release notes: what people say about a release that no log can know.

Intended use and exclusions, the edition of ICD-10 and the coding rules, known failures, what counts as drift, what to
go back to, and until when the release may be used. The notes are written before the proposal, stored as an artifact,
and bound by the approvals through their digest.

All fields are public.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import date
from typing import Any

from audit import schema
from audit.canonical import canonical_json, parse_json_object, shown
from audit.errors import CanonicalError, DocumentError, EntryError

SCHEMA = "zegel/release-notes/v1"
MAX_NOTES_SIZE = 1 << 18  # bytes
_PLACEHOLDER = re.compile(r"<.*>", re.DOTALL)


@dataclass(frozen=True)
class KnownFailure:
    """Something the model is known to get wrong, and what to do about it."""

    what: str
    advice: str


@dataclass(frozen=True)
class DriftTrigger:
    """A measure, the limit beyond which it counts as drift, and what happens then."""

    measure: str
    limit: str
    action: str


@dataclass(frozen=True)
class CoderAgreement:
    """How often two human coders gave the same code to the same admissions: the mark a model is held against."""

    share: float  # 0..1
    lower: float | None  # of a 95% interval
    upper: float | None
    admissions: int  # coded twice; at least 10
    source: str


@dataclass(frozen=True, kw_only=True)
class ReleaseNotes:
    """What people say about a release."""

    title: str
    intended_use: str
    users: tuple[str, ...]
    exclusions: tuple[str, ...]
    icd_edition: str
    coding_rules: str
    language: str  # of the letters, BCP 47
    licence: str  # of the model: an SPDX identifier, or LicenseRef- and a name
    known_failures: tuple[KnownFailure, ...]
    drift_triggers: tuple[DriftTrigger, ...]
    rollback: str | None  # the release to go back to; None: back to coding without a model
    expires: date
    coder_agreement: CoderAgreement | None
    contact: str

    def to_json(self) -> dict[str, Any]:
        """The JSON object whose canonical bytes are the notes."""
        value = asdict(self)
        for field in ("users", "exclusions", "known_failures", "drift_triggers"):
            value[field] = list(value[field])
        return {"schema": SCHEMA, **value, "expires": self.expires.isoformat()}

    def to_bytes(self) -> bytes:
        """Canonical JSON."""
        return canonical_json(self.to_json())

    @classmethod
    def from_bytes(cls, data: bytes) -> ReleaseNotes:
        """Reads canonical bytes; raises DocumentError for any other form."""
        if len(data) > MAX_NOTES_SIZE:
            raise DocumentError(f"release notes: expected at most {MAX_NOTES_SIZE} bytes, got {len(data)}")
        try:
            return cls._from_json(parse_json_object(data, "release notes"))
        except CanonicalError as error:
            raise DocumentError(str(error)) from error

    @classmethod
    def from_text(cls, data: bytes) -> ReleaseNotes:
        """Reads notes as a person writes them: JSON with any spacing, key order and line breaks between values.

        Raises DocumentError naming the field, also for placeholders of the template that were not replaced.
        """
        if len(data) > MAX_NOTES_SIZE:
            raise DocumentError(f"release notes: expected at most {MAX_NOTES_SIZE} bytes, got {len(data)}")
        try:
            value = json.loads(data.decode("utf-8"), object_pairs_hook=_without_duplicates)
        except (ValueError, RecursionError) as error:
            raise DocumentError(f"release notes: not JSON in UTF-8: {error}") from error
        return cls._from_json(value)

    @classmethod
    def _from_json(cls, value: object) -> ReleaseNotes:
        try:
            _NOTES(value, "release notes")
        except EntryError as error:
            raise DocumentError(str(error)) from error
        assert isinstance(value, Mapping)  # noqa: S101 - _NOTES checked it; this tells the type checker
        _check_placeholders(value, "release notes")
        fields = {key: item for key, item in value.items() if key != "schema"}
        agreement = fields["coder_agreement"]
        return cls(
            **fields
            | {
                "users": tuple(fields["users"]),
                "exclusions": tuple(fields["exclusions"]),
                "known_failures": tuple(KnownFailure(**item) for item in fields["known_failures"]),
                "drift_triggers": tuple(DriftTrigger(**item) for item in fields["drift_triggers"]),
                "expires": date.fromisoformat(fields["expires"]),
                "coder_agreement": CoderAgreement(**agreement) if agreement is not None else None,
            }
        )


def notes_template() -> str:
    """Notes to fill in: every text between < and > is to be replaced; lists may grow, shrink or become empty."""
    template = {
        "schema": SCHEMA,
        "title": "<name of the model, as people will read it>",
        "intended_use": "<what the model may be used for, in one or two sentences>",
        "users": ["<who may use its output, such as: trained medical coders>"],
        "exclusions": ["<what it must not be used for, or which admissions it must not code>"],
        "icd_edition": "<such as: ICD-10 2019, Dutch translation 2021>",
        "coding_rules": "<which rules the coders follow, with their edition>",
        "language": "<language of the letters, such as: nl>",
        "licence": "<SPDX identifier of the model's licence, such as: Apache-2.0 or LicenseRef-Consortium>",
        "known_failures": [{"what": "<what goes wrong>", "advice": "<what a coder does about it>"}],
        "drift_triggers": [
            {
                "measure": "<what is watched>",
                "limit": "<from when on it is drift>",
                "action": "<what happens then, and who does it>",
            }
        ],
        "rollback": None,
        "expires": "<last day of use, such as: 2027-12-31>",
        "coder_agreement": None,
        "contact": "<where questions go>",
    }
    return json.dumps(template, indent=2, ensure_ascii=False) + "\n"


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("an object holds the same key twice")
    return result


def _check_placeholders(value: object, what: str) -> None:
    if isinstance(value, str) and _PLACEHOLDER.fullmatch(value.strip()):
        raise DocumentError(f"{what}: still holds the template's text {shown(value)}; replace it")
    if isinstance(value, Mapping):
        for key, item in value.items():
            _check_placeholders(item, f"{what}.{key}")
    elif isinstance(value, list):
        for position, item in enumerate(value):
            _check_placeholders(item, f"{what}[{position}]")


def _day(value: object, what: str) -> None:
    if isinstance(value, str) and _PLACEHOLDER.fullmatch(value.strip()):
        return  # told later, in words about the template
    try:
        if not isinstance(value, str) or date.fromisoformat(value).isoformat() != value:
            raise ValueError
    except ValueError:
        raise EntryError(f"{what}: expected a day such as 2027-12-31, got {shown(value)}") from None


_NOTES = schema.fields_of(
    {
        "schema": schema.one_of(SCHEMA),
        "title": schema.name,
        "intended_use": schema.name,
        "users": schema.list_of(schema.name),
        "exclusions": schema.list_of(schema.name),
        "icd_edition": schema.name,
        "coding_rules": schema.name,
        "language": schema.name,
        "licence": schema.name,
        "known_failures": schema.list_of(schema.fields_of({"what": schema.name, "advice": schema.name}, further=False)),
        "drift_triggers": schema.list_of(
            schema.fields_of({"measure": schema.name, "limit": schema.name, "action": schema.name}, further=False)
        ),
        "rollback": schema.nullable(schema.name),
        "expires": _day,
        "coder_agreement": schema.nullable(
            schema.fields_of(
                {
                    "share": schema.number(0, 1),
                    "lower": schema.nullable(schema.number(0, 1)),
                    "upper": schema.nullable(schema.number(0, 1)),
                    "admissions": schema.integer(schema.MIN_COUNT),
                    "source": schema.name,
                },
                further=False,
            )
        ),
        "contact": schema.name,
    },
    further=False,
)
