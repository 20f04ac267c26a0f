"""Cosignatures, the policy that counts them, and the enrolment that says whose they are."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from audit.canonical import decode_base64, encode_base64
from audit.checkpoint import open_checkpoint
from audit.cosignature import add_signatures, cosign, verify_cosignature, witness_key
from audit.enrolment import enrolled_key, enrolment_statement, enrolments, witness_policy
from audit.errors import AuditError, CosignatureError, NoteError, TraceError
from audit.note import COSIGNATURE, NoteSignature, VerifierKey, parse_note, verify_note
from audit.witness_policy import WitnessPolicy, check_cosignatures, cosignatures_of
from tests.audit.memory_log import VKEY, MemoryLog, entries

if TYPE_CHECKING:
    from tests.audit.conftest import Story
else:
    Story = object

AT = datetime(2026, 11, 22, 5, 0, 0, tzinfo=UTC)
KEYS = [Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32) for number in range(1, 6)]
NAMES = [f"hospital-{letter}.example/w" for letter in "abcde"]
WITNESSES = tuple(witness_key(name, key) for name, key in zip(NAMES, KEYS, strict=True))
CHECKPOINT = MemoryLog(entries(7)).checkpoint()
TEXT = parse_note(CHECKPOINT).text


def by(*numbers: int, at: datetime = AT, text: str = TEXT) -> list[NoteSignature]:
    return [cosign(text, NAMES[number], KEYS[number], at) for number in numbers]


# -- a checkpoint of a public log, cosigned by others' witnesses

PUBLISHED = (Path(__file__).parent / "vectors" / "witnessed_checkpoint.txt").read_bytes()
PUBLISHED_WITNESSES = [
    VerifierKey.parse(text, COSIGNATURE)
    for text in (
        "remora.n621.de+da77ade7+BOvN63jn/bLvkieywe8R6UYAtVtNbZpXh34x7onlmtw2",
        "witness.stagemole.eu+67f7aea0+BEqSG3yu9YrmcM3BHvQYTxwFj3uSWakQepafafpUqklv",
        "transparency.dev/DEV:witness-little-garden+d8042a87+BCtusOxINQNUTN5Oj8HObRkh2yHf/MwYaGX4CPdiVEPM",
    )
]
PUBLISHED_LOG = VerifierKey.parse(
    "arche2025h1.staging.ct.transparency.dev+ba2f06c0+AU0vHmlGCS/PdN8b2OaGmKprLI8HKM+dJ472xgFYh15f"
)


def test_a_published_checkpoint_verifies() -> None:
    """Its log signs twice, once in a form we do not know; four witnesses cosigned, the keys of three are at hand."""
    checkpoint = open_checkpoint(PUBLISHED, PUBLISHED_LOG)
    assert checkpoint.size == 1_432_088_532
    found = cosignatures_of(PUBLISHED, PUBLISHED_WITNESSES)
    assert [each.key for each in found] == PUBLISHED_WITNESSES
    assert {each.time for each in found} == {datetime.fromtimestamp(0x6A122120, UTC)}
    assert parse_note(PUBLISHED).to_bytes() == PUBLISHED
    changed = PUBLISHED.replace(b"1432088532", b"1432088533")
    for key in PUBLISHED_WITNESSES:
        with pytest.raises(CosignatureError, match="does not fit"):
            cosignatures_of(changed, [key])


# -- signing


def test_signing_and_verifying() -> None:
    (line,) = by(0)
    assert len(line.signature) == 72
    assert line.signature[:8] == int(AT.timestamp()).to_bytes(8, "big")
    assert verify_cosignature(TEXT, line, WITNESSES[0]).time == AT
    note = add_signatures(CHECKPOINT, [line])
    assert note == CHECKPOINT + line.to_line()
    assert NoteSignature.parse_lines(line.to_line()) == (line,)
    assert verify_note(note, VKEY) == TEXT
    assert str(WITNESSES[0]) == f"{NAMES[0]}+{WITNESSES[0].key_id.hex()}+" + encode_base64(
        b"\4" + KEYS[0].public_key().public_bytes_raw()
    )
    assert VerifierKey.parse(str(WITNESSES[0]), COSIGNATURE) == WITNESSES[0]


def test_fractions_of_a_second_and_zones_do_not_matter() -> None:
    elsewhere = AT.astimezone().replace(microsecond=999_999)
    assert by(0, at=elsewhere) == by(0)


def test_times_that_cannot_be_signed() -> None:
    with pytest.raises(CosignatureError, match="no time zone"):
        by(0, at=datetime(2026, 11, 22))
    with pytest.raises(CosignatureError, match="after 1970"):
        by(0, at=datetime(1969, 12, 31, tzinfo=UTC))


def test_every_changed_bit_is_noticed() -> None:
    (line,) = by(0)
    for position in range(len(line.signature)):
        data = bytearray(line.signature)
        data[position] ^= 1
        with pytest.raises(CosignatureError):
            verify_cosignature(TEXT, NoteSignature(line.name, line.key_id, bytes(data)), WITNESSES[0])


def test_the_two_kinds_of_signature_do_not_pass_as_each_other() -> None:
    """One Ed25519 key, used as a log's and as a witness's."""
    as_log, as_witness = VerifierKey.of(NAMES[0], KEYS[0]), WITNESSES[0]
    assert as_log.key_id != as_witness.key_id
    with pytest.raises(NoteError, match="expected type 4"):
        VerifierKey.parse(str(as_log), COSIGNATURE)
    with pytest.raises(NoteError, match="expected type 1"):
        VerifierKey.parse(str(as_witness))
    with pytest.raises(NoteError, match="unknown signature type 2"):
        VerifierKey(NAMES[0], bytes(32), 2)
    with pytest.raises(NoteError, match="a witness's key"):
        verify_note(CHECKPOINT, as_witness)
    (line,) = by(0)
    with pytest.raises(CosignatureError, match=r"expected a witness's key \(type 4\), got type 1"):
        verify_cosignature(TEXT, line, as_log)
    plain = NoteSignature(NAMES[0], as_witness.key_id, KEYS[0].sign(TEXT.encode()))
    with pytest.raises(CosignatureError, match="expected 72 bytes"):
        verify_cosignature(TEXT, plain, as_witness)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda line: NoteSignature(NAMES[1], line.key_id, line.signature), "got a line of hospital-b"),
        (lambda line: NoteSignature(line.name, bytes(4), line.signature), "key id 00000000"),
        (lambda line: NoteSignature(line.name, line.key_id, line.signature[:-1]), "expected 72 bytes"),
        (lambda line: NoteSignature(line.name, line.key_id, b"\xff" * 8 + line.signature[8:]), "no time we know"),
    ],
)
def test_lines_that_are_not_the_witness_s(spoil: Callable[[NoteSignature], NoteSignature], message: str) -> None:
    with pytest.raises(CosignatureError, match=message):
        verify_cosignature(TEXT, spoil(by(0)[0]), WITNESSES[0])


def test_adding_signatures_loses_and_doubles_nothing() -> None:
    note = add_signatures(CHECKPOINT, by(0, 1))
    assert (
        add_signatures(note, by(1, 2, at=AT + timedelta(hours=1)))
        == add_signatures(CHECKPOINT, by(0, 1)) + by(2, at=AT + timedelta(hours=1))[0].to_line()
    )
    assert add_signatures(note, []) == note
    crowd = [cosign(TEXT, f"w{number}", KEYS[0], AT) for number in range(100)]
    with pytest.raises(NoteError, match="at most 100 signatures"):
        add_signatures(CHECKPOINT, crowd)


# -- the policy


def test_enough_witnesses() -> None:
    policy = WitnessPolicy(2, WITNESSES[:3])
    note = add_signatures(CHECKPOINT, by(2, 0, 4))
    found = check_cosignatures(note, policy, AT)
    assert [each.key for each in found] == [WITNESSES[0], WITNESSES[2]]
    assert check_cosignatures(CHECKPOINT, WitnessPolicy(0, ()), AT) == ()


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], r"at least 2 of 3 witnesses, got 0; missing: hospital-a\S+, hospital-b\S+, hospital-c\S+"),
        (by(0), r"got 1; missing: hospital-b\S+, hospital-c"),
        (by(0) * 3, "got 1"),
        ([*by(0), *by(0, at=AT + timedelta(seconds=9))], "got 1"),
        (by(0, 3, 4), "got 1"),
        (by(0) + by(1, at=AT + timedelta(minutes=6)), r"got 1; .*hospital-b\S* is dated 2026-11-22T05:06:00Z, after"),
    ],
    ids=["none", "one", "one thrice", "one at two times", "strangers", "from the future"],
)
def test_too_few_witnesses(lines: list[NoteSignature], message: str) -> None:
    note = parse_note(CHECKPOINT)
    data = type(note)(note.text, (*note.signatures, *lines)).to_bytes()
    with pytest.raises(CosignatureError, match=message):
        check_cosignatures(data, WitnessPolicy(2, WITNESSES[:3]), AT)


def test_a_clock_may_be_a_little_fast() -> None:
    note = add_signatures(CHECKPOINT, by(0, at=AT + timedelta(minutes=5)))
    assert len(check_cosignatures(note, WitnessPolicy(1, WITNESSES), AT)) == 1


def test_a_wrong_signature_of_a_known_witness_spoils_the_note() -> None:
    """It is not merely missing: somebody forged or damaged it, even where enough others signed."""
    other = MemoryLog(entries(8)).checkpoint()
    note = add_signatures(CHECKPOINT, [*by(0, 1), *by(2, text=parse_note(other).text)])
    with pytest.raises(CosignatureError, match="hospital-c"):
        check_cosignatures(note, WitnessPolicy(2, WITNESSES[:3]), AT)
    # The second line of a key counts as little as the first when it is wrong.
    good, bad = by(0)[0], by(0, text=parse_note(other).text)[0]
    parsed = parse_note(CHECKPOINT)
    for lines in ((good, bad), (bad, good)):
        with pytest.raises(CosignatureError, match="hospital-a"):
            cosignatures_of(type(parsed)(parsed.text, (*parsed.signatures, *lines)).to_bytes(), WITNESSES)


@pytest.mark.parametrize(
    ("threshold", "witnesses", "message"),
    [
        (1, (), "threshold from 0 to the number of witnesses, 0"),
        (4, WITNESSES[:3], "got 4"),
        (-1, WITNESSES, "got -1"),
        (True, WITNESSES, "got True"),
        (1, (VKEY,), "expected a witness's key"),
        (2, (WITNESSES[0], witness_key("another.name", KEYS[0])), "two witnesses hold the same key"),
    ],
)
def test_policies_that_make_no_sense(threshold: int, witnesses: tuple[VerifierKey, ...], message: str) -> None:
    with pytest.raises(CosignatureError, match=message):
        WitnessPolicy(threshold, witnesses)


def test_policies_in_json_and_as_others_write_them() -> None:
    policy = WitnessPolicy(2, WITNESSES[:3])
    assert WitnessPolicy.from_json(policy.to_json()) == policy
    assert policy.to_text(VKEY) == (
        f"log {VKEY}\nwitness w1 {WITNESSES[0]}\nwitness w2 {WITNESSES[1]}\nwitness w3 {WITNESSES[2]}\n"
        "group witnesses 2 w1 w2 w3\nquorum witnesses\n"
    )
    assert WitnessPolicy(0, ()).to_text(VKEY) == f"log {VKEY}\nquorum none\n"
    for broken in (
        None,
        {},
        {"threshold": 1},
        {"threshold": 1, "witnesses": "x"},
        {"threshold": 1, "witnesses": [1]},
        {"threshold": 1, "witnesses": ["x"]},
        {"threshold": 1, "witnesses": [str(VKEY)]},
        {"threshold": "1", "witnesses": [str(WITNESSES[0])]},
        {"threshold": 1, "witnesses": [str(WITNESSES[0])], "more": 1},
    ):
        with pytest.raises(CosignatureError):
            WitnessPolicy.from_json(broken)


# -- enrolment


def enrol(
    story: Story, signer: str, number: int, *, change: Callable[[dict[str, Any]], None] | None = None, **body: Any
) -> None:
    """An entry that enrols witness `number`, signed by `signer`; `change` spoils the statement before it is signed."""
    from audit.certificates import identity_of
    from tests.audit.conftest import NAME

    organisation = identity_of(story.keys.holders[signer].certificate).organisation
    statement = enrolment_statement(NAME, NAMES[number], organisation, KEYS[number], story.now)
    if change is not None:
        change(statement)
    fields = {name: value for name, value in statement.items() if name not in ("type", "consortium", "time")}
    signed = story.sign("witness-enrolment", signer, **fields)
    story.add("witness.enrolled", **({"witness": NAMES[number], "enrolment": signed} | body))


def test_enrolments(story: Story) -> None:
    story.found()
    enrol(story, "hospital-a", 0)
    enrol(story, "hospital-b", 1)
    first, second = enrolments(story.evidence())
    assert (first.name, first.organisation, first.key) == (NAMES[0], "hospital_a", WITNESSES[0])
    assert first.index == len(story.entries) - 2
    assert first.certificate == story.keys.holders["hospital-a"].digest
    assert witness_policy((first, second), 2) == WitnessPolicy(2, WITNESSES[:2])
    with pytest.raises(CosignatureError, match="got 3"):
        witness_policy((first, second), 3)
    enrol(story, "hospital-a", 2)  # its first witness lost its memory
    assert witness_policy(enrolments(story.evidence()), 2) == WitnessPolicy(2, (WITNESSES[2], WITNESSES[1]))
    enrol(story, "hospital-a", 0)  # and found it again
    assert witness_policy(enrolments(story.evidence()), 2) == WitnessPolicy(2, WITNESSES[:2])


def test_an_enrolment_made_by_hand_is_the_statement_s(story: Story) -> None:
    statement = enrolment_statement("Zegel Demo", NAMES[0], "hospital_a", KEYS[0], AT)
    assert statement["time"] == "2026-11-22T05:00:00Z"
    assert enrolled_key(statement) == WITNESSES[0]


def other_possession(statement: dict[str, Any]) -> None:
    data = bytearray(decode_base64(statement["possession"]))
    data[0] ^= 1
    statement["possession"] = encode_base64(bytes(data))


@pytest.mark.parametrize(
    ("signer", "change", "body", "message"),
    [
        ("Bob", None, {}, "expected role authority or client"),
        ("log", None, {}, "was never announced|not known here|expected role"),
        ("hospital-a", lambda s: s.update(organisation="Hospital B"), {}, "organisation: expected hospital_a"),
        ("hospital-a", None, {"witness": "another.name"}, "witness: expected another.name"),
        ("hospital-a", lambda s: s.update(vkey=str(VKEY)), {}, "expected type 4"),
        ("hospital-a", lambda s: s.update(vkey=str(WITNESSES[1])), {}, "expected a key named hospital-a"),
        ("hospital-a", other_possession, {}, "did not sign"),
        ("hospital-a", lambda s: s.update(possession="%"), {}, "not standard base64"),
        ("hospital-a", lambda s: s.update(further="field"), {}, "did not sign"),
    ],
)
def test_enrolments_that_do_not_count(
    story: Story, signer: str, change: Callable[[dict[str, Any]], None] | None, body: dict[str, Any], message: str
) -> None:
    story.found()
    enrol(story, signer, 0, change=change, **body)
    with pytest.raises(TraceError, match=message) as caught:
        enrolments(story.evidence())
    assert f"entry {len(story.entries) - 1} (witness.enrolled)" in str(caught.value)


def test_nobody_enrols_another_s_key(story: Story) -> None:
    """The key's owner would have to sign; and even then one key counts for one organisation."""
    story.found()
    enrol(story, "hospital-a", 0)
    enrol(story, "hospital-b", 0)
    with pytest.raises(TraceError, match="already enrolled by another organisation"):
        enrolments(story.evidence())


@pytest.mark.parametrize("field", ["name", "organisation", "vkey", "possession"])
def test_an_enrolment_without_a_field_is_no_entry(story: Story, field: str) -> None:
    def without(statement: dict[str, Any]) -> None:
        del statement[field]

    with pytest.raises(AuditError, match=f"missing {field}"):
        enrol(story, "hospital-a", 0, change=without)
