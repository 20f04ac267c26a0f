"""Somebody signed in: a real account and session in the app's database, and their cookie in a test's browser."""

from __future__ import annotations

import hashlib

from starlette.testclient import TestClient

from admin_api.web.context import HOSPITAL_CONTACT, Workplace
from admin_api.web.sign_in.accounts import ACTIVE, Account, account_of
from admin_api.web.sign_in.sessions import PASSKEY, begin_session, find_session
from admin_api.web.sign_in.site import SESSION, cookie_name, origin_of
from admin_api.web.sign_in.tables import AccountRow

ORGANISATIONS = {
    "consortium_admin": "bureau",
    "privacy_officer": "privacy board",
    "release_manager": "coding centre",
    "authority": "statistics office",
}


def account_for_tests(
    here: Workplace,
    role: str,
    *,
    hospital: str | None = None,
    organisation: str | None = None,
    account: str | None = None,
    state: str = ACTIVE,
) -> Account:
    """An account of this role; the same one for the same arguments. `account` is its id, if it matters."""
    if role == HOSPITAL_CONTACT:
        hospital = hospital or "amstel"
        organisation = organisation or hospital
    organisation = organisation or ORGANISATIONS[role]
    digest = hashlib.sha256(f"{role} {hospital} {organisation}".encode()).hexdigest()
    account_id = account or f"{'contact' if role == HOSPITAL_CONTACT else 'person'}-{digest[:16]}"
    with here.database.begin() as session:
        row = session.get(AccountRow, account_id)
        if row is None:
            row = AccountRow(
                id=account_id,
                name=f"{role.replace('_', ' ').title()} of {organisation}",
                language="en",
                organisation=organisation,
                role=role,
                hospital=hospital,
                state=state,
                handle=here.random_bytes(32),
                made=here.now(),
            )
            session.add(row)
    return account_of(here.database, account_id)


def sign_in_for_tests(
    client: TestClient,
    here: Workplace,
    role: str,
    *,
    hospital: str | None = None,
    organisation: str | None = None,
    account: str | None = None,
    via: str = PASSKEY,
) -> Account:
    """Sign somebody of this role in. The client's requests then carry the session, Origin and the CSRF token.

    A session begun like this is recent: what asks for the passkey again is allowed for five minutes.
    """
    somebody = account_for_tests(here, role, hospital=hospital, organisation=organisation, account=account)
    secret = begin_session(here, somebody.id, via=via, device="a test", earlier=None, proven=here.now())
    found = find_session(here, secret)
    assert found is not None
    client.cookies.set(cookie_name(here.settings, SESSION), secret)
    client.headers.update({"Origin": origin_of(here.settings), "X-CSRF-Token": found.csrf})
    return somebody
