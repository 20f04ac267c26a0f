"""The pages' forms: what a browser without scripts sends, and what it gets to see."""

from __future__ import annotations

import html
import re
from pathlib import Path
from typing import Any

from httpx2 import Response

from audit.certificates import CONSORTIUM_ADMIN, PRIVACY_OFFICER
from site_packages.home import SiteHome
from site_packages.installing import install
from site_packages.renewing import request_renewal
from tests.admin_api.consortium_folder import PASSPHRASE
from tests.admin_api.web.certificates.cast import asked_at, called_back, first_admin, issued, uploaded
from tests.admin_api.web.certificates.test_requests_api import visitor
from tests.admin_api.web.sign_in.conftest import Door
from tests.admin_api.web.sign_in.visitor import Visitor


def form(page: Response, action: str) -> dict[str, str]:
    """The hidden fields of a form on a page."""
    found = re.search(rf'<form[^>]*action="{re.escape(action)}".*?</form>', page.text, re.DOTALL)
    assert found, f"no form for {action} in {page.text[-6000:]}"
    hidden = re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)"', found[0])
    return {name: html.unescape(value) for name, value in hidden}


def sent_form(who: Visitor, action: str, fields: dict[str, str], **more: Any) -> Response:
    """As a browser sends it: the token is in the form and nowhere else."""
    token = who.client.headers.pop("X-CSRF-Token")
    try:
        answer: Response = who.client.post(action, data=fields, **more)
    finally:
        who.client.headers["X-CSRF-Token"] = token
    return answer


def filled(who: Visitor, page: Response, action: str, **fields: str) -> Response:
    """Send a form of a page; returns where it leads."""
    return sent_form(who, action, {**form(page, action), **fields})


def attached(who: Visitor, page: Response, action: str, name: str, data: bytes) -> Response:
    """The same with a file."""
    return sent_form(who, action, form(page, action), files={"file": (name, data)})


def test_a_hospital_joins_and_renews_by_forms_alone(door: Door, tmp_path: Path) -> None:
    ada = first_admin(door)
    page = filled(ada, ada.client.get("/hospitals/new"), "/hospitals/new",
                  site="amstel", organisation="amstel", contact="Nel <b>Amstel</b>", language="nl")  # fmt: skip
    assert page.status_code == 200
    assert page.headers["cache-control"] == "no-store"
    link = re.search(r"https://zegel\.example/enrol#[\w-]+", page.text)
    assert link and "<b>Amstel" not in page.text
    assert link[0] not in ada.client.get("/hospitals/amstel").text, "shown once"
    nel = Visitor(door.client())
    assert nel.enrol(link[0]).status_code == 200
    nel.carry_csrf()

    page = nel.client.get("/hospitals/amstel")
    assert "Stuur" in page.text or "Send" in page.text
    answer = attached(nel, page, "/hospitals/amstel/requests", "amstel.request.zip", asked_at(tmp_path))
    assert answer.status_code == 303, answer.text[-3000:]
    seen = nel.client.get(answer.headers["location"]).text
    request = answer.headers["location"].rpartition("/")[2]
    row = ada.client.get(f"/api/v1/requests/{request}").json()
    fingerprint = nel.client.get(f"/api/v1/hospitals/amstel/requests/{request}").json()["fingerprint"]
    assert all(group in seen for group in called_back(fingerprint).lower().split())
    page = ada.client.get(f"/requests/{request}")
    assert called_back(fingerprint).lower() not in page.text, "the admin has to hear them"
    wrong = filled(ada, page, f"/requests/{request}/comparison", groups="1111 1111 1111 1111")
    assert (wrong.status_code, "differ" in wrong.text) == (409, True)
    answer = filled(ada, page, f"/requests/{request}/comparison", groups=called_back(fingerprint))
    assert answer.status_code == 303
    stale = filled(ada, page, f"/requests/{request}/withdrawal")
    assert stale.status_code == 412, "the page showed an older state"
    page = ada.client.get(f"/requests/{request}")
    wrong = filled(ada, page, f"/requests/{request}/certificate", passphrase="no", valid_days="30")
    assert (wrong.status_code, "passphrase" in wrong.text) == (403, True)
    answer = filled(ada, page, f"/requests/{request}/certificate", passphrase=PASSPHRASE, valid_days="30")
    assert answer.status_code == 303, answer.text[-3000:]
    assert f"/api/v1/requests/{request}/reply" in ada.client.get(f"/requests/{request}").text
    page = nel.client.get(f"/hospitals/amstel/requests/{request}")
    reply = nel.client.get(f"/api/v1/hospitals/amstel/requests/{request}/reply")
    path = tmp_path / "amstel.signed.zip"
    path.write_bytes(reply.content)
    home = SiteHome(tmp_path / "amstel")
    install(home, path, fingerprint=door.here.home.config().root_fingerprint)
    assert row["further"] is False

    page = nel.client.get("/hospitals/amstel")
    renewal = request_renewal(home).read_bytes()
    answer = attached(nel, page, "/hospitals/amstel/requests", "amstel.request.zip", renewal)
    assert answer.status_code == 303, answer.text[-3000:]
    request = answer.headers["location"].rpartition("/")[2]
    assert ada.client.get(f"/api/v1/requests/{request}").json()["further"] is True
    own = nel.client.get(f"/api/v1/hospitals/amstel/requests/{request}").json()
    page = ada.client.get(f"/requests/{request}")
    filled(ada, page, f"/requests/{request}/comparison", groups=called_back(own["fingerprint"]))
    answer = issued(ada, ada.client.get(f"/api/v1/requests/{request}").json())
    assert answer.status_code == 201, answer.text
    assert len(ada.client.get("/api/v1/hospitals/amstel/certificates").json()) == 2


def test_every_page_opens_for_everybody_who_may(door: Door) -> None:
    admin = visitor(door, CONSORTIUM_ADMIN)
    officer = visitor(door, PRIVACY_OFFICER)
    page = filled(admin, admin.client.get("/hospitals/new"), "/hospitals/new",
                  site="amstel", organisation="amstel", contact="Nel", language="en")  # fmt: skip
    assert page.status_code == 200
    nel = visitor(door, "hospital_contact", hospital="amstel")
    for path in ("/hospitals", "/hospitals/amstel", "/hospitals/amstel/history"):
        for who in (admin, officer, nel):
            answer = who.client.get(path)
            assert answer.status_code == 200, f"{path}: {answer.text[-2000:]}"
            assert "style=" not in answer.text.partition("<main")[2]
    for path in ("/requests", "/requests?state=issued", "/certificates", "/certificates?state=good", "/people"):
        assert admin.client.get(path).status_code == officer.client.get(path).status_code == 200
        assert nel.client.get(path).status_code == 403
    assert "amstel" in admin.client.get("/hospitals").text
    assert admin.client.get("/hospitals?state=suspended&search=x&sort=-days").status_code == 200
    assert admin.client.get("/hospitals?after=nonsense").status_code == 422
    assert officer.client.get("/hospitals/new").status_code == 403
    page = admin.client.get("/hospitals/amstel")
    changed = filled(admin, page, "/hospitals/amstel/organisation", organisation="Amstel_ziekenhuis")
    assert changed.status_code == 303
    assert (
        filled(admin, page, "/hospitals/amstel/organisation", organisation="x", idempotency_key="another").status_code
        == 412
    )
    page = admin.client.get("/hospitals/amstel")
    assert "Amstel_ziekenhuis" in page.text
    again = filled(admin, page, "/hospitals/amstel/link")
    assert again.status_code == 200
    assert "enrol#" in again.text
    page = admin.client.get("/hospitals/amstel")
    assert filled(admin, page, "/hospitals/amstel/withdrawal").status_code == 303
    assert "withdrawn" in admin.client.get("/hospitals/amstel").text
    assert uploaded(admin, "/hospitals/amstel/requests", b"x").status_code == 404, "not invited any more"
