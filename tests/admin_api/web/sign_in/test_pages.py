"""The pages of sign-in, without a browser: what they show, what their forms do, and what cannot get into them."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest

from tests.admin_api.web.sign_in.conftest import Door
from tests.admin_api.web.sign_in.signed_in import account_for_tests, sign_in_for_tests
from tests.admin_api.web.sign_in.visitor import Visitor, enrolled
from tests.passkey import base64url


@pytest.mark.parametrize("path", ["/sign-in", "/sign-in?next=/plans", "/enrol"])
@pytest.mark.parametrize("language", ["en", "nl"])
def test_pages_for_anybody(door: Door, path: str, language: str) -> None:
    answer = door.client().get(path, headers={"Accept-Language": language})
    assert answer.status_code == 200
    assert f'<html lang="{language}"' in answer.text
    assert "passkey.js" in answer.text
    assert "set-cookie" not in answer.headers


def test_where_to_go_next_is_escaped_and_ours(door: Door) -> None:
    answer = door.client().get("/sign-in", params={"next": '/"><script>alert(1)</script>'})
    assert "<script>alert" not in answer.text
    assert 'data-next="/plans"' in door.client().get("/sign-in?next=/plans").text
    assert 'data-next="/"' in door.client().get("/sign-in?next=//evil.example").text


def test_pages_for_somebody(door: Door) -> None:
    ada = enrolled(door)
    for path in ("/account", "/accounts", "/sign-in/confirm?next=/account"):
        answer = ada.client.get(path)
        assert answer.status_code == 200, answer.text
        assert answer.headers["cache-control"] == "no-store"
    for path in ("/account", "/accounts", "/sign-in/confirm"):
        assert door.client().get(path).headers["location"].startswith("/sign-in?next=")


def test_the_account_page_says_what_its_passkeys_may(door: Door) -> None:
    ada = enrolled(door, "Ada <script>alert(1)</script> Beheer")
    page = ada.client.get("/account").text
    assert "You cannot sign approvals yet" in page
    assert "<script>alert" not in page
    contact = enrolled(door, "Greet", "hospital_contact", organisation="geul", hospital="geul")
    assert "You are a contact of geul" in contact.client.get("/account").text
    elsewhere = door.client()
    sign_in_for_tests(elsewhere, door.here, "authority", via="oidc")
    assert "so you can read but not sign" in elsewhere.get("/account").text


def test_forms_do_what_they_say(door: Door) -> None:
    ada = enrolled(door)
    other = Visitor(door.client(), ada.passkey, ada.handle)
    other.sign_in()
    first = base64url(ada.passkey.credential_id)
    assert ada.client.post(f"/account/passkeys/{first}/rename", data={"name": "desk"}).status_code == 303
    assert "desk" in ada.client.get("/account").text
    refused = ada.client.post(f"/account/passkeys/{first}/remove")
    assert (refused.status_code, "only passkey" in refused.text) == (409, True)
    assert ada.client.post("/account/language", data={"language": "nl"}).status_code == 303
    session = next(each["id"] for each in ada.client.get("/api/v1/account/sessions").json() if not each["here"])
    assert ada.client.post(f"/account/sessions/{session}/end").status_code == 303
    assert other.who() is None
    assert ada.client.post("/account/sessions/end").headers["location"] == "/sign-in"
    assert ada.who() is None


def test_a_token_made_in_the_page_is_shown_once(door: Door) -> None:
    client = door.client()
    sign_in_for_tests(client, door.here, "authority")
    last_day = (door.clock.now + timedelta(days=30)).date().isoformat()
    form = {"name": "nightly <b>", "scope": ["today:read", "session.read"], "ends": last_day, "idempotency_key": "k"}
    made = client.post("/account/tokens", data=form)
    assert made.status_code == 200, made.text
    (secret,) = set(re.findall(r"zegel_[A-Za-z0-9_-]{43}", made.text))
    assert door.client().get("/api/v1/session", headers={"Authorization": f"Bearer {secret}"}).status_code == 200
    assert client.post("/account/tokens", data=form).status_code == 409
    page = client.get("/account").text
    assert secret not in page
    assert "nightly &lt;b&gt;" in page
    token = re.search(r"/account/tokens/(token-[0-9a-f]{16})/revoke", page)
    assert token is not None
    assert client.post(f"/account/tokens/{token[1]}/revoke").status_code == 303
    assert door.client().get("/api/v1/session", headers={"Authorization": f"Bearer {secret}"}).status_code == 401
    for bad in ("2026-02-30", "tomorrow", "9999-12-31"):
        answer = client.post("/account/tokens", data={**form, "ends": bad, "idempotency_key": bad})
        assert answer.status_code in (409, 422), bad


def test_the_language_of_the_account_is_read(door: Door) -> None:
    client = door.client()
    sign_in_for_tests(client, door.here, "authority")
    client.post("/account/language", data={"language": "nl"})
    assert '<html lang="nl"' in client.get("/account").text
    assert client.post("/account/language", data={"language": "xx"}).status_code == 409


def test_signing_out_twice_is_fine(door: Door) -> None:
    client = door.client()
    sign_in_for_tests(client, door.here, "authority")
    assert client.post("/sign-out").status_code == 303
    assert client.post("/sign-out").status_code == 303
    assert door.client().post("/sign-out").status_code == 303


def test_an_account_for_tests_is_shown(door: Door) -> None:
    admin = door.client()
    sign_in_for_tests(admin, door.here, "consortium_admin")
    invited = account_for_tests(door.here, "privacy_officer", state="invited")
    assert invited.id in admin.get("/accounts").text
