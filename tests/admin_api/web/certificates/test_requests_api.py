"""Certificate requests through the API: what is taken, what is refused, who may see it, and issuing exactly once."""

from __future__ import annotations

import hashlib
import json
import threading
from pathlib import Path
from typing import Any

import pytest

from admin_api.onboarding import approve, read_request
from admin_api.person_requests import request_person
from admin_api.web.certificates.issuing import WRONG_AT_MOST
from admin_api.web.sign_in.accounts import invite
from audit.certificates import CONSORTIUM_ADMIN, load_certificate
from audit.entry import CERTIFICATE_ISSUED
from tests.admin_api.consortium_folder import PASSPHRASE
from tests.admin_api.web.certificates.cast import asked_at, called_back, compared, issued, sent, uploaded
from tests.admin_api.web.certificates.test_archive import HOSTILE
from tests.admin_api.web.sign_in.conftest import Door
from tests.admin_api.web.sign_in.signed_in import sign_in_for_tests
from tests.admin_api.web.sign_in.visitor import Visitor


@pytest.fixture(scope="session")
def amstel_request(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The request of hospital amstel, made once."""
    return asked_at(tmp_path_factory.mktemp("amstel"))


@pytest.fixture(scope="session")
def berkel_request(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return asked_at(tmp_path_factory.mktemp("berkel"), "berkel")


def visitor(door: Door, role: str, **who: Any) -> Visitor:
    """Somebody signed in, without a passkey."""
    made = Visitor(door.client())
    sign_in_for_tests(made.client, door.here, role, **who)
    return made


def joined(door: Door, site: str, admin: Visitor) -> Visitor:
    """The contact of a hospital that was invited."""
    answer = sent(admin, "POST", "/hospitals", json={"site": site, "organisation": site, "contact": f"Nel {site}"})
    assert answer.status_code == 201, answer.text
    return visitor(door, "hospital_contact", hospital=site)


def left_behind(door: Door) -> list[str]:
    folder = door.here.home.path / "requests"
    return sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.exists() else []


def test_what_is_no_request_is_refused_and_leaves_nothing(
    door: Door, amstel_request: bytes, berkel_request: bytes
) -> None:
    admin = visitor(door, CONSORTIUM_ADMIN)
    nel = joined(door, "amstel", admin)
    files = {name: make() for name, (make, _) in HOSTILE.items()} | {
        "empty": b"",
        "no JSON": b"{not json",
        "deep JSON": b"[" * 100_000,
        "deep object": b'{"a":' * 100_000,
        "another's": berkel_request,
        "a list": b"[]",
        "a number": b"1e999",
        "bytes": bytes(range(256)),
        "cut off": amstel_request[: len(amstel_request) // 2],
        "JSON of a person": json.dumps({"schema": "zegel/person-request/v1", "name": "x"}).encode(),
    }
    for name, data in files.items():
        answer = uploaded(nel, "/hospitals/amstel/requests", data)
        assert answer.status_code in (413, 422), f"{name}: {answer.status_code} {answer.text}"
        assert str(door.here.home.path) not in answer.text, "a path of ours"
        assert "\\u001b" not in answer.text
    assert left_behind(door) == []
    answer = nel.client.post("/hospitals/amstel/requests", data={"csrf": "x"})
    assert (answer.status_code, "no file" in answer.text.lower()) == (422, True)
    assert uploaded(admin, "/hospitals/dommel/requests", amstel_request).status_code == 404, "nobody invited it"


def test_a_hospital_sees_its_own_requests_and_nobody_elses(
    door: Door, amstel_request: bytes, berkel_request: bytes
) -> None:
    admin = visitor(door, CONSORTIUM_ADMIN)
    nel, bob = joined(door, "amstel", admin), joined(door, "berkel", admin)
    own = uploaded(nel, "/hospitals/amstel/requests", amstel_request).json()
    other = uploaded(bob, "/hospitals/berkel/requests", berkel_request).json()
    for path in ("", "/reply"):
        for where in (f"/hospitals/berkel/requests/{other['id']}", f"/hospitals/amstel/requests/{other['id']}"):
            assert nel.client.get(f"/api/v1{where}{path}").status_code == 404, where
    assert nel.client.get(f"/hospitals/amstel/requests/{other['id']}").status_code == 404
    for where in (f"/hospitals/berkel/requests/{other['id']}", f"/hospitals/amstel/requests/{other['id']}"):
        assert sent(nel, "DELETE", where, etag=other["etag"]).status_code == 404
    assert nel.client.get(f"/api/v1/requests/{own['id']}").status_code == 403, "the consortium's own view"
    assert [each["id"] for each in nel.client.get("/api/v1/hospitals/amstel/requests").json()] == [own["id"]]
    assert nel.client.get("/api/v1/hospitals/berkel/requests").status_code == 404
    assert nel.client.get("/api/v1/hospitals/amstel").status_code == 200
    assert nel.client.get("/api/v1/hospitals/berkel").status_code == 404
    assert nel.client.get(f"/hospitals/amstel/requests/{own['id']}").status_code == 200
    assert sent(nel, "DELETE", f"/hospitals/amstel/requests/{own['id']}", etag=own["etag"]).status_code == 200


def test_a_request_is_taken_once_and_a_newer_one_replaces_it(door: Door, amstel_request: bytes, tmp_path: Path) -> None:
    admin = visitor(door, CONSORTIUM_ADMIN)
    nel = joined(door, "amstel", admin)
    first = uploaded(nel, "/hospitals/amstel/requests", amstel_request).json()
    assert uploaded(nel, "/hospitals/amstel/requests", amstel_request).status_code == 409
    second = uploaded(nel, "/hospitals/amstel/requests", asked_at(tmp_path)).json()
    assert admin.client.get(f"/api/v1/requests/{first['id']}").json()["state"] == "replaced"
    opened = admin.client.get("/api/v1/requests").json()["items"]
    assert [each["id"] for each in opened] == [second["id"]]
    states = [each["state"] for each in nel.client.get("/api/v1/hospitals/amstel/requests").json()]
    assert sorted(states) == ["open", "replaced"]


def test_two_people_at_once_do_not_overwrite_each_other(door: Door, amstel_request: bytes) -> None:
    admin = visitor(door, CONSORTIUM_ADMIN)
    nel = joined(door, "amstel", admin)
    request = uploaded(nel, "/hospitals/amstel/requests", amstel_request).json()
    path = f"/requests/{request['id']}/comparison"
    groups = {"groups": called_back(request["fingerprint"])}
    assert sent(admin, "POST", path, json=groups).status_code == 428
    assert sent(admin, "POST", path, etag='"another-1"', json=groups).status_code == 412
    assert sent(admin, "POST", path, etag=request["etag"], json={"groups": "0000 0000 0000 0000"}).status_code == 409
    assert sent(admin, "POST", path, etag=request["etag"], json={"groups": "none"}).status_code == 422
    assert sent(admin, "POST", path, etag=request["etag"], json=groups).status_code == 200
    assert sent(admin, "POST", path, etag=request["etag"], json=groups).status_code == 412, "it is no longer that one"
    assert sent(nel, "POST", path, etag=request["etag"], json=groups).status_code == 403


def test_the_passphrase_is_checked_counted_and_kept_nowhere(door: Door, amstel_request: bytes) -> None:
    admin = visitor(door, CONSORTIUM_ADMIN)
    nel = joined(door, "amstel", admin)
    request = uploaded(nel, "/hospitals/amstel/requests", amstel_request).json()
    uncompared = issued(admin, request)
    assert (uncompared.status_code, uncompared.json()["type"]) == (409, "/problems/not-compared")
    request = compared(admin, request, request["fingerprint"])
    typed = [f"a wrong passphrase {n}" for n in range(WRONG_AT_MOST)]
    for wrong in typed:
        answer = issued(admin, request, wrong)
        assert (answer.status_code, answer.json()["type"]) == (403, "/problems/wrong-passphrase")
        assert wrong not in answer.text
    answer = issued(admin, request)
    assert answer.status_code == 429, "also the right one, for a while"
    assert 0 < int(answer.headers["retry-after"]) <= 15 * 60
    door.clock.forward(minutes=16)
    answer = issued(admin, request)
    assert (answer.status_code, answer.json()["type"]) == (403, "/problems/confirm-first"), "sixteen minutes ago"
    admin = visitor(door, CONSORTIUM_ADMIN)
    answer = issued(admin, request)
    assert answer.status_code == 201, answer.text
    door.here.database.close()
    kept = b"".join(path.read_bytes() for path in door.here.home.path.glob("web.db*"))
    for secret in [*typed, PASSPHRASE]:
        assert secret.encode() not in kept
        body = json.dumps({"passphrase": secret}, separators=(",", ":"), ensure_ascii=False).encode()
        line = json.dumps(["POST", f"/api/v1/requests/{request['id']}/certificate", ""]).encode()
        for said in (body, line + b"\n" + body, secret.encode()):
            assert hashlib.sha256(said).hexdigest().encode() not in kept


def test_however_many_issue_at_once_there_is_one_certificate(door: Door, amstel_request: bytes) -> None:
    admins = [visitor(door, CONSORTIUM_ADMIN), visitor(door, CONSORTIUM_ADMIN, organisation="second bureau")]
    nel = joined(door, "amstel", admins[0])
    request = uploaded(nel, "/hospitals/amstel/requests", amstel_request).json()
    request = compared(admins[0], request, request["fingerprint"])
    statuses: list[int] = []
    threads = [
        threading.Thread(target=lambda admin=admin: statuses.append(issued(admin, request).status_code))
        for admin in admins
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [201, 412]
    with door.here.home.log() as log:
        names = [entry.body["name"] for _, entry in log.entries(kind=CERTIFICATE_ISSUED)]
    assert names.count("amstel") == 1


def test_after_a_crash_between_log_and_reply_the_next_attempt_finishes(
    door: Door, amstel_request: bytes, tmp_path: Path
) -> None:
    admin = visitor(door, CONSORTIUM_ADMIN)
    nel = joined(door, "amstel", admin)
    request = uploaded(nel, "/hospitals/amstel/requests", amstel_request).json()
    request = compared(admin, request, request["fingerprint"])
    home = door.here.home
    folder = home.path / "requests" / request["id"]
    out = tmp_path / "crash.signed.zip"
    approve(home, read_request(folder / "request.zip"), passphrase=PASSPHRASE.encode(), out=out)
    out.rename(folder / ".amstel.signed.zip.draft")  # what is there before the last rename
    answer = issued(admin, request, "whatever; nothing is signed any more")
    assert answer.status_code == 201, answer.text
    assert answer.json()["reply"] is True
    with home.log() as log:
        names = [entry.body["name"] for _, entry in log.entries(kind=CERTIFICATE_ISSUED)]
    assert names.count("amstel") == 1


def test_a_reply_that_was_lost_is_said_to_be_lost(door: Door, amstel_request: bytes, tmp_path: Path) -> None:
    admin = visitor(door, CONSORTIUM_ADMIN)
    nel = joined(door, "amstel", admin)
    request = uploaded(nel, "/hospitals/amstel/requests", amstel_request).json()
    request = compared(admin, request, request["fingerprint"])
    home = door.here.home
    folder = home.path / "requests" / request["id"]
    asked = read_request(folder / "request.zip")
    approve(home, asked, passphrase=PASSPHRASE.encode(), out=tmp_path / "lost.signed.zip")
    assert issued(admin, request).json()["reply"] is False
    answer = nel.client.get(f"/api/v1/hospitals/amstel/requests/{request['id']}/reply")
    assert (answer.status_code, answer.json()["type"]) == (409, "/problems/reply-lost")


def test_a_person_with_a_key_in_a_file_is_answered_and_the_name_stays_in_no_request(door: Door, tmp_path: Path) -> None:
    admin = visitor(door, CONSORTIUM_ADMIN)
    path = request_person(
        tmp_path / "key", name="Rosa Release", organisation="coding centre", role="release_manager",
        passphrase=PASSPHRASE.encode(),
    )  # fmt: skip
    answer = uploaded(admin, "/requests", path.read_bytes())
    assert answer.status_code == 201, answer.text
    request = answer.json()
    assert (request["kind"], request["name"], request["fingerprint"]) == ("person", "Rosa Release", None)
    request = compared(admin, request, read_request(path).fingerprint)
    answer = issued(admin, request)
    assert answer.status_code == 201, answer.text
    assert answer.json()["name"] == "Rosa Release", "from beside the log"
    reply = admin.client.get(f"/api/v1/requests/{request['id']}/reply")
    assert load_certificate(reply.content).not_valid_after_utc > door.clock()
    kept = b"".join(each.read_bytes() for each in (door.here.home.path / "requests").rglob("*") if each.is_file())
    assert b"Rosa" not in kept


def test_somebody_elses_passkey_is_asked_for_by_admins_only(door: Door) -> None:
    from tests.admin_api.web.sign_in.visitor import enrolled

    ada = enrolled(door)
    pieter = enrolled(door, "Pieter Privacy", "privacy_officer", organisation="privacy_board")
    person = pieter.who()
    (passkey,) = ada.client.get(f"/api/v1/people/{person}").json()["passkeys"]
    other = f"/people/{ada.who()}/passkeys/{passkey['credential']}/request"
    assert sent(pieter, "POST", other).status_code == 404
    assert pieter.client.get(f"/api/v1/people/{ada.who()}").json()["passkeys"] == [], "shown to oneself and to admins"
    assert sent(ada, "POST", other).status_code == 404, "not hers"
    answer = sent(ada, "POST", f"/people/{person}/passkeys/{passkey['credential']}/request")
    assert answer.status_code == 201, answer.text
    request = answer.json()
    own = sent(pieter, "POST", f"/requests/{request['id']}/comparison", etag=request["etag"], json={"groups": "0" * 16})
    assert own.status_code == 403, "an officer does not compare"
    with_name = invite(door.here, name="Nel", role="hospital_contact", organisation="amstel", hospital="amstel")
    assert with_name.account.hospital == "amstel"
    listed = ada.client.get("/api/v1/people").json()
    assert {each["person"] for each in listed["items"]} == {ada.who(), person}, "contacts are no signers"
    assert {each["signs"] for each in listed["items"]} == {"waits"}
