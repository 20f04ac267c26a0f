"""The view's values: collected from the areas and the read model, for the page and the API alike."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from pydantic import BaseModel, ConfigDict, Field

from admin_api.reading import logbook, runs
from admin_api.web.context import Viewer, Workplace
from admin_api.web.database import utc
from admin_api.web.language import _, ngettext
from admin_api.web.today.tables import VisitRow
from admin_api.web.waiting import Waiting, Waits

VISIT_ENDS = timedelta(minutes=30)  # without a look at this page
NOTED_EVERY = timedelta(minutes=1)


class WaitingThing(BaseModel):
    """Something that needs you."""

    model_config = ConfigDict(from_attributes=True)

    words: str = Field(examples=["Plan autumn-2026 waits for your decision."])
    href: str = Field(examples=["/plans/sha256:..."])
    since: datetime | None
    urgent: bool


class GoingOn(BaseModel):
    """A run that has not finished."""

    run: str = Field(examples=["run-20261122T050000Z-1a2b3c"])
    title: str | None
    started: datetime | None
    rounds: int = Field(description="completed rounds")
    planned: int | None


class Change(BaseModel):
    """An entry of the log since your last visit."""

    entry: int
    time: datetime
    words: str


class Today(BaseModel):
    """What needs you, what is going on, what changed."""

    sentence: str
    waiting: list[WaitingThing]
    going_on: list[GoingOn]
    since: datetime
    new_entries: int
    changes: list[Change]


def today_of(here: Workplace, viewer: Viewer, areas: Sequence[Waits]) -> Today:
    """The page of one person."""
    waiting = sorted(
        (each for area in areas for each in area(here, viewer)),
        key=lambda each: (not each.urgent, each.since is None, each.since or here.now()),
    )
    before_at, before_size = _visit(here, viewer)
    news = logbook.since(here.reading, before_size, only=viewer.hospital, limit=20)
    going_on = runs.listed(here.reading, state="started", only=viewer.hospital, limit=10)
    return Today(
        sentence=_sentence(waiting),
        waiting=[WaitingThing.model_validate(each) for each in waiting],
        going_on=[
            GoingOn(run=each.run, title=each.title, started=each.started, rounds=each.completed, planned=each.planned)
            for each in going_on.items
        ],
        since=before_at,
        new_entries=news.total,
        changes=[Change(entry=line.index, time=line.time, words=line.words) for line in news.notable],
    )


def _sentence(waiting: Sequence[Waiting]) -> str:
    if not waiting:
        return _("Nothing needs you now.")
    first = waiting[0].words
    if len(waiting) == 1:
        return _("%(thing)s Nothing else needs you.", thing=first)
    others = len(waiting) - 1
    return first + " " + ngettext(
        "%(num)s other thing needs you.", "%(num)s other things need you.", others
    )  # fmt: skip


def _visit(here: Workplace, viewer: Viewer) -> tuple[datetime, int]:
    """When the visit before this one was, and how long the log was then; a first visit sees what is new from now."""
    now, size = here.now(), here.reading.size
    with here.database.reading() as session:
        row = session.get(VisitRow, viewer.account)
    if row is not None and now - utc(row.seen_at) < NOTED_EVERY:
        return utc(row.before_at), row.before_size
    with here.database.begin() as session:
        row = session.get(VisitRow, viewer.account)
        if row is None:
            row = VisitRow(account=viewer.account, seen_at=now, seen_size=size, before_at=now, before_size=size)
        elif now - utc(row.seen_at) > VISIT_ENDS:
            row.before_at, row.before_size = row.seen_at, row.seen_size
        row.seen_at, row.seen_size = now, size
        session.add(row)
        return utc(row.before_at), min(row.before_size, size)
