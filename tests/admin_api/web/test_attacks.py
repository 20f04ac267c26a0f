"""The app as somebody meets it who means harm: other people's things, other sites' forms, hostile values and files.

Most of this goes over every route there is, so a route that is added tomorrow is attacked tomorrow. What is looked
for: an answer of 500 and above, a value that comes back as markup, a header that somebody else wrote, a thing of
another hospital or account, and anything that changed although it was refused.
"""

from __future__ import annotations

import dataclasses
import html
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import pytest
from fastapi._compat import ModelField
from fastapi.dependencies.models import Dependant
from httpx2 import Response
from starlette.testclient import TestClient

from admin_api.web.access import ACCESS
from admin_api.web.app import create_app, make_workplace
from admin_api.web.context import HOSPITAL_CONTACT
from admin_api.web.database import utc
from admin_api.web.routes import SAFE, ApiRoute, PageRoute
from admin_api.web.settings import Settings
from admin_api.web.sign_in.accounts import invite
from admin_api.web.sign_in.sessions import sessions_of
from admin_api.web.sign_in.site import SESSION, cookie_name
from admin_api.web.sign_in.tables import AccountRow
from admin_api.web.tables import ActRow
from tests.admin_api.conftest import AfterRun
from tests.admin_api.consortium_folder import EVALUATOR, RUN, TRAINERS, copied
from tests.admin_api.web.certificates.cast import asked_at
from tests.admin_api.web.certificates.test_archive import HOSTILE
from tests.admin_api.web.conftest import URL, Web
from tests.admin_api.web.crew import computing_nothing
from tests.admin_api.web.sign_in.signed_in import account_for_tests, sign_in_for_tests
from tests.admin_api.web.sign_in.visitor import HOST, Visitor
from tests.passkey import SoftwarePasskey

Route = ApiRoute | PageRoute
OWN, OTHER = TRAINERS[0], TRAINERS[1]
ONE_HOSPITAL = "hospitals.one.page"  # with its history, which names who else was in a round
NOBODY = "no-such-hospital"
DIGEST = "sha256:" + "0" * 64
HEX = "0" * 32
STREAM = "events"  # routes that never end
OUTSIDE = ("runs.start", "runs.resume", "runs.stop", "federation.start", "federation.stop")  # they start processes
MARKUP = """<script>alert(1)</script>"'><img src=x onerror=alert(2)>"""
TEMPLATE = "{{1337*7331}}${1337*7331}<%= 1337*7331 %>#{1337*7331}"
PRODUCT = str(1337 * 7331)
SQL = "x' OR '1'='1'; DROP TABLE web_account; --"
ODD = "\x00\u202e\ud7ff %00%0a ../../../../etc/passwd \U0001f480"
HOSTILE_VALUES = (MARKUP, TEMPLATE, SQL, ODD)
SPLIT = "a\r\nX-Injected: yes\r\nSet-Cookie: injected=1\r\n\r\n<b>"
AWAY = (
    "https://evil.example/",
    "//evil.example/",
    "/\\evil.example/",
    "\\\\evil.example",
    "/\t/evil.example",
    "/%0d%0aLocation:https://evil.example",
    "javascript:alert(1)",
    " https://evil.example",
    "/..//evil.example",
    "https:evil.example",
    "///evil.example",
    "/sign-in@evil.example\r\nX-Injected: yes",
)


@pytest.fixture(scope="module")
def web(ran: AfterRun, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    """One consortium for all attacks: none of them may change it."""
    home = copied(ran.home.path, tmp_path_factory.mktemp("attacked") / "consortium")
    settings = Settings(home=home.path, public_url=URL)
    here = replace(make_workplace(settings), home=home)
    app = create_app(settings, here)
    with computing_nothing(home.path):
        yield Web(app, here, AfterRun(home, ran.people, ran.sites, ran.plan_hash))
    here.reading.close()
    here.database.close()


def _routes(web: Web) -> Iterator[tuple[Route, str]]:
    for route in web.app.state.routes:
        for method in sorted(route.methods - {"HEAD", "OPTIONS"}):
            yield route, method


def _reading(web: Web) -> list[Route]:
    """Every route that is read with GET and ends."""
    return [route for route, method in _routes(web) if method == "GET" and not route.name.endswith(STREAM)]


@dataclass
class Crowd:
    """A browser for each role, opened when it is needed."""

    web: Web
    clients: dict[str, TestClient] = dataclasses.field(default_factory=dict)

    def of(self, name: str) -> TestClient:
        """Somebody who may use the route; the admin where they may."""
        roles = ACCESS[name].roles
        role = "consortium_admin" if roles is None or "consortium_admin" in roles else sorted(roles)[0]
        if role not in self.clients:
            self.clients[role] = self.web.signed_in(role, hospital=OWN if role == HOSPITAL_CONTACT else None)
        return self.clients[role]


@pytest.fixture(scope="module")
def crowd(web: Web) -> Crowd:
    return Crowd(web)


def _filled(path: str, **values: str) -> str:
    known = {"site": OWN, "index": "3", "number": "1", "run": RUN, "name": "winter", "release": "winter", **values}

    def value(match: re.Match[str]) -> str:
        name = match[1]
        if name in known:
            return quote(known[name], safe="")
        return DIGEST if re.search("digest|hash|version|statement", name) else HEX

    return re.sub(r"\{(\w+)(?::\w+)?\}", value, path)


def _given(path: str, everywhere: str) -> str:
    return re.sub(r"\{\w+(?::\w+)?\}", quote(everywhere, safe=""), path)


def _parts(dependant: Dependant) -> Iterator[Dependant]:
    yield dependant
    for each in dependant.dependencies:
        yield from _parts(each)


def _queries(route: Route) -> list[str]:
    return [field.alias for part in _parts(route.dependant) for field in part.query_params]


def _bodies(route: Route) -> list[ModelField]:
    return [field for part in _parts(route.dependant) for field in part.body_params]


def _fields(route: Route) -> list[str]:
    return [field.alias for field in _bodies(route)]


def _names_in(body: ModelField) -> list[str]:
    """The fields of a body's model; none for a file."""
    return list(getattr(body.field_info.annotation, "model_fields", {}))


def _key() -> dict[str, str]:
    return {"Idempotency-Key": uuid4().hex}


def _harmless(answer: Response) -> list[str]:
    """What is wrong with the answer to a hostile value."""
    wrong = []
    if answer.status_code >= 500:
        wrong.append(f"answered {answer.status_code}")
    for name, value in answer.headers.multi_items():
        if "injected" in name.lower() or "\n" in value or "\r" in value:
            wrong.append(f"header {name}: {value!r}")
    if name_of_injected := [each for each in answer.cookies if "injected" in each]:
        wrong.append(f"cookies {name_of_injected}")
    if answer.headers.get("content-type", "").startswith("text/html"):
        for markup in ("<script>alert(", "<img src=x", "<b>\n"):
            if markup in answer.text:
                wrong.append(f"echoes {markup}")
    if PRODUCT in answer.text:
        wrong.append("evaluates what it was given")
    return wrong


# -- Other people's things -------------------------------------------------------------------------------------------


def _told(answer: Response, name: str) -> Any:
    """A refusal without what differs from one to the next."""
    if answer.headers["content-type"].startswith("text/html"):
        text = re.sub(r'name="(csrf|idempotency_key)" value="[^"]*"|Request id.*|[0-9a-f]{16}', "", answer.text)
        return text.replace(name, "SITE")
    said = answer.json()
    said.pop("request_id", None)
    return json.loads(json.dumps(said).replace(name, "SITE"))


def test_another_hospital_is_as_if_it_were_not_there(web: Web) -> None:
    """For a contact there is no telling a hospital that exists from one that does not."""
    client = web.signed_in(HOSPITAL_CONTACT, hospital=OWN)
    wrong, tried = [], 0
    for route, method in _routes(web):
        if "{site}" not in route.path or HOSPITAL_CONTACT not in (ACCESS[route.name].roles or ()):
            continue
        tried += 1
        answers = [
            client.request(method, _filled(route.path, site=site), headers={} if method in SAFE else _key())
            for site in (OTHER, NOBODY)
        ]
        if [each.status_code for each in answers] != [404, 404]:
            wrong.append(f"{method} {route.path}: {[each.status_code for each in answers]}")
        elif _told(answers[0], OTHER) != _told(answers[1], NOBODY):
            wrong.append(f"{method} {route.path}: the refusals differ")
    assert tried > 10
    assert not wrong, "\n".join(wrong)


def test_a_contact_reads_nothing_about_other_hospitals_in_lists(web: Web) -> None:
    """Lists of hospitals, budgets and hits. Runs, releases and the log's witnesses name those who took part."""
    client = web.signed_in(HOSPITAL_CONTACT, hospital=OWN)
    others = {*TRAINERS, EVALUATOR} - {OWN}
    wrong, tried = [], 0
    for route in _reading(web):
        if HOSPITAL_CONTACT not in (ACCESS[route.name].roles or ()) or "history" in route.name:
            continue
        if not route.name.startswith(("hospitals.", "privacy.", "search", "today")) or route.name == ONE_HOSPITAL:
            continue
        tried += 1
        for other in others if "q" in _queries(route) else [""]:
            answer = client.get(_filled(route.path) + (f"?q={other}" if other else ""))
            text = answer.text.replace(other, "") if other else answer.text
            if found := [each for each in others if re.search(rf"\b{each}\b", text)]:
                wrong.append(f"{route.path} {other} ({answer.status_code}) names {found}")
            if other and answer.headers["content-type"] == "application/json":
                assert answer.json() == [], f"{route.path} finds {other}"
    assert tried > 10
    assert not wrong, "\n".join(wrong)


def test_a_contacts_log_is_that_of_the_own_hospital(web: Web) -> None:
    client = web.signed_in(HOSPITAL_CONTACT, hospital=OWN)
    with web.here.home.log() as log:
        bodies = {index: json.dumps(entry.body) for index, entry in log.entries()}
    for query in ("", f"&site={OTHER}", "&kind=metrics.reported"):
        listed = [each["index"] for each in client.get(f"/api/v1/log/entries?limit=200{query}").json()["items"]]
        assert len(listed) < len(bodies)
        for index in listed:
            assert OWN in bodies[index] or OTHER not in bodies[index], f"entry {index}: {bodies[index][:200]}"


def test_entries_of_another_hospital_are_not_served(web: Web) -> None:
    client = web.signed_in(HOSPITAL_CONTACT, hospital=OWN)
    served = hidden = 0
    with web.here.home.log() as log:
        entries = list(log.entries())
    for index, entry in entries:
        text = json.dumps(entry.body)
        for path in (f"/api/v1/log/entries/{index}", f"/log/{index}"):
            status = client.get(path).status_code
            if OTHER in text and OWN not in text:
                assert status == 404, f"{path}: {entry.kind}"
                hidden += 1
            served += status == 200
    assert served
    assert hidden


def _somebody(web: Web, role: str, name: str) -> tuple[TestClient, str]:
    client = web.client()
    account = sign_in_for_tests(client, web.here, role, organisation=name)
    return client, account.id


def test_sessions_tokens_passkeys_and_acts_belong_to_one_account(web: Web) -> None:
    """Whatever of another account somebody names, the answer is that of something that does not exist."""
    victim, account = _somebody(web, "release_manager", "victims")
    thief, _ = _somebody(web, "release_manager", "thieves")
    Visitor(victim).carry_csrf()
    made = victim.post(
        "/api/v1/account/tokens",
        json={"name": "nightly", "scope": ["releases:read"], "ends": _in_a_month(web)},
        headers=_key(),
    )
    assert made.status_code == 201, made.text
    act = uuid4().hex
    with web.here.database.begin() as session:
        session.add(
            ActRow(
                id=act, name="gates", account=account, certificate=DIGEST, parameters="{}", prepared="{}",
                expires=utc(web.here.now()).replace(year=web.here.now().year + 1),
            )
        )  # fmt: skip
    (own_session,) = victim.get("/api/v1/account/sessions").json()
    things = {
        "act_id": act,
        "session": own_session["id"],
        "session_id": own_session["id"],
        "token": made.json()["id"],
        "token_id": made.json()["id"],
        "credential": "A" * 22,
    }
    absent = {name: re.sub("[0-9a-f]{16}$", "f" * 16, value) for name, value in things.items()}
    wrong, tried = [], set()
    for route, method in _routes(web):
        named = set(re.findall(r"\{(\w+)", route.path)) & set(things)
        if not named or not route.name.startswith(("account.", "acts.")):
            continue
        tried |= named
        said = []
        for ids in (things, absent):
            headers = {} if method in SAFE else _key()
            body = {"assertion": _assertion()} if "act_id" in named else {"name": "mine"}
            form = {"name": "mine", "assertion": json.dumps(_assertion())}
            sent: dict[str, Any] = {"json": body} if isinstance(route, ApiRoute) and method not in SAFE else {}
            sent = {"data": form} if isinstance(route, PageRoute) and method not in SAFE else sent
            answer = thief.request(method, _filled(route.path, **ids), headers=headers, **sent)
            said.append((answer.status_code, _told(answer, ids[next(iter(named))])))
        if said[0][0] != 404 or said[0] != said[1]:
            wrong.append(f"{method} {route.path}: {[each[0] for each in said]}")
    assert tried >= {"act_id"}
    assert len(tried) >= 4, tried
    assert not wrong, "\n".join(wrong)
    assert victim.get("/api/v1/session").status_code == 200, "the session was ended"
    assert [each["counts"] for each in victim.get("/api/v1/account/tokens").json()] == [True]
    with web.here.database.reading() as session:
        assert session.get(ActRow, act) is not None, "the act was spent"
    assert len(sessions_of(web.here, account)) == 1


def _assertion() -> dict[str, Any]:
    part = "A" * 43
    return {"id": part, "response": {"clientDataJSON": part, "authenticatorData": part, "signature": part}}


def _in_a_month(web: Web) -> str:
    now = web.here.now()
    return now.replace(year=now.year + (now.month == 12), month=now.month % 12 + 1, day=1).isoformat()


def test_a_request_is_reached_through_its_own_hospital_only(web: Web, tmp_path: Path) -> None:
    admin = web.signed_in("consortium_admin")
    invited = admin.post(
        "/api/v1/hospitals", json={"site": "ijssel", "organisation": "ijssel", "contact": "Nel"}, headers=_key()
    )
    assert invited.status_code == 201, invited.text
    theirs = web.signed_in(HOSPITAL_CONTACT, hospital="ijssel")
    sent = theirs.post("/api/v1/hospitals/ijssel/requests", content=asked_at(tmp_path, "ijssel"), headers=_key())
    assert sent.status_code == 201, sent.text
    request = sent.json()["id"]
    thief = web.signed_in(HOSPITAL_CONTACT, hospital=OWN)
    tried = 0
    for route, method in _routes(web):
        if "{request_id}" not in route.path:
            continue
        for site in (OWN, "ijssel"):
            headers = {} if method in SAFE else {**_key(), "If-Match": sent.headers["etag"]}
            answer = thief.request(method, _filled(route.path, request_id=request, site=site), headers=headers)
            assert answer.status_code in (403, 404), f"{method} {route.path} as {site}: {answer.status_code}"
            tried += 1
    assert tried > 6
    assert theirs.get(f"/api/v1/hospitals/ijssel/requests/{request}").json()["state"] == sent.json()["state"]


# -- Other sites, other sessions -------------------------------------------------------------------------------------


def test_no_form_of_another_site_is_taken(web: Web, crowd: Crowd) -> None:
    """Every unsafe route, with a session: without its token, and from another origin with it."""
    wrong = []
    for route, method in _routes(web):
        if method in SAFE:
            continue
        client = crowd.of(route.name)
        token = client.headers["X-CSRF-Token"]
        for what, headers in (
            ("without the token", {"Origin": URL, "X-CSRF-Token": ""}),
            ("with a wrong token", {"Origin": URL, "X-CSRF-Token": "A" * len(token)}),
            ("from another origin", {"Origin": "https://evil.example", "X-CSRF-Token": token}),
            ("from a sandboxed frame", {"Origin": "null", "X-CSRF-Token": token}),
        ):
            answer = client.request(
                method, _filled(route.path), headers={**headers, **_key(), "Accept": "application/json"}
            )
            if answer.status_code != 403 or ("cross-site" not in answer.text and "Not from our own" not in answer.text):
                wrong.append(f"{method} {route.path} {what}: {answer.status_code}")
    assert not wrong, "\n".join(wrong)


def test_a_method_is_what_it_says(web: Web, crowd: Crowd) -> None:
    client = crowd.of("account.page")
    for name in ("X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override", "_method"):
        assert client.get("/sign-out", headers={name: "POST"}, params={"_method": "POST"}).status_code == 405
    assert client.get("/api/v1/session").status_code == 200


def test_a_session_is_never_one_that_was_there_before(web: Web) -> None:
    """Fixation: neither a value of the attacker's choice nor a session of before survives signing in."""
    visitor = Visitor(web.client(), SoftwarePasskey(HOST))
    visitor.client.headers["Origin"] = URL
    name = cookie_name(web.here.settings, SESSION)
    planted = "A" * 43
    visitor.client.cookies.set(name, planted, domain=HOST)
    invitation = invite(web.here, name="Fien Fixatie", role="authority", organisation="statistics office")
    assert visitor.enrol(invitation.link).status_code == 200
    first = _newest(visitor.client, name)
    assert first != planted
    visitor.carry_csrf()
    answer = visitor.sign_in()
    assert answer.status_code == 200, answer.text
    (cookie,) = [each for each in answer.headers.get_list("set-cookie") if each.startswith(name)]
    for attribute in ("HttpOnly", "Secure", "SameSite=lax", "Path=/"):
        assert attribute.lower() in cookie.lower(), cookie
    assert "domain=" not in cookie.lower(), "a subdomain could plant it"
    assert name.startswith("__Host-")
    second = re.match(rf"{name}=([^;]+)", cookie)
    assert second is not None
    assert second[1] not in (first, planted)
    for old in (first, planted):
        before = web.client()
        before.cookies.set(name, old)
        assert before.get("/api/v1/session").status_code == 401, "a session from before signing in still counts"


def _newest(client: TestClient, name: str) -> str:
    return [each.value for each in client.cookies.jar if each.name == name and each.value][-1]


# -- Hostile values --------------------------------------------------------------------------------------------------


def test_hostile_values_in_addresses_come_to_nothing(web: Web, crowd: Crowd) -> None:
    wrong = []
    for route in _reading(web):
        client = crowd.of(route.name)
        queries = _queries(route)
        for value in (*HOSTILE_VALUES, SPLIT, "9" * 400):
            paths = [f"{_filled(route.path)}?{name}={quote(value, safe='')}" for name in queries]
            if "{" in route.path:
                paths.append(_given(route.path, value))
            for path in paths:
                if found := _harmless(client.get(path)):
                    wrong.append(f"GET {path[:150]}: {found}")
    assert not wrong, "\n".join(wrong)
    assert web.client().get("/readyz").status_code == 200
    assert crowd.of("accounts.list").get("/api/v1/accounts").status_code == 200, "the table is still there"


def test_hostile_values_in_forms_come_to_nothing(web: Web, crowd: Crowd) -> None:
    """Each field of each form, and of each act's."""
    wrong = []
    forms = [
        (route.name, _filled(route.path), _fields(route))
        for route, method in _routes(web)
        if isinstance(route, PageRoute) and method == "POST" and not route.name.startswith((*OUTSIDE, "sign-out"))
    ]
    for route, _ in _routes(web):
        if route.name.startswith("acts.prepare."):
            act = route.name.removeprefix("acts.prepare.")
            (body,) = _bodies(route)
            forms.append((route.name, f"/acts/new/{act}", _names_in(body)))
    assert len(forms) > 30
    for name, path, fields in forms:
        for value in (MARKUP + TEMPLATE, SQL + ODD.replace("\ud7ff", ""), SPLIT):
            answer = crowd.of(name).post(
                path, data={**dict.fromkeys(fields, value), "name": value, "reason": value}, headers={"If-Match": '"x"'}
            )
            if found := _harmless(answer):
                wrong.append(f"POST {path}: {found}")
            if answer.status_code == 401:
                crowd.clients.clear()
    assert not wrong, "\n".join(wrong)


def test_hostile_values_in_json_come_to_nothing(web: Web, crowd: Crowd) -> None:
    """Bodies that are no JSON, too deep, of other types, with fields of other people's making."""
    wrong = []
    deep = b"[" * 200_000
    for route, method in _routes(web):
        if method in SAFE or not isinstance(route, ApiRoute) or route.name.startswith((*OUTSIDE, "session.end")):
            continue
        fields = {name: MARKUP + TEMPLATE for field in _bodies(route) for name in _names_in(field)}
        bodies: Iterable[bytes] = (
            json.dumps(fields | {"__proto__": {"admin": True}, "role": "consortium_admin"}).encode(),
            deep,
            b"\xff\xfe\x00",
            b'{"a": NaN, "a": Infinity}',
            json.dumps(dict.fromkeys(fields, 10**400)).encode(),
            json.dumps(dict.fromkeys(fields, "\ud800")).encode(),
            b"null",
        )
        for body in bodies:
            answer = crowd.of(route.name).request(
                method, _filled(route.path), content=body, headers={**_key(), "Content-Type": "application/json"}
            )
            if answer.status_code == 401:
                crowd.clients.clear()
            if found := _harmless(answer):
                wrong.append(f"{method} {route.path} {body[:40]!r}: {found}")
    assert not wrong, "\n".join(wrong)


def test_what_is_kept_is_escaped_wherever_it_is_shown(web: Web, tmp_path: Path) -> None:
    """Stored: somebody whose name is markup, who calls everything by it. Every page that names them is looked at."""
    admin = web.signed_in("consortium_admin")
    account = account_for_tests(web.here, "consortium_admin")
    with web.here.database.begin() as session:
        row = session.get(AccountRow, account.id)
        assert row is not None
        row.name = MARKUP
        session.add(row)
    made = admin.post("/api/v1/plans/drafts", json={"name": MARKUP[:60], "terms": {"epsilon": 3.0}}, headers=_key())
    assert made.status_code < 500
    named = admin.post(
        "/api/v1/hospitals", json={"site": "vecht", "organisation": "vecht", "contact": MARKUP}, headers=_key()
    )
    assert named.status_code < 500
    shown = 0
    for route in _reading(web):
        if not isinstance(route, PageRoute) or "consortium_admin" not in (ACCESS[route.name].roles or ()):
            continue
        for path in {_filled(route.path), _filled(route.path, site="vecht", person=account.id, account=account.id)}:
            answer = admin.get(path)
            assert not _harmless(answer), path
            shown += html.escape(MARKUP, quote=False)[:20] in answer.text.replace("&#34;", '"')
    assert shown > 10, "nothing hostile was shown, so nothing was tried"


def test_nobody_is_led_away(web: Web, crowd: Crowd) -> None:
    """`next` in addresses and forms: a redirect stays here, and so does what a page's script follows."""
    tried = 0
    for route, method in _routes(web):
        names = set(_queries(route)) | set(_fields(route))
        if "next" not in names:
            continue
        for client in (web.client(), crowd.of(route.name)):
            for target in AWAY:
                tried += 1
                sent: dict[str, Any] = (
                    {"params": {"next": target}} if method in SAFE else {"data": {"next": target, "theme": "dark"}}
                )
                headers = {} if method in SAFE else {"Origin": URL}
                answer = client.request(method, _filled(route.path), headers=headers, **sent)
                assert not _harmless(answer), f"{route.path} {target}"
                assert _stays(answer.headers.get("location", "/")), f"{route.path} {target}: {answer.headers}"
                for followed in re.findall(r'data-next="([^"]*)"', answer.text):
                    assert _stays(html.unescape(followed)), f"{route.path}: data-next={followed}"
                for hidden in re.findall(r'name="next" value="([^"]*)"', answer.text):
                    assert _stays(html.unescape(hidden)), f"{route.path}: next={hidden}"
    assert tried > 40


def _stays(location: str) -> bool:
    """Whether every browser takes this for an address here: backslashes count as slashes, controls are dropped."""
    seen = re.sub(r"[\x00-\x20]", "", location).replace("\\", "/")
    if seen.startswith(URL + "/"):
        seen = seen[len(URL) :]
    return seen.startswith("/") and not seen.startswith("//")


def test_links_are_made_for_the_public_address_alone(web: Web, crowd: Crowd) -> None:
    """A Host header of the attacker's: no link, redirect or page repeats it."""
    headers = {"Host": "evil.example", "X-Forwarded-Host": "evil.example", "Forwarded": "host=evil.example"}
    for route in _reading(web):
        for client in (web.client(), crowd.of(route.name)):
            answer = client.get(_filled(route.path), headers=headers)
            assert "evil.example" not in answer.text, route.path
            assert "evil.example" not in str(answer.headers), route.path
    made = crowd.of("accounts.invite").post(
        "/api/v1/accounts",
        json={"name": "Otto", "role": "authority", "organisation": "statistics office"},
        headers={**headers, **_key()},
    )
    assert made.status_code == 201, made.text
    assert made.json()["link"].startswith(f"{URL}/enrol#")


# -- Files -----------------------------------------------------------------------------------------------------------


def _state(web: Web) -> tuple[int, set[str]]:
    """The log's size, and every file of the consortium besides the pages' own databases."""
    root = web.here.home.path
    with web.here.home.log() as log:
        size = log.size
    files = {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}
    return size, {name for name in files if not re.search(r"\.db(-wal|-shm)?$", name)}


def test_hostile_files_are_refused_and_leave_nothing(web: Web) -> None:
    admin = web.signed_in("consortium_admin")
    admin.post("/api/v1/hospitals", json={"site": "linge", "organisation": "linge", "contact": "L"}, headers=_key())
    most = web.here.settings.max_body_bytes
    files: dict[str, bytes] = {name: make() for name, (make, _) in HOSTILE.items()} | {
        "deep JSON": b"[" * 100_000,
        "half of JSON": b'{"statement": {',
        "numbers that are none": b'{"statement": NaN, "certificate": 1e999}',
        "no text": bytes(range(256)) * 4,
        "empty": b"",
        "another type": b"[]",
        "an entity bomb": b'<!DOCTYPE x [<!ENTITY a "aaaa">]><x>&a;&a;</x>',
    }
    before = _state(web)
    tried = 0
    for route, method in _routes(web):
        if method != "POST" or not re.search(r"(requests|manifests)\.send", route.name):
            continue
        path = _filled(route.path, site="linge")
        for what, data in files.items():
            if len(data) > most:
                continue
            tried += 1
            if isinstance(route, ApiRoute):
                answer = admin.post(path, content=data, headers={**_key(), "Content-Type": "application/octet-stream"})
            else:
                name = "../../../../tmp/evil\r\nX-Injected: yes.zip"
                answer = admin.post(path, files={"file": (name, data)}, data={"csrf": admin.headers["X-CSRF-Token"]})
            assert 400 <= answer.status_code < 500, f"{path} {what}: {answer.status_code}"
            assert not _harmless(answer), f"{path} {what}"
    assert tried > 60
    assert _state(web) == before


def test_a_body_that_is_too_large_is_not_read(web: Web) -> None:
    admin = web.signed_in("consortium_admin")
    most = web.here.settings.max_body_bytes
    read = 0

    def endless() -> Iterator[bytes]:
        nonlocal read
        for _ in range(most // 4096 * 20):
            read += 4096
            yield b" " * 4096

    for path, kind in (
        ("/api/v1/hospitals/amstel/manifests", "application/json"),
        ("/api/v1/plans/drafts", "application/json"),
        ("/acts/new/gates", "application/x-www-form-urlencoded"),
        ("/hospitals/amstel/manifests", "multipart/form-data; boundary=x"),
    ):
        announced = admin.post(path, content=b" " * (most + 1), headers={**_key(), "Content-Type": kind})
        assert announced.status_code == 413, f"{path}: {announced.status_code}"
        read = 0
        chunked = admin.post(path, content=endless(), headers={**_key(), "Content-Type": kind})
        assert chunked.status_code == 413, f"{path}, without a length: {chunked.status_code} {chunked.text[:200]}"


# -- What every answer says ------------------------------------------------------------------------------------------


def test_every_answer_is_kept_out_of_caches_frames_and_scripts(web: Web, crowd: Crowd) -> None:
    for route in _reading(web):
        for client in (web.client(), crowd.of(route.name)):
            _guarded(client.get(_filled(route.path)), route.path)
    client = crowd.of("today.page")
    for path in ("/no-such-page", "/api/v1/no-such-thing", "/static/no-such-file", "/hospitals/%00", "/%2e%2e/etc"):
        _guarded(client.get(path), path)
    _guarded(client.put("/sign-in", headers=_key()), "405")


def test_an_answer_to_an_error_nobody_foresaw_is_guarded_too(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("secret of the inside")

    client = TestClient(web.app, base_url=URL, raise_server_exceptions=False, follow_redirects=False)
    sign_in_for_tests(client, web.here, "authority")
    monkeypatch.setattr("admin_api.web.logbook.routes.checkpoint_view", broken)
    for path in ("/log", "/api/v1/log/checkpoint"):
        answer = client.get(path)
        assert answer.status_code == 500
        assert "secret" not in answer.text
        assert "ZeroDivisionError" not in answer.text
        assert re.search(r"[0-9a-f]{16}", answer.text), "no request id to tell"
        _guarded(answer, path)


def _guarded(answer: Response, what: str) -> None:
    said = answer.headers
    if not what.startswith("/static/") or answer.status_code != 200:
        assert "no-store" in said.get("cache-control", "") or what.startswith("/static/"), f"{what}: may be cached"
    policy = said.get("content-security-policy", "")
    assert "default-src 'none'" in policy, f"{what} ({answer.status_code}): no policy"
    assert "frame-ancestors 'none'" in policy, what
    assert "unsafe-eval" not in policy, what
    assert "script-src 'unsafe" not in policy, what
    assert said.get("x-content-type-options") == "nosniff", what
    assert said.get("strict-transport-security"), what
    assert "x-request-id" in said, what
