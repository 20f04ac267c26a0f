"""Too many attempts: per address, and per account; nothing of an address stays."""

from __future__ import annotations

import pytest
from sqlmodel import select

from admin_api.web.sign_in.errors import TooMany
from admin_api.web.sign_in.rates import ASKING, FAILING, FAILURES_TO_LOCK, Rate, place_of, spend
from admin_api.web.sign_in.tables import AccountRow, BucketRow
from tests.admin_api.web.sign_in.conftest import Door
from tests.admin_api.web.sign_in.visitor import HOST, Visitor, enrolled, used
from tests.passkey import SoftwarePasskey


def test_failures_from_one_place_run_out(door: Door) -> None:
    ada = enrolled(door)
    visitor = Visitor(door.client("198.51.100.7"), SoftwarePasskey(HOST), ada.handle)
    for _ in range(FAILING.burst):
        assert visitor.sign_in().status_code == 403
    answer = visitor.post("/sign-in/options")
    assert answer.status_code == 429
    assert answer.headers["retry-after"] == str(int(FAILING.seconds))
    assert answer.json()["type"] == "/problems/too-many"
    right = Visitor(door.client("198.51.100.7"), ada.passkey, ada.handle)
    assert right.post("/sign-in/options").status_code == 429
    elsewhere = Visitor(door.client("198.51.100.8"), ada.passkey, ada.handle)
    assert elsewhere.sign_in().status_code == 200
    door.clock.forward(seconds=FAILING.seconds)
    assert right.sign_in().status_code == 200
    said = door.said()
    assert ("refused", "passkey", "unknown", str(FAILING.burst)) in said
    assert ("refused", "passkey", "too-many", "2") in said


def test_asking_from_one_place_runs_out(door: Door) -> None:
    visitor = Visitor(door.client())
    answers = [visitor.post("/sign-in/options").status_code for _ in range(ASKING.burst + 1)]
    assert answers == [200] * ASKING.burst + [429]


def test_links_cannot_be_guessed_for_long(door: Door) -> None:
    visitor = Visitor(door.client())
    answers = [visitor.post("/enrolment/options", {"link": f"{n:043}"}).status_code for n in range(FAILING.burst + 1)]
    assert answers == [403] * FAILING.burst + [429]


def test_an_account_locks_after_failures_and_says_so_to_its_owner_only(door: Door) -> None:
    ada = enrolled(door)
    for n in range(FAILURES_TO_LOCK):
        mallory = Visitor(door.client(f"203.0.113.{n}"), ada.passkey, ada.handle)
        refused = mallory.sign_in(origin="https://evil.example")
        assert (refused.status_code, refused.json()["detail"]) == (403, "the passkey was not accepted")
    mallory = Visitor(door.client("203.0.113.99"), ada.passkey, ada.handle)
    refused = mallory.sign_in(origin="https://evil.example")
    assert refused.json()["detail"] == "the passkey was not accepted"
    owner = Visitor(door.client(), ada.passkey, ada.handle).sign_in()
    assert owner.status_code == 429
    assert int(owner.headers["retry-after"]) == 900
    assert ada.who() is not None, "a session that exists goes on"
    door.clock.forward(minutes=15, seconds=1)
    assert Visitor(door.client(), ada.passkey, ada.handle).sign_in().status_code == 200
    with door.here.database.reading() as session:
        assert session.exec(select(AccountRow.failures, AccountRow.locked_until)).one() == (0, None)


def test_success_forgets_failures(door: Door) -> None:
    ada = enrolled(door)
    for _ in range(2):
        for _ in range(FAILURES_TO_LOCK - 1):
            visitor = Visitor(door.client(), ada.passkey, ada.handle)
            options = visitor.options("/sign-in/options")
            lie = used(ada.passkey, options, handle=ada.handle, origin="https://evil.example")
            visitor.post("/sign-in", {"credential": lie})
        door.clock.forward(hours=1)
        assert Visitor(door.client(), ada.passkey, ada.handle).sign_in().status_code == 200


def test_a_bucket_fills_up_and_is_forgotten(door: Door) -> None:
    rate = Rate("test", 3, 10.0)

    def left() -> int:
        taken = 0
        while True:
            try:
                spend(door.here, rate, "192.0.2.9", method="passkey")
            except TooMany:
                return taken
            taken += 1

    assert left() == 3
    with pytest.raises(TooMany) as caught:
        spend(door.here, rate, "192.0.2.9", method="passkey")
    assert caught.value.seconds == 10
    door.clock.forward(seconds=20)
    assert left() == 2
    door.clock.forward(seconds=31)
    spend(door.here, rate, "192.0.2.10", method="passkey")
    with door.here.database.reading() as session:
        assert [row.key for row in session.exec(select(BucketRow))] == ["test 192.0.2.10"]


def test_places() -> None:
    table = {
        "192.0.2.1": "192.0.2.1",
        "2001:db8:1:2:3:4:5:6": "2001:db8:1:2::/64",
        "2001:db8:1:2::1": "2001:db8:1:2::/64",
        "::ffff:192.0.2.1": "192.0.2.1",
        "fe80::1%eth0": "fe80::/64",
        "testclient": "unknown",
        "": "unknown",
    }
    assert {given: place_of(given) for given in table} == table
    assert place_of(None) == "unknown"
