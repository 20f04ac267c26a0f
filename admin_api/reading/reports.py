"""Reports: what a hospital measured of a version, on its own patients, under differential privacy."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Row, select

from admin_api.errors import NotKnown
from admin_api.reading.room import ReadingRoom
from admin_api.reading.slices import taken
from admin_api.reading.tables import ReportRow, table
from audit.tables import ENTRIES

_REPORT = table(ReportRow)
_R = _REPORT.c


@dataclass(frozen=True)
class Cell:
    """A figure with its 95% interval; all None where too few patients stood behind it."""

    value: float | None
    lower: float | None
    upper: float | None


@dataclass(frozen=True)
class Report:
    """A hospital's first report about a version."""

    entry: int
    time: datetime
    version: str
    site: str
    run: str
    cohort: str
    epsilon: float | None  # what the report cost each patient of the cohort
    delta: float | None
    cells: Mapping[str, Cell]  # by metric; the headline ones unless said otherwise


def of_version(room: ReadingRoom, version: str, *, full: bool = False) -> tuple[Report, ...]:
    """All reports about a version, by hospital; `full`: with every cell, as the log's entries have them."""
    found = of_versions(room, [version])
    return with_all_cells(room, found) if full else found


def of_versions(room: ReadingRoom, versions: Sequence[str], *, site: str | None = None) -> tuple[Report, ...]:
    """The same of several versions, or of one hospital only; the headline cells."""
    query = select(_REPORT).where(_R.version.in_(versions)).order_by(_R.version, _R.site)
    if site is not None:
        query = query.where(_R.site == site)
    with room.rows() as connection:
        return tuple(report_of(row) for row in connection.execute(query))


def one(room: ReadingRoom, version: str, site: str) -> Report:
    """A hospital's report about a version, with every cell; raises NotKnown."""
    found = of_versions(room, [version], site=site)
    if not found:
        raise NotKnown(f"{site} has reported nothing about version {version}")
    return with_all_cells(room, found)[0]


def with_all_cells(room: ReadingRoom, reports: Sequence[Report]) -> tuple[Report, ...]:
    """The same reports with every cell, chapters and all: read from their entries in the log."""
    query = select(ENTRIES.c.index, ENTRIES.c.data).where(ENTRIES.c.index.in_([each.entry for each in reports]))
    with room.log.rows() as connection:
        found = {index: json.loads(data)["body"]["metrics"]["statement"] for index, data in connection.execute(query)}
    return tuple(replace(each, cells=_cells(found[each.entry]["values"])) for each in reports)


def report_of(row: Row[Any]) -> Report:
    """A row of the table, as it is handed out."""
    cells = {name: Cell(*ends) for name, ends in json.loads(row.cells).items()}
    return taken(row, Report, cells=cells)


def _cells(values: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Cell]:
    return {name: Cell(cell["value"], cell["lower"], cell["upper"]) for name, cell in values.items()}
