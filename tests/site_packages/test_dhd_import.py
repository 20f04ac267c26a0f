"""DHD's tables to admissions: what is imported, what is refused, and that no row is lost."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from site_packages.codes import who_2019
from site_packages.dhd_import import ImportedTables, import_dhd
from site_packages.errors import DataError, MalformedTableError
from site_packages.import_report import NOTES, REASONS, ImportReport, Rejection, TableCount
from tests.site_packages.dhd_tables import (
    Tables,
    admission,
    day_admission,
    diagnosis,
    document,
    write_csv,
)

Change = Callable[[Tables], None]


def imported(tables: Tables) -> ImportedTables:
    return import_dhd(*tables.write(), code_table=who_2019())


def rejected(result: ImportedTables) -> list[tuple[str, int, str, str]]:
    return [(r.table, r.line, r.field, r.reason) for r in result.report.rejections]


def test_sound_tables(tmp_path: Path) -> None:
    result = imported(Tables(tmp_path))
    assert rejected(result) == []
    first = result.admissions[0]
    assert [a.admission_id for a in result.admissions] == ["a1", "a2", "a3"]
    assert (first.patient_id, first.code, first.category, first.chapter) == ("p1", "H25.1", "H25", "VII")
    assert (first.age, first.sex, first.urgency, first.specialty) == (64, "female", False, "0301")
    assert (first.letters[0].kind, first.letters[0].date) == ("Ontslagbrief", date(2024, 3, 11))


def test_parquet_gives_the_same(tmp_path: Path) -> None:
    tables = Tables(tmp_path)
    from_parquet = import_dhd(*tables.write_parquet(), code_table=who_2019())
    assert from_parquet.admissions == imported(tables).admissions


def test_day_tables_give_the_same(tmp_path: Path) -> None:
    names = {
        "icd10_diagnosis_code": "ICD-10_diagnosecode",
        "main_diagnosis_indication": "Hoofddiagnose-Indicatie",
        "clinical_specialty": "CLINICAL_SPECIALITY",
    }
    inpatient = imported(Tables(tmp_path))
    tables = Tables(tmp_path)
    tables.admissions = [day_admission(i) for i in (1, 2, 3)]
    tables.documents = [{names.get(k, k): v for k, v in row.items()} for row in tables.documents]
    tables.diagnoses = [{names.get(k, k): v for k, v in row.items()} for row in tables.diagnoses]
    assert imported(tables).admissions == inpatient.admissions


def test_the_day_tables_may_leave_discharge_and_urgency_open(tmp_path: Path) -> None:
    tables = Tables(tmp_path)
    tables.admissions = [day_admission(i, discharge_date="", urgency="") for i in (1, 2, 3)]
    result = imported(tables)
    assert len(result.admissions) == 3
    assert result.admissions[0].discharge_date == date(2024, 3, 10)
    assert result.admissions[0].urgency is None
    assert {note.note for note in result.report.notes} == {"discharge_date_assumed"}


@pytest.mark.parametrize(
    ("written", "sex"),
    [
        ("0", "unknown"),
        ("1", "male"),
        ("2", "female"),
        ("3", "other"),
        ("M", "male"),
        ("v", "female"),
        ("F", "female"),
        ("O", "other"),
        ("Vrouwelijk", "female"),
        ("man", "male"),
        ("onbekend", "unknown"),
    ],
)
def test_genders(tmp_path: Path, written: str, sex: str) -> None:
    tables = Tables(tmp_path)
    tables.admissions[0]["gender"] = written
    assert imported(tables).admissions[0].sex == sex


@pytest.mark.parametrize(
    ("dimension", "age", "years"),
    [("1", "64", 64), ("2", "23", 1), ("2", "11", 0), ("3", "400", 1), ("1", "130", 130)],
)
def test_ages(tmp_path: Path, dimension: str, age: str, years: int) -> None:
    tables = Tables(tmp_path)
    tables.admissions[0] |= {"age_dimension": dimension, "age": age}
    assert imported(tables).admissions[0].age == years


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("patient_id", "", "value_missing"),
        ("admission_date", "", "value_missing"),
        ("admission_date", "10-03-2024", "date_malformed"),
        ("admission_date", "2024-02-30", "date_malformed"),
        ("admission_date", "20240310", "date_malformed"),
        ("discharge_date", "", "value_missing"),
        ("discharge_date", "2024-03-09", "discharge_before_admission"),
        ("age", "131", "age_out_of_range"),
        ("age", "-1", "age_malformed"),
        ("age", "6,5", "age_malformed"),
        ("age_dimension", "4", "age_malformed"),
        ("gender", "q", "gender_unknown"),
        ("urgency", "2", "urgency_unknown"),
        ("urgency", "", "value_missing"),
    ],
)
def test_refused_admission_takes_its_letter_and_diagnosis_along(
    tmp_path: Path, field: str, value: str, reason: str
) -> None:
    tables = Tables(tmp_path)
    tables.admissions[1][field] = value
    result = imported(tables)
    assert [a.admission_id for a in result.admissions] == ["a1", "a3"]
    assert rejected(result) == [
        ("admissions", 3, field, reason),
        ("documents", 3, "admission_id", "admission_unknown"),
        ("diagnoses", 3, "admission_id", "admission_unknown"),
    ]


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("text", "", "letter_empty"),
        ("text", " \n ", "letter_empty"),
        ("document_type", "", "value_missing"),
        ("clinical_specialty", "", "value_missing"),
        ("publication_date", "gisteren", "date_malformed"),
        ("admission_id", "a9", "admission_unknown"),
        ("patient_id", "p1", "patient_mismatch"),
    ],
)
def test_admission_without_a_letter_left_is_refused(tmp_path: Path, field: str, value: str, reason: str) -> None:
    tables = Tables(tmp_path)
    tables.documents[1][field] = value
    result = imported(tables)
    assert rejected(result) == [
        ("admissions", 3, "", "letter_missing"),
        ("documents", 3, "admission_id" if field == "admission_id" else field, reason),
        ("diagnoses", 3, "admission_id", "admission_rejected"),
    ]


@pytest.mark.parametrize(
    ("changes", "reason_of_row", "reason_of_admission"),
    [
        ({"icd10_diagnosis_code": "H25.7"}, "code_unknown", "main_diagnosis_refused"),
        ({"icd10_diagnosis_code": "staar"}, "code_malformed", "main_diagnosis_refused"),
        ({"icd10_diagnosis_code": ""}, "value_missing", "main_diagnosis_missing"),
        ({"main_diagnosis_indication": "0"}, "admission_rejected", "main_diagnosis_missing"),
        ({"main_diagnosis_indication": "misschien"}, "indication_unknown", "main_diagnosis_missing"),
        ({"patient_id": "p3"}, "patient_mismatch", "main_diagnosis_missing"),
    ],
)
def test_admission_without_a_sound_main_diagnosis_is_refused(
    tmp_path: Path, changes: dict[str, str], reason_of_row: str, reason_of_admission: str
) -> None:
    tables = Tables(tmp_path)
    tables.diagnoses[1] |= changes
    result = imported(tables)
    assert [a.admission_id for a in result.admissions] == ["a1", "a3"]
    assert [(t, line, reason) for t, line, _, reason in rejected(result)] == [
        ("admissions", 3, reason_of_admission),
        ("documents", 3, "admission_rejected"),
        ("diagnoses", 3, reason_of_row),
    ]


def test_two_main_diagnoses(tmp_path: Path) -> None:
    tables = Tables(tmp_path)
    tables.diagnoses.append(diagnosis(2, icd10_diagnosis_code="H26.4"))
    result = imported(tables)
    assert ("admissions", 3, "", "main_diagnosis_several") in rejected(result)
    assert [r.line for r in result.report.rejections if r.table == "diagnoses"] == [3, 5]


def test_other_diagnoses_do_not_matter(tmp_path: Path) -> None:
    tables = Tables(tmp_path)
    tables.diagnoses += [
        diagnosis(2, icd10_diagnosis_code="i10", main_diagnosis_indication=""),
        diagnosis(2, icd10_diagnosis_code="X99.99", main_diagnosis_indication="0"),
    ]
    result = imported(tables)
    assert rejected(result) == [("diagnoses", 6, "icd10_diagnosis_code", "code_unknown")]
    assert result.admissions[1].code == "H25.1"


def test_codes_are_brought_into_one_spelling_with_a_note(tmp_path: Path) -> None:
    tables = Tables(tmp_path)
    tables.diagnoses[0]["icd10_diagnosis_code"] = "h251"
    tables.diagnoses[1]["icd10_diagnosis_code"] = "M01.0*"
    result = imported(tables)
    assert [a.code for a in result.admissions] == ["H25.1", "M01.0", "H25.1"]
    assert [(n.line, n.note) for n in result.report.notes] == [(3, "code_mark_removed")]


def test_repeated_rows(tmp_path: Path) -> None:
    tables = Tables(tmp_path)
    tables.admissions.append(admission(1))
    tables.documents += [document(1), document(1, text="nog een brief")]
    tables.diagnoses.append(diagnosis(1))
    result = imported(tables)
    assert rejected(result) == [
        ("admissions", 5, "admission_id", "admission_duplicate"),
        ("documents", 5, "text", "letter_duplicate"),
        ("diagnoses", 5, "", "diagnosis_duplicate"),
    ]
    assert len(result.admissions[0].letters) == 2


def test_admissions_that_contradict_each_other_are_all_refused(tmp_path: Path) -> None:
    tables = Tables(tmp_path)
    tables.admissions.append(admission(1, patient_id="p9"))
    result = imported(tables)
    assert [a.admission_id for a in result.admissions] == ["a2", "a3"]
    assert [(line, reason) for t, line, _, reason in rejected(result) if t == "admissions"] == [
        (2, "admission_conflict"),
        (5, "admission_conflict"),
    ]


@pytest.mark.parametrize(
    ("published", "belongs"),
    [
        ("2024-02-09", "a1"),  # 30 days before
        ("2024-02-08", "no_admission_near"),
        ("2024-04-09", "admission_ambiguous"),  # 30 days after a1, 30 before a4
        ("2024-04-08", "a1"),
        ("2024-04-10", "a4"),
        ("2024-05-09", "a4"),
        ("2024-06-10", "a4"),  # 30 days after discharge
        ("2024-06-11", "no_admission_near"),
    ],
)
def test_letters_without_admission_id(tmp_path: Path, published: str, belongs: str) -> None:
    tables = Tables(tmp_path)
    tables.admissions.append(admission(4, patient_id="p1", admission_date="2024-05-09", discharge_date="2024-05-11"))
    tables.documents.append(document(4, patient_id="p1"))
    tables.diagnoses.append(diagnosis(4, patient_id="p1"))
    tables.documents.append(document(1, admission_id="", publication_date=published, text="los"))
    result = imported(tables)
    where = {a.admission_id: [x.text for x in a.letters] for a in result.admissions}
    if belongs in where:
        assert [admission_id for admission_id, texts in where.items() if "los" in texts] == [belongs]
        assert rejected(result) == []
    else:
        assert rejected(result) == [("documents", 6, "publication_date", belongs)]


def test_a_letter_does_not_move_when_its_nearest_admission_is_refused(tmp_path: Path) -> None:
    tables = Tables(tmp_path)
    tables.admissions.append(admission(4, patient_id="p1", admission_date="2024-03-20", discharge_date="2024-03-20"))
    tables.diagnoses.append(diagnosis(4, patient_id="p1", icd10_diagnosis_code="H29"))
    tables.documents.append(document(1, admission_id="", publication_date="2024-03-20"))
    result = imported(tables)
    assert ("documents", 5, "admission_id", "admission_rejected") in rejected(result)
    assert len(result.admissions[0].letters) == 1


def test_letters_are_in_date_order_and_unknown_kinds_are_noted(tmp_path: Path) -> None:
    tables = Tables(tmp_path)
    tables.documents += [
        document(1, document_type="ok verslag", publication_date="2024-03-10"),
        document(1, document_type="Consultbrief", publication_date="2024-02-01"),
    ]
    result = imported(tables)
    assert [x.kind for x in result.admissions[0].letters] == ["Unknown", "OK-verslag", "Ontslagbrief"]
    assert [(n.table, n.line, n.note) for n in result.report.notes] == [("documents", 6, "document_type_other")]


def test_line_numbers_after_quoted_line_breaks(tmp_path: Path) -> None:
    tables = Tables(tmp_path)
    tables.documents[0]["text"] = "een\ntwee\n\ndrie"
    tables.documents[2]["publication_date"] = "?"
    assert ("documents", 7, "publication_date", "date_malformed") in rejected(imported(tables))


def test_a_row_of_another_length(tmp_path: Path) -> None:
    paths = Tables(tmp_path).write()
    paths[1].write_text(
        paths[1].read_text(encoding="utf-8") + "p1,a1,Ontslagbrief,0301,2024-03-11,een, twee\n",
        encoding="utf-8",
    )
    result = import_dhd(*paths, code_table=who_2019())
    assert rejected(result) == [("documents", 5, "", "field_count")]


@pytest.mark.parametrize(
    ("table", "column", "message"),
    [
        ("admissions", "gender", "admissions.csv lacks the column gender"),
        ("admissions", "age_dimension", "age_dimension; admissions need"),
        ("admissions", "age", "lacks the column age; "),
        ("documents", "text", "documents.csv lacks the column text"),
        ("diagnoses", "icd10_diagnosis_code", "diagnoses.csv lacks the column icd10_diagnosis_code"),
        ("diagnoses", "main_diagnosis_indication", "lacks the column main_diagnosis_indication"),
    ],
)
def test_missing_columns_fail_the_import(tmp_path: Path, table: str, column: str, message: str) -> None:
    tables = Tables(tmp_path)
    for row in getattr(tables, table):
        del row[column]
    with pytest.raises(MalformedTableError, match=message):
        imported(tables)


def test_documents_without_an_admission_id_column(tmp_path: Path) -> None:
    tables = Tables(tmp_path)
    for row in tables.documents:
        del row["admission_id"]
    assert len(imported(tables).admissions) == 3


def test_report_as_json_and_csv(tmp_path: Path) -> None:
    tables = Tables(tmp_path)
    tables.admissions[0]["age"] = "=1+1"
    tables.admissions[1]["gender"] = "q"
    report = imported(tables).report
    value = json.loads(report.json_bytes())
    assert [t["rejected"] for t in value["tables"]] == [2, 2, 2]
    assert value["rejections"][0] == {
        "table": "admissions",
        "file": "admissions.csv",
        "line": 2,
        "field": "age",
        "reason": "age_malformed",
        "detail": "'=1+1' is not a whole number from 0",
    }
    assert value["reasons"][0] == {
        "table": "diagnoses",
        "reason": "admission_unknown",
        "rows": 2,
        "meaning": REASONS["admission_unknown"],
    }
    lines = report.csv_bytes().decode("utf-8-sig").splitlines()
    assert lines[0] == "file,line,field,reason,meaning,detail"
    assert lines[1].startswith("admissions.csv,2,age,age_malformed,")
    assert len(lines) == 1 + 6


def test_a_report_that_lost_a_row_is_a_fault() -> None:
    count = TableCount("admissions", "a.csv", "sha256:" + "0" * 64, rows=3, imported=1, ignored_columns=())
    one = Rejection("admissions", "a.csv", 2, "", "field_count", "")
    with pytest.raises(DataError, match=r"lost rows of a\.csv: 3 read, 1 imported, 1 rejected"):
        ImportReport((count,), (one,), ())


VALUES = st.sampled_from(
    [
        "",
        "a1",
        "a2",
        "a4",
        "p1",
        "p2",
        "0",
        "1",
        "2",
        "H25.1",
        "h264",
        "zz",
        "2024-03-10",
        "2024-03-12",
        "2024-02-30",
    ]
)


@settings(
    max_examples=60,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.data())
def test_no_row_is_lost_whatever_the_tables_hold(tmp_path: Path, data: st.DataObject) -> None:
    tables = Tables(tmp_path)
    tables.admissions.append(admission(4, patient_id="p1", admission_date="2024-03-12", discharge_date="2024-03-12"))
    tables.documents.append(document(4, patient_id="p1"))
    tables.diagnoses.append(diagnosis(4, patient_id="p1"))
    for rows in (tables.admissions, tables.documents, tables.diagnoses):
        for _ in range(data.draw(st.integers(0, 4))):
            row = rows[data.draw(st.integers(0, len(rows) - 1))]
            row[data.draw(st.sampled_from(sorted(row)))] = data.draw(VALUES)
        if data.draw(st.booleans()):
            rows.append(dict(rows[0]))
    result = imported(tables)  # the report itself checks rows = imported + rejected
    assert all(rejection.reason in REASONS for rejection in result.report.rejections)
    assert all(note.note in NOTES for note in result.report.notes)
    places = [(r.table, r.line) for r in result.report.rejections]
    assert len(places) == len(set(places))
    assert result.report.tables[0].imported == len(result.admissions)
    assert result.report.tables[1].imported == sum(len(a.letters) for a in result.admissions)
    assert all(a.letters and a.code for a in result.admissions)


def test_semicolons_and_byte_order_mark(tmp_path: Path) -> None:
    tables = Tables(tmp_path)
    expected = imported(tables).admissions
    paths = [
        write_csv(tmp_path / f"{name}.csv", rows, delimiter=";", encoding="utf-8-sig")
        for name, rows in (("a", tables.admissions), ("b", tables.documents), ("c", tables.diagnoses))
    ]
    assert import_dhd(paths[0], paths[1], paths[2], code_table=who_2019()).admissions == expected
