"""The log's entries as people read them: newest first, by kind or by whom and what they are about, in words.

Entries are read from the log itself; the read model only knows which entry mentions what. Names and reasons stand in
the words as far as they may be shown now.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, func, select

from admin_api.errors import BadCursor, NotKnown
from admin_api.reading.fold import CERTIFICATE, FREQUENT, NEWS, PERSON, PLAN, RELEASE, RUN, SITE, VERSION
from admin_api.reading.room import ReadingRoom
from admin_api.reading.slices import MOST, Slice, taken
from admin_api.reading.tables import KindRow, MentionRow, SubjectRow, WitnessRow, table
from audit.disclosure import commitments_in
from audit.entry import Entry
from audit.merkle import leaf_hash
from audit.tables import ENTRIES
from audit.wording import entry_words

MOST_COUNTED = 1000  # of the news, and of each frequent kind; more are counted as so many

_SUBJECT, _MENTION, _KIND = table(SubjectRow).c, table(MentionRow).c, table(KindRow).c
_E = ENTRIES.c


@dataclass(frozen=True)
class LogLine:
    """An entry in one line."""

    index: int
    time: datetime
    kind: str
    words: str


@dataclass(frozen=True)
class LogEntry:
    """An entry with all it says."""

    index: int
    time: datetime
    kind: str
    words: str
    body: Mapping[str, Any]
    data: bytes  # as logged and hashed
    leaf: bytes  # their leaf hash


@dataclass(frozen=True)
class News:
    """What was logged since the log had some size."""

    size: int  # of the log now
    total: int  # entries since, of whatever hospital
    counts: Mapping[str, int]  # by kind; see MOST_COUNTED
    notable: tuple[LogLine, ...]  # newest first; all kinds but the frequent ones (`fold.FREQUENT`)


@dataclass(frozen=True)
class Witness:
    """The last enrolment of an organisation as a witness of the log."""

    entry: int
    time: datetime
    name: str
    organisation: str
    vkey: str
    certificate: str  # digest


def entries(
    room: ReadingRoom,
    *,
    kind: str | None = None,
    site: str | None = None,
    run: str | None = None,
    release: str | None = None,
    person: str | None = None,
    plan: str | None = None,
    version: str | None = None,
    certificate: str | None = None,
    only: str | None = None,
    limit: int = 50,
    after: str | None = None,
) -> Slice[LogLine]:
    """Entries, newest first, of a kind, about one thing, or both.

    `only`: those that mention this hospital, whatever else is asked. `after` is an entry's index. Raises BadCursor for
    another `after`, and when two things are asked about at once.
    """
    asked = {SITE: site, RUN: run, RELEASE: release, PERSON: person, PLAN: plan, VERSION: version,
             CERTIFICATE: certificate}  # fmt: skip
    about = [(what, name) for what, name in asked.items() if name is not None]
    if only is not None and (SITE, only) not in about:
        about.append((SITE, only))
    if len(about) > (1 if only is None or site == only else 2) or not 1 <= limit <= MOST:
        raise BadCursor(f"entries: ask about one thing at a time, and for 1 to {MOST} entries")
    before = room.size if after is None else min(_index(after), room.size)
    if about:
        return _about(room, about, kind, before, limit)
    query = select(_E.index, _E.data).where(_E.index < before)
    if kind is not None:
        query = query.where(ENTRIES.c.kind == kind)
    with room.log.rows() as connection:
        rows = connection.execute(query.order_by(_E.index.desc()).limit(limit + 1)).all()
    following = str(rows[limit - 1][0]) if len(rows) > limit else None
    total = room.size if kind is None else counts(room).get(kind, 0)
    return Slice(_lines(room, rows[:limit]), following, total)


def entry(room: ReadingRoom, index: int) -> LogEntry:
    """An entry; raises NotKnown."""
    if not 0 <= index < room.size:
        raise NotKnown(f"the log has no entry {index}; it holds {room.size}")
    data = room.log.entry_bytes(index)
    found = Entry.from_bytes(data)
    words = entry_words(found, room.disclosed(commitments_in(found)))
    return LogEntry(index, found.time, found.kind, words, found.body, data, leaf_hash(data))


def since(room: ReadingRoom, index: int, *, only: str | None = None, limit: int = 50) -> News:
    """What was logged since the log had `index` entries; `only`: what mentions this hospital."""
    size = room.size
    start = max(0, min(index, size))
    with room.rows() as connection:
        kinds: dict[int, str] = dict(connection.execute(select(_KIND.id, _KIND.kind)).all())
        subject = _subject(connection, *((NEWS, "") if only is None else (SITE, only)))
        if subject is None or start == size:
            return News(size, size - start, {}, ())
        mentioned = select(_MENTION.entry, _MENTION.kind).where(
            _MENTION.subject == subject[0], _MENTION.entry >= start, _MENTION.entry < size
        )
        newest = mentioned.order_by(_MENTION.entry.desc()).limit(MOST_COUNTED).subquery()
        counted = connection.execute(select(newest.c.kind, func.count()).group_by(newest.c.kind)).all()
        news = [number for number, kind in kinds.items() if kind not in FREQUENT]
        notable = mentioned.where(_MENTION.kind.in_(news)).order_by(_MENTION.entry.desc()).limit(limit)
        lines = [row.entry for row in connection.execute(notable)]
    counts = {kinds[number]: count for number, count in counted}
    if only is None:
        counts |= _frequent(room, start, sorted(FREQUENT & set(kinds.values())))
    return News(size, size - start, {kind: count for kind, count in counts.items() if count}, _read(room, lines))


def counts(room: ReadingRoom) -> Mapping[str, int]:
    """How many entries there are of each kind that occurs."""
    with room.rows() as connection:
        rows = connection.execute(select(_KIND.kind, _KIND.entries).order_by(_KIND.kind))
        return dict(rows.all())


def witnesses(room: ReadingRoom) -> tuple[Witness, ...]:
    """Who cosigns the log: the last enrolment of each organisation, in the order of the log."""
    columns = table(WitnessRow).c
    with room.rows() as connection:
        rows = connection.execute(select(table(WitnessRow)).order_by(columns.entry))
        return tuple(taken(row, Witness) for row in rows)


def _about(
    room: ReadingRoom, about: Sequence[tuple[str, str]], kind: str | None, before: int, limit: int
) -> Slice[LogLine]:
    with room.rows() as connection:
        found = [_subject(connection, what, name) for what, name in about]
        number = None if kind is None else connection.execute(select(_KIND.id).where(_KIND.kind == kind)).scalar()
        if None in found or (kind is not None and number is None):
            return Slice((), None, 0)
        subjects = [subject for subject in found if subject is not None]
        query = select(_MENTION.entry).where(_MENTION.subject == subjects[0][0], _MENTION.entry < before)
        if number is not None:
            query = query.where(_MENTION.kind == number)
        for subject, _ in subjects[1:]:
            query = query.where(_MENTION.entry.in_(select(_MENTION.entry).where(_MENTION.subject == subject)))
        rows = connection.execute(query.order_by(_MENTION.entry.desc()).limit(limit + 1)).scalars().all()
    total = subjects[0][1] if kind is None and len(subjects) == 1 else None
    following = str(rows[limit - 1]) if len(rows) > limit else None
    return Slice(_read(room, rows[:limit]), following, total)


def _subject(connection: Connection, what: str, name: str) -> tuple[int, int] | None:
    """A subject's number, and how many entries mention it."""
    query = select(_SUBJECT.id, _SUBJECT.mentions).where(_SUBJECT.what == what, _SUBJECT.name == name)
    row = connection.execute(query).one_or_none()
    return None if row is None else (row.id, row.mentions)


def _read(room: ReadingRoom, indices: Sequence[int]) -> tuple[LogLine, ...]:
    query = select(_E.index, _E.data).where(_E.index.in_(indices)).order_by(_E.index.desc())
    with room.log.rows() as connection:
        return _lines(room, connection.execute(query).all())


def _lines(room: ReadingRoom, rows: Sequence[tuple[int, bytes]]) -> tuple[LogLine, ...]:
    found = [(index, Entry.from_bytes(data)) for index, data in rows]
    said = room.disclosed(commitment for _, each in found for commitment in commitments_in(each))
    return tuple(LogLine(index, each.time, each.kind, entry_words(each, said)) for index, each in found)


def _frequent(room: ReadingRoom, start: int, kinds: Sequence[str]) -> dict[str, int]:
    """How many entries of these kinds there are from an index on, at most MOST_COUNTED of each."""
    found = {}
    with room.log.rows() as connection:
        for kind in kinds:
            some = select(_E.index).where(_E.kind == kind, _E.index >= start).limit(MOST_COUNTED).subquery()
            found[kind] = connection.execute(select(func.count()).select_from(some)).scalar_one()
    return found


def _index(after: str) -> int:
    if not (after.isascii() and after.isdigit() and len(after) < 19):
        raise BadCursor("after: expected the index of an entry; start again from the newest")
    return int(after)
