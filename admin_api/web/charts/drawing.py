"""What charts are drawn with: scales, marks, labels that do not cover each other, and the SVG around them.

Coordinates have one decimal, so the same numbers give the same bytes. Classes are those of zegel.css.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from markupsafe import Markup, escape

from admin_api.web.language import current

WIDTH = 640  # units of the view box; drawn at about as many pixels
BROAD = 880  # of charts with a cell per round
LABEL = 152  # room for names on the left
VALUE = 136  # room for figures on the right
ROW = 28
_CHARACTER = 7.2  # a wide guess at a character's width
_LINE = 16  # least distance between two labels


@dataclass(frozen=True)
class Table:
    """The figures behind a chart, as `c.table` takes them."""

    caption: str
    columns: Sequence[Mapping[str, Any]]
    rows: Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Chart:
    """A drawing and its figures."""

    svg: Markup
    table: Table

    def __html__(self) -> str:
        return self.svg


def end_labels(x: float, labels: Sequence[tuple[float, str, str]], top: float, bottom: float) -> list[str]:
    """Labels at the right ends, moved apart until none covers another. Each: height, words, class."""
    placed: list[float] = []
    ordered = sorted(labels, key=lambda each: each[0])
    for y, _words, _kind in ordered:
        placed.append(max(y, placed[-1] + _LINE) if placed else max(y, top))
    overflow = placed[-1] - (bottom + 4) if placed else 0.0
    if overflow > 0:
        placed[-1] -= overflow
        for i in range(len(placed) - 2, -1, -1):
            placed[i] = min(placed[i], placed[i + 1] - _LINE)
    parts: list[str] = []
    for y, (_y, words, kind) in zip(placed, ordered, strict=True):
        hued = kind.startswith("hue")
        text = label(x, y + 4.5, words, "" if hued else kind)
        parts.append(f'<g class="{kind}">{text}</g>' if hued else text)
    return parts


def svg(title: str, described: str, height: float, parts: Sequence[str], *, broad: bool = False) -> Markup:
    """The drawing with its title and description, for those who do not see it."""
    kind, width = ("broad", BROAD) if broad else ("drawn", WIDTH)
    return Markup(  # noqa: S704 - numbers, classes of this module, and texts escaped where they were put in
        f'<svg class="chart {kind}" viewBox="0 0 {width} {height:.0f}" role="img" xmlns="http://www.w3.org/2000/svg">'
        f"<title>{escape(title)}</title><desc>{escape(described)}</desc>" + "".join(parts) + "</svg>"
    )


def label(x: float, y: float, words: str, kind: str = "") -> str:
    """Text that begins at x (`middle` and `end` among the classes `kind` move it), on the base line y; escaped."""
    classes = f' class="{kind}"' if kind else ""
    return f'<text{classes} x="{x:.1f}" y="{y:.1f}">{escape(words)}</text>'


def rect(kind: str, x: float, y: float, width: float, height: float) -> str:
    """A rectangle; a negative extent is none."""
    return (
        f'<rect class="{kind}" x="{x:.1f}" y="{y:.1f}" width="{max(width, 0.0):.1f}" height="{max(height, 0.0):.1f}"/>'
    )


def line(kind: str, x1: float, y1: float, x2: float, y2: float) -> str:
    """A line."""
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def path(points: Sequence[tuple[float, float]]) -> str:
    """Coordinates as polygons and polylines take them."""
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    """The place on the drawing of a value between `low` and `high`."""
    span = (high - low) or 1.0
    return lambda value: start + (end - start) * (value - low) / span


def grid_y(
    left: float, right: float, y_at: Callable[[float], float], marks: Sequence[float], write: Callable[[float], str]
) -> list[str]:
    """Lines across at the marks, each with its value on the left."""
    parts: list[str] = []
    for mark in marks:
        parts.append(line("grid", left, y_at(mark), right, y_at(mark)))
        parts.append(label(left - 8, y_at(mark) + 4.5, write(mark), "soft-text end"))
    return parts


def day_marks(start: float, end: float, x_at: Callable[[float], float], bottom: float) -> list[str]:
    """The days at the start, the middle and the end of a time axis; both ends in seconds since 1970."""
    parts: list[str] = []
    for share, kind in ((0.0, ""), (0.5, "middle"), (1.0, "end")):
        moment = start + (end - start) * share
        day = datetime.fromtimestamp(moment, UTC).date().isoformat()
        if parts and f">{day}<" in parts[-1]:
            continue  # a short time: the day is said already
        parts.append(label(x_at(moment), bottom + 22, day, f"soft-text {kind}".strip()))
    return parts


def even_marks(low: float, high: float) -> list[float]:
    """About five round marks that cover `low` to `high`."""
    if not high > low:
        high = low + 1.0
    step = _step((high - low) / 4)
    first = math.floor(low / step + 1e-9)
    last = math.ceil(high / step - 1e-9)
    return [round(step * i, 12) for i in range(first, last + 1)]


def marks_inside(low: float, high: float, *, whole: bool = False) -> list[float]:
    """Round marks between `low` and `high`; only whole numbers when `whole`."""
    if not high > low:
        return [low]
    step = _step((high - low) / 5)
    if whole:
        step = float(max(math.ceil(step), 1))
    return [round(step * i, 12) for i in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def writer(marks: Sequence[float], *, percent: bool = False) -> Callable[[float], str]:
    """How the marks of an axis are written: all with the decimals that tell neighbours apart."""
    said = current()
    apart = (marks[1] - marks[0] if len(marks) > 1 else abs(marks[0]) or 1.0) * (100 if percent else 1)
    decimals = next((n for n in range(6) if abs(apart - round(apart, n)) < 1e-9 * apart), 6)
    return lambda value: said.percent(value, decimals) if percent else said.number(value, decimals)


def _step(rough: float) -> float:
    power = 10.0 ** math.floor(math.log10(rough))
    return next(power * factor for factor in (1, 2, 2.5, 5, 10) if rough <= power * factor * (1 + 1e-9))


def round_up(value: float) -> float:
    """The first round mark that is at least `value`."""
    return even_marks(0.0, value)[-1] if value > 0 else 1.0


def ticks(last: int) -> list[int]:
    """About six round numbers from 1 to `last`, both among them."""
    if last <= 10:
        return list(range(1, last + 1))
    step = max(int(_step(last / 5)), 1)
    ticks = [1, *range(step, last, step)]
    if last - ticks[-1] < step / 2:
        ticks.pop()
    return [*ticks, last]


def some(value: float | None) -> list[float]:
    """A list of the value, if there is one."""
    return [] if value is None else [value]


def cut(words: str, most: int) -> str:
    """The label, or its beginning and an ellipsis."""
    return words if len(words) <= most else words[: most - 1] + "\u2026"


def name(words: str) -> Markup:
    """A name as it fits on the left, escaped."""
    return escape(cut(words, int(LABEL / _CHARACTER) - 1))
