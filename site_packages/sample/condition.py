"""The vocabulary of the synthetic sample: what letters say about each condition.

The phrases are invented for this project and stand in `vocabulary/*.toml`. For each three-character category:
title, ICD-10 codes with weights, weight (its share in an average hospital), specialty (Vektis COD016), the
family whose phrases it shares with its siblings, age (low, mode, high), share of women, kinds of letters it
brings, chance of a next admission under the same code, the categories it is confused with, and its phrases:
names, complaints, findings and treatment, parted by `|`. `{z}` stands for a side of the body.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

VOCABULARY = ("head", "abdomen", "body", "inner")


@dataclass(frozen=True)
class Phrases:
    """Phrases by what they are about."""

    complaints: tuple[str, ...]
    findings: tuple[str, ...]
    treatment: tuple[str, ...]


@dataclass(frozen=True)
class Condition:
    """One three-character category of day admissions."""

    category: str
    title: str  # Dutch title, as a coder knows it
    codes: Mapping[str, float]
    weight: float
    specialty: str
    age: tuple[int, int, int]  # low, mode, high; years
    female: float  # 0..1
    kinds: tuple[str, ...]
    repeats: float  # chance of one more admission under the same code
    confused: tuple[str, ...]
    names: tuple[str, ...]
    own: Phrases
    shared: Phrases  # of its family

    def suits(self, *, age: int, female: bool) -> bool:
        """Whether a person of this age and sex can have the condition."""
        return self.age[0] - 5 <= age <= self.age[2] and (self.female > 0 if female else self.female < 1)


@cache
def conditions() -> dict[str, Condition]:
    """All conditions by category, in the order of the vocabulary files."""
    raw: dict[str, Any] = {}
    families: dict[str, Phrases] = {}
    for name in VOCABULARY:
        text = resources.files(__package__).joinpath("vocabulary", f"{name}.toml").read_text(encoding="utf-8")
        tables = tomllib.loads(text)
        for family, phrases in tables.pop("family").items():
            families[family] = _phrases(phrases)
        raw.update(tables)
    return {category: _condition(category, table, families) for category, table in raw.items()}


def _condition(category: str, table: Mapping[str, Any], families: Mapping[str, Phrases]) -> Condition:
    low, mode, high = table["age"]
    return Condition(
        category=category,
        title=table["title"],
        codes=table["codes"],
        weight=table["weight"],
        specialty=table["specialty"],
        age=(low, mode, high),
        female=table["female"],
        kinds=_parts(table["kinds"]),
        repeats=table["repeats"],
        confused=tuple(table["confused"].split()),
        names=_parts(table["names"]),
        own=_phrases(table),
        shared=families[table["family"]],
    )


def _phrases(table: Mapping[str, str]) -> Phrases:
    return Phrases(_parts(table["complaints"]), _parts(table["findings"]), _parts(table["treatment"]))


def _parts(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split("|"))
