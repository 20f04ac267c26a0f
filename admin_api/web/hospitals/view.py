"""Hospitals as people read them: from the log (the read model), the invitations, and what the server heard.

What the consortium does not know is said as such: which version a hospital's coders use and which software it runs are
not reported by anybody yet; budgets are known as far as the hospital's signed statements tell.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta

from pydantic import BaseModel, ConfigDict, Field

from admin_api.errors import NotKnown
from admin_api.reading import certificates as held
from admin_api.reading import hospitals, logbook, privacy
from admin_api.reading.hospitals import Hospital
from admin_api.reading.reports import Report
from admin_api.reading.slices import Slice
from admin_api.web.certificates import requests
from admin_api.web.certificates.tables import InvitationRow
from admin_api.web.certificates.view import RequestLine, request_line
from admin_api.web.context import HOSPITAL_CONTACT, Viewer, Workplace
from admin_api.web.database import utc
from admin_api.web.hospitals import invitations
from admin_api.web.hospitals.journey import DONE, Step, journey, own_sentence, reached_word, sentence
from admin_api.web.language import _, ngettext
from admin_api.web.problems import not_found
from admin_api.web.sign_in.accounts import INVITED as LINK_UNUSED
from admin_api.web.waiting import Waiting
from audit.certificates import CONSORTIUM_ADMIN
from jobs.errors import FederationError
from jobs.federation import process
from jobs.federation.presence import Seen, read_presence

HEADLINES = ("hit@1", "hit@3", "coverage", "precision", "threshold")


class Budget(BaseModel):
    """What is known of a hospital's privacy budget for one cohort."""

    model_config = ConfigDict(from_attributes=True)

    cohort: str = Field(examples=["training"])
    spent: float = Field(description="epsilons that the log knows, added up")
    reserved: float
    budget: float | None = Field(description="as the hospital last said; null: it has not")
    ledger_spent: float | None = Field(description="spent as the hospital's own ledger had it then")
    left: float | None = Field(description="of the budget, by the hospital's ledger; null: not reported")
    entry: int = Field(description="the newest entry about it")


class HospitalLine(BaseModel):
    """A hospital in the list."""

    site: str = Field(examples=["amstel"])
    organisation: str
    reached: str = Field(examples=["training"], description="how far it has come: its last step")
    standing: str = Field(examples=["good"], description="of its best certificate")
    days: int | None = Field(description="left of that certificate")
    last_seen: datetime | None = Field(description="when the server last heard of it; null: never, or not noted")
    connected: bool
    period_first: str | None
    period_last: str | None
    patients: int | None = Field(description="as announced; null: none, or fewer than may be told")
    trains: bool
    evaluates: bool
    version: str | None = Field(default=None, description="in use at the coder's desk; null: not reported")
    budget_left: float | None = Field(description="epsilon left for training patients; null: not reported")
    entry: int


class HospitalPage(BaseModel):
    """One hospital."""

    site: str
    organisation: str
    sentence: str
    reached: str
    standing: str | None = Field(description="of its best certificate; null: it has none")
    until: datetime | None
    days: int | None
    journey: list[Step]
    connected: bool
    first_seen: datetime | None
    last_seen: datetime | None
    server_runs: bool
    software: str | None = Field(default=None, description="version of the hospital's software; null: not reported")
    version: str | None = Field(default=None, description="version in use; null: not reported")
    requests: list[RequestLine] = Field(description="the newest certificate requests")
    budgets: list[Budget]
    asked: int = Field(description="runs it was asked for")
    accepted: int
    refused: int
    rounds: int
    dropped: int
    receipts: int
    reports: int
    patients: int | None
    admissions: int | None
    period_first: str | None
    period_last: str | None
    manifest: str | None
    entry: int | None


class InvitationView(BaseModel):
    """A hospital that was invited."""

    site: str = Field(examples=["amstel"])
    organisation: str
    contact: str = Field(examples=["contact-00112233aabbccdd"], description="account of who speaks for it")
    contact_name: str = Field(description="as the account has it; the id where it was erased")
    contact_state: str = Field(examples=["invited"], description="of the account: invited, active, locked, ended")
    invited: datetime
    invited_by: str
    withdrawn: datetime | None
    reached: str = Field(examples=["invited"], description="invited, requested or approved")
    etag: str = Field(description="for If-Match")


class MetricPoint(BaseModel):
    """A metric of a hospital with its interval."""

    value: float | None = Field(description="null: too few")
    lower: float | None
    upper: float | None


class ReportLine(BaseModel):
    """What a hospital measured about a version."""

    entry: int
    time: datetime
    version: str
    run: str
    cohort: str
    epsilon: float | None
    metrics: dict[str, MetricPoint]


def budgets_of(here: Workplace, sites: Iterable[str]) -> Mapping[str, list[Budget]]:
    """Budgets by hospital, as far as the log tells."""
    wanted = sorted(set(sites))
    rows = privacy.of_hospital(here.reading, wanted[0]) if len(wanted) == 1 else privacy.listed(here.reading)
    found: dict[str, list[Budget]] = {site: [] for site in wanted}
    for row in rows:
        if row.site in found:
            left = None
            if row.budget is not None and row.ledger_spent is not None:
                left = max(0.0, row.budget - row.ledger_spent - row.reserved)
            found[row.site].append(
                Budget(
                    cohort=row.cohort,
                    spent=row.spent,
                    reserved=row.reserved,
                    budget=row.budget,
                    ledger_spent=row.ledger_spent,
                    left=left,
                    entry=row.last_entry,
                )
            )
    return found


def presence(here: Workplace) -> tuple[Mapping[str, Seen], bool]:
    """Whom the server heard of, and whether it runs on this machine. A damaged note counts as none."""
    try:
        seen: Mapping[str, Seen] = read_presence(here.home)
    except FederationError:  # the server writes it anew; the pages say "not seen"
        seen = {}
    return seen, process.find(here.home.server_kit) is not None


def lines(here: Workplace, found: Sequence[Hospital]) -> list[HospitalLine]:
    """A page of the list."""
    seen, runs = presence(here)
    budgets = budgets_of(here, [each.name for each in found]) if found else {}
    now = here.now()
    made: list[HospitalLine] = []
    for each in found:
        reached = {step.word for step in each.journey}
        heard = seen.get(each.name)
        left = next((budget.left for budget in budgets[each.name] if budget.cohort == "training"), None)
        made.append(
            HospitalLine(
                site=each.name,
                organisation=each.organisation,
                reached=reached_word(each, heard),
                standing=each.standing,
                days=each.days,
                last_seen=heard.last if heard else None,
                connected=runs and heard is not None and heard.connected(now),
                period_first=each.period_first,
                period_last=each.period_last,
                patients=each.patients,
                trains=hospitals.TRAINED in reached,
                evaluates=hospitals.EVALUATED in reached,
                budget_left=left,
                entry=each.last_entry,
            )
        )
    return made


def page_of(here: Workplace, site: str, viewer: Viewer) -> HospitalPage:
    """One hospital, joined or invited, as this viewer reads it. Raises Problem 404."""
    invitation = invitations.find_or_none(here, site)
    asked = requests.of_holder(here, requests.SITE, site)
    now = here.now()
    try:
        hospital: Hospital | None = hospitals.one(here.reading, site, now=now)
    except NotKnown:
        hospital = None
    if hospital is None and invitation is None and not asked:
        raise not_found(f"there is no hospital {site} here")
    seen, runs = presence(here)
    heard = seen.get(site)
    steps = journey(hospital, invitation, asked, heard)
    organisation = hospital.organisation if hospital else (invitation or asked[0]).organisation
    connected = runs and heard is not None and heard.connected(now)
    return HospitalPage(
        site=site,
        organisation=organisation,
        sentence=own_sentence(hospital, asked)
        if viewer.role == HOSPITAL_CONTACT
        else sentence(hospital, invitation, asked, heard, connected=connected, server_runs=runs),
        reached=next((step.name for step in reversed(steps) if step.state == DONE), "requested"),
        standing=hospital.standing if hospital else None,
        until=hospital.until if hospital else None,
        days=hospital.days if hospital else None,
        journey=steps,
        connected=connected,
        first_seen=heard.first if heard else None,
        last_seen=heard.last if heard else None,
        server_runs=runs,
        requests=[request_line(here, row) for row in asked[:10]],
        budgets=budgets_of(here, [site])[site],
        asked=hospital.asked if hospital else 0,
        accepted=hospital.accepted if hospital else 0,
        refused=hospital.refused if hospital else 0,
        rounds=hospital.rounds if hospital else 0,
        dropped=hospital.dropped if hospital else 0,
        receipts=hospital.receipts if hospital else 0,
        reports=hospital.reports if hospital else 0,
        patients=hospital.patients if hospital else None,
        admissions=hospital.admissions if hospital else None,
        period_first=hospital.period_first if hospital else None,
        period_last=hospital.period_last if hospital else None,
        manifest=hospital.manifest if hospital else None,
        entry=hospital.last_entry if hospital else None,
    )


def check_known(here: Workplace, site: str) -> None:
    """Raises Problem 404 for a hospital that neither joined, nor was invited, nor asked."""
    if invitations.find_or_none(here, site) is not None or requests.of_holder(here, requests.SITE, site):
        return
    try:
        hospitals.one(here.reading, site, now=here.now())
    except NotKnown:
        raise not_found(f"there is no hospital {site} here") from None


def invitation_view(here: Workplace, row: InvitationRow) -> InvitationView:
    """An invitation, with its contact."""
    accounts = {each.id: each for each in invitations.contacts_of(here, row.site)}
    account = accounts.get(row.contact)
    asked = requests.of_holder(here, requests.SITE, row.site)
    joined = bool(held.of_holder(here.reading, row.site, now=here.now()))
    return InvitationView(
        site=row.site,
        organisation=row.organisation,
        contact=row.contact,
        contact_name=(account.name or row.contact) if account else row.contact,
        contact_state=account.state if account else "ended",
        invited=utc(row.invited),
        invited_by=row.invited_by,
        withdrawn=None if row.withdrawn is None else utc(row.withdrawn),
        reached="approved" if joined else "requested" if asked else "invited",
        etag=invitations.etag(row),
    )


def coming(here: Workplace) -> list[InvitationView]:
    """Hospitals that were invited and have no certificate yet."""
    views = [invitation_view(here, row) for row in invitations.listed(here)]
    return [view for view in views if view.reached != "approved"]


def report_line(report: Report) -> ReportLine:
    """A report's headline figures."""
    return ReportLine(
        entry=report.entry,
        time=report.time,
        version=report.version,
        run=report.run,
        cohort=report.cohort,
        epsilon=report.epsilon,
        metrics={
            name: MetricPoint(value=cell.value, lower=cell.lower, upper=cell.upper)
            for name, cell in report.cells.items()
        },
    )


def list_sentence(here: Workplace, viewer: Viewer, arriving: Sequence[InvitationView]) -> str:
    """The list's sentence."""
    counts = hospitals.counts(here.reading, now=here.now())
    total = counts.get(hospitals.ALL, 0)
    if viewer.role == HOSPITAL_CONTACT:
        return _("You see your own hospital.")
    if not total and not arriving:
        return _("No hospital has joined yet.")
    parts = [ngettext("%(num)s hospital has joined.", "%(num)s hospitals have joined.", total)]
    waiting = sum(1 for each in arriving if each.reached == "requested")
    if waiting:
        parts.append(ngettext("%(num)s request waits.", "%(num)s requests wait.", waiting))
    soon = counts.get(hospitals.ENDS_SOON, 0)
    if soon:
        parts.append(ngettext("%(num)s certificate ends soon.", "%(num)s certificates end soon.", soon))
    if not waiting and not soon:
        parts.append(_("Nothing needs you here."))
    return " ".join(parts)


def history(here: Workplace, site: str, *, only: str | None, limit: int, after: str | None) -> Slice[logbook.LogLine]:
    """The log's entries about a hospital, newest first; `only` a contact's own hospital."""
    return logbook.entries(here.reading, site=site, only=only, limit=limit, after=after)


def waiting(here: Workplace, viewer: Viewer) -> list[Waiting]:
    """What waits for this person about hospitals: links that were not used, certificates that end, one's own steps."""
    found: list[Waiting] = []
    now = here.now()
    if viewer.role == HOSPITAL_CONTACT and viewer.hospital is not None:
        site = viewer.hospital
        try:
            hospital: Hospital | None = hospitals.one(here.reading, site, now=now)
        except NotKnown:
            hospital = None
        opened = [row for row in requests.of_holder(here, requests.SITE, site) if row.state == requests.OPEN]
        href = f"/hospitals/{site}"
        if hospital is None and not opened:
            found.append(Waiting(_("Send your hospital's certificate request."), href, urgent=True))
        elif hospital is not None and hospital.days is not None and hospital.days < held.WARNING_DAYS and not opened:
            found.append(Waiting(_("Your hospital's certificate ends soon; send a request to renew it."), href))
        elif hospital is not None and hospital.manifest is None:
            found.append(Waiting(_("Announce your hospital's data: send its signed manifest."), href))
        return found
    if viewer.role != CONSORTIUM_ADMIN:
        return found
    for view in coming(here):
        if view.contact_state == LINK_UNUSED and now - view.invited > timedelta(hours=72):
            words = _("The link for %(site)s was not used and has ended; make a new one.", site=view.site)
            found.append(Waiting(words, f"/hospitals/{view.site}", view.invited))
    return found
