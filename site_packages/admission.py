"""One day admission with its letters: the value that importers make and the data set stores.

Invariants:
- an admission has at least one letter, and its letters are in date order;
- `category` is the first three characters of `code`, `chapter` the roman numeral of its ICD-10 chapter;
- everything here is private data and stays at the hospital.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date

LETTER_KINDS = (
    "Ontslagbrief",
    "OK-verslag",
    "Poli-brief",
    "PA-verslag",
    "Scopieverslag",
    "PCI/CAG-verslag",
    "SEH-verslag",
    "Radiologieverslag",
    "MDO-verslag",
    "Unknown",
)
"""The document types of DHD's documents table."""

SEXES = ("female", "male", "other", "unknown")


@dataclass(frozen=True, slots=True)
class Letter:
    """One document about an admission."""

    kind: str  # one of LETTER_KINDS
    specialty: str  # Vektis COD016 code as given
    date: date  # of publication
    text: str


@dataclass(frozen=True, slots=True)
class Admission:
    """One admission with its principal diagnosis."""

    patient_id: str
    admission_id: str
    admission_date: date
    discharge_date: date
    age: int  # whole years at admission, 0..130
    sex: str  # one of SEXES
    urgency: bool | None  # None = not recorded
    specialty: str  # Vektis COD016 codes; several are joined by ";"
    letters: tuple[Letter, ...]
    code: str  # upper case with dot, as in the code table
    category: str  # three characters
    chapter: str  # "I".."XXII"


def joined_text(letters: Iterable[tuple[str, str]]) -> str:
    """All letters of one admission as the one text a model reads.

    Args:
        letters: (kind, text) pairs in date order.

    Returns:
        The texts separated by an empty line, each after a line `[kind]`, so a model can tell an
        operation report from a discharge letter and an explanation can point back to its letter.
    """
    return "\n\n".join(f"[{kind}]\n{text.strip()}" for kind, text in letters)
