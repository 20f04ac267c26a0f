"""Signing in at the organisation's own sign-in: the flow against a provider over HTTP, and its lies."""

from __future__ import annotations

import base64
import hmac
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from httpx2 import Response
from joserfc.jwk import RSAKey
from starlette.testclient import TestClient

from admin_api.errors import WebError
from admin_api.web.settings import Settings
from admin_api.web.sign_in.accounts import account_of, end_account, erase
from admin_api.web.sign_in.oidc import provider_of
from jobs.home import ConsortiumHome
from tests.admin_api.consortium_folder import copied
from tests.admin_api.web.sign_in.conftest import URL, Clock, Door, emptied, open_door
from tests.admin_api.web.sign_in.provider import CLIENT_ID, SECRET, SIGNING, Provider, providing
from tests.admin_api.web.sign_in.visitor import HOST, Visitor, made, used
from tests.passkey import SoftwarePasskey

ROLES = {
    "zegel-officers": "privacy_officer@privacy board",
    "zegel-admins": "consortium_admin@bureau",
    "geul-contacts": "hospital_contact@geul@geul",
}


@pytest.fixture(scope="module")
def opened(founded: ConsortiumHome, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Door, Provider]]:
    folder = tmp_path_factory.mktemp("oidc")
    clock = Clock()
    secret = folder / "secret"
    secret.write_text(f"{SECRET}\n", encoding="utf-8")
    with providing(clock) as provider:
        door = open_door(
            copied(founded.path, folder / "consortium", clock),
            clock,
            oidc_issuer=provider.issuer,
            oidc_client_id=CLIENT_ID,
            oidc_client_secret_file=secret,
            oidc_roles=ROLES,
            oidc_domains="hospital.example,other.example",
        )
        yield door, provider
        door.here.database.close()


@pytest.fixture
def provider(opened: tuple[Door, Provider]) -> Provider:
    provider = opened[1]
    provider.claims, provider.header, provider.metadata = {}, {}, {}
    provider.key, provider.token, provider.down = SIGNING, str, False
    provider.asked.clear()
    return provider


@pytest.fixture
def door(opened: tuple[Door, Provider], provider: Provider) -> Door:
    return emptied(opened[0])


def come(
    door: Door, provider: Provider, client: TestClient | None = None, *, again: bool = False, **answer: str
) -> tuple[TestClient, Response]:
    """From the link on the sign-in page to the answer of the callback."""
    client = client or door.client()
    sent = client.get("/sign-in/oidc", params={"next": "/plans", "again": again})
    assert sent.status_code == 303, sent.text
    back = provider.let_in(sent.headers["location"], **answer)
    return client, client.get(back.removeprefix(URL))


def test_the_way_there_and_back(door: Door, provider: Provider) -> None:
    client, answer = come(door, provider)
    assert (answer.status_code, answer.headers["location"]) == (303, "/plans")
    said = client.get("/api/v1/session").json()
    assert (said["via"], said["role"], said["organisation"]) == ("oidc", "privacy_officer", "privacy board")
    assert said["name"] == "Olga Organisatie"
    (asked,) = provider.asked
    assert asked["response_type"] == "code"
    assert asked["code_challenge_method"] == "S256"
    assert asked["redirect_uri"] == f"{URL}/sign-in/oidc/callback"
    assert len({asked["state"], asked["nonce"], asked["code_challenge"]}) == 3
    assert door.said() == [("granted", "oidc")]


def test_the_same_person_has_one_account(door: Door, provider: Provider) -> None:
    first, second = (Visitor(come(door, provider)[0]).who() for _ in range(2))
    assert first == second
    provider.claims = {"sub": "subject-2"}
    assert Visitor(come(door, provider)[0]).who() not in (None, first)


def test_a_contact_sees_the_own_hospital(door: Door, provider: Provider) -> None:
    provider.claims = {"groups": "geul-contacts"}
    said = come(door, provider)[0].get("/api/v1/session").json()
    assert (said["role"], said["hospital"], said["account"][:8]) == ("hospital_contact", "geul", "contact-")


def test_what_was_planted_in_the_browser_ends(door: Door, provider: Provider) -> None:
    client, _ = come(door, provider)
    before = client.cookies["__Host-zegel-session"]
    come(door, provider, client)
    copied_session = door.client()
    copied_session.cookies.set("__Host-zegel-session", before)
    assert Visitor(copied_session).who() is None


def test_somebody_from_there_adds_a_passkey_to_sign(door: Door, provider: Provider) -> None:
    client, _ = come(door, provider)
    visitor = Visitor(client)
    visitor.carry_csrf()
    refused = visitor.post("/account/passkeys/options")
    assert refused.json()["type"] == "/problems/confirm-first", "a single sign-on asked nobody anything"
    come(door, provider, client, again=True)
    assert (provider.asked[-1]["prompt"], provider.asked[-1]["max_age"]) == ("login", "0")
    visitor.carry_csrf()
    passkey = SoftwarePasskey(HOST)
    options = visitor.options("/account/passkeys/options")
    registered = visitor.post("/account/passkeys", {"credential": made(passkey, options), "name": "x"})
    proven = visitor.post("/account/passkeys/proof", {"credential": used(passkey, registered.json()["publicKey"])})
    assert proven.status_code == 200
    assert Visitor(door.client(), passkey, options["user"]["id"]).sign_in().status_code == 200


@pytest.mark.parametrize("said", [None, 0, -1, "now", True, 4_000_000_000])
def test_confirming_needs_the_issuers_word_that_it_asked(door: Door, provider: Provider, said: object) -> None:
    client, _ = come(door, provider)
    provider.claims = {"auth_time": said}
    assert come(door, provider, client, again=True)[1].status_code == 403
    assert client.get("/api/v1/session").json()["recent"] is False
    assert client.get("/sign-in/confirm").text.count("/sign-in/oidc?again=1&amp;next=") == 1


CLAIM_LIES: dict[str, dict[str, Any]] = {
    "another nonce": {"nonce": "x"},
    "no nonce": {"nonce": None},
    "for another client": {"aud": "other"},
    "for us and another": {"aud": [CLIENT_ID, "other"], "azp": CLIENT_ID},
    "for nobody": {"aud": None},
    "authorised for another": {"azp": "other"},
    "another issuer": {"iss": "https://evil.example"},
    "an issuer with a slash": {"iss": "/"},
    "no issuer": {"iss": None},
    "expired": {"exp": 1},
    "without an end": {"exp": None},
    "not valid yet": {"nbf": 4_000_000_000},
    "made in the future": {"iat": 4_000_000_000},
    "nobody": {"sub": None},
    "an empty subject": {"sub": ""},
    "a subject that is no text": {"sub": {"a": 1}},
    "another access token": {"at_hash": "AAAAAAAAAAAAAAAAAAAAAA"},
}


@pytest.mark.parametrize("lie", CLAIM_LIES, ids=str)
def test_lies_in_the_identity_token(door: Door, provider: Provider, lie: str) -> None:
    slash = {"iss": f"{provider.issuer}/"}
    provider.claims = slash if lie == "an issuer with a slash" else CLAIM_LIES[lie]
    client, answer = come(door, provider)
    assert answer.status_code == 403, answer.headers
    assert Visitor(client).who() is None
    assert door.said() == [("refused", "oidc", "not-proven", "1")]


def unsigned(text: str) -> str:
    """The same claims under `alg: none`."""
    header = base64.urlsafe_b64encode(json.dumps({"alg": "none"}).encode()).decode().rstrip("=")
    return f"{header}.{text.split('.')[1]}."


def by_our_public_key(text: str) -> str:
    """The classic: an HMAC whose key is the issuer's public key."""
    head = base64.urlsafe_b64encode(json.dumps({"alg": "HS256", "kid": "k1"}).encode()).decode().rstrip("=")
    signed = f"{head}.{text.split('.')[1]}"
    code = hmac.digest(SIGNING.as_pem(private=False), signed.encode(), "sha256")
    return f"{signed}.{base64.urlsafe_b64encode(code).decode().rstrip('=')}"


def altered(text: str) -> str:
    head, body, signature = text.split(".")
    claims = json.loads(base64.urlsafe_b64decode(body + "=="))
    claims["groups"] = ["zegel-admins"]
    return f"{head}.{base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip('=')}.{signature}"


TOKEN_LIES: dict[str, dict[str, Any]] = {
    "not signed": {"token": unsigned},
    "signed with the public key": {
        "token": by_our_public_key, "metadata": {"id_token_signing_alg_values_supported": ["RS256", "HS256"]},
    },
    "signed by another key": {"key": RSAKey.generate_key(2048, {"kid": "k1"})},
    "by a key nobody knows": {"header": {"kid": "k2"}},
    "altered": {"token": altered},
    "no token": {"token": lambda _: ""},
    "garbage": {"token": lambda _: "a.b.c"},
    "an algorithm it does not offer": {"metadata": {"id_token_signing_alg_values_supported": ["ES256"]}},
}  # fmt: skip


@pytest.mark.parametrize("lie", TOKEN_LIES, ids=str)
def test_lies_about_the_signature(door: Door, provider: Provider, lie: str) -> None:
    for name, value in TOKEN_LIES[lie].items():
        setattr(provider, name, value)
    client, answer = come(door, provider)
    assert answer.status_code == 403
    assert Visitor(client).who() is None
    assert door.said() == [("refused", "oidc", "not-proven", "1")]


UNMAPPED: dict[str, dict[str, Any]] = {
    "no group of ours": {"groups": ["staff"]},
    "no groups": {"groups": None},
    "groups that are no list": {"groups": {"zegel-officers": True}},
    "two roles": {"groups": ["zegel-officers", "zegel-admins"]},
    "another domain": {"email": "olga@evil.example"},
    "a domain that ends like ours": {"email": "olga@nothospital.example"},
    "an address that nobody verified": {"email_verified": False},
    "verified by a word": {"email_verified": "true"},
    "no address": {"email": None},
}


@pytest.mark.parametrize("case", UNMAPPED, ids=str)
def test_who_has_no_role_here_is_refused(door: Door, provider: Provider, case: str) -> None:
    provider.claims = UNMAPPED[case]
    client, answer = come(door, provider)
    assert answer.status_code == 403
    assert Visitor(client).who() is None
    assert door.said() == [("refused", "oidc", "unmapped", "1")]


def test_losing_the_role_ends_earlier_sessions(door: Door, provider: Provider) -> None:
    before, _ = come(door, provider)
    provider.claims = {"groups": []}
    come(door, provider)
    assert Visitor(before).who() is None
    assert ("ended", "role-changed") in door.said()


def test_another_role_takes_effect_and_ends_earlier_sessions(door: Door, provider: Provider) -> None:
    before, _ = come(door, provider)
    account = Visitor(before).who()
    provider.claims = {"groups": ["zegel-admins"]}
    after, _ = come(door, provider)
    assert Visitor(before).who() is None
    said = after.get("/api/v1/session").json()
    assert (said["account"], said["role"]) == (account, "consortium_admin")
    provider.claims = {"groups": ["geul-contacts"]}
    assert come(door, provider)[1].status_code == 403, "a person's account does not become a contact's"


def test_an_ended_account_stays_ended_until_it_is_erased(door: Door, provider: Provider) -> None:
    account = Visitor(come(door, provider)[0]).who()
    assert account is not None
    end_account(door.here, account, by=None)
    assert come(door, provider)[1].status_code == 403
    erase(door.here, account)
    assert account_of(door.here.database, account).name is None
    assert Visitor(come(door, provider)[0]).who() not in (None, account)


ANSWER_LIES = {
    "another state": {"state": "x"},
    "no state": {"state": ""},
    "no code": {"code": ""},
    "another code": {"code": "x"},
    "refused there": {"error": "access_denied"},
    "another issuer": {"iss": "https://evil.example"},
}


@pytest.mark.parametrize("lie", ANSWER_LIES, ids=str)
def test_lies_in_the_answer(door: Door, provider: Provider, lie: str) -> None:
    client, answer = come(door, provider, None, again=False, **ANSWER_LIES[lie])
    assert answer.status_code == 403
    assert Visitor(client).who() is None


def test_an_issuer_that_promises_to_name_itself_must(door: Door, provider: Provider) -> None:
    assert come(door, provider, None, iss="")[1].status_code == 303
    provider.metadata = {"authorization_response_iss_parameter_supported": True}
    assert come(door, provider, None, iss="")[1].status_code == 403


def test_an_answer_counts_once_and_in_the_browser_that_asked(door: Door, provider: Provider) -> None:
    client = door.client()
    back = provider.let_in(client.get("/sign-in/oidc").headers["location"]).removeprefix(URL)
    assert door.client().get(back).status_code == 403
    cookie = client.cookies["__Host-zegel-ceremony"]
    assert client.get(back).status_code == 303
    client.cookies.set("__Host-zegel-ceremony", cookie, domain=HOST)
    assert client.get(back).status_code == 403


def test_the_code_is_bound_to_our_verifier(door: Door, provider: Provider) -> None:
    """A code stolen on the way does not work in another sign-in: PKCE."""
    victim = door.client()
    stolen = dict(parse_qsl(urlsplit(provider.let_in(victim.get("/sign-in/oidc").headers["location"])).query))["code"]
    client, answer = come(door, provider, None, code=stolen)
    assert answer.status_code == 403
    assert Visitor(client).who() is None


def test_an_issuer_that_is_down_or_another_one(door: Door, provider: Provider) -> None:
    provider.down = True
    answer = door.client().get("/sign-in/oidc")
    assert answer.status_code == 503
    provider.down = False
    provider.metadata = {"issuer": "https://evil.example"}
    assert door.client().get("/sign-in/oidc").status_code == 503
    provider.metadata = {"token_endpoint": "http://evil.example/token"}
    assert door.client().get("/sign-in/oidc").status_code == 503


def test_without_it_the_address_leads_nowhere(opened_door: Door) -> None:
    for path in ("/sign-in/oidc", "/sign-in/oidc/callback?code=x&state=y"):
        assert opened_door.client().get(path).status_code == 404


BAD_SETTINGS: dict[str, dict[str, Any]] = {
    "no client": {"oidc_client_id": None},
    "no roles": {"oidc_roles": {}},
    "http": {"oidc_issuer": "http://login.example"},
    "not a role": {"oidc_roles": {"a": "king@bureau"}},
    "no organisation": {"oidc_roles": {"a": "authority@"}},
    "a contact without hospital": {"oidc_roles": {"a": "hospital_contact@geul"}},
    "an officer with a hospital": {"oidc_roles": {"a": "privacy_officer@board@geul"}},
    "a hospital that is a path": {"oidc_roles": {"a": "hospital_contact@geul@../geul"}},
}


@pytest.mark.parametrize("case", BAD_SETTINGS, ids=str)
def test_settings_that_cannot_be(case: str) -> None:
    fields: dict[str, Any] = {
        "home": ".", "oidc_issuer": "https://login.example", "oidc_client_id": "zegel",
        "oidc_roles": {"a": "authority@office"}, **BAD_SETTINGS[case],
    }  # fmt: skip
    with pytest.raises(WebError, match=r"oidc|OpenID"):
        provider_of(Settings(**fields))
