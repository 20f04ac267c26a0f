"""Sessions: a browser in which somebody signed in, until they sign out, go away, or the day is over.

Invariants:
- A session's id is made when somebody signs in, is sent to that browser only, and is kept as a digest. Nothing that a
  browser brought from before is ever turned into a session; what it had ends.
- A session counts while its account is active, for 30 minutes after the last request and 12 hours at most.
- Proving again who you are gives the session a new id: one that was copied before does not become a stronger one.
- When it was last used is written once a minute at most, so reading pages does not write.

Source: OWASP Session Management Cheat Sheet (length, rotation, idle and absolute ends).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, TypeAlias
from urllib.parse import quote

from fastapi import Depends, Request
from sqlalchemy import delete, update
from sqlmodel import Session, col, select

from admin_api.web.context import Viewer, Workplace, viewer, workplace
from admin_api.web.database import utc
from admin_api.web.language import _
from admin_api.web.problems import Problem
from admin_api.web.sign_in.accounts import ACTIVE
from admin_api.web.sign_in.errors import AccessRefused, NoSuch, SignInError
from admin_api.web.sign_in.recording import note_ended, note_granted
from admin_api.web.sign_in.secret_values import kept, new_secret
from admin_api.web.sign_in.tables import AccountRow, SessionRow
from audit import access

IDLE = timedelta(minutes=30)
LONGEST = timedelta(hours=12)
RECENT = timedelta(minutes=5)
SEEN_EVERY = timedelta(minutes=1)
PASSKEY, OIDC, TOKEN = "passkey", "oidc", "token"  # a viewer's `via`

_BROWSERS = (("Edg", "Edge"), ("OPR/", "Opera"), ("Firefox/", "Firefox"), ("Chrome/", "Chrome"), ("Safari/", "Safari"))
_SYSTEMS = (("Windows", "Windows"), ("Android", "Android"), ("iPhone", "iPhone"), ("iPad", "iPad"), ("Mac OS", "macOS"),
            ("CrOS", "ChromeOS"), ("Linux", "Linux"))  # fmt: skip
_ID = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class SignedIn:
    """One of somebody's own sessions. `id` is no secret: it is the digest of one."""

    id: str
    via: str
    device: str
    began: datetime
    last_seen: datetime
    ends: datetime


@dataclass(frozen=True)
class Found:
    """What a cookie stands for: who is there, what their forms carry, and when they last proved who they are."""

    viewer: Viewer
    csrf: str
    confirmed: datetime


def begin_session(
    here: Workplace,
    account_id: str,
    *,
    via: str,
    device: str,
    earlier: str | None,
    proven: datetime | None = None,
) -> str:
    """Sign somebody in and note it for the log. `earlier`: what the browser's cookie held; that session ends.

    `proven`: when the person proved who they are; None is now for a passkey, and unknown for another sign-in.

    Returns: the secret for the cookie. Raises AccessRefused when the account is not active (any more).
    """
    now = here.now()
    secret = new_secret(here.random_bytes)
    with here.database.begin() as session:
        account = session.get(AccountRow, account_id, with_for_update=True)
        if account is None or account.state != ACTIVE:
            raise AccessRefused(
                _("this account is not active"),
                account=None if account is None else account.id,
                method=access.OIDC if via == OIDC else access.PASSKEY,
                reason=access.NOT_ACTIVE,
            )
        over = (col(SessionRow.ends) < now) | (col(SessionRow.last_seen) < now - IDLE)
        session.execute(delete(SessionRow).where(over))
        if earlier is not None:
            session.execute(delete(SessionRow).where(col(SessionRow.id) == kept(earlier)))
        session.add(
            SessionRow(
                id=kept(secret),
                account=account_id,
                via=via,
                csrf=new_secret(here.random_bytes),
                device=device,
                began=now,
                last_seen=now,
                confirmed=proven or (now if via == PASSKEY else now - LONGEST),
                ends=now + LONGEST,
            )
        )
        note_granted(session, here, account_id, access.OIDC if via == OIDC else access.PASSKEY, by=account_id)
    return secret


def find_session(here: Workplace, secret: str) -> Found | None:
    """Who a session's cookie stands for; None when it does not count (any more). One query, seldom a write."""
    now = here.now()
    with here.database.reading() as session:
        found = session.exec(
            select(SessionRow, AccountRow).where(SessionRow.id == kept(secret), SessionRow.account == AccountRow.id)
        ).first()
    if found is None:
        return None
    row, account = found
    last_seen = utc(row.last_seen)
    if account.state != ACTIVE or utc(row.ends) <= now or last_seen + IDLE <= now:
        return None
    if last_seen + SEEN_EVERY <= now:
        with here.database.begin() as session:
            session.execute(update(SessionRow).where(col(SessionRow.id) == row.id).values(last_seen=now))
    return Found(
        Viewer(
            account=account.id,
            name=account.name or account.id,
            organisation=account.organisation,
            role=account.role,
            hospital=account.hospital,
            via=row.via,
            session=row.id,
            language=account.language,
        ),
        row.csrf,
        utc(row.confirmed),
    )


def confirm_session(here: Workplace, viewer: Viewer) -> str:
    """Note that the viewer just proved again who they are. Returns: the session's new secret for the cookie.

    Raises SignInError when the session ended meanwhile.
    """
    secret, now = new_secret(here.random_bytes), here.now()
    with here.database.begin() as session:
        row = session.get(SessionRow, viewer.session, with_for_update=True)
        if row is None or row.account != viewer.account:
            raise SignInError(_("this session has ended; sign in again"))
        session.execute(
            update(SessionRow)
            .where(col(SessionRow.id) == viewer.session)
            .values(id=kept(secret), confirmed=now, last_seen=now)
        )
    return secret


def sessions_of(here: Workplace, account_id: str) -> list[SignedIn]:
    """An account's sessions that still count, the last used first."""
    now = here.now()
    query = (
        select(SessionRow)
        .where(SessionRow.account == account_id, SessionRow.ends > now, SessionRow.last_seen > now - IDLE)
        .order_by(col(SessionRow.last_seen).desc())
    )
    with here.database.reading() as session:
        return [
            SignedIn(row.id, row.via, row.device, utc(row.began), utc(row.last_seen), utc(row.ends))
            for row in session.exec(query)
        ]


def end_session(here: Workplace, account_id: str, session_id: str) -> None:
    """Sign one of an account's own sessions out. Raises SignInError when it has no such one."""
    with here.database.begin() as session:
        row = session.get(SessionRow, session_id) if _ID.fullmatch(session_id) else None
        if row is None or row.account != account_id:
            raise NoSuch(_("this account has no such session"))
        session.delete(row)


def end_every_session(here: Workplace, account_id: str) -> int:
    """Sign an account out everywhere. Returns: how many sessions ended."""
    with here.database.begin() as session:
        ended = _delete_all(session, account_id)
        note_ended(session, here, account_id, access.SIGN_OUT_EVERYWHERE, by=account_id)
    return ended


def device_of(user_agent: str | None) -> str:
    """What a person recognises a browser by, and no more of it than that: "Firefox, Linux"."""
    said = user_agent or ""
    names = [next((name for mark, name in known if mark in said), "") for known in (_BROWSERS, _SYSTEMS)]
    return ", ".join(name for name in names if name) or _("another program")


def is_recent(request: Request) -> bool:
    """Whether the one who asks has proven who they are within the last five minutes."""
    confirmed: datetime | None = getattr(request.state, "confirmed", None)
    return confirmed is not None and workplace(request).now() - confirmed <= RECENT


def require_recent(request: Request) -> None:
    """For what does lasting harm in wrong hands: raises Problem unless a person proved who they are just now."""
    who = viewer(request)
    if who.via == TOKEN:
        raise Problem(
            403, "person-needed", _("A person is needed"), _("this cannot be done with an API token"),
            _("sign in and do it in the pages"),
        )  # fmt: skip
    if not is_recent(request):
        target = request.url.path if request.method == "GET" else request.headers.get("x-page", "/account")
        raise Problem(
            403, "confirm-first", _("Confirm that it is you"),
            _("this needs your passkey again; the last time is more than five minutes ago"),
            _("confirm at %(address)s, then repeat it", address=f"/sign-in/confirm?next={quote(target, safe='/')}"),
        )  # fmt: skip


Recent: TypeAlias = Annotated[None, Depends(require_recent)]


def _delete_all(session: Session, account_id: str) -> int:
    result = session.execute(delete(SessionRow).where(col(SessionRow.account) == account_id))
    return int(getattr(result, "rowcount", 0))
