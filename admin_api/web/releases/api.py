"""Releases for programs."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Query
from fastapi.responses import FileResponse, Response
from pydantic import BaseModel

from admin_api.reading import releases, versions
from admin_api.web.context import Here, Who
from admin_api.web.paging import After, Digest, Limit, Name, Page
from admin_api.web.problems import not_found, problems
from admin_api.web.releases.comparison import Comparison, compare
from admin_api.web.releases.dossiers import certify_and_keep, digest_of_file, documents_in, dossier_path
from admin_api.web.releases.view import (
    ReleaseLine,
    ReleaseView,
    SiteReport,
    find_release,
    release_view,
    site_reports,
    statement_of,
)
from admin_api.web.routes import ApiRoute

router = APIRouter(route_class=ApiRoute, prefix="/api/v1", tags=["Releases"])
State = Literal["candidate", "certified", "superseded", "withdrawn"]
_Version = Annotated[str, Query(pattern=r"^sha256:[0-9a-f]{64}$")]


class Certified(BaseModel):
    """A certified release's dossier was written."""

    release: str
    bytes: int


@router.get("/releases", name="releases.list", responses=problems(), response_model=Page[ReleaseLine])
def listed(
    here: Here,
    who: Who,
    state: Annotated[State | None, Query()] = None,
    task: Annotated[str | None, Query(max_length=100)] = None,
    limit: Limit = 50,
    after: After = None,
) -> Page[ReleaseLine]:
    """Releases, newest first."""
    found = releases.listed(here.reading, state=state, task=task, limit=limit, after=after)
    items = [ReleaseLine.model_validate(each) for each in found.items]
    return Page(items=items, next=found.after, total=found.total)


@router.get("/releases/{release}", name="releases.read", responses=problems(), response_model=ReleaseView)
def read(release: Name, here: Here, who: Who) -> ReleaseView:
    """One release: gates, decisions, what hospitals measured, documents, history."""
    return release_view(here, release)


@router.post(
    "/releases/{release}/certification",
    name="releases.certify",
    responses=problems(409, 503),
    response_model=Certified,
)
def certification(release: Name, here: Here, who: Who) -> Certified:
    """Certify a candidate whose approvals suffice, or write a certified release's dossier again."""
    find_release(here, release)
    return Certified(release=release, bytes=certify_and_keep(here.home, release))


@router.get("/releases/{release}/dossier", name="releases.dossier", responses=problems(), response_class=FileResponse)
def dossier(release: Name, here: Here, who: Who) -> Response:
    """The release's evidence in one file, its digest as ETag; `zegel verify` checks it offline."""
    find_release(here, release)
    path = dossier_path(here.home, release)
    if not path.exists():
        raise not_found(f"no dossier of {release} was written here", "certify it, or ask who did")
    etag = {"ETag": f'"{digest_of_file(path)}"'}
    return FileResponse(path, media_type="application/zip", filename=path.name, headers=etag)


def document_of(here: Here, release: str, name: str) -> bytes:
    """A document that the release's approvals bind, or that its dossier holds besides. Raises Problem 404."""
    statement = statement_of(here, find_release(here, release))
    bound = {} if statement is None else statement.documents
    if name in bound:
        return here.home.artifacts().get(bound[name])
    later = documents_in(here.home, release)
    if name not in later:
        raise not_found(f"release {release} has no document {name}")
    return later[name]


@router.get(
    "/releases/{release}/documents/{document}",
    name="releases.document",
    responses=problems(),
    response_class=Response,
)
def document(release: Name, document: Name, here: Here, who: Who) -> Response:
    """A document of the release, as it is: report, model card, bill of materials; signatures once it is certified."""
    data = document_of(here, release, document)
    return Response(
        data,
        media_type="application/octet-stream",
        headers={"Content-Disposition": f'attachment; filename="{document}"'},
    )


@router.get("/compare", name="releases.compare", responses=problems(), response_model=Comparison)
def comparison(here: Here, who: Who, before: _Version, after: _Version) -> Comparison:
    """Two versions, hospital by hospital and chapter by chapter."""
    return compare(here, before, after)


@router.get("/versions/{version}/reports", name="versions.reports", responses=problems(),
            response_model=list[SiteReport])  # fmt: skip
def version_reports(version: Digest, here: Here, who: Who) -> list[SiteReport]:
    """What hospitals measured about a version."""
    versions.one(here.reading, version)
    return site_reports(here, version, ())
