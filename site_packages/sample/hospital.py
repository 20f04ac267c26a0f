"""One synthetic hospital: its case mix, patients, admissions and letters.

Same seed, same number of hospitals, same hospital: same records, on every machine. The records of hospital
k do not depend on the other hospitals, except that the last of two or more is the shifted one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import date, timedelta
from math import sqrt

from site_packages.errors import SampleError
from site_packages.sample.condition import Condition, conditions
from site_packages.sample.dice import Dice, Weighted
from site_packages.sample.letter_text import Case, LetterWriter
from site_packages.sample.style import style_of

FIRST_YEAR = 2021
YEARS = 5
_FIRST_DAY = date(FIRST_YEAR, 1, 1)
_DAYS = (date(FIRST_YEAR + YEARS, 1, 1) - _FIRST_DAY).days
_MOST_ADMISSIONS = 9  # of one patient under one code

# days from admission to publication, earliest and latest
_PUBLISHED = {
    "Ontslagbrief": (0, 3),
    "OK-verslag": (0, 0),
    "Poli-brief": (-25, -1),
    "PA-verslag": (2, 9),
    "Scopieverslag": (0, 0),
    "PCI/CAG-verslag": (0, 0),
    "SEH-verslag": (0, 0),
    "Radiologieverslag": (-10, 0),
    "MDO-verslag": (-7, 7),
    "Unknown": (0, 5),
}
_ANY_KIND = ("Poli-brief", "Radiologieverslag", "SEH-verslag", "MDO-verslag", "Unknown")
_SECONDARY = ("I10", "E11.9", "J44.9", "E78.0", "Z92.1", "E03.9", "Z88.0", "F32.9")
_WRITERS = {"PA-verslag": "0388", "Radiologieverslag": "0362"}


@dataclass(frozen=True)
class SampleLetter:
    """One generated letter."""

    kind: str
    specialty: str
    date: date
    text: str
    has_admission_id: bool


@dataclass(frozen=True)
class SampleAdmission:
    """One generated admission."""

    patient_id: str
    admission_id: str
    date: date
    age: int  # years
    female: bool
    urgent: bool
    specialty: str
    code: str  # as recorded
    true_code: str  # differs from `code` where the record is wrong
    secondary: tuple[str, ...]
    letters: tuple[SampleLetter, ...]


@dataclass(frozen=True)
class HospitalSample:
    """One generated hospital."""

    name: str
    shifted: bool
    admissions: tuple[SampleAdmission, ...]  # by date, then admission id


def generate_hospital(seed: int, number: int, *, hospitals: int, admissions: int) -> HospitalSample:
    """Generate one hospital's admissions.

    Args:
        seed: of the whole sample.
        number: 1..hospitals; with two or more hospitals the last one is shifted.
        admissions: exact number of admissions, 1 or more.

    Raises:
        SampleError: a number out of range.
    """
    if not 1 <= number <= hospitals:
        raise SampleError(f"the hospital's number must be 1..{hospitals}, got {number}")
    if admissions < 1:
        raise SampleError(f"a hospital needs at least 1 admission, got {admissions}")
    shifted = hospitals > 1 and number == hospitals
    dice = Dice(f"zegel sample {seed} hospital {'shifted' if shifted else number}")
    maker = _Maker(dice, number, shifted=shifted)
    made: list[SampleAdmission] = []
    patient = 0
    while len(made) < admissions:
        patient += 1
        made.extend(maker.patient(patient)[: admissions - len(made)])
    made.sort(key=lambda a: (a.date, a.admission_id))
    # a fixed number of wrong codes, so that a small sample too has its 3 to 8%
    for index in dice.shuffled(range(admissions))[: round(maker.wrong_rate * admissions)]:
        made[index] = replace(made[index], code=maker.wrong_code(made[index]))
    return HospitalSample(f"hospital-{number}", shifted, tuple(made))


class _Maker:
    """Makes one hospital's patients in turn."""

    def __init__(self, dice: Dice, number: int, *, shifted: bool) -> None:
        self._dice = dice
        self._number = number
        self._shifted = shifted
        mix = _case_mix(dice, shifted=shifted)
        self._mix = Weighted(mix)
        # a condition that brings patients back needs fewer patients for the same share of admissions
        self._new_patient = Weighted({c: w * (1 - 0.8 * conditions()[c].repeats) for c, w in mix.items()})
        self.wrong_rate = 0.035 + 0.035 * dice.roll()
        self._writer = LetterWriter(dice, style_of(dice, shifted=shifted), self._mix)
        self._last_admission = 100000 * number

    def patient(self, index: int) -> list[SampleAdmission]:
        """All admissions of one new patient, in date order."""
        dice = self._dice
        condition = conditions()[self._new_patient.draw(dice)]
        female = dice.chance(condition.female)
        age = dice.around(*condition.age)
        side = dice.below(3) if dice.chance(0.3) else dice.below(2)
        patient_id = f"P{self._number:02d}{index:06d}"
        day = dice.below(_DAYS)
        first_day = day
        earlier: list[str] = []
        made: list[SampleAdmission] = []
        while day < _DAYS and len(made) < _MOST_ADMISSIONS:
            on = _FIRST_DAY + timedelta(days=day)
            years = age + (day - first_day) // 365
            made.append(self._admission(patient_id, condition, on, years, female, side, tuple(earlier)))
            earlier.append(condition.category)
            if dice.chance(condition.repeats * 0.85):
                day += dice.between(14, 70)
            elif dice.chance(0.14):
                condition = self._another(condition, years, female)
                day += dice.between(45, 500)
            else:
                break
        return made

    def _another(self, condition: Condition, age: int, female: bool) -> Condition:
        for _ in range(30):
            other = conditions()[self._mix.draw(self._dice)]
            if other.category != condition.category and other.suits(age=age, female=female):
                return other
        return condition

    def _admission(
        self,
        patient_id: str,
        condition: Condition,
        on: date,
        age: int,
        female: bool,
        side: int,
        earlier: tuple[str, ...],
    ) -> SampleAdmission:
        dice = self._dice
        self._last_admission += 1
        urgent = dice.chance(0.7 if "SEH-verslag" in condition.kinds else 0.05)
        true_code = Weighted(dict(condition.codes)).draw(dice)
        return SampleAdmission(
            patient_id=patient_id,
            admission_id=f"A{self._last_admission}",
            date=on,
            age=age,
            female=female,
            urgent=urgent,
            specialty=condition.specialty,
            code=true_code,
            true_code=true_code,
            secondary=tuple(dice.shuffled(_SECONDARY)[: max(0, dice.between(-2, 2))]),
            letters=self._letters(condition, on, side, urgent, earlier),
        )

    def wrong_code(self, admission: SampleAdmission) -> str:
        """A code of another category: mostly one the condition is confused with."""
        dice, condition = self._dice, conditions()[admission.true_code[:3]]
        category = dice.pick(condition.confused) if dice.chance(0.7) else self._mix.draw(dice)
        if category == condition.category:
            category = condition.confused[0]
        return Weighted(dict(conditions()[category].codes)).draw(dice)

    def _letters(
        self, condition: Condition, on: date, side: int, urgent: bool, earlier: tuple[str, ...]
    ) -> tuple[SampleLetter, ...]:
        dice = self._dice
        wanted = int(Weighted({"1": 16, "2": 36, "3": 28, "4": 14, "5": 6}).draw(dice))
        if self._shifted:
            wanted = max(1, wanted - dice.below(2))
        own = dice.shuffled(condition.kinds)
        kinds = ["Ontslagbrief", *own] if dice.chance(0.8) else [*own, "Ontslagbrief"]
        if urgent and "SEH-verslag" not in kinds:
            kinds.insert(1, "SEH-verslag")
        kinds += [kind for kind in dice.shuffled(_ANY_KIND) if kind not in kinds]
        # a few admissions are hardly described at all, as in real files
        clarity = (1.0, 0.72, 0.42)[0 if dice.chance(0.7) else 1 if dice.chance(0.75) else 2]
        case = Case(condition, on.year, clarity, side, earlier)
        letters = []
        for position, kind in enumerate(kinds[:wanted]):
            published = on + timedelta(days=dice.between(*_PUBLISHED[kind]))
            letters.append(
                SampleLetter(
                    kind=kind,
                    specialty=_WRITERS.get(kind, condition.specialty),
                    date=published,
                    text=self._writer.write(kind, case),
                    has_admission_id=position == 0 or not dice.chance(0.25),
                )
            )
        return tuple(letters)


def _case_mix(dice: Dice, *, shifted: bool) -> dict[str, float]:
    """Weights of the categories at one hospital: every hospital has its own strong and weak specialties."""
    reach = 0.85 if shifted else 0.55  # how far a specialty's share is moved
    of_specialty = {
        specialty: _tilt(dice, reach) for specialty in dict.fromkeys(c.specialty for c in conditions().values())
    }
    mix: dict[str, float] = {}
    for category, condition in conditions().items():
        # the exponent of 1.5 makes a few conditions fill much of the day ward, as they do
        share = condition.weight * sqrt(condition.weight) * of_specialty[condition.specialty] * _tilt(dice, reach)
        if not dice.chance(0.12 if condition.weight < 1.5 else 0.0):  # small hospitals do not do everything
            mix[category] = share
    return mix


def _tilt(dice: Dice, reach: float) -> float:
    """A factor around 1: evenly spread between 1 / (1 + 2 reach) and 1 + 2 reach on either side of 1."""
    factor = 1 + 2 * reach * dice.roll()
    return factor if dice.chance(0.5) else 1 / factor
