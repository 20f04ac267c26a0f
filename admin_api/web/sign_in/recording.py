"""From the pages to the log: every sign-in, refusal and way in that was taken away becomes an entry.

What is to be written is noted in the pages' database first, in the transaction that lets somebody in, so that nobody
gets in unnoted and nothing is lost while the log is busy. Refusals gather per account, method, reason and minute.

Writing, and what a crash leaves:
1. take notes whose minute is over (marked with the time, and with the log's size as it was before any attempt);
2. append the entries to the log and sign it;
3. delete the notes.
After a crash between 2 and 3 the notes are taken again a minute later; those whose entry stands in the log since the
size they were marked with are deleted, not written twice.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from sqlalchemy import Table, func, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlmodel import Session, col, select

from admin_api.web.context import Workplace
from admin_api.web.database import utc
from admin_api.web.sign_in.tables import NotedRow
from audit.access import ACCOUNT_ID
from audit.canonical import format_time
from audit.entry import ACCESS_ENDED, ACCESS_GRANTED, ACCESS_REFUSED, Entry
from audit.errors import LogError

MINUTE = timedelta(minutes=1)
AT_ONCE = 200  # entries
_LOG = logging.getLogger("zegel.web")


def note_granted(session: Session, here: Workplace, account: str, method: str, *, by: str | None) -> None:
    """Note that a way in was given or used, within the transaction that does so. `by` null: in the folder."""
    _note_one(session, here, ACCESS_GRANTED, account, method, by)


def note_ended(session: Session, here: Workplace, account: str, method: str, *, by: str | None) -> None:
    """Note that a way in was taken away, within the transaction that does so."""
    _note_one(session, here, ACCESS_ENDED, account, method, by)


def note_refusal(here: Workplace, account: str | None, method: str, reason: str) -> None:
    """Note that somebody was refused; the same within one minute is counted together."""
    since = here.now().replace(second=0, microsecond=0)
    if account is not None and ACCOUNT_ID.fullmatch(account) is None:
        raise ValueError(f"expected an account's id, got {account!r}")
    table = _noted()
    values = {
        "slot": f"{format_time(since)} {account} {method} {reason}",
        "kind": ACCESS_REFUSED,
        "account": account,
        "method": method,
        "reason": reason,
        "by": None,
        "since": since,
        "count": 1,
    }
    insert: Any = sqlite.insert if here.database.sqlite else postgresql.insert
    with here.database.begin() as session:
        session.execute(
            insert(table)
            .values(values)
            .on_conflict_do_update(index_elements=["slot"], set_={"count": table.c["count"] + 1})
        )


def write_due(here: Workplace, *, everything: bool = False) -> int:
    """Write to the log what was noted: sign-ins at once, refusals when their minute is over, or `everything`.

    Returns: how many entries were written. Raises LogError when the log refuses; the notes are kept then.
    """
    written = 0
    while True:
        noted = _take(here, everything=everything)
        if not noted:
            return written
        try:
            written += _write(here, noted)
        except LogError:
            _give_back(here, noted)
            raise
        _drop(here, noted)
        if len(noted) < AT_ONCE:
            return written


def write_now(here: Workplace) -> None:
    """Write what is due, after an answer was given; a log that refuses is told to whoever runs the server.

    Whoever signs in must be able to when the log is out of order: to see what is wrong with it. The notes are kept.
    """
    try:
        write_due(here)
    except LogError as error:
        _LOG.error("sign-ins and refusals wait until the log can be written", exc_info=error)


def waiting(here: Workplace) -> int:
    """How many entries are still to be written."""
    with here.database.reading() as session:
        return session.exec(select(func.count()).select_from(NotedRow)).one()


def _note_one(session: Session, here: Workplace, kind: str, account: str, method: str, by: str | None) -> None:
    now = here.now()
    session.add(
        NotedRow(
            slot=f"{now.isoformat(timespec='microseconds')} {here.random_bytes(16).hex()}",
            kind=kind,
            account=account,
            method=method,
            by=by,
            since=now.replace(microsecond=0),
            count=1,
        )
    )


def _take(here: Workplace, *, everything: bool) -> list[NotedRow]:
    now = here.now()
    free = col(NotedRow.taken).is_(None) | (col(NotedRow.taken) <= now - MINUTE)
    due = (col(NotedRow.kind) != ACCESS_REFUSED) | (col(NotedRow.since) <= now - MINUTE)
    query = select(NotedRow).where(free) if everything else select(NotedRow).where(free, due)
    query = query.order_by(col(NotedRow.since), col(NotedRow.slot)).limit(AT_ONCE)
    with here.database.reading() as session:
        if session.exec(query).first() is None:
            return []
    with here.home.log() as log:
        size = log.size
    with here.database.begin() as session:
        rows = list(session.exec(query.with_for_update(skip_locked=True)))
        for row in rows:
            row.taken = now
            row.log_size = size if row.log_size is None else row.log_size
            session.add(row)
    return rows


def _write(here: Workplace, noted: list[NotedRow]) -> int:
    first = min(row.log_size or 0 for row in noted)
    with here.home.log() as log:
        there = [
            (index, entry)
            for kind in {row.kind for row in noted}
            for index, entry in log.entries(kind=kind, since=first)
        ]
    entries: list[Entry] = []
    for row in noted:
        body = _body(row)
        for index, entry in list(there):
            if index >= (row.log_size or 0) and entry.kind == row.kind and _uncounted(entry.body) == _uncounted(body):
                there.remove((index, entry))
                body["count"] = body.get("count", 1) - entry.body.get("count", 1)
                if body["count"] == 0:
                    break
        if body.get("count", 1) > 0:
            entries.append(Entry(row.kind, here.now(), body))
    if entries:
        here.home.record(*entries)
    return len(entries)


def _uncounted(body: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in body.items() if name != "count"}


def _body(row: NotedRow) -> dict[str, Any]:
    at = format_time(utc(row.since))
    if row.kind == ACCESS_REFUSED:
        return {
            "account": row.account,
            "method": row.method,
            "reason": row.reason,
            "count": row.count,
            "since": at,
        }
    return {"account": row.account, "method": row.method, "by": row.by, "at": at}


def _give_back(here: Workplace, noted: list[NotedRow]) -> None:
    with here.database.begin() as session:
        session.execute(update(NotedRow).where(col(NotedRow.slot).in_([row.slot for row in noted])).values(taken=None))


def _drop(here: Workplace, noted: list[NotedRow]) -> None:
    """Delete what was written. A refusal counted meanwhile keeps what came on top, as a note of its own."""
    with here.database.begin() as session:
        for each in noted:
            row = session.get(NotedRow, each.slot, with_for_update=True)
            if row is None:
                continue
            if row.count > each.count:
                row.count -= each.count
                row.taken = row.log_size = None
                session.add(row)
            else:
                session.delete(row)


def _noted() -> Table:
    return NotedRow.metadata.tables["web_noted"]
