"""From DHD's three tables to admissions with letters and one main diagnosis each.

What does not fit is reported.

Rules:
- an admission is imported when its row is sound, exactly one of its diagnoses is the main one and its code is
  accepted, and at least one letter belongs to it;
- a letter with an admission id belongs to that admission; one without is given to the patient's nearest
  admission, published from 30 days before admission to 30 days after discharge; on a tie
  it is given to none;
- letters are linked before labels are looked at, so a wrong code never moves a letter to another admission;
- reading is pure: nothing is written here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import TypeVar

from site_packages.admission import Admission, Letter
from site_packages.codes import CheckedCode, CodeTable
from site_packages.dhd import (
    AdmissionRow,
    DiagnosisRow,
    DocumentRow,
    RowRefusedError,
    admission_row,
    diagnosis_row,
    document_row,
    read_table,
)
from site_packages.errors import CodeRefusedError
from site_packages.import_report import ImportReport, Note, Rejection, TableCount
from site_packages.table_file import Row, TableFile

LINK_DAYS = 30
SYNTHETIC_MARK = "SYNTHETISCHE BRIEF"
"""A letter that begins with this is generated, whatever else is said about the tables."""

Progress = Callable[[str, int, int], None]
_R = TypeVar("_R", AdmissionRow, DocumentRow, DiagnosisRow)
_EVERY = 2000  # rows between two reports of progress


@dataclass(frozen=True)
class ImportedTables:
    """What an import found, before anything is stored."""

    admissions: tuple[Admission, ...]
    report: ImportReport
    code_table: CodeTable
    synthetic_letters: int  # letters that carry SYNTHETIC_MARK


@dataclass(frozen=True, slots=True)
class _Label:
    """The main diagnosis of an admission, or why there is none."""

    code: CheckedCode | None
    specialty: str
    reason: str
    detail: str


class _Table:
    """One table on its way through the import: what was refused and what is worth knowing."""

    def __init__(self, name: str, file: TableFile) -> None:
        self.name = name
        self.file = file
        self.rejections: list[Rejection] = []
        self.notes: list[Note] = []

    def reject(self, line: int, field: str, reason: str, detail: str) -> None:
        self.rejections.append(Rejection(self.name, self.file.name, line, field, reason, detail))

    def note(self, line: int, notes: Iterable[str]) -> None:
        self.notes.extend(Note(self.name, self.file.name, line, note) for note in notes)

    def parsed(self, parse: Callable[[Row], _R], progress: Progress) -> list[_R]:
        rows: list[_R] = []
        total = len(self.file.rows)
        for index, row in enumerate(self.file.rows):
            try:
                rows.append(parse(row))
            except RowRefusedError as refused:
                self.reject(row.line, refused.field, refused.reason, refused.detail)
            if index % _EVERY == 0:
                progress(self.name, index, total)
        progress(self.name, total, total)
        return rows

    def count(self) -> TableCount:
        rows = len(self.file.rows)
        imported = rows - len({rejection.line for rejection in self.rejections})
        return TableCount(self.name, self.file.name, self.file.digest, rows, imported, self.file.ignored)


def import_dhd(
    admissions: Path,
    documents: Path,
    diagnoses: Path,
    *,
    code_table: CodeTable,
    progress: Progress = lambda table, done, total: None,
) -> ImportedTables:
    """Read DHD's three tables of day admissions.

    Args:
        admissions, documents, diagnoses: CSV or Parquet files, either generation of field names.
        code_table: decides which codes are accepted.
        progress: told (table, rows done, rows) while reading.

    Returns:
        The admissions that could be imported, sorted by patient, date and id, and the report on all rows.

    Raises:
        MalformedTableError: a file cannot be read as its table.
    """
    stays = _Table("admissions", read_table("admissions", admissions))
    letters = _Table("documents", read_table("documents", documents))
    codes = _Table("diagnoses", read_table("diagnoses", diagnoses))

    by_id = _distinct_admissions(stays, stays.parsed(admission_row, progress))
    of_diagnosis = codes.parsed(diagnosis_row, progress)
    labels, labelling = _labels(codes, of_diagnosis, by_id, code_table)
    linked = _link(letters, letters.parsed(document_row, progress), by_id)
    unfit = _unfit(by_id, labels, linked)

    imported: list[Admission] = []
    for admission_id, stay in by_id.items():
        if admission_id in unfit:
            field, reason, detail = unfit[admission_id]
            stays.reject(stay.line, field, reason, detail)
            for letter in linked.get(admission_id, ()):
                letters.reject(letter.line, "admission_id", "admission_rejected", f"{admission_id}: {reason}")
            for row in labelling.get(admission_id, ()):
                codes.reject(row.line, "admission_id", "admission_rejected", f"{admission_id}: {reason}")
            continue
        stays.note(stay.line, stay.notes)
        for letter in linked[admission_id]:
            letters.note(letter.line, letter.notes)
        imported.append(_admission(stay, labels[admission_id], linked[admission_id]))
    imported.sort(key=lambda a: (a.patient_id, a.admission_date, a.admission_id))
    tables = (stays, letters, codes)
    report = ImportReport(
        tables=tuple(table.count() for table in tables),
        rejections=tuple(r for table in tables for r in sorted(table.rejections, key=lambda r: r.line)),
        notes=tuple(n for table in tables for n in sorted(table.notes, key=lambda n: n.line)),
    )
    synthetic = sum(x.text.lstrip().startswith(SYNTHETIC_MARK) for a in imported for x in a.letters)
    return ImportedTables(tuple(imported), report, code_table, synthetic)


def _distinct_admissions(table: _Table, rows: Sequence[AdmissionRow]) -> dict[str, AdmissionRow]:
    """Admissions by id; a repeated row is refused, and all rows of an id that contradict each other are."""
    groups: dict[str, list[AdmissionRow]] = {}
    for row in rows:
        groups.setdefault(row.admission_id, []).append(row)
    distinct: dict[str, AdmissionRow] = {}
    for admission_id, group in groups.items():
        first = group[0]
        if any(row.content != first.content for row in group):
            lines = ", ".join(str(row.line) for row in group)
            for row in group:
                table.reject(row.line, "admission_id", "admission_conflict", f"{admission_id} stands on lines {lines}")
            continue
        distinct[admission_id] = first
        for row in group[1:]:
            table.reject(row.line, "admission_id", "admission_duplicate", f"{admission_id} stands on line {first.line}")
    return distinct


def _stay_of(table: _Table, row: DocumentRow | DiagnosisRow, by_id: Mapping[str, AdmissionRow]) -> AdmissionRow | None:
    """The admission that a row names, or None after refusing the row."""
    stay = by_id.get(row.admission_id)
    if stay is None:
        table.reject(row.line, "admission_id", "admission_unknown", f"no admission {row.admission_id!r}")
    elif stay.patient_id != row.patient_id:
        table.reject(row.line, "patient_id", "patient_mismatch", f"admission {row.admission_id} is of another patient")
    else:
        return stay
    return None


def _labels(
    table: _Table, rows: Sequence[DiagnosisRow], by_id: Mapping[str, AdmissionRow], code_table: CodeTable
) -> tuple[dict[str, _Label], dict[str, list[DiagnosisRow]]]:
    """The main diagnosis per admission, and the diagnosis rows kept so far per admission."""
    kept: dict[str, list[DiagnosisRow]] = {}
    mains: dict[str, list[tuple[DiagnosisRow, CheckedCode | None]]] = {}
    seen: dict[tuple[str, str, bool, str], int] = {}
    for row in rows:
        stay = _stay_of(table, row, by_id)
        if stay is None:
            continue
        try:
            code = code_table.check(row.code, stay.admission_date)
        except CodeRefusedError as refused:
            table.reject(row.line, "icd10_diagnosis_code", refused.reason, str(refused))
            if row.is_main:
                mains.setdefault(row.admission_id, []).append((row, None))
            continue
        key = (row.admission_id, code.code, row.is_main, row.specialty)
        if key in seen:
            table.reject(row.line, "", "diagnosis_duplicate", f"{code.code} stands on line {seen[key]}")
            continue
        seen[key] = row.line
        kept.setdefault(row.admission_id, []).append(row)
        table.note(row.line, (*code.notes, *_date_notes(row, stay)))
        if row.is_main:
            mains.setdefault(row.admission_id, []).append((row, code))
    return {admission_id: _label(found) for admission_id, found in mains.items()}, kept


def _label(found: Sequence[tuple[DiagnosisRow, CheckedCode | None]]) -> _Label:
    if len(found) > 1:
        lines = ", ".join(str(row.line) for row, _ in found)
        return _Label(None, "", "main_diagnosis_several", f"{len(found)} main diagnoses, on lines {lines}")
    row, code = found[0]
    if code is None:
        return _Label(None, "", "main_diagnosis_refused", f"see line {row.line} of the diagnoses")
    return _Label(code, row.specialty, "", "")


def _date_notes(row: DiagnosisRow, stay: AdmissionRow) -> tuple[str, ...]:
    same = row.admission_date in (None, stay.admission_date) and row.discharge_date in (
        None,
        stay.discharge_date,
    )
    return () if same else ("dates_differ",)


def _link(
    table: _Table, rows: Sequence[DocumentRow], by_id: Mapping[str, AdmissionRow]
) -> dict[str, list[DocumentRow]]:
    """Letters by admission; what belongs nowhere or stands there twice is refused."""
    of_patient: dict[str, list[AdmissionRow]] = {}
    for stay in by_id.values():
        of_patient.setdefault(stay.patient_id, []).append(stay)
    linked: dict[str, list[DocumentRow]] = {}
    seen: dict[tuple[str, str, str, date, str], int] = {}
    for row in rows:
        belongs = (
            _stay_of(table, row, by_id)
            if row.admission_id
            else _nearest(table, row, of_patient.get(row.patient_id, ()))
        )
        if belongs is None:
            continue
        key = (belongs.admission_id, row.kind, row.specialty, row.date, row.text)
        if key in seen:
            table.reject(row.line, "text", "letter_duplicate", f"the same letter stands on line {seen[key]}")
            continue
        seen[key] = row.line
        linked.setdefault(belongs.admission_id, []).append(row)
    return linked


def _nearest(table: _Table, row: DocumentRow, stays: Sequence[AdmissionRow]) -> AdmissionRow | None:
    """The patient's admission nearest to the letter's date, or None after refusing the letter."""
    reach = timedelta(days=LINK_DAYS)
    within = sorted((d, s.admission_id) for s in stays if (d := _distance(row.date, s)) <= reach)
    if not within:
        table.reject(
            row.line,
            "publication_date",
            "no_admission_near",
            f"{row.date}, patient has {len(stays)} admissions",
        )
        return None
    if len(within) > 1 and within[0][0] == within[1][0]:
        table.reject(
            row.line,
            "publication_date",
            "admission_ambiguous",
            f"{row.date} is {within[0][0].days} days from {within[0][1]} and from {within[1][1]}",
        )
        return None
    return next(stay for stay in stays if stay.admission_id == within[0][1])


def _distance(published: date, stay: AdmissionRow) -> timedelta:
    """Days between a letter and a stay; none while the patient was in."""
    return max(stay.admission_date - published, published - stay.discharge_date, timedelta(0))


def _unfit(
    by_id: Mapping[str, AdmissionRow],
    labels: Mapping[str, _Label],
    linked: Mapping[str, Sequence[DocumentRow]],
) -> dict[str, tuple[str, str, str]]:
    """(field, reason, detail) of every admission that cannot be imported."""
    unfit: dict[str, tuple[str, str, str]] = {}
    for admission_id in by_id:
        label = labels.get(admission_id)
        if label is None:
            unfit[admission_id] = ("", "main_diagnosis_missing", "no diagnosis row is the main one")
        elif label.code is None:
            unfit[admission_id] = ("", label.reason, label.detail)
        elif admission_id not in linked:
            unfit[admission_id] = ("", "letter_missing", "no letter belongs to it")
    return unfit


def _admission(stay: AdmissionRow, label: _Label, letters: Sequence[DocumentRow]) -> Admission:
    code = label.code
    if code is None:
        raise RuntimeError(f"admission {stay.admission_id} has no label; it must be rejected before")
    return Admission(
        patient_id=stay.patient_id,
        admission_id=stay.admission_id,
        admission_date=stay.admission_date,
        discharge_date=stay.discharge_date,
        age=stay.age,
        sex=stay.sex,
        urgency=stay.urgency,
        specialty=stay.specialty or label.specialty,
        letters=tuple(
            Letter(row.kind, row.specialty, row.date, row.text)
            for row in sorted(letters, key=lambda row: (row.date, row.kind, row.specialty, row.text))
        ),
        code=code.code,
        category=code.category,
        chapter=code.chapter,
    )
