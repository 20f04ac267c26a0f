"""DHD's day-admission tables: the fields of admissions, documents and diagnoses, and what a value may be.

Two generations of field names are in use: the inpatient tables (`icd10_diagnosis_code`, `age` with
`age_dimension`, gender 0-3) and the day tables of the AIOC models (`ICD-10_diagnosecode`, `age_at_admission`,
`hoofddiagnose_indicatie`). A file may use either, in any case and with hyphens, underscores or spaces.

Source: DHD's data model for AI-supported coding, JSON of the inpatient tables and FSH of the day tables
(CC0).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from site_packages.admission import LETTER_KINDS
from site_packages.errors import DataError, MalformedTableError
from site_packages.table_file import Row, TableFile, column_key, read_columns

TABLES = ("admissions", "documents", "diagnoses")

# our name -> names in the two generations; the first is ours
_NAMES: dict[str, dict[str, tuple[str, ...]]] = {
    "admissions": {
        "patient_id": ("patient_id",),
        "admission_id": ("admission_id",),
        "admission_date": ("admission_date",),
        "discharge_date": ("discharge_date",),
        "age": ("age",),
        "age_dimension": ("age_dimension",),
        "age_at_admission": ("age_at_admission",),
        "gender": ("gender",),
        "urgency": ("urgency",),
        "clinical_specialty": ("clinical_specialty", "clinical_speciality"),
    },
    "documents": {
        "patient_id": ("patient_id",),
        "admission_id": ("admission_id",),
        "document_type": ("document_type",),
        "clinical_specialty": ("clinical_specialty", "clinical_speciality"),
        "publication_date": ("publication_date",),
        "text": ("text",),
    },
    "diagnoses": {
        "patient_id": ("patient_id",),
        "admission_id": ("admission_id",),
        "admission_date": ("admission_date",),
        "discharge_date": ("discharge_date",),
        "icd10_diagnosis_code": ("icd10_diagnosis_code", "ICD-10_diagnosecode"),
        "diagnosing_clinical_specialty": ("diagnosing_clinical_specialty", "diagnosing_clinical_speciality"),
        "main_diagnosis_indication": ("main_diagnosis_indication", "hoofddiagnose_indicatie"),
    },
}
_REQUIRED = {
    "admissions": ("patient_id", "admission_id", "admission_date", "gender"),
    "documents": ("patient_id", "document_type", "clinical_specialty", "publication_date", "text"),
    "diagnoses": ("patient_id", "admission_id", "icd10_diagnosis_code", "main_diagnosis_indication"),
}
_INPATIENT_ADMISSIONS = ("discharge_date", "age", "age_dimension", "urgency")

_SEX = {
    "female": ("2", "v", "f", "vrouw", "vrouwelijk", "female", "woman"),
    "male": ("1", "m", "man", "mannelijk", "male"),
    "other": ("3", "o", "x", "overig", "anders", "other"),
    "unknown": ("0", "9", "u", "onbekend", "unknown"),
}
_SEX_OF = {spelling: sex for sex, spellings in _SEX.items() for spelling in spellings}
_TRUTH_OF = {
    **dict.fromkeys(("1", "true", "ja", "j", "yes", "y", "waar"), True),
    **dict.fromkeys(("0", "false", "nee", "n", "no", "onwaar"), False),
}
_YEARS_PER = {"1": 1, "2": 12, "3": 365}  # age_dimension: units of age in a year
_KIND_OF = {column_key(kind): kind for kind in LETTER_KINDS}
_ISO_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}\Z")
_OLDEST = 130  # years


class RowRefusedError(DataError):
    """One row cannot be imported; becomes a line of the import report."""

    def __init__(self, field: str, reason: str, detail: str) -> None:
        super().__init__(f"{field}: {detail}")
        self.field = field
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True)
class AdmissionRow:
    """A row of the admissions table."""

    line: int
    patient_id: str
    admission_id: str
    admission_date: date
    discharge_date: date
    age: int  # whole years
    sex: str
    urgency: bool | None
    specialty: str
    notes: tuple[str, ...]

    @property
    def content(self) -> tuple[object, ...]:
        """What makes two rows the same admission."""
        return (
            self.patient_id,
            self.admission_date,
            self.discharge_date,
            self.age,
            self.sex,
            self.urgency,
            self.specialty,
        )


@dataclass(frozen=True, slots=True)
class DocumentRow:
    """A row of the documents table."""

    line: int
    patient_id: str
    admission_id: str  # "" if not known
    kind: str
    specialty: str
    date: date
    text: str
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class DiagnosisRow:
    """A row of the diagnoses table; the code is not checked yet."""

    line: int
    patient_id: str
    admission_id: str
    code: str
    is_main: bool
    specialty: str
    admission_date: date | None
    discharge_date: date | None


def read_table(table: str, path: Path) -> TableFile:
    """Read one of DHD's tables, whichever generation of field names it uses.

    Args:
        table: one of TABLES.

    Raises:
        MalformedTableError: the file cannot be read or lacks a column.
    """
    columns = {column_key(name): ours for ours, names in _NAMES[table].items() for name in names}
    file = read_columns(path, columns=columns, required=_REQUIRED[table])
    if table == "admissions" and "age_at_admission" not in file.columns:
        missing = [name for name in _INPATIENT_ADMISSIONS if name not in file.columns]
        if missing:
            raise MalformedTableError(
                f"{file.name} lacks the column {', '.join(missing)}; admissions need these four columns: "
                f"{', '.join(_INPATIENT_ADMISSIONS)}, or age_at_admission as in the day tables"
            )
    return file


def admission_row(row: Row) -> AdmissionRow:
    """Read a row of the admissions table.

    Raises:
        RowRefusedError: a value is missing or not allowed.
    """
    values = _values(row)
    admitted = _date(values, "admission_date")
    notes: tuple[str, ...] = ()
    # the day tables leave the discharge date open: a day admission ends on its day
    if "age_at_admission" in values and not values.get("discharge_date"):
        discharged = admitted
        notes = ("discharge_date_assumed",)
    else:
        discharged = _date(values, "discharge_date")
    if discharged < admitted:
        raise RowRefusedError(
            "discharge_date", "discharge_before_admission", f"discharged {discharged}, admitted {admitted}"
        )
    gender = _needed(values, "gender")
    if gender.casefold() not in _SEX_OF:
        raise RowRefusedError(
            "gender", "gender_unknown", f"{_quote(gender)} is none of 0, 1, 2, 3, M, V, O or their words"
        )
    urgency = values.get("urgency", "")
    if urgency.casefold() not in _TRUTH_OF and (urgency or "age_at_admission" not in values):
        raise RowRefusedError(
            "urgency",
            "urgency_unknown" if urgency else "value_missing",
            f"{_quote(urgency)} is neither 0 nor 1",
        )
    return AdmissionRow(
        line=row.line,
        patient_id=_needed(values, "patient_id"),
        admission_id=_needed(values, "admission_id"),
        admission_date=admitted,
        discharge_date=discharged,
        age=_age(values),
        sex=_SEX_OF[gender.casefold()],
        urgency=_TRUTH_OF.get(urgency.casefold()),
        specialty=";".join(part.strip() for part in re.split(r"[;,|]", values.get("clinical_specialty", "")) if part),
        notes=notes,
    )


def document_row(row: Row) -> DocumentRow:
    """Read a row of the documents table.

    Raises:
        RowRefusedError: a value is missing or not allowed, or the letter is empty.
    """
    values = _values(row)
    patient = _needed(values, "patient_id")
    kind = _KIND_OF.get(column_key(_needed(values, "document_type")))
    specialty = _needed(values, "clinical_specialty")
    published = _date(values, "publication_date")
    if not values["text"]:
        raise RowRefusedError("text", "letter_empty", "the letter has no text")
    return DocumentRow(
        line=row.line,
        patient_id=patient,
        admission_id=values.get("admission_id", ""),
        kind=kind or "Unknown",
        specialty=specialty,
        date=published,
        text=values["text"].replace("\r\n", "\n").replace("\r", "\n"),
        notes=() if kind else ("document_type_other",),
    )


def diagnosis_row(row: Row) -> DiagnosisRow:
    """Read a row of the diagnoses table. An empty indication means: not the main diagnosis.

    Raises:
        RowRefusedError: a value is missing or not allowed.
    """
    values = _values(row)
    indication = values["main_diagnosis_indication"]
    if indication and indication.casefold() not in _TRUTH_OF:
        raise RowRefusedError(
            "main_diagnosis_indication", "indication_unknown", f"{_quote(indication)} is neither 0 nor 1"
        )
    return DiagnosisRow(
        line=row.line,
        patient_id=_needed(values, "patient_id"),
        admission_id=_needed(values, "admission_id"),
        code=_needed(values, "icd10_diagnosis_code"),
        is_main=_TRUTH_OF.get(indication.casefold(), False),
        specialty=values.get("diagnosing_clinical_specialty", ""),
        admission_date=_date(values, "admission_date") if values.get("admission_date") else None,
        discharge_date=_date(values, "discharge_date") if values.get("discharge_date") else None,
    )


def _values(row: Row) -> dict[str, str]:
    if row.problem:
        raise RowRefusedError("", "field_count", row.problem)
    return {name: value.strip() for name, value in row.values.items()}


def _needed(values: Mapping[str, str], field: str) -> str:
    value = values.get(field, "")
    if not value:
        raise RowRefusedError(field, "value_missing", f"{field} is empty")
    return value


def _date(values: Mapping[str, str], field: str) -> date:
    text = _needed(values, field)
    if not _ISO_DATE.match(text):
        raise RowRefusedError(field, "date_malformed", f"{_quote(text)} is not a date as YYYY-MM-DD")
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise RowRefusedError(field, "date_malformed", f"{_quote(text)} is not a day of the calendar") from error


def _age(values: Mapping[str, str]) -> int:
    """Whole years from either way of writing an age."""
    field = "age_at_admission" if "age_at_admission" in values else "age"
    text = _needed(values, field)
    if not text.isascii() or not text.isdigit():
        raise RowRefusedError(field, "age_malformed", f"{_quote(text)} is not a whole number from 0")
    years = int(text[:9])
    if field == "age":
        dimension = _needed(values, "age_dimension")
        if dimension not in _YEARS_PER:
            raise RowRefusedError(
                "age_dimension",
                "age_malformed",
                f"{_quote(dimension)} is none of 1 (years), 2 (months), 3 (days)",
            )
        years //= _YEARS_PER[dimension]
    if years > _OLDEST:
        raise RowRefusedError(field, "age_out_of_range", f"{years} years is outside 0..{_OLDEST}")
    return years


def _quote(text: str) -> str:
    """The value for the report, cut short."""
    return repr(text if len(text) <= 30 else text[:30] + "…")
