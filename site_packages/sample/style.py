"""How a hospital writes: headings, abbreviations, typing errors.

Most hospitals share their habits with small differences. One hospital writes in telegram style, with other
headings, other abbreviations and other words for the same thing: a model trained elsewhere meets it as a
stranger.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from site_packages.sample.dice import Dice

_FULL = {
    "reason": "Reden van opname",
    "history": "Voorgeschiedenis",
    "family": "Familieanamnese",
    "medication": "Medicatie",
    "exam": "Onderzoek",
    "course": "Beloop",
    "procedure": "Verrichting",
    "conclusion": "Conclusie",
    "plan": "Beleid",
}
_SHORT = {
    "reason": "Anamnese",
    "history": "VG",
    "family": "Fam. anamnese",
    "medication": "Med",
    "exam": "LO en aanvullend onderzoek",
    "course": "Opnameverloop",
    "procedure": "Operatie",
    "conclusion": "Diagnose",
    "plan": "Advies en nabehandeling",
}
_SPOKEN = {
    "reason": "Klachten",
    "history": "Relevante voorgeschiedenis",
    "family": "In de familie",
    "medication": "Thuismedicatie",
    "exam": "Bevindingen",
    "course": "Verloop dagopname",
    "procedure": "Procedure",
    "conclusion": "Samenvatting en conclusie",
    "plan": "Afspraken",
}
_TELEGRAM = {
    "reason": "a/",
    "history": "vg-",
    "family": "fa-",
    "medication": "m/",
    "exam": "o/",
    "course": "dd.dag:",
    "procedure": "ok/",
    "conclusion": "c/",
    "plan": "b/",
}

_COMMON = {
    "in verband met": "i.v.m.",
    "beiderzijds": "bdz",
    "status na": "st. na",
    "patiënt": "pt",
    "tweemaal daags": "2dd",
    "geen afwijkingen": "g.a.",
}
_TELEGRAPHIC = {
    **_COMMON,
    "driemaal daags": "3dd",
    "zonder": "z.",
    "verwijderd": "verw.",
    "onder": "o.",
    "bovenbeen": "bb",
    "geplaatst": "gepl.",
    "voorgeschiedenis": "vg",
    "operatie": "ok",
    "coloscopie": "scopie",
    "poliepectomie": "pp",
    "poliep": "pol.",
    "carcinoom": "ca",
    "chronische": "chron.",
    "recidiverende": "rec.",
    "recidief": "rec.",
    "ziekte van": "m.",
    "aandoening": "afw.",
    "bloedverlies": "bv",
    "controle": "co",
    "over zes weken": "6w",
    "over drie weken": "3w",
    "over een jaar": "1jr",
    "fractuur": "#",
    "syndroom": "sy",
    "anemie": "an.",
    "injectie": "inj",
    "infuus": "iv",
    "positief": "+",
    "negatief": "-",
    "verhoogd": "^",
    "pijnlijk": "pijnl",
    "linker": "li",
    "rechter": "re",
    "intraveneus": "iv",
    "algehele anesthesie": "aa",
    "lokale verdoving": "lok",
    "met": "m",
    "van de": "vd",
    "van het": "vh",
}


@dataclass(frozen=True)
class Style:
    """One hospital's way of writing."""

    headings: Mapping[str, str]
    abbreviations: Mapping[str, str]
    abbreviates: float  # chance that an abbreviation is used where it could be
    telegram: bool
    typo_rate: float  # typing errors per word
    sides: tuple[str, str, str]  # right, left, both
    greeting: str
    favours_last: bool  # of the words for one thing, uses the last ones most, not the first ones


def style_of(dice: Dice, *, shifted: bool) -> Style:
    """The writing style of one hospital."""
    if shifted:
        return Style(_TELEGRAM, _TELEGRAPHIC, 0.85, True, 0.02, ("re", "li", "bdz"), "", True)
    return Style(
        headings=dice.pick((_FULL, _SHORT, _SPOKEN)),
        abbreviations=_COMMON,
        abbreviates=0.2 + 0.5 * dice.roll(),
        telegram=False,
        typo_rate=0.006 + 0.008 * dice.roll(),
        sides=dice.pick((("rechts", "links", "beiderzijds"), ("re", "li", "bdz"), ("rechts", "links", "bdz"))),
        greeting=dice.pick(("Geachte collega,", "Beste collega,", "Geachte heer, mevrouw,")),
        favours_last=False,
    )


def pick_phrase(dice: Dice, style: Style, phrases: tuple[str, ...]) -> str:
    """One of the phrases, by the hospital's preference for the first or the last ones."""
    first, second = dice.below(len(phrases)), dice.below(len(phrases))
    chosen = max(first, second) if style.favours_last else min(first, second)
    # half of the choices are free, so that every hospital uses every word now and then
    return phrases[chosen if dice.chance(0.5) else first]


def abbreviate(dice: Dice, style: Style, text: str) -> str:
    """The text with some of the hospital's abbreviations."""
    pattern = re.compile("|".join(rf"\b{re.escape(word)}\b" for word in style.abbreviations))

    def shorten(match: re.Match[str]) -> str:
        return style.abbreviations[match.group()] if dice.chance(style.abbreviates) else match.group()

    return pattern.sub(shorten, text)


def mistype(dice: Dice, style: Style, text: str) -> str:
    """The text with a few typing errors: two letters swapped, one left out, one doubled."""
    words = text.split(" ")
    expected = len(words) * style.typo_rate
    errors = int(expected) + dice.chance(expected - int(expected))
    for _ in range(errors):
        index = dice.below(len(words))
        word = words[index]
        if len(word) < 5 or not word.isalpha():
            continue
        at = dice.between(1, len(word) - 3)
        kind = dice.below(3)
        if kind == 0:
            word = word[:at] + word[at + 1] + word[at] + word[at + 2 :]
        elif kind == 1:
            word = word[:at] + word[at + 1 :]
        else:
            word = word[:at] + word[at] + word[at:]
        words[index] = word
    return " ".join(words)
