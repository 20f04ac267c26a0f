"""A person at a browser: a TestClient with passkeys in software, going through ceremonies as static/passkey.js does."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from httpx2 import Response
from starlette.testclient import TestClient

from admin_api.web.sign_in.accounts import Invitation, invite
from tests.admin_api.web.sign_in.conftest import Door
from tests.passkey import P256, SoftwarePasskey, base64url

HOST = "zegel.example"


def decoded(text: str) -> bytes:
    import base64

    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def made(passkey: SoftwarePasskey, options: dict[str, Any], **said: Any) -> dict[str, Any]:
    """A registration in its JSON form."""
    client_data, attestation = passkey.register(decoded(options["challenge"]))
    if said:
        client_data = passkey.client_data(decoded(options["challenge"]), **{"type": "webauthn.create", **said})
    credential = base64url(passkey.credential_id)
    return {
        "id": credential,
        "rawId": credential,
        "type": "public-key",
        "response": {
            "clientDataJSON": base64url(client_data),
            "attestationObject": base64url(attestation),
            "transports": ["internal"],
        },
        "clientExtensionResults": {},
    }


def used(
    passkey: SoftwarePasskey,
    options: dict[str, Any],
    *,
    handle: str | None = None,
    challenge: bytes | None = None,
    **said: Any,
) -> dict[str, Any]:
    """An assertion in its JSON form; `said` changes what the client data says."""
    signature, assertion = passkey.assertion(decoded(options["challenge"]) if challenge is None else challenge, **said)
    credential = base64url(passkey.credential_id)
    return {
        "id": credential,
        "rawId": credential,
        "type": "public-key",
        "response": {
            "clientDataJSON": base64url(assertion.client_data),
            "authenticatorData": base64url(assertion.authenticator_data),
            "signature": base64url(signature),
            "userHandle": handle,
        },
        "clientExtensionResults": {},
    }


@dataclass
class Visitor:
    """Somebody with a browser and a passkey. `handle` is what the passkey remembers the account by."""

    client: TestClient
    passkey: SoftwarePasskey = field(default_factory=lambda: SoftwarePasskey(HOST))
    handle: str | None = None

    def post(self, path: str, body: object = None, **headers: str) -> Response:
        """A request to the API with a fresh key."""
        response: Response = self.client.post(f"/api/v1{path}", json=body, headers=self._headers(headers))
        return response

    def delete(self, path: str) -> Response:
        response: Response = self.client.delete(f"/api/v1{path}", headers=self._headers({}))
        return response

    def _headers(self, more: dict[str, str]) -> dict[str, str]:
        return {"Idempotency-Key": uuid4().hex, **more}

    def options(self, path: str, body: object = None) -> dict[str, Any]:
        answer = self.post(path, body)
        assert answer.status_code == 200, answer.text
        options: dict[str, Any] = answer.json()["publicKey"]
        return options

    def enrol(self, link: str, name: str = "laptop") -> Response:
        """All three steps of a one-time link; returns the last answer, or the first that is not what it should be."""
        opened = self.post("/enrolment/options", {"link": link.partition("#")[2]})
        if opened.status_code != 200:
            return opened
        options = opened.json()["publicKey"]
        self.handle = options["user"]["id"]
        registered = self.post("/enrolment", {"credential": made(self.passkey, options), "name": name})
        if registered.status_code != 200:
            return registered
        return self.post("/enrolment/proof", {"credential": used(self.passkey, registered.json()["publicKey"])})

    def sign_in(self, **said: Any) -> Response:
        options = self.options("/sign-in/options")
        return self.post("/sign-in", {"credential": used(self.passkey, options, handle=self.handle, **said)})

    def carry_csrf(self) -> None:
        """From now on send the session's token, as the pages do."""
        self.client.headers["X-CSRF-Token"] = self.client.get("/api/v1/session").json()["csrf"]

    def who(self) -> str | None:
        """The account that the browser is signed in with."""
        answer = self.client.get("/api/v1/session")
        return answer.json()["account"] if answer.status_code == 200 else None


def invited(door: Door, name: str = "Ada Beheer", role: str = "consortium_admin", **fields: Any) -> Invitation:
    return invite(door.here, **({"name": name, "role": role, "organisation": "bureau"} | fields))


def enrolled(
    door: Door, name: str = "Ada Beheer", role: str = "consortium_admin", *, algorithm: str = P256, **fields: Any
) -> Visitor:
    """Somebody who opened their link and is signed in."""
    visitor = Visitor(door.client(), SoftwarePasskey(HOST, algorithm))
    answer = visitor.enrol(invited(door, name, role, **fields).link)
    assert answer.status_code == 200, answer.text
    visitor.carry_csrf()
    return visitor
