"""Challenges: something random that a browser must answer, once, soon, and from where it was asked.

Invariants:
- A challenge is taken at most once, by whichever request comes first, also with several processes.
- Only the browser that asked can answer: it holds the ceremony's secret in a cookie, we hold its digest.
- A challenge serves one purpose, so an answer made for one is no answer for another.

Source: WebAuthn Level 3 section 13.4.3 (challenges).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import delete
from sqlmodel import Session, col

from admin_api.web.context import Workplace
from admin_api.web.database import utc
from admin_api.web.language import _
from admin_api.web.sign_in.errors import AccessRefused
from admin_api.web.sign_in.secret_values import kept, new_secret
from admin_api.web.sign_in.tables import CeremonyRow
from audit import access

HOLDS = timedelta(minutes=5)
CHALLENGE_SIZE = 32  # bytes

SIGN_IN = "sign-in"
CONFIRM = "confirm"  # the one who is signed in proves it again
REGISTER = "register"  # a new passkey; its account is known by a link or a session
PROVE = "prove"  # the new passkey signs for the first time
ELSEWHERE = "elsewhere"  # signing in at the organisation's own sign-in


@dataclass(frozen=True)
class Ceremony:
    """A challenge that was asked. `secret` goes into the browser's cookie and nowhere else."""

    secret: str
    purpose: str
    challenge: bytes
    account: str | None
    kept: Mapping[str, Any]


def begin_ceremony(
    session: Session,
    here: Workplace,
    purpose: str,
    *,
    challenge: bytes | None = None,
    account: str | None = None,
    keep: Mapping[str, Any] | None = None,
    holds: timedelta = HOLDS,
) -> Ceremony:
    """Ask a challenge, random unless one is given. Challenges whose time is over are swept away."""
    now = here.now()
    session.execute(delete(CeremonyRow).where(col(CeremonyRow.ends) < now))
    ceremony = Ceremony(
        new_secret(here.random_bytes),
        purpose,
        here.random_bytes(CHALLENGE_SIZE) if challenge is None else challenge,
        account,
        dict(keep or {}),
    )
    session.add(
        CeremonyRow(
            id=kept(ceremony.secret),
            purpose=purpose,
            challenge=ceremony.challenge,
            account=account,
            kept=json.dumps(ceremony.kept),
            ends=now + holds,
        )
    )
    return ceremony


def take_ceremony(here: Workplace, secret: str | None, purpose: str, *, method: str) -> Ceremony:
    """The challenge that this browser answers; it cannot be answered again.

    Taking is a transaction of its own: whatever happens to the answer, the challenge is gone.
    Raises AccessRefused when there is none, its time is over, or it was asked for something else.
    """
    row: CeremonyRow | None = None
    if secret:
        with here.database.begin() as session:
            found = session.get(CeremonyRow, kept(secret), with_for_update=True)
            if found is not None and found.purpose == purpose:
                session.delete(found)
                row = found
    if secret is None or row is None or utc(row.ends) < here.now():
        raise AccessRefused(
            _("this took too long, was answered already, or was begun in another window; begin again"),
            account=None if row is None else row.account,
            method=method,
            reason=access.STALE,
        )
    return Ceremony(secret, purpose, row.challenge, row.account, json.loads(row.kept))
