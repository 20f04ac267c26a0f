"""The text of one synthetic letter.

A letter is a list of headed sections; each section draws phrases with a chance per slot. What the true
condition adds is spread thin over many phrases, shared in part with its siblings; history, family history,
negations and differential diagnoses speak of other conditions in the same words. So no single word decides,
but all words together do.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from site_packages.sample.condition import Condition, conditions
from site_packages.sample.dice import Dice, Weighted
from site_packages.sample.style import Style, abbreviate, mistype, pick_phrase

MARK = "SYNTHETISCHE BRIEF - geen echte patiënt"
"""First line of every generated letter; an import that finds it labels the data set synthetic."""

Slots = tuple[tuple[str, float], ...]

_PLAN: dict[str, tuple[tuple[str, Slots], ...]] = {
    "Ontslagbrief": (
        ("reason", (("shared complaint", 0.7), ("complaint", 0.7), ("name", 0.18))),
        ("history", (("history", 0.75), ("history", 0.45), ("comorbidity", 0.6))),
        ("family", (("family history", 0.25),)),
        ("medication", (("medication", 0.5),)),
        ("exam", (("shared finding", 0.7), ("finding", 0.65), ("finding", 0.2), ("negation", 0.55))),
        ("course", (("treatment", 0.7), ("shared treatment", 0.5), ("remark", 0.6))),
        ("conclusion", (("name", 0.46), ("vague", 0.5), ("differential", 0.2))),
        ("plan", (("shared treatment", 0.5), ("remark", 0.8))),
    ),
    "Poli-brief": (
        ("reason", (("shared complaint", 0.8), ("complaint", 0.75), ("complaint", 0.3))),
        ("history", (("history", 0.8), ("history", 0.4), ("comorbidity", 0.5))),
        ("family", (("family history", 0.3),)),
        ("exam", (("finding", 0.65), ("shared finding", 0.6), ("negation", 0.6))),
        ("conclusion", (("differential", 0.5), ("name", 0.3), ("vague", 0.3))),
        ("plan", (("treatment", 0.4), ("remark", 0.7))),
    ),
    "OK-verslag": (
        ("reason", (("name", 0.45), ("vague", 0.4), ("shared complaint", 0.3))),
        ("procedure", (("treatment", 0.85), ("treatment", 0.35), ("shared treatment", 0.6))),
        ("course", (("remark", 0.9), ("finding", 0.3))),
    ),
    "PA-verslag": (
        ("reason", (("differential", 0.5), ("vague", 0.3))),
        ("exam", (("finding", 0.8), ("finding", 0.3), ("negation", 0.4))),
        ("conclusion", (("name", 0.5), ("vague", 0.4))),
    ),
    "Scopieverslag": (
        ("reason", (("shared complaint", 0.6), ("complaint", 0.4), ("differential", 0.25))),
        ("exam", (("finding", 0.8), ("finding", 0.3), ("shared finding", 0.8), ("negation", 0.6))),
        ("procedure", (("treatment", 0.65), ("shared treatment", 0.5))),
        ("conclusion", (("name", 0.4), ("vague", 0.4), ("history", 0.2))),
    ),
    "PCI/CAG-verslag": (
        ("reason", (("complaint", 0.5), ("shared complaint", 0.5))),
        ("exam", (("finding", 0.85), ("negation", 0.3))),
        ("procedure", (("treatment", 0.8), ("remark", 0.5))),
    ),
    "SEH-verslag": (
        ("reason", (("complaint", 0.75), ("complaint", 0.35), ("shared complaint", 0.6))),
        ("history", (("history", 0.8), ("comorbidity", 0.6))),
        ("exam", (("shared finding", 0.7), ("finding", 0.35), ("negation", 0.8))),
        ("conclusion", (("differential", 0.8),)),
    ),
    "Radiologieverslag": (
        ("reason", (("complaint", 0.45), ("differential", 0.5))),
        ("exam", (("finding", 0.75), ("negation", 0.8), ("shared finding", 0.3))),
        ("conclusion", (("vague", 0.6), ("name", 0.25))),
    ),
    "MDO-verslag": (
        ("history", (("history", 0.7), ("complaint", 0.3))),
        ("exam", (("finding", 0.6), ("shared finding", 0.3))),
        ("conclusion", (("name", 0.4), ("differential", 0.5))),
        ("plan", (("treatment", 0.4), ("remark", 0.5))),
    ),
    "Unknown": (("course", (("remark", 1.0), ("shared treatment", 0.5), ("complaint", 0.4))),),
}

_SPECIFIC = ("name", "complaint", "finding", "treatment")

_HISTORY = (
    "{jaar} {naam}",
    "in {jaar} behandeld voor {naam}",
    "{naam}, {jaar}, toen {behandeling}",
    "status na {behandeling} ({jaar})",
    "bekend met {naam}",
    "{jaar} wegens {klacht} gezien, {behandeling}",
)
_FAMILY = (
    "moeder had {naam}",
    "vader bekend met {naam}",
    "zus met {naam}",
    "broer onder behandeling voor {naam}",
    "familie belast: {naam}",
)
_NEGATION = (
    "geen aanwijzingen voor {naam}",
    "geen tekenen van {naam}",
    "niet passend bij {naam}",
    "geen {klacht}",
    "{naam} uitgesloten",
    "ontkent: {klacht}",
)
_DIFFERENTIAL = (
    "DD {naam}, {ander}",
    "mogelijk {naam}, differentiaaldiagnostisch {ander}",
    "vraagstelling: {naam}? {ander}?",
    "werkdiagnose {naam}, dd {ander}",
)
_VAGUE = (
    "beeld passend bij bovenstaande",
    "zoals bekend, zie eerdere correspondentie",
    "ingreep volgens afspraak",
    "geplande dagopname, zie poliklinische brief",
    "conform verwachting",
    "uitslag volgt",
)
_COMORBIDITY = (
    "hypertensie",
    "diabetes mellitus type 2",
    "hypercholesterolemie",
    "COPD Gold II",
    "hypothyreoïdie",
    "astma in jeugd",
    "appendectomie",
    "depressie",
    "obesitas",
    "migraine",
    "geen relevante comorbiditeit",
    "blanco",
    "allergie voor penicilline",
)
_MEDICATION = (
    "metoprolol 50 mg",
    "simvastatine 40 mg",
    "metformine 500 mg",
    "pantoprazol 20 mg",
    "amlodipine 5 mg",
    "acetylsalicylzuur 80 mg",
    "levothyroxine",
    "salbutamol zo nodig",
    "geen",
    "paracetamol zo nodig",
    "vitamine D",
    "losartan 50 mg",
)
_REMARK = (
    "Procedure zonder complicaties.",
    "Patiënt kon dezelfde dag in goede conditie naar huis.",
    "Instructies schriftelijk meegegeven.",
    "Opname op de dagbehandeling verliep ongestoord.",
    "Vitale functies stabiel.",
    "Time-out verricht.",
    "Bij koorts of toename van pijn contact opnemen.",
    "Antistolling volgens protocol hervat.",
    "Begeleiding aanwezig voor vervoer.",
    "Poliklinische controle is afgesproken.",
    "Patiënt was nuchter.",
    "Geen bloedverlies van betekenis.",
    "Goed hersteld op de verkoeverkamer.",
    "Er werd informed consent verkregen.",
)


@dataclass(frozen=True)
class Case:
    """What the letters of one admission have in common."""

    condition: Condition
    year: int
    clarity: float  # 0..1: how much the letters say about the condition itself
    side: int  # 0 right, 1 left, 2 both
    earlier: tuple[str, ...]  # categories of the patient's earlier admissions


class LetterWriter:
    """Writes letters in one hospital's style, with the hospital's own case mix as background."""

    def __init__(self, dice: Dice, style: Style, background: Weighted) -> None:
        self._dice = dice
        self._style = style
        self._background = background
        self._case: Case | None = None
        self._slots: dict[str, Callable[[Case], str]] = {
            "name": lambda case: self._phrase(case.condition.names),
            "complaint": lambda case: self._phrase(self._speaker(case).own.complaints),
            "finding": lambda case: self._phrase(self._speaker(case).own.findings),
            "treatment": lambda case: self._phrase(case.condition.own.treatment),
            "shared complaint": lambda case: self._phrase(case.condition.shared.complaints),
            "shared finding": lambda case: self._phrase(case.condition.shared.findings),
            "shared treatment": lambda case: self._phrase(case.condition.shared.treatment),
            "history": lambda case: self._about(_HISTORY, self._other(case, from_history=True), case),
            "family history": lambda case: self._about(_FAMILY, self._other(case), case),
            "negation": lambda case: self._about(_NEGATION, self._rival(case), case),
            "differential": self._differential,
            "vague": lambda _: dice.pick(_VAGUE),
            "comorbidity": lambda _: dice.pick(_COMORBIDITY),
            "medication": lambda _: f"{dice.pick(_MEDICATION)}, {dice.pick(_MEDICATION)}",
            "remark": lambda _: dice.pick(_REMARK).rstrip("."),
        }

    def write(self, kind: str, case: Case) -> str:
        """The text of a letter of this kind, beginning with the mark that it is synthetic."""
        dice, style = self._dice, self._style
        lines: list[str] = [style.greeting] if style.greeting and kind in ("Ontslagbrief", "Poli-brief") else []
        for heading, slots in _PLAN[kind]:
            said: list[str] = []
            for slot, chance in slots:
                if dice.chance(chance * case.clarity if slot in _SPECIFIC else chance):
                    phrase = self._slots[slot](case)
                    if phrase not in said:
                        said.append(phrase)
            if said:
                lines.append(self._section(style.headings[heading], said, case))
        if not lines:
            lines.append(dice.pick(_REMARK))
        return f"{MARK}\n{mistype(dice, style, abbreviate(dice, style, chr(10).join(lines)))}"

    def _section(self, heading: str, said: list[str], case: Case) -> str:
        side = self._style.sides[case.side]
        if self._style.telegram:
            return f"{heading} {', '.join(said).replace('{z}', side).lower()}"
        text = ". ".join(phrase[0].upper() + phrase[1:] for phrase in said).replace("{z}", side)
        return f"{heading}: {text}."

    def _phrase(self, phrases: tuple[str, ...]) -> str:
        return pick_phrase(self._dice, self._style, phrases)

    def _speaker(self, case: Case) -> Condition:
        """The condition a complaint or finding is taken from: now and then a sibling's."""
        return conditions()[self._rival_of(case)] if self._dice.chance(0.1) else case.condition

    def _rival_of(self, case: Case) -> str:
        return self._dice.pick(case.condition.confused)

    def _rival(self, case: Case) -> Condition:
        """What the writer rules out: mostly what the condition is confused with."""
        return conditions()[self._rival_of(case)] if self._dice.chance(0.55) else self._other(case)

    def _other(self, case: Case, *, from_history: bool = False) -> Condition:
        """A condition of other admissions: the patient's own earlier ones, or any the hospital sees."""
        if from_history and case.earlier and self._dice.chance(0.6):
            return conditions()[self._dice.pick(case.earlier)]
        for _ in range(4):
            category = self._background.draw(self._dice)
            if category != case.condition.category:
                break
        return conditions()[category]

    def _about(self, templates: tuple[str, ...], other: Condition, case: Case) -> str:
        template = self._dice.pick(templates)
        return template.format(
            naam=self._phrase(other.names),
            klacht=self._phrase(other.own.complaints),
            behandeling=self._phrase(other.own.treatment),
            jaar=case.year - self._dice.between(1, 14),
        )

    def _differential(self, case: Case) -> str:
        own, rival = self._phrase(case.condition.names), self._phrase(self._rival(case).names)
        if self._dice.chance(0.2 + 0.3 * (1 - case.clarity)):
            own = self._phrase(self._rival(case).names)
        first, second = (own, rival) if self._dice.chance(0.5) else (rival, own)
        return self._dice.pick(_DIFFERENTIAL).format(naam=first, ander=second)
