"""The pages of hospitals: the list, one hospital with its journey, its requests, and inviting one."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, File, Form, Query, Request, UploadFile
from fastapi.responses import RedirectResponse, Response

from admin_api.reading import certificates as held
from admin_api.reading import hospitals
from admin_api.web import charts
from admin_api.web.certificates import requests
from admin_api.web.certificates.api import RequestId
from admin_api.web.certificates.uploads import bytes_of
from admin_api.web.certificates.view import CertificateRequest, account_name, fingerprint_groups, request_view
from admin_api.web.context import HOSPITAL_CONTACT, Here, Who
from admin_api.web.hospitals import invitations, view
from admin_api.web.hospitals.api import STATES, Search, Sort, check_invited
from admin_api.web.hospitals.journey import Step
from admin_api.web.hospitals.manifests import log_sent_manifest
from admin_api.web.hospitals.view import HEADLINES, HospitalPage, InvitationView, report_line
from admin_api.web.language import LANGUAGES, _, current
from admin_api.web.paging import After, Limit, Name, Page
from admin_api.web.rendering import render
from admin_api.web.routes import PageRoute
from admin_api.web.states import shown
from audit.certificates import CONSORTIUM_ADMIN

router = APIRouter(route_class=PageRoute, include_in_schema=False)
Match = Annotated[str | None, Form(max_length=300)]
SHOWN = 10  # rows of each list on a hospital's page


@router.get("/hospitals", name="hospitals.list.page")
def list_page(
    request: Request, here: Here, who: Who, limit: Limit = 50, after: After = None, search: Search = "",
    state: Annotated[str, Query(max_length=20)] = "", sort: Sort = "name",
) -> Response:  # fmt: skip
    """Every hospital: who needs something, who has come how far."""
    state = state if state in STATES else ""
    found = hospitals.listed(
        here.reading, now=here.now(), search=search, state=state or None, sort=sort.removeprefix("-"),
        descending=sort.startswith("-"), only=who.hospital, limit=limit, after=after,
    )  # fmt: skip
    arriving = [] if who.role == HOSPITAL_CONTACT else view.coming(here)
    query = "&".join(
        f"{name}={value}" for name, value in (("search", quote(search, safe="")), ("state", quote(state))) if value
    )
    rows = [_row(line) for line in view.lines(here, found.items)]
    return render(
        request,
        "hospitals/list.html",
        rows=rows,
        page=Page(items=rows, next=found.after, total=found.total),
        arriving=[{**each.model_dump(), "href": f"/hospitals/{each.site}"} for each in arriving],
        sentence=view.list_sentence(here, who, arriving),
        search=search,
        state=state,
        states=[("", _("any")), *((each, _(shown(each).word)) for each in STATES)],
        sort={
            "key": sort.removeprefix("-"),
            "descending": sort.startswith("-"),
            "url": "/hospitals" + (f"?{query}" if query else ""),
        },
        url="/hospitals?" + "&".join(part for part in (query, f"sort={sort}") if part),
        may_invite=who.role == CONSORTIUM_ADMIN,
    )


def _row(line: view.HospitalLine) -> dict[str, Any]:
    period = None if line.period_first is None else f"{line.period_first} – {line.period_last}"
    return {
        "name": line.site,
        "organisation": line.organisation,
        "reached": line.reached,
        "standing": line.standing,
        "days": line.days,
        "last_seen": _("connected now") if line.connected else current().moment(line.last_seen),
        "period": period,
        "patients": line.patients,
        "version": _("not reported"),
        "spent": line.budget_left,
        "href": f"/hospitals/{line.site}",
        "tone": "danger" if line.standing in ("revoked", "suspended", "expired") else "attention"
        if line.standing == "ends soon" else "",
    }  # fmt: skip


@router.get("/hospitals/new", name="hospitals.invite.page")
def invite_page(request: Request) -> Response:
    """The form to invite a hospital."""
    return render(request, "hospitals/invite.html", languages=list(LANGUAGES.items()))


@router.post("/hospitals/new", name="hospitals.invite.post")
def invite(
    request: Request,
    here: Here,
    who: Who,
    site: Annotated[str, Form(max_length=100)],
    organisation: Annotated[str, Form(max_length=200)],
    contact: Annotated[str, Form(max_length=200)],
    language: Annotated[str, Form(max_length=20)] = "en",
) -> Response:
    """Invite a hospital and show the link, once."""
    row, made = invitations.invite_hospital(
        here, site=site, organisation=organisation, contact=contact, language=language, by=who
    )
    return _link_page(request, here, view.invitation_view(here, row), made.link, made.ends)


@router.post("/hospitals/{site}/link", name="hospitals.link.post")
def new_link(site: Name, request: Request, here: Here, who: Who, if_match: Match = None) -> Response:
    """Another link for the contact, shown once."""
    row, made = invitations.link_again(here, site, by=who, if_match=if_match)
    return _link_page(request, here, view.invitation_view(here, row), made.link, made.ends)


def _link_page(request: Request, here: Here, invitation: InvitationView, link: str, ends: Any) -> Response:
    return render(
        request, "hospitals/invited.html", invitation=invitation, link=link, ends=ends,
        consortium=here.home.config().name, headers={"Cache-Control": "no-store"},
    )  # fmt: skip


@router.post("/hospitals/{site}/organisation", name="hospitals.change.post")
def change(
    site: Name, here: Here, organisation: Annotated[str, Form(max_length=200)], if_match: Match = None
) -> Response:
    """Correct the organisation of an invitation."""
    invitations.change(here, site, organisation=organisation, if_match=if_match)
    return RedirectResponse(f"/hospitals/{site}", status_code=303)


@router.post("/hospitals/{site}/withdrawal", name="hospitals.withdraw.post")
def withdraw(site: Name, here: Here, who: Who, if_match: Match = None) -> Response:
    """Take an invitation back."""
    invitations.withdraw(here, site, by=who, if_match=if_match)
    return RedirectResponse("/hospitals", status_code=303)


@router.get("/hospitals/{site}", name="hospitals.one.page")
def one_page(site: Name, request: Request, here: Here, who: Who) -> Response:
    """One hospital."""
    page = view.page_of(here, site, who)
    row = invitations.find_or_none(here, site)
    manifests = hospitals.manifests(here.reading, site, limit=SHOWN)
    reports = hospitals.reports(here.reading, site, limit=SHOWN)
    parts = hospitals.parts(here.reading, site, limit=SHOWN)
    past = view.history(here, site, only=who.hospital, limit=SHOWN, after=None)
    contact = who.role == HOSPITAL_CONTACT
    lines = [report_line(each) for each in reports.items]
    certificates = held.of_holder(here.reading, site, now=here.now())
    where = f"/hospitals/{site}/requests/" if contact else "/requests/"
    return render(
        request,
        "hospitals/one.html",
        site=page,
        steps=[_step(each) for each in page.journey],
        invitation=None if row is None or contact else view.invitation_view(here, row),
        contacts=[] if contact else _contacts(here, site),
        certificates=certificates,
        states=sorted({each.state for each in certificates}),
        reasons=any(each.reason for each in certificates),
        reported=any(each.budget is not None for each in page.budgets),
        requests=[{**each.model_dump(), "href": f"{where}{each.id}"} for each in page.requests],
        open_for_requests=bool(certificates) or (row is not None and row.withdrawn is None),
        manifests=[_manifest(each) for each in manifests.items],
        report_rows=[_report(each) for each in lines],
        chart=_chart(lines),
        part_rows=[_part(each) for each in parts.items],
        history=[{"when": each.time, "words": each.words, "entry": each.index} for each in past.items],
        more_history=past.after is not None,
        may_manage=who.role == CONSORTIUM_ADMIN,
        may_send=who.role in (CONSORTIUM_ADMIN, HOSPITAL_CONTACT),
        budgets=[_budget(each) for each in page.budgets],
        budget_words=_budget_words(page),
        opened=next((each.id for each in page.requests if each.state == requests.OPEN), None),
        where=where,
        consortium=here.home.config().name,
    )


def _step(step: Step) -> dict[str, Any]:
    """A step for the journey; one that the log does not show has no seal."""
    shown_step: dict[str, Any] = {"label": step.label, "state": step.state, "when": step.when, "note": step.note}
    return shown_step if step.entry is None else {**shown_step, "entry": step.entry}


def _budget(budget: view.Budget) -> dict[str, Any]:
    """A cohort's budget; without one that the hospital reported there is nothing to measure against."""
    spent = budget.spent if budget.ledger_spent is None else budget.ledger_spent
    bar = None if budget.budget is None else {"spent": spent, "reserved": budget.reserved, "of": budget.budget}
    return {
        "cohort": _("training patients") if budget.cohort == "training" else _("validation patients"),
        "bar": bar, "spent": spent, "reserved": budget.reserved, "left": budget.left, "entry": budget.entry,
    }  # fmt: skip


def _contacts(here: Here, site: str) -> list[dict[str, str]]:
    return [{"name": each.name or each.id, "state": each.state} for each in invitations.contacts_of(here, site)]


def _manifest(manifest: hospitals.Manifest) -> dict[str, Any]:
    period = _("%(first)s to %(last)s", first=manifest.period_first, last=manifest.period_last)
    return {
        "time": manifest.time, "period": None if manifest.period_first is None else period, "entry": manifest.entry,
        "patients": manifest.patients, "admissions": manifest.admissions, "manifest": manifest.manifest,
    }  # fmt: skip


def _report(line: view.ReportLine) -> dict[str, Any]:
    return {
        "version": line.version, "time": line.time, "entry": line.entry,
        **{name: line.metrics.get(name) for name in HEADLINES},
    }  # fmt: skip


def _part(part: Any) -> dict[str, Any]:
    return {
        "run": part.run, "time": part.time, "state": part.state, "rounds": part.rounds, "dropped": part.dropped,
        "reason": part.reason, "entry": part.entry,
    }  # fmt: skip


def _chart(lines: list[view.ReportLine]) -> charts.Chart | None:
    """hit@1 of the versions it reported about, oldest first; None with fewer than two."""
    points = [
        charts.Point(line.time.timestamp(), cell.value, cell.lower, cell.upper)
        for line in reversed(lines)
        if (cell := line.metrics.get("hit@1")) is not None and cell.value is not None
    ]
    if len(points) < 2:
        return None
    return charts.line_with_interval(
        _("hit@1 over versions"),
        [charts.Series("hit@1", points)],
        x_label=_("When"),
        y_label="hit@1",
        percent=True,
        x_kind="date",
    )


def _budget_words(page: HospitalPage) -> str:
    if not page.budgets:
        return _("No privacy was spent on this hospital's patients yet.")
    if any(each.budget is not None for each in page.budgets):
        return _("As the hospital's own ledger said when it last signed.")
    return _("The log adds up what runs cost. The budget stays at the hospital and was not reported.")


@router.get("/hospitals/{site}/history", name="hospitals.history.page")
def history_page(
    site: Name, request: Request, here: Here, who: Who, limit: Limit = 50, after: After = None
) -> Response:
    """Everything the log has about a hospital."""
    page = view.page_of(here, site, who)
    past = view.history(here, site, only=who.hospital, limit=limit, after=after)
    return render(
        request, "hospitals/history.html", site=page,
        history=[{"when": each.time, "words": each.words, "entry": each.index} for each in past.items],
        page=Page(items=list(past.items), next=past.after, total=past.total),
    )  # fmt: skip


@router.post("/hospitals/{site}/requests", name="hospitals.requests.send.post")
def send_request(site: Name, here: Here, who: Who, file: Annotated[UploadFile | None, File()] = None) -> Response:
    """A hospital's certificate request."""
    check_invited(here, site)
    row = requests.receive(here, bytes_of(file), by=who, holder=site, kind=requests.SITE)
    back = f"/hospitals/{site}/requests/{row.id}" if who.role == HOSPITAL_CONTACT else f"/requests/{row.id}"
    return RedirectResponse(back, status_code=303)


@router.get("/hospitals/{site}/requests/{request_id}", name="hospitals.request.page")
def request_page(site: Name, request_id: RequestId, request: Request, here: Here, who: Who) -> Response:
    """A hospital's request as the hospital sees it: what to read out, what it waits for, the reply."""
    row = requests.find(here, request_id, site=site)
    asked = request_view(here, row, who)
    return render(
        request, "hospitals/request.html", site=site, asked=asked, sentence=_request_sentence(asked),
        groups=fingerprint_groups(asked),
        sent_by=account_name(here, row.received_by),
        contact=who.role == HOSPITAL_CONTACT, may_withdraw=who.role in (CONSORTIUM_ADMIN, HOSPITAL_CONTACT),
    )  # fmt: skip


def _request_sentence(asked: CertificateRequest) -> str:
    if asked.state == requests.ISSUED:
        return _("The certificate is issued. Download the reply and install it at the hospital.")
    if asked.state != requests.OPEN:
        return _("This request is closed. Send another one if a certificate is still wanted.")
    if asked.next_step == "none":
        return _("A check failed; nothing can be issued on this request. Correct what is named and send another one.")
    if asked.compared is None:
        return _("The consortium calls you to compare the fingerprint. Have it at hand.")
    return _("The fingerprint is the same. The consortium decides; nothing is needed from you now.")


@router.post("/hospitals/{site}/requests/{request_id}/withdrawal", name="hospitals.requests.withdraw.post")
def withdraw_request(site: Name, request_id: RequestId, here: Here, who: Who, if_match: Match = None) -> Response:
    """Give a request up."""
    requests.find(here, request_id, site=site)
    requests.withdraw(here, request_id, by=who, if_match=if_match)
    return RedirectResponse(f"/hospitals/{site}", status_code=303)


@router.post("/hospitals/{site}/manifests", name="hospitals.manifests.send.post")
def send_manifest(site: Name, here: Here, file: Annotated[UploadFile | None, File()] = None) -> Response:
    """A hospital's signed data manifest."""
    log_sent_manifest(here, site, bytes_of(file))
    return RedirectResponse(f"/hospitals/{site}#data", status_code=303)
