"""Small DHD tables for tests: sound by default, changed by the test, written as CSV or Parquet."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

Rows = list[dict[str, str]]


def admission(number: int, **changes: str) -> dict[str, str]:
    """A sound row of the admissions table: patient p<number>, admission a<number>."""
    return {
        "patient_id": f"p{number}",
        "admission_id": f"a{number}",
        "admission_date": "2024-03-10",
        "discharge_date": "2024-03-10",
        "age_dimension": "1",
        "age": "64",
        "gender": "2",
        "urgency": "0",
        "clinical_specialty": "0301",
    } | changes


def day_admission(number: int, **changes: str) -> dict[str, str]:
    """The same row with the field names of the day tables."""
    return {
        "patient_id": f"p{number}",
        "gender": "V",
        "admission_id": f"a{number}",
        "admission_date": "2024-03-10",
        "discharge_date": "2024-03-10",
        "age_at_admission": "64",
        "urgency": "0",
    } | changes


def document(number: int, **changes: str) -> dict[str, str]:
    """A sound row of the documents table."""
    return {
        "patient_id": f"p{number}",
        "admission_id": f"a{number}",
        "document_type": "Ontslagbrief",
        "clinical_specialty": "0301",
        "publication_date": "2024-03-11",
        "text": f"brief over opname {number}",
    } | changes


def diagnosis(number: int, **changes: str) -> dict[str, str]:
    """A sound row of the diagnoses table."""
    return {
        "patient_id": f"p{number}",
        "admission_id": f"a{number}",
        "icd10_diagnosis_code": "H25.1",
        "diagnosing_clinical_specialty": "0301",
        "main_diagnosis_indication": "1",
    } | changes


@dataclass
class Tables:
    """Three tables with three sound admissions, until a test changes them."""

    folder: Path
    admissions: Rows = field(default_factory=lambda: [admission(i) for i in (1, 2, 3)])
    documents: Rows = field(default_factory=lambda: [document(i) for i in (1, 2, 3)])
    diagnoses: Rows = field(default_factory=lambda: [diagnosis(i) for i in (1, 2, 3)])

    def write(self) -> tuple[Path, Path, Path]:
        """Write the tables as CSV and give their paths."""
        return (
            write_csv(self.folder / "admissions.csv", self.admissions),
            write_csv(self.folder / "documents.csv", self.documents),
            write_csv(self.folder / "diagnoses.csv", self.diagnoses),
        )

    def write_parquet(self) -> tuple[Path, Path, Path]:
        """Write the tables as Parquet and give their paths."""
        return (
            write_parquet(self.folder / "admissions.parquet", self.admissions),
            write_parquet(self.folder / "documents.parquet", self.documents),
            write_parquet(self.folder / "diagnoses.parquet", self.diagnoses),
        )


def write_csv(path: Path, rows: Sequence[dict[str, str]], *, delimiter: str = ",", encoding: str = "utf-8") -> Path:
    """Write rows under the first row's names."""
    with path.open("w", encoding=encoding, newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_parquet(path: Path, rows: Sequence[dict[str, str]]) -> Path:
    """Write rows as text columns."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist(list(rows)), path)
    return path
