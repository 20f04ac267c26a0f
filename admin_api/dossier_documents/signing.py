"""Signatures for other tools, made by a person in the moment of approving a release.

Each approver signs the provenance in a DSSE envelope; a release manager also signs the model file as OpenSSF model
signing does. Both are beside the approval, which alone counts for the quorum. They are kept in the consortium's folder
until the dossier is written, by certificate, and only those of people who approved enter it.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from admin_api.people import Person
from audit.canonical import canonical_json, decode_base64, encode_base64, hex_of, parse_json_object
from audit.certificates import RELEASE_MANAGER
from audit.documents.collection import ENVELOPE, MODEL_SIGNATURE, PROVENANCE
from audit.documents.provenance import MODEL_FILE, PAYLOAD_TYPE
from audit.dsse import Envelope, Signature, sign_envelope
from audit.durable_file import write_durably
from audit.model_signing import sign_model
from audit.release import ReleaseStatement
from jobs.home import ConsortiumHome

_SUFFIX = ".signature.json"
_MODEL_SUFFIX = ".model.json"


def sign_documents(home: ConsortiumHome, statement: ReleaseStatement, person: Person) -> None:
    """Sign a release's provenance, and its model when the person is a release manager. Signing again is harmless.

    Raises: ArtifactError when the provenance is not there; a statement without one is left alone.
    """
    digest = statement.documents.get(PROVENANCE)
    if digest is None:
        return
    folder = _folder(home, statement)
    folder.mkdir(parents=True, exist_ok=True)
    name = hex_of(person.certificate_digest)
    signature = sign_envelope(PAYLOAD_TYPE, home.artifacts().get(digest), person.key, person.certificate)
    write_durably(folder / f"{name}{_SUFFIX}", canonical_json({"sig": encode_base64(signature.signature)}))
    if person.identity.role == RELEASE_MANAGER:
        bundle = sign_model(statement.version, MODEL_FILE, person.key, person.certificate)
        write_durably(folder / f"{name}{_MODEL_SUFFIX}", bundle)


def signed_documents(home: ConsortiumHome, statement: ReleaseStatement, approvers: Collection[str]) -> dict[str, bytes]:
    """The envelope and the model signature, by member name, of those among `approvers` who signed.

    `approvers` are digests of certificates. What nobody signed is left out. Raises CanonicalError for a damaged file.
    """
    digest = statement.documents.get(PROVENANCE)
    if digest is None:
        return {}
    folder = _folder(home, statement)
    found: dict[str, bytes] = {}
    signatures: list[Signature] = []
    for certificate in sorted(approvers):
        path = folder / f"{hex_of(certificate)}{_SUFFIX}"
        if path.is_file():
            value = parse_json_object(path.read_bytes(), path.name)
            signatures.append(Signature(certificate, decode_base64(value.get("sig"), path.name)))
        model = folder / f"{hex_of(certificate)}{_MODEL_SUFFIX}"
        if model.is_file() and MODEL_SIGNATURE not in found:
            found[MODEL_SIGNATURE] = model.read_bytes()
    if signatures:
        found[ENVELOPE] = Envelope(PAYLOAD_TYPE, home.artifacts().get(digest), tuple(signatures)).to_bytes()
    return found


def _folder(home: ConsortiumHome, statement: ReleaseStatement) -> Path:
    """By the statement's digest: a candidate that was changed has other signatures."""
    return home.path / "signatures" / hex_of(statement.digest)
