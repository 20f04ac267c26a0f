"""The pages of privacy budgets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

from fastapi import APIRouter, Request
from fastapi.responses import Response

from admin_api.reading import plans, releases
from admin_api.web import charts
from admin_api.web.access import ACCESS
from admin_api.web.context import Here, Who, Workplace
from admin_api.web.language import N_, _, current
from admin_api.web.paging import After, Digest, Name
from admin_api.web.privacy.api import Plan, Search, Sort, budgets_page, hospital_budgets, leavings
from admin_api.web.privacy.audits import AuditReport, find, report
from admin_api.web.privacy.budgets import (
    LEDGER,
    BurnPoint,
    CohortLine,
    beside,
    course,
    every_line,
    every_point,
    lines,
    of_hospital,
    sentence,
    share_left,
)
from admin_api.web.privacy.spreadsheet import csv_answer
from admin_api.web.problems import Problem
from admin_api.web.rendering import render
from admin_api.web.routes import PageRoute
from jobs.leaves import MASKED, NOISY, PLAIN, PROTOCOL

router = APIRouter(route_class=PageRoute, include_in_schema=False)
AT_ONCE = 50
MOST_BARS = 12
MOST_POINTS = 80  # of a burn-down and its table; the first, the last, and evenly between them
MOST_CHOICES = 20
_TESTED = "noise-variance"
_HOW = {
    PLAIN: ("info", N_("plain"), "attention"),
    NOISY: ("ok", N_("with noise, charged to the ledger"), "ok"),
    MASKED: ("ok", N_("with noise and masked"), "ok"),
    PROTOCOL: ("info", N_("keys and signatures"), "neutral"),
}
LEAVING_WORDS = frozenset(
    {  # of jobs.leaves.LEAVES, for translators; a test holds the two together
        N_("that this hospital takes part, in which run, round and version, and the time on what it signs"),
        N_("that it does not take part, or could not answer, with a code and a reason that quotes no record"),
        N_("the digest of the data set's manifest"),
        N_(
            "about the data set (`zegel site manifest`): admissions and patients where at least 10, first and last year"
        ),
        N_("the ledger's head (a hash) and the epsilon reserved, which is the plan's"),
        N_("the privacy budgets its officer set, and how much of each is spent and reserved"),
        N_("the plan's own words on what was done: event, noise, epsilon, delta, which side of the split"),
        N_("the digest of the hospital's certificate, and its signatures"),
        N_("as a witness of the log: the witness's key, and cosignatures or refusals with the size it saw last"),
        N_("when answers arrive: how long a step took depends on how many patients were drawn"),
        N_("sums over drawn patients of a round, and a digest of what was sent"),
        N_("how good a version is: counts on the test patients"),
        N_("counts per code, if the officer releases them (`zegel site label-counts`)"),
        N_("secure aggregation: public keys, sealed shares, revealed shares of masks, who survived a round"),
    }
)


@router.get("/privacy", name="privacy.page")
def privacy_page(
    request: Request, here: Here, who: Who, plan: Plan = None, search: Search = "", sort: Sort = "site",
    after: After = None,
) -> Response:  # fmt: skip
    """Budgets, what leaves hospitals, and the last audit. Sentence and chart are about all hospitals."""
    given = beside(here, plan, who.hospital)
    every = lines(here, only=who.hospital, cost=given.cost)
    found = budgets_page(
        here, given, only=who.hospital, search=search, sort=sort, limit=AT_ONCE, after=after
    )  # fmt: skip
    newest = releases.audits(here.reading, limit=5).items
    query = urlencode({name: value for name, value in (("plan", plan), ("search", search)) if value})
    sorted_so = urlencode({"sort": sort}) if sort != "site" else ""
    return render(
        request,
        "privacy/list.html",
        found=found,
        sentence=sentence(every, given.plan),
        rows=[_row(line) for line in found.items],
        chart=_bars(every),
        chart_title=_bars_title(every),
        search=search,
        several=len(every) > 2,
        sort={"key": sort.removeprefix("-"), "descending": sort.startswith("-"), "url": _url("/privacy", query)},
        url=_url("/privacy", query, sorted_so),
        csv_url=_url("/privacy/export/budgets.csv", query, sorted_so),
        plan_choices=[(plan.plan_hash, plan.title or plan.plan_hash) for plan in _plan_choices(here, who.hospital)],
        leave_rows=[_leave_row(each.what, each.how) for each in leavings().items],
        audit=_last_report(here, newest),
        audits=newest,
        may_log_audit=who.role in (ACCESS["acts.prepare.privacy-audit"].roles or ()),
    )


def _url(path: str, *queries: str) -> str:
    query = "&".join(each for each in queries if each)
    return f"{path}?{query}" if query else path


@router.get("/privacy/export/budgets.csv", name="privacy.csv")
def budgets_csv(here: Here, who: Who, plan: Plan = None, search: Search = "", sort: Sort = "site") -> Response:
    """All budgets, in the page's order, for a spreadsheet."""
    given = beside(here, plan, who.hospital)
    every = every_line(here, only=who.hospital, cost=given.cost, search=search, sort=sort)
    return csv_answer("budgets.csv", CohortLine, every)


@router.get("/privacy/{site}/points.csv", name="privacy.points.csv")
def points_csv(site: Name, here: Here) -> Response:
    """All that happened to a hospital's budgets, for a spreadsheet."""
    of_hospital(here, site)  # raises for a hospital nobody knows
    return csv_answer(f"{site}-points.csv", BurnPoint, every_point(here, site))


@router.get("/privacy/audits/{digest}", name="privacy.audits.page")
def audit_page(digest: Digest, request: Request, here: Here) -> Response:
    """One audit."""
    found = report(here, find(here, digest))
    return render(request, "privacy/audit.html", audit=_audit_values(found))


@router.get("/privacy/{site}", name="privacy.one.page")
def hospital_page(
    site: Name, request: Request, here: Here, who: Who, plan: Plan = None, after: After = None
) -> Response:
    """One hospital's budgets and how they were spent."""
    given = beside(here, plan, who.hospital)
    found = hospital_budgets(here, site, given, limit=AT_ONCE, after=after)
    return render(
        request,
        "privacy/one.html",
        site=site,
        found=found,
        sentence=sentence(found.items, given.plan),
        rows=[_row(line) for line in found.items],
        burn_downs=_burn_downs(here, found.items, found.plan_title),
        points=[_point_row(point, {line.cohort: line.source for line in found.items}) for point in found.points.items],
        url=_url(f"/privacy/{site}", urlencode({"plan": plan}) if plan else ""),
    )


def _leave_row(what: str, how: str) -> dict[str, Any]:
    state, words, tone = _HOW[how]
    return {"what": _(what), "how": {"state": state, "word": _(words), "tone": tone}}


def _row(line: CohortLine) -> dict[str, Any]:
    bar: Any = None
    if line.budget is not None:
        bar = {"spent": line.spent, "reserved": line.reserved, "ghost": line.plan or 0.0, "of": line.budget}
    return {
        "site": {"text": line.site, "href": f"/privacy/{line.site}"},
        "href": f"/privacy/{line.site}",
        "cohort": _("training") if line.cohort == "training" else _("validation"),
        "budget": line.budget,
        "spent": line.spent,
        "reserved": line.reserved,
        "left": line.left,
        "plan": line.plan,
        "bar": bar if bar is not None else None,
        "source": _("its ledger, signed") if line.source == LEDGER else _("added up from the log"),
        "when": line.when,
        "entry": line.entry,
        "tone": "attention" if line.fits is False else "",
    }


def _bars(lines: Sequence[CohortLine]) -> charts.Chart | None:
    """The budgets with the least left, the shortest first when there are more than fit."""
    known = [line for line in lines if line.budget is not None]
    if len(known) > MOST_BARS:
        known = sorted(known, key=lambda line: (line.fits is not False, share_left(line)))[:MOST_BARS]
    rows = [
        charts.Budget(
            f"{line.site}, {_('training') if line.cohort == 'training' else _('validation')}",
            line.spent, line.reserved, line.budget or 0.0, line.plan or 0.0,
        )
        for line in known
    ]  # fmt: skip
    return charts.budget_bars(_bars_title(lines), rows) if rows else None


def _bars_title(lines: Sequence[CohortLine]) -> str:
    known = sum(line.budget is not None for line in lines)
    if known <= MOST_BARS:
        return _("Budgets: spent, reserved, and what the plan would take")
    return _("The %(shown)s of %(all)s budgets with the least left", shown=MOST_BARS, all=current().number(known))


def _burn_downs(here: Workplace, lines: Sequence[CohortLine], plan_title: str | None) -> list[tuple[str, charts.Chart]]:
    found = []
    for line in lines:
        if line.budget is None:
            continue
        mine = [(point.when, point.spent) for point in course(here, line, MOST_POINTS)]
        if not mine:
            continue
        title = (
            _("What is left for training patients") if line.cohort == "training"
            else _("What is left for validation patients")
        )  # fmt: skip
        chart = charts.burn_down(
            title, mine, line.budget, reserved=line.reserved, ghost=line.plan or 0.0,
            ghost_label="" if line.plan is None else _("plan %(name)s", name=plan_title or ""), now=here.now(),
        )  # fmt: skip
        found.append((title, chart))
    return found


def _point_row(point: BurnPoint, sources: Mapping[str, str]) -> dict[str, Any]:
    # Sums of the log and figures of a ledger do not belong in one column.
    counted = sources.get(point.cohort) == point.source
    words = {
        "reserved": _("a run was accepted, its epsilon reserved"),
        "spent": _("a run finished"),
        "ended": _("a run finished without this hospital"),
        "reported": _("it reported how good a version is"),
        "stated": _("it stated where its ledger stands"),
    }
    return {
        "when": point.when,
        "cohort": _("training") if point.cohort == "training" else _("validation"),
        "words": words.get(point.event, point.event),
        "run": {"text": point.run, "href": f"/runs/{point.run}"},
        "epsilon": point.epsilon or None,
        "spent": point.spent if counted else None,
        "reserved": point.reserved if counted else None,
        "entry": point.entry,
    }


def _plan_choices(here: Workplace, only: str | None) -> list[plans.Plan]:
    found = plans.listed(here.reading, only=only, limit=MOST_CHOICES).items
    return [plan for plan in found if plan.readable and plan.state in ("proposed", "approved")]


def _last_report(here: Workplace, audits: Sequence[releases.PrivacyAudit]) -> dict[str, Any] | None:
    if not audits:
        return None
    try:
        return _audit_values(report(here, audits[0]))
    except Problem:
        return None  # the line itself is shown; its report is not kept here


def _audit_values(audit: AuditReport) -> dict[str, Any]:
    """The audit with its pictures."""
    claims = charts.dots_with_intervals(
        _("Epsilon proved by the attack (dot), and claimed (hollow)"),
        [
            charts.Dot(each.name, each.lower_bound, before=each.epsilon, passed=each.lower_bound <= each.epsilon)
            for each in audit.configurations
        ],
        maximum=max([each.epsilon for each in audit.configurations] + [audit.lower_bound, 1e-6]) * 1.05,
    )
    noises = [(each.name, check) for each in audit.configurations for check in each.checks if check.name == _TESTED]
    ratios = None
    if noises:
        ratios = charts.dots_with_intervals(
            _("Variance of the released noise over the claimed one"),
            [
                charts.Dot(
                    name,
                    check.measured / check.claimed,
                    None if check.lower is None else check.lower / check.claimed,
                    None if check.upper is None else check.upper / check.claimed,
                    passed=check.passed,
                )
                for name, check in noises
                if check.claimed
            ],
            reference=1.0,
            reference_label=_("as claimed"),
            minimum=0.0,
            maximum=max([2.0] + [check.measured / check.claimed * 1.1 for _name, check in noises if check.claimed]),
        )
    rows = [
        {
            "name": each.name,
            "what": each.description,
            "epsilon": each.epsilon,
            "lower_bound": each.lower_bound,
            "guesses": _(
                "%(right)s of %(all)s", right=current().number(each.correct), all=current().number(each.guesses)
            ),
            "passed": "passed" if each.passed else "failed",
            "failed": ", ".join(check.name for check in each.checks if not check.passed) or None,
            "tone": "" if each.passed else "danger",
        }
        for each in audit.configurations
    ]
    return {"report": audit, "claims": claims, "ratios": ratios, "rows": rows}
