"""The API of people: who may sign, and asking for a passkey's certificate."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Response

from admin_api.web.certificates import requests
from admin_api.web.certificates.tables import RequestRow
from admin_api.web.certificates.view import CertificateRequest, request_view
from admin_api.web.context import Here, Viewer, Who
from admin_api.web.paging import After, Limit, Page
from admin_api.web.people import view
from admin_api.web.people.view import PersonLine, PersonPage
from admin_api.web.problems import not_found, problems
from admin_api.web.routes import ApiRoute
from admin_api.web.sign_in.passkeys import passkeys_of
from audit.certificates import CONSORTIUM_ADMIN

router = APIRouter(route_class=ApiRoute, prefix="/api/v1", tags=["People"])
PersonId = Annotated[str, Path(pattern=r"^person-[0-9a-f]{16}$", description="a person id")]
Credential = Annotated[str, Path(pattern=r"^[A-Za-z0-9_-]{1,1400}$", description="a passkey's credential id")]


@router.get("/people", name="people.list", responses=problems(503))
def list_people(here: Here, limit: Limit = 50, after: After = None) -> Page[PersonLine]:
    """Everybody of the consortium's four roles, with an account, a certificate or both, by id."""
    lines = sorted(view.listed(here), key=lambda line: line.person)
    left = [line for line in lines if after is None or line.person > after]
    following = left[limit - 1].person if len(left) > limit else None
    return Page(items=left[:limit], next=following, total=len(lines))


@router.get("/people/{person}", name="people.read", responses=problems(503))
def read_person(person: PersonId, here: Here, who: Who) -> PersonPage:
    """One person. Passkeys are shown to the person and to consortium admins."""
    return view.page_of(here, person, who)


@router.post(
    "/people/{person}/passkeys/{credential}/request", name="people.passkeys.request", status_code=201,
    responses=problems(409, 503),
)  # fmt: skip
def ask(person: PersonId, credential: Credential, here: Here, who: Who, response: Response) -> CertificateRequest:
    """Ask for a certificate for a passkey; the request is the one that the passkey signed when it was made.

    The person does it, or a consortium admin for them.
    """
    row = ask_for(here, who, person, credential)
    response.headers["ETag"] = requests.etag(row)
    return request_view(here, row, who)


def ask_for(here: Here, who: Viewer, person: str, credential: str) -> RequestRow:
    """File the request of a passkey; somebody else's only by a consortium admin. Raises Problem, SignInError."""
    if person != who.account and who.role != CONSORTIUM_ADMIN:
        raise not_found(f"{person} has no such passkey that you may see")
    if credential not in {each.credential_id for each in passkeys_of(here.database, person)}:
        raise not_found(f"{person} has no such passkey")
    return requests.receive_passkey(here, person, credential, by=who)
