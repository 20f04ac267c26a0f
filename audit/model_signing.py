"""OpenSSF model signatures: a Sigstore bundle over the model file, which `model_signing verify certificate` accepts.

Made beside our own signatures for those who check models with that tool. It knows no revocation, roles or purposes
and accepts expired certificates, so whoever verifies here checks those besides (`audit.documents.collection`). The
bundle is a DSSE envelope over an in-toto statement that lists the digest of each file; its signer's certificate is
inside it, without a chain: the verifier brings the root.

Only P-256 keys can sign, which is what our people have.

Source: OpenSSF Model Signing v1.0; Sigstore bundle v0.3.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from audit.canonical import canonical_json, decode_base64, encode_base64, hex_of, parse_json_object, shown
from audit.certificates import PrivateKey, load_certificate, public_key_of, relying_party_of
from audit.dsse import pae, sign_envelope
from audit.errors import AuditError, CanonicalError, DocumentError, StatementError
from audit.signatures import verify_bytes

MEDIA_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
PREDICATE_TYPE = "https://model_signing/signature/v1.0"
PAYLOAD_TYPE = "application/vnd.in-toto+json"


def sign_model(version: str, file: str, key: PrivateKey, certificate: x509.Certificate) -> bytes:
    """A bundle that signs the model file named `file`, whose digest is `version`.

    Raises DocumentError for a key that is not P-256 or not the certificate's.
    """
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise DocumentError(f"model signature: expected a P-256 key, got {type(key).__name__}")
    payload = canonical_json(_statement(version, file))
    signature = sign_envelope(PAYLOAD_TYPE, payload, key, certificate)
    der = certificate.public_bytes(serialization.Encoding.DER)
    return canonical_json(
        {
            "mediaType": MEDIA_TYPE,
            "verificationMaterial": {
                "x509CertificateChain": {"certificates": [{"rawBytes": encode_base64(der)}]},
                "tlogEntries": [],
            },
            "dsseEnvelope": {
                "payload": encode_base64(payload),
                "payloadType": PAYLOAD_TYPE,
                "signatures": [{"sig": encode_base64(signature.signature), "keyid": ""}],
            },
        }
    )


def verify_model_signature(bundle: bytes, version: str, file: str) -> x509.Certificate:
    """The signer's certificate. Raises DocumentError unless the bundle signs the model file with this digest.

    Whether the certificate is one of the consortium's, and was good for signing, is the caller's to check.
    """
    try:
        value = parse_json_object(bundle, "model signature")
        if value["mediaType"] != MEDIA_TYPE:
            raise DocumentError(f"model signature: expected {MEDIA_TYPE}, got {shown(value['mediaType'])}")
        (holder,) = value["verificationMaterial"]["x509CertificateChain"]["certificates"]
        certificate = load_certificate(decode_base64(holder["rawBytes"], "rawBytes"))
        envelope = value["dsseEnvelope"]
        (signature,) = envelope["signatures"]
        payload = decode_base64(envelope["payload"], "payload")
        made = decode_base64(signature["sig"], "sig")
        statement = json.loads(payload)
    except CanonicalError as error:
        raise DocumentError(str(error)) from error
    except AuditError:
        raise
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise DocumentError(f"model signature: not a bundle of one certificate and one signature: {error!r}") from error
    if relying_party_of(certificate) is not None:
        raise DocumentError("model signature: its certificate is a passkey's, which signs no models")
    try:
        verify_bytes(public_key_of(certificate), made, pae(PAYLOAD_TYPE, payload))
    except StatementError as error:
        raise DocumentError(f"model signature: {error}") from error
    if envelope["payloadType"] != PAYLOAD_TYPE or statement != _statement(version, file):
        raise DocumentError(
            f"model signature: expected a statement about {file} with digest {version}, got another one"
        )
    return certificate


def _statement(version: str, file: str) -> dict[str, Any]:
    """What is signed: for a single file, the subject's digest is that of the file's digest."""
    content = hex_of(version)
    name = file.rpartition("/")[2]
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": name, "digest": {"sha256": hashlib.sha256(bytes.fromhex(content)).hexdigest()}}],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "serialization": {"method": "files", "hash_type": "sha256", "allow_symlinks": False, "ignore_paths": []},
            "resources": [{"name": ".", "algorithm": "sha256", "digest": content}],
        },
    }
