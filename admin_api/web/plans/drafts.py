"""Drafts of plans: fields of a wish, as far as somebody has filled them in."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator
from sqlmodel import col, select

from admin_api.web.context import Viewer, Workplace
from admin_api.web.database import utc
from admin_api.web.plans.tables import PlanDraftRow
from admin_api.web.plans.terms import PlanWish
from admin_api.web.preconditions import check_match, etag_of
from admin_api.web.problems import Problem, not_found

MOST_DRAFTS = 100
MOST_BYTES = 400_000  # twenty thousand codes and more


class DraftTerms(BaseModel):
    """What is filled in so far; fields of a plan's wish, checked when it is proposed."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(min_length=1, max_length=64, examples=["autumn-2026"])
    terms: dict[str, Any] = Field(default_factory=dict, examples=[{"epsilon": 3.0, "sites": ["amstel", "berkel"]}])

    @field_validator("terms")
    @classmethod
    def _known(cls, value: dict[str, Any]) -> dict[str, Any]:
        if unknown := sorted(set(value) - set(PlanWish.model_fields)):
            raise ValueError(f"unknown field(s): {', '.join(unknown)[:200]}")
        if len(json.dumps(value)) > MOST_BYTES:
            raise ValueError(f"more than {MOST_BYTES} bytes")
        return value


class Draft(DraftTerms):
    """A draft as it is kept."""

    id: str
    version: int
    changed: datetime
    changed_by: str = Field(description="account")

    @property
    def etag(self) -> str:
        """Names this version."""
        return etag_of(self.id, self.version)


class Drafts(BaseModel):
    """All drafts, the last changed first."""

    items: list[Draft]


def all_drafts(here: Workplace) -> list[Draft]:
    """The last changed first."""
    with here.database.reading() as session:
        rows = session.exec(select(PlanDraftRow).order_by(col(PlanDraftRow.changed).desc(), PlanDraftRow.id)).all()
    return [_draft(row) for row in rows]


def find_draft(here: Workplace, draft_id: str) -> Draft:
    """One draft. Raises Problem 404."""
    with here.database.reading() as session:
        row = session.get(PlanDraftRow, draft_id)
    if row is None:
        raise _missing(draft_id)
    return _draft(row)


def make_draft(here: Workplace, who: Viewer, given: DraftTerms) -> Draft:
    """Keep a new draft. Raises Problem 409 when there are too many."""
    row = PlanDraftRow(
        id=here.random_bytes(8).hex(), name=given.name, terms=json.dumps(given.terms), version=1, changed=here.now(),
        changed_by=who.account,
    )  # fmt: skip
    with here.database.begin() as session:
        if len(session.exec(select(PlanDraftRow.id)).all()) >= MOST_DRAFTS:
            raise Problem(409, "too-many-drafts", "Too many drafts", f"{MOST_DRAFTS} drafts are kept at most",
                          "delete those that nobody needs")  # fmt: skip
        session.add(row)
    return _draft(row)


def change_draft(here: Workplace, who: Viewer, draft_id: str, given: DraftTerms, if_match: str | None) -> Draft:
    """Replace a draft's fields. Raises Problem 404, 412 when somebody changed it meanwhile, 428."""
    with here.database.begin() as session:
        row = session.get(PlanDraftRow, draft_id, with_for_update=True)
        if row is None:
            raise _missing(draft_id)
        check_match(if_match, etag_of(row.id, row.version))
        row.name, row.terms = given.name, json.dumps(given.terms)
        row.version, row.changed, row.changed_by = row.version + 1, here.now(), who.account
        session.add(row)
    return _draft(row)


def delete_draft(here: Workplace, draft_id: str, if_match: str | None) -> None:
    """Raises Problem 404, 412, 428."""
    with here.database.begin() as session:
        row = session.get(PlanDraftRow, draft_id, with_for_update=True)
        if row is None:
            raise _missing(draft_id)
        check_match(if_match, etag_of(row.id, row.version))
        session.delete(row)


def _missing(draft_id: str) -> Problem:
    return not_found(f"no draft {draft_id}; somebody may have deleted it")


def _draft(row: PlanDraftRow) -> Draft:
    return Draft(
        id=row.id, name=row.name, terms=json.loads(row.terms), version=row.version, changed=utc(row.changed),
        changed_by=row.changed_by,
    )  # fmt: skip
