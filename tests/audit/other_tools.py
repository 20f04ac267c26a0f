"""What other people's tools make of our signatures: securesystemslib for DSSE, model_signing for the model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from cryptography import x509
from model_signing import verifying
from securesystemslib.dsse import Envelope
from securesystemslib.signer import Key, SSlibKey  # type: ignore[attr-defined]  # the package lists no exports


def verified_payload(envelope: bytes, signers: Mapping[str, x509.Certificate]) -> bytes:
    """The payload of a DSSE envelope that every one of `signers`, by key id, signed; raises otherwise."""
    theirs = Envelope.from_dict(json.loads(envelope))
    keys: list[Key] = [SSlibKey.from_crypto(certificate.public_key(), name) for name, certificate in signers.items()]
    assert len(theirs.verify(keys, len(keys))) == len(keys)
    return theirs.payload


def verify_model(model: Path, bundle: Path, root: Path) -> None:
    """What `model_signing verify certificate` does; raises when it refuses."""
    config = verifying.Config()  # type: ignore[no-untyped-call]  # the library's constructor has no annotation
    config.use_certificate_verifier(certificate_chain=[root]).verify(model, bundle)
