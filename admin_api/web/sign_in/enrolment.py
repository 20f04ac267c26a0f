"""One-time links: from a link on paper or in a message to a passkey of the account.

The secret stands behind the `#` of the link, which browsers keep to themselves: it is in no server's log, and what
looks at links in messages beforehand does not use it up. Only a passkey that has signed uses the link up.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from admin_api.web.context import Workplace
from admin_api.web.database import utc
from admin_api.web.language import _
from admin_api.web.sign_in.accounts import ACTIVE, INVITED, Account, seen
from admin_api.web.sign_in.ceremonies import Ceremony
from admin_api.web.sign_in.errors import AccessRefused
from admin_api.web.sign_in.passkey_ceremonies import begin_registration
from admin_api.web.sign_in.secret_values import kept
from admin_api.web.sign_in.tables import AccountRow, LinkRow
from audit import access


def open_link(here: Workplace, secret: str) -> tuple[Account, Mapping[str, Any], Ceremony]:
    """Begin to register a passkey with a one-time link; the link stays good until that is done.

    Returns: the account, the options for `navigator.credentials.create`, and the ceremony.
    Raises AccessRefused, with one text for a link that never was, was used, was replaced or has expired.
    """
    digest = kept(secret)
    with here.database.begin() as session:
        link = session.get(LinkRow, digest)
        account = None if link is None else session.get(AccountRow, link.account)
        if (
            link is None
            or account is None
            or utc(link.ends) < here.now()
            or account.state not in (INVITED, ACTIVE)
        ):  # fmt: skip
            raise AccessRefused(
                _("this link does not work: it was used, was replaced, or its time is over; ask for another one"),
                account=None if account is None else account.id,
                method=access.ENROLMENT,
                reason=access.UNKNOWN if link is None else access.STALE,
            )
        options, ceremony = begin_registration(session, here, account, link=digest)
        return seen(account), options, ceremony
