"""People and a hospital who found and join a consortium through its pages, each with a browser of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from httpx2 import Response

from admin_api.web.certificates.fingerprint import TYPED_GROUPS, groups
from site_packages.home import SiteHome
from site_packages.installing import request_site
from tests.admin_api.consortium_folder import NAME, PASSPHRASE
from tests.admin_api.web.sign_in.conftest import Door
from tests.admin_api.web.sign_in.visitor import Visitor, decoded, enrolled, used

OFFICER = ("Pieter Privacy", "privacy_officer", "privacy_board")


def called_back(fingerprint: str) -> str:
    """What the holder reads out, as an admin might type it."""
    return " ".join(groups(fingerprint)[-TYPED_GROUPS:]).upper()


def sent(visitor: Visitor, method: str, path: str, *, etag: str | None = None, **body: Any) -> Response:
    """A request with a fresh key, and the ETag it is based on."""
    headers = {} if etag is None else {"If-Match": etag}
    headers = visitor._headers(headers)
    answer: Response = visitor.client.request(method, f"/api/v1{path}", headers=headers, **body)
    return answer


def uploaded(visitor: Visitor, path: str, data: bytes) -> Response:
    """A file as the body of a request."""
    headers = visitor._headers({"Content-Type": "application/octet-stream"})
    answer: Response = visitor.client.post(f"/api/v1{path}", content=data, headers=headers)
    return answer


def signed(visitor: Visitor, act: str, **parameters: Any) -> Response:
    """Prepare an act and sign it with the visitor's passkey; the first answer that is not what it should be."""
    prepared = visitor.post(f"/acts/{act}", parameters)
    if prepared.status_code != 201:
        return prepared
    body = prepared.json()
    assertion = used(visitor.passkey, {}, challenge=decoded(body["challenge"]))
    return visitor.post(f"/acts/{body['id']}/signature", {"assertion": assertion})


def asked_to_sign(visitor: Visitor) -> dict[str, Any]:
    """The request for a certificate of the visitor's passkey."""
    person = visitor.who()
    (passkey,) = visitor.client.get(f"/api/v1/people/{person}").json()["passkeys"]
    answer = sent(visitor, "POST", f"/people/{person}/passkeys/{passkey['credential']}/request")
    assert answer.status_code == 201, answer.text
    request: dict[str, Any] = answer.json()
    return request


def compared(admin: Visitor, request: dict[str, Any], fingerprint: str) -> dict[str, Any]:
    """The request after the telephone call."""
    answer = sent(
        admin, "POST", f"/requests/{request['id']}/comparison", etag=request["etag"],
        json={"groups": called_back(fingerprint)},
    )  # fmt: skip
    assert answer.status_code == 200, answer.text
    after: dict[str, Any] = answer.json()
    return after


def issued(admin: Visitor, request: dict[str, Any], passphrase: str = PASSPHRASE) -> Response:
    """Issue what was asked for."""
    return sent(
        admin, "POST", f"/requests/{request['id']}/certificate", etag=request["etag"], json={"passphrase": passphrase}
    )


def first_admin(door: Door) -> Visitor:
    """The one who founds: enrolled by a link, with a certificate by the root's passphrase alone."""
    ada = enrolled(door)
    answer = issued(ada, asked_to_sign(ada))
    assert answer.status_code == 201, answer.text
    return ada


def officer(door: Door, admin: Visitor) -> Visitor:
    """The second of them, of another organisation."""
    name, role, organisation = OFFICER
    pieter = enrolled(door, name, role, organisation=organisation)
    request = asked_to_sign(pieter)
    request = compared(admin, request, request["fingerprint"])
    answer = issued(admin, request)
    assert answer.status_code == 201, answer.text
    return pieter


def invited(admin: Visitor, site: str = "amstel", organisation: str = "amstel") -> dict[str, Any]:
    """The answer to an invitation: the invitation, its link."""
    answer = sent(
        admin, "POST", "/hospitals", json={"site": site, "organisation": organisation, "contact": f"Nel of {site}"}
    )
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


def contact(door: Door, admin: Visitor, site: str = "amstel") -> Visitor:
    """A hospital's contact who has opened their link."""
    visitor = Visitor(door.client())
    assert visitor.enrol(invited(admin, site)["link"]).status_code == 200
    visitor.carry_csrf()
    return visitor


def asked_at(folder: Path, site: str = "amstel", organisation: str | None = None, consortium: str = NAME) -> bytes:
    """A hospital's request, made on its own machine; its folder is `folder/site`."""
    made = request_site(SiteHome(folder / site), name=site, organisation=organisation or site, consortium=consortium)
    return made.read_bytes()
