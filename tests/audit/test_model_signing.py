"""Model signatures: made here, verified by the model_signing library; refused after any change."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives import serialization

from audit.canonical import canonical_json, decode_base64, digest_of, encode_base64
from audit.dsse import pae
from audit.errors import DocumentError
from audit.model_signing import sign_model, verify_model_signature
from audit.signatures import sign_bytes
from tests.audit.other_tools import verify_model
from tests.passkey import SoftwarePasskey

if TYPE_CHECKING:
    from tests.audit.conftest import Keys
else:
    Keys = object

MODEL = b"weights"
FILE = "model.safetensors"


@pytest.fixture(scope="module")
def bundle(keys: Keys) -> bytes:
    carol = keys.holders["Carol"]
    return sign_model(digest_of(MODEL), FILE, carol.key, carol.certificate)


@pytest.fixture
def folder(keys: Keys, bundle: bytes, tmp_path: Path) -> Path:
    (tmp_path / FILE).write_bytes(MODEL)
    (tmp_path / "bundle.json").write_bytes(bundle)
    (tmp_path / "rootCA.pem").write_bytes(keys.root_pem)
    return tmp_path


def theirs(folder: Path) -> None:
    verify_model(folder / FILE, folder / "bundle.json", folder / "rootCA.pem")


def test_the_library_accepts_it(folder: Path) -> None:
    theirs(folder)


def test_the_library_refuses_another_model(folder: Path) -> None:
    (folder / FILE).write_bytes(b"other weights")
    with pytest.raises(ValueError, match="Signature mismatch"):
        theirs(folder)


def test_we_accept_it(keys: Keys, bundle: bytes) -> None:
    assert verify_model_signature(bundle, digest_of(MODEL), FILE) == keys.holders["Carol"].certificate


@pytest.mark.parametrize(("version", "file"), [(digest_of(b"other"), FILE), (digest_of(MODEL), "other.safetensors")])
def test_another_model_or_name(bundle: bytes, version: str, file: str) -> None:
    with pytest.raises(DocumentError, match="expected a statement about"):
        verify_model_signature(bundle, version, file)


def test_a_changed_payload(bundle: bytes) -> None:
    value = json.loads(bundle)
    value["dsseEnvelope"]["payload"] = encode_base64(b"{}")
    with pytest.raises(DocumentError, match="does not fit these bytes"):
        verify_model_signature(canonical_json(value), digest_of(MODEL), FILE)


@pytest.mark.parametrize(
    "value",
    [
        {},
        [],
        {"mediaType": "application/json"},
        {"mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json", "verificationMaterial": None},
    ],
)
def test_other_forms_are_refused(value: Any) -> None:
    with pytest.raises(DocumentError):
        verify_model_signature(canonical_json(value), digest_of(MODEL), FILE)
    with pytest.raises(DocumentError):
        verify_model_signature(b"\xff", digest_of(MODEL), FILE)


def test_two_certificates_are_refused(bundle: bytes) -> None:
    value = json.loads(bundle)
    value["verificationMaterial"]["x509CertificateChain"]["certificates"] *= 2
    with pytest.raises(DocumentError, match="one certificate and one signature"):
        verify_model_signature(canonical_json(value), digest_of(MODEL), FILE)


def test_a_passkey_signs_no_model(keys: Keys, bundle: bytes) -> None:
    passkey = SoftwarePasskey()
    holder = keys.person("Rosa", "Statistics", "release_manager", key=passkey)
    with pytest.raises(DocumentError, match="is a passkey's"):
        sign_model(digest_of(MODEL), FILE, passkey.key, holder.certificate)
    value = json.loads(bundle)
    der = holder.certificate.public_bytes(serialization.Encoding.DER)
    value["verificationMaterial"]["x509CertificateChain"]["certificates"] = [{"rawBytes": encode_base64(der)}]
    envelope = value["dsseEnvelope"]
    signed = pae(envelope["payloadType"], decode_base64(envelope["payload"]))
    envelope["signatures"][0]["sig"] = encode_base64(sign_bytes(passkey.key, signed))
    with pytest.raises(DocumentError, match="its certificate is a passkey's, which signs no models"):
        verify_model_signature(canonical_json(value), digest_of(MODEL), FILE)


def test_only_p_256_keys_sign(keys: Keys) -> None:
    hospital = keys.holders["hospital-a"]
    with pytest.raises(DocumentError, match="expected a P-256 key, got RSAPrivateKey"):
        sign_model(digest_of(MODEL), FILE, hospital.key, hospital.certificate)
