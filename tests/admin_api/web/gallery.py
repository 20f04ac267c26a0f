"""The gallery as a small app of its own: every component, with the real security headers and nothing behind them.

To look at it: python -m tests.admin_api.web.gallery, then http://localhost:8001/gallery
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send

from admin_api.web.headers import SecurityHeaders
from admin_api.web.language import COOKIE, LanguageMiddleware
from admin_api.web.rendering import STATIC, THEME_COOKIE, Pages, render

NOW = datetime(2026, 11, 22, 5, tzinfo=UTC)


@dataclass(frozen=True)
class Somebody:
    """Who is signed in; the fields of a Viewer that pages use."""

    name: str = "Mila Jansen"
    organisation: str = "Stichting Zegel"
    role: str = "consortium_admin"
    language: str = ""


class _SignedIn:
    def __init__(self, app: ASGIApp, viewer: Somebody | None) -> None:
        self._app, self._viewer = app, viewer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope.setdefault("state", {}).update(viewer=self._viewer, csrf="a-token")
        await self._app(scope, receive, send)


def gallery(request: Request) -> Response:
    """All components; `?block=` answers with one block as htmx would get it."""
    return render(request, "gallery.html", block=request.query_params.get("block"), now=NOW)


async def posted(request: Request) -> Response:
    """What a form sent."""
    form = await request.form()
    return PlainTextResponse(",".join(sorted(form)))


async def preferred(request: Request) -> Response:
    """The theme and the language, as the app keeps them."""
    form = await request.form()
    response = RedirectResponse(str(form["next"]), status_code=303)
    for field, cookie in (("theme", THEME_COOKIE), ("language", COOKIE)):
        if field in form:
            response.set_cookie(cookie, str(form[field]))
    return response


def broken(request: Request) -> Response:
    """A problem as the app shows it."""
    problem = {
        "title": "Not found",
        "detail": "no plan sha256:1f3a is logged",
        "todo": "look it up in the list, or search for it",
        "request_id": "5f0c9b1e7a2d4c11",
        "status": 404,
        "errors": None,
    }
    return render(request, "problem.html", status_code=404, problem=problem)


def events(request: Request) -> Response:
    """Three changes, then the end; the connection is cut once in between."""

    async def said() -> AsyncIterator[str]:
        if "last_event_id" in request.query_params or "last-event-id" in request.headers:
            yield 'id: 3\nevent: rows\ndata: {"loss-plot-figures": [[5, 1.3, 1.6]]}\n\n'
            yield "id: 4\nevent: done\ndata: {}\n\n"
            return
        yield "retry: 200\n\n"
        yield 'id: 1\nevent: values\ndata: {"round": "7"}\n\n'
        yield 'id: 2\nevent: html\ndata: {"swapped": "<p>Swapped in.</p>"}\n\n'

    return StreamingResponse(said(), media_type="text/event-stream")


def gallery_app(viewer: Somebody | None = Somebody()) -> Starlette:
    """The app; without a viewer the pages stand alone, as before signing in."""
    app = Starlette(
        routes=[
            Route("/gallery", gallery),
            Route("/gallery", posted, methods=["POST"]),
            Route("/preferences", preferred, methods=["POST"]),
            Route("/broken", broken),
            Route("/events", events),
            Mount("/static", StaticFiles(directory=STATIC)),
        ],
        middleware=[
            Middleware(SecurityHeaders, secure=False),
            Middleware(_SignedIn, viewer=viewer),
            Middleware(LanguageMiddleware),
        ],
    )
    everything: Any = lambda _viewer, _route: True  # noqa: E731
    app.state.pages = Pages(public_url="https://zegel.example", may_open=everything)
    return app


if __name__ == "__main__":
    import uvicorn

    uvicorn.run(gallery_app(), port=8001)
