"""The log's routes: entries, proofs, checkpoint and witnesses, for pages and for programs."""

from __future__ import annotations

import json
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import Response

from admin_api.reading import logbook
from admin_api.web.context import Here, Who
from admin_api.web.logbook.evidence import (
    CheckpointView,
    ConsistencyProof,
    EntryView,
    InclusionProof,
    Line,
    WitnessView,
    checkpoint_view,
    consistency_of,
    entry_view,
    inclusion_of,
    witness_views,
)
from admin_api.web.paging import After, Limit, Page
from admin_api.web.problems import problems
from admin_api.web.rendering import render
from admin_api.web.routes import ApiRoute, PageRoute
from audit.entry import KINDS

_api = APIRouter(route_class=ApiRoute, prefix="/api/v1/log", tags=["Log"])
_pages = APIRouter(route_class=PageRoute, prefix="/log", include_in_schema=False)
ROUTERS = (_api, _pages)

Index = Annotated[int, Path(ge=0, le=2**53 - 1)]
Size = Annotated[int, Query(ge=0, le=2**53 - 1)]
Kind = Annotated[str | None, Query(pattern=r"^[a-z.-]{1,40}$", description="only entries of this kind")]
About = Annotated[
    str | None, Query(max_length=100, pattern=r"^[A-Za-z0-9][A-Za-z0-9._@-]*$", description="only entries about it")
]


@_api.get("/checkpoint", name="log.checkpoint", responses=problems(503), response_model=CheckpointView)
def checkpoint(here: Here, who: Who) -> CheckpointView:
    """The log's newest signed checkpoint, and who cosigned it."""
    return checkpoint_view(here)


@_api.get("/witnesses", name="log.witnesses", responses=problems(503), response_model=list[WitnessView])
def witnesses(here: Here, who: Who) -> list[WitnessView]:
    """Who watches that the log keeps to one story."""
    return witness_views(here)


@_api.get("/entries", name="log.entries", responses=problems(503), response_model=Page[Line])
def entries(
    here: Here,
    who: Who,
    kind: Kind = None,
    site: About = None,
    run: About = None,
    release: About = None,
    limit: Limit = 50,
    after: After = None,
) -> Page[Line]:
    """Entries in words, newest first; a hospital's contact sees those about the own hospital."""
    found = logbook.entries(
        here.reading, kind=kind, site=site, run=run, release=release, only=who.hospital, limit=limit, after=after
    )
    return Page(items=[Line.model_validate(each) for each in found.items], next=found.after, total=found.total)


@_api.get("/entries/{index}", name="log.entry", responses=problems(503), response_model=EntryView)
def entry(index: Index, here: Here, who: Who) -> EntryView:
    """One entry, with the bytes that were hashed."""
    return entry_view(here, index, only=who.hospital)


@_api.get("/entries/{index}/proof", name="log.proof", responses=problems(503), response_model=InclusionProof)
def proof(index: Index, here: Here, who: Who) -> InclusionProof:
    """That the entry is in the tree of the newest checkpoint."""
    return inclusion_of(here, index)


@_api.get("/consistency", name="log.consistency", responses=problems(503), response_model=ConsistencyProof)
def consistency(
    here: Here, who: Who, size1: Annotated[int, Query(alias="from", ge=0, le=2**53 - 1)],
    size2: Annotated[int, Query(alias="to", ge=0, le=2**53 - 1)],
) -> ConsistencyProof:  # fmt: skip
    """That the log of the later size continues the earlier one."""
    return consistency_of(here, size1, size2)


@_pages.get("", name="log.page")
def page(
    request: Request,
    here: Here,
    who: Who,
    kind: Kind = None,
    site: About = None,
    run: About = None,
    release: About = None,
    after: After = None,
) -> Response:
    """The newest entries in words."""
    found = logbook.entries(
        here.reading, kind=kind, site=site, run=run, release=release, only=who.hospital, limit=50, after=after
    )
    return render(
        request,
        "logbook/list.html",
        entries=Page(items=[Line.model_validate(each) for each in found.items], next=found.after, total=found.total),
        checkpoint=checkpoint_view(here),
        witnesses=witness_views(here),
        timeline=[
            {"when": each.time, "words": each.words, "entry": each.index, "href": f"/log/{each.index}"}
            for each in found.items
        ],
        kinds=sorted(KINDS),
        kind=kind,
        about=site or run or release,
        query={name: value for name, value in (("kind", kind), ("site", site), ("run", run), ("release", release))
               if value},
    )  # fmt: skip


@_pages.get("/{index}", name="log.entry.page")
def entry_page(index: Index, request: Request, here: Here, who: Who) -> Response:
    """One entry and its proof, which the browser checks for itself."""
    found = entry_view(here, index, only=who.hospital)
    return render(
        request,
        "logbook/entry.html",
        entry=found,
        body=json.dumps(found.body, indent=2, ensure_ascii=False, sort_keys=True),
        checkpoint=checkpoint_view(here),
        witnesses=witness_views(here),
    )
