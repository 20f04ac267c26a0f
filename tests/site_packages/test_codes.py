"""The code table decides what is a code, and when."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from site_packages.codes import CODE_TABLE_STEM, dataset_code_table, load_code_table, who_2019
from site_packages.dhd_import import import_dhd
from site_packages.errors import CodeRefusedError, CodeTableError, ManifestError
from site_packages.store import store_dataset
from tests.site_packages.dhd_tables import Tables, admission, diagnosis, document

DAY = date(2024, 3, 10)


def test_who_accepts_codes_and_whole_categories() -> None:
    checked = who_2019().check("h251", DAY)
    assert (checked.code, checked.category, checked.chapter, checked.notes) == ("H25.1", "H25", "VII", ())
    assert who_2019().check("I48", DAY).code == "I48"
    assert who_2019().check("M01.0*", DAY).notes == ("code_mark_removed",)


@pytest.mark.parametrize("text", ["S8210", "S82.61", "M1715"])
def test_who_lets_countries_add_a_fifth_character_in_chapters_xiii_and_xix(text: str) -> None:
    assert who_2019().check(text, DAY).notes == ("code_fifth_character",)


@pytest.mark.parametrize("text", ["H29", "H25.10", "H25.7", "A63.7", "U99.9"])
def test_unknown_codes(text: str) -> None:
    with pytest.raises(CodeRefusedError) as refused:
        who_2019().check(text, DAY)
    assert refused.value.reason == "code_unknown"


def test_table_of_the_hospital_with_validity(tmp_path: Path) -> None:
    path = tmp_path / "codes.csv"
    path.write_text(
        "code;title;valid_from;valid_to\nh251;Kernstaar;2014-01-01;2023-12-31\n"
        "H25.1;Nucleaire staar;2025-01-01;\nH26.4;Nastaar;;\n",
        encoding="utf-8",
    )
    table = load_code_table(path)
    assert table.name == "codes.csv"
    assert table.check("H264", DAY).code == "H26.4"
    assert table.check("H25.1", date(2023, 12, 31)).code == "H25.1"
    assert table.check("H25.1", date(2030, 1, 1)).code == "H25.1"
    with pytest.raises(CodeRefusedError, match="valid 2014-01-01 to 2023-12-31") as refused:
        table.check("H25.1", DAY)
    assert refused.value.reason == "code_not_valid"
    with pytest.raises(CodeRefusedError):
        table.check("S82.10", DAY)


def test_digest_follows_the_content(tmp_path: Path) -> None:
    first, second = tmp_path / "a.csv", tmp_path / "b.csv"
    first.write_text("code,title,valid_from,valid_to\nG35,MS,,\n", encoding="utf-8")
    second.write_text("code,title,valid_from,valid_to\nG35,MS!,,\n", encoding="utf-8")
    assert load_code_table(first).digest != load_code_table(second).digest


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("code,title\nG35,MS\n", "lacks the column validfrom, validto"),
        ("code,title,valid_from,valid_to\n", "holds no code"),
        ("code,title,valid_from,valid_to\nG3,MS,,\n", "line 2: 'G3' is not written as an ICD-10 code"),
        ("code,title,valid_from,valid_to\nG35,MS,1-1-2014,\n", "line 2: '1-1-2014' is not a date"),
        ("code,title,valid_from,valid_to\nG35,MS,2014-02-30,\n", "not a day of the calendar"),
        ("code,title,valid_from,valid_to\nG35,MS,2014-01-02,2014-01-01\n", "before 2014-01-02"),
        ("code,title,valid_from,valid_to\nG35,MS\n", "line 2: 2 fields, expected 4"),
        ('code,title,valid_from,valid_to\nG35,"MS,,\n', "broken quoting"),
    ],
)
def test_unusable_tables(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "codes.csv"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(CodeTableError, match=message):
        load_code_table(path)


TABLE = (
    "code,title,valid_from,valid_to\nH25.1,Staar,2014-01-01,2023-12-31\nI10,Hypertensie,,\n"
    "U07.1,Covid,2020-03-01,\nG35,MS,,2010-12-31\n"
)


def test_categories_valid_in_a_period(tmp_path: Path) -> None:
    path = tmp_path / "codes.csv"
    path.write_text(TABLE, encoding="utf-8")
    table = load_code_table(path)
    assert table.categories(date(2015, 1, 1), date(2019, 1, 1)) == {"H25", "I10"}
    assert table.categories(date(2020, 3, 1), date(2020, 3, 1)) == {"H25", "I10", "U07"}
    assert table.categories(date(2024, 1, 1), date(2025, 1, 1)) == {"I10", "U07"}
    assert table.categories(date(2010, 12, 31), date(2014, 1, 1)) == {"H25", "I10", "G35"}
    assert table.categories(date.min, date.max) == {"H25", "I10", "U07", "G35"}
    assert {"H25", "I10"} < who_2019().categories(DAY, DAY)


def stored(folder: Path, code_table: Path | None) -> Path:
    """One admission, imported with this table of codes."""
    tables = Tables(folder)
    tables.admissions = [admission(0, admission_date="2023-03-01", discharge_date="2023-03-01")]
    tables.documents = [document(0, publication_date="2023-03-01")]
    tables.diagnoses = [diagnosis(0, icd10_diagnosis_code="H25.1")]
    codes = who_2019() if code_table is None else load_code_table(code_table)
    target, _ = store_dataset(
        folder / "home", import_dhd(*tables.write(), code_table=codes), site="amstel", synthetic=True
    )
    return target


def test_a_data_set_keeps_the_table_it_was_imported_with(tmp_path: Path) -> None:
    path = tmp_path / "national.csv"
    path.write_text(TABLE, encoding="utf-8")
    folder = stored(tmp_path, path)
    path.unlink()
    kept = folder / f"{CODE_TABLE_STEM}.csv"
    assert kept.read_text(encoding="utf-8") == TABLE
    assert kept.stat().st_mode & 0o777 == 0o600
    assert dataset_code_table(folder).categories(date.min, date.max) == {"H25", "I10", "U07", "G35"}
    for change in (lambda: kept.write_text(TABLE + "Z99,Extra,,\n", encoding="utf-8"), kept.unlink):
        change()
        with pytest.raises(
            CodeTableError, match=r"imported with the code table national\.csv.*import the tables again"
        ):
            dataset_code_table(folder)
    # Importing the same tables again puts it back beside the same data set.
    path.write_text(TABLE, encoding="utf-8")
    assert stored(tmp_path, path) == folder
    assert dataset_code_table(folder).categories(DAY, DAY) == {"I10", "U07"}


def test_without_a_table_of_its_own_it_is_whos(tmp_path: Path) -> None:
    folder = stored(tmp_path, None)
    assert not list(folder.glob(f"{CODE_TABLE_STEM}*"))
    assert dataset_code_table(folder) is who_2019()
    (folder / "manifest.json").write_bytes(b"{")
    with pytest.raises(ManifestError):
        dataset_code_table(folder)
    with pytest.raises(CodeTableError, match="holds no data set"):
        dataset_code_table(tmp_path)
