"""One field for everything: hospitals, releases, runs, people, codes, entries, and whatever has a digest."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from sqlalchemy import func, select

from admin_api.reading.fold import PERSON, RELEASE, RUN, SITE, folded_name
from admin_api.reading.room import ReadingRoom
from admin_api.reading.slices import MOST
from admin_api.reading.tables import (
    CertificateRow,
    CodeRow,
    HospitalRow,
    PartRow,
    PlanRow,
    ReleaseRow,
    RunRow,
    SubjectRow,
    table,
)

CODE, ENTRY, HOSPITAL = "code", "entry", "hospital"
_DIGITS = re.compile(r"(?:sha256:)?([0-9a-f]{8,64})", re.ASCII)
_CODE = re.compile(r"[A-Za-z][0-9][0-9A-Za-z]{0,5}", re.ASCII)
_LAST = "\U0010ffff"  # behind every name with the same beginning

_SUBJECT, _HOSPITAL, _RELEASE = table(SubjectRow).c, table(HospitalRow).c, table(ReleaseRow).c
_RUN, _CODES = table(RunRow).c, table(CodeRow).c


@dataclass(frozen=True)
class Hit:
    """Something found. `kind`: hospital, release, run, version, plan, person, certificate, manifest, statement,
    request, code or entry; a statement is its release's. `entry` is where it is first mentioned.
    """

    kind: str
    name: str
    label: str
    entry: int | None


def search(room: ReadingRoom, text: str, *, only: str | None = None, limit: int = 20) -> tuple[Hit, ...]:
    """What goes by this name, or begins with these characters; the surest first.

    `only`: what a hospital's contact may find: the own hospital, its runs, and releases.
    """
    wanted = text.strip()
    if not wanted or len(wanted) > MOST:
        return ()
    found: dict[tuple[str, str], Hit] = {}
    for hit in _hits(room, wanted, only, limit):
        found.setdefault((hit.kind, hit.name), hit)
        if len(found) == limit:
            break
    return tuple(found.values())


def _hits(room: ReadingRoom, wanted: str, only: str | None, limit: int) -> Iterator[Hit]:
    if wanted.isascii() and wanted.isdigit() and len(wanted) < 19 and int(wanted) < room.size and only is None:
        yield Hit(ENTRY, str(int(wanted)), "", int(wanted))
    if only is None:
        yield from _people(room, wanted)
    yield from _named(room, wanted, only, limit)
    if _CODE.fullmatch(wanted):
        yield from _codes(room, wanted.upper())
    if only is None and (digits := _DIGITS.fullmatch(wanted.lower())):
        yield from _beginning(room, digits[1], limit)
    elif only is None:
        yield from _beginning(room, folded_name(wanted), limit)


def _people(room: ReadingRoom, wanted: str) -> Iterator[Hit]:
    """By the names that may be shown, which are nowhere but beside the log."""
    certificates = table(CertificateRow).c
    called = {who: name for who, name in room.names().items() if wanted.casefold() in name.casefold()}
    if not called:
        return
    query = (
        select(certificates.holder, certificates.organisation, func.min(certificates.entry))
        .where(certificates.holder.in_(sorted(called)))
        .group_by(certificates.holder, certificates.organisation)
    )
    with room.rows() as connection:
        for who, organisation, entry in connection.execute(query).all():
            yield Hit(PERSON, who, f"{called[who]}, {organisation}", entry)


def _named(room: ReadingRoom, wanted: str, only: str | None, limit: int) -> Iterator[Hit]:
    """Hospitals, releases and runs with this anywhere in their name."""
    part = wanted.casefold()
    hospitals = select(_HOSPITAL.site, _HOSPITAL.organisation, _HOSPITAL.entry)
    hospitals = hospitals.where(_HOSPITAL.folded.contains(part, autoescape=True)).order_by(_HOSPITAL.folded)
    releases = select(_RELEASE.release, _RELEASE.state, _RELEASE.entry)
    releases = releases.where(_RELEASE.folded.contains(part, autoescape=True)).order_by(_RELEASE.entry.desc())
    runs = select(_RUN.run, _RUN.state, _RUN.entry)
    runs = runs.where(_RUN.run.contains(wanted, autoescape=True)).order_by(_RUN.entry.desc())
    if only is not None:
        parts = table(PartRow).c
        hospitals = hospitals.where(_HOSPITAL.site == only)
        runs = runs.where(_RUN.run.in_(select(parts.run).where(parts.site == only)))
    with room.rows() as connection:
        for kind, query in ((HOSPITAL, hospitals), (RELEASE, releases), (RUN, runs)):
            for name, label, entry in connection.execute(query.limit(limit)).all():
                yield Hit(kind, name, label, entry)


def _codes(room: ReadingRoom, code: str) -> Iterator[Hit]:
    """Codes that begin so, with the number of plans whose label space holds them."""
    plans = table(PlanRow).c
    used = select(plans.label_space, func.count().label("plans")).where(plans.label_space.is_not(None))
    counted = used.group_by(plans.label_space).subquery()
    query = (
        select(_CODES.code, func.sum(counted.c.plans))
        .join_from(table(CodeRow), counted, counted.c.label_space == _CODES.label_space)
        .where(_CODES.code >= code, _CODES.code < code + _LAST)
        .group_by(_CODES.code)
        .order_by(_CODES.code)
    )
    with room.rows() as connection:
        for name, count in connection.execute(query.limit(10)).all():
            yield Hit(CODE, name, f"in {count} plan{'' if count == 1 else 's'}", None)


def _beginning(room: ReadingRoom, folded: str, limit: int) -> Iterator[Hit]:
    """Everything that entries mention whose name, or digest, begins so."""
    query = select(_SUBJECT.what, _SUBJECT.name, _SUBJECT.entry).where(
        _SUBJECT.folded >= folded, _SUBJECT.folded < folded + _LAST
    )
    with room.rows() as connection:
        rows = connection.execute(query.order_by(_SUBJECT.folded, _SUBJECT.what).limit(limit)).all()
        for what, name, entry in rows:
            yield Hit(HOSPITAL if what == SITE else what, name, "", entry)
