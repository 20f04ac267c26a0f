"""API tokens: how machines ask, for as long and as much as somebody lets them.

A token is `zegel_` and 256 random bits; it is shown once and kept as a digest. It may what its maker's role may, within
its scope, and nothing that needs a person: no signature, no account's passkeys or tokens. It ends with its maker's
account, when it is revoked, or after a year at most.

A scope is a list of route names (`hospitals.read`), `<area>:read` for what an area shows, `<area>:write` for what
changes something in it besides, or `*:read`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from fastapi import Request
from sqlalchemy import update
from sqlmodel import col, select

from admin_api.web.access import ACCESS
from admin_api.web.context import Viewer, Workplace
from admin_api.web.database import utc
from admin_api.web.language import _
from admin_api.web.problems import Problem
from admin_api.web.sign_in.accounts import ACTIVE
from admin_api.web.sign_in.csrf import SAFE
from admin_api.web.sign_in.errors import AccessRefused, NoSuch, SignInError
from admin_api.web.sign_in.recording import note_ended, note_granted
from admin_api.web.sign_in.secret_values import LENGTH, kept, new_secret
from admin_api.web.sign_in.sessions import SEEN_EVERY, TOKEN
from admin_api.web.sign_in.tables import AccountRow, TokenRow
from audit import access

PREFIX = "zegel_"
LONGEST = timedelta(days=366)
MOST = 20  # tokens of one account that count
PERSONAL = frozenset({"sign-in", "account", "accounts"})  # areas that no token enters


@dataclass(frozen=True)
class Token:
    """A token of somebody's, without its secret."""

    id: str
    name: str
    scope: tuple[str, ...]
    made: datetime
    ends: datetime
    last_used: datetime | None
    revoked: datetime | None

    def counts(self, now: datetime) -> bool:
        """Whether it lets anybody in."""
        return self.revoked is None and now < self.ends


def make_token(here: Workplace, who: Viewer, *, name: str, scope: Sequence[str], ends: datetime) -> tuple[Token, str]:
    """A new token and its secret, which nobody can show again.

    Raises SignInError for a scope that names nothing or somebody's account, or an end that is past or too far.
    """
    now = here.now()
    if not now < ends <= now + LONGEST:
        raise SignInError(_("a token ends within %(days)s days from now; choose another last day", days=LONGEST.days))
    wanted = tuple(dict.fromkeys(scope))
    check_wanted(wanted)
    secret = PREFIX + new_secret(here.random_bytes)
    row = TokenRow(
        id=f"token-{here.random_bytes(8).hex()}",
        digest=kept(secret),
        account=who.account,
        name=name,
        scope=" ".join(wanted),
        made=now,
        ends=ends,
    )
    with here.database.begin() as session:
        session.get(AccountRow, who.account, with_for_update=True)
        mine = select(TokenRow).where(
            TokenRow.account == who.account, col(TokenRow.revoked).is_(None), TokenRow.ends > now
        )
        if len(session.exec(mine).all()) >= MOST:
            raise SignInError(_("%(most)s tokens are enough; revoke one first", most=MOST))
        session.add(row)
        note_granted(session, here, who.account, access.TOKEN_MADE, by=who.account)
    return _seen(row), secret


def find_token(here: Workplace, secret: str) -> tuple[Viewer, frozenset[str]]:
    """Who a token stands for, and its scope.

    Raises AccessRefused with one text for a token that is unknown, over or revoked.
    """
    now = here.now()
    found: tuple[TokenRow, AccountRow] | None = None
    if len(secret) == len(PREFIX) + LENGTH and secret.startswith(PREFIX):
        with here.database.reading() as session:
            found = session.exec(
                select(TokenRow, AccountRow).where(TokenRow.digest == kept(secret), TokenRow.account == AccountRow.id)
            ).first()
    if found is None or found[0].revoked is not None or utc(found[0].ends) <= now or found[1].state != ACTIVE:
        raise AccessRefused(
            _("the API token is unknown, has ended or was revoked"),
            account=None if found is None else found[1].id,
            method=access.TOKEN,
            reason=access.UNKNOWN if found is None else access.NOT_ACTIVE,
        )
    row, account = found
    if row.last_used is None or utc(row.last_used) + SEEN_EVERY <= now:
        with here.database.begin() as session:
            session.execute(update(TokenRow).where(col(TokenRow.id) == row.id).values(last_used=now))
    viewer = Viewer(
        account=account.id,
        name=account.name or account.id,
        organisation=account.organisation,
        role=account.role,
        hospital=account.hospital,
        via=TOKEN,
        session=row.id,
        language=account.language,
    )
    return viewer, frozenset(row.scope.split())


def tokens_of(here: Workplace, account_id: str) -> list[Token]:
    """An account's tokens, the newest first."""
    query = select(TokenRow).where(TokenRow.account == account_id).order_by(col(TokenRow.made).desc(), TokenRow.id)
    with here.database.reading() as session:
        return [_seen(row) for row in session.exec(query)]


def revoke_token(here: Workplace, account_id: str, token_id: str) -> None:
    """End one of an account's tokens now. Raises SignInError when it has no such one."""
    with here.database.begin() as session:
        row = session.get(TokenRow, token_id)
        if row is None or row.account != account_id:
            raise NoSuch(_("this account has no such token"))
        if row.revoked is None:
            row.revoked = here.now()
            session.add(row)
            note_ended(session, here, account_id, access.TOKEN_REVOKED, by=account_id)


def scopes_on_offer(role: str) -> list[str]:
    """The areas that a token of this role may be made for."""
    areas = sorted(
        {
            name.split(".")[0]
            for name, row in ACCESS.items()
            if row.roles is not None and role in row.roles and not name.endswith(".page")
        }
        - PERSONAL
    )
    return ["*:read", *(f"{area}:{way}" for area in areas for way in ("read", "write"))]


def check_scope(request: Request, name: str) -> None:
    """Raises Problem for a request with a token whose scope lacks route `name`."""
    scope: frozenset[str] | None = getattr(request.state, "scope", None)
    if scope is None:
        return
    area = name.split(".")[0]
    reads = request.method in SAFE and area not in PERSONAL and ({f"{area}:read", "*:read"} & scope)
    if not (name in scope or f"{area}:write" in scope or reads):
        raise Problem(403, "scope", "The token may not do this", f"{name} is outside the token's scope",
                      "make a token with this scope")  # fmt: skip


def check_wanted(scope: Sequence[str]) -> None:
    """Raises SignInError unless every item names a route or an area, and none an account's own things."""
    if not scope:
        raise SignInError(_("choose a scope for the token"))
    areas = {name.split(".")[0] for name in ACCESS}
    for item in scope:
        area, _colon, way = item.partition(":")
        known = item in ACCESS if not way else (area in areas and way in ("read", "write")) or item == "*:read"
        if not known:
            raise SignInError(f"scope {item!r}: expected a route's name, <area>:read, <area>:write or *:read")
        if item.split(".")[0].split(":")[0] in PERSONAL:
            raise SignInError(f"scope {item!r}: accounts are looked after by people, not by tokens")


def _seen(row: TokenRow) -> Token:
    return Token(
        id=row.id,
        name=row.name,
        scope=tuple(row.scope.split()),
        made=utc(row.made),
        ends=utc(row.ends),
        last_used=None if row.last_used is None else utc(row.last_used),
        revoked=None if row.revoked is None else utc(row.revoked),
    )
