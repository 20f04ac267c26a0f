"""API tokens: scope, ends, revocation, and what no token may."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from starlette.testclient import TestClient

from admin_api.web.access import ACCESS
from admin_api.web.sign_in.accounts import end_account
from admin_api.web.sign_in.rates import FAILING
from admin_api.web.sign_in.tables import TokenRow
from admin_api.web.sign_in.tokens import PERSONAL, PREFIX, scopes_on_offer
from tests.admin_api.web.sign_in.conftest import URL, Door
from tests.admin_api.web.sign_in.signed_in import sign_in_for_tests
from tests.admin_api.web.sign_in.visitor import Visitor


def maker(door: Door, role: str = "consortium_admin") -> Visitor:
    client = door.client()
    sign_in_for_tests(client, door.here, role)
    return Visitor(client)


def wish(door: Door, *scope: str, days: float = 30) -> dict[str, Any]:
    return {"name": "nightly", "scope": list(scope), "ends": (door.clock.now + timedelta(days=days)).isoformat()}


def token(door: Door, visitor: Visitor, *scope: str, days: float = 30) -> dict[str, Any]:
    answer = visitor.post("/account/tokens", wish(door, *scope, days=days))
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


def machine(door: Door, secret: str) -> TestClient:
    client = TestClient(door.app, base_url=URL, follow_redirects=False)
    client.headers["Authorization"] = f"Bearer {secret}"
    return client


def test_a_token_is_shown_once_and_kept_as_a_digest(door: Door) -> None:
    visitor = maker(door)
    made = token(door, visitor, "today:read")
    assert made["secret"].startswith(PREFIX)
    assert len(made["secret"]) == 49
    (shown,) = visitor.client.get("/api/v1/account/tokens").json()
    assert "secret" not in shown
    with door.here.database.reading() as session:
        row = session.get(TokenRow, made["id"])
        assert row is not None
        assert made["secret"] not in (row.digest, row.name, row.scope)
    assert ("granted", "token-made") in door.said()


def test_the_answer_with_the_secret_is_not_given_twice(door: Door) -> None:
    visitor = maker(door)
    headers = {"Idempotency-Key": "same"}
    body = wish(door, "today:read")
    assert visitor.client.post("/api/v1/account/tokens", json=body, headers=headers).status_code == 201
    again = visitor.client.post("/api/v1/account/tokens", json=body, headers=headers)
    assert (again.status_code, again.json()["type"]) == (409, "/problems/done-before")
    assert len(visitor.client.get("/api/v1/account/tokens").json()) == 1


def test_within_its_scope_and_not_outside(door: Door) -> None:
    visitor = maker(door)
    client = machine(door, token(door, visitor, "today:read")["secret"])
    assert client.get("/api/v1/today").status_code == 200
    refused = client.get("/api/v1/session")
    assert (refused.status_code, refused.json()["type"]) == (403, "/problems/scope")
    everything = machine(door, token(door, visitor, "*:read")["secret"])
    assert everything.get("/api/v1/session").json()["via"] == "token"
    assert everything.get("/api/v1/today").status_code == 200
    by_name = machine(door, token(door, visitor, "session.read")["secret"])
    assert by_name.get("/api/v1/session").status_code == 200
    assert by_name.get("/api/v1/today").status_code == 403


def test_no_token_enters_accounts(door: Door) -> None:
    client = machine(door, token(door, maker(door), "*:read")["secret"])
    headers = {"Idempotency-Key": "1"}
    for path in ("/api/v1/account", "/api/v1/account/tokens", "/api/v1/accounts", "/account", "/accounts"):
        assert client.get(path).status_code == 403, path
    assert client.post("/api/v1/account/tokens", json=wish(door, "*:read"), headers=headers).status_code == 403
    assert client.post("/api/v1/sign-in/confirm/options", headers=headers).status_code == 403
    assert client.delete("/api/v1/session", headers=headers).status_code == 403


BAD_SCOPES = [
    "nothing",
    "nothing:read",
    "account:read",
    "accounts:write",
    "account.tokens.make",
    "*:write",
    "sign-in:write",
]


@pytest.mark.parametrize("scope", BAD_SCOPES)
def test_scopes_that_cannot_be(door: Door, scope: str) -> None:
    answer = maker(door).post("/account/tokens", wish(door, scope))
    assert answer.status_code in (409, 422)
    assert answer.headers["content-type"] == "application/problem+json"


def test_what_is_on_offer_can_be_had(door: Door) -> None:
    visitor = maker(door, "release_manager")
    offered = visitor.client.get("/api/v1/account/tokens/scopes").json()
    assert offered == scopes_on_offer("release_manager")
    assert not {each.partition(":")[0] for each in offered} & PERSONAL
    assert token(door, visitor, *offered)["scope"] == offered


@pytest.mark.parametrize("days", [-1, 0, 367])
def test_ends_that_cannot_be(door: Door, days: int) -> None:
    answer = maker(door).post("/account/tokens", wish(door, "today:read", days=days))
    assert answer.status_code == 409
    assert "366 days" in answer.json()["detail"]


def test_a_token_may_no_more_than_its_maker(door: Door) -> None:
    contact = maker(door, "hospital_contact")
    client = machine(door, token(door, contact, "*:read")["secret"])
    said = client.get("/api/v1/session").json()
    assert (said["role"], said["hospital"], said["csrf"]) == ("hospital_contact", "amstel", "")
    admins_only = next(
        name for name, row in ACCESS.items()
        if row.roles == frozenset({"consortium_admin"}) and name.split(".")[0] in PERSONAL
    )  # fmt: skip
    assert admins_only
    assert client.get("/api/v1/accounts").status_code == 403


def test_ends_revocation_and_the_makers_end(door: Door) -> None:
    admin = maker(door)
    first, second, third = (token(door, admin, "today:read", days=days) for days in (1, 30, 30))
    clients = [machine(door, each["secret"]) for each in (first, second, third)]
    assert [each.get("/api/v1/today").status_code for each in clients] == [200, 200, 200]
    assert admin.delete(f"/account/tokens/{second['id']}").status_code == 204
    door.clock.forward(days=1)
    assert [each.get("/api/v1/today").status_code for each in clients] == [401, 401, 200]
    sign_in_for_tests(door.client(), door.here, "consortium_admin", organisation="elsewhere")
    shown = clients[2].get("/api/v1/today")
    assert shown.status_code == 200
    with door.here.database.reading() as session:
        row = session.get(TokenRow, third["id"])
        assert row is not None
    end_account(door.here, row.account, by=None)
    assert clients[2].get("/api/v1/today").status_code == 401
    assert ("ended", "token-revoked") in door.said()


def test_refusals_are_told_alike(door: Door) -> None:
    visitor = maker(door)
    made = token(door, visitor, "today:read")
    visitor.delete(f"/account/tokens/{made['id']}")
    texts = set()
    for secret in (made["secret"], PREFIX + "A" * 43, "zegel_", "", "x" * 10_000):
        answer = machine(door, secret).get("/api/v1/today")
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"].startswith("Bearer")
        texts.add(answer.json()["detail"])
    assert len(texts) == 1


def test_guessing_runs_out(door: Door) -> None:
    client = machine(door, PREFIX + "A" * 43)
    answers = [client.get("/api/v1/today").status_code for _ in range(FAILING.burst + 1)]
    assert answers == [401] * FAILING.burst + [429]


def test_a_token_outweighs_a_cookie_and_needs_no_csrf(door: Door) -> None:
    visitor = maker(door)
    made = token(door, visitor, "today:read")
    visitor.client.headers["Authorization"] = f"Bearer {made['secret']}"
    assert visitor.client.get("/api/v1/account").status_code == 403
    visitor.client.headers["Authorization"] = f"Bearer {PREFIX}{'A' * 43}"
    assert visitor.client.get("/api/v1/account").status_code == 401
    client = machine(door, made["secret"])
    answer = client.patch("/api/v1/account", json={"language": "nl"}, headers={"Idempotency-Key": "1"})
    assert answer.json()["type"] == "/problems/scope", "it got past CSRF, and no further"


def test_making_one_needs_the_passkey_again(door: Door) -> None:
    visitor = maker(door)
    door.clock.forward(minutes=6)
    answer = visitor.post("/account/tokens", wish(door, "today:read"))
    assert (answer.status_code, answer.json()["type"]) == (403, "/problems/confirm-first")


def test_nobody_revokes_somebody_elses(door: Door) -> None:
    made = token(door, maker(door), "today:read")
    assert maker(door, "authority").delete(f"/account/tokens/{made['id']}").status_code == 404
    assert machine(door, made["secret"]).get("/api/v1/today").status_code == 200


def test_not_too_many(door: Door) -> None:
    visitor = maker(door)
    for _ in range(20):
        token(door, visitor, "today:read")
    answer = visitor.post("/account/tokens", wish(door, "today:read"))
    assert (answer.status_code, "revoke one first" in answer.json()["detail"]) == (409, True)
