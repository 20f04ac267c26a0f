"""Disclosures: what is shown opens a commitment, and what was erased is gone while everything else holds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit.archive import pack, unpack
from audit.canonical import canonical_json, encode_base64
from audit.certificates import PERSON_ID, identity_of
from audit.certification import admit
from audit.disclosure import (
    ERASED,
    FIELDS,
    MAX_VALUE_SIZE,
    NAME,
    REASON,
    SALT_SIZE,
    WITHHELD,
    Disclosed,
    Disclosure,
    commitments_in,
    disclosed,
    pack_disclosures,
    unpack_disclosures,
)
from audit.disclosure_store import Disclosures
from audit.dossier import DISCLOSURES, MANIFEST, MANIFEST_SIGNATURE, manifest_note, manifest_of
from audit.entry import Entry
from audit.errors import AuditError, DisclosureError, DossierError, TraceError
from audit.note import sign_note
from audit.verify import Report, verify_dossier
from audit.wording import entry_words, trace_tree
from tests.audit.conftest import committed, pseudonym

if TYPE_CHECKING:
    from tests.audit.conftest import Keys, Story
else:
    Keys = Story = object

texts = st.text(st.characters(categories=("L", "N", "P", "Zs")), min_size=1, max_size=40).filter(
    lambda text: text.isprintable() and bool(text.strip())
)
made = st.builds(Disclosure, st.sampled_from(FIELDS), texts, st.binary(min_size=SALT_SIZE, max_size=SALT_SIZE))


def verified(story: Story, data: bytes) -> Report:
    return verify_dossier(data, story.keys.root_pem, now=story.now)


def resigned(story: Story, data: bytes, **members: bytes) -> bytes:
    """The dossier with other members and a manifest of the log's key, as its keeper could make it."""
    assert story.statement is not None
    changed = {**unpack(data), **{name.replace("_json", ".json"): content for name, content in members.items()}}
    changed[MANIFEST] = manifest_of(changed)
    origin = identity_of(story.keys.holders["log"].certificate).name
    note = manifest_note(story.statement.release, changed[MANIFEST])
    changed[MANIFEST_SIGNATURE] = sign_note(note, origin, story.log_key())
    return pack(changed)


@given(st.lists(made, max_size=5, unique_by=lambda each: each.commitment))
@settings(derandomize=True, max_examples=60, deadline=None)
def test_disclosures_come_back_as_they_were(values: list[Disclosure]) -> None:
    data = pack_disclosures(values)
    assert {each.commitment: each for each in unpack_disclosures(data)} == {each.commitment: each for each in values}
    assert pack_disclosures(reversed(values)) == data


@given(made, made)
@settings(derandomize=True, max_examples=60, deadline=None)
def test_a_commitment_is_of_one_value_field_and_salt(one: Disclosure, other: Disclosure) -> None:
    assert (one.commitment == other.commitment) == (one == other)
    for changed in (
        Disclosure(one.field, one.value + "x", one.salt),
        Disclosure(NAME if one.field == REASON else REASON, one.value, one.salt),
        Disclosure(one.field, one.value, bytes([one.salt[0] ^ 1]) + one.salt[1:]),
    ):
        assert changed.commitment != one.commitment


def test_salts_are_fresh() -> None:
    salts = iter([b"a" * SALT_SIZE, b"b" * SALT_SIZE])
    one, other = (Disclosure.made(NAME, "Ada", lambda size: next(salts)[:size]) for _ in range(2))
    assert one.commitment != other.commitment


@pytest.mark.parametrize(
    ("field", "value", "salt", "message"),
    [
        ("age", "x", b"s" * 16, "expected the field name or reason"),
        (NAME, "", b"s" * 16, "printable"),
        (NAME, "  ", b"s" * 16, "printable"),
        (REASON, "two\nlines", b"s" * 16, "printable"),
        (REASON, "x" * (MAX_VALUE_SIZE + 1), b"s" * 16, "printable"),
        (NAME, "Ada", b"s" * 15, "expected a salt of 16 bytes, got 15"),
    ],
)
def test_what_is_not_committed_to(field: str, value: str, salt: bytes, message: str) -> None:
    with pytest.raises(DisclosureError, match=message):
        Disclosure(field, value, salt)


GOOD = committed(NAME, "Ada").to_json()


@pytest.mark.parametrize(
    "value",
    [
        [],
        {"schema": "zegel/disclosures/v1", "disclosures": [GOOD, GOOD]},
        {"schema": "zegel/disclosures/v2", "disclosures": [GOOD]},
        {"schema": "zegel/disclosures/v1", "disclosures": {"0": GOOD}},
        {"schema": "zegel/disclosures/v1", "disclosures": [{**GOOD, "salt": 3}]},
        {"schema": "zegel/disclosures/v1", "disclosures": [{**GOOD, "value": None}]},
        {"schema": "zegel/disclosures/v1", "disclosures": [{**GOOD, "more": 1}]},
        {"schema": "zegel/disclosures/v1", "disclosures": [GOOD], "more": 1},
    ],
)
def test_other_spellings_are_refused(value: object) -> None:
    with pytest.raises(DisclosureError):
        unpack_disclosures(canonical_json(value))


def test_no_name_and_no_reason_is_in_the_log(whole: Story) -> None:
    data = b"".join(entry.to_bytes() for entry in whole.entries)
    written = [each.value for each in (*whole.keys.names.values(), *whole.reasons)]
    assert {"Ada", "Bob", "Carol", "lost", "as every year", "codes the dead as living"} <= set(written)
    for value in written:
        assert f'"{value}"'.encode() not in data
    held = {commitment for entry in whole.entries for commitment in commitments_in(entry)}
    assert held >= {each.commitment for each in whole.reasons}


def test_a_dossier_shows_names_and_reasons(told: Story, dossier: bytes) -> None:
    report = verified(told, dossier)
    assert report.disclosed.name(pseudonym("Bob")) == "Bob"
    shown = "\n".join(trace_tree(report.trace).said(report.disclosed).lines())
    assert "Bob (privacy_officer, Hospital A): approve" in shown
    assert not PERSON_ID.search(shown)
    members = unpack(dossier)
    assert [name for name, content in members.items() if b'"Bob"' in content or b">Bob<" in content] == [DISCLOSURES]


@pytest.mark.parametrize("kept", ["nothing", "all but Bob"])
def test_a_dossier_verifies_without_values(told: Story, dossier: bytes, kept: str) -> None:
    """Nothing that is proved rests on a value."""
    full = verified(told, dossier)
    left = [each for each in unpack_disclosures(unpack(dossier)[DISCLOSURES]) if kept != "nothing"]
    left = [each for each in left if each.value != "Bob"]
    report = verified(told, resigned(told, dossier, disclosures_json=pack_disclosures(left)))
    assert report.trace == full.trace
    assert report.disclosed.name(pseudonym("Bob")) == pseudonym("Bob")
    assert report.disclosed.value(told.keys.names[pseudonym("Bob")].commitment) == WITHHELD


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"value": "Eve"}, "which no entry here holds for a name"),
        ({"salt": encode_base64(bytes(16))}, "which no entry here holds for a name"),
        ({"field": "reason"}, "which no entry here holds for a reason"),
    ],
)
def test_a_changed_disclosure_is_refused(told: Story, dossier: bytes, change: dict[str, str], message: str) -> None:
    values = [each.to_json() for each in unpack_disclosures(unpack(dossier)[DISCLOSURES])]
    changed = [Disclosure.from_json({**each, **change} if each["value"] == "Bob" else each) for each in values]
    with pytest.raises(DossierError, match=rf"disclosures: disclosures\.json: .*{message}"):
        verified(told, resigned(told, dossier, disclosures_json=pack_disclosures(changed)))


def test_a_value_the_log_erased_is_refused(story: Story, tmp_path: Path) -> None:
    story.tell()
    bob = story.keys.names[pseudonym("Bob")]
    before = story.dossier(tmp_path)
    story.erase(bob.commitment)
    after = story.dossier(tmp_path)  # the file is still there, as after a crash; the dossier leaves it out
    assert b'"Bob"' not in unpack(after)[DISCLOSURES]
    assert verified(story, before).disclosed.name(pseudonym("Bob")) == "Bob"
    report = verified(story, after)
    assert report.disclosed.value(bob.commitment) == ERASED
    assert report.disclosed.name(pseudonym("Carol")) == "Carol"
    assert report.trace.approvals == verified(story, before).trace.approvals
    everything = pack_disclosures([*unpack_disclosures(unpack(after)[DISCLOSURES]), bob])
    with pytest.raises(DossierError, match=r"was erased in entry .*; it must not be shown any more"):
        verified(story, resigned(story, after, disclosures_json=everything))


@pytest.mark.parametrize(
    ("who", "times", "of", "message"),
    [
        ("Bob", 1, "Carol", "expected role consortium_admin"),
        ("Ada", 2, "Carol", "was erased already"),
        ("Ada", 1, "nobody", "no entry before it holds the commitment"),
    ],
)
def test_only_an_admin_erases_and_once(story: Story, who: str, times: int, of: str, message: str) -> None:
    story.tell()
    before = story.evidence()
    for _ in range(times):
        story.erase(committed(NAME, of).commitment, by=who)
    with pytest.raises(TraceError, match=message):
        admit(before, story.entries[before.size :])


def test_an_erasure_names_what_it_signs(story: Story) -> None:
    story.tell()
    before = story.evidence()
    story.hooks["signed erasure"] = lambda fields: fields.update(commitment=committed(NAME, "Bob").commitment)
    story.erase(committed(NAME, "Carol").commitment)
    with pytest.raises(TraceError, match="commitment: expected"):
        admit(before, story.entries[before.size :])


HOLDERS = [
    ("a person without one", "Bob", None, "expected a commitment to the name of a person"),
    ("a hospital with one", "hospital-a", committed(NAME, "x").commitment, "and of nobody else"),
    ("one for two people", "Carol", committed(NAME, "Bob").commitment, "as in an earlier certificate"),
]


@pytest.mark.parametrize(
    ("who", "holder", "message"), [case[1:] for case in HOLDERS], ids=[case[0] for case in HOLDERS]
)
def test_a_person_has_one_id_and_one_commitment(story: Story, who: str, holder: str | None, message: str) -> None:
    subject = identity_of(story.keys.holders[who].certificate).name
    story.hooks["certificate.issued"] = lambda body: body.update(holder=holder) if body["name"] == subject else None
    story.found()
    with pytest.raises(TraceError, match=message):
        story.evidence()


def test_two_ids_of_one_person_are_not_shown(keys: Keys, story: Story) -> None:
    """Somebody certified under two ids could approve what they propose themselves."""
    story.found()
    entries = list(enumerate(story.entries))
    issued = next(entry for entry in story.entries if entry.body.get("name") == pseudonym("Bob"))
    twice = committed(NAME, "BOB")
    again = Entry(issued.kind, issued.time, {**issued.body, "name": pseudonym("somebody"), "holder": twice.commitment})
    with pytest.raises(DisclosureError, match="are one person"):
        disclosed([*entries, (len(entries), again)], [keys.names[pseudonym("Bob")], twice])


def test_words(whole: Story) -> None:
    said = disclosed(enumerate(whole.entries), [keys for keys in whole.keys.names.values() if keys.value in "Ada Bob"])
    words = [entry_words(entry, said) for entry in whole.entries]
    assert any(line.startswith("Bob (privacy_officer, Hospital A) approved") for line in words)
    assert any(line.endswith(f"suspended: {ERASED}") for line in words)
    assert any(line.endswith(WITHHELD) for line in words)
    assert all(line.isprintable() for line in words)
    assert Disclosed().value(None) == ""


def test_the_store(tmp_path: Path) -> None:
    store = Disclosures(tmp_path / "disclosures")
    ada, bob = committed(NAME, "Ada"), committed(NAME, "Bob")
    assert list(store.commitments()) == []
    assert store.get(ada.commitment) is None
    for each in (ada, bob):
        store.put(each)
    assert store.get(ada.commitment) == ada
    assert sorted(store.commitments()) == sorted([ada.commitment, bob.commitment])
    assert store.erase(ada.commitment)
    assert not store.erase(ada.commitment)
    assert list(store.commitments()) == [bob.commitment]
    (file,) = (tmp_path / "disclosures").iterdir()
    assert file.stat().st_mode & 0o077 == 0
    for damaged in (canonical_json(ada.to_json()), b"{}", b""):
        file.write_bytes(damaged)
        with pytest.raises(DisclosureError, match="Restore the file from a backup, or remove it"):
            store.get(bob.commitment)


def test_erasing_overwrites(tmp_path: Path) -> None:
    """A second name of the file, as a snapshot would keep it, shows what was left in it."""
    store = Disclosures(tmp_path / "disclosures")
    ada = committed(NAME, "Ada Beheer")
    store.put(ada)
    (file,) = (tmp_path / "disclosures").iterdir()
    (tmp_path / "link").hardlink_to(file)
    store.erase(ada.commitment)
    assert set((tmp_path / "link").read_bytes()) == {0}


def test_every_refusal_is_ours() -> None:
    assert issubclass(DisclosureError, AuditError)
