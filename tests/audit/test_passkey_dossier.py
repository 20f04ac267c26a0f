"""A release that people approved with passkeys: its dossier verifies offline; a cheating log keeper is found out."""

from __future__ import annotations

import base64
import hashlib
import json
import random
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from audit.canonical import decode_base64, encode_base64
from audit.entry import APPROVAL_GIVEN, Entry
from audit.errors import TraceError
from audit.trace import trace_release
from audit.verify import verify_dossier
from audit.wording import trace_tree
from tests.passkey import ED25519, P256, SoftwarePasskey

if TYPE_CHECKING:
    from pathlib import Path

    from audit.evidence import Evidence
    from tests.audit.conftest import Keys, Story
else:
    Evidence = Keys = Path = Story = object


@pytest.fixture(scope="module")
def passkeys(keys: Keys) -> Keys:
    """The same consortium; its people sign with passkeys."""
    holders = dict(keys.holders)
    own = replace(keys, holders=holders, names=dict(keys.names))
    holders["Ada"] = own.person("Ada", "Consortium", "consortium_admin", key=SoftwarePasskey(algorithm=ED25519))
    holders["Bob"] = own.person("Bob", "Hospital A", "privacy_officer", key=SoftwarePasskey(algorithm=P256))
    holders["Carol"] = own.person("Carol", "Statistics", "release_manager", key=SoftwarePasskey(algorithm=ED25519))
    return own


@pytest.fixture(scope="module")
def signed_by_passkeys(passkeys: Keys, told: Story) -> Story:
    return type(told)(passkeys).tell()


def test_the_dossier_verifies(signed_by_passkeys: Story, tmp_path: Path) -> None:
    story = signed_by_passkeys
    data = story.dossier(tmp_path)
    report = verify_dossier(data, story.keys.root_pem, now=story.now)
    assert sorted(each.approver.role for each in report.trace.approvals) == ["privacy_officer", "release_manager"]
    assert {each.relying_party for each in report.trace.approvals} == {"consortium.example"}
    assert ", by passkey for consortium.example, " in "".join(trace_tree(report.trace).lines())
    for entry in story.entries:
        if entry.kind == APPROVAL_GIVEN:
            assert set(entry.body["approval"]["passkey"]) == {"authenticator_data", "client_data"}


def test_a_third_party_checks_it_by_the_documentation(signed_by_passkeys: Story) -> None:
    """docs/audit.md, Passkeys, with nothing of ours but the entry's bytes and the certificate."""
    keys = signed_by_passkeys.keys
    for entry in signed_by_passkeys.entries:
        if entry.kind != APPROVAL_GIVEN:
            continue
        signed = json.loads(entry.to_bytes())["body"]["approval"]
        text = json.dumps(signed["statement"], sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        challenge = hashlib.sha256(b"zegel statement v1\n" + text.encode()).digest()
        client_data, authenticator_data, signature = (
            base64.b64decode(value)
            for value in (
                signed["passkey"]["client_data"],
                signed["passkey"]["authenticator_data"],
                signed["signature"],
            )
        )
        said = json.loads(client_data)
        assert base64.urlsafe_b64decode(said["challenge"] + "=") == challenge
        assert (said["type"], said["origin"]) == ("webauthn.get", "https://consortium.example")
        assert authenticator_data[:32] == hashlib.sha256(b"consortium.example").digest()
        assert authenticator_data[32] & 0b101 == 0b101
        (holder,) = (each for each in keys.holders.values() if each.digest == signed["certificate"])
        key, made = holder.certificate.public_key(), authenticator_data + hashlib.sha256(client_data).digest()
        if isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(signature, made, ec.ECDSA(hashes.SHA256()))
        else:
            assert isinstance(key, ed25519.Ed25519PublicKey)
            key.verify(signature, made)


def test_everything_else_that_people_sign(signed_by_passkeys: Story) -> None:
    story = type(signed_by_passkeys)(signed_by_passkeys.keys).tell()
    story.audited()
    story.change_status("hospital-d", "suspended")
    story.withdraw()
    assert len(story.evidence().revocations.changes) == 1


def test_a_dossier_without_passkeys_has_the_bytes_it_had(told: Story) -> None:
    for entry in told.entries:
        assert b"passkey" not in entry.to_bytes()


def altered(entry: Entry, **changes: Any) -> Entry:
    signed = entry.body["approval"]
    return Entry(entry.kind, entry.time, {"approval": {**signed, **changes}})


def with_approval(story: Story, changed: Entry, position: int) -> Evidence:
    entries = [*story.entries[:position], changed, *story.entries[position + 1 :]]
    return type(story.evidence())(enumerate(entries), story.keys.root)


@pytest.mark.parametrize("part", ["signature", "authenticator_data", "client_data"])
def test_a_keeper_who_changes_a_byte_of_an_assertion(signed_by_passkeys: Story, part: str) -> None:
    story = signed_by_passkeys
    assert story.statement is not None
    generator = random.Random(part)  # noqa: S311
    for position, entry in enumerate(story.entries):
        if entry.kind != APPROVAL_GIVEN:
            continue
        signed = entry.body["approval"]
        content = decode_base64(signed[part] if part == "signature" else signed["passkey"][part])
        for at in generator.sample(range(len(content)), 5):
            spoiled = encode_base64(
                content[:at] + bytes([content[at] ^ 1 << generator.randrange(8)]) + content[at + 1 :]
            )
            changes = {part: spoiled} if part == "signature" else {"passkey": {**signed["passkey"], part: spoiled}}
            evidence = with_approval(story, altered(entry, **changes), position)
            with pytest.raises(TraceError, match=rf"entry {position} \(approval\): .* not signed by person-"):
                trace_release(evidence, story.statement.to_bytes(), story.artifacts)


def test_a_keeper_who_reuses_an_assertion_for_another_statement(signed_by_passkeys: Story) -> None:
    """What somebody signed about the plan does not become an approval of the release."""
    story = signed_by_passkeys
    assert story.statement is not None
    approvals = [(at, entry) for at, entry in enumerate(story.entries) if entry.kind == APPROVAL_GIVEN]
    bob = [(at, entry) for at, entry in approvals if entry.body["approval"]["statement"]["role"] == "privacy_officer"]
    (_, plan), (position, release) = bob
    reused = {field: plan.body["approval"][field] for field in ("signature", "passkey")}
    evidence = with_approval(story, altered(release, **reused), position)
    with pytest.raises(TraceError, match="client data: expected challenge"):
        trace_release(evidence, story.statement.to_bytes(), story.artifacts)


def test_a_keeper_who_takes_the_assertion_off(signed_by_passkeys: Story) -> None:
    story = signed_by_passkeys
    assert story.statement is not None
    position, entry = next((at, each) for at, each in enumerate(story.entries) if each.kind == APPROVAL_GIVEN)
    bare = {name: value for name, value in entry.body["approval"].items() if name != "passkey"}
    evidence = with_approval(story, Entry(entry.kind, entry.time, {"approval": bare}), position)
    with pytest.raises(TraceError, match=r"expected an assertion of person-.*'s passkey for consortium\.example"):
        trace_release(evidence, story.statement.to_bytes(), story.artifacts)
