"""People as others read them: the account, who may sign with which certificate, and what a passkey still waits for.

Somebody with a key in a file needs no account, and somebody with an account may have no certificate yet; both are here.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from pydantic import BaseModel, Field
from sqlmodel import col, select

from admin_api.errors import NotKnown
from admin_api.reading import certificates as held
from admin_api.reading import logbook
from admin_api.web.certificates import requests
from admin_api.web.certificates.models import HeldCertificate
from admin_api.web.certificates.tables import RequestRow
from admin_api.web.certificates.view import RequestLine, request_line
from admin_api.web.context import Viewer, Workplace
from admin_api.web.language import _, ngettext
from admin_api.web.problems import not_found
from admin_api.web.sign_in.accounts import ACTIVE, Account, seen
from admin_api.web.sign_in.passkeys import Passkey, passkeys_of
from admin_api.web.sign_in.tables import AccountRow, PasskeyRow
from admin_api.web.waiting import Waiting
from audit.certificates import CONSORTIUM_ADMIN, PEOPLE

SIGNS, WAITS, CANNOT = "signs", "waits", "cannot"


class PersonLine(BaseModel):
    """Somebody of the consortium."""

    person: str = Field(examples=["person-00112233aabbccdd"])
    name: str = Field(description="the id where the name was erased")
    organisation: str
    roles: list[str] = Field(examples=[["privacy_officer"]])
    account: str | None = Field(examples=["active"], description="state of the account; null: none")
    signs: str = Field(examples=["signs"], description="signs, waits (for a certificate), or cannot")
    until: datetime | None = Field(description="end of the certificate they sign with")
    days: int | None


class PasskeyLine(BaseModel):
    """A passkey, and whether its owner can sign with it."""

    credential: str
    name: str
    made: datetime
    fingerprint: str = Field(description="of its key")
    certificate: str | None = Field(description="digest; null: none yet")
    state: str | None = Field(description="of that certificate")
    until: datetime | None
    request: str | None = Field(description="id of the open request")


class PersonPage(BaseModel):
    """One person."""

    person: str
    name: str
    organisation: str
    roles: list[str]
    account: str | None
    sentence: str
    signs: str
    certificates: list[HeldCertificate]
    passkeys: list[PasskeyLine] = Field(description="shown to the person and to consortium admins")
    requests: list[RequestLine]
    decisions: int
    erased: bool


def listed(here: Workplace) -> list[PersonLine]:
    """Everybody of the four roles, by name. A consortium has some dozens of them."""
    now = here.now()
    lines: dict[str, PersonLine] = {}
    after: str | None = None
    while True:
        page = held.people(here.reading, now=now, limit=200, after=after)
        for each in page.items:
            good = [one for one in each.certificates if one.state == held.GOOD]
            last = max(good, key=lambda one: one.not_after, default=None)
            lines[each.person] = PersonLine(
                person=each.person,
                name=each.name,
                organisation=each.organisation,
                roles=sorted({one.role for one in (good or each.certificates)}),
                account=None,
                signs=SIGNS if good else CANNOT,
                until=last.not_after if last else None,
                days=last.days if last else None,
            )
        after = page.after
        if after is None:
            break
    with here.database.reading() as session:
        accounts = session.exec(select(AccountRow).where(col(AccountRow.role).in_(PEOPLE))).all()
        with_passkeys = set(session.exec(select(PasskeyRow.account).distinct()).all())
    for row in accounts:
        line = lines.get(row.id)
        if line is None:
            lines[row.id] = PersonLine(
                person=row.id,
                name=row.name or row.id,
                organisation=row.organisation,
                roles=[row.role],
                account=row.state,
                signs=WAITS if row.id in with_passkeys and row.state == ACTIVE else CANNOT,
                until=None,
                days=None,
            )
        else:
            line.account = row.state
    return sorted(lines.values(), key=lambda line: (line.name.casefold(), line.person))


def page_of(here: Workplace, person: str, viewer: Viewer) -> PersonPage:
    """One person. Raises Problem 404."""
    now = here.now()
    account = _account(here, person)
    try:
        known: held.Person | None = held.person(here.reading, person, now=now)
    except NotKnown:
        known = None
    if known is None and account is None:
        raise not_found(f"there is nobody {person} here")
    private = viewer.account == person or viewer.role == CONSORTIUM_ADMIN
    asked = requests.of_holder(here, requests.PASSKEY, person)
    passkeys = passkey_lines(here, person, asked) if account is not None and private else []
    certificates = held.of_holder(here.reading, person, now=now)
    good = [each for each in certificates if each.state == held.GOOD]
    name = known.name if known is not None else (account.called if account else person)
    roles = sorted({each.role for each in (good or certificates)} | ({account.role} if account else set()))
    return PersonPage(
        person=person,
        name=name,
        organisation=known.organisation if known is not None else account.organisation if account else "",
        roles=roles,
        account=account.state if account else None,
        sentence=_sentence(name, account, good, passkeys, own=viewer.account == person),
        signs=SIGNS if good else WAITS if any(each.certificate is None for each in passkeys) else CANNOT,
        certificates=[HeldCertificate.model_validate(each) for each in certificates],
        passkeys=passkeys,
        requests=[request_line(here, row) for row in asked] if private else [],
        decisions=known.decisions if known is not None else 0,
        erased=known.erased if known is not None else account is not None and account.name is None,
    )


def passkey_lines(here: Workplace, person: str, asked: Sequence[RequestRow]) -> list[PasskeyLine]:
    """A person's passkeys with their certificates and open requests, oldest first."""
    passkeys = passkeys_of(here.database, person)
    certificates = held.keys(here.reading, [each.key_digest for each in passkeys], now=here.now()) if passkeys else {}
    opened = {row.fingerprint: row.id for row in asked if row.state == requests.OPEN}
    return [_passkey_line(each, certificates.get(each.key_digest), opened.get(each.key_digest)) for each in passkeys]


def _passkey_line(passkey: Passkey, certificate: held.Certificate | None, request: str | None) -> PasskeyLine:
    return PasskeyLine(
        credential=passkey.credential_id,
        name=passkey.name,
        made=passkey.made,
        fingerprint=passkey.key_digest,
        certificate=certificate.digest if certificate else None,
        state=certificate.state if certificate else None,
        until=certificate.not_after if certificate else None,
        request=request,
    )


def _account(here: Workplace, person: str) -> Account | None:
    with here.database.reading() as session:
        row = session.get(AccountRow, person)
        return None if row is None or row.role not in PEOPLE else seen(row)


def _sentence(
    name: str, account: Account | None, good: list[held.Certificate], passkeys: list[PasskeyLine], *, own: bool
) -> str:
    waiting = [each for each in passkeys if each.certificate is None]
    if own:
        if good and waiting:
            return ngettext(
                "You can sign. %(num)s other passkey of yours cannot yet.",
                "You can sign. %(num)s other passkeys of yours cannot yet.", len(waiting),
            )  # fmt: skip
        if good:
            return _("You can sign.")
        if any(each.request for each in waiting):
            return _("You cannot sign yet: the request for your certificate waits for others.")
        return _("You cannot sign yet: ask for a certificate for your passkey.") if waiting else _("You cannot sign.")
    if good:
        return _("%(name)s can sign.", name=name)
    if account is not None and account.state != ACTIVE:
        return _("%(name)s cannot sign: the account is %(state)s.", name=name, state=_(account.state))
    if waiting:
        return _("%(name)s cannot sign yet: a passkey waits for a certificate.", name=name)
    return _("%(name)s cannot sign.", name=name)


def list_sentence(lines: list[PersonLine]) -> str:
    """The list's sentence."""
    signing = sum(1 for line in lines if line.signs == SIGNS)
    waiting = sum(1 for line in lines if line.signs == WAITS)
    said = ngettext("%(num)s person can sign.", "%(num)s people can sign.", signing)
    if waiting:
        said += " " + ngettext("%(num)s waits for a certificate.", "%(num)s wait for a certificate.", waiting)
    return said


def history(here: Workplace, person: str) -> list[dict[str, object]]:
    """What the log has about a person lately, in words."""
    found = logbook.entries(here.reading, person=person, limit=20)
    return [{"when": each.time, "words": each.words, "entry": each.index} for each in found.items]


def waiting(here: Workplace, viewer: Viewer) -> list[Waiting]:
    """One's own passkey that cannot sign yet."""
    if viewer.role not in PEOPLE:
        return []
    asked = requests.of_holder(here, requests.PASSKEY, viewer.account)
    lines = passkey_lines(here, viewer.account, asked)
    if not lines or any(each.state == held.GOOD for each in lines):
        return []
    if any(each.request for each in lines):
        return []
    return [Waiting(_("Ask for a certificate, so that you can sign."), f"/people/{viewer.account}", urgent=True)]
