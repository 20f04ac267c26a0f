"""Accounts: who may sign in, as what, and until when.

Invariants:
- An account is a person id or a contact id. The id, role, organisation and hospital stay; name, passkeys and the
  subject at another sign-in are personal data and can be erased.
- A person has one account. Somebody whom the log knows already gets the id that their certificate carries.
- Only an active account has sessions and tokens that count; whatever ends it ends them in the same moment.
- The last active consortium admin cannot be locked or ended here: nobody could let others in again. (Who holds the
  consortium's folder can always make a link.)

An account is no permission to sign: that takes a certificate for its passkey, which the consortium's approvals decide.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import delete, func
from sqlmodel import Session, col, select

from admin_api.people import disclosed_now
from admin_api.web.context import HOSPITAL_CONTACT, Workplace
from admin_api.web.database import Database, utc
from admin_api.web.language import LANGUAGES, _
from admin_api.web.sign_in.errors import NoSuch, SignInError
from admin_api.web.sign_in.recording import note_ended, note_granted
from admin_api.web.sign_in.secret_values import kept, new_secret
from admin_api.web.sign_in.tables import AccountRow, CeremonyRow, LinkRow, PasskeyRow, SessionRow, TokenRow
from audit import access
from audit.access import ACCOUNT_ID
from audit.certificates import CONSORTIUM_ADMIN, PEOPLE, person_id

INVITED, ACTIVE, LOCKED, ENDED = "invited", "active", "locked", "ended"
STATES = (INVITED, ACTIVE, LOCKED, ENDED)
ROLES = (*sorted(PEOPLE), HOSPITAL_CONTACT)
LINK_HOLDS = timedelta(hours=72)
HANDLE_SIZE = 32  # bytes
MAX_NAME = 100  # characters
SITE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,99}", re.ASCII)


@dataclass(frozen=True)
class Account:
    """An account as others may see it. `name` is personal data; None once it was erased."""

    id: str
    name: str | None
    language: str
    organisation: str
    role: str
    hospital: str | None
    state: str
    made: datetime
    locked_until: datetime | None  # by failed attempts; `state` says whether an admin locked it
    elsewhere: bool  # signs in at the organisation's own sign-in

    @property
    def called(self) -> str:
        """The name, or the id where it was erased."""
        return self.name or self.id


@dataclass(frozen=True)
class Invitation:
    """A one-time link, shown once: whoever opens it registers a passkey for the account."""

    account: Account
    link: str
    ends: datetime


def account_of(database: Database, account_id: str) -> Account:
    """One account. Raises SignInError when there is none."""
    with database.reading() as session:
        return seen(_row(session, account_id))


def accounts(
    here: Workplace, *, limit: int = 50, after: str | None = None, state: str | None = None
) -> tuple[list[Account], int]:
    """Accounts by id, after one, and how many there are at all (of that state)."""
    query = select(AccountRow)
    count = select(func.count()).select_from(AccountRow)
    if state is not None:
        query, count = query.where(AccountRow.state == state), count.where(col(AccountRow.state) == state)
    if after is not None:
        query = query.where(AccountRow.id > after)
    with here.database.reading() as session:
        rows = session.exec(query.order_by(AccountRow.id).limit(limit)).all()
        return [seen(row) for row in rows], session.exec(count).one()


def named(here: Workplace, name: str, role: str, organisation: str) -> Account:
    """The account of somebody, by name. Raises NoSuch when there is none that has not ended."""
    query = select(AccountRow).where(AccountRow.organisation == organisation, AccountRow.role == role)
    with here.database.reading() as session:
        for row in session.exec(query.where(AccountRow.state != ENDED)):
            if row.name is not None and row.name.casefold() == name.strip().casefold():
                return seen(row)
    raise NoSuch(f"{name} ({role}, {organisation}) has no account; leave --new-link out to make one")


def invite(
    here: Workplace,
    *,
    name: str,
    role: str,
    organisation: str,
    hospital: str | None = None,
    language: str = "en",
    by: str | None = None,
) -> Invitation:
    """Make an account and its one-time link. `by` is the inviting account; None: in the consortium's folder.

    Raises SignInError for fields that cannot be, and for somebody who has an account already.
    """
    name, organisation = name.strip(), organisation.strip()
    _check(name=name, role=role, organisation=organisation, hospital=hospital, language=language)
    account_id = _id_for(here, name, role, organisation)
    now = here.now()
    with here.database.begin() as session:
        same = select(AccountRow).where(AccountRow.organisation == organisation, AccountRow.state != ENDED)
        for row in session.exec(same):
            if row.name is not None and row.name.casefold() == name.casefold():
                raise SignInError(
                    _("%(who)s has an account already, %(id)s; make a new link for it", who=name, id=row.id)
                )
        if session.get(AccountRow, account_id) is not None:
            raise SignInError(
                _(
                    "the log knows a %(who)s, %(id)s, who has an account already: make a new link for it, or, for "
                    "somebody else of that name, add what tells the two apart",
                    who=name,
                    id=account_id,
                )
            )
        account = AccountRow(
            id=account_id,
            name=name,
            language=language,
            organisation=organisation,
            role=role,
            hospital=hospital,
            state=INVITED,
            handle=here.random_bytes(HANDLE_SIZE),
            made=now,
        )
        session.add(account)
        session.flush()
        return _link(session, here, account, by)


def new_link(here: Workplace, account_id: str, *, by: str | None) -> Invitation:
    """Another one-time link for an account, for instance when its passkeys are lost. An earlier link ends.

    Raises SignInError for an account that is locked or ended.
    """
    with here.database.begin() as session:
        account = _row(session, account_id)
        if account.state not in (INVITED, ACTIVE):
            raise SignInError(
                _("%(who)s is locked or has ended; unlock the account first, or invite anew", who=_called(account))
            )
        return _link(session, here, account, by)


def lock(here: Workplace, account_id: str, *, by: str | None) -> None:
    """Nobody gets in with this account until it is unlocked; sessions and tokens end now. Raises SignInError."""
    with here.database.begin() as session:
        account = _row(session, account_id)
        if account.state != ACTIVE:
            raise SignInError(_("%(who)s is not active; only an active account can be locked", who=_called(account)))
        _keep_an_admin(session, account)
        account.state = LOCKED
        session.add(account)
        close(session, here, account.id)
        note_ended(session, here, account.id, access.LOCKED, by=by)


def unlock(here: Workplace, account_id: str, *, by: str | None) -> None:
    """Let a locked account in again, also one locked by failed attempts. Raises SignInError."""
    with here.database.begin() as session:
        account = _row(session, account_id)
        if account.state != LOCKED and account.locked_until is None:
            raise SignInError(_("%(who)s is not locked", who=_called(account)))
        if account.state == LOCKED:
            account.state = ACTIVE
        account.failures, account.locked_until = 0, None
        session.add(account)
        note_granted(session, here, account.id, access.UNLOCKED, by=by)


def end_account(here: Workplace, account_id: str, *, by: str | None) -> None:
    """End an account for good; sessions, tokens and links end now. Raises SignInError."""
    with here.database.begin() as session:
        account = _row(session, account_id)
        if account.state == ENDED:
            raise SignInError(_("%(who)s has ended already", who=_called(account)))
        _keep_an_admin(session, account)
        account.state = ENDED
        session.add(account)
        close(session, here, account.id)
        note_ended(session, here, account.id, access.ACCOUNT_ENDED, by=by)


def erase(here: Workplace, account_id: str) -> None:
    """Forget what is personal about an ended account: name, passkeys, devices, the subject elsewhere.

    The name beside the log is another matter (`zegel audit erase`). Raises SignInError for one that has not ended.
    """
    with here.database.begin() as session:
        account = _row(session, account_id)
        if account.state != ENDED:
            raise SignInError(_("%(who)s has not ended; end the account first, then erase it", who=_called(account)))
        account.name = account.issuer = account.subject = None
        account.handle = here.random_bytes(HANDLE_SIZE)
        session.add(account)
        for table in (PasskeyRow, SessionRow, TokenRow, LinkRow, CeremonyRow):
            session.execute(delete(table).where(table.account == account_id))  # type: ignore[arg-type]


def choose_language(here: Workplace, account_id: str, language: str) -> None:
    """The language that the account's owner reads. Raises SignInError for one we do not speak."""
    if language not in LANGUAGES:
        raise SignInError(f"language {language!r}: expected {' or '.join(LANGUAGES)}")
    with here.database.begin() as session:
        account = _row(session, account_id)
        account.language = language
        session.add(account)


def close(session: Session, here: Workplace, account_id: str) -> None:
    """Within a transaction: end an account's sessions, tokens, links and unanswered challenges."""
    for table in (SessionRow, LinkRow, CeremonyRow):
        session.execute(delete(table).where(table.account == account_id))  # type: ignore[arg-type]
    for token in session.exec(select(TokenRow).where(TokenRow.account == account_id, col(TokenRow.revoked).is_(None))):
        token.revoked = here.now()
        session.add(token)


def seen(row: AccountRow) -> Account:
    """The account of a row."""
    return Account(
        id=row.id,
        name=row.name,
        language=row.language,
        organisation=row.organisation,
        role=row.role,
        hospital=row.hospital,
        state=row.state,
        made=utc(row.made),
        locked_until=None if row.locked_until is None else utc(row.locked_until),
        elsewhere=row.issuer is not None,
    )


def new_account_id(here: Workplace, role: str) -> str:
    """A fresh id for an account of this role."""
    if role == HOSPITAL_CONTACT:
        return f"contact-{here.random_bytes(8).hex()}"
    return person_id(here.random_bytes(8))


def _id_for(here: Workplace, name: str, role: str, organisation: str) -> str:
    """The id that the log knows this person by, or a fresh one."""
    if role == HOSPITAL_CONTACT:
        return new_account_id(here, role)
    if ACCOUNT_ID.fullmatch(name):
        raise SignInError(f"{name} is an id; an account is made for a name")
    for known, called in disclosed_now(here.home).names.items():
        if called.casefold() == name.casefold():
            return known
    return new_account_id(here, role)


def _check(*, name: str, role: str, organisation: str, hospital: str | None, language: str) -> None:
    for what, value in (("name", name), ("organisation", organisation)):
        if not value or not value.isprintable() or len(value) > MAX_NAME:
            raise SignInError(f"{what} {value!r}: expected 1 to {MAX_NAME} printable characters")
    if role not in ROLES:
        raise SignInError(f"role {role!r}: expected one of {', '.join(ROLES)}")
    if language not in LANGUAGES:
        raise SignInError(f"language {language!r}: expected {' or '.join(LANGUAGES)}")
    if (role == HOSPITAL_CONTACT) != (hospital is not None):
        raise SignInError(_("a hospital contact, and nobody else, belongs to a hospital: name the hospital's site"))
    if hospital is not None and SITE.fullmatch(hospital) is None:
        raise SignInError(f"hospital {hospital!r}: expected a site's name, letters, digits and . _ @ -")


def _keep_an_admin(session: Session, account: AccountRow) -> None:
    if account.role != CONSORTIUM_ADMIN or account.state != ACTIVE:
        return
    admins = select(AccountRow.id).where(AccountRow.role == CONSORTIUM_ADMIN, AccountRow.state == ACTIVE)
    others = [each for each in session.exec(admins.with_for_update()) if each != account.id]
    if not others:
        raise SignInError(
            _(
                "%(who)s is the only active consortium admin; invite another one and let them enrol first",
                who=_called(account),
            )
        )


def _link(session: Session, here: Workplace, account: AccountRow, by: str | None) -> Invitation:
    now = here.now()
    session.execute(delete(LinkRow).where((col(LinkRow.account) == account.id) | (col(LinkRow.ends) < now)))
    secret, ends = new_secret(here.random_bytes), now + LINK_HOLDS
    session.add(LinkRow(id=kept(secret), account=account.id, ends=ends))
    note_granted(session, here, account.id, access.INVITED, by=by)
    return Invitation(seen(account), f"{here.settings.public_url}/enrol#{secret}", ends)


def _row(session: Session, account_id: str) -> AccountRow:
    row = session.get(AccountRow, account_id)
    if row is None:
        raise NoSuch(_("there is no account %(id)s", id=account_id))
    return row


def _called(account: AccountRow) -> str:
    return account.name or account.id
