"""Inviting hospitals: names that can be, once each, by nobody but consortium admins, without overwriting each other."""

from __future__ import annotations

import threading

from admin_api.web.certificates.tables import RequestRow
from admin_api.web.sign_in.accounts import accounts, end_account, invite
from audit.certificates import CONSORTIUM_ADMIN
from tests.admin_api.web.certificates.cast import asked_to_sign, compared, first_admin, issued, sent, uploaded
from tests.admin_api.web.certificates.test_requests_api import left_behind, visitor
from tests.admin_api.web.sign_in.conftest import Door
from tests.admin_api.web.sign_in.visitor import Visitor, enrolled


def hospital(site: str = "amstel", organisation: str = "amstel", contact: str = "Nel Amstel") -> dict[str, str]:
    return {"site": site, "organisation": organisation, "contact": contact}


IMPOSSIBLE = (
    hospital(site=""),
    hospital(site="new"),
    hospital(site="NEW"),
    hospital(site="../x"),
    hospital(site="a b"),
    hospital(site="a.b"),
    hospital(site="-x"),
    hospital(site="x" * 64),
    hospital(site="é"),
    hospital(site="<b>"),
    hospital(organisation="St. Anna"),
    hospital(organisation=""),
    hospital(organisation="x" * 101),
    hospital(contact=""),
    hospital(contact="Nel\x1b[2J"),
    hospital(contact="x" * 101),
)


def test_what_cannot_be_invited_is_not(door: Door) -> None:
    admin = visitor(door, CONSORTIUM_ADMIN)
    for given in IMPOSSIBLE:
        answer = sent(admin, "POST", "/hospitals", json=given)
        assert answer.status_code in (409, 422), f"{given}: {answer.text}"
    assert sent(admin, "GET", "/invitations").json() == []
    assert [each.role for each in accounts(door.here)[0]] == [CONSORTIUM_ADMIN], "no account was made"


def test_a_hospital_is_invited_once_and_its_link_is_shown_once(door: Door) -> None:
    admin = visitor(door, CONSORTIUM_ADMIN)
    headers = {"Idempotency-Key": "one"}
    answer = admin.client.post("/api/v1/hospitals", json=hospital(), headers=headers)
    assert answer.status_code == 201
    link = answer.json()["link"]
    again = admin.client.post("/api/v1/hospitals", json=hospital(), headers=headers)
    assert (again.status_code, link in again.text) == (409, False), "the answer held a secret and is not kept"
    assert sent(admin, "POST", "/hospitals", json=hospital(contact="Somebody Else")).status_code == 409
    assert sent(admin, "POST", "/hospitals", json=hospital(site="AMSTEL", contact="Else")).status_code == 409
    (row,) = sent(admin, "GET", "/invitations").json()
    etag = row["etag"]
    path = "/hospitals/amstel/invitation"
    assert sent(admin, "PATCH", path, json={"organisation": "Amstel_2"}).status_code == 428
    changed = sent(admin, "PATCH", path, etag=etag, json={"organisation": "Amstel_2"})
    assert (changed.status_code, changed.json()["organisation"]) == (200, "Amstel_2")
    assert sent(admin, "DELETE", path, etag=etag).status_code == 412, "somebody changed it meanwhile"
    newer = sent(admin, "POST", f"{path}/link", etag=changed.headers["etag"])
    assert newer.status_code == 201
    nel = Visitor(door.client())
    assert nel.enrol(link).status_code != 200, "an earlier link ends"
    assert nel.enrol(newer.json()["link"]).status_code == 200
    nel.carry_csrf()
    assert sent(admin, "DELETE", path, etag=newer.headers["etag"]).status_code == 200
    assert nel.client.get("/api/v1/hospitals").status_code == 401, "the contact's account ended in the same moment"
    assert sent(admin, "POST", "/hospitals", json=hospital(contact="Bob Amstel")).status_code == 201


def test_of_two_who_invite_at_once_one_does_and_no_account_is_left_over(door: Door) -> None:
    admins = [visitor(door, CONSORTIUM_ADMIN), visitor(door, CONSORTIUM_ADMIN, organisation="second bureau")]
    statuses: list[int] = []
    threads = [
        threading.Thread(
            target=lambda n=n, admin=admin: statuses.append(
                sent(admin, "POST", "/hospitals", json=hospital(contact=f"Contact {n}")).status_code
            )
        )
        for n, admin in enumerate(admins)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [201, 409]
    states = sorted(each.state for each in accounts(door.here)[0] if each.hospital == "amstel")
    assert states in (["invited"], ["ended", "invited"])


def test_the_request_of_an_account_that_ended_is_given_up_and_its_name_goes(door: Door) -> None:
    ada = first_admin(door)
    rosa = enrolled(door, "Rosa Release", "release_manager", organisation="coding_centre")
    request = asked_to_sign(rosa)
    request = compared(ada, request, request["fingerprint"])
    end_account(door.here, request["holder"], by=None)
    answer = issued(ada, request)
    assert (answer.status_code, answer.json()["type"]) == (409, "/problems/account")
    assert sent(ada, "GET", "/requests").json()["items"] == []
    assert sent(ada, "GET", f"/requests/{request['id']}").json()["state"] == "withdrawn"
    assert request["id"] not in left_behind(door)


def test_nobody_fills_the_folder_with_requests(door: Door) -> None:
    admin = visitor(door, CONSORTIUM_ADMIN)
    account = sent(admin, "GET", "/session").json()["account"]
    with door.here.database.begin() as session:
        for n in range(50):
            session.add(
                RequestRow(
                    id=f"{n:016x}", kind="site", holder=f"h{n}", organisation="o", role="client",
                    fingerprint=f"sha256:{n:064x}", digest="sha256:" + "0" * 64, state="withdrawn",
                    received=door.clock(), received_by=account,
                )
            )  # fmt: skip
    from admin_api.person_requests import request_person

    path = request_person(
        door.here.home.path / "x", name="Rosa", organisation="o", role="release_manager", passphrase=b"long enough"
    )
    answer = uploaded(admin, "/requests", path.read_bytes())
    assert (answer.status_code, int(answer.headers["retry-after"])) == (429, 86400)
    assert left_behind(door) == []
    door.clock.forward(hours=25)
    admin = visitor(door, CONSORTIUM_ADMIN)
    assert uploaded(admin, "/requests", path.read_bytes()).status_code == 201


def test_a_contact_invited_beside_the_pages_speaks_for_the_hospital_too(door: Door) -> None:
    admin = visitor(door, CONSORTIUM_ADMIN)
    assert sent(admin, "POST", "/hospitals", json=hospital()).status_code == 201
    made = invite(door.here, name="Bob", role="hospital_contact", organisation="amstel", hospital="amstel")
    assert (
        made.account.id in admin.client.get("/hospitals/amstel").text
        or "Bob" in admin.client.get("/hospitals/amstel").text
    )
