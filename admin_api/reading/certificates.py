"""Who holds which certificate, how long it lasts, and what became of it; and the people who hold them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, and_, func, or_, select

from admin_api.errors import NotKnown
from admin_api.reading.fold import PERSON
from admin_api.reading.room import ReadingRoom
from admin_api.reading.slices import Slice, piece
from admin_api.reading.tables import CertificateRow, DecisionRow, ErasureRow, MentionRow, SubjectRow, table
from audit.canonical import format_time, parse_time
from audit.certificates import PEOPLE
from audit.disclosure import Disclosed
from audit.revocation import REINSTATED, REVOKED, SUSPENDED

GOOD, EXPIRED, NOT_YET_VALID = "good", "expired", "not yet valid"
STATES = (GOOD, EXPIRED, NOT_YET_VALID, SUSPENDED, REVOKED)
WARNING_DAYS = 30

_CERTIFICATE = table(CertificateRow)
_C = _CERTIFICATE.c
_BARRED = (SUSPENDED, REVOKED)
_SORTS: Mapping[str, ColumnElement[Any]] = {"until": _C.not_after, "name": _C.holder, "issued": _C.time}


@dataclass(frozen=True)
class Certificate:
    """A certificate, as of a moment."""

    entry: int
    issued: datetime
    digest: str
    holder: str  # a hospital's or machine's name, or a person id
    name: str  # what the holder is called now
    organisation: str
    role: str
    not_before: datetime
    not_after: datetime
    days: int  # left; negative once it has ended
    key: str  # digest of the SubjectPublicKeyInfo
    relying_party: str | None  # of a passkey
    state: str  # one of STATES
    status_entry: int | None
    status_time: datetime | None
    status_by: str | None  # person id of who changed the status last
    reason: str  # what they wrote, as far as it may be shown
    last: bool  # the holder has none that ends later, suspended and revoked ones aside


@dataclass(frozen=True)
class Person:
    """Somebody who holds certificates."""

    person: str
    name: str
    organisation: str
    roles: tuple[str, ...]  # of certificates that are good now
    certificates: tuple[Certificate, ...]  # newest first
    decisions: int
    last_entry: int  # that is about or by them
    erased: bool  # the name


def listed(
    room: ReadingRoom,
    *,
    now: datetime,
    role: str | None = None,
    state: str | None = None,
    holder: str | None = None,
    only: str | None = None,
    sort: str = "until",
    descending: bool = False,
    limit: int = 50,
    after: str | None = None,
) -> Slice[Certificate]:
    """Certificates of people and machines. `sort`: until, name or issued. Raises BadCursor."""
    query = select(_CERTIFICATE)
    for column, value in ((_C.role, role), (_C.holder, holder), (_C.holder, only)):
        if value is not None:
            query = query.where(column == value)
    if state is not None:
        query = query.where(_is(state, format_time(now)))
    with room.rows() as connection:
        return piece(
            connection,
            query,
            lambda rows: _made(room, connection, rows, now),
            by=(_SORTS[sort], _C.digest),
            descending=descending,
            limit=limit,
            after=after,
        )


def one(room: ReadingRoom, digest: str, *, now: datetime) -> Certificate:
    """The certificate with this digest; raises NotKnown."""
    found = _where(room, _C.digest == digest, now)
    if not found:
        raise NotKnown(f"no certificate {digest} was issued here")
    return found[0]


def of_holder(room: ReadingRoom, holder: str, *, now: datetime) -> tuple[Certificate, ...]:
    """All certificates of a hospital, a machine or a person (by person id), newest first."""
    return _where(room, _C.holder == holder, now)


def of_holders(room: ReadingRoom, holders: Iterable[str], *, now: datetime) -> Mapping[str, tuple[Certificate, ...]]:
    """The same of several holders."""
    found: dict[str, tuple[Certificate, ...]] = {}
    for each in _where(room, _C.holder.in_(sorted(set(holders))), now):
        found[each.holder] = (*found.get(each.holder, ()), each)
    return found


def by_key(room: ReadingRoom, key: str, *, now: datetime) -> Certificate:
    """The newest certificate for a key, by the digest of its SubjectPublicKeyInfo; raises NotKnown."""
    found = keys(room, [key], now=now).get(key)
    if found is None:
        raise NotKnown(f"no certificate was issued for the key {key} yet")
    return found


def keys(room: ReadingRoom, wanted: Sequence[str], *, now: datetime) -> Mapping[str, Certificate]:
    """The newest certificate for each of these keys that has one."""
    found = _where(room, _C.key.in_(sorted(set(wanted))), now)
    return {each.key: each for each in reversed(found)}


def ending(room: ReadingRoom, *, now: datetime, days: int = WARNING_DAYS) -> tuple[Certificate, ...]:
    """The certificates somebody has to renew: good or just ended, with no later one, and few days left."""
    soon = format_time((now + timedelta(days=days)).replace(microsecond=0))
    status = or_(_C.status.is_(None), _C.status.not_in(_BARRED))
    found = _where(room, and_(_C.not_after < soon, status), now)
    warned = [each for each in found if each.last and each.state in (GOOD, EXPIRED) and each.days < days]
    return tuple(sorted(warned, key=lambda each: (each.not_after, each.holder)))


def people(
    room: ReadingRoom, *, now: datetime, role: str | None = None, limit: int = 50, after: str | None = None
) -> Slice[Person]:
    """People in the order of their person ids; `role`: those who hold a certificate of that role."""
    roles = sorted(PEOPLE) if role is None else [role]
    query = select(_C.holder).where(_C.role.in_(roles), _C.name.is_not(None)).group_by(_C.holder)
    with room.rows() as connection:
        found = piece(
            connection,
            query,
            lambda rows: [str(row.holder) for row in rows],
            by=(_C.holder,),
            descending=False,
            limit=limit,
            after=after,
        )
    return Slice(_people(room, found.items, now), found.after, found.total)


def person(room: ReadingRoom, person_id: str, *, now: datetime) -> Person:
    """Somebody by person id; raises NotKnown."""
    found = _people(room, [person_id], now)
    if not found:
        raise NotKnown(f"nobody here has the person id {person_id}")
    return found[0]


def _people(room: ReadingRoom, wanted: Sequence[str], now: datetime) -> tuple[Person, ...]:
    held = of_holders(room, wanted, now=now)
    decisions, subjects, mentions = table(DecisionRow).c, table(SubjectRow).c, table(MentionRow).c
    counted = select(decisions.person, func.count()).where(decisions.person.in_(wanted)).group_by(decisions.person)
    newest = select(func.max(mentions.entry)).where(mentions.subject == subjects.id).scalar_subquery()
    about = select(subjects.name, newest).where(subjects.what == PERSON, subjects.name.in_(wanted))
    without = select(_C.holder).where(_C.name.in_(select(table(ErasureRow).c.commitment)), _C.holder.in_(wanted))
    with room.rows() as connection:
        made: dict[str, int] = dict(connection.execute(counted).all())
        last: dict[str, int] = dict(connection.execute(about).all())
        erased = {row.holder for row in connection.execute(without)}
    found = []
    for who in wanted:
        certificates = held.get(who, ())
        if not certificates:
            continue
        found.append(
            Person(
                person=who,
                name=certificates[0].name,
                organisation=certificates[0].organisation,
                roles=tuple(sorted({each.role for each in certificates if each.state == GOOD})),
                certificates=certificates,
                decisions=made.get(who, 0),
                last_entry=last[who],
                erased=who in erased,
            )
        )
    return tuple(found)


def _where(room: ReadingRoom, condition: ColumnElement[bool], now: datetime) -> tuple[Certificate, ...]:
    """Newest first."""
    with room.rows() as connection:
        rows = connection.execute(select(_CERTIFICATE).where(condition).order_by(_C.entry.desc())).all()
        return tuple(_made(room, connection, rows, now))


def _made(room: ReadingRoom, connection: Connection, rows: Sequence[Row[Any]], now: datetime) -> list[Certificate]:
    said = room.disclosed(row.status_reason for row in rows)
    holders = sorted({row.holder for row in rows})
    latest = (
        select(_C.holder, _C.role, func.max(_C.not_after))
        .where(_C.holder.in_(holders), or_(_C.status.is_(None), _C.status.not_in(_BARRED)))
        .group_by(_C.holder, _C.role)
    )
    ends = {(holder, role): end for holder, role, end in connection.execute(latest)} if rows else {}
    by = signers(connection, (row.status_by for row in rows))
    moment = format_time(now.replace(microsecond=0))
    return [_certificate(row, said, ends, by, now, moment) for row in rows]


def _certificate(
    row: Row[Any],
    said: Disclosed,
    ends: Mapping[tuple[str, str], str],
    by: Mapping[str, str],
    now: datetime,
    moment: str,
) -> Certificate:
    not_after = parse_time(row.not_after, "not_after")
    return Certificate(
        entry=row.entry,
        issued=parse_time(row.time, "time"),
        digest=row.digest,
        holder=row.holder,
        name=said.name(row.holder),
        organisation=row.organisation,
        role=row.role,
        not_before=parse_time(row.not_before, "not_before"),
        not_after=not_after,
        days=(not_after - now) // timedelta(days=1),
        key=row.key,
        relying_party=row.relying_party,
        state=state_of(row, moment),
        status_entry=row.status_entry,
        status_time=None if row.status_time is None else parse_time(row.status_time, "time"),
        status_by=None if row.status_by is None else by.get(row.status_by),
        reason=said.value(row.status_reason),
        last=ends.get((row.holder, row.role)) == row.not_after,
    )


def state_of(row: Any, moment: str) -> str:
    """The state of a certificate at a moment (RFC 3339), from its row's status, not_before and not_after."""
    if row.status in _BARRED:
        return str(row.status)
    if row.not_after < moment:
        return EXPIRED
    return NOT_YET_VALID if row.not_before > moment else GOOD


def _is(state: str, moment: str) -> ColumnElement[bool]:
    """That a certificate is in a state now, for a query."""
    if state in _BARRED:
        return _C.status == state
    free = or_(_C.status.is_(None), _C.status == REINSTATED)
    if state == EXPIRED:
        return and_(free, _C.not_after < moment)
    if state == NOT_YET_VALID:
        return and_(free, _C.not_before > moment)
    return and_(free, _C.not_after >= moment, _C.not_before <= moment)


def signers(connection: Connection, certificates: Iterable[str | None]) -> Mapping[str, str]:
    """Who holds these certificates (by digest): person ids, or hospitals' names."""
    wanted = sorted({each for each in certificates if each is not None})
    if not wanted:
        return {}
    query = select(_C.digest, _C.holder).where(_C.digest.in_(wanted))
    return {row.digest: row.holder for row in connection.execute(query)}
