"""The API of certificates and of the requests for them."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Header, Path, Query, Response
from pydantic import BaseModel, Field, SecretStr

from admin_api.reading import certificates as held
from admin_api.web.certificates import issuing, requests
from admin_api.web.certificates.models import HeldCertificate
from admin_api.web.certificates.tables import RequestRow
from admin_api.web.certificates.uploads import Uploaded, file_body
from admin_api.web.certificates.view import CertificateRequest, RequestLine, request_line, request_view
from admin_api.web.context import Here, Who
from admin_api.web.paging import After, Digest, Limit, Page
from admin_api.web.problems import problems
from admin_api.web.routes import ApiRoute
from admin_api.web.sign_in.sessions import require_recent
from jobs.federation.provisioning import LEAF_VALID_DAYS

router = APIRouter(route_class=ApiRoute, prefix="/api/v1", tags=["Certificates"])
RequestId = Annotated[str, Path(pattern=r"^[0-9a-f]{16}$", description="the request's id")]
IfMatch = Annotated[str | None, Header(max_length=300, description="the ETag that the change is based on")]
ZIP = "application/zip"


class Comparison(BaseModel):
    """The last groups of the fingerprint, as the holder read them out."""

    groups: str = Field(max_length=200, examples=["91c4 07be 5a2d f310"])


class Issue(BaseModel):
    """What issuing takes. The passphrase opens the root key for this one certificate and is not kept."""

    passphrase: SecretStr = Field(max_length=1023)
    valid_days: int = Field(default=LEAF_VALID_DAYS, ge=1, le=3650)


@router.get("/certificates", name="certificates.list", responses=problems(503))
def list_certificates(
    here: Here,
    limit: Limit = 50,
    after: After = None,
    state: Annotated[str | None, Query(pattern=f"^({'|'.join(held.STATES)})$")] = None,
    role: Annotated[str | None, Query(max_length=40)] = None,
    holder: Annotated[str | None, Query(max_length=100)] = None,
) -> Page[HeldCertificate]:
    """Certificates of people and machines; the one that ends first stands first."""
    found = held.listed(here.reading, now=here.now(), state=state, role=role, holder=holder, limit=limit, after=after)
    return Page(
        items=[HeldCertificate.model_validate(each) for each in found.items], next=found.after, total=found.total
    )


@router.get("/certificates/{digest}", name="certificates.read", responses=problems(503))
def read_certificate(digest: Digest, here: Here) -> HeldCertificate:
    """One certificate."""
    return HeldCertificate.model_validate(held.one(here.reading, digest, now=here.now()))


@router.get("/requests", name="certificates.requests.list", responses=problems(503))
def list_requests(
    here: Here,
    limit: Limit = 50,
    after: After = None,
    state: Annotated[str | None, Query(pattern=f"^({'|'.join(requests.STATES)})$")] = requests.OPEN,
) -> Page[RequestLine]:
    """Certificate requests of hospitals and people, by default those that are open."""
    rows, following = requests.listed(here, state=state, limit=limit, after=after)
    return Page(items=[request_line(here, row) for row in rows], next=following)


@router.post(
    "/requests", name="certificates.requests.send", status_code=201, responses=problems(409, 503),
    openapi_extra=file_body("application/octet-stream", "NAME.request.zip of a hospital, or person.request.json"),
)  # fmt: skip
def send_request(data: Uploaded, here: Here, who: Who, response: Response) -> CertificateRequest:
    """Hand in a certificate request that came by another way, such as a person's for a key in a file."""
    row = requests.receive(here, data, by=who)
    response.headers["ETag"] = requests.etag(row)
    return request_view(here, row, who)


@router.get("/requests/{request_id}", name="certificates.requests.read", responses=problems(409, 503))
def read_request(request_id: RequestId, here: Here, who: Who, response: Response) -> CertificateRequest:
    """One certificate request: what was checked, who decided, what comes next."""
    row = requests.find(here, request_id)
    response.headers["ETag"] = requests.etag(row)
    return request_view(here, row, who)


@router.post(
    "/requests/{request_id}/comparison", name="certificates.requests.compare", responses=problems(409, 412, 428, 503)
)
def compare(
    request_id: RequestId, given: Comparison, here: Here, who: Who, response: Response, if_match: IfMatch = None
) -> CertificateRequest:
    """Say what the holder read out over the telephone; it is compared with the key's fingerprint."""
    row = requests.compare(here, request_id, given.groups, by=who, if_match=if_match)
    response.headers["ETag"] = requests.etag(row)
    return request_view(here, row, who)


@router.delete(
    "/requests/{request_id}", name="certificates.requests.withdraw", responses=problems(409, 412, 428, 503)
)  # fmt: skip
def withdraw(request_id: RequestId, here: Here, who: Who, if_match: IfMatch = None) -> CertificateRequest:
    """Give a request up; it cannot be answered any more."""
    return request_view(here, requests.withdraw(here, request_id, by=who, if_match=if_match), who)


@router.post(
    "/requests/{request_id}/certificate", name="certificates.requests.issue", status_code=201,
    responses=problems(409, 412, 428, 503), dependencies=[Depends(require_recent)],
)  # fmt: skip
def issue(
    request_id: RequestId, given: Issue, here: Here, who: Who, if_match: IfMatch = None
) -> CertificateRequest:  # fmt: skip
    """Issue the certificate with the root's passphrase. The log has it before the reply exists.

    Needs a sign-in with a passkey within the last five minutes; API tokens cannot do it.
    """
    row = issuing.issue(
        here, request_id, passphrase=given.passphrase.get_secret_value(), valid_days=given.valid_days, by=who,
        if_match=if_match,
    )  # fmt: skip
    here.reading.follow()
    return request_view(here, row, who)


@router.get(
    "/requests/{request_id}/reply", name="certificates.requests.reply", response_class=Response,
    responses={200: {"content": {ZIP: {}, "application/x-pem-file": {}}}, **problems(409, 503)},
)  # fmt: skip
def reply(request_id: RequestId, here: Here) -> Response:
    """The reply to send back: a hospital's signed zip, or a person's certificate."""
    return reply_response(here, requests.find(here, request_id))


def reply_response(here: Here, row: RequestRow) -> Response:
    """The reply as a download."""
    name, data = issuing.reply(here, row)
    media = ZIP if row.kind == requests.SITE else "application/x-pem-file"
    return Response(data, media_type=media, headers={"Content-Disposition": f'attachment; filename="{name}"'})
