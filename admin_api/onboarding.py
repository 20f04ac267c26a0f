"""Certificates for hospitals, people and their passkeys: look at a request, then sign it and log it.

A request is shown before it is signed; its fingerprint is what people compare with the requester over another channel.
Two people of two organisations approve it (`decide_request`, `audit.certificate_request`), then the root signs. Issuing
is logged before the reply can be handed out, so no certificate is out there that the log lacks.
"""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509

from admin_api.errors import OnboardingError
from admin_api.founding import certificate_entry
from admin_api.passkeys import PasskeyKey, is_passkey_request, read_passkey_request
from admin_api.people import disclosed_now, is_called
from admin_api.person_requests import PERSON_SCHEMA
from admin_api.planning import decide, decisions
from admin_api.recording import read_evidence, record_judged
from admin_api.revoking import current_revocations
from admin_api.signing import Signer
from audit.canonical import parse_json_object
from audit.certificate_request import REQUEST, CertificateRequest, approving
from audit.certificates import (
    CLIENT,
    PEOPLE,
    PERSON_ID,
    certificate_pem,
    identity_of,
    issue_certificate,
    load_certificate,
    person_id,
    relying_party_of,
)
from audit.disclosure import NAME, Disclosed, Disclosure
from audit.entry import CERTIFICATE_ISSUED, SITE_MANIFEST, Entry
from audit.errors import AuditError, ReleaseError
from audit.evidence import Evidence
from audit.signing_keys import load_request
from audit.statement import DATA_MANIFEST, SignedStatement, verify_statement
from jobs.federation.provisioning import (
    LEAF_VALID_DAYS,
    approve_request,
    key_fingerprint,
    open_root_key,
    read_site_request,
)
from jobs.home import ConsortiumHome

REPLY_SUFFIX = ".signed.zip"  # NVFlare installs no other
MAX_REQUEST_BYTES = 1 << 20
_SALTS = b"zegel name salt v1\n"


@dataclass(frozen=True)
class Request:
    """A certificate request as received: who asks for what, and the key's fingerprint."""

    path: Path
    kind: str  # "site", "person" or "passkey"
    name: str
    organisation: str
    role: str
    fingerprint: str  # sha256:<hex of the public key's SubjectPublicKeyInfo>
    relying_party: str | None = None  # of a passkey
    # Of the commitment to a person's name: from the file, so that everybody who has the request, and nobody else, can
    # say what the log will hold.
    salt_source: bytes = b""


def read_request(path: Path) -> Request:
    """What a request asks for. Raises OnboardingError when it is none."""
    try:
        if path.stat().st_size > MAX_REQUEST_BYTES:
            raise OnboardingError(f"{path}: larger than any request ({MAX_REQUEST_BYTES} bytes)")
        if zipfile.is_zipfile(path):
            return _read_site_request(path)
        data = path.read_bytes()
        if is_passkey_request(parse_json_object(data, str(path))):
            asked = read_passkey_request(data, str(path))
            return Request(
                *(path, "passkey", asked.name, asked.organisation, asked.role, asked.fingerprint),
                relying_party=asked.relying_party,
                salt_source=data,
            )
        value = _person_value(data, path)
        csr = load_request(value["request"].encode("ascii"))
    except FileNotFoundError:
        raise OnboardingError(f"{path}: no such file") from None
    except OSError as error:
        raise OnboardingError(f"{path} cannot be read: {error.strerror}") from None
    except (AuditError, UnicodeEncodeError) as error:
        raise OnboardingError(f"{path} is not a certificate request: {error}") from None
    return Request(
        *(path, "person", value["name"], value["organisation"], value["role"], key_fingerprint(csr)), salt_source=data
    )


def _read_site_request(path: Path) -> Request:
    meta, fingerprint = read_site_request(path)
    if meta.get("cert_type") != "client":
        raise OnboardingError(f"{path} asks for a {meta.get('cert_type')!r} certificate, expected a hospital's")
    return Request(path, "site", str(meta["name"]), str(meta["org"]), "client", fingerprint)


def description_of(home: ConsortiumHome, request: Request) -> CertificateRequest:
    """What people approve about a request; `.digest` is what they sign.

    Raises: OnboardingError for a person whose name cannot be told apart or was erased, AuditError for a damaged log.
    """
    return _described(request, None if request.kind == "site" else _holder_of(home, request).commitment)


def decide_request(home: ConsortiumHome, digest: str, signer: Signer, *, approve: bool, reason: str) -> dict[str, Any]:
    """Sign a decision about a request and log it; returns the signed statement as JSON.

    `digest` is that of `description_of`. Raises: ApprovalError when the signer's role does not decide about requests,
    or a refusal gives no reason.
    """
    return decide(home, REQUEST, digest, signer, approve=approve, reason=reason)


def approvals_of_request(home: ConsortiumHome, digest: str) -> list[dict[str, Any]]:
    """Who decided what about a request, oldest first, with names and reasons not yet erased. Raises AuditError."""
    return decisions(home, REQUEST, digest)


def check_quorum(home: ConsortiumHome, request: Request) -> tuple[str, ...]:
    """The certificates whose approvals let a request be answered now; none while nobody could approve it.

    Raises: OnboardingError when approvals are missing or somebody refused, naming what is to be done.
    """
    return _approving(read_evidence(home), description_of(home, request), home.clock())


def approve(
    home: ConsortiumHome,
    request: Request,
    *,
    passphrase: bytes,
    out: Path,
    valid_days: int = LEAF_VALID_DAYS,
    person: str | None = None,
) -> x509.Certificate:
    """Issue the certificate that `request` asks for, log it, and write the reply to `out`.

    Args:
        person: the person id that somebody new gets; None makes one.
    Raises: OnboardingError when approvals are missing, the name or key is taken, `out` exists or the request's file is
        no longer what was read, ProvisioningError on a wrong passphrase or a tampered request. Nothing was signed or
        logged then.
    """
    said = disclosed_now(home)
    for issued in home.certificates().values():
        _refuse_taken(request, issued, said)
    name: Disclosure | None = None
    if request.kind != "site":
        request, name = _with_person_id(home, request, person)
    return issue(home, request, passphrase=passphrase, out=out, valid_days=valid_days, name=name)


def issue(
    home: ConsortiumHome,
    request: Request,
    *,
    passphrase: bytes,
    out: Path,
    valid_days: int,
    name: Disclosure | None = None,
) -> x509.Certificate:
    """Sign what `request` asks for, log it, and only then write the reply to `out`.

    A person's request names the person id here; `name` is a new person's name, which is kept beside the log.
    Whether the name is free is decided before. Raises: as `approve`.
    """
    holder = None if request.kind == "site" else _known_holder(home, request.name) if name is None else name.commitment
    asked = _described(request, holder)
    _approving(read_evidence(home), asked, home.clock())
    if out.exists():
        raise OnboardingError(f"{out} exists already; choose another --out")
    if not out.parent.is_dir():
        raise OnboardingError(f"{out.parent} is not a folder; make it first, or choose another --out")
    if request.kind == "site" and not out.name.endswith(REPLY_SUFFIX):
        raise OnboardingError(f"{out}: the reply to a hospital must end in {REPLY_SUFFIX}")
    home.sign_checkpoint()  # a log that cannot be signed must not be found out after the certificate is in it
    draft = out.with_name(f".{out.name}.draft")
    draft.unlink(missing_ok=True)
    try:
        if request.kind == "site":
            approve_request(
                request.path,
                ca=home.ca,
                profile=home.profile,
                passphrase=passphrase,
                out=draft,
                valid_days=valid_days,
            )
            with zipfile.ZipFile(draft) as archive:
                certificate = load_certificate(archive.read(f"{request.name}.crt"))
        else:
            certificate = _issue_person(home, request, passphrase, valid_days)
            draft.write_text(certificate_pem(certificate), encoding="ascii")
        _check_as_shown(request, certificate)

        def build(evidence: Evidence) -> Sequence[Entry]:
            at = home.clock().replace(microsecond=0)
            approvals = _approving(evidence, asked, at)
            return [certificate_entry(certificate, holder=holder, at=at, approvals=approvals)]

        record_judged(home, build, beside=[name])
        draft.rename(out)
    finally:
        draft.unlink(missing_ok=True)
    return certificate


def log_manifest(home: ConsortiumHome, path: Path) -> SignedStatement:
    """Check a hospital's signed statement about its data and log it.

    Raises: OnboardingError when it is not signed by the hospital it is about, under this consortium.
    """
    try:
        if path.stat().st_size > MAX_REQUEST_BYTES:
            raise OnboardingError(f"{path}: larger than any statement ({MAX_REQUEST_BYTES} bytes)")
        signed = SignedStatement.from_json(json.loads(path.read_bytes()))
        identity = verify_statement(
            signed,
            home.certificates(),
            home.root(),
            at=home.clock(),
            expected_type=DATA_MANIFEST,
            consortium=home.config().name,
            roles=frozenset({CLIENT}),
            revocations=current_revocations(home),
        )
        if signed.statement.get("site") != identity.name:
            raise OnboardingError(f"{path}: {identity.name} signed a statement about {signed.statement.get('site')}")
        entry = Entry(SITE_MANIFEST, home.clock(), {"site": identity.name, "manifest": signed.to_json()})
    except (OSError, ValueError, RecursionError, AuditError) as error:
        raise OnboardingError(f"{path}: {error}") from None
    home.record(entry)
    return signed


def _approving(evidence: Evidence, asked: CertificateRequest, at: datetime) -> tuple[str, ...]:
    try:
        return approving(evidence, asked, at=at, before=evidence.size)
    except ReleaseError as error:
        raise OnboardingError(
            f"{error}; nothing was issued. They decide with `zegel consortium decide REQUEST`, or in the pages"
        ) from None


def _described(request: Request, holder: str | None) -> CertificateRequest:
    return CertificateRequest(
        name=request.name if request.kind == "site" else None,
        holder=holder,
        organisation=request.organisation,
        role=request.role,
        key=request.fingerprint,
        relying_party=request.relying_party,
    )


@dataclass(frozen=True)
class _Holder:
    """Who will hold a person's certificate."""

    commitment: str  # to the name
    person: str | None = None  # the person id; None for somebody new
    name: Disclosure | None = None  # somebody new's, to be kept beside the log


def _holder_of(home: ConsortiumHome, request: Request) -> _Holder:
    """Of a person's request. Raises OnboardingError for an id nobody has, an erased or an unprintable name."""
    if PERSON_ID.fullmatch(request.name):
        return _Holder(_known_holder(home, request.name), request.name)
    for known, called in disclosed_now(home).names.items():
        if called.casefold() == request.name.casefold():
            return _Holder(_known_holder(home, known), known)
    try:
        name = Disclosure.made(
            NAME, request.name, lambda size: hashlib.shake_256(_SALTS + request.salt_source).digest(size)
        )
    except AuditError as error:
        raise OnboardingError(f"{request.path}: {error}") from None
    return _Holder(name.commitment, name=name)


def _known_holder(home: ConsortiumHome, person: str) -> str:
    """The commitment to a person's name. Raises OnboardingError when it is not known here, or was erased."""
    erased = disclosed_now(home).erased
    with home.log() as log:
        for _, entry in log.entries(kind=CERTIFICATE_ISSUED):
            if entry.body["name"] == person and entry.body["holder"] is not None:
                holder: str = entry.body["holder"]
                if holder in erased:
                    break
                return holder
    raise OnboardingError(
        f"the name of {person} is not known here, or was erased; they ask by name, with `zegel person request`"
    )


def _with_person_id(home: ConsortiumHome, request: Request, person: str | None) -> tuple[Request, Disclosure | None]:
    """The request under a person id; with the name to be kept, unless the person has an id already."""
    if PERSON_ID.fullmatch(request.name):
        raise OnboardingError(
            f"{request.name} is a person id; a first certificate is asked for by name, a further one is given by "
            "`zegel consortium renew`"
        )
    holder = _holder_of(home, request)
    if person is not None and holder.person is not None and person != holder.person:
        raise OnboardingError(f"{request.name!r} is {holder.person} already, not {person}; a person has one id")
    if holder.person is None and person in {identity_of(each).name for each in home.certificates().values()}:
        raise OnboardingError(f"{person} is somebody else already, not {request.name!r}; a person has one id")
    return replace(request, name=holder.person or person or person_id(os.urandom(8))), holder.name


def _refuse_taken(request: Request, issued: x509.Certificate, said: Disclosed) -> None:
    """Raises OnboardingError when an issued certificate has the requested name or key.

    A person may hold certificates of several roles at one organisation; they count as one person all the same.
    Two holders of one key would make the whole log's evidence void (`audit.evidence`).
    """
    holder = identity_of(issued)
    further = holder.role in PEOPLE and request.role in PEOPLE - {holder.role}
    if further and holder.organisation.casefold() == request.organisation.casefold():
        refuse_known_key(request, issued)
        return
    if is_called(said, holder.name, request.name):
        raise OnboardingError(
            f"{said.name(holder.name)!r} already holds a certificate ({holder.role}, until "
            f"{issued.not_valid_after_utc:%Y-%m-%d}); the requester must choose another name, or, if it is the same "
            "holder with a new key, `zegel consortium renew`"
        )
    refuse_known_key(request, issued)


def refuse_known_key(request: Request, issued: x509.Certificate) -> None:
    """Raises OnboardingError when an issued certificate has the requested key."""
    if key_fingerprint(issued) == request.fingerprint:
        raise OnboardingError(
            f"the key of this request is {identity_of(issued)}'s; {request.name} must make a key of their own and ask "
            "again"
        )


def _check_as_shown(request: Request, certificate: x509.Certificate) -> None:
    """Raises OnboardingError unless the certificate is for the key and name that were shown and compared.

    The request's file is read again for signing; whoever can write to it could have swapped it meanwhile.
    """
    holder = identity_of(certificate)
    issued = (
        *(holder.name, holder.organisation, holder.role),
        *(key_fingerprint(certificate), relying_party_of(certificate)),
    )
    shown = (request.name, request.organisation, request.role, request.fingerprint, request.relying_party)
    if issued != shown:
        raise OnboardingError(
            f"{request.path} was changed after it was looked at; nothing was issued. Look at it again"
        )


def _issue_person(home: ConsortiumHome, request: Request, passphrase: bytes, valid_days: int) -> x509.Certificate:
    root = home.root()
    now = home.clock().replace(microsecond=0)
    try:
        return issue_certificate(
            _asked_key(request),
            name=request.name,
            organisation=request.organisation,
            role=request.role,
            root_cert=root,
            root_key=open_root_key(home.ca, passphrase),
            not_before=now,
            not_after=min(now + timedelta(days=valid_days), root.not_valid_after_utc),
            relying_party=request.relying_party,
        )
    except AuditError as error:
        raise OnboardingError(f"{request.path}: {error}") from None


def _asked_key(request: Request) -> x509.CertificateSigningRequest | PasskeyKey:
    """What is to be certified, read from the file again; whether it is what was shown is checked afterwards."""
    if request.kind == "passkey":
        return read_passkey_request(request.path.read_bytes(), str(request.path)).key
    return load_request(_person_value(request.path.read_bytes(), request.path)["request"].encode("ascii"))


def _person_value(data: bytes, path: Path) -> dict[str, Any]:
    value = parse_json_object(data, str(path))
    fields = ("name", "organisation", "role", "request")
    if value.get("schema") != PERSON_SCHEMA or set(value) != {"schema", *fields}:
        raise OnboardingError(f"{path} is not a person's certificate request")
    for field in fields:
        if not isinstance(value[field], str):
            raise OnboardingError(f"{path} is not a certificate request: {field} is not text")
    # Shown on the admin's terminal, where control characters could forge a line.
    if not (value["name"] + value["organisation"]).isprintable() or value["role"] not in PEOPLE:
        raise OnboardingError(f"{path} is not a certificate request: unprintable name, or not a person's role")
    return value
