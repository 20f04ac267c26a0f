"""How often somebody may try: a bucket of attempts per address, and a lock on an account after failures.

The buckets stand in the database, so that all processes count together; a bucket that is full again is deleted, and the
address with it. An IPv6 visitor commonly has a /64 to choose addresses from, which counts as one.

An account is locked for a quarter of an hour after ten refused attempts in a row. Sessions that exist go on.
"""

from __future__ import annotations

import ipaddress
import math
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import delete
from sqlmodel import Session, col

from admin_api.web.context import Workplace
from admin_api.web.database import utc
from admin_api.web.language import _
from admin_api.web.sign_in.errors import TooMany
from admin_api.web.sign_in.tables import AccountRow, BucketRow
from audit import access

FAILURES_TO_LOCK = 10
LOCKED_FOR = timedelta(minutes=15)


@dataclass(frozen=True)
class Rate:
    """A bucket: how many attempts at once, and how long until one more is allowed."""

    name: str
    burst: int
    seconds: float


ASKING = Rate("ask", 60, 1.0)  # anything that a signed-out visitor may ask of us
FAILING = Rate("fail", 20, 30.0)  # answers that were refused


def place_of(address: str | None) -> str:
    """What attempts are counted by: the address, of IPv6 its /64."""
    try:
        found = ipaddress.ip_address((address or "").partition("%")[0])
    except ValueError:
        return "unknown"
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped is not None:
            return str(found.ipv4_mapped)
        return str(ipaddress.ip_network((found, 64), strict=False))
    return str(found)


def spend(here: Workplace, rate: Rate, place: str, *, method: str, attempts: float = 1.0) -> None:
    """Take an attempt from the bucket. Raises TooMany when it is empty; nothing is taken then.

    `attempts` of 0 asks whether there is one left, and takes none.
    """
    now = here.now()
    with here.database.begin() as session:
        session.execute(delete(BucketRow).where(col(BucketRow.full) <= now))
        key = f"{rate.name} {place}"
        row = session.get(BucketRow, key, with_for_update=True)
        left = float(rate.burst)
        if row is not None:
            passed = max(0.0, (now - utc(row.updated)).total_seconds())
            left = min(left, row.left + passed / rate.seconds)
        if left < 1.0:
            raise TooMany(
                _("too many attempts from where you are"),
                account=None,
                method=method,
                reason=access.TOO_MANY,
                seconds=max(1, math.ceil((1.0 - left) * rate.seconds)),
            )
        if attempts == 0.0:
            return
        row = row or BucketRow(key=key, left=left, updated=now, full=now)
        row.left, row.updated = left - attempts, now
        row.full = now + timedelta(seconds=(rate.burst - row.left) * rate.seconds)
        session.merge(row)


def count_failure(session: Session, here: Workplace, account: AccountRow) -> None:
    """One more refused attempt on this account; the tenth in a row locks it for a while."""
    account.failures += 1
    if account.failures >= FAILURES_TO_LOCK:
        account.failures = 0
        account.locked_until = here.now() + LOCKED_FOR
    session.add(account)


def check_unlocked(here: Workplace, account: AccountRow, *, method: str) -> None:
    """Raises TooMany while the account is locked by failures. Ask only for who has proven to own the account."""
    if account.locked_until is None:
        return
    left = (utc(account.locked_until) - here.now()).total_seconds()
    if left > 0:
        raise TooMany(
            _("too many attempts failed on this account"),
            account=account.id,
            method=method,
            reason=access.TOO_MANY,
            seconds=math.ceil(left),
        )
