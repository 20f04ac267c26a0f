"""The access table, tried with every role on every route.

What changes something is sent with an Idempotency-Key that is none: it is refused right behind the access check, so
nothing happens, and the answer says whether the check let it pass.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient

from admin_api.web.access import ACCESS, EVERYONE
from admin_api.web.routes import SAFE, ApiRoute, PageRoute
from tests.admin_api.web.conftest import Web

STREAMS = ("events",)  # names of routes that never end; asked without reading
OWN, OTHER = "hospital-1", "hospital-2"
VALUES = {"site": OWN, "index": "0", "size": "1", "number": "1"}


def _routes(web: Web) -> Iterator[tuple[str, str, str, bool]]:
    """Name, method, path with values in it, and whether it is a page."""
    for route in web.app.state.routes:
        for method in sorted((route.methods or set()) - {"HEAD", "OPTIONS"}):
            yield route.name, method, _filled(route.path), isinstance(route, PageRoute)


def _filled(path: str, **values: str) -> str:
    chosen = {**VALUES, **values}

    def value(match: re.Match[str]) -> str:
        name = match[1]
        if name in chosen:
            return chosen[name]
        return "sha256:" + "0" * 64 if re.search("digest|hash|version|statement", name) else "nothing-such"

    return re.sub(r"\{(\w+)(?::\w+)?\}", value, path)


def _slug(client: TestClient, method: str, path: str) -> tuple[int, str]:
    headers = {} if method in SAFE else {"Idempotency-Key": "not a key"}
    with client.stream(method, path, headers={**headers, "Accept": "application/json"}) as answer:
        if answer.headers.get("content-type", "").startswith("text/event-stream"):
            return answer.status_code, ""
        text = answer.read().decode("utf-8", "replace")
    found = re.search(r"/problems/([a-z-]+)", text)
    return answer.status_code, found[1] if found else ""


@pytest.mark.parametrize("role", [None, *sorted(EVERYONE)])
def test_a_role_may_do_what_the_table_says_and_nothing_else(web: Web, role: str | None) -> None:
    hospital = OWN if role == "hospital_contact" else None
    client = web.client() if role is None else web.signed_in(role, hospital=hospital)
    wrong: list[str] = []
    for name, method, path, is_page in _routes(web):
        access = ACCESS[name]
        status, slug = _slug(client, method, path)
        if access.roles is None:
            fine = status not in (401, 403) or name == "metrics"
        elif role is None:
            fine = status == 401 or (is_page and status == 303)
        elif role not in access.roles:
            fine = status == 403
        else:
            fine = status not in (401, 403) and (method in SAFE or (status == 400 and slug in ("", "idempotency-key")))
        if not fine or status >= 500:
            wrong.append(f"{role} {method} {path} ({name}): {status} {slug}")
    assert not wrong, "\n".join(wrong)


def test_a_contact_may_not_name_another_hospital(web: Web) -> None:
    client = web.signed_in("hospital_contact", hospital=OWN)
    for route in web.app.state.routes:
        if isinstance(route, ApiRoute | PageRoute) and "{site}" in route.path:
            access = ACCESS[route.name]
            if access.roles is None or "hospital_contact" not in access.roles:
                continue
            assert access.own_hospital, f"{route.name} takes a hospital but does not compare it with the contact's"
            for method in (route.methods or set()) - {"HEAD", "OPTIONS"}:
                status, _ = _slug(client, method, _filled(route.path, site=OTHER))
                assert status == 404, f"{method} {route.path}"
