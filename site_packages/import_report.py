"""The import report: every row that was not imported, with its file, line, field and reason.

The report stays at the hospital: it quotes values of refused fields (a code, a date, an age), never a
letter's text.

Invariants:
- for each table, rows read = rows imported + rows rejected; a row is rejected for one reason, the first;
- the same tables give the same report, byte for byte.
"""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from site_packages.errors import DataError

SCHEMA = "zegel/import-report/v1"
_FEW_LINES = 10  # lines named as examples of a note

REASONS = {
    "field_count": "the row has another number of fields than the header",
    "value_missing": "a mandatory field is empty",
    "date_malformed": "a date is not a day written as YYYY-MM-DD",
    "discharge_before_admission": "the discharge date lies before the admission date",
    "age_malformed": "the age is not a whole number, or its dimension is unknown",
    "age_out_of_range": "the age is outside 0 to 130 years",
    "gender_unknown": "the gender is not one of the known codes",
    "urgency_unknown": "the urgency is neither 0 nor 1",
    "admission_duplicate": "the same admission stands in the table before",
    "admission_conflict": "rows with the same admission id contradict each other; none of them is used",
    "code_malformed": "the diagnosis is not written as an ICD-10 code",
    "code_unknown": "the diagnosis code is not in the code table",
    "code_not_valid": "the diagnosis code was not valid on the admission date",
    "indication_unknown": "the main diagnosis indication is neither 0 nor 1",
    "diagnosis_duplicate": "the same diagnosis of the admission stands in the table before",
    "main_diagnosis_missing": "the admission has no main diagnosis",
    "main_diagnosis_several": "the admission has more than one main diagnosis",
    "main_diagnosis_refused": "the admission's main diagnosis was itself rejected",
    "letter_empty": "the letter has no text",
    "letter_duplicate": "the same letter of the admission stands in the table before",
    "letter_missing": "no letter belongs to the admission",
    "no_admission_near": "no admission of the patient lies within 30 days of the letter",
    "admission_ambiguous": "two admissions of the patient are equally near to the letter",
    "admission_unknown": "the admission id is not among the admissions that could be read",
    "patient_mismatch": "the admission belongs to another patient",
    "admission_rejected": "the admission it belongs to was rejected",
}
"""Why a row is rejected."""

NOTES = {
    "discharge_date_assumed": "no discharge date: taken as the admission date",
    "document_type_other": "a document type outside DHD's list: kept as Unknown",
    "code_mark_removed": "a dagger, asterisk or plus was taken off the code",
    "code_fifth_character": "a fifth character that WHO does not list was accepted",
    "dates_differ": "the diagnosis names other dates than its admission",
    "synthetic_mark": "letters say they are synthetic: the data set is labelled synthetic",
}
"""What was imported but is worth knowing."""


@dataclass(frozen=True, slots=True)
class Rejection:
    """One row that was not imported."""

    table: str
    file: str
    line: int  # of the file; the header is line 1
    field: str  # "" where no single field is to blame
    reason: str  # of REASONS
    detail: str


@dataclass(frozen=True, slots=True)
class Note:
    """One row that was imported with something worth knowing."""

    table: str
    file: str
    line: int
    note: str  # of NOTES


@dataclass(frozen=True)
class TableCount:
    """What became of one table's rows."""

    table: str
    file: str
    digest: str  # of the file
    rows: int
    imported: int
    ignored_columns: tuple[str, ...]


@dataclass(frozen=True)
class ImportReport:
    """What became of every row."""

    tables: tuple[TableCount, ...]
    rejections: tuple[Rejection, ...]  # by table, then line
    notes: tuple[Note, ...]

    def __post_init__(self) -> None:
        for count in self.tables:
            rejected = sum(rejection.table == count.table for rejection in self.rejections)
            if count.rows != count.imported + rejected:
                raise DataError(
                    f"the import lost rows of {count.file}: {count.rows} read, {count.imported} imported, "
                    f"{rejected} rejected; please report this fault"
                )

    def counts(self) -> dict[str, dict[str, int]]:
        """Rejected rows by table and reason, most frequent reason first."""
        return {
            count.table: dict(
                sorted(
                    Counter(r.reason for r in self.rejections if r.table == count.table).items(),
                    key=lambda item: (-item[1], item[0]),
                )
            )
            for count in self.tables
        }

    def top_reasons(self) -> list[tuple[str, str, int, Rejection]]:
        """(table, reason, rows, first such row), most frequent first."""
        first: dict[tuple[str, str], Rejection] = {}
        for rejection in self.rejections:
            first.setdefault((rejection.table, rejection.reason), rejection)
        listed = [
            (table, reason, rows, first[table, reason])
            for table, reasons in self.counts().items()
            for reason, rows in reasons.items()
        ]
        return sorted(listed, key=lambda item: (-item[2], item[0], item[1]))

    def to_json(self) -> dict[str, Any]:
        """The report as a JSON object, every rejected row included."""
        return {
            "schema": SCHEMA,
            "tables": [
                {
                    "table": count.table,
                    "file": count.file,
                    "digest": count.digest,
                    "rows": count.rows,
                    "imported": count.imported,
                    "rejected": count.rows - count.imported,
                    "ignored_columns": list(count.ignored_columns),
                }
                for count in self.tables
            ],
            "reasons": [
                {"table": table, "reason": reason, "rows": rows, "meaning": REASONS[reason]}
                for table, reason, rows, _ in self.top_reasons()
            ],
            "notes": _grouped_notes(self.notes),
            "rejections": [
                {"table": r.table, "file": r.file, "line": r.line, "field": r.field}
                | {"reason": r.reason, "detail": r.detail}
                for r in self.rejections
            ],
        }

    def json_bytes(self) -> bytes:
        """The report as readable JSON."""
        return json.dumps(self.to_json(), ensure_ascii=False, indent=1).encode() + b"\n"

    def csv_bytes(self) -> bytes:
        """The rejected rows as a table a spreadsheet opens: UTF-8 with byte order mark."""
        text = io.StringIO(newline="")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["file", "line", "field", "reason", "meaning", "detail"])
        for r in self.rejections:
            row = [r.file, r.line, r.field, r.reason, REASONS[r.reason], _not_a_formula(r.detail)]
            writer.writerow(row)
        return text.getvalue().encode("utf-8-sig")


def _grouped_notes(notes: Sequence[Note]) -> list[Mapping[str, Any]]:
    lines: dict[tuple[str, str, str], list[int]] = {}
    for note in notes:
        lines.setdefault((note.table, note.file, note.note), []).append(note.line)
    return [
        {"table": table, "file": file, "note": note, "meaning": NOTES[note], "rows": len(at)}
        | {"first_lines": at[:_FEW_LINES]}
        for (table, file, note), at in lines.items()
    ]


def _not_a_formula(text: str) -> str:
    """Spreadsheets run cells that begin like a formula; the detail quotes the hospital's files."""
    return "'" + text if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text
