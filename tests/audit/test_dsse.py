"""DSSE envelopes: made here, verified by securesystemslib; refused after any change."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from audit.canonical import canonical_json
from audit.dsse import Envelope, Signature, pae, sign_envelope
from audit.errors import DocumentError
from audit.signatures import sign_bytes
from tests.audit.other_tools import verified_payload
from tests.passkey import SoftwarePasskey

if TYPE_CHECKING:
    from tests.audit.conftest import Keys
else:
    Keys = object

TYPE = "application/vnd.in-toto+json"
PAYLOAD = b'{"hello":"world"}'


def envelope(keys: Keys, *who: str) -> Envelope:
    holders = [keys.holders[each] for each in who]
    return Envelope(TYPE, PAYLOAD, tuple(sign_envelope(TYPE, PAYLOAD, each.key, each.certificate) for each in holders))


def test_the_specification_s_example() -> None:
    assert pae("http://example.com/HelloWorld", b"hello world") == (
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )


def test_lengths_are_of_bytes() -> None:
    assert pae("é", "é".encode()) == b"DSSEv1 2 \xc3\xa9 2 \xc3\xa9"


@pytest.mark.parametrize("who", [("Bob",), ("Bob", "Carol"), ("Bob", "log")])
def test_another_library_verifies_it(keys: Keys, who: tuple[str, ...]) -> None:
    signers = {keys.holders[each].digest: keys.holders[each].certificate for each in who}
    assert verified_payload(envelope(keys, *who).to_bytes(), signers) == PAYLOAD


def test_ours_verifies_all_kinds_of_key(keys: Keys) -> None:
    ours = Envelope.from_bytes(envelope(keys, "Bob", "log", "hospital-a").to_bytes())
    certificates = {each.digest: each.certificate for each in keys.holders.values()}
    assert [c.subject for c in ours.verify(certificates)] == [
        keys.holders[each].certificate.subject for each in ("Bob", "log", "hospital-a")
    ]


def test_a_key_that_is_not_the_certificate_s(keys: Keys) -> None:
    with pytest.raises(DocumentError, match="does not belong to the certificate"):
        sign_envelope(TYPE, PAYLOAD, keys.holders["Bob"].key, keys.holders["Carol"].certificate)


def test_a_passkey_signs_no_envelope(keys: Keys) -> None:
    """Not even when somebody has its private key: its certificate says that only assertions count."""
    passkey = SoftwarePasskey()
    holder = keys.person("Pia", "Hospital A", "privacy_officer", key=passkey)
    with pytest.raises(DocumentError, match="is a passkey's, which signs no envelopes"):
        sign_envelope(TYPE, PAYLOAD, passkey.key, holder.certificate)
    forged = Envelope(TYPE, PAYLOAD, (Signature(holder.digest, sign_bytes(passkey.key, pae(TYPE, PAYLOAD))),))
    with pytest.raises(DocumentError, match="is a passkey's, which signs no envelopes"):
        forged.verify({holder.digest: holder.certificate})


def test_an_unknown_certificate(keys: Keys) -> None:
    with pytest.raises(DocumentError, match=r"signed with certificate sha256:.*not known here"):
        envelope(keys, "Bob").verify({})


def _payload(value: dict[str, Any]) -> None:
    value["payload"] = "e30="


def _type(value: dict[str, Any]) -> None:
    value["payloadType"] = "text/plain"


def _swapped(value: dict[str, Any]) -> None:
    one, two = value["signatures"]
    one["sig"], two["sig"] = two["sig"], one["sig"]


@pytest.mark.parametrize("change", [_payload, _type, _swapped])
def test_a_change_is_noticed(keys: Keys, change: Callable[[dict[str, Any]], None]) -> None:
    value = envelope(keys, "Bob", "Carol").to_json()
    change(value)
    certificates = {each.digest: each.certificate for each in keys.holders.values()}
    with pytest.raises(DocumentError, match="does not fit these bytes"):
        Envelope.from_bytes(canonical_json(value)).verify(certificates)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"signatures": []}, "expected signatures, one per certificate"),
        ({"signatures": [{"keyid": "x", "sig": "AA=="}]}, "expected sha256"),
        ({"payload": "??"}, "base64"),
        ({"more": 1}, "unknown field more"),
    ],
)
def test_other_forms_are_refused(keys: Keys, change: dict[str, Any], message: str) -> None:
    with pytest.raises(DocumentError, match=message):
        Envelope.from_bytes(canonical_json(envelope(keys, "Bob").to_json() | change))


def test_one_signature_per_certificate(keys: Keys) -> None:
    with pytest.raises(DocumentError, match="one per certificate"):
        Envelope.from_bytes(envelope(keys, "Bob", "Bob").to_bytes())
