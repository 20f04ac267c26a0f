"""Requests that other sites make in somebody's browser."""

from __future__ import annotations

import pytest
from starlette.testclient import TestClient

from admin_api.web.sign_in.accounts import account_of
from tests.admin_api.web.sign_in.conftest import URL, Door
from tests.admin_api.web.sign_in.signed_in import sign_in_for_tests
from tests.admin_api.web.sign_in.visitor import Visitor


@pytest.fixture
def client(door: Door) -> TestClient:
    client = door.client()
    sign_in_for_tests(client, door.here, "authority")
    return client


def token(client: TestClient) -> str:
    return str(client.headers["X-CSRF-Token"])


def language(door: Door, client: TestClient) -> str:
    account = Visitor(client).who()
    assert account is not None
    return account_of(door.here.database, account).language


ALLOWED = {
    "our origin": {"Origin": URL},
    "no origin, but the browser's word": {"Sec-Fetch-Site": "same-origin"},
}
REFUSED = {
    "another origin": {"Origin": "https://evil.example"},
    "an origin that begins like ours": {"Origin": f"{URL}.evil.example"},
    "a subdomain": {"Origin": "https://app.zegel.example"},
    "our host without TLS": {"Origin": "http://zegel.example"},
    "our host at another port": {"Origin": f"{URL}:8443"},
    "no origin to speak of": {"Origin": "null"},
    "an empty origin": {"Origin": ""},
    "another site's page": {"Sec-Fetch-Site": "cross-site"},
    "a neighbour's page": {"Sec-Fetch-Site": "same-site"},
    "typed by hand": {"Sec-Fetch-Site": "none"},
    "nothing said": {},
    "another origin, whatever else": {"Origin": "https://evil.example", "Sec-Fetch-Site": "same-origin"},
}


def sent(client: TestClient, headers: dict[str, str], csrf: str | None) -> int:
    client.headers.pop("Origin", None)
    secret = client.headers.pop("X-CSRF-Token")
    try:
        form = {"language": "nl"} if csrf is None else {"language": "nl", "csrf": csrf}
        return client.post("/account/language", data=form, headers=headers).status_code
    finally:
        client.headers["X-CSRF-Token"] = secret


@pytest.mark.parametrize("case", ALLOWED, ids=str)
def test_our_own_pages_may(door: Door, client: TestClient, case: str) -> None:
    assert sent(client, ALLOWED[case], token(client)) == 303
    assert language(door, client) == "nl"


@pytest.mark.parametrize("case", REFUSED, ids=str)
def test_others_may_not_even_with_the_token(door: Door, client: TestClient, case: str) -> None:
    assert sent(client, REFUSED[case], token(client)) == 403
    assert language(door, client) == "en"
    assert ("refused", "session", "cross-site", "1") in door.said()


@pytest.mark.parametrize("lie", [None, "", "x", "A" * 43], ids=repr)
def test_our_own_pages_need_the_token(door: Door, client: TestClient, lie: str | None) -> None:
    assert sent(client, {"Origin": URL}, lie) == 403
    assert language(door, client) == "en"


def test_another_sessions_token_does_not_do(door: Door, client: TestClient) -> None:
    other = door.client()
    sign_in_for_tests(other, door.here, "consortium_admin")
    assert sent(client, {"Origin": URL}, token(other)) == 403


def test_the_token_in_a_multipart_form(door: Door, client: TestClient) -> None:
    secret = client.headers.pop("X-CSRF-Token")
    for said, expected in ((secret, 303), ("wrong", 403)):
        form = {"csrf": said, "language": "nl"}
        answer = client.post("/account/language", data=form, files={"file": ("a.bin", bytes(200_000))})
        assert answer.status_code == expected
    assert client.post(
        "/account/language", content=b"\r\n--x\r\n", headers={"Content-Type": "multipart/form-data; boundary=x"}
    ).status_code == 403  # fmt: skip


def test_the_header_does_for_scripts(door: Door, client: TestClient) -> None:
    answer = client.patch("/api/v1/account", json={"language": "nl"}, headers={"Idempotency-Key": "1"})
    assert answer.json()["language"] == "nl"
    client.headers["X-CSRF-Token"] = "another"
    assert client.patch("/api/v1/account", json={"language": "en"}, headers={"Idempotency-Key": "2"}).status_code == 403


def test_reading_needs_neither(client: TestClient) -> None:
    client.headers.pop("X-CSRF-Token")
    assert client.get("/api/v1/session", headers={"Origin": "https://evil.example"}).status_code == 200


def test_signing_somebody_in_from_elsewhere(door: Door) -> None:
    """Login CSRF: another site cannot begin or finish a sign-in in the victim's browser."""
    visitor = Visitor(door.client())
    visitor.client.headers["Origin"] = "https://evil.example"
    assert visitor.post("/sign-in/options").status_code == 403
    assert visitor.post("/enrolment/options", {"link": "x"}).status_code == 403


def test_signing_somebody_out_from_elsewhere(client: TestClient) -> None:
    client.headers.pop("X-CSRF-Token")
    assert client.post("/sign-out", headers={"Origin": "https://evil.example"}).status_code == 403
    assert Visitor(client).who() is not None


def test_a_form_is_answered_once_and_its_key_still_counts(client: TestClient) -> None:
    """What the middleware reads, the route reads again."""
    secret = client.headers.pop("X-CSRF-Token")
    form = {"csrf": secret, "language": "nl", "idempotency_key": "once"}
    first, second = (client.post("/account/language", data=form) for _ in range(2))
    assert first.status_code == second.status_code == 303
    assert second.headers["idempotency-replayed"] == "true"
