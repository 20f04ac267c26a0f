"""What was checked about a request, one by one, in words: what an admin reads before anything is decided.

The checks are for people: issuing judges again by itself (`admin_api.onboarding`), on what the log holds then.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from pydantic import BaseModel, Field

from admin_api.errors import NotKnown, OnboardingError
from admin_api.onboarding import Request
from admin_api.passkeys import read_passkey_request
from admin_api.reading import certificates as held
from admin_api.web.certificates import requests
from admin_api.web.certificates.tables import RequestRow
from admin_api.web.context import Workplace
from admin_api.web.language import _
from audit.certificates import CLIENT, PEOPLE
from audit.errors import CertificateError
from audit.revocation import REVOKED, SUSPENDED
from audit.signing_keys import load_request

PASSED, FAILED, WAITING = "passed", "failed", "waiting"
MIN_RSA_BITS = 2048


class Check(BaseModel):
    """One check of a request."""

    name: str = Field(examples=["key"])
    state: str = Field(examples=[PASSED], description="passed, failed or waiting (for a person)")
    label: str = Field(examples=["Kind and strength of the key"])
    words: str = Field(examples=["RSA with 2048 bits."])


def checks_of(here: Workplace, row: RequestRow, asked: Request, *, expected_organisation: str | None) -> list[Check]:
    """Every check, in the order in which people read them.

    `expected_organisation`: of the invitation or the account; None when there is neither.
    """
    return [
        *_of_file(here, row, asked),
        _organisation(asked, expected_organisation),
        *_of_holder(here, row, asked),
        _new_key(here, row),
        _compared(row),
    ]


def _of_file(here: Workplace, row: RequestRow, asked: Request) -> Iterator[Check]:
    try:
        kind, signed = _key(row, asked)
    except (CertificateError, OnboardingError, ValueError, KeyError, OSError, UnsupportedAlgorithm) as error:
        yield Check(name="file", state=FAILED, label=_("The file"), words=str(error).replace(str(asked.path), "it"))
        return
    yield Check(
        name="file", state=PASSED, label=_("The file"), words=_("It has the shape of a request and nothing else in it.")
    )
    if row.kind == requests.SITE:
        wanted, got = here.home.config().name, _project(asked)
        yield Check(
            name="consortium",
            state=PASSED if wanted == got else FAILED,
            label=_("For this consortium"),
            words=_("It names %(name)s.", name=got)
            if wanted == got
            else _("It names %(got)s; this is %(wanted)s.", got=got, wanted=wanted),
        )
    yield Check(
        name="possession",
        state=PASSED if signed else FAILED,
        label=_("Holds the private key"),
        words=_("The request is signed with the key it asks for.")
        if signed
        else _("The request is not signed with the key it asks for."),
    )
    yield kind


def _key(row: RequestRow, asked: Request) -> tuple[Check, bool]:
    """The check of the key's kind, and whether the request is signed with it."""
    if row.kind == requests.PASSKEY:
        key: object = read_passkey_request(asked.path.read_bytes(), str(asked.path)).key  # checks its signature
        signed = True
    else:
        if row.kind == requests.SITE:
            with zipfile.ZipFile(asked.path) as archive:
                csr = load_request(archive.read(f"{asked.name}.csr"))
        else:
            csr = load_request(json.loads(asked.path.read_bytes())["request"].encode("ascii"))
        key, signed = csr.public_key(), csr.is_signature_valid
    if isinstance(key, rsa.RSAPublicKey):
        strong, words = key.key_size >= MIN_RSA_BITS, _("RSA with %(bits)s bits.", bits=key.key_size)
    elif isinstance(key, ec.EllipticCurvePublicKey):
        strong, words = isinstance(key.curve, ec.SECP256R1), _("Elliptic curve %(curve)s.", curve=key.curve.name)
    else:
        strong, words = isinstance(key, ed25519.Ed25519PublicKey), type(key).__name__.removesuffix("PublicKey")
    if not strong:
        words += " " + _("Expected RSA of at least 2048 bits, P-256 or Ed25519.")
    return Check(
        name="key", state=PASSED if strong else FAILED, label=_("Kind and strength of the key"), words=words
    ), (signed)


def _project(asked: Request) -> str:
    with zipfile.ZipFile(asked.path) as archive:
        return str(json.loads(archive.read("request.json")).get("project"))


def _organisation(asked: Request, expected: str | None) -> Check:
    label = _("Organisation")
    if expected is None:
        said = asked.organisation
        words = _("It says %(organisation)s; nobody was invited, so compare it yourself.", organisation=said)
        return Check(name="organisation", state=WAITING, label=label, words=words)
    if expected == asked.organisation:
        return Check(name="organisation", state=PASSED, label=label, words=asked.organisation)
    words = _("It says %(got)s; expected %(wanted)s.", got=asked.organisation, wanted=expected)
    return Check(name="organisation", state=FAILED, label=label, words=words)


def _of_holder(here: Workplace, row: RequestRow, asked: Request) -> Iterator[Check]:
    """Whether the name is free, or the holder's own."""
    label, now = _("The name"), here.now()
    holders = {row.holder, asked.name} - {""}
    if row.role in PEOPLE:
        wanted = asked.name.casefold()
        holders |= {known for known, called in here.reading.names().items() if called.casefold() == wanted}
    found = [each for holder in sorted(holders) for each in held.of_holder(here.reading, holder, now=now)]
    own = [each for each in found if each.role == row.role and each.organisation == row.organisation]
    roles = PEOPLE if row.role in PEOPLE else {CLIENT}
    if not found:
        yield Check(name="name", state=PASSED, label=label, words=_("Nobody has it yet."))
    elif any(each.role not in roles for each in found):
        yield Check(name="name", state=FAILED, label=label, words=_("It belongs to somebody else here."))
    elif not own and row.role not in PEOPLE:
        words = _("A hospital of that name is here already, of %(organisation)s.", organisation=found[0].organisation)
        yield Check(name="name", state=FAILED, label=label, words=words)
    else:
        words = _("A further certificate for a holder who has one: a renewal, or another key.")
        yield Check(name="name", state=PASSED, label=label, words=words)
        barred = [each for each in found if each.state in (SUSPENDED, REVOKED)]
        if barred:
            words = _("A certificate of this holder is %(state)s; reinstate it first.", state=barred[0].state)
            yield Check(name="standing", state=FAILED, label=_("Standing"), words=words)


def _new_key(here: Workplace, row: RequestRow) -> Check:
    label = _("A key of its own")
    try:
        known = held.by_key(here.reading, row.fingerprint, now=here.now())
    except NotKnown:
        return Check(name="new-key", state=PASSED, label=label, words=_("No certificate was issued for it before."))
    if known.digest == row.certificate:
        return Check(name="new-key", state=PASSED, label=label, words=_("Its certificate is this request's."))
    words = _("%(name)s has a certificate for the same key.", name=known.name)
    return Check(name="new-key", state=FAILED, label=label, words=words)


def _compared(row: RequestRow) -> Check:
    label = _("Fingerprint read back by telephone")
    if row.compared is None:
        words = _("Nobody has compared it with the holder yet.")
        return Check(name="fingerprint", state=WAITING, label=label, words=words)
    return Check(name="fingerprint", state=PASSED, label=label, words=_("It is the same."))


def failed(checks: list[Check]) -> list[Check]:
    """The checks that speak against issuing."""
    return [check for check in checks if check.state == FAILED]
