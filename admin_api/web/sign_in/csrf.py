"""Requests that other sites make in somebody's browser: told apart, and refused.

An unsafe request that carries cookies must come from our own pages, by the browser's word (`Origin`, or where that is
absent `Sec-Fetch-Site`), and with a session also carry the session's token, which other sites cannot read. Either
alone would do; a mistake in one is not a hole. Requests with an API token carry nothing that a browser adds by itself.

Source: OWASP Cross-Site Request Forgery Prevention Cheat Sheet; Fetch Metadata; RFC 6454 section 7 (Origin).
"""

from __future__ import annotations

from fastapi import Request
from starlette.exceptions import HTTPException
from starlette.types import Message, Receive

from admin_api.web.problems import Problem
from admin_api.web.sign_in.secret_values import same

HEADER = "x-csrf-token"
FIELD = "csrf"
FORMS = ("application/x-www-form-urlencoded", "multipart/form-data")
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})


async def check_csrf(request: Request, *, origin: str, expected: str | None) -> Receive:
    """Raises Problem 403 for a request that may have been made by another site.

    `origin` is ours; `expected` the session's token, None without a session.
    Returns: from what the app reads the body; a form's is read here first, to find the token in it.
    """
    receive = request.receive
    if request.method in SAFE:
        return receive
    if not comes_from(request, origin):
        raise _problem("it was sent by a page of another site, or by no page at all",
                       "open the page here and try again; a program sends an API token instead of cookies")  # fmt: skip
    if expected is None:
        return receive
    given = request.headers.get(HEADER)
    if given is None and request.headers.get("content-type", "").lower().startswith(FORMS):
        body = await request.body()
        given = await _field(request, body)
        receive = _again(body, receive)
    if given is None or not same(given, expected):
        raise _problem(f"it lacks the session's token (header {HEADER}, or form field {FIELD})",
                       "reload the page and try again")  # fmt: skip
    return receive


def comes_from(request: Request, origin: str) -> bool:
    """Whether the browser says that a page of this origin sent it; without cookies there is nothing to misuse."""
    said = request.headers.get("origin")
    if said is not None:
        return said == origin
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site == "same-origin"
    return "cookie" not in request.headers


async def _field(request: Request, body: bytes) -> str | None:
    try:
        async with Request(request.scope, _again(body, request.receive)).form() as form:
            value = form.get(FIELD)
    except HTTPException:  # a malformed form is told by whoever reads it for its contents
        return None
    return value if isinstance(value, str) else None


def _again(body: bytes, receive: Receive) -> Receive:
    """The body that was read, and after it whatever else comes."""
    given = False

    async def replay() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


def _problem(reason: str, todo: str) -> Problem:
    return Problem(403, "cross-site", "Not from our own pages", f"this request was refused: {reason}", todo)
