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
from typing import Any

from sqlalchemy import delete
from sqlalchemy.dialects import postgresql, sqlite
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


def spend(here: Workplace, rate: Rate, place: str, *, method: str) -> None:
    """Take an attempt from the bucket. Raises TooMany when it is empty; nothing is taken then."""
    now, key = here.now(), f"{rate.name} {place}"
    with here.database.begin() as session:
        session.execute(delete(BucketRow).where(col(BucketRow.full) <= now, col(BucketRow.key) != key))
        row = None
        while row is None:  # another process may sweep a full bucket away between the two
            _put_full(session, here, key, rate)
            row = session.get(BucketRow, key, with_for_update=True, populate_existing=True)
        left = _left(row, rate, here)
        if left < 1.0:
            raise _empty(left, rate, method)
        row.left, row.updated = left - 1.0, now
        row.full = now + timedelta(seconds=(rate.burst - row.left) * rate.seconds)
        session.add(row)


def check_left(here: Workplace, rate: Rate, place: str, *, method: str) -> None:
    """Raises TooMany when the bucket is empty; takes nothing, writes nothing."""
    with here.database.reading() as session:
        row = session.get(BucketRow, f"{rate.name} {place}")
        left = float(rate.burst) if row is None else _left(row, rate, here)
    if left < 1.0:
        raise _empty(left, rate, method)


def _put_full(session: Session, here: Workplace, key: str, rate: Rate) -> None:
    """A full bucket, unless there is one."""
    insert: Any = sqlite.insert if here.database.sqlite else postgresql.insert
    now = here.now()
    full = {"key": key, "left": float(rate.burst), "updated": now, "full": now + timedelta(seconds=rate.seconds)}
    session.execute(insert(BucketRow).values(full).on_conflict_do_nothing(index_elements=["key"]))


def _left(row: BucketRow, rate: Rate, here: Workplace) -> float:
    passed = max(0.0, (here.now() - utc(row.updated)).total_seconds())
    return min(float(rate.burst), row.left + passed / rate.seconds)


def _empty(left: float, rate: Rate, method: str) -> TooMany:
    return TooMany(
        _("too many attempts from where you are"),
        account=None,
        method=method,
        reason=access.TOO_MANY,
        seconds=max(1, math.ceil((1.0 - left) * rate.seconds)),
    )


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
