"""How far somebody had read when they were last here."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, Column, String
from sqlmodel import Field

from admin_api.web.tables import WebTable, moment


class VisitRow(WebTable, table=True):
    """An account's visits: the log's size at the last one, and at the one before."""

    __tablename__ = "web_visit"

    account: str = Field(sa_column=Column("account", String, primary_key=True))
    seen_at: datetime = Field(sa_column=moment("seen_at"))
    seen_size: int = Field(sa_column=Column("seen_size", BigInteger, nullable=False))
    before_at: datetime = Field(sa_column=moment("before_at"))
    before_size: int = Field(sa_column=Column("before_size", BigInteger, nullable=False))
