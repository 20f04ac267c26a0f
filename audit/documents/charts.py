"""Charts as SVG: intervals per hospital, a line over rounds, a strip of who took part, points of two shares.

Every chart has a title and a description for those who do not see it, labels its marks directly, and is drawn from
numbers that a table beside it repeats. State is a shape as well as a colour. Coordinates have one decimal, so that the
same numbers give the same bytes everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from audit.documents.page import Html, text

WIDTH = 960  # units of the view box; drawn at the page's width
_LABEL = 232  # room for names on the left
_VALUE = 176  # room for figures on the right
_ROW = 24
_CHARACTER = 7.5  # a wide guess at a character's width
_MAX_LABEL = 30  # characters of a name that fit on the left


@dataclass(frozen=True)
class Row:
    """A named value with its interval. `hollow` marks a row of another kind, which `note` names."""

    label: str
    value: float | None
    lower: float | None = None
    upper: float | None = None
    hollow: bool = False
    note: str = ""


@dataclass(frozen=True)
class Point:
    """Two shares of one hospital."""

    label: str
    x: float
    y: float


def intervals(
    title: str,
    description: str,
    rows: Sequence[Row],
    *,
    maximum: float = 1.0,
    reference: float | None = None,
) -> Html:
    """A row per name: a dot and its interval on an axis from 0 to `maximum`, with a line across at `reference`."""
    left, right = _LABEL, WIDTH - _VALUE
    height = _ROW * len(rows) + 40
    bottom = height - 24
    parts = _axis_x(left, right, 8, bottom, maximum)

    def at(value: float) -> float:
        return left + (right - left) * min(max(value / maximum, 0.0), 1.0)

    if reference is not None:
        x = at(reference)
        parts.append(f'<line class="limit" x1="{x:.1f}" y1="4" x2="{x:.1f}" y2="{bottom}"/>')
    for position, row in enumerate(rows):
        y = 8 + _ROW * position + _ROW / 2
        parts.append(f'<text class="end" x="{left - 12}" y="{y + 4.5:.1f}">{_name(row.label)}</text>')
        if row.value is None:
            parts.append(f'<text class="muted" x="{left + 8}" y="{y + 4.5:.1f}">too few to report</text>')
            continue
        if row.lower is not None and row.upper is not None:
            parts.append(
                f'<line class="range" x1="{at(row.lower):.1f}" y1="{y:.1f}" x2="{at(row.upper):.1f}" y2="{y:.1f}"/>'
            )
        kind = "hollow" if row.hollow else "mark"
        parts.append(f'<circle class="{kind}" cx="{at(row.value):.1f}" cy="{y:.1f}" r="4.5"/>')
        note = f' <tspan class="muted">{text(row.note)}</tspan>' if row.note else ""
        parts.append(f'<text x="{right + 12}" y="{y + 4.5:.1f}">{row.value:.3f}{note}</text>')
    return _chart(title, description, height, parts)


def curve(
    title: str,
    description: str,
    points: Sequence[tuple[int, float]],
    *,
    limit: float,
    limit_label: str,
    x_label: str,
) -> Html:
    """A line over rounds, from zero, with a limit drawn across."""
    left, right, top, bottom, height = 72, WIDTH - _VALUE, 16, 216, 264
    ceiling = _round_up(max([limit, *(value for _, value in points)]) * 1.08)
    last = max(points[-1][0], 1)

    def place(number: float, value: float) -> tuple[float, float]:
        return left + (right - left) * number / last, bottom - (bottom - top) * value / ceiling

    parts: list[str] = []
    for tick in range(5):
        value = ceiling * tick / 4
        _, y = place(0, value)
        parts.append(f'<line class="axis" x1="{left}" y1="{y:.1f}" x2="{right}" y2="{y:.1f}"/>')
        parts.append(f'<text class="muted end" x="{left - 10}" y="{y + 4.5:.1f}">{_short(value)}</text>')
    for number in _ticks(last):
        x, _ = place(number, 0)
        parts.append(f'<text class="muted middle" x="{x:.1f}" y="{bottom + 20}">{number}</text>')
    parts.append(f'<text class="muted middle" x="{(left + right) / 2:.1f}" y="{bottom + 40}">{text(x_label)}</text>')
    _, y = place(0, limit)
    parts.append(f'<line class="limit" x1="{left}" y1="{y:.1f}" x2="{right}" y2="{y:.1f}"/>')
    end_x, end_y = place(*points[-1])
    label_y = end_y + 4.5
    limit_y = y + 4.5
    if abs(label_y - limit_y) < 16:  # keep the two labels apart
        limit_y = label_y - 16 if y <= end_y else label_y + 16
    parts.append(f'<text class="muted" x="{right + 12}" y="{limit_y:.1f}">{text(limit_label)}</text>')
    track = [place(0, 0.0), *(place(number, value) for number, value in points)]
    parts.append(f'<polyline class="line" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in track)}"/>')
    parts.append(f'<circle class="mark" cx="{end_x:.1f}" cy="{end_y:.1f}" r="4.5"/>')
    parts.append(f'<text x="{right + 12}" y="{label_y:.1f}">{points[-1][1]:.3f}</text>')
    return _chart(title, description, height, parts)


def strip(
    title: str,
    description: str,
    sites: Sequence[str],
    joined: Sequence[frozenset[str]],
    dropped: Sequence[frozenset[str]],
) -> Html:
    """A row per hospital and a cell per round, or per few rounds when there are many: filled where it took part,
    half where it missed some of them, an outline where it dropped out of all, nothing where it was not asked.
    """
    left, right = _LABEL, WIDTH - _VALUE
    bins = round_bins(len(joined), 90)
    step = (right - left) / max(len(bins), 20)
    gap = 2.0 if step > 6 else 1.0
    row_height = 20 if len(sites) <= 12 else 14
    bottom = 8 + row_height * len(sites)
    parts: list[str] = []
    for row, site in enumerate(sites):
        y = 8 + row_height * row
        parts.append(f'<text class="end" x="{left - 12}" y="{y + row_height / 2 + 3:.1f}">{_name(site)}</text>')
        took = sum(site in one for one in joined)
        parts.append(f'<text x="{right + 12}" y="{y + row_height / 2 + 3:.1f}">{took} of {len(joined)}</text>')
        for column, (first, last) in enumerate(bins):
            kind = _cell(site, joined[first - 1 : last], dropped[first - 1 : last])
            if kind:
                parts.append(
                    f'<rect class="{kind}" x="{left + step * column:.1f}" y="{y + 2}" '
                    f'width="{max(step - gap, 0.8):.1f}" height="{row_height - 4}"/>'
                )
    labels = [position for position in _ticks(len(bins)) if position]
    for position in labels:
        x = left + step * (position - 0.5)
        parts.append(f'<text class="muted middle" x="{x:.1f}" y="{bottom + 18}">{bins[position - 1][0]}</text>')
    return _chart(title, description, bottom + 28, parts)


def points(title: str, description: str, marks: Sequence[Point], *, x_label: str, y_label: str) -> Html:
    """Two shares per hospital; names are written only while they stay readable."""
    left, right, top, bottom, height = 72, WIDTH - _VALUE, 24, 264, 312
    ceiling = min(_round_up(max([0.05, *(mark.y for mark in marks)]) * 1.1), 1.0)
    parts: list[str] = []
    for tick in range(5):
        y = bottom - (bottom - top) * tick / 4
        parts.append(f'<line class="axis" x1="{left}" y1="{y:.1f}" x2="{right}" y2="{y:.1f}"/>')
        parts.append(f'<text class="muted end" x="{left - 10}" y="{y + 4.5:.1f}">{_short(ceiling * tick / 4)}</text>')
        x = left + (right - left) * tick / 4
        parts.append(f'<text class="muted middle" x="{x:.1f}" y="{bottom + 20}">{_short(tick / 4)}</text>')
    parts.append(f'<text class="muted middle" x="{(left + right) / 2:.1f}" y="{bottom + 40}">{text(x_label)}</text>')
    parts.append(f'<text class="muted" x="{left}" y="{top - 10}">{text(y_label)}</text>')
    placed = [
        (
            left + (right - left) * min(max(mark.x, 0.0), 1.0),
            bottom - (bottom - top) * min(max(mark.y / ceiling, 0.0), 1.0),
        )
        for mark in marks
    ]
    taken = [_Box(x - 5, y - 5, x + 5, y + 5) for x, y in placed]
    parts += [f'<circle class="mark" cx="{x:.1f}" cy="{y:.1f}" r="4.5"/>' for x, y in placed]
    for mark, (x, y) in zip(marks, placed, strict=True):
        width = _CHARACTER * min(len(mark.label), _MAX_LABEL)
        # Right, left, above, below; a name that fits nowhere is left to the table.
        for at, anchor, base in (
            (x + 10, "", y + 4.5),
            (x - 10, "end", y + 4.5),
            (x + 6, "", y - 9),
            (x + 6, "", y + 18),
        ):
            box = _Box(at - width if anchor else at, base - 10, at if anchor else at + width, base + 3)
            if box.left >= left and box.top >= top and not any(box.overlaps(other) for other in taken):
                taken.append(box)
                parts.append(f'<text class="{anchor}" x="{at:.1f}" y="{base:.1f}">{_name(mark.label)}</text>')
                break
    return _chart(title, description, height, parts)


@dataclass(frozen=True)
class _Box:
    """Where something was drawn."""

    left: float
    top: float
    right: float
    bottom: float

    def overlaps(self, other: _Box) -> bool:
        return (
            self.left < other.right and other.left < self.right and self.top < other.bottom and other.top < self.bottom
        )


def round_bins(rounds: int, most: int) -> list[tuple[int, int]]:
    """Rounds 1..`rounds` in at most `most` runs of equal length (the last may be shorter), as (first, last)."""
    size = -(-rounds // most) if rounds else 1
    return [(first, min(first + size - 1, rounds)) for first in range(1, rounds + 1, size)]


def _cell(site: str, joined: Sequence[frozenset[str]], dropped: Sequence[frozenset[str]]) -> str:
    took, missed = sum(site in one for one in joined), sum(site in one for one in dropped)
    if took == len(joined):
        return "mark"
    if took:
        return "soft"
    return "gap" if missed else ""


def _chart(title: str, description: str, height: float, parts: Sequence[str]) -> Html:
    return Html(
        f'<svg class="chart" viewBox="0 0 {WIDTH} {height:.0f}" role="img" xmlns="http://www.w3.org/2000/svg">'
        f"<title>{text(title)}</title><desc>{text(description)}</desc>\n" + "\n".join(parts) + "</svg>"
    )


def _axis_x(left: float, right: float, top: float, bottom: float, maximum: float) -> list[str]:
    parts: list[str] = []
    for tick in range(5):
        x = left + (right - left) * tick / 4
        parts.append(f'<line class="axis" x1="{x:.1f}" y1="{top}" x2="{x:.1f}" y2="{bottom}"/>')
        parts.append(f'<text class="muted middle" x="{x:.1f}" y="{bottom + 16}">{_short(maximum * tick / 4)}</text>')
    return parts


def _name(label: str) -> Html:
    return text(label if len(label) <= _MAX_LABEL else label[: _MAX_LABEL - 1] + "\u2026")


def _short(value: float) -> str:
    return f"{value:.3f}".rstrip("0").rstrip(".")


def _ticks(last: int) -> list[int]:
    """About five round numbers from 0 to `last`, `last` among them."""
    if last <= 6:
        return list(range(last + 1))
    step = max(int(_round_up(last / 5)), 1)
    ticks = list(range(0, last, step))
    if last - ticks[-1] < step / 2:
        ticks.pop()
    return [*ticks, last]


def _round_up(value: float) -> float:
    """A power of ten times a number whose quarters are short, at least `value`."""
    if value <= 0:
        return 1.0
    power = 1.0
    while power * 10 <= value:
        power *= 10
    while power > value:
        power /= 10
    return next(
        (power * factor for factor in (1, 1.2, 1.6, 2, 2.4, 3.2, 4, 6, 8) if value <= power * factor), power * 10
    )
