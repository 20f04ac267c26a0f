"""Routes that let nobody past without a row in the access table, and answer a repeated request once.

Both kinds check, before the body is read: whether the role may, and for a hospital's contact whether it is the own
hospital. Who asks, and whether the request comes from our own pages, was settled before (`sign_in.identity`). A
request to the API that changes something needs an `Idempotency-Key`: the same key with the same request gets the
stored answer again, so a client that lost the connection asks again without fear.

Source: draft-ietf-httpapi-idempotency-key-header.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Coroutine
from datetime import timedelta
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute
from sqlalchemy.exc import IntegrityError
from starlette.concurrency import run_in_threadpool

from admin_api.web.access import ACCESS, Access
from admin_api.web.context import HOSPITAL_CONTACT, Viewer, viewer_or_nobody, workplace
from admin_api.web.database import Database, utc
from admin_api.web.language import N_
from admin_api.web.problems import Problem, not_found
from admin_api.web.sign_in.recording import note_refusal
from admin_api.web.sign_in.tokens import check_scope
from admin_api.web.tables import AnswerRow

SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
KEY = re.compile(r"[!-~]{1,200}")
KEY_FIELD = "idempotency_key"  # in forms
GIVES_UP = timedelta(minutes=10)  # an answer begun this long ago was lost with its process
KEPT = timedelta(days=1)
_Handler = Callable[[Request], Coroutine[Any, Any, Response]]


def check_access(request: Request, name: str) -> Access:
    """Who asks may call route `name`, for the hospital in the path if there is one; raises Problem otherwise."""
    access = ACCESS[name]
    if access.roles is None:
        return access
    viewer = viewer_or_nobody(request)
    if viewer is None:
        raise Problem(
            401,
            "sign-in",
            N_("Nobody is signed in"),
            f"{request.url.path} needs somebody who is signed in",
            N_("sign in, or send an API token"),
            {"WWW-Authenticate": "Bearer"},
        )
    if viewer.role not in access.roles:
        note_refusal(workplace(request), viewer.account, viewer.via, "role")
        raise Problem(
            403,
            "not-allowed",
            N_("Your role may not do this"),
            f"the role {viewer.role} may not use {name}",
            "ask somebody whose role may",
        )
    check_scope(request, name)
    site = request.path_params.get("site")
    if access.own_hospital and viewer.role == HOSPITAL_CONTACT and site is not None and site != viewer.hospital:
        raise not_found(f"no hospital {site} that you may see")
    return access


class _Guarded(APIRoute):
    """A route behind the access table."""

    needs_key = True

    def get_route_handler(self) -> _Handler:
        inner = super().get_route_handler()
        name, needs_key = self.name, self.needs_key

        async def handle(request: Request) -> Response:
            access = await run_in_threadpool(check_access, request, name)
            if viewer_or_nobody(request) is not None:
                await run_in_threadpool(workplace(request).reading.follow)
            if request.method in SAFE:
                return await inner(request)
            key = await _key_of(request)
            if key is None and needs_key:
                raise Problem(
                    400,
                    "idempotency-key",
                    N_("No Idempotency-Key"),
                    f"{request.method} {request.url.path} changes something and needs the header "
                    "Idempotency-Key (1 to 200 visible ASCII characters)",
                    N_("send a fresh one, and the same one when you repeat the request"),
                )
            viewer = viewer_or_nobody(request)
            if key is None or viewer is None:
                return await inner(request)
            return await _once(request, inner, access, viewer, key, exact=needs_key)

        return handle


class ApiRoute(_Guarded):
    """A JSON route; what changes something needs an Idempotency-Key."""


class PageRoute(_Guarded):
    """A page or a form; forms carry their key in a hidden field."""

    needs_key = False


async def _key_of(request: Request) -> str | None:
    key = request.headers.get("idempotency-key")
    if key is None and request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
        await request.body()  # kept by the request: the form and the body can be read again
        value = (await request.form()).get(KEY_FIELD)
        key = value if isinstance(value, str) else None
    if key is not None and KEY.fullmatch(key) is None:
        raise Problem(
            400,
            "idempotency-key",
            N_("Not an Idempotency-Key"),
            "an Idempotency-Key has 1 to 200 visible ASCII characters",
            "send such a one",
        )
    return key


async def _once(
    request: Request, inner: _Handler, access: Access, viewer: Viewer, key: str, *, exact: bool
) -> Response:
    """The handler's answer, once per key. `exact`: another request with the same key is refused; of a form it is a
    new one, since somebody went back and sent other values.
    """
    here = workplace(request)
    body = await request.body() if access.keeps_request else b""
    digest = hashlib.sha256(
        json.dumps([request.method, request.url.path, request.url.query]).encode() + b"\n" + body
    ).hexdigest()
    if not exact:
        key = hashlib.sha256(f"{key} {digest}".encode()).hexdigest()
    before = await run_in_threadpool(_begin, here.database, viewer.account, key, digest, here.now())
    if before is not None:
        return before
    try:
        response = await inner(request)
    except BaseException:
        await run_in_threadpool(_forget, here.database, viewer.account, key)
        raise
    if response.status_code >= 400 or not hasattr(response, "body"):  # nothing was changed
        await run_in_threadpool(_forget, here.database, viewer.account, key)
        return response
    await run_in_threadpool(_keep, here.database, viewer.account, key, response, access.keeps_answer)
    return response


def _begin(database: Database, account: str, key: str, digest: str, now: Any) -> Response | None:
    """Note that an answer is being made. Returns: the answer if there is one; raises Problem for a misused key."""
    try:
        with database.begin() as session:
            row = session.get(AnswerRow, (account, key))
            if row is not None and utc(row.begun) < now - (KEPT if row.status is not None else GIVES_UP):
                session.delete(row)
                session.flush()
                row = None
            if row is None:
                session.add(AnswerRow(account=account, key=key, request=digest, begun=now))
                return None
    except IntegrityError:  # another process was first, in this moment
        raise _running() from None
    if row.request != digest:
        raise Problem(
            422,
            "key-reused",
            N_("The Idempotency-Key belongs to another request"),
            "this key was used with another method, address or body",
            "send a fresh key",
        )
    if row.status is None:
        raise _running()
    if row.body is None:
        raise Problem(
            409,
            "done-before",
            N_("Done before"),
            "this request was carried out, and its answer held a secret that is shown once only",
            N_("look at the list; revoke what you cannot use"),
        )
    headers = dict(json.loads(row.headers))
    return Response(row.body, status_code=row.status, headers={**headers, "Idempotency-Replayed": "true"})


def _running() -> Problem:
    return Problem(
        409,
        "still-running",
        N_("Still running"),
        "a request with this Idempotency-Key is being carried out",
        N_("wait a little, then send it again"),
        {"Retry-After": "2"},
    )


def _keep(database: Database, account: str, key: str, response: Response, keeps_answer: bool) -> None:
    kept = [(name, value) for name, value in response.headers.items() if name in ("content-type", "location", "etag")]
    with database.begin() as session:
        row = session.get(AnswerRow, (account, key))
        if row is not None:
            row.status = response.status_code
            row.headers = json.dumps(kept)
            row.body = bytes(response.body) if keeps_answer else None
            session.add(row)


def _forget(database: Database, account: str, key: str) -> None:
    with database.begin() as session:
        row = session.get(AnswerRow, (account, key))
        if row is not None:
            session.delete(row)
