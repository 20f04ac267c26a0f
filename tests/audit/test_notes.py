"""Release notes: read as people write them, refused with the place that is wrong."""

from __future__ import annotations

import json
from typing import Any

import pytest

from audit.documents.notes import MAX_NOTES_SIZE, ReleaseNotes, notes_template
from audit.errors import DocumentError
from tests.audit.documented import NOTES_OF_2027


def test_notes_survive_the_way_through_bytes() -> None:
    assert ReleaseNotes.from_bytes(NOTES_OF_2027.to_bytes()) == NOTES_OF_2027


def test_notes_may_be_written_with_any_spacing() -> None:
    text = json.dumps(NOTES_OF_2027.to_json(), indent=4)
    assert ReleaseNotes.from_text(text.encode()) == NOTES_OF_2027
    with pytest.raises(DocumentError, match="canonical form"):
        ReleaseNotes.from_bytes(text.encode())


def test_the_template_is_refused_until_it_is_filled_in() -> None:
    template = json.loads(notes_template())
    with pytest.raises(DocumentError, match=r"still holds the template's text '<.*replace it"):
        ReleaseNotes.from_text(notes_template().encode())
    filled = json.loads(notes_template().replace("<", "").replace(">", "")) | {"expires": "2027-12-31"}
    assert set(template) == set(NOTES_OF_2027.to_json())
    assert ReleaseNotes.from_text(json.dumps(filled).encode()).expires.year == 2027


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("schema", "zegel/release-notes/v2", r"release notes\.schema: expected zegel/release-notes/v1"),
        ("title", "", r"release notes\.title: expected printable text"),
        ("title", "two\nlines", r"release notes\.title: expected printable text"),
        ("intended_use", "<what it is for>", r"release notes\.intended_use: still holds the template's text"),
        ("users", "coders", r"release notes\.users: expected a list"),
        ("users", [""], r"release notes\.users\[0\]: expected printable text"),
        ("known_failures", [{"what": "x"}], r"release notes\.known_failures\[0\]: missing advice"),
        ("drift_triggers", [{}], r"release notes\.drift_triggers\[0\]: missing action, limit, measure"),
        ("expires", "31-12-2027", r"release notes\.expires: expected a day such as 2027-12-31"),
        ("expires", "2027-02-30", r"release notes\.expires: expected a day such as 2027-12-31"),
        ("expires", None, r"release notes\.expires: expected a day such as 2027-12-31"),
        ("rollback", 3, r"release notes\.rollback: expected printable text"),
        ("coder_agreement", {"share": 2}, r"release notes\.coder_agreement: missing"),
    ],
)
def test_what_is_wrong_is_named(field: str, value: Any, message: str) -> None:
    notes = NOTES_OF_2027.to_json() | {field: value}
    with pytest.raises(DocumentError, match=message):
        ReleaseNotes.from_text(json.dumps(notes).encode())


def test_small_counts_of_coded_twice_admissions_are_refused() -> None:
    notes = NOTES_OF_2027.to_json()
    notes["coder_agreement"] |= {"admissions": 9}
    with pytest.raises(DocumentError, match=r"admissions: expected an integer of at least 10"):
        ReleaseNotes.from_text(json.dumps(notes).encode())


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\xff", "not JSON in UTF-8"),
        (b"[]", "expected a JSON object"),
        (b"{", "not JSON in UTF-8"),
        (b'{"a": 1, "a": 2}', "the same key twice"),
        (b'{"more": 1}', "missing"),
        (b" " * (MAX_NOTES_SIZE + 1), "expected at most"),
        (b"[" * 100_000, "not JSON in UTF-8"),
    ],
)
def test_other_files_are_refused(data: bytes, message: str) -> None:
    with pytest.raises(DocumentError, match=message):
        ReleaseNotes.from_text(data)
    with pytest.raises(DocumentError):
        ReleaseNotes.from_bytes(data)
