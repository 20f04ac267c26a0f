"""The pages of people: who may sign, and one person."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response

from admin_api.web.context import Here, Who
from admin_api.web.language import _
from admin_api.web.people import view
from admin_api.web.people.api import Credential, PersonId, ask_for
from admin_api.web.rendering import render
from admin_api.web.routes import PageRoute
from admin_api.web.states import ROLES
from audit.certificates import CONSORTIUM_ADMIN

router = APIRouter(route_class=PageRoute, include_in_schema=False)


@router.get("/people", name="people.page")
def list_page(request: Request, here: Here, who: Who) -> Response:
    """Everybody of the four roles."""
    lines = view.listed(here)
    return render(
        request, "people/list.html", rows=[_row(line) for line in lines], sentence=view.list_sentence(lines),
        may_manage=who.role == CONSORTIUM_ADMIN,
    )  # fmt: skip


def _row(line: view.PersonLine) -> dict[str, Any]:
    return {
        "name": line.name,
        "organisation": line.organisation,
        "roles": ", ".join(_(ROLES.get(role, role)) for role in line.roles),
        "account": line.account,
        "signs": line.signs,
        "days": line.days,
        "until": line.until,
        "href": f"/people/{line.person}",
        "tone": "attention" if line.signs == view.WAITS else "",
    }


@router.get("/people/{person}", name="people.one.page")
def one_page(person: PersonId, request: Request, here: Here, who: Who) -> Response:
    """One person."""
    page = view.page_of(here, person, who)
    return render(
        request,
        "people/one.html",
        person=page,
        roles=", ".join(_(ROLES.get(role, role)) for role in page.roles),
        certificates=[
            {**each.model_dump(), "key_kind": _("passkey") if each.relying_party else _("in a file")}
            for each in page.certificates
        ],
        states=sorted({each.state for each in page.certificates}),
        reasons=any(each.reason for each in page.certificates),
        history=view.history(here, person),
        own=person == who.account,
        may_manage=who.role == CONSORTIUM_ADMIN,
        requests=[{**each.model_dump(), "href": f"/requests/{each.id}"} for each in page.requests],
    )


@router.post("/people/{person}/passkeys/{credential}/request", name="people.passkeys.request.post")
def ask(person: PersonId, credential: Credential, here: Here, who: Who) -> Response:
    """Ask for a certificate for a passkey."""
    row = ask_for(here, who, person, credential)
    return RedirectResponse(f"/requests/{row.id}", status_code=303)
