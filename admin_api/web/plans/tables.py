"""Plans somebody is still writing. Nothing here is evidence; a draft can be lost without losing a signature."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Column, String, Text
from sqlmodel import Field

from admin_api.web.tables import WebTable, moment


class PlanDraftRow(WebTable, table=True):
    """A draft; all admins see and change the same ones, so each change is of a version."""

    __tablename__ = "web_plan_draft"

    id: str = Field(sa_column=Column("id", String, primary_key=True))
    name: str = Field(sa_column=Column("name", String, nullable=False))
    terms: str = Field(sa_column=Column("terms", Text, nullable=False))  # JSON: fields of `terms.PlanWish`, any of them
    version: int = Field(default=1)
    changed: datetime = Field(sa_column=moment("changed", index=True))
    changed_by: str = Field(sa_column=Column("changed_by", String, nullable=False))  # account
