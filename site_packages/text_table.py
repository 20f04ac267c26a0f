"""A table of texts and codes for benchmarks: read it, and deal its patients to hospitals.

Columns: `id`, `text`, `code` (or `code3`, `codes` is not one code), optional `hospital` and `patient`. A row without a
patient is a patient of its own.
"""

from __future__ import annotations

import csv
import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from site_packages.dataset import Dataset, dataset_from_records
from site_packages.errors import MalformedTableError

SKEW = 0.5  # Dirichlet concentration of a code over hospitals: the smaller, the more hospitals differ
MAX_TEXT = 1_000_000  # characters of one text


@dataclass(frozen=True)
class TextRow:
    """One text with its code."""

    id: str
    text: str
    code: str
    hospital: str | None
    patient: str


def read_text_table(path: Path, *, split: str | None = None) -> list[TextRow]:
    """Read a CSV file with texts and codes.

    Args:
        split: with a column `split`, only rows of this value.
    Raises: MalformedTableError naming file, line and reason; a file with one bad row is not half read.
    """
    csv.field_size_limit(MAX_TEXT + 1)
    rows: list[TextRow] = []
    seen: set[str] = set()
    try:
        with path.open(encoding="utf-8-sig", newline="") as handle:
            reader = csv.DictReader(handle, strict=True)
            header = list(reader.fieldnames or ())
            names = set(header)
            if len(names) != len(header):
                twice = next(name for name in header if header.count(name) > 1)
                raise MalformedTableError(f"{path}: the column {twice!r} occurs twice")
            code_column = next((name for name in ("code", "code3") if name in names), None)
            missing = [name for name in ("id", "text") if name not in names]
            if code_column is None:
                missing.append("code or code3")
            if missing or code_column is None:
                raise MalformedTableError(f"{path}: no column {', '.join(missing)}; it has {', '.join(sorted(names))}")
            if split is not None and "split" not in names:
                raise MalformedTableError(f"{path}: asked for split {split!r}, but there is no column split")
            for row in reader:
                where = f"{path}, line {reader.line_num}"
                if None in row or None in row.values():
                    raise MalformedTableError(f"{where}: expected {len(names)} fields")
                if split is not None and row["split"] != split:
                    continue
                for name in ("id", "text", code_column):
                    if not row[name].strip():
                        raise MalformedTableError(f"{where}: {name} is empty")
                if row["id"] in seen:
                    raise MalformedTableError(f"{where}: id {row['id']!r} occurs twice")
                seen.add(row["id"])
                rows.append(
                    TextRow(
                        row["id"],
                        row["text"],
                        row[code_column].strip(),
                        row.get("hospital") or None,
                        row.get("patient") or row["id"],
                    )
                )
    except csv.Error as error:
        raise MalformedTableError(f"{path}, line {reader.reader.line_num}: {error}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise MalformedTableError(f"{path}: {error}") from None
    if not rows:
        raise MalformedTableError(f"{path}: no rows" + (f" of split {split!r}" if split else ""))
    with_hospital = sum(row.hospital is not None for row in rows)
    if with_hospital not in (0, len(rows)):
        raise MalformedTableError(f"{path}: {len(rows) - with_hospital} rows lack a hospital; all need one, or none")
    return rows


def deal(rows: list[TextRow], hospitals: int, *, seed: int) -> dict[str, list[TextRow]]:
    """Rows by hospital: by the column if there is one, else patients dealt with a skewed mix of codes.

    Without a column, every code gets its own shares of the hospitals, drawn from a Dirichlet distribution with
    concentration 0.5; a patient goes where its first row's code sends it. Every hospital gets at least one patient.
    """
    if rows[0].hospital is not None:
        named: dict[str, list[TextRow]] = {}
        for row in rows:
            named.setdefault(str(row.hospital), []).append(row)
        return dict(sorted(named.items()))
    generator = np.random.default_rng(seed)
    names = [f"hospital-{number + 1:02}" for number in range(hospitals)]
    shares = {code: generator.dirichlet([SKEW] * hospitals) for code in sorted({row.code for row in rows})}
    order = sorted({row.patient for row in rows})
    random.Random(f"deal {seed}").shuffle(order)  # noqa: S311  a benchmark's split, not a secret
    first_code: dict[str, str] = {}
    for row in rows:
        first_code.setdefault(row.patient, row.code)
    if len(order) < hospitals:
        raise MalformedTableError(f"{len(order)} patients cannot be dealt to {hospitals} hospitals")
    home = {
        patient: names[position]
        if position < hospitals
        else names[generator.choice(hospitals, p=shares[first_code[patient]])]
        for position, patient in enumerate(order)
    }
    dealt: dict[str, list[TextRow]] = {name: [] for name in names}
    for row in rows:
        dealt[home[row.patient]].append(row)
    return dealt


def to_dataset(rows: list[TextRow]) -> Dataset:
    """The rows as admissions in memory."""
    return dataset_from_records(
        [row.patient for row in rows],
        [row.text for row in rows],
        [row.code for row in rows],
        admission_ids=[row.id for row in rows],
    )


def patients_in(dealt: Mapping[str, list[TextRow]]) -> int:
    """Distinct patients, each counted at every hospital that knows it."""
    return sum(len({row.patient for row in rows}) for rows in dealt.values())
