"""Certificates for hospitals and people: look at a request, then sign it and log it.

A request is shown before it is signed; its fingerprint is what the admin compares with the requester over another
channel. Issuing is logged before the reply can be handed out, so no certificate is out there that the log lacks.
"""

from __future__ import annotations

import json
import os
import zipfile
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from admin_api.errors import OnboardingError
from admin_api.founding import check_new_passphrase, issued_entry
from admin_api.people import disclosed_now, is_called
from admin_api.revoking import current_revocations
from audit.canonical import canonical_json, parse_json_object
from audit.certificates import (
    CLIENT,
    PEOPLE,
    PERSON_ID,
    certificate_pem,
    identity_of,
    issue_certificate,
    load_certificate,
    person_id,
)
from audit.disclosure import NAME, Disclosed, Disclosure
from audit.entry import SITE_MANIFEST, Entry
from audit.errors import AuditError, LogError
from audit.signing_keys import generate_person_key, load_request, make_request, private_key_pem
from audit.statement import DATA_MANIFEST, SignedStatement, verify_statement
from jobs.federation.provisioning import (
    LEAF_VALID_DAYS,
    approve_request,
    key_fingerprint,
    open_root_key,
    read_site_request,
    write_private,
)
from jobs.home import ConsortiumHome

PERSON_SCHEMA = "zegel/person-request/v1"
REPLY_SUFFIX = ".signed.zip"  # NVFlare installs no other
MAX_REQUEST_BYTES = 1 << 20


@dataclass(frozen=True)
class Request:
    """A certificate request as received: who asks for what, and the key's fingerprint."""

    path: Path
    kind: str  # "site" or "person"
    name: str
    organisation: str
    role: str
    fingerprint: str  # sha256:<hex of the public key's SubjectPublicKeyInfo>


def request_person(folder: Path, *, name: str, organisation: str, role: str, passphrase: bytes) -> Path:
    """Make a person's key and certificate request in `folder`; only the request is handed on.

    Returns: the request's path. Raises: OnboardingError for an unknown role or a folder already used.
    """
    if role not in PEOPLE:
        raise OnboardingError(f"role {role!r}: expected one of {', '.join(sorted(PEOPLE))}")
    for what, value in (("name", name), ("organisation", organisation)):
        if not value.strip() or not value.isprintable():
            raise OnboardingError(f"{what} {value!r}: expected printable text")
    check_new_passphrase(passphrase, "key")
    return write_person_request(folder, name=name, organisation=organisation, role=role, passphrase=passphrase)


def write_person_request(folder: Path, *, name: str, organisation: str, role: str, passphrase: bytes) -> Path:
    """Make a key in `folder` and the request for its certificate, whose subject is as given.

    Returns: the request's path. Raises: OnboardingError for a folder already used or an impossible subject.
    """
    if (folder / "person.key").exists():
        raise OnboardingError(f"{folder} already holds a key; choose another folder")
    key = generate_person_key()
    try:
        csr = make_request(key, name, organisation)
    except AuditError as error:
        raise OnboardingError(str(error)) from None
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    request = folder / "person.request.json"
    request.write_bytes(
        canonical_json(
            {
                "schema": PERSON_SCHEMA,
                "name": name,
                "organisation": organisation,
                "role": role,
                "request": csr.public_bytes(serialization.Encoding.PEM).decode("ascii"),
            }
        )
    )
    write_private(folder / "person.key", private_key_pem(key, passphrase))  # last: a request without it is redone
    return request


def read_request(path: Path) -> Request:
    """What a request asks for. Raises OnboardingError when it is none."""
    try:
        if path.stat().st_size > MAX_REQUEST_BYTES:
            raise OnboardingError(f"{path}: larger than any request ({MAX_REQUEST_BYTES} bytes)")
        if zipfile.is_zipfile(path):
            return _read_site_request(path)
        value = _person_value(path)
        csr = load_request(value["request"].encode("ascii"))
    except FileNotFoundError:
        raise OnboardingError(f"{path}: no such file") from None
    except OSError as error:
        raise OnboardingError(f"{path} cannot be read: {error.strerror}") from None
    except (AuditError, UnicodeEncodeError) as error:
        raise OnboardingError(f"{path} is not a certificate request: {error}") from None
    return Request(path, "person", value["name"], value["organisation"], value["role"], key_fingerprint(csr))


def _read_site_request(path: Path) -> Request:
    meta, fingerprint = read_site_request(path)
    if meta.get("cert_type") != "client":
        raise OnboardingError(f"{path} asks for a {meta.get('cert_type')!r} certificate, expected a hospital's")
    return Request(path, "site", str(meta["name"]), str(meta["org"]), "client", fingerprint)


def approve(
    home: ConsortiumHome, request: Request, *, passphrase: bytes, out: Path, valid_days: int = LEAF_VALID_DAYS
) -> x509.Certificate:
    """Issue the certificate that `request` asks for, log it, and write the reply to `out`.

    Raises: OnboardingError when the name or key is taken, `out` exists or the request's file is no longer what was
    read, ProvisioningError on a wrong passphrase or a tampered request. Nothing was signed or logged then.
    """
    said = disclosed_now(home)
    for issued in home.certificates().values():
        _refuse_taken(request, issued, said)
    name: Disclosure | None = None
    if request.kind == "person":
        request, name = _with_person_id(request, said)
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
    Whether the requester may have it is decided before. Raises: as `approve`.
    """
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
        _record(home, issued_entry(certificate, home, name), name)
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


def _record(home: ConsortiumHome, entry: Entry, name: Disclosure | None) -> None:
    """Log an issued certificate, the holder's name beside it; the name goes again when the log refuses."""
    if name is not None:
        home.disclosures().put(name)
    try:
        home.record(entry)
    except LogError:
        with home.log() as log:
            logged = any(each == entry for _, each in log.entries(kind=entry.kind))
        if name is not None and not logged:
            home.disclosures().erase(name.commitment)
        raise


def _with_person_id(request: Request, said: Disclosed) -> tuple[Request, Disclosure | None]:
    """The request under a person id; with the name to be kept, unless the person has an id already."""
    if PERSON_ID.fullmatch(request.name):
        raise OnboardingError(
            f"{request.name} is a person id; a first certificate is asked for by name, a further one is given by "
            "`zegel consortium renew`"
        )
    for known, called in said.names.items():
        if called.casefold() == request.name.casefold():
            return replace(request, name=known), None
    try:
        name = Disclosure.made(NAME, request.name, os.urandom)
    except AuditError as error:
        raise OnboardingError(f"{request.path}: {error}") from None
    return replace(request, name=person_id(os.urandom(8))), name


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
    issued = (holder.name, holder.organisation, holder.role, key_fingerprint(certificate))
    if issued != (request.name, request.organisation, request.role, request.fingerprint):
        raise OnboardingError(
            f"{request.path} was changed after it was looked at; nothing was issued. Look at it again"
        )


def _issue_person(home: ConsortiumHome, request: Request, passphrase: bytes, valid_days: int) -> x509.Certificate:
    root = home.root()
    now = home.clock().replace(microsecond=0)
    try:
        return issue_certificate(
            load_request(_person_value(request.path)["request"].encode("ascii")),
            name=request.name,
            organisation=request.organisation,
            role=request.role,
            root_cert=root,
            root_key=open_root_key(home.ca, passphrase),
            not_before=now,
            not_after=min(now + timedelta(days=valid_days), root.not_valid_after_utc),
        )
    except AuditError as error:
        raise OnboardingError(f"{request.path}: {error}") from None


def _person_value(path: Path) -> dict[str, Any]:
    value = parse_json_object(path.read_bytes(), str(path))
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
