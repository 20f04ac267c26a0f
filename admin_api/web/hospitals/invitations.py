"""Inviting a hospital: its name, its organisation, and somebody who speaks for it.

The name is the one its certificate will carry; it is a file name too, in kits and in the consortium's folder. The
contact gets an account of the role hospital contact and a one-time link; the link is shown once, to whoever invites.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from sqlalchemy.exc import IntegrityError
from sqlmodel import col, select

from admin_api.reading import certificates as held
from admin_api.web.certificates.tables import InvitationRow
from admin_api.web.context import HOSPITAL_CONTACT, Viewer, Workplace
from admin_api.web.database import utc
from admin_api.web.language import N_
from admin_api.web.preconditions import check_match, etag_of
from admin_api.web.problems import Problem, not_found
from admin_api.web.sign_in.accounts import ENDED, Invitation, end_account, invite, new_link
from admin_api.web.sign_in.tables import AccountRow
from audit.certificates import CLIENT

SITE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}", re.ASCII)  # what NVFlare's participants and our paths take
RESERVED = frozenset({"new"})  # paths of ours
ORGANISATION = re.compile(r"[A-Za-z0-9_]{1,100}", re.ASCII)  # what NVFlare's kits take


def etag(row: InvitationRow) -> str:
    """The invitation's entity tag."""
    return etag_of(row.site, row.version)


def find(here: Workplace, site: str) -> InvitationRow:
    """The invitation of a hospital. Raises Problem 404."""
    row = find_or_none(here, site)
    if row is None:
        raise not_found(f"nobody invited a hospital {site} here")
    return row


def find_or_none(here: Workplace, site: str) -> InvitationRow | None:
    """The invitation of a hospital, if it was invited in these pages."""
    with here.database.reading() as session:
        return session.get(InvitationRow, site)


def listed(here: Workplace) -> Sequence[InvitationRow]:
    """Invitations that stand, the newest first."""
    with here.database.reading() as session:
        return session.exec(
            select(InvitationRow)
            .where(col(InvitationRow.withdrawn).is_(None))
            .order_by(col(InvitationRow.invited).desc(), InvitationRow.site)
        ).all()


def invite_hospital(
    here: Workplace, *, site: str, organisation: str, contact: str, language: str, by: Viewer
) -> tuple[InvitationRow, Invitation]:
    """Invite a hospital; a withdrawn invitation is renewed. Returns: the invitation, and the contact's link.

    Raises: Problem for a name that is taken or cannot be one, SignInError for a contact who cannot have an account.
    """
    site, organisation = site.strip(), organisation.strip()
    if SITE.fullmatch(site) is None or site.casefold() in RESERVED:
        raise Problem(422, "site-name", N_("Not a hospital's name"),
                      f"{site!r}: expected up to 63 letters, digits, _ and - beginning with a letter or digit",
                      N_("choose a short name; it will be on the certificate"))  # fmt: skip
    if ORGANISATION.fullmatch(organisation) is None:
        raise Problem(422, "organisation", N_("Not an organisation's name"),
                      f"{organisation!r}: expected letters, digits and _; the hospital's kit takes no other",
                      N_("spell it with these"))  # fmt: skip
    taken = held.of_holder(here.reading, site, now=here.now())
    if any(each.role != CLIENT for each in taken):
        raise Problem(
            409, "name-taken", N_("The name is taken"), f"{site} is not a hospital here", N_("choose another name")
        )
    if taken and taken[0].organisation != organisation:
        raise Problem(409, "name-taken", N_("The name is taken"),
                      f"{site} holds a certificate already, of {taken[0].organisation}",
                      N_("choose another name, or the same organisation to give that hospital a contact"))  # fmt: skip
    with here.database.begin() as session:
        for other in session.exec(select(InvitationRow).where(col(InvitationRow.withdrawn).is_(None))):
            if other.site.casefold() == site.casefold():
                raise _invited_already(other)
    made = invite(
        here, name=contact, role=HOSPITAL_CONTACT, organisation=organisation, hospital=site, language=language,
        by=by.account,
    )  # fmt: skip
    try:
        row = _write(here, site, organisation, made.account.id, by)
    except (IntegrityError, _AlreadyThere):  # somebody else invited it in this moment
        end_account(here, made.account.id, by=by.account)
        raise _invited_already(find(here, site)) from None
    return row, made


class _AlreadyThere(Exception):
    pass


def _write(here: Workplace, site: str, organisation: str, contact: str, by: Viewer) -> InvitationRow:
    with here.database.begin() as session:
        row = session.get(InvitationRow, site, with_for_update=True)
        if row is not None and row.withdrawn is None:
            raise _AlreadyThere
        row = row or InvitationRow(
            site=site, organisation="", contact="", invited=here.now(), invited_by=by.account, version=0
        )
        row.organisation, row.contact = organisation, contact
        row.invited, row.invited_by, row.withdrawn = here.now(), by.account, None
        row.version += 1
        session.add(row)
    return row


def _invited_already(row: InvitationRow) -> Problem:
    return Problem(409, "invited-already", N_("Invited already"),
                   f"{row.site} was invited on {utc(row.invited):%Y-%m-%d}",
                   N_("make a new link for its contact on its page"))  # fmt: skip


def change(here: Workplace, site: str, *, organisation: str, if_match: str | None) -> InvitationRow:
    """Correct the organisation before the hospital has a certificate. Raises Problem."""
    organisation = organisation.strip()
    if ORGANISATION.fullmatch(organisation) is None:
        raise Problem(422, "organisation", N_("Not an organisation's name"),
                      f"{organisation!r}: expected letters, digits and _", N_("spell it with these"))  # fmt: skip
    if held.of_holder(here.reading, site, now=here.now()):
        raise Problem(409, "certified", N_("The hospital has a certificate"), "its organisation stands in it",
                      N_("a hospital of another organisation is invited under another name"))  # fmt: skip
    with here.database.begin() as session:
        row = session.get(InvitationRow, site, with_for_update=True)
        if row is None:
            raise not_found(f"nobody invited a hospital {site} here")
        check_match(if_match, etag(row))
        _check_standing(row)
        row.organisation = organisation
        row.version += 1
        session.add(row)
    return row


def link_again(here: Workplace, site: str, *, by: Viewer, if_match: str | None) -> tuple[InvitationRow, Invitation]:
    """Another one-time link for the contact; an earlier one ends. Raises Problem, SignInError."""
    with here.database.begin() as session:
        row = session.get(InvitationRow, site, with_for_update=True)
        if row is None:
            raise not_found(f"nobody invited a hospital {site} here")
        check_match(if_match, etag(row))
        _check_standing(row)
        row.version += 1
        session.add(row)
    return row, new_link(here, row.contact, by=by.account)


def withdraw(here: Workplace, site: str, *, by: Viewer, if_match: str | None) -> InvitationRow:
    """Take an invitation back before the hospital has a certificate; its contact's account ends. Raises Problem."""
    if held.of_holder(here.reading, site, now=here.now()):
        raise Problem(409, "certified", N_("The hospital has a certificate"), f"{site} has joined already",
                      N_("suspend or revoke its certificates instead"))  # fmt: skip
    with here.database.begin() as session:
        row = session.get(InvitationRow, site, with_for_update=True)
        if row is None:
            raise not_found(f"nobody invited a hospital {site} here")
        check_match(if_match, etag(row))
        _check_standing(row)
        row.withdrawn = here.now()
        row.version += 1
        session.add(row)
        account = session.get(AccountRow, row.contact)
        ended = account is None or account.state == ENDED
    if not ended:
        end_account(here, row.contact, by=by.account)
    return row


def _check_standing(row: InvitationRow) -> None:
    if row.withdrawn is not None:
        raise Problem(409, "withdrawn", N_("The invitation was withdrawn"),
                      f"{row.site} is not invited any more since {utc(row.withdrawn):%Y-%m-%d}", N_("invite it again")
                      )  # fmt: skip


def contacts_of(here: Workplace, site: str) -> Sequence[AccountRow]:
    """The accounts that speak for a hospital, those that have ended aside."""
    with here.database.reading() as session:
        return session.exec(
            select(AccountRow)
            .where(AccountRow.hospital == site, AccountRow.role == HOSPITAL_CONTACT, AccountRow.state != ENDED)
            .order_by(col(AccountRow.made))
        ).all()
