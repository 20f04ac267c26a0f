"""Who is asking: from a session's cookie or an API token to the request's state, and whether our own pages sent it.

Invariants:
- A request with an API token is judged by that token alone; its cookies count for nothing.
- A token that does not count is an error (401), never a request of nobody; a cookie that does not count is nobody.
- No unsafe request gets past that another site may have made (`admin_api.web.sign_in.csrf`).
- One indexed query per request; static files ask none.
"""

from __future__ import annotations

from fastapi import Request
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool
from starlette.types import ASGIApp, Receive, Scope, Send

from admin_api.web.context import Workplace
from admin_api.web.problems import JSON, Problem, ProblemDetails, answer
from admin_api.web.sign_in.csrf import check_csrf
from admin_api.web.sign_in.errors import AccessRefused, TooMany
from admin_api.web.sign_in.rates import FAILING, place_of, spend
from admin_api.web.sign_in.recording import note_refusal
from admin_api.web.sign_in.secret_values import LENGTH
from admin_api.web.sign_in.sessions import Found, find_session
from admin_api.web.sign_in.site import SESSION, cookie_of, origin_of
from admin_api.web.sign_in.tokens import PREFIX, find_token
from audit import access

_BEARER = "bearer "


class IdentityMiddleware:
    """Sets of the request's state: `viewer` (None: nobody), `csrf`, `confirmed` and `scope` (of a token)."""

    def __init__(self, app: ASGIApp, here: Workplace) -> None:
        self._app = app
        self._here = here
        self._origin = origin_of(here.settings)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope, receive)
        state = request.state
        state.viewer, state.csrf, state.confirmed, state.scope = None, "", None, None
        if scope["path"].startswith("/static/"):
            await self._app(scope, receive, send)
            return
        authorization = request.headers.get("authorization", "")
        if authorization.lower().startswith(_BEARER):
            secret = authorization[len(_BEARER) :].strip()
            try:
                state.viewer, state.scope = await run_in_threadpool(self._of_token, request, secret)
            except AccessRefused as error:
                await _told(request, refused_token(error))(scope, receive, send)
                return
            await self._app(scope, receive, send)
            return
        found = await self._of_cookie(request)
        if found is not None:
            state.viewer, state.csrf, state.confirmed = found.viewer, found.csrf, found.confirmed
        try:
            receive = await check_csrf(request, origin=self._origin, expected=None if found is None else found.csrf)
        except Problem as problem:
            if found is not None:
                await run_in_threadpool(
                    note_refusal, self._here, found.viewer.account, access.SESSION, access.CROSS_SITE
                )
            await answer(request, problem)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    async def _of_cookie(self, request: Request) -> Found | None:
        secret = cookie_of(request, self._here.settings, SESSION)
        if secret is None or len(secret) != LENGTH:
            return None
        return await run_in_threadpool(find_session, self._here, secret)

    def _of_token(self, request: Request, secret: str) -> tuple[object, frozenset[str]]:
        here = self._here
        try:
            return find_token(here, secret if secret.startswith(PREFIX) else "")
        except AccessRefused as error:
            note_refusal(here, error.account, error.method, error.reason)
            spend(here, FAILING, place_of(request.client.host if request.client else None), method=access.TOKEN)
            raise


def refused_token(error: AccessRefused) -> Problem:
    """The problem for a token that does not count."""
    if isinstance(error, TooMany):
        return Problem(
            429, "too-many", "Too many requests", str(error), f"wait {error.seconds} seconds, then try again",
            {"Retry-After": str(error.seconds)},
        )  # fmt: skip
    return Problem(
        401, "token-refused", "The API token does not count", str(error), "make a new token in the pages",
        {"WWW-Authenticate": 'Bearer error="invalid_token"'},
    )  # fmt: skip


def _told(request: Request, problem: Problem) -> ASGIApp:
    """For programs, whatever address they asked."""
    details = ProblemDetails(
        type=f"/problems/{problem.slug}",
        title=problem.title,
        status=problem.status,
        detail=problem.detail,
        todo=problem.todo,
        request_id=getattr(request.state, "request_id", ""),
    )
    return JSONResponse(details.model_dump(), problem.status, problem.headers, JSON)
