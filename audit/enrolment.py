"""Enrolment: which witness keys count for this consortium, and to whom each belongs.

A hospital or the authority states, signed with its certificate, that a witness key is its own. The statement is an
entry of the log, so that everybody sees the same witnesses and a verifier needs the root certificate only.

Invariants:
- The witness key signs too (`possession`): nobody can enrol somebody else's key as his own and count twice.
- One organisation is one witness in a policy, whatever number of keys it enrolled: its latest counts. A witness that
  lost its memory of the log must be given a new key, since an amnesiac one would cosign a forked log.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from audit.canonical import canonical_json, decode_base64, encode_base64, format_time
from audit.certificates import AUTHORITY, CLIENT
from audit.cosignature import witness_key
from audit.entry import WITNESS_ENROLLED, Entry
from audit.errors import AuditError, CosignatureError, TraceError
from audit.evidence import Evidence
from audit.note import COSIGNATURE, VerifierKey
from audit.statement import WITNESS_ENROLMENT, SignedStatement
from audit.witness_policy import WitnessPolicy

ENROLLING_ROLES = frozenset({CLIENT, AUTHORITY})
_POSSESSION = b"zegel witness possession v1\n"  # no cosignature begins like this


@dataclass(frozen=True)
class Enrolment:
    """A witness key and the organisation that enrolled it, verified."""

    index: int  # of the log's entry
    name: str  # the witness's, as in its key
    organisation: str
    key: VerifierKey
    certificate: str  # digest of the certificate that signed


def enrolment_statement(
    consortium: str, name: str, organisation: str, key: Ed25519PrivateKey, time: datetime
) -> dict[str, Any]:
    """The statement to be signed with the organisation's certificate (`audit.statement.sign_statement`)."""
    fields = {
        "type": WITNESS_ENROLMENT,
        "consortium": consortium,
        "time": format_time(time),
        "name": name,
        "organisation": organisation,
        "vkey": str(witness_key(name, key)),
    }
    return {**fields, "possession": encode_base64(key.sign(_POSSESSION + canonical_json(fields)))}


def enrolled_key(statement: Mapping[str, Any]) -> VerifierKey:
    """The witness key a statement enrols, when that key signed it too.

    The statement's own signature is not looked at. Raises CosignatureError when the key is malformed, bears another
    name, or did not sign.
    """
    try:
        key = VerifierKey.parse(statement["vkey"], COSIGNATURE)
        signature = decode_base64(statement["possession"], "possession")
    except AuditError as error:
        raise CosignatureError(f"witness enrolment: {error}") from error
    if key.name != statement["name"]:
        raise CosignatureError(f"witness enrolment: expected a key named {statement['name']}, got {key.name}")
    signed = {field: value for field, value in statement.items() if field != "possession"}
    try:
        Ed25519PublicKey.from_public_bytes(key.public_key).verify(signature, _POSSESSION + canonical_json(signed))
    except InvalidSignature as error:
        raise CosignatureError(
            f"witness enrolment: {key.name} did not sign; make the enrolment where the witness's key is"
        ) from error
    return key


def enrolments(evidence: Evidence) -> tuple[Enrolment, ...]:
    """Every enrolment in the log, in its order, verified. Raises TraceError naming the entry that does not hold."""
    found: list[Enrolment] = []
    owners: dict[bytes, str] = {}
    for logged in evidence.of_kind(WITNESS_ENROLLED):
        signed = logged.entry.signed("enrolment")
        statement = signed.statement
        signer = evidence.verify(logged, signed, WITNESS_ENROLMENT, ENROLLING_ROLES)
        logged.expect("organisation", signer.organisation, statement["organisation"])
        logged.expect("witness", logged.body["witness"], statement["name"])
        try:
            key = enrolled_key(statement)
        except CosignatureError as error:
            raise TraceError(f"{logged}: {error}") from error
        owner = owners.setdefault(key.public_key, signer.organisation.casefold())
        if owner != signer.organisation.casefold():
            raise TraceError(f"{logged}: {key.name}'s key is already enrolled by another organisation, {owner}")
        found.append(Enrolment(logged.index, key.name, signer.organisation, key, signed.certificate))
    return tuple(found)


def enrolment_entry(signed: SignedStatement, time: datetime) -> Entry:
    """The log entry of a signed enrolment. Raises EntryError when the statement lacks a field."""
    return Entry(WITNESS_ENROLLED, time, {"witness": signed.statement.get("name"), "enrolment": signed.to_json()})


def check_new_enrolment(logged: Sequence[tuple[int, Entry]], entry: Entry, root: x509.Certificate) -> Enrolment:
    """What `entry` will say once it follows `logged`, all of the log. The log must never hold an enrolment that its
    verifiers would refuse: call this first, and append only to a log that still has this size.

    Raises TraceError when it does not hold.
    """
    return enrolments(Evidence([*logged, (len(logged), entry)], root))[-1]


def witness_policy(enrolled: Iterable[Enrolment], threshold: int) -> WitnessPolicy:
    """At least `threshold` organisations, each by the key it enrolled last."""
    latest: dict[str, VerifierKey] = {}
    for enrolment in enrolled:
        latest[enrolment.organisation.casefold()] = enrolment.key
    return WitnessPolicy(threshold, tuple(latest.values()))
