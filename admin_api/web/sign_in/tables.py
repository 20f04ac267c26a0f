"""Who may come in: accounts, their passkeys, sessions, one-time links and tokens.

Secrets (a session's id, a link, a token) are kept as digests only; whoever reads this database can sign in as nobody.
Names, devices, addresses and the subject of another sign-in are personal data: they stand here and nowhere else, and
`admin_api.web.sign_in.accounts.erase` takes them away.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, Column, Float, Index, Integer, LargeBinary, String, Text, UniqueConstraint
from sqlmodel import Field

from admin_api.web.tables import WebTable, moment


class AccountRow(WebTable, table=True):
    """Somebody who may sign in. `name` is null once it was erased."""

    __tablename__ = "web_account"
    __table_args__ = (UniqueConstraint("issuer", "subject", name="uq_web_account_issuer_subject"),)

    id: str = Field(sa_column=Column("id", String, primary_key=True))  # person-<16 hex> or contact-<16 hex>
    name: str | None = Field(default=None, sa_column=Column("name", Text, nullable=True))
    language: str = Field(sa_column=Column("language", String, nullable=False))
    organisation: str = Field(sa_column=Column("organisation", Text, nullable=False))
    role: str = Field(sa_column=Column("role", String, nullable=False, index=True))
    hospital: str | None = Field(default=None, sa_column=Column("hospital", String, nullable=True))
    state: str = Field(sa_column=Column("state", String, nullable=False))
    handle: bytes = Field(sa_column=Column("handle", LargeBinary, nullable=False, unique=True))  # WebAuthn user.id
    issuer: str | None = Field(default=None, sa_column=Column("issuer", Text, nullable=True))  # of another sign-in
    subject: str | None = Field(default=None, sa_column=Column("subject", Text, nullable=True))
    made: datetime = Field(sa_column=moment("made"))
    failures: int = Field(default=0)  # attempts refused since the last one that succeeded
    locked_until: datetime | None = Field(default=None, sa_column=moment("locked_until", nullable=True))


class PasskeyRow(WebTable, table=True):
    """A passkey of an account, which has shown that it holds its key: registering alone proves nothing."""

    __tablename__ = "web_passkey"

    id: str = Field(sa_column=Column("id", Text, primary_key=True))  # credential id, base64url
    account: str = Field(sa_column=Column("account", String, nullable=False, index=True))
    name: str = Field(sa_column=Column("name", Text, nullable=False))
    public_key: bytes = Field(sa_column=Column("public_key", LargeBinary, nullable=False))  # COSE
    key_digest: str = Field(sa_column=Column("key_digest", String, nullable=False, unique=True))  # of the SPKI
    sign_count: int = Field(sa_column=Column("sign_count", BigInteger, nullable=False))
    backup_eligible: bool
    backed_up: bool
    transports: str = Field(sa_column=Column("transports", Text, nullable=False))  # space separated
    made: datetime = Field(sa_column=moment("made"))
    proof: str | None = Field(default=None, sa_column=Column("proof", Text, nullable=True))  # JSON: its request
    last_used: datetime | None = Field(default=None, sa_column=moment("last_used", nullable=True))


class SessionRow(WebTable, table=True):
    """A signed-in browser. `id` is the digest of what its cookie holds."""

    __tablename__ = "web_session"

    id: str = Field(sa_column=Column("id", String, primary_key=True))
    account: str = Field(sa_column=Column("account", String, nullable=False, index=True))
    via: str = Field(sa_column=Column("via", String, nullable=False))
    csrf: str = Field(sa_column=Column("csrf", String, nullable=False))
    device: str = Field(sa_column=Column("device", Text, nullable=False))  # "Firefox, Linux"
    began: datetime = Field(sa_column=moment("began"))
    last_seen: datetime = Field(sa_column=moment("last_seen"))
    confirmed: datetime = Field(sa_column=moment("confirmed"))  # when the person last proved who they are
    ends: datetime = Field(sa_column=moment("ends", index=True))


class LinkRow(WebTable, table=True):
    """A one-time link; it is deleted when it is used or replaced."""

    __tablename__ = "web_link"

    id: str = Field(sa_column=Column("id", String, primary_key=True))  # digest of what the link holds
    account: str = Field(sa_column=Column("account", String, nullable=False, index=True))
    ends: datetime = Field(sa_column=moment("ends", index=True))


class CeremonyRow(WebTable, table=True):
    """A challenge that waits for its answer, from the browser that asked for it; deleted when it is taken."""

    __tablename__ = "web_ceremony"

    id: str = Field(sa_column=Column("id", String, primary_key=True))  # digest of what the browser's cookie holds
    purpose: str = Field(sa_column=Column("purpose", String, nullable=False))
    challenge: bytes = Field(sa_column=Column("challenge", LargeBinary, nullable=False))
    account: str | None = Field(default=None, sa_column=Column("account", String, nullable=True, index=True))
    kept: str = Field(sa_column=Column("kept", Text, nullable=False))  # JSON: what the answer is held against
    ends: datetime = Field(sa_column=moment("ends", index=True))


class TokenRow(WebTable, table=True):
    """An API token. It may what its maker's role may, within its scope."""

    __tablename__ = "web_token"

    id: str = Field(sa_column=Column("id", String, primary_key=True))  # token-<16 hex>
    digest: str = Field(sa_column=Column("digest", String, nullable=False, unique=True))
    account: str = Field(sa_column=Column("account", String, nullable=False, index=True))
    name: str = Field(sa_column=Column("name", Text, nullable=False))
    scope: str = Field(sa_column=Column("scope", Text, nullable=False))  # space separated
    made: datetime = Field(sa_column=moment("made"))
    ends: datetime = Field(sa_column=moment("ends"))
    last_used: datetime | None = Field(default=None, sa_column=moment("last_used", nullable=True))
    revoked: datetime | None = Field(default=None, sa_column=moment("revoked", nullable=True))


class BucketRow(WebTable, table=True):
    """How many attempts are left to an address; deleted when it is full again."""

    __tablename__ = "web_bucket"

    key: str = Field(sa_column=Column("key", String, primary_key=True))
    left: float = Field(sa_column=Column("left", Float, nullable=False))
    updated: datetime = Field(sa_column=moment("updated"))
    full: datetime = Field(sa_column=moment("full", index=True))


class NotedRow(WebTable, table=True):
    """An entry of the log that is still to be written (`admin_api.web.sign_in.recording`)."""

    __tablename__ = "web_noted"
    __table_args__ = (Index("ix_web_noted_since", "since"),)

    slot: str = Field(sa_column=Column("slot", String, primary_key=True))  # refusals gather in one per minute
    kind: str = Field(sa_column=Column("kind", String, nullable=False))
    account: str | None = Field(default=None, sa_column=Column("account", String, nullable=True))
    method: str = Field(sa_column=Column("method", String, nullable=False))
    reason: str | None = Field(default=None, sa_column=Column("reason", String, nullable=True))
    by: str | None = Field(default=None, sa_column=Column("by", String, nullable=True))
    since: datetime = Field(sa_column=moment("since"))
    count: int = Field(sa_column=Column("count", Integer, nullable=False))
    taken: datetime | None = Field(default=None, sa_column=moment("taken", nullable=True))
    log_size: int | None = Field(default=None, sa_column=Column("log_size", BigInteger, nullable=True))
