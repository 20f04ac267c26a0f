"""Asking for a person's certificate: a key in a folder of their own, and the request that is handed on."""

from __future__ import annotations

from pathlib import Path

from cryptography.hazmat.primitives import serialization

from admin_api.errors import OnboardingError
from admin_api.founding import check_new_passphrase
from audit.canonical import canonical_json
from audit.certificates import PEOPLE
from audit.errors import AuditError
from audit.signing_keys import generate_person_key, make_request, private_key_pem
from jobs.federation.provisioning import write_private

PERSON_SCHEMA = "zegel/person-request/v1"


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
