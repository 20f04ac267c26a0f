"""Sessions: cookies, fixation, ends, re-authentication; and where a visitor may be sent."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlmodel import select

from admin_api.web.settings import Settings
from admin_api.web.sign_in.accounts import end_account, lock, unlock
from admin_api.web.sign_in.errors import SignInError
from admin_api.web.sign_in.sessions import IDLE, LONGEST, device_of, find_session
from admin_api.web.sign_in.site import cookie_name, origin_of, safe_next
from admin_api.web.sign_in.tables import SessionRow
from tests.admin_api.web.sign_in.conftest import Door
from tests.admin_api.web.sign_in.signed_in import account_for_tests, sign_in_for_tests
from tests.admin_api.web.sign_in.visitor import Visitor, enrolled, used

SESSION = "__Host-zegel-session"


def rows(door: Door) -> list[SessionRow]:
    with door.here.database.reading() as session:
        return list(session.exec(select(SessionRow)))


def test_the_cookie(door: Door) -> None:
    ada = enrolled(door)
    answer = Visitor(door.client(), ada.passkey, ada.handle).sign_in()
    (cookie,) = [each for each in answer.headers.get_list("set-cookie") if each.startswith(SESSION)]
    attributes = {part.strip().partition("=")[0].lower() for part in cookie.split(";")[1:]}
    assert {"secure", "httponly", "path", "samesite", "max-age"} <= attributes
    assert "domain" not in attributes
    assert "SameSite=lax" in cookie
    assert "Path=/;" in cookie


def test_only_digests_are_kept(door: Door) -> None:
    ada = enrolled(door)
    secret = ada.client.cookies[SESSION]
    assert len(secret) == 43
    assert all(secret not in (row.id, row.csrf) for row in rows(door))


def test_a_session_that_was_planted_is_not_taken_over(door: Door) -> None:
    """Fixation: whatever the browser held before, signing in gives it a new session, and ends the old one."""
    ada = enrolled(door)
    mallory = Visitor(door.client())
    mallory.client.cookies.set(SESSION, "A" * 43)
    victim = Visitor(door.client(), ada.passkey, ada.handle)
    victim.client.cookies.set(SESSION, "A" * 43, domain="zegel.example")
    before = ada.client.cookies[SESSION]
    assert victim.sign_in().status_code == 200
    assert mallory.who() is None
    other = Visitor(door.client(), ada.passkey, ada.handle)
    other.client.cookies.set(SESSION, before, domain="zegel.example")
    assert other.post("/sign-in/options").status_code == 403, "a session's cookie needs its CSRF token"
    other.client.headers["X-CSRF-Token"] = ada.client.headers["X-CSRF-Token"]
    assert other.sign_in().status_code == 200
    assert ada.who() is None


def test_idle_sessions_end(door: Door) -> None:
    ada = enrolled(door)
    for _ in range(3):
        door.clock.forward(minutes=29)
        assert ada.who() is not None
    door.clock.forward(minutes=30)
    assert ada.who() is None


def test_no_session_lasts_longer_than_a_day_at_work(door: Door) -> None:
    ada = enrolled(door)
    end = door.clock.now + LONGEST
    while door.clock.now + timedelta(minutes=25) < end:
        door.clock.forward(minutes=25)
        assert ada.who() is not None
    door.clock.now = end
    assert ada.who() is None


def test_reading_does_not_write_each_time(door: Door) -> None:
    ada = enrolled(door)
    (row,) = rows(door)
    door.clock.forward(seconds=59)
    ada.who()
    assert rows(door)[0].last_seen == row.last_seen
    door.clock.forward(seconds=1)
    ada.who()
    assert rows(door)[0].last_seen > row.last_seen


def test_sign_out_ends_the_session_here(door: Door) -> None:
    ada = enrolled(door)
    copied = Visitor(door.client())
    copied.client.cookies.set(SESSION, ada.client.cookies[SESSION])
    assert copied.who() is not None
    answer = ada.client.post("/sign-out")
    assert answer.headers["location"] == "/sign-in"
    assert copied.who() is None
    assert ada.who() is None


def test_sign_out_everywhere(door: Door) -> None:
    ada = enrolled(door)
    other = Visitor(door.client(), ada.passkey, ada.handle)
    other.sign_in()
    stranger = door.client()
    sign_in_for_tests(stranger, door.here, "authority")
    shown = ada.client.get("/api/v1/account/sessions").json()
    assert [each["here"] for each in shown].count(True) == 1
    assert ada.delete("/account/sessions").json() == {"ended": 2}
    assert ada.who() is None
    assert other.who() is None
    assert Visitor(stranger).who() is not None
    assert ("ended", "sign-out-everywhere") in door.said()


def test_one_other_session_ends_and_nobody_elses(door: Door) -> None:
    ada = enrolled(door)
    other = Visitor(door.client(), ada.passkey, ada.handle)
    other.sign_in()
    stranger = door.client()
    sign_in_for_tests(stranger, door.here, "authority")
    theirs = next(each for each in rows(door) if each.account != ada.who())
    assert ada.delete(f"/account/sessions/{theirs.id}").status_code == 404
    ours = next(each["id"] for each in ada.client.get("/api/v1/account/sessions").json() if not each["here"])
    assert ada.delete(f"/account/sessions/{ours}").status_code == 204
    assert other.who() is None
    assert Visitor(stranger).who() is not None


def test_an_ended_account_is_out_at_once(door: Door) -> None:
    ada = enrolled(door)
    bob = enrolled(door, "Bob Tweede")
    account = bob.who()
    assert account is not None
    end_account(door.here, account, by=ada.who())
    assert bob.who() is None
    answer = Visitor(door.client(), bob.passkey, bob.handle).sign_in()
    assert answer.status_code == 403
    assert "has ended" in answer.json()["detail"]
    assert ("refused", "passkey", "not-active", "1") in door.said()


def test_a_locked_account_is_out_until_it_is_unlocked(door: Door) -> None:
    enrolled(door)
    bob = enrolled(door, "Bob Tweede")
    account = bob.who()
    assert account is not None
    lock(door.here, account, by=None)
    assert bob.who() is None
    assert Visitor(door.client(), bob.passkey, bob.handle).sign_in().status_code == 403
    unlock(door.here, account, by=None)
    assert bob.who() is None, "the earlier session stays ended"
    assert Visitor(door.client(), bob.passkey, bob.handle).sign_in().status_code == 200


def test_the_last_admin_stays(door: Door) -> None:
    account = enrolled(door).who()
    assert account is not None
    for change in (lock, end_account):
        with pytest.raises(SignInError, match="only active consortium admin"):
            change(door.here, account, by=account)


def test_confirming_gives_five_minutes_and_a_new_cookie(door: Door) -> None:
    ada = enrolled(door)
    door.clock.forward(minutes=6)
    refused = ada.post("/account/passkeys/options")
    assert (refused.status_code, refused.json()["type"]) == (403, "/problems/confirm-first")
    assert ada.client.get("/api/v1/session").json()["recent"] is False
    before = ada.client.cookies[SESSION]
    options = ada.options("/sign-in/confirm/options")
    assert len(options["allowCredentials"]) == 1
    answer = ada.post("/sign-in/confirm", {"credential": used(ada.passkey, options), "next": "/account"})
    assert answer.json()["next"] == "/account"
    assert ada.client.cookies[SESSION] != before
    copied = Visitor(door.client())
    copied.client.cookies.set(SESSION, before)
    assert copied.who() is None
    assert ada.client.get("/api/v1/session").json()["recent"] is True
    assert ada.post("/account/passkeys/options").status_code == 200
    door.clock.forward(minutes=5, seconds=1)
    assert ada.post("/account/passkeys/options").status_code == 403


def test_nobody_confirms_with_somebody_elses_passkey(door: Door) -> None:
    ada, bob = enrolled(door), enrolled(door, "Bob Tweede")
    door.clock.forward(minutes=6)
    options = ada.options("/sign-in/confirm/options")
    assert ada.post("/sign-in/confirm", {"credential": used(bob.passkey, options)}).status_code == 403
    assert ada.client.get("/api/v1/session").json()["recent"] is False


def test_old_sessions_are_swept_when_somebody_signs_in(door: Door) -> None:
    """Devices and times of use are personal data."""
    ada = enrolled(door)
    door.clock.forward(seconds=IDLE.total_seconds() + 1)
    assert Visitor(door.client(), ada.passkey, ada.handle).sign_in().status_code == 200
    assert len(rows(door)) == 1


def test_a_cookie_that_is_none_of_ours_is_nobody(door: Door) -> None:
    for value in ("", "x", "A" * 43, "A" * 5000, "é" * 43):
        client = door.client()
        answer = client.get("/api/v1/session", headers=[(b"Cookie", f"{SESSION}={value}".encode())])
        assert answer.status_code == 401


NEXT = {
    "/": "/",
    "/plans?x=1#top": "/plans?x=1#top",
    "/hospitals/amstel": "/hospitals/amstel",
    "": "/",
    "//evil.example": "/",
    "/\\evil.example": "/",
    "/\t/evil.example": "/",
    "https://evil.example": "/",
    "javascript:alert(1)": "/",
    "plans": "/",
    "/a b": "/",
    "/a\r\nSet-Cookie: x=1": "/",
    "/é": "/",
    "/" + "a" * 2001: "/",
    "/sign-in?next=/x": "/",
    "/sign-out": "/",
}


@pytest.mark.parametrize("given", NEXT, ids=repr)
def test_where_a_visitor_may_be_sent(door: Door, given: str) -> None:
    assert safe_next(given) == NEXT[given]
    client = door.client()
    sign_in_for_tests(client, door.here, "authority")
    answer = client.get("/sign-in", params={"next": given})
    if answer.status_code == 303:  # a longer one is refused as a request
        assert answer.headers["location"] == NEXT[given]
        assert "evil" not in answer.headers["location"]
        assert "set-cookie" not in answer.headers
    else:
        assert len(given) > 2000


def test_origins_and_cookies_by_address() -> None:
    table = {
        "https://zegel.example": ("https://zegel.example", "__Host-zegel-session"),
        "https://Zegel.Example:443/": ("https://zegel.example", "__Host-zegel-session"),
        "https://zegel.example:8443": ("https://zegel.example:8443", "__Host-zegel-session"),
        "http://localhost:80": ("http://localhost", "zegel-session"),
        "http://localhost:8443": ("http://localhost:8443", "zegel-session"),
    }
    for given, expected in table.items():
        settings = Settings(home=".", public_url=given)  # type: ignore[arg-type]
        assert (origin_of(settings), cookie_name(settings, "session")) == expected


def test_devices_are_told_coarsely() -> None:
    table = {
        "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0": "Firefox, Linux",
        "Mozilla/5.0 (Windows NT 10.0) AppleWebKit/537.36 Chrome/139.0 Safari/537.36 Edg/139.0": "Edge, Windows",
        "Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) Version/18.0 Mobile Safari/604.1": "Safari, iPhone",
        "curl/8.5": "another program",
        "<script>": "another program",
    }
    for given, expected in table.items():
        assert device_of(given) == expected
    assert device_of(None) == "another program"


def test_a_session_for_tests_is_a_real_one(door: Door) -> None:
    client = door.client()
    account = sign_in_for_tests(client, door.here, "hospital_contact", hospital="geul")
    assert account == account_for_tests(door.here, "hospital_contact", hospital="geul")
    found = find_session(door.here, client.cookies[SESSION])
    assert found is not None
    assert (found.viewer.hospital, found.viewer.role) == ("geul", "hospital_contact")
