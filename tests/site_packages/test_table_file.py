"""Reading CSV and Parquet: lines, delimiters, and what makes a file unreadable."""

from __future__ import annotations

from datetime import date, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from site_packages.errors import MalformedTableError
from site_packages.table_file import TableFile, column_key, read_columns

COLUMNS = {"id": "id", "text": "text", "tekst": "text"}


def read(path: Path) -> TableFile:
    return read_columns(path, columns=COLUMNS, required=("id", "text"))


def test_column_names_without_case_and_separators() -> None:
    names = ["ICD-10_diagnosecode", "icd10_diagnosecode", "ICD 10 Diagnosecode", "icd-10-diagnoseCode"]
    assert {column_key(name) for name in names} == {"icd10diagnosecode"}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("delimiter", [",", ";"])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_lines_are_those_of_the_file(tmp_path: Path, encoding: str, delimiter: str, newline: str) -> None:
    lines = ["ID,Extra,Text", '1,x,"een', "twee", 'drie"', "", '2,y,"vier ""vijf""; zes"', "3,z,é"]
    content = newline.join(lines).replace("zes", "zes").replace(",", delimiter)
    path = tmp_path / "t.CSV"
    path.write_bytes(content.encode(encoding))
    table = read(path)
    assert [row.line for row in table.rows] == [2, 6, 7]
    assert table.rows[0].values == {"id": "1", "text": newline.join(["een", "twee", "drie"])}
    assert table.rows[1].values["text"] == 'vier "vijf"; zes'
    assert table.rows[2].values["text"] == "é"
    assert table.ignored == ("Extra",)


def test_a_row_with_another_number_of_fields_is_a_row_with_a_problem(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("id,text\n1\n2,a,b\n3,c\n", encoding="utf-8")
    assert [(row.line, row.problem) for row in read(path).rows] == [
        (2, "1 fields, expected 2 as in the header"),
        (3, "3 fields, expected 2 as in the header"),
        (4, ""),
    ]


def test_long_letters_are_read(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text('id,text\n1,"' + "lang " * 60_000 + '"\n', encoding="utf-8")
    assert len(read(path).rows[0].values["text"]) == 300_000


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", b"", "is empty"),
        ("t.csv", b"id,text\n1,a\n2,\xe9\n", "line 3: byte 0xe9 is not UTF-8"),
        ("t.csv", "id,text\n1,a\n".encode("utf-16-le"), "NUL character"),
        ("t.csv", b"id,tekst,text\n1,a,b\n", "two columns for text: 'tekst' and 'text'"),
        ("t.csv", b"id\n1\n", "lacks the column text; it has: id"),
        ("t.csv", b'id,text\n1,"a" b\n2,c\n', "broken quoting in the row from line 2"),
        ("t.csv", b'id,text\n1,a\n2,"b\n3,c\n', "broken quoting in the row from line 3"),
        ("t.xlsx", b"PK\x03\x04", "file type .xlsx, expected .csv or .parquet"),
        ("t", b"id,text\n", r"file type \(none\)"),
        ("t.parquet", b"id,text\n1,a\n", "not a readable Parquet file"),
    ],
)
def test_malformed_files(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(MalformedTableError, match=message):
        read(path)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(MalformedTableError, match="cannot be read"):
        read(tmp_path / "none.csv")


def test_parquet_values_as_in_csv(tmp_path: Path) -> None:
    columns = {
        "id": pa.array([1.0, None, 3.5], pa.float64()),
        "text": pa.array([date(2024, 1, 2), None, None], pa.date32()),
        "flag": pa.array([True, False, None], pa.bool_()),
        "when": pa.array([datetime(2024, 1, 2, 3, 4), None, None], pa.timestamp("us")),
        "many": pa.array([["0301", "0318"], [], None], pa.list_(pa.string())),
    }
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table(columns), path)
    table = read_columns(path, columns={name: name for name in columns}, required=columns)
    assert [row.line for row in table.rows] == [2, 3, 4]
    assert table.rows[0].values == {
        "id": "1",
        "text": "2024-01-02",
        "flag": "1",
        "when": "2024-01-02",
        "many": "0301;0318",
    }
    assert table.rows[1].values == {"id": "", "text": "", "flag": "0", "when": "", "many": ""}
    assert table.rows[2].values["id"] == "3.5"
