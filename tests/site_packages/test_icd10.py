"""Spelling and chapters of ICD-10 codes."""

from __future__ import annotations

import pytest

from site_packages.errors import CodeRefusedError
from site_packages.icd10 import chapter_of, parse_code, title_of, who_table


@pytest.mark.parametrize(
    ("text", "code", "marks"),
    [
        ("H25.1", "H25.1", ""),
        ("h251", "H25.1", ""),
        (" h25.1 ", "H25.1", ""),
        ("G35", "G35", ""),
        ("M01.0*", "M01.0", "*"),
        ("A39.0+", "A39.0", "+"),
        ("A17.0†", "A17.0", "†"),
        ("a170 †", "A17.0", "†"),
        ("S8210", "S82.10", ""),
    ],
)
def test_one_spelling(text: str, code: str, marks: str) -> None:
    written = parse_code(text)
    assert (written.code, written.marks, written.category) == (code, marks, code[:3])


@pytest.mark.parametrize(
    "text", ["", "H", "H2", "25.1", "HH5", "H25.", "H25.123", "K50-K52", "XI", "H25.1 H26", "H25.A"]
)
def test_malformed(text: str) -> None:
    with pytest.raises(CodeRefusedError) as refused:
        parse_code(text)
    assert refused.value.reason == "code_malformed"


def test_chapters_agree_with_who_for_every_category() -> None:
    who = who_table()
    categories = [c for c in who.get_all_codes() if len(c) == 3 and c[1:].isdigit()]
    assert len(categories) > 2000
    wrong = [c for c in categories if chapter_of(c) != who.get_ancestors(c)[-1]]
    assert wrong == []


@pytest.mark.parametrize("category", ["D90", "E91", "H96", "T99", "Y99"])
def test_between_the_chapters(category: str) -> None:
    with pytest.raises(CodeRefusedError):
        chapter_of(category)


def test_titles() -> None:
    assert title_of("H25") == "Senile cataract"
    assert title_of("VII") == "Diseases of the eye and adnexa"
    with pytest.raises(CodeRefusedError, match="not in ICD-10"):
        title_of("H29")
