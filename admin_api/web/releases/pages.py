"""The pages of releases."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import RedirectResponse, Response
from markupsafe import Markup

from admin_api.reading import releases, runs, versions
from admin_api.web import charts
from admin_api.web.access import ACCESS
from admin_api.web.context import Here, Viewer, Who
from admin_api.web.language import N_, _, current, ngettext
from admin_api.web.paging import After, Name
from admin_api.web.releases.api import State, document_of, listed
from admin_api.web.releases.dossiers import certify_and_keep
from admin_api.web.releases.view import (
    SUPERSEDED,
    WITHDRAWN,
    ReleaseView,
    find_release,
    last_words,
    release_view,
)
from admin_api.web.rendering import render
from admin_api.web.routes import PageRoute
from admin_api.web.states import ROLES
from audit.documents.collection import CANDIDATE_REPORT, PICTURE
from audit.gates import AT_LEAST
from audit.release import APPROVE
from audit.release_state import CANDIDATE, CERTIFIED, WITHDRAWERS

router = APIRouter(route_class=PageRoute, include_in_schema=False)
AT_ONCE = 50
_REPORT_POLICY = "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'none'"
DOCUMENTS = {
    "bridge-study.json": N_("Bridge study: would the series of coded diagnoses break"),
    "candidate.html": N_("Report for those who decide"),
    "ml-bom.cdx.json": N_("Bill of materials (CycloneDX)"),
    "model-card.md": N_("Model card"),
    "privacy-curve.json": N_("Privacy curve: epsilon for every delta"),
    "provenance.json": N_("Provenance (in-toto)"),
    "release-notes.json": N_("Release notes"),
    "software.json": N_("Software that made it"),
}
EVENTS = {
    "candidate": N_("Proposed"),
    "approved": N_("Approved"),
    "refused": N_("Refused"),
    "certified": N_("Certified"),
    "superseded": N_("Superseded"),
    "withdrawal proposed": N_("Withdrawal proposed"),
    "withdrawal approved": N_("Withdrawal approved"),
    "withdrawal refused": N_("Withdrawal refused"),
    "withdrawn": N_("Withdrawn"),
}


def _may(viewer: Viewer, name: str) -> bool:
    roles = ACCESS[name].roles
    return roles is None or viewer.role in roles


@router.get("/releases", name="releases.list.page")
def list_page(
    request: Request, here: Here, who: Who, after: After = None, state: Annotated[State | None, Query()] = None
) -> Response:
    """All releases, and versions that are not proposed."""
    page = listed(here, who, state=state, limit=AT_ONCE, after=after)
    candidates = releases.listed(here.reading, state=CANDIDATE, limit=1).total or 0
    certified = [each for task in releases.tasks(here.reading) if (each := releases.certified(here.reading, task))]
    proposable = [
        each
        for each in versions.listed(here.reading, limit=20).items
        if not each.releases and _may(who, "acts.prepare.release-proposal")
    ]
    return render(
        request,
        "releases/list.html",
        page=page,
        state=state,
        certified=certified,
        candidates=candidates,
        proposable=proposable,
        rows=[
            {
                "release": {"text": each.release, "href": f"/releases/{each.release}"},
                "href": f"/releases/{each.release}",
                "state": each.state,
                "task": each.task,
                "since": each.since,
                "version": each.version,
                "approvals": each.approvals,
                "entry": each.state_entry,
            }
            for each in page.items
        ],
    )


@router.get("/releases/new", name="releases.new.page")
def new_page(
    request: Request, here: Here, who: Who, run: Annotated[str | None, Query(max_length=100)] = None
) -> Response:
    """The form that proposes a release."""
    finished = runs.listed(here.reading, state="finished", limit=AT_ONCE).items
    choices = [(each.run, f"{each.run}  {each.title or ''}".strip()) for each in finished]
    return render(request, "releases/new.html", runs=finished, run=run, choices=choices)


@router.get("/releases/gates", name="releases.gates.page")
def gates_page(request: Request, here: Here, who: Who) -> Response:
    """What a task's releases must reach, and how that changed."""
    found = releases.gate_sets(here.reading, limit=AT_ONCE)
    return render(
        request,
        "releases/gates.html",
        sets=found.items,
        in_force=set({each.task: each.entry for each in reversed(found.items)}.values()),
        tasks=releases.tasks(here.reading),
        may_set=_may(who, "acts.prepare.gates"),
        at_least=AT_LEAST,
    )


@router.get("/releases/{release}", name="releases.one.page")
def one_page(release: Name, request: Request, here: Here, who: Who) -> Response:
    """One release, like a certificate, with its evidence."""
    found = release_view(here, release)
    return render(
        request,
        "releases/one.html",
        release=found,
        link=_link,
        sentence=_sentence(found),
        gates=[
            {
                "name": gate.name,
                "rule": ("≥ " if gate.comparison == AT_LEAST else "≤ ") + current().number(gate.threshold),
                "value": gate.value,
                "result": "passed" if gate.passed else "failed",
            }
            for gate in found.gates
        ],
        figures=_figures(found),
        chart=_chart(found),
        decisions=[
            {
                "name": each.name,
                "role": each.role,
                "organisation": each.organisation,
                "decision": "approved" if each.decision == "approve" else "refused",
                "when": each.time,
                "reason": each.reason,
                "entry": each.entry,
            }
            for each in found.decisions
        ],
        needed={
            "have": sum(need.met for need in found.needs),
            "need": len(found.needs),
            "rules": [
                {"words": _(ROLES[need.role]) + (f": {need.by}" if need.by else ""), "met": need.met}
                for need in found.needs
            ],
        },
        why_not=_why_not(found, who),
        may_decide=found.state == CANDIDATE and _why_not(found, who) is None,
        may_trace=_may(who, "trace.page"),
        journey=_journey(found),
        signed=[
            (f"{each.name}, {_(ROLES[each.role])}, {each.organisation}", _(each.meaning), each.entry)
            for each in last_words(found.decisions, found.proposer)
            if each.decision == APPROVE
        ],
        documents=[
            {
                "name": {"text": name, "href": f"/api/v1/releases/{release}/documents/{name}"},
                "what": _(DOCUMENTS[name]) if name in DOCUMENTS else "",
                "digest": digest,
            }
            for name, digest in sorted(found.documents.items())
        ],
        may_certify=_may(who, "releases.certify.post")
        and (found.state == CERTIFIED or (found.state == CANDIDATE and all(need.met for need in found.needs))),
        may_withdraw=who.role in WITHDRAWERS and found.state in (CERTIFIED, SUPERSEDED) and found.withdrawal is None,
        may_agree=who.role in WITHDRAWERS
        and found.withdrawal is not None
        and found.state != WITHDRAWN
        and found.withdrawal_by != who.account,
        report=CANDIDATE_REPORT in found.documents,
        replacements=[
            each.release
            for task in releases.tasks(here.reading)
            if found.state == CERTIFIED and task != found.task and _may(who, "acts.prepare.supersession")
            if (each := releases.certified(here.reading, task)) is not None
        ],
        events=[
            {
                "when": each.time,
                "words": _(EVENTS.get(each.event, each.event)) + (f": {each.other}" if each.other else ""),
                "state": each.event.rpartition(" ")[2],
                "who": each.name or None,
                "note": each.reason or None,
                "entry": each.entry,
            }
            for each in reversed(found.history)
        ],
    )


def _journey(found: ReleaseView) -> list[dict[str, Any]]:
    """The release's states in time, and the next one."""
    before = [each for each in found.history if each.event == "approved"]
    states = (CANDIDATE, CERTIFIED, SUPERSEDED, WITHDRAWN)
    shown = [each for each in found.history if each.event in states]
    if found.state != CANDIDATE and before:
        shown.insert(1, before[-1])
    steps: list[dict[str, Any]] = [
        {
            "label": _(EVENTS[each.event]) + (f": {each.other}" if each.other else ""),
            "state": "failed" if each.event == WITHDRAWN else "done",
            "when": each.time,
            "entry": each.entry,
        }
        for each in shown
    ]
    if found.state == CANDIDATE:
        given = sum(need.met for need in found.needs)
        counted = _("%(have)s of %(need)s approvals", have=given, need=len(found.needs))
        approved = given == len(found.needs)
        steps.append({"label": _("Approved"), "state": "done" if approved else "now", "note": counted})
        steps.append({"label": _("Certified"), "state": "now" if approved else "todo"})
    return steps


def _link(text: str, href: str) -> Markup:
    return Markup('<a href="{}">{}</a>').format(href, text)


def _sentence(found: ReleaseView) -> str:
    if found.state == CANDIDATE:
        missing = sum(not need.met for need in found.needs)
        if missing == 0:
            return _("Every approval is given; the release can be certified.")
        return ngettext("%(num)s approval is missing.", "%(num)s approvals are missing.", missing)
    when = current().date(found.since)
    if found.state == CERTIFIED:
        return _("Certified on %(when)s and in force.", when=when)
    if found.state == SUPERSEDED:
        return _("Superseded by %(by)s on %(when)s.", by=found.superseded_by or "?", when=when)
    return _("Withdrawn on %(when)s: %(reason)s", when=when, reason=found.withdrawal_reason)


def _figures(found: ReleaseView) -> list[dict[str, Any]]:
    return [
        {
            "site": each.site,
            "trained": _("trained") if each.trained else _("evaluated only"),
            **{name: each.figures[name].model_dump() if name in each.figures else None
               for name in ("hit@1", "hit@3", "coverage", "precision")},
            "entry": each.entry,
        }
        for each in found.reports
    ]  # fmt: skip


def _chart(found: ReleaseView) -> charts.Chart | None:
    dots = [
        charts.Dot(each.site, figure.value, figure.lower, figure.upper)
        for each in found.reports
        if (figure := each.figures.get("hit@1")) is not None
    ]
    return charts.dots_with_intervals(_("First suggestion right (hit@1), by hospital"), dots) if dots else None


def _why_not(found: ReleaseView, viewer: Viewer) -> str | None:
    """Why the viewer does not decide about this release; None when they may."""
    if found.state != CANDIDATE:
        return None
    if viewer.role not in {need.role for need in found.needs}:
        return _("The policy asks for other roles than yours.")
    if found.proposer == viewer.account:
        return _("You proposed it; others decide.")
    decided = [each for each in last_words(found.decisions, found.proposer) if each.person == viewer.account]
    if decided and decided[0].decision == "approve":
        return _("You have approved it.")
    return None


@router.post("/releases/{release}/certification", name="releases.certify.post")
def certify_form(release: Name, request: Request, here: Here, who: Who) -> Response:
    """Certify, and show the release."""
    find_release(here, release)
    certify_and_keep(here.home, release)
    return RedirectResponse(f"/releases/{release}", status_code=303)


@router.get("/releases/{release}/report", name="releases.report.page")
def report_page(release: Name, here: Here, who: Who) -> Response:
    """The candidate's report, as approvers read it: a document of its own, in a sandbox."""
    data = document_of(here, release, CANDIDATE_REPORT)
    return Response(data, media_type="text/html; charset=utf-8",
                    headers={"Content-Security-Policy": _REPORT_POLICY})  # fmt: skip


@router.get("/releases/{release}/picture", name="releases.picture.page")
def picture_page(release: Name, here: Here, who: Who) -> Response:
    """The picture of the release's way, from its dossier; shown as an image, so nothing in it runs."""
    data = document_of(here, release, PICTURE)
    return Response(data, media_type="image/svg+xml", headers={"Content-Security-Policy": _REPORT_POLICY})
