"""Rows of a table file, CSV or Parquet, with the line each stands on.

Invariants:
- a file is read whole or not at all: an encoding error, broken quoting, a missing or double column fails;
- `line` is the line of the file where the row begins, 1-based, the header being line 1, also after quoted
  line breaks; for Parquet it is the row's number plus 1, so the first row is line 2 there too;
- column names are compared without case, hyphens, underscores and spaces.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any

from audit.canonical import digest_of
from site_packages.errors import MalformedTableError

_LONGEST_FIELD = 2**26  # characters; a letter is far shorter, an unclosed quote is not
_SEPARATORS = re.compile(r"[\s_-]+")


@dataclass(frozen=True, slots=True)
class Row:
    """One row, its values as text by our column name; columns that the file lacks are absent."""

    line: int
    values: Mapping[str, str]
    problem: str  # why the row cannot be read, "" if it can


@dataclass(frozen=True)
class TableFile:
    """A file's rows."""

    name: str  # without folder
    digest: str  # of the file's bytes
    columns: frozenset[str]  # ours that the file has
    ignored: tuple[str, ...]  # the file's other columns, as written
    rows: tuple[Row, ...]


def column_key(name: str) -> str:
    """A column name without case and separators: `ICD-10_diagnosecode` and `icd10 diagnosecode` are one."""
    return _SEPARATORS.sub("", name).casefold()


def read_columns(path: Path, *, columns: Mapping[str, str], required: Iterable[str]) -> TableFile:
    """Read a table file.

    Args:
        path: a `.csv` or `.parquet` file.
        columns: our name of a column by `column_key` of each name it may have in the file.
        required: our names of columns that must be there.

    Raises:
        MalformedTableError: the file is missing, of another type, or not a table with these columns.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise MalformedTableError(f"{path} cannot be read: {error.strerror}") from error
    kind = path.suffix.lower()
    if kind == ".csv":
        header, rows = _csv(path.name, content)
    elif kind == ".parquet":
        header, rows = _parquet(path.name, content)
    else:
        raise MalformedTableError(
            f"{path.name} has the file type {kind or '(none)'}, expected .csv or .parquet; save it as one"
        )
    ours = [columns.get(column_key(name)) for name in header]
    for index, name in enumerate(ours):
        if name is not None and name in ours[:index]:
            both = " and ".join(repr(h) for h, o in zip(header, ours, strict=True) if o == name)
            raise MalformedTableError(f"{path.name} has two columns for {name}: {both}; keep one")
    if missing := [name for name in required if name not in ours]:
        raise MalformedTableError(
            f"{path.name} lacks the column {', '.join(missing)}; it has: {', '.join(header)[:300]}"
        )
    return TableFile(
        name=path.name,
        digest=digest_of(content),
        columns=frozenset(name for name in ours if name is not None),
        ignored=tuple(h for h, o in zip(header, ours, strict=True) if o is None),
        rows=tuple(_named(ours, line, values) for line, values in rows),
    )


def _named(ours: Sequence[str | None], line: int, values: Sequence[str]) -> Row:
    if len(values) != len(ours):
        return Row(line, {}, f"{len(values)} fields, expected {len(ours)} as in the header")
    return Row(line, {name: value for name, value in zip(ours, values, strict=True) if name is not None}, "")


def _csv(name: str, content: bytes) -> tuple[list[str], list[tuple[int, list[str]]]]:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise MalformedTableError(
            f"{name}, line {line}: byte {content[error.start]:#04x} is not UTF-8; save the file as UTF-8"
        ) from error
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise MalformedTableError(f"{name}, line {line}: a NUL character; this is not a text file")
    first_line = text.partition("\n")[0]
    delimiter = ";" if first_line.count(";") > first_line.count(",") else ","
    previous_limit = csv.field_size_limit(_LONGEST_FIELD)  # the module's own limit is below a long letter
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows: list[tuple[int, list[str]]] = []
    begin = 1
    try:
        for values in reader:
            if values:
                rows.append((begin, values))
            begin = reader.line_num + 1
    except csv.Error as error:
        raise MalformedTableError(
            f"{name}: broken quoting in the row from line {begin}, noticed on line {reader.line_num}: "
            f"{error}; write a quote inside a field as two quotes"
        ) from error
    finally:
        csv.field_size_limit(previous_limit)
    if not rows:
        raise MalformedTableError(f"{name} is empty; expected a line with column names")
    return [column.strip() for column in rows[0][1]], rows[1:]


def _parquet(name: str, content: bytes) -> tuple[list[str], list[tuple[int, list[str]]]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(pa.BufferReader(content))
        header = [str(column) for column in file.schema_arrow.names]
        rows = list(_parquet_rows(file, header))
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise MalformedTableError(f"{name} is not a readable Parquet file: {error}") from error
    return header, rows


def _parquet_rows(file: Any, header: Sequence[str]) -> Iterator[tuple[int, list[str]]]:
    line = 1
    for batch in file.iter_batches():
        for values in zip(*(batch.column(index).to_pylist() for index in range(len(header))), strict=True):
            line += 1
            yield line, [_as_text(value) for value in values]


def _as_text(value: Any) -> str:
    """A Parquet value as it would stand in the CSV file."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bool):
        return "1" if value else "0"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, datetime):
        return value.date().isoformat()
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, list):
        return ";".join(_as_text(item) for item in value)
    return str(value)
