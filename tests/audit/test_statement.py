"""Signed statements: three kinds of key, and every way to get one wrong."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from audit.canonical import decode_base64, encode_base64, format_time
from audit.certificates import PEOPLE
from audit.errors import CertificateError, StatementError
from audit.statement import (
    PREFIX,
    RECEIPT,
    SignedStatement,
    sign_statement,
    statement_bytes,
    verify_statement,
)

if TYPE_CHECKING:
    from tests.audit.conftest import Keys
else:
    Keys = object

STATEMENT = {"type": RECEIPT, "consortium": "Zegel Demo", "time": "2026-11-22T06:00:00Z", "round": 1}
ROLES = frozenset({"client", "log"}) | PEOPLE


def verified(keys: Keys, signed: SignedStatement, **changes: Any) -> str:
    arguments: dict[str, Any] = {
        "expected_type": RECEIPT,
        "consortium": "Zegel Demo",
        "roles": ROLES,
        "at": None,
        "certificates": {h.digest: h.certificate for h in keys.holders.values()},
    }
    arguments |= changes
    certificates = arguments.pop("certificates")
    return verify_statement(signed, certificates, keys.root, **arguments).name


@pytest.mark.parametrize("name", ["hospital-a", "Bob", "log"])
def test_each_kind_of_key_signs(keys: Keys, name: str) -> None:
    holder = keys.holders[name]
    signed = sign_statement(STATEMENT, holder.key, holder.certificate)
    again = SignedStatement.from_json(signed.to_json())
    assert again == signed
    assert again.digest == signed.digest
    assert verified(keys, again).startswith(("hospital-a", "person-", "zegel-log"))


def test_signed_bytes() -> None:
    assert statement_bytes({"b": 1, "a": [1.0]}) == b'zegel statement v1\n{"a":[1],"b":1}'
    assert PREFIX == b"zegel statement v1\n"


def forged(keys: Keys, **changes: Any) -> SignedStatement:
    holder = keys.holders["hospital-a"]
    signed = sign_statement(STATEMENT, holder.key, holder.certificate)
    return SignedStatement(
        changes.get("statement", signed.statement),
        changes.get("certificate", signed.certificate),
        changes.get("signature", signed.signature),
    )


def test_refusals(keys: Keys) -> None:
    good = forged(keys)
    flipped = bytes([good.signature[0] ^ 1]) + good.signature[1:]
    cases: list[tuple[SignedStatement, dict[str, Any], str]] = [
        (forged(keys, signature=flipped), {}, "the signature is not hospital-a's"),
        (forged(keys, signature=b""), {}, "the signature is not hospital-a's"),
        (forged(keys, statement={**STATEMENT, "round": 2}), {}, "the signature is not hospital-a's"),
        (
            forged(keys, certificate=keys.holders["hospital-b"].digest),
            {},
            "the signature is not hospital-b's",
        ),
        (forged(keys, certificate="sha256:" + "0" * 64), {}, "not known here"),
        (good, {"expected_type": "zegel/approval/v1"}, "expected type zegel/approval/v1"),
        (good, {"consortium": "Other"}, "expected consortium Other, got 'Zegel Demo'"),
        (good, {"certificates": {good.certificate: keys.holders["Bob"].certificate}}, "is another one"),
        (forged(keys, statement={**STATEMENT, "time": "now"}), {}, "expected a UTC time"),
    ]
    for signed, changes, message in cases:
        with pytest.raises(StatementError, match=message):
            verified(keys, signed, **changes)


def test_certificates_are_checked(keys: Keys) -> None:
    good = forged(keys)
    expired = keys.holders["hospital-a"].certificate.not_valid_after_utc + timedelta(seconds=1)
    with pytest.raises(CertificateError, match="expected a time from"):
        verified(keys, good, at=expired)
    with pytest.raises(CertificateError, match="expected role authority, got client"):
        verified(keys, good, roles=frozenset({"authority"}))
    holder = keys.holders["hospital-a"]
    late = sign_statement({**STATEMENT, "time": format_time(expired)}, holder.key, holder.certificate)
    with pytest.raises(CertificateError, match="expected a time from"):
        verified(keys, late)


def test_signing_refuses(keys: Keys) -> None:
    holder = keys.holders["Bob"]
    for field in ("type", "consortium", "time"):
        with pytest.raises(StatementError, match=field):
            sign_statement({k: v for k, v in STATEMENT.items() if k != field}, holder.key, holder.certificate)
    with pytest.raises(StatementError, match="cannot be signed"):
        sign_statement({**STATEMENT, "x": float("nan")}, holder.key, holder.certificate)
    with pytest.raises(StatementError, match="does not belong to the certificate"):
        sign_statement(STATEMENT, keys.holders["Carol"].key, holder.certificate)


MALFORMED: list[tuple[str, Callable[[dict[str, Any]], object]]] = [
    ("signature missing", lambda j: {k: v for k, v in j.items() if k != "signature"}),
    ("further field", lambda j: {**j, "extra": 1}),
    ("statement missing", lambda j: {k: v for k, v in j.items() if k != "statement"}),
    ("not an object", lambda j: [j]),
    ("signature not text", lambda j: {**j, "signature": 7}),
    ("signature with newline", lambda j: {**j, "signature": j["signature"] + "\n"}),
    ("signature without padding", lambda j: {**j, "signature": j["signature"].rstrip("=")}),
    ("certificate not a digest", lambda j: {**j, "certificate": "Bob"}),
    ("statement not an object", lambda j: {**j, "statement": "x"}),
    ("type missing", lambda j: {**j, "statement": {k: v for k, v in j["statement"].items() if k != "type"}}),
    ("time malformed", lambda j: {**j, "statement": {**j["statement"], "time": "2026"}}),
]


@pytest.mark.parametrize(("name", "spoil"), MALFORMED, ids=[name for name, _ in MALFORMED])
def test_malformed_json_is_refused(keys: Keys, name: str, spoil: Callable[[dict[str, Any]], object]) -> None:
    with pytest.raises(StatementError):
        SignedStatement.from_json(spoil(forged(keys).to_json()))


def test_base64_with_stray_bits_is_refused(keys: Keys) -> None:
    value = forged(keys).to_json()
    text = value["signature"]
    assert text.endswith("==")
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    stray = text[:-3] + alphabet[alphabet.index(text[-3]) + 1] + "=="
    assert encode_base64(decode_base64(text)) == text
    with pytest.raises(StatementError, match="canonical"):
        SignedStatement.from_json({**value, "signature": stray})
