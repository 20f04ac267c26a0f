"""The pages of certificates and of the requests for them."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, File, Form, Query, Request, UploadFile
from fastapi.responses import RedirectResponse, Response
from pydantic import SecretStr

from admin_api.reading import certificates as held
from admin_api.web.certificates import issuing, requests
from admin_api.web.certificates.acts import Status
from admin_api.web.certificates.api import RequestId
from admin_api.web.certificates.uploads import bytes_of
from admin_api.web.certificates.view import (
    CertificateRequest,
    account_name,
    fingerprint_groups,
    request_line,
    request_view,
)
from admin_api.web.context import Here, Viewer, Who
from admin_api.web.language import _, ngettext
from admin_api.web.paging import After, Limit, Name, Page
from admin_api.web.problems import not_found
from admin_api.web.rendering import render
from admin_api.web.routes import PageRoute
from admin_api.web.sign_in.sessions import is_recent, require_recent
from admin_api.web.states import ROLES, shown
from audit.certificate_request import DECIDERS
from audit.certificates import CLIENT, CONSORTIUM_ADMIN
from jobs.federation.provisioning import LEAF_VALID_DAYS

router = APIRouter(route_class=PageRoute, include_in_schema=False)
Match = Annotated[str | None, Form(max_length=300)]


@router.get("/requests", name="certificates.requests.page")
def requests_page(
    request: Request, here: Here, limit: Limit = 50, after: After = None,
    state: Annotated[str, Query(pattern=f"^({'|'.join(requests.STATES)})$")] = requests.OPEN,
) -> Response:  # fmt: skip
    """Certificate requests that wait, or those that were answered."""
    rows, following = requests.listed(here, state=state, limit=limit, after=after)
    lines = [
        {**line.model_dump(), "role": _(ROLES.get(line.role, line.role)), "href": f"/requests/{line.id}"}
        for line in (request_line(here, row) for row in rows)
    ]
    if state != requests.OPEN:
        sentence = _("Requests that are not open any more.")
    elif lines:
        sentence = ngettext("%(num)s certificate request waits.", "%(num)s certificate requests wait.", len(lines))
    else:
        sentence = _("No certificate request waits.")
    return render(
        request, "certificates/requests.html", lines=lines, state=state, sentence=sentence,
        page=Page(items=lines, next=following),
    )  # fmt: skip


@router.post("/requests", name="certificates.requests.send.post")
def send(here: Here, who: Who, file: Annotated[UploadFile | None, File()] = None) -> Response:
    """Hand in a request that came by another way."""
    row = requests.receive(here, bytes_of(file), by=who)
    return RedirectResponse(f"/requests/{row.id}", status_code=303)


@router.get("/requests/{request_id}", name="certificates.request.page")
def request_page(request_id: RequestId, request: Request, here: Here, who: Who) -> Response:
    """One request: checks, telephone, approvals, issuing."""
    row = requests.find(here, request_id)
    view = request_view(here, row, who)
    return render(
        request,
        "certificates/request.html",
        asked=view,
        groups=fingerprint_groups(view),
        sentence=_sentence(view, who),
        may_manage=who.role == CONSORTIUM_ADMIN,
        may_decide=who.role in DECIDERS and row.holder != who.account,
        own=row.holder == who.account,
        recent=is_recent(request),
        sent_by=account_name(here, row.received_by),
        compared_by=None if row.compared_by is None else account_name(here, row.compared_by),
        valid_days=LEAF_VALID_DAYS,
        first_admin=issuing.is_first_admin(here, row),
        decided=any(each.person == who.account for each in view.decisions),
        panel=_panel(view),
    )


def _panel(view: CertificateRequest) -> dict[str, Any]:
    """What the approval panel shows; the form to decide stands below it."""
    approvals = [each for each in view.decisions if each.decision == "approve"]
    return {
        "subject": {"title": _("Approvals"), "sentences": [], "digest": view.digest},
        "decisions": [
            {
                **{name: getattr(each, name) for name in ("name", "role", "organisation", "reason", "entry")},
                "decision": "approved" if each.decision == "approve" else "refused",
                "when": each.time,
            }
            for each in view.decisions
        ],
        "needed": {
            "have": len(approvals),
            "need": len(approvals) if all(rule.met for rule in view.rules) else max(2, len(approvals) + 1),
            "rules": [{"words": rule.words, "met": rule.met} for rule in view.rules],
        },
        "links": {},
    }


@router.post("/requests/{request_id}/comparison", name="certificates.requests.compare.post")
def compare(
    request_id: RequestId, here: Here, who: Who, groups: Annotated[str, Form(max_length=200)], if_match: Match = None
) -> Response:
    """What the holder read out."""
    requests.compare(here, request_id, groups, by=who, if_match=if_match)
    return RedirectResponse(f"/requests/{request_id}", status_code=303)


@router.post("/requests/{request_id}/withdrawal", name="certificates.requests.withdraw.post")
def withdraw(request_id: RequestId, here: Here, who: Who, if_match: Match = None) -> Response:
    """Give a request up."""
    requests.withdraw(here, request_id, by=who, if_match=if_match)
    return RedirectResponse(f"/requests/{request_id}", status_code=303)


@router.post(
    "/requests/{request_id}/certificate", name="certificates.requests.issue.post",
    dependencies=[Depends(require_recent)],
)  # fmt: skip
def issue(
    request_id: RequestId,
    here: Here,
    who: Who,
    passphrase: Annotated[SecretStr, Form(max_length=1023)],
    valid_days: Annotated[int, Form(ge=1, le=3650)] = LEAF_VALID_DAYS,
    if_match: Match = None,
) -> Response:
    """Issue the certificate with the root's passphrase."""
    issuing.issue(
        here, request_id, passphrase=passphrase.get_secret_value(), valid_days=valid_days, by=who, if_match=if_match
    )
    return RedirectResponse(f"/requests/{request_id}", status_code=303)


@router.get("/certificates", name="certificates.page")
def certificates_page(
    request: Request, here: Here, limit: Limit = 50, after: After = None,
    state: Annotated[str | None, Query(pattern=f"^({'|'.join(held.STATES)})$")] = None,
) -> Response:  # fmt: skip
    """Every certificate, the one that ends first at the top."""
    found = held.listed(here.reading, now=here.now(), state=state, limit=limit, after=after)
    ending = held.ending(here.reading, now=here.now())
    rows = [
        {
            **{name: getattr(each, name) for name in ("organisation", "role", "days", "not_after", "digest", "entry")},
            "name": {"text": each.name, "href": _page_of(each.role, each.holder)},
            "state": each.state,
            "role_word": _(ROLES.get(each.role, each.role)),
            "tone": "attention" if any(each.digest == end.digest for end in ending) else "",
        }
        for each in found.items
    ]
    sentence = (
        ngettext("%(num)s certificate ends soon.", "%(num)s certificates end soon.", len(ending))
        if ending
        else _("No certificate ends within a month.")
    )
    return render(
        request, "certificates/certificates.html", rows=rows, sentence=sentence, state=state,
        states_shown=[(each, _(shown(each).word)) for each in held.STATES],
        page=Page(items=rows, next=found.after, total=found.total),
    )  # fmt: skip


@router.get("/certificates/of/{holder}/status", name="certificates.status.page")
def status_page(
    holder: Name, request: Request, here: Here, status: Status,
    only: Annotated[str | None, Query(pattern=r"^sha256:[0-9a-f]{64}$")] = None,
) -> Response:  # fmt: skip
    """Why certificates are suspended, reinstated or revoked; the next page is signed."""
    found = [
        each
        for each in held.of_holder(here.reading, holder, now=here.now())
        if only is None or each.digest == only
    ]  # fmt: skip
    if not found:
        raise not_found(f"{holder} holds no such certificate")
    return render(
        request, "certificates/status.html", holder=holder, name=found[0].name, status=status, only=only,
        certificates=found, back=_page_of(found[0].role, holder), sentence=_status_sentence(status),
    )  # fmt: skip


def _status_sentence(status: Status) -> str:
    return {
        "suspended": _("A suspension holds until somebody takes it back. Write why; on the next page you sign."),
        "reinstated": _("What is suspended counts again. Write why; on the next page you sign."),
        "revoked": _("A revocation cannot be taken back. Write why; on the next page you sign."),
    }[status]


def _page_of(role: str, holder: str) -> str:
    if role == CLIENT:
        return f"/hospitals/{holder}"
    return f"/people/{holder}" if holder.startswith("person-") else "/log"


def _sentence(view: CertificateRequest, who: Viewer) -> str:
    """What is so, and what this person can do now."""
    if view.state == requests.ISSUED:
        return _("The certificate is issued and in the log. Send the reply back.")
    if view.state != requests.OPEN:
        return _("This request is closed; nothing can be issued on it.")
    if any(check.state == "failed" for check in view.checks):
        return _("A check failed. Nothing can be issued on this request.")
    if view.next_step == "compare":
        if who.role == CONSORTIUM_ADMIN and view.holder != who.account:
            return _("Telephone the holder and compare the fingerprint; nothing else can be done before.")
        return _("A consortium admin has to telephone the holder and compare the fingerprint first.")
    if view.next_step == "approve":
        if any(each.person == who.account for each in view.decisions):
            return _("You have decided. Others have to.")
        return _("It waits for approvals.")
    if who.role == CONSORTIUM_ADMIN:
        return _("Everything is in order. Issue the certificate with the root's passphrase.")
    return _("Everything is in order. A consortium admin issues the certificate.")
