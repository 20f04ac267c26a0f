"""What went wrong, for programs (RFC 9457 problem details) and for people (a page with the same contents).

A problem names the thing and the reason (`detail`), and what to do next (`todo`). Errors of the rooms below are
translated here and nowhere else. What nobody foresaw is a 500 that says no more than its request id: the log file of
the process has the rest.

Source: RFC 9457.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, RedirectResponse, Response
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.exc import OperationalError
from starlette.exceptions import HTTPException

from admin_api.errors import (
    AdminError,
    ApprovalError,
    BadCursor,
    ErasureRefused,
    NotKnown,
    OnboardingError,
    ReadingBehind,
    ReadingError,
    ReleaseRefused,
    WebError,
)
from admin_api.web.language import N_
from admin_api.web.sign_in.errors import AccessRefused, NoSuch
from audit.errors import ArtifactError, AuditError, LogConflictError, LogError, StaleLogError
from jobs.errors import FederationError, JobError, PlanError

JSON = "application/problem+json"
_LOG = logging.getLogger("zegel.web")


class FieldProblem(BaseModel):
    """One field of the request that is not as it should be."""

    where: str = Field(examples=["body.epsilon"])
    reason: str = Field(examples=["Input should be greater than 0"])


class ProblemDetails(BaseModel):
    """RFC 9457 problem details, with what to do next and the request's id."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "type": "/problems/not-found",
                    "title": "Not found",
                    "status": 404,
                    "detail": "no plan sha256:1f3a... is logged",
                    "todo": "look at the list of plans",
                    "request_id": "5f0c9b1e7a2d4c11",
                    "errors": None,
                }
            ]
        }
    )
    type: str
    title: str
    status: int
    detail: str
    todo: str
    request_id: str
    errors: list[FieldProblem] | None = None


class Problem(Exception):
    """Raised by endpoints: an answer that is not what was asked for."""

    def __init__(
        self, status: int, slug: str, title: str, detail: str, todo: str = "", headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(f"{status} {title}: {detail}")
        self.status, self.slug, self.title, self.detail, self.todo = status, slug, title, detail, todo
        self.headers = headers or {}


def not_found(what: str, todo: str = "look it up in the list, or search for it") -> Problem:
    """404: there is no such thing, or the one who asks may not know of it."""
    return Problem(404, "not-found", N_("Not found"), what, todo)


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses=` of a route: its problem statuses beside those that every route has."""
    wanted = sorted({*statuses, 400, 401, 403, 404, 405, 413, 422, 429})
    return {
        status: {
            "description": HTTPStatus(status).phrase,
            "content": {JSON: {"schema": {"$ref": "#/components/schemas/ProblemDetails"}}},
        }
        for status in wanted
    }


def field_problems(errors: Sequence[Mapping[str, Any]]) -> list[FieldProblem]:
    """What pydantic found, one for each field; `where` is empty for what is wrong with all of them together."""
    return [
        FieldProblem(
            where=".".join(str(part) for part in each["loc"]), reason=str(each["msg"]).removeprefix("Value error, ")
        )
        for each in errors
    ]


def in_short(fields: Sequence[FieldProblem]) -> str:
    """The same in one line."""
    return "; ".join(f"{field.where}: {field.reason}" if field.where else field.reason for field in fields)


# The first that fits: (class, status, slug, title, what to do next).
_KNOWN: tuple[tuple[type[Exception], int, str, str, str], ...] = (
    (ArtifactError, 404, "not-found", N_("Not found"), N_("check the digest")),
    (NoSuch, 404, "not-found", N_("Not found"), N_("look at the list")),
    (NotKnown, 404, "not-found", N_("Not found"), N_("look it up in the list, or search for it")),
    (BadCursor, 422, "invalid", N_("The list cannot be continued there"), N_("start again from its beginning")),
    (ReadingBehind, 503, "reading-the-log", N_("The log is still being read"), N_("look again in a few seconds")),
    (ReadingError, 503, "log-unavailable", N_("The log cannot be read"), N_("tell whoever runs the server")),
    (AccessRefused, 403, "sign-in-refused", N_("Not let in"), N_("sign in again")),
    (LogConflictError, 409, "log-moved-on", N_("Others wrote to the log"), N_("try again")),
    (StaleLogError, 503, "log-refuses", N_("The log refuses to be written"), N_("tell whoever runs the server")),
    (OnboardingError, 409, "refused", N_("Refused"), N_("correct what is named and try again")),
    (ApprovalError, 409, "refused", N_("Refused"), N_("correct what is named and try again")),
    (ReleaseRefused, 409, "refused", N_("Refused"), N_("correct what is named and try again")),
    (ErasureRefused, 409, "refused", N_("Refused"), N_("correct what is named and try again")),
    (WebError, 409, "refused", N_("Refused"), N_("correct what is named and try again")),
    (AdminError, 409, "refused", N_("Refused"), N_("correct what is named and try again")),
    (PlanError, 422, "not-a-plan", N_("Not a plan that can be carried out"), N_("correct what is named and try again")),
    (
        FederationError,
        503,
        "federation-unreachable",
        N_("The federation cannot be reached"),
        N_("see the page of runs"),
    ),
    (JobError, 409, "refused", N_("Refused"), N_("correct what is named and try again")),
    (LogError, 503, "log-unavailable", N_("The log cannot be read or written"), N_("tell whoever runs the server")),
    (AuditError, 409, "refused", N_("Refused"), N_("correct what is named and try again")),
    (OperationalError, 503, "database-unavailable", N_("The database does not answer"), N_("try again in a minute")),
)
_TITLES = {
    400: ("bad-request", N_("The request cannot be understood"), N_("correct it and try again")),
    401: ("sign-in", N_("Nobody is signed in"), N_("sign in, or send an API token")),
    403: ("not-allowed", N_("Your role may not do this"), N_("ask somebody whose role may")),
    404: ("not-found", N_("Not found"), N_("check the address")),
    405: ("method", N_("This address does not take that method"), N_("see the API's description")),
    413: ("too-large", N_("The request is too large"), N_("send less")),
    422: ("invalid", N_("Some fields are not as they should be"), N_("correct the fields named")),
    429: ("too-many", N_("Too many requests"), N_("wait, then try again")),
}


def translated(error: Exception) -> Problem | None:
    """The problem that an error of the rooms below is; None when nobody foresaw it."""
    if isinstance(error, Problem):
        return error
    for known, status, slug, title, todo in _KNOWN:
        if isinstance(error, known):
            return Problem(status, slug, title, str(error), todo)
    return None


def wants_page(request: Request) -> bool:
    """Whether the answer is for a person."""
    return not request.url.path.startswith(("/api/", "/healthz", "/readyz", "/metrics"))


def answer(request: Request, problem: Problem, errors: list[FieldProblem] | None = None) -> Response:
    """The problem as JSON or as a page, by where it was asked."""
    if (
        problem.status == 401
        and wants_page(request)
        and request.method == "GET"
        and "hx-request" not in request.headers
    ):
        from urllib.parse import quote

        target = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        return RedirectResponse(f"/sign-in?next={quote(target, safe='')}", status_code=303)
    details = ProblemDetails(
        type=f"/problems/{problem.slug}",
        title=problem.title,
        status=problem.status,
        detail=problem.detail,
        todo=problem.todo,
        request_id=getattr(request.state, "request_id", ""),
        errors=errors,
    )
    if wants_page(request):
        from admin_api.web.rendering import render

        response: Response = render(request, "problem.html", status_code=problem.status, problem=details)
    else:
        response = JSONResponse(details.model_dump(), status_code=problem.status, media_type=JSON)
    response.headers.update(problem.headers)
    return response


def install(app: FastAPI) -> None:
    """Answer every error of this app as a problem."""

    async def known(request: Request, error: Exception) -> Response:
        found = translated(error)
        if found is None:
            raise error
        if found.status >= 500 and not isinstance(error, Problem):
            _LOG.error("%s", type(error).__name__, exc_info=error)
        return answer(request, found)

    async def invalid(request: Request, error: Exception) -> Response:
        if not isinstance(error, RequestValidationError):
            raise error
        fields = field_problems(error.errors())
        slug, title, todo = _TITLES[422]
        detail = in_short(fields[:3])
        return answer(request, Problem(422, slug, title, detail, todo), fields)

    async def http(request: Request, error: Exception) -> Response:
        if not isinstance(error, HTTPException):
            raise error
        default = ("http", HTTPStatus(error.status_code).phrase, "try again")
        slug, title, todo = _TITLES.get(error.status_code, default)
        detail = str(error.detail or title)
        return answer(request, Problem(error.status_code, slug, title, detail, todo, dict(error.headers or {})))

    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, http)
    for error_class in (Problem, AdminError, AuditError, JobError, OperationalError):
        app.add_exception_handler(error_class, known)


def unforeseen(request: Request) -> Response:
    """The answer to an error that nobody foresaw; what it was stays in the process's log."""
    return answer(
        request,
        Problem(500, "internal", N_("Something went wrong here"), "the server met an error that nobody foresaw",
                "try again; if it stays, tell whoever runs the server the request id"),
    )  # fmt: skip
