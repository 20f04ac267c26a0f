"""People who sign with passkeys: enrolled and signing by the real flow, only the browser is software."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from admin_api.onboarding import approve
from admin_api.passkeys import PasskeyHolder, PasskeyRequest, open_passkey, public_key_of_cose, write_passkey_request
from admin_api.renewing import renew
from admin_api.signing import Prepared, Signer, complete, prepare
from audit.certificates import certificate_digest, load_certificate
from jobs.home import ConsortiumHome
from tests.admin_api.consortium_folder import PASSPHRASE, PEOPLE, agreed
from tests.passkey import SoftwarePasskey

T = TypeVar("T")
RP = "consortium.example"


def asked_with(passkey: SoftwarePasskey, who: str, path: Path) -> Path:
    """A request for a certificate, signed by the new passkey."""
    name, organisation, role = PEOPLE[who]
    request = PasskeyRequest(name, organisation, role, passkey.relying_party, public_key_of_cose(passkey.cose))
    return write_passkey_request(path, request, *passkey.assertion(request.challenge))


def enrol_passkey(home: ConsortiumHome, who: str, passkey: SoftwarePasskey, folder: Path) -> PasskeyHolder:
    """The holder of a passkey's new certificate; beside the person's key in a file when they have one."""
    folder.mkdir(parents=True, exist_ok=True)
    request = agreed(home, asked_with(passkey, who, folder / "passkey.request.json"))
    out = folder / "passkey.crt"
    issue = renew if (folder / "person.crt").exists() else approve
    issue(home, request, passphrase=PASSPHRASE.encode(), out=out)
    return open_passkey(home, certificate_digest(load_certificate(out.read_bytes())))


def asked_to_sign(home: ConsortiumHome, holder: PasskeyHolder, act: Callable[[Signer], object]) -> Prepared:
    """The first step; there must be something to sign."""
    prepared = prepare(holder, act, now=home.clock())
    assert prepared is not None
    return Prepared.from_bytes(prepared.to_bytes())  # as the server keeps it


def signed_with(home: ConsortiumHome, holder: PasskeyHolder, passkey: SoftwarePasskey, act: Callable[[Signer], T]) -> T:
    """Both steps, the browser's between them."""
    prepared = asked_to_sign(home, holder, act)
    signature, assertion = passkey.assertion(prepared.challenge)
    return complete(holder, act, prepared, signature=signature, assertion=assertion, now=home.clock())
