"""Passkey signatures: what a browser says is believed only where certificate and statement say the same."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given, settings
from hypothesis import strategies as st

from audit.errors import StatementError
from audit.passkey import (
    ATTESTED_KEY,
    BACKED_UP,
    EXTENSIONS,
    MAX_AUTHENTICATOR_DATA,
    MAX_CLIENT_DATA,
    USER_PRESENT,
    USER_VERIFIED,
    Assertion,
    challenge_for,
    verify_assertion,
)
from audit.statement import APPROVAL, SignedStatement, sign_statement, statement_bytes, verify_statement
from tests.passkey import ED25519, P256, SoftwarePasskey, base64url

if TYPE_CHECKING:
    from tests.audit.conftest import Holder, Keys
else:
    Holder = Keys = object

RP = "consortium.example"
DATA = b"what is signed"
CHALLENGE = challenge_for(DATA)
STATEMENT = {"type": APPROVAL, "consortium": "Zegel Demo", "time": "2026-11-22T06:00:00Z", "decision": "approve"}


@pytest.fixture(scope="module", params=[P256, ED25519])
def passkey(request: pytest.FixtureRequest) -> SoftwarePasskey:
    return SoftwarePasskey(RP, request.param)


def verified(passkey: SoftwarePasskey, signature: bytes, assertion: Assertion, **changes: Any) -> Any:
    arguments: dict[str, Any] = {"relying_party": RP, "challenge": CHALLENGE} | changes
    return verify_assertion(passkey.public_key, signature=signature, assertion=assertion, **arguments)


def test_the_challenge_is_the_digest_of_what_is_signed() -> None:
    assert challenge_for(DATA) == hashlib.sha256(DATA).digest()


def test_an_assertion_holds(passkey: SoftwarePasskey) -> None:
    before = passkey.sign_count
    state = verified(passkey, *passkey.assertion(CHALLENGE))
    assert (state.sign_count, state.backup_eligible, state.backed_up) == (before + 1, True, True)


def test_another_verifier_agrees(passkey: SoftwarePasskey) -> None:
    """py_webauthn shares no code with ours; what our authenticator makes is what it expects."""
    webauthn = pytest.importorskip("webauthn")
    signature, assertion = passkey.assertion(CHALLENGE)
    credential = {
        "id": base64url(passkey.credential_id),
        "rawId": base64url(passkey.credential_id),
        "type": "public-key",
        "response": {
            "clientDataJSON": base64url(assertion.client_data),
            "authenticatorData": base64url(assertion.authenticator_data),
            "signature": base64url(signature),
        },
    }
    agreed = webauthn.verify_authentication_response(
        credential=credential,
        expected_challenge=CHALLENGE,
        expected_rp_id=RP,
        expected_origin=f"https://{RP}",
        credential_public_key=passkey.cose,
        credential_current_sign_count=0,
        require_user_verification=True,
    )
    assert agreed.new_sign_count == passkey.sign_count
    client_data, attestation = passkey.register(CHALLENGE)
    registered = webauthn.verify_registration_response(
        credential={
            **credential,
            "response": {"clientDataJSON": base64url(client_data), "attestationObject": base64url(attestation)},
        },
        expected_challenge=CHALLENGE,
        expected_rp_id=RP,
        expected_origin=f"https://{RP}",
        require_user_verification=True,
    )
    assert registered.credential_public_key == passkey.cose


ALLOWED: list[tuple[str, dict[str, object]]] = [
    ("further keys", {"other_keys_can_be_added_here": "do not compare clientDataJSON against a template"}),
    ("further structures", {"tokenBinding": {"status": "supported"}, "more": [1.5, None]}),
    ("no crossOrigin", {"crossOrigin": None}),
    ("a page below", {"origin": f"https://admin.{RP}"}),
    ("a port", {"origin": f"https://{RP}:8443"}),
    ("names outside ASCII", {"n\u00e4me": "\u20ac"}),
]


@pytest.mark.parametrize(("name", "said"), ALLOWED, ids=[name for name, _ in ALLOWED])
def test_what_the_standard_allows(passkey: SoftwarePasskey, name: str, said: dict[str, object]) -> None:
    verified(passkey, *passkey.assertion(CHALLENGE, **said))


LIES: list[tuple[str, dict[str, object], str]] = [
    ("another statement's", {"challenge": base64url(challenge_for(b"other"))}, "expected challenge"),
    ("padded", {"challenge": base64.urlsafe_b64encode(CHALLENGE).decode()}, "expected challenge"),
    ("no challenge", {"challenge": None}, "expected challenge .*, got None"),
    ("a number", {"challenge": 7}, "expected challenge"),
    ("a registration", {"type": "webauthn.create"}, "expected type webauthn.get, got 'webauthn.create'"),
    ("a payment", {"type": "payment.get"}, "expected type webauthn.get"),
    ("no type", {"type": None}, "expected type webauthn.get"),
    ("another origin", {"origin": "https://evil.example"}, "origin: expected https://consortium.example"),
    ("an ending alike", {"origin": "https://evilconsortium.example"}, "origin"),
    ("the domain above", {"origin": "https://example"}, "origin"),
    ("no TLS", {"origin": "http://consortium.example"}, "origin: expected https"),
    ("a path", {"origin": f"https://{RP}/"}, "origin"),
    ("a name and password", {"origin": f"https://{RP}@evil.example"}, "origin"),
    ("capital letters", {"origin": "https://CONSORTIUM.example"}, "origin"),
    ("the usual port", {"origin": f"https://{RP}:443"}, "as browsers write it"),
    ("no such port", {"origin": f"https://{RP}:65536"}, "as browsers write it"),
    ("an app", {"origin": "android:apk-key-hash:abc"}, "origin"),
    ("no origin", {"origin": None}, "expected text in origin, got None"),
    ("a list", {"origin": [f"https://{RP}"]}, "expected text in origin"),
    ("a frame", {"crossOrigin": True}, "in a frame"),
    ("nearly false", {"crossOrigin": 0}, "in a frame"),
    ("a page around it", {"topOrigin": "https://evil.example"}, "in a frame"),
    ("too long", {"padding": "x" * MAX_CLIENT_DATA}, f"client data: expected 2 to {MAX_CLIENT_DATA} bytes"),
]


@pytest.mark.parametrize(("name", "said", "message"), LIES, ids=[each[0] for each in LIES])
def test_lies_of_the_client(passkey: SoftwarePasskey, name: str, said: dict[str, object], message: str) -> None:
    with pytest.raises(StatementError, match=rf"passkey: .*{message}"):
        verified(passkey, *passkey.assertion(CHALLENGE, **said))


GOOD = USER_PRESENT | USER_VERIFIED
FLAGS: list[tuple[str, int, str]] = [
    ("nobody there", USER_VERIFIED, r"nobody was present \(UP\)"),
    ("not verified", USER_PRESENT, r"the user was not verified \(UV\)"),
    ("backed up, not eligible", GOOD | BACKED_UP, "not eligible"),
    ("a new key", GOOD | ATTESTED_KEY, "holds a new key"),
    ("extensions that are not there", GOOD | EXTENSIONS, "0 bytes of extensions, the flag"),
]


@pytest.mark.parametrize(("name", "flags", "message"), FLAGS, ids=[each[0] for each in FLAGS])
def test_lies_of_the_authenticator(passkey: SoftwarePasskey, name: str, flags: int, message: str) -> None:
    with pytest.raises(StatementError, match=f"passkey: authenticator data: .*{message}"):
        verified(passkey, *passkey.signed(passkey.authenticator_data(flags=flags), passkey.client_data(CHALLENGE)))


def test_sizes_and_extensions(passkey: SoftwarePasskey) -> None:
    said, good = passkey.client_data(CHALLENGE), passkey.authenticator_data(flags=GOOD)
    more = passkey.authenticator_data(flags=GOOD | EXTENSIONS)
    verified(passkey, *passkey.signed(good, said))
    verified(passkey, *passkey.signed(more + b"\xa0", said))
    for data, message in (
        (good + b"\0", "1 bytes of extensions, the flag"),
        (good[:-1], f"expected 37 to {MAX_AUTHENTICATOR_DATA} bytes, got 36"),
        (b"", "got 0"),
        (more + bytes(MAX_AUTHENTICATOR_DATA), "expected 37 to"),
        (passkey.authenticator_data(relying_party="evil.example"), "not made for the relying party"),
    ):
        with pytest.raises(StatementError, match=message):
            verified(passkey, *passkey.signed(data, said))


NOT_JSON: list[tuple[str, Callable[[bytes], bytes], str]] = [
    ("a key twice", lambda d: d[:-1] + b',"type":"webauthn.get"}', "the same key twice"),
    ("a key twice inside", lambda d: d[:-1] + b',"x":{"a":1,"a":2}}', "the same key twice"),
    ("a byte order mark", lambda d: b"\xef\xbb\xbf" + d, "not JSON in UTF-8"),
    ("UTF-16", lambda d: d.decode().encode("utf-16"), "not JSON in UTF-8"),
    ("cut", lambda d: d[:-1], "not JSON in UTF-8"),
    ("more behind", lambda d: d + b"{}", "not JSON in UTF-8"),
    ("NaN", lambda d: d[:-1] + b',"x":NaN}', "is not a JSON number"),
    ("a list", lambda d: b"[" + d + b"]", "expected a JSON object, got list"),
    ("deep", lambda d: b"[" * 4000, "not JSON in UTF-8"),
    ("nothing", lambda d: b"", "client data: expected 2 to"),
]


@pytest.mark.parametrize(("name", "spoil", "message"), NOT_JSON, ids=[each[0] for each in NOT_JSON])
def test_client_data_is_json(
    passkey: SoftwarePasskey, name: str, spoil: Callable[[bytes], bytes], message: str
) -> None:
    with pytest.raises(StatementError, match=message):
        verified(passkey, *passkey.signed(passkey.authenticator_data(), spoil(passkey.client_data(CHALLENGE))))


def test_without_tls_only_on_this_machine() -> None:
    here = SoftwarePasskey("localhost", origin="http://localhost:8443")
    signature, assertion = here.assertion(CHALLENGE)
    verified(here, signature, assertion, relying_party="localhost")


def test_another_key_or_relying_party(passkey: SoftwarePasskey) -> None:
    signature, assertion = passkey.assertion(CHALLENGE)
    other = SoftwarePasskey(RP, passkey.algorithm)
    with pytest.raises(StatementError, match="does not fit these bytes and this key"):
        verified(other, signature, assertion)
    with pytest.raises(StatementError, match=r"origin: expected https://other\.example"):
        verified(passkey, signature, assertion, relying_party="other.example")


def test_any_changed_byte_is_refused(passkey: SoftwarePasskey) -> None:
    signature, assertion = passkey.assertion(CHALLENGE)
    parts = (signature, assertion.authenticator_data, assertion.client_data)
    for which, part in enumerate(parts):
        for position in range(len(part)):
            changed = list(parts)
            changed[which] = part[:position] + bytes([part[position] ^ 1]) + part[position + 1 :]
            with pytest.raises(StatementError):
                verified(passkey, changed[0], Assertion(changed[1], changed[2]))


@settings(derandomize=True, deadline=None, max_examples=150)
@given(st.binary(max_size=80), st.one_of(st.binary(max_size=120), st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["type", "challenge", "origin", "crossOrigin", "x"]), inner, max_size=5), max_leaves=9,
).map(lambda value: json.dumps(value).encode())))  # fmt: skip
def test_whatever_is_signed_is_told_in_words(authenticator_data: bytes, client_data: bytes) -> None:
    """No input makes the verifier fail in another way than by its own error."""
    passkey = _ONE
    with pytest.raises(StatementError, match="passkey: "):
        verified(passkey, *passkey.signed(authenticator_data, client_data))


_ONE = SoftwarePasskey(RP, ED25519)


@settings(derandomize=True, deadline=None, max_examples=100)
@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["authenticator_data", "client_data", "x"]), inner, max_size=3), max_leaves=9,
))  # fmt: skip
def test_the_json_form_is_read_or_refused(value: object) -> None:
    with pytest.raises(StatementError, match="passkey: "):
        Assertion.from_json(value)


def test_the_json_form(passkey: SoftwarePasskey) -> None:
    _, assertion = passkey.assertion(CHALLENGE)
    value = assertion.to_json()
    assert Assertion.from_json(value) == assertion
    for spoiled in (
        {**value, "user_handle": ""},
        {"client_data": value["client_data"]},
        {**value, "client_data": value["client_data"] + "\n"},
        {**value, "authenticator_data": base64url(assertion.authenticator_data) + "-_"},
    ):
        with pytest.raises(StatementError, match="passkey: "):
            Assertion.from_json(spoiled)


# -- in signed statements


def by_passkey(keys: Keys, algorithm: str = P256) -> Holder:
    return keys.person("Pia", "Hospital A", "privacy_officer", key=SoftwarePasskey(RP, algorithm))


def checked(keys: Keys, holder: Holder, signed: SignedStatement) -> str:
    return verify_statement(
        signed,
        {holder.digest: holder.certificate},
        keys.root,
        expected_type=APPROVAL,
        consortium="Zegel Demo",
        roles=frozenset({"privacy_officer"}),
    ).name


@pytest.mark.parametrize("algorithm", [P256, ED25519])
def test_a_statement_signed_by_passkey(keys: Keys, algorithm: str) -> None:
    holder = by_passkey(keys, algorithm)
    signed = holder.signed(STATEMENT)
    again = SignedStatement.from_json(signed.to_json())
    assert again == signed
    assert set(again.to_json()) == {"statement", "certificate", "signature", "passkey"}
    assert again.digest == signed.digest
    assert checked(keys, holder, again).startswith("person-")


def test_the_certificate_says_how_it_is_signed(keys: Keys) -> None:
    holder, bob = by_passkey(keys), keys.holders["Bob"]
    signed, plain = holder.signed(STATEMENT), bob.signed(STATEMENT)
    assert "passkey" not in plain.to_json()
    with pytest.raises(StatementError, match=f"expected an assertion of person-.*'s passkey for {RP}, got a plain"):
        checked(keys, holder, SignedStatement(signed.statement, signed.certificate, signed.signature))
    with pytest.raises(StatementError, match="certificate is not a passkey's"):
        checked(keys, bob, SignedStatement(plain.statement, plain.certificate, plain.signature, signed.passkey))
    # The same private key, without a browser: over the statement's bytes as a key in a file would sign them.
    with pytest.raises(StatementError, match="is a passkey's, which signs in a browser"):
        sign_statement(STATEMENT, holder.key.key, holder.certificate)


def test_an_assertion_is_about_one_statement(keys: Keys) -> None:
    holder = by_passkey(keys)
    signed = holder.signed(STATEMENT)
    other = SignedStatement({**STATEMENT, "decision": "refuse"}, signed.certificate, signed.signature, signed.passkey)
    with pytest.raises(
        StatementError, match=r"not signed by person-.* over these bytes: passkey: .*expected challenge"
    ):
        checked(keys, holder, other)
    challenge = hashlib.sha256(statement_bytes(STATEMENT)).digest()
    signature, assertion = SoftwarePasskey("other.example").assertion(challenge)
    with pytest.raises(StatementError, match="origin"):
        checked(keys, holder, SignedStatement(STATEMENT, signed.certificate, signature, assertion))


@pytest.mark.parametrize("value", [None, {}, [], "x", {"authenticator_data": "", "client_data": ""}])
def test_a_malformed_assertion_in_a_statement(keys: Keys, value: object) -> None:
    json_form = by_passkey(keys).signed(STATEMENT).to_json()
    with pytest.raises(StatementError, match="passkey: "):
        SignedStatement.from_json({**json_form, "passkey": value})


def test_rsa_is_no_passkey(keys: Keys) -> None:
    from audit.certificates import issue_certificate
    from audit.errors import CertificateError

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048).public_key()
    bob = keys.holders["Bob"].certificate
    with pytest.raises(CertificateError, match="expected a passkey of P-256 or Ed25519, got RSA"):
        issue_certificate(
            key,
            *("person-" + "0" * 16, "O", "authority", keys.root, keys.root_key),
            bob.not_valid_before_utc,
            bob.not_valid_after_utc,
            relying_party=RP,
        )
