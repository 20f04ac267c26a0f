"""The chapters of ICD-10, by Roman numeral: each a range of three-character categories.

    >>> chapter_of("I21.4"), chapter_of("D45"), chapter_of("D50"), chapter_of("H60.1")
    ('IX', 'II', 'III', 'VIII')

Source: WHO, ICD-10 volume 1, 2019, list of chapters.
"""

from bisect import bisect_right

_RANGES = (
    ("A00", "B99", "I"),
    ("C00", "D48", "II"),
    ("D50", "D89", "III"),
    ("E00", "E90", "IV"),
    ("F00", "F99", "V"),
    ("G00", "G99", "VI"),
    ("H00", "H59", "VII"),
    ("H60", "H95", "VIII"),
    ("I00", "I99", "IX"),
    ("J00", "J99", "X"),
    ("K00", "K93", "XI"),
    ("L00", "L99", "XII"),
    ("M00", "M99", "XIII"),
    ("N00", "N99", "XIV"),
    ("O00", "O99", "XV"),
    ("P00", "P96", "XVI"),
    ("Q00", "Q99", "XVII"),
    ("R00", "R99", "XVIII"),
    ("S00", "T98", "XIX"),
    ("U00", "U99", "XXII"),
    ("V01", "Y98", "XX"),
    ("Z00", "Z99", "XXI"),
)
_FIRST = tuple(first for first, _, _ in _RANGES)

CHAPTERS: tuple[str, ...] = (*(chapter for _, _, chapter in _RANGES[:19]), "XX", "XXI", "XXII")
"""All chapters, in the order of the classification."""


def chapter_of(code: str) -> str | None:
    """The chapter of a code by its first three characters, or None for what lies in no chapter."""
    category = code[:3]
    index = bisect_right(_FIRST, category) - 1
    if len(category) < 3 or index < 0 or category > _RANGES[index][1]:
        return None
    return _RANGES[index][2]


def chapters_of(codes: tuple[str, ...]) -> tuple[str, ...]:
    """The chapters that occur among the codes, in the order of the classification."""
    found = {chapter_of(code) for code in codes}
    return tuple(chapter for chapter in CHAPTERS if chapter in found)
