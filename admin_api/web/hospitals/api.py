"""The API of hospitals: the list, one hospital, its invitation, its certificate requests and its data manifest."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from admin_api.errors import NotKnown
from admin_api.reading import certificates as held
from admin_api.reading import hospitals
from admin_api.web.certificates import requests
from admin_api.web.certificates.api import ZIP, IfMatch, RequestId, reply_response
from admin_api.web.certificates.models import HeldCertificate
from admin_api.web.certificates.uploads import Uploaded, file_body
from admin_api.web.certificates.view import CertificateRequest, RequestLine, request_line, request_view
from admin_api.web.context import Here, Who
from admin_api.web.hospitals import invitations, view
from admin_api.web.hospitals.manifests import log_sent_manifest
from admin_api.web.hospitals.view import HospitalLine, HospitalPage, InvitationView, ReportLine, report_line
from admin_api.web.paging import After, Limit, Name, Page
from admin_api.web.problems import not_found, problems
from admin_api.web.routes import ApiRoute

router = APIRouter(route_class=ApiRoute, prefix="/api/v1", tags=["Hospitals"])
SORTS = ("name", "days", "last", "trained", "evaluated", "patients", "receipts", "spent")
Sort = Annotated[str, Query(pattern=f"^-?({'|'.join(SORTS)})$", description="a field; with - in front, descending")]
STATES = (*hospitals.JOURNEY, *hospitals.STANDINGS)
State = Annotated[str | None, Query(pattern=f"^({'|'.join(STATES)})$", description="a step reached, or a standing")]
Search = Annotated[str, Query(max_length=100, description="part of a name")]


class Invite(BaseModel):
    """A hospital to be invited, and who will speak for it."""

    site: str = Field(max_length=63, examples=["amstel"], description="the name its certificate will carry")
    organisation: str = Field(max_length=100, examples=["Amstel_ziekenhuis"])
    contact: str = Field(min_length=1, max_length=100, examples=["Nel Amstel"], description="a person's name")
    language: str = Field(default="en", pattern="^(en|nl)$")


class ChangedInvitation(BaseModel):
    """What may be corrected until the hospital has a certificate."""

    organisation: str = Field(max_length=100, examples=["Amstel_ziekenhuis"])


class Invited(BaseModel):
    """An invitation with its contact's one-time link, which is shown this once."""

    invitation: InvitationView
    link: str = Field(examples=["https://zegel.example/enrol#..."])
    ends: datetime


class ManifestLine(BaseModel):
    """What a hospital announced about its data."""

    model_config = ConfigDict(from_attributes=True)

    entry: int
    time: datetime
    manifest: str
    patients: int | None
    admissions: int | None
    period_first: str | None
    period_last: str | None
    certificate: str


class PartLine(BaseModel):
    """A hospital's part in a run."""

    model_config = ConfigDict(from_attributes=True)

    run: str
    entry: int
    time: datetime
    state: str = Field(examples=["accepted"], description="asked, accepted or refused")
    reserved: float
    code: str | None = Field(description="of its refusal")
    reason: str | None
    rounds: int
    dropped: int


class HistoryLine(BaseModel):
    """An entry of the log about a hospital, in words."""

    index: int
    time: datetime
    kind: str
    words: str


class LoggedManifest(BaseModel):
    """A data manifest that was logged."""

    site: str
    manifest: str
    patients: int | None
    admissions: int | None
    period_first: str | None
    period_last: str | None


@router.get("/hospitals", name="hospitals.list", responses=problems(503))
def list_hospitals(
    here: Here,
    who: Who,
    limit: Limit = 50,
    after: After = None,
    search: Search = "",
    state: State = None,
    sort: Sort = "name",
) -> Page[HospitalLine]:
    """Hospitals that hold or held a certificate. A hospital's contact gets the own one."""
    found = hospitals.listed(
        here.reading,
        now=here.now(),
        search=search,
        state=state,
        sort=sort.removeprefix("-"),
        descending=sort.startswith("-"),
        only=who.hospital,
        limit=limit,
        after=after,
    )
    return Page(items=view.lines(here, found.items), next=found.after, total=found.total)


@router.get("/invitations", name="hospitals.invitations.list", responses=problems(503))
def list_invitations(here: Here) -> list[InvitationView]:
    """Hospitals that were invited and have no certificate yet, the newest first."""
    return view.coming(here)


@router.post(
    "/hospitals", name="hospitals.invite", status_code=201, responses=problems(409, 503)
)  # fmt: skip
def invite(given: Invite, here: Here, who: Who, response: Response) -> Invited:
    """Invite a hospital. The answer holds the link for its contact, once."""
    row, made = invitations.invite_hospital(
        here, site=given.site, organisation=given.organisation, contact=given.contact, language=given.language, by=who
    )
    response.headers["ETag"] = invitations.etag(row)
    return Invited(invitation=view.invitation_view(here, row), link=made.link, ends=made.ends)


@router.get("/hospitals/{site}", name="hospitals.read", responses=problems(503))
def read_hospital(site: Name, here: Here, who: Who) -> HospitalPage:
    """One hospital, joined or invited."""
    return view.page_of(here, site, who)


@router.get("/hospitals/{site}/invitation", name="hospitals.invitations.read", responses=problems(503))
def read_invitation(site: Name, here: Here, response: Response) -> InvitationView:
    """A hospital's invitation."""
    row = invitations.find(here, site)
    response.headers["ETag"] = invitations.etag(row)
    return view.invitation_view(here, row)


@router.patch(
    "/hospitals/{site}/invitation", name="hospitals.invitations.change", responses=problems(409, 412, 428, 503)
)
def change_invitation(
    site: Name, given: ChangedInvitation, here: Here, response: Response, if_match: IfMatch = None
) -> InvitationView:
    """Correct an invitation until the hospital has a certificate."""
    row = invitations.change(here, site, organisation=given.organisation, if_match=if_match)
    response.headers["ETag"] = invitations.etag(row)
    return view.invitation_view(here, row)


@router.post(
    "/hospitals/{site}/invitation/link", name="hospitals.invitations.link", status_code=201,
    responses=problems(409, 412, 428, 503),
)  # fmt: skip
def new_link(site: Name, here: Here, who: Who, response: Response, if_match: IfMatch = None) -> Invited:
    """Another one-time link for the hospital's contact; an earlier one ends."""
    row, made = invitations.link_again(here, site, by=who, if_match=if_match)
    response.headers["ETag"] = invitations.etag(row)
    return Invited(invitation=view.invitation_view(here, row), link=made.link, ends=made.ends)


@router.delete(
    "/hospitals/{site}/invitation", name="hospitals.invitations.withdraw", responses=problems(409, 412, 428, 503)
)
def withdraw_invitation(site: Name, here: Here, who: Who, if_match: IfMatch = None) -> InvitationView:
    """Take an invitation back; the contact's account ends."""
    return view.invitation_view(here, invitations.withdraw(here, site, by=who, if_match=if_match))


@router.get("/hospitals/{site}/certificates", name="hospitals.certificates", responses=problems(503))
def certificates(site: Name, here: Here) -> list[HeldCertificate]:
    """A hospital's certificates, the newest first."""
    found = held.of_holder(here.reading, site, now=here.now())
    _known(here, site, bool(found))
    return [HeldCertificate.model_validate(each) for each in found]


@router.get("/hospitals/{site}/manifests", name="hospitals.manifests", responses=problems(503))
def manifests(site: Name, here: Here, limit: Limit = 50, after: After = None) -> Page[ManifestLine]:
    """What a hospital announced about its data, the newest first."""
    found = hospitals.manifests(here.reading, site, limit=limit, after=after)
    _known(here, site, bool(found.items))
    return Page(items=[ManifestLine.model_validate(each) for each in found.items], next=found.after, total=found.total)


@router.post(
    "/hospitals/{site}/manifests", name="hospitals.manifests.send", status_code=201, responses=problems(409, 503),
    openapi_extra=file_body("application/octet-stream", "the signed statement that `zegel site manifest` made"),
)  # fmt: skip
def send_manifest(site: Name, data: Uploaded, here: Here) -> LoggedManifest:
    """Hand in a hospital's signed data manifest; it is checked and logged."""
    said = log_sent_manifest(here, site, data)
    return LoggedManifest.model_validate({name: said.get(name) for name in LoggedManifest.model_fields})


@router.get("/hospitals/{site}/reports", name="hospitals.reports", responses=problems(503))
def reports(site: Name, here: Here, limit: Limit = 50, after: After = None) -> Page[ReportLine]:
    """A hospital's metrics over versions, the newest first."""
    found = hospitals.reports(here.reading, site, limit=limit, after=after)
    _known(here, site, bool(found.items))
    return Page(items=[report_line(each) for each in found.items], next=found.after, total=found.total)


@router.get("/hospitals/{site}/runs", name="hospitals.runs", responses=problems(503))
def parts(site: Name, here: Here, limit: Limit = 50, after: After = None) -> Page[PartLine]:
    """The runs a hospital was asked for and what it answered, the newest first."""
    found = hospitals.parts(here.reading, site, limit=limit, after=after)
    _known(here, site, bool(found.items))
    return Page(items=[PartLine.model_validate(each) for each in found.items], next=found.after, total=found.total)


@router.get("/hospitals/{site}/history", name="hospitals.history", responses=problems(503))
def history(site: Name, here: Here, who: Who, limit: Limit = 50, after: After = None) -> Page[HistoryLine]:
    """The log's entries about a hospital in words, the newest first."""
    found = view.history(here, site, only=who.hospital, limit=limit, after=after)
    _known(here, site, bool(found.items))
    return Page(
        items=[HistoryLine.model_validate(each, from_attributes=True) for each in found.items],
        next=found.after,
        total=found.total,
    )


@router.get("/hospitals/{site}/requests", name="hospitals.requests.list", responses=problems(503))
def list_requests(site: Name, here: Here) -> list[RequestLine]:
    """A hospital's certificate requests, the newest first."""
    rows = requests.of_holder(here, requests.SITE, site)
    _known(here, site, bool(rows))
    return [request_line(here, row) for row in rows]


@router.post(
    "/hospitals/{site}/requests", name="hospitals.requests.send", status_code=201, responses=problems(409, 503),
    openapi_extra=file_body("application/octet-stream", "the NAME.request.zip that `zegel site request` made"),
)  # fmt: skip
def send_request(site: Name, data: Uploaded, here: Here, who: Who, response: Response) -> CertificateRequest:
    """Hand in a hospital's certificate request: the first one, or one to renew its certificate."""
    check_invited(here, site)
    row = requests.receive(here, data, by=who, holder=site, kind=requests.SITE)
    response.headers["ETag"] = requests.etag(row)
    return request_view(here, row, who)


@router.get("/hospitals/{site}/requests/{request_id}", name="hospitals.requests.read", responses=problems(409, 503))
def read_request(site: Name, request_id: RequestId, here: Here, who: Who, response: Response) -> CertificateRequest:
    """One of a hospital's certificate requests."""
    row = requests.find(here, request_id, site=site)
    response.headers["ETag"] = requests.etag(row)
    return request_view(here, row, who)


@router.delete(
    "/hospitals/{site}/requests/{request_id}", name="hospitals.requests.withdraw",
    responses=problems(409, 412, 428, 503),
)  # fmt: skip
def withdraw_request(
    site: Name, request_id: RequestId, here: Here, who: Who, if_match: IfMatch = None
) -> CertificateRequest:
    """Give one of a hospital's requests up."""
    requests.find(here, request_id, site=site)
    return request_view(here, requests.withdraw(here, request_id, by=who, if_match=if_match), who)


@router.get(
    "/hospitals/{site}/requests/{request_id}/reply", name="hospitals.requests.reply", response_class=Response,
    responses={200: {"content": {ZIP: {}}}, **problems(409, 503)},
)  # fmt: skip
def reply(site: Name, request_id: RequestId, here: Here) -> Response:
    """The signed reply, for `zegel site install` or `zegel site renew`."""
    return reply_response(here, requests.find(here, request_id, site=site))


def _known(here: Here, site: str, found: bool) -> None:
    """An empty list is one of a hospital that is there; otherwise Problem 404."""
    if not found:
        view.check_known(here, site)


def check_invited(here: Here, site: str) -> None:
    """Raises Problem 404 unless the hospital was invited, or holds a certificate."""
    row = invitations.find_or_none(here, site)
    if row is not None and row.withdrawn is None:
        return
    try:
        hospitals.one(here.reading, site, now=here.now())
    except NotKnown:
        raise not_found(f"nobody invited a hospital {site} here", "a consortium admin invites it first") from None
