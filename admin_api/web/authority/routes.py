"""The authority's pages: search, trace, witnesses."""

from __future__ import annotations

from itertools import groupby
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import Response
from markupsafe import Markup
from pydantic import BaseModel, ConfigDict, Field

from admin_api.reading import releases, runs
from admin_api.reading.search import search
from admin_api.web.authority.tracing import Trace, trace_of
from admin_api.web.context import Here, Who
from admin_api.web.language import _
from admin_api.web.logbook.evidence import checkpoint_view, witness_views
from admin_api.web.paging import Name
from admin_api.web.problems import problems
from admin_api.web.releases.dossiers import dossier_path
from admin_api.web.rendering import render
from admin_api.web.routes import ApiRoute, PageRoute

api = APIRouter(route_class=ApiRoute, prefix="/api/v1", tags=["Authority"])
pages = APIRouter(route_class=PageRoute, include_in_schema=False)

_Asked = Annotated[
    str, Query(max_length=200, description="a name, a code, or the first 8 or more hex digits of a digest")
]
_Traced = Annotated[str, Path(pattern=r"^(sha256:[0-9a-f]{64}|[A-Za-z0-9][A-Za-z0-9._-]{0,63})$")]

_Release = Annotated[str | None, Query(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]


class Found(BaseModel):
    """Something that goes by the words searched for."""

    model_config = ConfigDict(from_attributes=True)

    kind: str = Field(examples=["release"])
    name: str = Field(examples=["autumn-2026"])
    label: str
    entry: int | None
    href: str = ""


def _kind(hit: Found) -> str:
    return hit.kind


def _kind_words(kind: str) -> str:
    """The kind as a heading."""
    words = {
        "hospital": _("Hospitals"),
        "release": _("Releases"),
        "statement": _("Releases"),
        "run": _("Runs"),
        "version": _("Versions"),
        "plan": _("Plans"),
        "person": _("People"),
        "code": _("Codes"),
    }
    return words.get(kind, _("In the log"))


def _href(kind: str, name: str, entry: int | None) -> str:
    match kind:
        case "hospital":
            return f"/hospitals/{name}"
        case "release" | "statement":
            return f"/releases/{name}"
        case "run":
            return f"/runs/{name}"
        case "version":
            return f"/trace/{name}"
        case "plan":
            return f"/plans/{name}"
        case "person":
            return f"/people/{name}"
        case "code":
            return f"/authority?code={name}"
    return f"/log/{entry}" if entry is not None else ""


def _found(here: Here, who: Who, text: str) -> list[Found]:
    hits = search(here.reading, text, only=who.hospital, limit=50)
    return [
        Found(kind=hit.kind, name=hit.name, label=hit.label, entry=hit.entry, href=_href(hit.kind, hit.name, hit.entry))
        for hit in hits
    ]


@api.get("/search", name="search", responses=problems(), response_model=list[Found])
def search_api(here: Here, who: Who, q: _Asked = "") -> list[Found]:
    """What goes by these words: hospitals, releases, runs, versions, plans, people, codes, entries."""
    return _found(here, who, q)


@api.get("/trace/{name}", name="trace", responses=problems(), response_model=Trace)
def trace_api(name: _Traced, here: Here, who: Who) -> Trace:
    """A release or version followed back to runs, hospitals, figures and decisions, each with its log entry."""
    return trace_of(here, name)


@pages.get("/search", name="search.page")
def search_page(request: Request, here: Here, who: Who, q: _Asked = "") -> Response:
    """Search results by kind."""
    hits = _found(here, who, q)
    groups = [
        (kind, list(each)) for kind, each in groupby(sorted(hits, key=lambda hit: hit.kind), lambda hit: hit.kind)
    ]
    return render(request, "authority/search.html", q=q, groups=groups, count=len(hits), kind_words=_kind_words)


@pages.get("/trace/{name}", name="trace.page")
def trace_page(name: _Traced, request: Request, here: Here, who: Who) -> Response:
    """The way back, as a tree."""
    return render(request, "authority/trace.html", name=name, trace=trace_of(here, name), link=_link)


def _link(text: str, href: str) -> Markup:
    return Markup('<a href="{}">{}</a>').format(href, text)


@pages.get("/trace/rounds/{run}", name="trace.rounds.page")
def rounds_page(run: Name, request: Request, here: Here, who: Who) -> Response:
    """The rounds of a run, loaded when somebody opens them."""
    return render(
        request,
        "authority/rounds.html",
        block="rounds",
        run=runs.one(here.reading, run),
        rows=[
            {
                "number": each.number,
                "state": each.state,
                "took_part": ", ".join(each.took_part),
                "dropped": ", ".join(each.dropped) or None,
                "version_out": each.version_out,
                "entry": each.entry,
            }
            for each in runs.rounds(here.reading, run)
        ],
    )


@pages.get("/verify", name="verify.page")
def verify_page(request: Request, here: Here, who: Who, release: _Release = None) -> Response:
    """A dossier's check, done by the browser alone; `release`: one whose dossier is kept here, besides any file."""
    config = here.home.config()
    return render(
        request,
        "authority/verify.html",
        release=release if release is not None and dossier_path(here.home, release).exists() else None,
        vkey=config.log_vkey,
        root=config.root_fingerprint,
        steps=_steps(),
    )


def _steps() -> list[tuple[str, str]]:
    """The steps of static/verify/dossier.js, in its order."""
    return [
        ("container", _("The file has the one form a dossier can have")),
        ("manifest", _("Every member has the size and digest that the manifest states")),
        ("identity", _("It is of this consortium's root and log")),
        ("checkpoint", _("The log's key signed the tree and the manifest")),
        ("inclusion", _("Every entry is in the signed tree, at its place")),
        ("register", _("No entry that must be there was left out")),
        ("statements", _("Everything that hospitals and people signed fits their keys")),
        ("release", _("The release is about this model, this plan and these documents")),
        ("approvals", _("The certification counts approvals that were given")),
        ("standing", _("The release is not withdrawn")),
        ("witnesses", _("Witnesses cosigned")),
    ]


@pages.get("/authority", name="authority.page")
def authority_page(
    request: Request,
    here: Here,
    who: Who,
    code: Annotated[str | None, Query(pattern=r"^[A-Za-z][0-9][0-9A-Za-z.]{0,6}$")] = None,
) -> Response:
    """Where an auditor starts: releases in force, a code's releases, the log and its witnesses."""
    with_code = () if code is None else releases.with_code(here.reading, code, limit=50).items
    return render(
        request,
        "authority/authority.html",
        code=code,
        with_code=with_code,
        certified=releases.listed(here.reading, state="certified", limit=50).items,
        checkpoint=checkpoint_view(here),
        witnesses=witness_views(here),
    )
