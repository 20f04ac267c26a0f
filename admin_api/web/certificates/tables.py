"""Invitations, certificate requests as they were received, and wrong passphrases.

What was asked for stands in the request's file, in the consortium's folder; here stands what became of it. No name of a
person is in these tables. What was decided and issued is in the log, and only that counts.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Column, Integer, String, Text
from sqlmodel import Field

from admin_api.web.tables import WebTable, moment


class RequestRow(WebTable, table=True):
    """One certificate request. `slot` is taken while it is open: one open request per holder."""

    __tablename__ = "web_certificate_request"

    id: str = Field(sa_column=Column("id", String, primary_key=True))  # 16 hex digits
    kind: str = Field(sa_column=Column("kind", String, nullable=False))  # site, person or passkey
    holder: str = Field(sa_column=Column("holder", String, nullable=False, index=True))  # site, or account, or ""
    slot: str | None = Field(default=None, sa_column=Column("slot", String, nullable=True, unique=True))
    organisation: str = Field(sa_column=Column("organisation", Text, nullable=False))
    role: str = Field(sa_column=Column("role", String, nullable=False))
    fingerprint: str = Field(sa_column=Column("fingerprint", String, nullable=False, index=True))
    digest: str = Field(sa_column=Column("digest", String, nullable=False, index=True))  # what is approved
    state: str = Field(sa_column=Column("state", String, nullable=False, index=True))
    received: datetime = Field(sa_column=moment("received", index=True))
    received_by: str = Field(sa_column=Column("received_by", String, nullable=False))  # account
    compared: datetime | None = Field(default=None, sa_column=moment("compared", nullable=True))
    compared_by: str | None = Field(default=None, sa_column=Column("compared_by", String, nullable=True))
    closed: datetime | None = Field(default=None, sa_column=moment("closed", nullable=True))
    closed_by: str | None = Field(default=None, sa_column=Column("closed_by", String, nullable=True))
    certificate: str | None = Field(default=None, sa_column=Column("certificate", String, nullable=True))
    version: int = Field(default=1, sa_column=Column("version", Integer, nullable=False))  # its ETag


class InvitationRow(WebTable, table=True):
    """A hospital that was asked to join; one row per hospital, whatever happens later.

    The contact's name is the account's (`admin_api.web.sign_in`), not this table's.
    """

    __tablename__ = "web_invitation"

    site: str = Field(sa_column=Column("site", String, primary_key=True))  # the name its certificate will carry
    organisation: str = Field(sa_column=Column("organisation", Text, nullable=False))
    contact: str = Field(sa_column=Column("contact", String, nullable=False, index=True))  # account
    invited: datetime = Field(sa_column=moment("invited", index=True))
    invited_by: str = Field(sa_column=Column("invited_by", String, nullable=False))  # account
    withdrawn: datetime | None = Field(default=None, sa_column=moment("withdrawn", nullable=True))
    version: int = Field(default=1, sa_column=Column("version", Integer, nullable=False))  # its ETag


class WrongPassphraseRow(WebTable, table=True):
    """A passphrase that did not open the root key: when, and who typed it. Kept for as long as it counts."""

    __tablename__ = "web_wrong_passphrase"

    id: str = Field(sa_column=Column("id", String, primary_key=True))
    at: datetime = Field(sa_column=moment("at", index=True))
    account: str = Field(sa_column=Column("account", String, nullable=False))
