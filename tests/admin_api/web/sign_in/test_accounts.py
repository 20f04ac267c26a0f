"""Everybody's accounts: who may change them, over the API and in the pages; and what is forgotten."""

from __future__ import annotations

import re

import pytest
from sqlmodel import select

from admin_api.web.sign_in.accounts import account_of, lock
from admin_api.web.sign_in.tables import PasskeyRow, SessionRow, TokenRow
from tests.admin_api.web.sign_in.conftest import URL, Door
from tests.admin_api.web.sign_in.visitor import Visitor, enrolled, invited

WISH = {"name": "Pieter Privacy", "role": "privacy_officer", "organisation": "privacy board"}


def test_an_admin_invites_over_the_api(door: Door) -> None:
    ada = enrolled(door)
    answer = ada.post("/accounts", WISH)
    assert answer.status_code == 201, answer.text
    pieter = Visitor(door.client())
    assert pieter.enrol(answer.json()["link"]).status_code == 200
    assert pieter.who() == answer.json()["account"]["id"]
    (entry,) = [
        each for each in door.entries() if each.body["account"] == pieter.who() and each.body["by"] == ada.who()
    ]
    assert entry.body["method"] == "invited"


@pytest.mark.parametrize("role", ["privacy_officer", "release_manager", "authority", "hospital_contact"])
def test_nobody_else_does(door: Door, role: str) -> None:
    contact = {"organisation": "geul", "hospital": "geul"} if role == "hospital_contact" else {}
    visitor = enrolled(door, "Somebody", role, **contact)
    account = visitor.who()
    for path in (
        "",
        f"/{account}/link",
        f"/{account}/end",
        f"/{account}/lock",
        f"/{account}/unlock",
        f"/{account}/erase",
    ):
        assert visitor.post(f"/accounts{path}", WISH).status_code == 403, path
    for path in ("/api/v1/accounts", f"/api/v1/accounts/{account}", "/accounts"):
        assert visitor.client.get(path).status_code == 403, path


def test_a_link_is_shown_once(door: Door) -> None:
    ada = enrolled(door)
    headers = {"Idempotency-Key": "same"}
    assert ada.client.post("/api/v1/accounts", json=WISH, headers=headers).status_code == 201
    again = ada.client.post("/api/v1/accounts", json=WISH, headers=headers)
    assert (again.status_code, again.json()["type"]) == (409, "/problems/done-before")


def test_lists_in_pieces(door: Door) -> None:
    ada = enrolled(door)
    for number in range(5):
        invited(door, f"Person {number}", "authority")
    found: list[str] = []
    after = ""
    while True:
        page = ada.client.get(f"/api/v1/accounts?limit=2{after}").json()
        assert page["total"] == 6
        found += [each["id"] for each in page["items"]]
        if page["next"] is None:
            break
        after = f"&after={page['next']}"
    assert found == sorted(set(found))
    assert len(found) == 6
    assert ada.client.get("/api/v1/accounts?state=active").json()["total"] == 1


def test_what_is_missing_is_told(door: Door) -> None:
    ada = enrolled(door)
    nobody = "person-" + "0" * 16
    assert ada.client.get(f"/api/v1/accounts/{nobody}").status_code == 404
    assert ada.post(f"/accounts/{nobody}/end").status_code == 404
    assert ada.client.get("/api/v1/accounts/x' OR '1'='1").status_code == 422
    assert ada.post(f"/accounts/{ada.who()}/unlock").status_code == 409
    assert ada.post(f"/accounts/{ada.who()}/erase").status_code == 409


def test_changes_need_the_passkey_again(door: Door) -> None:
    ada = enrolled(door)
    door.clock.forward(minutes=6)
    for path in ("", f"/{ada.who()}/link", f"/{ada.who()}/lock", f"/{ada.who()}/end"):
        answer = ada.post(f"/accounts{path}", WISH)
        assert answer.json()["type"] == "/problems/confirm-first", path


def test_an_erased_account_is_forgotten_and_its_id_is_not(door: Door) -> None:
    ada, bob = enrolled(door), enrolled(door, "Bob Tweede")
    account = bob.who()
    assert account is not None
    assert ada.post(f"/accounts/{account}/end").json()["state"] == "ended"
    assert ada.post(f"/accounts/{account}/erase").json()["name"] is None
    with door.here.database.reading() as session:
        for table in (PasskeyRow, SessionRow, TokenRow):
            assert session.exec(select(table).where(table.account == account)).all() == []
    assert account_of(door.here.database, account).role == "consortium_admin"
    assert Visitor(door.client(), bob.passkey, bob.handle).sign_in().json()["detail"] == "the passkey was not accepted"
    assert "Bob Tweede" not in ada.client.get("/accounts").text


def test_an_admin_in_the_pages(door: Door) -> None:
    ada = enrolled(door)
    answer = ada.client.post("/accounts", data=WISH)
    assert answer.status_code == 200
    (link,) = set(re.findall(rf"{URL}/enrol#[A-Za-z0-9_-]{{43}}", answer.text))
    pieter = Visitor(door.client())
    assert pieter.enrol(link).status_code == 200
    page = ada.client.get("/accounts").text
    assert "Pieter Privacy" in page
    assert "2 passkeys wait for a certificate" in page
    assert link not in page
    assert ada.client.post(f"/accounts/{pieter.who()}/lock").headers["location"] == "/accounts"
    assert pieter.who() is None
    bad = ada.client.post("/accounts", data={**WISH, "role": "king"})
    assert (bad.status_code, "expected one of" in bad.text) == (409, True)


def test_a_locked_account_gets_no_link(door: Door) -> None:
    ada, bob = enrolled(door), enrolled(door, "Bob Tweede")
    account = bob.who()
    assert account is not None
    lock(door.here, account, by=None)
    answer = ada.post(f"/accounts/{account}/link")
    assert (answer.status_code, "unlock the account first" in answer.json()["detail"]) == (409, True)
