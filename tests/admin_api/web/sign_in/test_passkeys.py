"""Enrolment by a one-time link and signing in with a passkey; every lie that a browser could tell."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from admin_api.onboarding import approve, read_request
from admin_api.passkeys import write_passkey_request
from admin_api.web.sign_in.accounts import account_of, invite, new_link
from admin_api.web.sign_in.errors import SignInError
from admin_api.web.sign_in.passkeys import passkeys_of, passkeys_without_certificate, public_key_spki, signing_request
from audit.passkey import BACKED_UP, BACKUP_ELIGIBLE, USER_PRESENT, USER_VERIFIED, Assertion
from tests.admin_api.consortium_folder import PASSPHRASE
from tests.admin_api.web.sign_in.conftest import URL, Door
from tests.admin_api.web.sign_in.visitor import HOST, Visitor, decoded, enrolled, invited, made, used
from tests.passkey import ED25519, P256, SoftwarePasskey, base64url


@pytest.mark.parametrize("algorithm", [P256, ED25519])
def test_a_link_becomes_a_passkey_that_signs_in(door: Door, algorithm: str) -> None:
    invitation = invited(door)
    assert invitation.account.state == "invited"
    assert invitation.link.startswith(f"{URL}/enrol#")
    visitor = Visitor(door.client(), SoftwarePasskey(HOST, algorithm))
    assert visitor.enrol(invitation.link).status_code == 200
    assert visitor.who() == invitation.account.id
    assert account_of(door.here.database, invitation.account.id).state == "active"
    again = Visitor(door.client(), visitor.passkey, visitor.handle)
    assert again.who() is None
    assert again.sign_in().json() == {"account": invitation.account.id, "next": "/"}
    assert again.who() == invitation.account.id
    assert sorted(door.said()) == [
        ("granted", "enrolment"), ("granted", "invited"), ("granted", "passkey"), ("granted", "passkey"),
    ]  # fmt: skip


def test_options_ask_for_a_discoverable_verified_passkey(door: Door) -> None:
    visitor = Visitor(door.client())
    options = visitor.options("/enrolment/options", {"link": invited(door).link.partition("#")[2]})
    assert options["rp"]["id"] == HOST
    assert options["attestation"] == "none"
    assert options["authenticatorSelection"] == {
        "residentKey": "required", "requireResidentKey": True, "userVerification": "required",
    }  # fmt: skip
    assert [each["alg"] for each in options["pubKeyCredParams"]] == [-7, -8]
    assert len(decoded(options["challenge"])) == 32
    asked = visitor.options("/sign-in/options")
    assert (asked["userVerification"], asked["allowCredentials"], asked["rpId"]) == ("required", [], HOST)


def test_a_link_works_once(door: Door) -> None:
    invitation = invited(door)
    assert Visitor(door.client()).enrol(invitation.link).status_code == 200
    second = Visitor(door.client()).enrol(invitation.link)
    assert second.status_code == 403
    assert "does not work" in second.json()["detail"]


def test_a_link_that_two_browsers_opened_lets_one_in(door: Door) -> None:
    invitation = invited(door)
    link = {"link": invitation.link.partition("#")[2]}
    visitors = [Visitor(door.client()), Visitor(door.client())]
    asked = []
    for visitor in visitors:
        registered = visitor.post(
            "/enrolment",
            {"credential": made(visitor.passkey, visitor.options("/enrolment/options", link)), "name": "x"},
        )
        asked.append(registered.json()["publicKey"])
    answers = [
        visitor.post("/enrolment/proof", {"credential": used(visitor.passkey, options)}).status_code
        for visitor, options in zip(visitors, asked, strict=True)
    ]
    assert answers == [200, 403]
    assert len(passkeys_of(door.here.database, invitation.account.id)) == 1


def test_a_link_ends_after_three_days(door: Door) -> None:
    invitation = invited(door)
    door.clock.forward(hours=72, seconds=1)
    assert Visitor(door.client()).enrol(invitation.link).status_code == 403


def test_a_new_link_replaces_the_one_before(door: Door) -> None:
    first = invited(door)
    second = new_link(door.here, first.account.id, by=None)
    assert Visitor(door.client()).enrol(first.link).status_code == 403
    assert Visitor(door.client()).enrol(second.link).status_code == 200


def test_wrong_links_are_told_alike(door: Door) -> None:
    gone = invited(door)
    assert Visitor(door.client()).enrol(gone.link).status_code == 200
    answers = [Visitor(door.client()).enrol(link).json() for link in (gone.link, f"{URL}/enrol#{'A' * 43}")]
    assert answers[0]["detail"] == answers[1]["detail"]
    assert [each["status"] for each in answers] == [403, 403]


def test_a_registration_alone_stores_nothing(door: Door) -> None:
    """Attestation `none` signs nothing: without the first signature anybody could register another's public key."""
    invitation = invited(door)
    visitor = Visitor(door.client())
    options = visitor.options("/enrolment/options", {"link": invitation.link.partition("#")[2]})
    registered = visitor.post("/enrolment", {"credential": made(visitor.passkey, options), "name": "stolen"})
    thief = SoftwarePasskey(HOST)
    lie = used(thief, registered.json()["publicKey"])
    lie["id"] = lie["rawId"] = base64url(visitor.passkey.credential_id)
    assert visitor.post("/enrolment/proof", {"credential": lie}).status_code == 403
    assert passkeys_of(door.here.database, invitation.account.id) == []
    assert account_of(door.here.database, invitation.account.id).state == "invited"


def test_a_passkey_belongs_to_one_account(door: Door) -> None:
    ada = enrolled(door)
    other = Visitor(door.client(), ada.passkey)
    answer = other.enrol(invited(door, "Bob", "authority").link)
    assert answer.status_code == 409
    assert "registered already" in answer.json()["detail"]


REGISTRATION_LIES: dict[str, dict[str, Any]] = {
    "another origin": {"origin": "https://zegel.example.evil"},
    "a subdomain": {"origin": f"https://app.{HOST}"},
    "http": {"origin": f"http://{HOST}"},
    "an assertion": {"type": "webauthn.get"},
    "in a frame": {"crossOrigin": True},
    "another challenge": {"challenge": base64url(bytes(32))},
}


@pytest.mark.parametrize("lie", REGISTRATION_LIES, ids=str)
def test_lies_at_registration(door: Door, lie: str) -> None:
    visitor = Visitor(door.client())
    options = visitor.options("/enrolment/options", {"link": invited(door).link.partition("#")[2]})
    credential = made(visitor.passkey, options, **REGISTRATION_LIES[lie])
    answer = visitor.post("/enrolment", {"credential": credential, "name": "x"})
    assert answer.status_code == 403, answer.text
    assert ("refused", "enrolment", "not-proven", "1") in door.said()


@pytest.mark.parametrize("flags", [USER_PRESENT, USER_VERIFIED, USER_PRESENT | USER_VERIFIED | BACKED_UP], ids=bin)
def test_registration_needs_presence_verification_and_sound_flags(door: Door, flags: int) -> None:
    visitor = Visitor(door.client(), SoftwarePasskey(HOST, flags=flags))
    assert visitor.enrol(invited(door).link).status_code == 403


def test_registration_for_another_site(door: Door) -> None:
    visitor = Visitor(door.client(), SoftwarePasskey("evil.example", origin=URL))
    assert visitor.enrol(invited(door).link).status_code == 403


@pytest.mark.parametrize("garbage", ["", "oA", "o2NmbXRkbm9uZQ", "A" * 16000], ids=len)
def test_garbage_instead_of_an_attestation(door: Door, garbage: str) -> None:
    visitor = Visitor(door.client())
    options = visitor.options("/enrolment/options", {"link": invited(door).link.partition("#")[2]})
    credential = made(visitor.passkey, options)
    credential["response"]["attestationObject"] = garbage
    assert visitor.post("/enrolment", {"credential": credential, "name": "x"}).status_code == 403


ASSERTION_LIES: dict[str, dict[str, Any]] = {
    "another origin": {"origin": "https://evil.example"},
    "a subdomain": {"origin": f"https://app.{HOST}"},
    "http": {"origin": f"http://{HOST}"},
    "a registration": {"type": "webauthn.create"},
    "in a frame": {"crossOrigin": True},
    "under another top page": {"topOrigin": "https://evil.example"},
    "another challenge": {"challenge": bytes(32)},
    "no user handle": {"handle": None},
    "another user handle": {"handle": base64url(bytes(32))},
}


@pytest.mark.parametrize("lie", ASSERTION_LIES, ids=str)
def test_lies_at_sign_in(door: Door, lie: str) -> None:
    ada = enrolled(door)
    visitor = Visitor(door.client(), ada.passkey)
    options = visitor.options("/sign-in/options")
    credential = used(ada.passkey, options, **{"handle": ada.handle, **ASSERTION_LIES[lie]})
    answer = visitor.post("/sign-in", {"credential": credential})
    assert answer.status_code == 403, answer.text
    assert answer.json()["detail"] == "the passkey was not accepted"
    assert "set-cookie" not in answer.headers or "session=" not in answer.headers["set-cookie"]
    assert visitor.who() is None
    assert ("refused", "passkey", "not-proven", "1") in door.said()


@pytest.mark.parametrize("flags", [USER_PRESENT, USER_VERIFIED, USER_PRESENT | USER_VERIFIED], ids=bin)
def test_sign_in_needs_the_flags_of_registration(door: Door, flags: int) -> None:
    ada = enrolled(door)
    ada.passkey.flags = flags
    assert Visitor(door.client(), ada.passkey, ada.handle).sign_in().status_code == 403


def test_what_is_told_does_not_say_whether_a_passkey_is_known(door: Door) -> None:
    ada = enrolled(door)
    known = Visitor(door.client(), ada.passkey, ada.handle).sign_in(origin="https://evil.example").json()
    unknown = Visitor(door.client(), SoftwarePasskey(HOST), ada.handle).sign_in().json()
    assert {**known, "request_id": ""} == {**unknown, "request_id": ""}


def test_an_answer_counts_once(door: Door) -> None:
    ada = enrolled(door)
    visitor = Visitor(door.client(), ada.passkey, ada.handle)
    options = visitor.options("/sign-in/options")
    cookie = visitor.client.cookies["__Host-zegel-ceremony"]
    answer = {"credential": used(ada.passkey, options, handle=ada.handle)}
    assert visitor.post("/sign-in", answer).status_code == 200
    replay = Visitor(door.client())
    replay.client.cookies.set("__Host-zegel-ceremony", cookie)
    assert replay.post("/sign-in", answer).status_code == 403
    assert ("refused", "passkey", "stale", "1") in door.said()


def test_an_answer_counts_in_the_browser_that_asked(door: Door) -> None:
    ada = enrolled(door)
    options = Visitor(door.client()).options("/sign-in/options")
    other = Visitor(door.client())
    other.options("/sign-in/options")
    answer = other.post("/sign-in", {"credential": used(ada.passkey, options, handle=ada.handle)})
    assert answer.status_code == 403


def test_a_challenge_ends_after_five_minutes(door: Door) -> None:
    ada = enrolled(door)
    visitor = Visitor(door.client(), ada.passkey, ada.handle)
    options = visitor.options("/sign-in/options")
    door.clock.forward(minutes=5, seconds=1)
    answer = visitor.post("/sign-in", {"credential": used(ada.passkey, options, handle=ada.handle)})
    assert answer.status_code == 403


def test_a_challenge_serves_one_purpose(door: Door) -> None:
    ada = enrolled(door)
    options = ada.options("/sign-in/confirm/options")
    answer = ada.post("/sign-in", {"credential": used(ada.passkey, options, handle=ada.handle)})
    assert answer.status_code == 403


def test_a_counter_that_goes_back_is_refused(door: Door) -> None:
    ada = enrolled(door)
    assert Visitor(door.client(), ada.passkey, ada.handle).sign_in().status_code == 200
    ada.passkey.sign_count -= 1
    answer = Visitor(door.client(), ada.passkey, ada.handle).sign_in()
    assert answer.status_code == 403
    assert "a copy" in answer.json()["detail"]
    assert ("refused", "passkey", "counter", "1") in door.said()


def test_an_authenticator_that_does_not_count_signs_in_twice(door: Door) -> None:
    class Uncounted(SoftwarePasskey):
        def assertion(self, challenge: bytes, /, **said: object) -> tuple[bytes, Assertion]:
            self.sign_count = -1
            return super().assertion(challenge, **said)

    visitor = Visitor(door.client(), Uncounted(HOST))
    assert visitor.enrol(invited(door).link).status_code == 200
    for _ in range(2):
        assert Visitor(door.client(), visitor.passkey, visitor.handle).sign_in().status_code == 200


def test_backing_up_later_is_fine_and_becoming_eligible_is_not(door: Door) -> None:
    flags = USER_PRESENT | USER_VERIFIED | BACKUP_ELIGIBLE
    visitor = Visitor(door.client(), SoftwarePasskey(HOST, flags=flags))
    account = visitor.enrol(invited(door).link).json()["account"]
    visitor.passkey.flags = flags | BACKED_UP
    assert Visitor(door.client(), visitor.passkey, visitor.handle).sign_in().status_code == 200
    assert passkeys_of(door.here.database, account)[0].backed_up
    visitor.passkey.flags = USER_PRESENT | USER_VERIFIED
    assert Visitor(door.client(), visitor.passkey, visitor.handle).sign_in().status_code == 403


def test_a_passkey_asks_for_its_certificate(door: Door, tmp_path: Any) -> None:
    """What the passkey signed first is its request; the certificate carries the account's id, and then it may sign."""
    ada = enrolled(door, "Zoë Zegel")
    account = ada.who()
    assert account is not None
    (waiting,) = passkeys_without_certificate(door.here)
    assert waiting.account.id == account
    assert waiting.spki == public_key_spki(waiting.passkey)
    request, signature, assertion = signing_request(door.here, account, waiting.passkey.credential_id)
    assert (request.name, request.role, request.relying_party) == ("Zoë Zegel", "consortium_admin", HOST)
    assert request.fingerprint == waiting.passkey.key_digest
    path = write_passkey_request(tmp_path / "ada.request.json", request, signature, assertion)
    approve(
        door.here.home, read_request(path), passphrase=PASSPHRASE.encode(), out=tmp_path / "ada.crt", person=account
    )
    assert passkeys_without_certificate(door.here) == []
    (shown,) = ada.client.get("/api/v1/account/passkeys").json()
    assert shown["signing"] == "signs"
    assert shown["certificate"].startswith("sha256:")


def test_a_contact_signs_in_and_asks_for_no_certificate(door: Door) -> None:
    contact = enrolled(door, "Greet Geul", "hospital_contact", organisation="geul", hospital="geul")
    account = contact.who()
    assert account is not None
    assert account.startswith("contact-")
    assert passkeys_without_certificate(door.here) == []
    (passkey,) = passkeys_of(door.here.database, account)
    with pytest.raises(SignInError, match="nothing else"):
        signing_request(door.here, account, passkey.credential_id)
    assert contact.client.get("/api/v1/account/passkeys").json()[0]["signing"] == "cannot"


def test_more_passkeys_renamed_and_removed_but_not_the_last(door: Door) -> None:
    ada = enrolled(door)
    door.clock.forward(seconds=1)
    second = SoftwarePasskey(HOST, ED25519)
    options = ada.options("/account/passkeys/options")
    assert [each["id"] for each in options["excludeCredentials"]] == [base64url(ada.passkey.credential_id)]
    registered = ada.post("/account/passkeys", {"credential": made(second, options), "name": "key ring"})
    answer = ada.post("/account/passkeys/proof", {"credential": used(second, registered.json()["publicKey"])})
    assert answer.status_code == 200, answer.text
    assert [each["name"] for each in ada.client.get("/api/v1/account/passkeys").json()] == ["laptop", "key ring"]
    first = base64url(ada.passkey.credential_id)
    renamed = ada.client.patch(
        f"/api/v1/account/passkeys/{first}", json={"name": "old laptop"}, headers={"Idempotency-Key": "r"}
    )
    assert renamed.json()["name"] == "old laptop"
    assert ada.delete(f"/account/passkeys/{first}").status_code == 204
    last = ada.delete(f"/account/passkeys/{base64url(second.credential_id)}")
    assert last.status_code == 409
    assert "only passkey" in last.json()["detail"]
    assert Visitor(door.client(), ada.passkey, ada.handle).sign_in().status_code == 403
    assert Visitor(door.client(), second, ada.handle).sign_in().status_code == 200
    assert ("granted", "passkey-added") in door.said()
    assert ("ended", "passkey-removed") in door.said()


def test_one_person_has_one_account(door: Door) -> None:
    invited(door)
    with pytest.raises(SignInError, match="has an account already"):
        invited(door, "ada beheer")
    invited(door, "Ada Beheer", organisation="another bureau")


BAD_INVITATIONS: dict[str, dict[str, Any]] = {
    "no name": {"name": "  "},
    "a control character": {"name": "Ada\x1bBeheer"},
    "unknown role": {"role": "superuser"},
    "a machine's role": {"role": "client"},
    "a contact without hospital": {"role": "hospital_contact"},
    "an admin with a hospital": {"hospital": "amstel"},
    "a hospital that is a path": {"role": "hospital_contact", "hospital": "../amstel"},
    "an unknown language": {"language": "tlh"},
    "an id for a name": {"name": "person-0123456789abcdef"},
}


@pytest.mark.parametrize("case", BAD_INVITATIONS, ids=str)
def test_invitations_that_cannot_be(door: Door, case: str) -> None:
    fields = {"name": "Ada", "role": "consortium_admin", "organisation": "bureau"} | BAD_INVITATIONS[case]
    with pytest.raises(SignInError):
        invite(door.here, **fields)
    assert door.entries() == []


def test_the_challenge_is_not_guessable_from_the_cookie(door: Door) -> None:
    visitor = Visitor(door.client())
    options = visitor.options("/sign-in/options")
    secret = visitor.client.cookies["__Host-zegel-ceremony"]
    assert options["challenge"] != secret
    assert len(base64.urlsafe_b64decode(secret + "=")) == 32
