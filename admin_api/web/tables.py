"""The frame's own tables: answers that are given again, and acts that wait for a signature.

Accounts and sessions have theirs in `admin_api.web.sign_in.tables`. Nothing here is evidence: what counts is in the
log, and these tables can be lost without losing a signature.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Column, DateTime, LargeBinary, MetaData, String, Text
from sqlmodel import Field, SQLModel


class WebTable(SQLModel):
    """Keeps the pages' tables apart from those of other databases in the same process."""

    metadata = MetaData()


def moment(name: str, *, index: bool = False, nullable: bool = False) -> Column[datetime]:
    """A column for an instant. SQLite forgets the zone: what is stored and read is UTC (`database.utc`)."""
    return Column(name, DateTime(timezone=True), nullable=nullable, index=index)


class AnswerRow(WebTable, table=True):
    """The answer to a request with an idempotency key; without `status` it is still being made."""

    __tablename__ = "web_answer"

    account: str = Field(sa_column=Column("account", String, primary_key=True))
    key: str = Field(sa_column=Column("key", String, primary_key=True))
    request: str = Field(sa_column=Column("request", String, nullable=False))  # digest of method, path and body
    begun: datetime = Field(sa_column=moment("begun", index=True))
    status: int | None = Field(default=None)
    headers: str = Field(default="[]", sa_column=Column("headers", Text, nullable=False))  # JSON, pairs
    body: bytes | None = Field(default=None, sa_column=Column("body", LargeBinary, nullable=True))


class ActRow(WebTable, table=True):
    """Something somebody is about to sign: the exact statement, and how to carry it out once it is signed."""

    __tablename__ = "web_act"

    id: str = Field(sa_column=Column("id", String, primary_key=True))
    name: str = Field(sa_column=Column("name", String, nullable=False))
    account: str = Field(sa_column=Column("account", String, nullable=False, index=True))
    certificate: str = Field(sa_column=Column("certificate", String, nullable=False))  # digest of the signer's
    parameters: str = Field(sa_column=Column("parameters", Text, nullable=False))  # JSON
    prepared: str = Field(sa_column=Column("prepared", Text, nullable=False))  # JSON (admin_api.signing.Prepared)
    expires: datetime = Field(sa_column=moment("expires", index=True))
