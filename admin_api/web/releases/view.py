"""Releases as pages and programs see them; what counts is judged again by `admin_api.releasing`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, Field

from admin_api.errors import NotKnown
from admin_api.reading import plans, releases, reports, versions
from admin_api.web.context import Viewer, Workplace
from admin_api.web.language import _
from admin_api.web.problems import not_found
from admin_api.web.releases.dossiers import dossier_path
from admin_api.web.waiting import Waiting
from audit.errors import AuditError
from audit.gates import AT_LEAST
from audit.release import APPROVE, ReleaseStatement
from audit.release_state import CANDIDATE, CERTIFIED, WITHDRAWERS

SUPERSEDED, WITHDRAWN = "superseded", "withdrawn"


class ReleaseLine(BaseModel):
    """A release in the list."""

    model_config = ConfigDict(from_attributes=True)

    release: str = Field(examples=["autumn-2026"])
    task: str
    state: str = Field(description="candidate, certified, superseded or withdrawn")
    since: datetime
    state_entry: int
    version: str = Field(examples=["sha256:" + "2e" * 32])
    predecessor: str | None
    superseded_by: str | None
    proposer: str
    proposer_name: str
    proposed: datetime
    proposed_entry: int
    certified: datetime | None
    approvals: int
    refusals: int


class GateView(BaseModel):
    """A gate, what was measured, and whether that passes."""

    name: str = Field(examples=["hit@1@every-site"])
    comparison: str = Field(examples=["at_least"])
    threshold: float
    value: float
    passed: bool


class DecisionView(BaseModel):
    """Somebody's signed yes or no."""

    model_config = ConfigDict(from_attributes=True)

    entry: int
    time: datetime
    decision: str
    person: str
    name: str
    organisation: str
    role: str
    meaning: str
    reason: str


D = TypeVar("D", plans.Decision, DecisionView)


class Need(BaseModel):
    """A role whose approval the policy asks for."""

    role: str
    met: bool
    by: str | None


class EventView(BaseModel):
    """Something that happened to the release."""

    model_config = ConfigDict(from_attributes=True)

    entry: int
    time: datetime
    event: str
    name: str
    reason: str
    other: str | None


class Figure(BaseModel):
    """A reported figure with its 95% interval; all null where the cell was too small."""

    model_config = ConfigDict(from_attributes=True)

    value: float | None
    lower: float | None
    upper: float | None


class SiteReport(BaseModel):
    """What one hospital measured about a version on its own patients, under privacy."""

    site: str
    entry: int
    time: datetime
    epsilon: float | None
    trained: bool
    figures: dict[str, Figure]


class ReleaseView(ReleaseLine):
    """One release with its evidence."""

    statement: str
    run: str | None
    epsilon: float | None
    delta: float | None
    organisations: int = Field(description="from how many organisations approvals must come")
    gates: list[GateView]
    needs: list[Need]
    decisions: list[DecisionView]
    history: list[EventView]
    reports: list[SiteReport]
    documents: dict[str, str] = Field(description="name -> digest; every approval binds them")
    withdrawal: str | None = Field(description="digest of a proposed withdrawal, which is what a second person signs")
    withdrawal_by: str | None
    withdrawal_by_name: str
    withdrawal_reason: str
    withdrawal_decisions: list[DecisionView]
    dossier: bool = Field(description="whether its dossier can be downloaded here")


def find_release(here: Workplace, name: str) -> releases.Release:
    """A release; raises Problem 404."""
    try:
        return releases.one(here.reading, name)
    except NotKnown as error:
        raise not_found(str(error), "look at the list of releases") from None


def release_view(here: Workplace, name: str) -> ReleaseView:
    """One release with everything a person needs to decide about it. Raises Problem 404."""
    found = find_release(here, name)
    statement = statement_of(here, found)
    version = versions.one(here.reading, found.version)
    decided = plans.decisions(here.reading, "release", found.statement)
    return ReleaseView(
        **ReleaseLine.model_validate(found).model_dump(),
        statement=found.statement,
        run=version.run,
        epsilon=version.epsilon,
        delta=version.delta,
        organisations=1 if statement is None else statement.policy.organisations,
        gates=[] if statement is None else _gates(statement),
        needs=[] if statement is None else _needs(statement.policy.release, decided, found.proposer),
        decisions=[DecisionView.model_validate(each) for each in decided],
        history=[EventView.model_validate(each) for each in releases.history(here.reading, name)],
        reports=site_reports(here, found.version, () if statement is None else statement.sites),
        documents={} if statement is None else dict(statement.documents),
        withdrawal=found.withdrawal,
        withdrawal_by=found.withdrawal_by,
        withdrawal_by_name=found.withdrawal_by_name,
        withdrawal_reason=found.withdrawal_reason,
        withdrawal_decisions=[]
        if found.withdrawal is None
        else [
            DecisionView.model_validate(each) for each in plans.decisions(here.reading, "withdrawal", found.withdrawal)
        ],
        dossier=dossier_path(here.home, name).exists(),
    )


def statement_of(here: Workplace, release: releases.Release) -> ReleaseStatement | None:
    """The release's statement; None when its text is not kept here."""
    try:
        return releases.statement(here.reading, release)
    except AuditError:  # the page says that the text is missing; the log's check names a damaged one
        return None


def _gates(statement: ReleaseStatement) -> list[GateView]:
    return [
        GateView(
            name=gate.name,
            comparison=gate.comparison,
            threshold=gate.threshold,
            value=gate.value,
            passed=gate.value >= gate.threshold if gate.comparison == AT_LEAST else gate.value <= gate.threshold,
        )
        for gate in statement.gates
    ]


def last_words(decided: Sequence[D], proposer: str) -> list[D]:
    """Each person's last decision; the proposer's never counts."""
    return list({each.person: each for each in decided if each.person != proposer}.values())


def _needs(roles: Sequence[str], decided: Sequence[plans.Decision], proposer: str) -> list[Need]:
    approving = [each for each in last_words(decided, proposer) if each.decision == APPROVE]
    needs: list[Need] = []
    used: set[str] = set()
    for role, count in sorted(Counter(roles).items()):
        for _position in range(count):
            by = next((each for each in approving if each.role == role and each.person not in used), None)
            if by is not None:
                used.add(by.person)
            needs.append(Need(role=role, met=by is not None, by=None if by is None else by.name))
    return needs


def site_reports(here: Workplace, version: str, trained: Sequence[str]) -> list[SiteReport]:
    """What hospitals measured about a version, headline and chapters."""
    return [
        SiteReport(
            site=each.site,
            entry=each.entry,
            time=each.time,
            epsilon=each.epsilon,
            trained=each.site in trained,
            figures={name: Figure.model_validate(cell) for name, cell in each.cells.items()},
        )
        for each in reports.of_version(here.reading, version, full=True)
    ]


def waiting(here: Workplace, viewer: Viewer) -> Iterator[Waiting]:
    """Candidates that this person may decide about and has not, and withdrawals that wait for a second person."""
    for each in releases.listed(here.reading, state=CANDIDATE, limit=50).items:
        statement = statement_of(here, each)
        if statement is None or viewer.role not in statement.policy.release or each.proposer == viewer.account:
            continue
        decided = last_words(plans.decisions(here.reading, "release", each.statement), each.proposer)
        if all(decision.person != viewer.account for decision in decided):
            yield Waiting(
                _("Release %(name)s waits for your decision.", name=each.release),
                f"/releases/{each.release}#decide",
                each.proposed,
            )
    if viewer.role in WITHDRAWERS:
        for state in (CERTIFIED, SUPERSEDED):
            for each in releases.listed(here.reading, state=state, limit=50).items:
                if each.withdrawal is not None and each.withdrawal_by != viewer.account:
                    yield Waiting(
                        _("Somebody wants to withdraw release %(name)s.", name=each.release),
                        f"/releases/{each.release}#withdraw",
                        urgent=True,
                    )
