"""The application: `create_app(settings)` puts the parts together and checks that nothing is left open.

From the outside in: security headers, a request id and one log line per request (`observing`), the largest body,
compression, who is asking (`sign_in.identity`), the language, and then a route behind the access table (`routes`).
"""

from __future__ import annotations

import asyncio
import importlib
import logging
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from typing import Any

from fastapi import APIRouter, FastAPI, Response
from starlette.concurrency import run_in_threadpool
from starlette.middleware.gzip import GZipMiddleware
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from admin_api.reading.room import ReadingRoom
from admin_api.web import acts, observing, preferences, problems
from admin_api.web.access import ACCESS
from admin_api.web.context import Workplace
from admin_api.web.database import Database
from admin_api.web.headers import SecurityHeaders
from admin_api.web.language import LanguageMiddleware
from admin_api.web.limits import BodyLimit
from admin_api.web.problems import ProblemDetails
from admin_api.web.rendering import STATIC, Pages
from admin_api.web.routes import SAFE, ApiRoute, PageRoute
from admin_api.web.settings import Settings
from admin_api.web.sign_in.identity import IdentityMiddleware
from admin_api.web.sign_in.recording import write_due
from admin_api.web.waiting import Waits
from jobs.home import ConsortiumHome

# Each area is a package of admin_api.web with ROUTERS, and ACTS when something is signed there.
AREAS = (
    "sign_in",
    "today",
    "logbook",
    "hospitals",
    "people",
    "certificates",
    "privacy",
    "plans",
    "runs",
    "releases",
    "authority",
)
WRITE_EVERY_S = 30.0
_LOG = logging.getLogger("zegel.web")
_KEY_PARAMETER = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": True,
    "description": "A fresh value for each change; the same one when the same request is repeated.",
    "schema": {"type": "string", "pattern": "^[!-~]{1,200}$"},
    "example": "1b3f7f0e-7d0c-4b6e-9a55-0c2f5a1d9e10",
}


def make_workplace(settings: Settings, progress: Callable[[int, int], None] | None = None) -> Workplace:
    """Open the consortium's folder and the pages' database, and read what is new in the log.

    `progress` is told how many entries are read, of how many. Raises FederationError, WebError, AuditError.
    """
    home = ConsortiumHome(settings.home)
    home.config()
    database = Database(settings.own_database_url)
    database.prepare()
    reading = ReadingRoom(database.engine, home)
    reading.catch_up(progress)
    return Workplace(settings, home, database, reading)


def create_app(settings: Settings, here: Workplace | None = None) -> FastAPI:
    """The app for one consortium; `here` when the caller has opened it already, with a clock of its own perhaps.

    Raises RuntimeError when a route has no row in the access table, or a row no route.
    """
    place = make_workplace(settings) if here is None else here
    app = FastAPI(
        title="Zegel",
        summary="Where a consortium of hospitals is run: onboarding, privacy, runs, releases and their evidence.",
        version="1",
        lifespan=_lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url="/api/v1/openapi.json",
    )
    app.state.workplace = place
    app.state.measures = observing.Measures()
    app.state.pages = Pages(
        public_url=settings.public_url,
        may_open=lambda viewer, name: name in ACCESS and (ACCESS[name].roles is None or (
            viewer is not None and viewer.role in (ACCESS[name].roles or ()))),
    )  # fmt: skip
    known_acts: dict[str, acts.Act[Any]] = {}
    waiting: list[Waits] = []
    routers: list[APIRouter] = [observing.router, preferences.router]
    for area in AREAS:
        module = importlib.import_module(f"admin_api.web.{area}")
        routers.extend(module.ROUTERS)
        for act in getattr(module, "ACTS", ()):
            if known_acts.setdefault(act.name, act) is not act:
                raise RuntimeError(f"two acts are called {act.name}")
        if hasattr(module, "waiting"):
            waiting.append(module.waiting)
    app.state.waiting = tuple(waiting)
    acts.check_rows(known_acts)
    routers.extend(acts.routers(known_acts))
    app.state.routes = _guarded(routers)
    _check_rows(app.state.routes)
    for router in routers:
        app.include_router(router)
    app.mount("/static", _Versioned(directory=STATIC), name="static")
    problems.install(app)
    _describe_problems(app)
    # The last added is the outermost.
    app.add_middleware(LanguageMiddleware)
    app.add_middleware(IdentityMiddleware, here=place)
    app.add_middleware(BodyLimit, most=settings.max_body_bytes)
    app.add_middleware(GZipMiddleware, minimum_size=1024)
    app.add_middleware(observing.Observing, measures=app.state.measures)
    app.add_middleware(SecurityHeaders, secure=settings.secure)  # around what answers an error nobody foresaw
    return app


class _Versioned(StaticFiles):
    """Static files; pages name them with a digest of their bytes, so browsers may keep those for ever."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        if response.status_code == 200 and scope.get("query_string", b"").startswith(b"v="):
            response.headers["Cache-Control"] = "public, max-age=31536000, immutable"
        return response


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Write gathered sign-ins and refusals to the log now and then, and the rest when the server stops."""
    here: Workplace = app.state.workplace
    writing = asyncio.create_task(_write_now_and_then(here))
    try:
        yield
    finally:
        writing.cancel()
        with suppress(asyncio.CancelledError):
            await writing
        await run_in_threadpool(write_due, here, everything=True)
        here.database.close()


async def _write_now_and_then(here: Workplace) -> None:
    while True:
        await asyncio.sleep(WRITE_EVERY_S)
        try:
            await run_in_threadpool(write_due, here)
        except Exception as error:  # noqa: BLE001 - kept in the database, tried again; the log file says why
            _LOG.error("sign-ins and refusals were not written to the log", exc_info=error)


def _guarded(routers: Iterable[APIRouter]) -> tuple[ApiRoute | PageRoute, ...]:
    """Every route of these routers; raises RuntimeError for one that nobody guards."""
    found: list[ApiRoute | PageRoute] = []
    for router in routers:
        for route in router.routes:
            if not isinstance(route, ApiRoute | PageRoute):
                raise RuntimeError(f"route {route} is neither an ApiRoute nor a PageRoute, so nobody guards it")
            found.append(route)
    return tuple(found)


def _check_rows(routes: Iterable[ApiRoute | PageRoute]) -> None:
    names: set[str] = set()
    for route in routes:
        if route.name in names:
            raise RuntimeError(f"two routes are called {route.name}")
        names.add(route.name)
    if missing := names - set(ACCESS):
        raise RuntimeError(f"no row in admin_api/web/access.py for {', '.join(sorted(missing))}")
    if unused := set(ACCESS) - names:
        raise RuntimeError(f"rows in admin_api/web/access.py without a route: {', '.join(sorted(unused))}")


def _describe_problems(app: FastAPI) -> None:
    """The schema that the problem answers of all routes refer to, and how callers sign in."""
    describe = app.openapi

    def with_problems() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = describe()
            components = schema.setdefault("components", {})
            problem = ProblemDetails.model_json_schema(ref_template="#/components/schemas/{model}")
            schemas = components.setdefault("schemas", {})
            schemas.update(problem.pop("$defs", {}))
            schemas["ProblemDetails"] = problem
            components["securitySchemes"] = {
                "token": {"type": "http", "scheme": "bearer", "description": "an API token of an account"},
                "session": {"type": "apiKey", "in": "cookie", "name": "__Host-zegel-session"},
            }
            schema["security"] = [{"token": []}, {"session": []}]
            for path in schema["paths"].values():
                for method, operation in path.items():
                    if method.upper() not in SAFE:
                        operation.setdefault("parameters", []).append(_KEY_PARAMETER)
            app.openapi_schema = schema
        return app.openapi_schema

    app.openapi = with_problems  # type: ignore[method-assign]
