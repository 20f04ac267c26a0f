"""Tables of texts for benchmarks: read whole or not at all, and dealt to hospitals."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from site_packages.errors import MalformedTableError
from site_packages.text_table import TextRow, deal, patients_in, read_text_table, to_dataset


def table(folder: Path, text: str | bytes) -> Path:
    path = folder / "table.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_the_smallest_table(tmp_path: Path) -> None:
    rows = read_text_table(
        table(tmp_path, 'id,text,code\n1,"pijn, sinds ""gisteren""\nop de borst",I20\n2,hoest, J06 \n')
    )
    assert rows == [
        TextRow("1", 'pijn, sinds "gisteren"\nop de borst', "I20", None, "1"),
        TextRow("2", "hoest", "J06", None, "2"),
    ]


def test_all_columns_in_any_order_with_a_byte_order_mark(tmp_path: Path) -> None:
    text = "\ufeffpatient,hospital,code3,text,note,id\np1,Oost,I20,pijn,x,1\n,West,J06,hoest,,2\n"
    rows = read_text_table(table(tmp_path, text))
    assert rows == [TextRow("1", "pijn", "I20", "Oost", "p1"), TextRow("2", "hoest", "J06", "West", "2")]


def test_code_goes_before_code3(tmp_path: Path) -> None:
    assert read_text_table(table(tmp_path, "id,text,code3,code\n1,x,I20,I20.1\n"))[0].code == "I20.1"


def test_only_rows_of_a_split(tmp_path: Path) -> None:
    path = table(tmp_path, "id,text,code,split\n1,a,I20,train\n2,b,I20,dev\n1,c,I20,dev\n3,,I20,test\n")
    assert [row.text for row in read_text_table(path, split="dev")] == ["b", "c"]
    with pytest.raises(MalformedTableError, match="no rows of split 'none'"):
        read_text_table(path, split="none")
    with pytest.raises(MalformedTableError, match="line 4: id '1' occurs twice"):
        read_text_table(path)


MALFORMED: dict[str, tuple[str | bytes, str]] = {
    "empty": ("", "no column id, text, code or code3; it has $"),
    "no text": ("id,code\n1,I20\n", "no column text; it has code, id"),
    "no id and no code": ("text,codes\nx,I20\n", "no column id, code or code3; it has codes, text"),
    "a column twice": ("id,text,code,code\n1,x,I20,J06\n", "the column 'code' occurs twice"),
    "only a header": ("id,text,code\n", "no rows$"),
    "a short row": ("id,text,code\n1,x,I20\n2,y\n", "line 3: expected 3 fields"),
    "a long row": ("id,text,code\n1,x,I20,more\n", "line 2: expected 3 fields"),
    "a comma without quotes": ("id,text,code\n1,pijn, erg,I20\n", "line 2: expected 3 fields"),
    "a quote inside": ('id,text,code\n1,"pijn" erg,I20\n', "line 2: .*expected after"),
    "a quote never closed": ('id,text,code\n1,x,I20\n2,"pijn,I20\n', "line 3: unexpected end of data"),
    "an empty id": ("id,text,code\n ,x,I20\n", "line 2: id is empty"),
    "an empty text": ("id,text,code\n1,x,I20\n2,  ,I20\n", "line 3: text is empty"),
    "an empty code": ("id,text,code\n1,x,\n", "line 2: code is empty"),
    "an empty code3": ("id,text,code3\n1,x,\n", "line 2: code3 is empty"),
    "an id twice": ("id,text,code\n1,x,I20\n2,y,I20\n1,z,J06\n", "line 4: id '1' occurs twice"),
    "some without hospital": ("id,text,code,hospital\n1,x,I20,Oost\n2,y,I20,\n", "1 rows lack a hospital"),
    "not UTF-8": (b"id,text,code\n1,\xff\xfe,I20\n", "can't decode byte"),
    "an endless text": ("id,text,code\n1," + 1_000_002 * "x" + ",I20\n", "line 2: field larger than field limit"),
}  # fmt: skip


@pytest.mark.parametrize("case", MALFORMED)
def test_a_malformed_table_is_not_half_read(case: str, tmp_path: Path) -> None:
    content, message = MALFORMED[case]
    with pytest.raises(MalformedTableError, match=message) as refused:
        read_text_table(table(tmp_path, content))
    assert "table.csv" in str(refused.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(MalformedTableError, match=r"nowhere\.csv"):
        read_text_table(tmp_path / "nowhere.csv")
    with pytest.raises(MalformedTableError, match=str(tmp_path)):
        read_text_table(tmp_path)


def rows(patients: int, *, of_each: int = 2, codes: tuple[str, ...] = ("H25", "I10", "K40", "M17")) -> list[TextRow]:
    """`of_each` rows of every patient; a patient's first code is what deals it."""
    return [
        TextRow(f"{patient}-{number}", "x", codes[(patient + number) % len(codes)], None, f"p{patient}")
        for number in range(of_each)
        for patient in range(patients)
    ]


def test_dealing_is_deterministic_by_its_seed() -> None:
    table = rows(100)
    first = deal(table, 5, seed=7)
    assert first == deal(table, 5, seed=7)
    assert first != deal(table, 5, seed=8)


@pytest.mark.parametrize(("patients", "hospitals"), [(3, 3), (8, 8), (60, 4), (51, 50)])
def test_every_row_at_one_hospital_and_none_empty(patients: int, hospitals: int) -> None:
    for seed in range(5):
        table = rows(patients)
        dealt = deal(table, hospitals, seed=seed)
        assert list(dealt) == [f"hospital-{number:02}" for number in range(1, hospitals + 1)]
        assert all(dealt.values())
        assert sorted(row.id for each in dealt.values() for row in each) == sorted(row.id for row in table)
        homes: dict[str, set[str]] = {}
        for name, each in dealt.items():
            for row in each:
                homes.setdefault(row.patient, set()).add(name)
        assert {len(names) for names in homes.values()} == {1}
        assert patients_in(dealt) == patients


def test_the_mix_of_codes_differs_between_hospitals() -> None:
    """Far more than if every patient went to a hospital at random, where a share would be .25 give or take .04."""
    dealt = deal(rows(800, of_each=1), 4, seed=1)
    shares = []
    for each in dealt.values():
        counts = Counter(row.code for row in each)
        shares += [counts[code] / len(each) for code in ("H25", "I10", "K40", "M17")]
    assert max(shares) > 0.45
    assert min(shares) < 0.1
    sizes = [len(each) for each in dealt.values()]
    assert max(sizes) > 1.2 * min(sizes)


def test_too_few_patients() -> None:
    with pytest.raises(MalformedTableError, match="2 patients cannot be dealt to 3 hospitals"):
        deal(rows(2), 3, seed=1)


def test_a_column_of_hospitals_is_followed() -> None:
    table = [TextRow(str(number), "x", "I10", ("West", "Oost")[number % 2], "p1") for number in range(4)]
    dealt = deal(table, 8, seed=1)
    assert {name: [row.id for row in each] for name, each in dealt.items()} == {"Oost": ["1", "3"], "West": ["0", "2"]}
    assert patients_in(dealt) == 2  # one patient, known to both


def test_rows_as_admissions() -> None:
    dataset = to_dataset(rows(3))
    assert (len(dataset), len(dataset.patients)) == (6, 3)
    assert dataset.admission_ids == ("0-0", "1-0", "2-0", "0-1", "1-1", "2-1")
    assert dataset.patient_index.tolist() == [0, 1, 2, 0, 1, 2]
    assert dataset.categories == ("H25", "I10", "K40", "I10", "K40", "M17")
