"""The frame: access table, problems, repeated requests, headers, health."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest
from fastapi import APIRouter
from starlette.testclient import TestClient

from admin_api.web import access
from admin_api.web import app as app_module
from admin_api.web.access import ACCESS, ANYBODY
from admin_api.web.headers import POLICY
from admin_api.web.problems import JSON
from tests.admin_api.web.conftest import Web


def _open() -> dict[str, str]:
    return {}


def test_every_route_has_a_row_and_every_row_a_route(web: Web) -> None:
    names = {route.name for route in web.app.state.routes if getattr(route, "methods", None)}
    assert set(ACCESS) <= names


def test_an_app_with_an_unguarded_route_does_not_start(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    open_router = APIRouter()
    open_router.add_api_route("/open", _open, name="open")
    module = type("module", (), {"ROUTERS": (open_router,)})
    monkeypatch.setitem(sys.modules, "admin_api.web.open", module)
    monkeypatch.setattr(app_module, "AREAS", ("open",))
    with pytest.raises(RuntimeError, match="nobody guards it"):
        app_module.create_app(web.here.settings, web.here)


def test_a_row_without_a_route_stops_the_app(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(access.ACCESS, "nothing.such", access.Access(ANYBODY))
    with pytest.raises(RuntimeError, match=r"nothing\.such"):
        app_module.create_app(web.here.settings, web.here)


def test_nobody_is_sent_to_sign_in_and_back(web: Web) -> None:
    answer = web.client().get("/?x=1")
    assert answer.status_code == 303
    assert answer.headers["location"] == "/sign-in?next=%2F%3Fx%3D1"


def test_nobody_gets_a_problem_from_the_api(web: Web) -> None:
    answer = web.client().get("/api/v1/today")
    assert answer.status_code == 401
    assert answer.headers["content-type"] == JSON
    problem = answer.json()
    assert problem["type"] == "/problems/sign-in"
    assert problem["request_id"] == answer.headers["x-request-id"]
    assert problem["todo"]


def test_today_answers_everybody(as_role: Callable[..., TestClient]) -> None:
    for role in ("consortium_admin", "privacy_officer", "release_manager", "authority"):
        assert as_role(role).get("/api/v1/today").status_code == 200
        assert as_role(role).get("/").status_code == 200


def test_what_every_answer_says_to_browsers(web: Web) -> None:
    for path in ("/healthz", "/", "/static/zegel.css", "/nothing"):
        headers = web.client().get(path).headers
        assert headers["content-security-policy"] == POLICY
        assert headers["x-content-type-options"] == "nosniff"
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["strict-transport-security"]


def test_a_body_that_is_too_large_is_not_read(web: Web, as_role: Callable[..., TestClient]) -> None:
    most = web.here.settings.max_body_bytes
    answer = as_role("consortium_admin").post("/preferences", content=b"x" * (most + 1))
    assert answer.status_code == 413


def test_health_and_readiness(web: Web) -> None:
    client = web.client()
    assert client.get("/healthz").json() == {"status": "ok"}
    assert client.get("/readyz").json()["status"] == "ready"
    assert "zegel_requests_total" in client.get("/metrics").text
    assert client.get("/metrics", headers={"X-Forwarded-For": "10.0.0.1"}).status_code == 403
    (web.here.home.path / "log.checkpoint").write_bytes(b"another\n")
    answer = client.get("/readyz")
    assert answer.status_code == 503
    assert "note" in answer.json()["detail"]


def test_an_error_that_nobody_foresaw_says_only_its_id(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> object:
        raise ZeroDivisionError("secret of a patient")

    monkeypatch.setattr("admin_api.web.today.routes.today_of", broken)
    answer = web.signed_in("authority").get("/api/v1/today")
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert answer.json()["request_id"] == answer.headers["x-request-id"]
