"""Measured values as charts: lines with intervals, risk against coverage, dots with intervals, bars."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from markupsafe import escape

from admin_api.web.charts.drawing import (
    LABEL,
    ROW,
    VALUE,
    WIDTH,
    Chart,
    Table,
    cut,
    day_marks,
    end_labels,
    even_marks,
    grid_y,
    label,
    line,
    marks_inside,
    name,
    path,
    rect,
    scale,
    some,
    svg,
    writer,
)
from admin_api.web.language import _, current, instant

HUES = 8


@dataclass(frozen=True)
class Point:
    """A value at x, with its 95% interval when it has one."""

    x: float
    y: float
    lower: float | None = None
    upper: float | None = None


@dataclass(frozen=True)
class Series:
    """A line with a name. `hue` is 1..8; by default the series' place in the chart."""

    label: str
    points: Sequence[Point]
    hue: int | None = None


@dataclass(frozen=True)
class Dot:
    """A named value with its interval; `before` is the value it is compared with, `passed` a gate's verdict."""

    label: str
    value: float | None
    lower: float | None = None
    upper: float | None = None
    before: float | None = None
    passed: bool | None = None
    note: str = ""


@dataclass(frozen=True)
class Bar:
    """A named amount. `tone` is ok or danger, or nothing."""

    label: str
    value: float
    note: str = ""
    tone: str = ""


def line_with_interval(
    title: str,
    series: Sequence[Series],
    *,
    x_label: str,
    y_label: str,
    limit: float | None = None,
    limit_label: str = "",
    percent: bool = False,
    zero: bool = True,
    x_kind: str = "number",
) -> Chart:
    """Lines over x, each with the band of its intervals, named at its end; a value that is not finite is a gap.

    `percent`: y is a share, 1 is 100%. `zero`: the axis starts at zero. `x_kind`: number, percent, or date (x
    in seconds since 1970). `limit` is drawn across, with `limit_label` at its end. Without points: an empty frame.
    """
    left, right, top, bottom, height = 48, WIDTH - VALUE, 32, 232, 284
    lines = [replace(one, points=[p for p in one.points if math.isfinite(p.y)]) for one in series]
    every = [point for one in lines for point in one.points]
    highs = [p.y if p.upper is None else p.upper for p in every] + some(limit)
    lows = [p.y if p.lower is None else p.lower for p in every] + some(limit)
    lowest = min(lows, default=0.0)
    marks = even_marks(min(0.0, lowest) if zero else lowest, max(highs, default=1.0))
    y_at = scale(marks[0], marks[-1], bottom, top)
    xs = [p.x for p in every] or [0.0, 1.0]
    x_at = scale(min(xs), max(xs) if max(xs) > min(xs) else min(xs) + 1, left, right)
    write = writer(marks, percent=percent)
    parts = [label(0, 14, y_label, "soft-text"), *grid_y(left, right, y_at, marks, write)]
    if x_kind == "date":
        parts += day_marks(min(xs), max(xs), x_at, bottom)
    else:
        across = marks_inside(min(xs), max(xs), whole=all(x == int(x) for x in xs))
        write_x = writer(across, percent=x_kind == "percent")
        parts += [label(x_at(x), bottom + 20, write_x(x), "soft-text middle") for x in across]
    parts.append(label((left + right) / 2, bottom + 42, x_label, "soft-text middle"))
    labels: list[tuple[float, str, str]] = []
    if limit is not None:
        parts.append(line("limit", left, y_at(limit), right, y_at(limit)))
        labels.append((y_at(limit), limit_label or write(limit), "limit-text"))
    said = current()
    drawn, ends = _lines(lines, x_at, y_at, said.percent if percent else said.number)
    parts += drawn
    parts += end_labels(right + 10, labels + ends, top, bottom)
    rows = [
        {
            "series": one.label,
            "x": instant(datetime.fromtimestamp(p.x, UTC)) if x_kind == "date" else p.x,
            "y": {"value": p.y if math.isfinite(p.y) else None, "lower": p.lower, "upper": p.upper},
        }
        for one in series
        for p in one.points
    ]
    columns = [
        {"key": "series", "label": _("Line")},
        {"key": "x", "label": x_label, "kind": x_kind},
        {"key": "y", "label": y_label, "kind": "interval"},
    ]
    described = _("%(y)s over %(x)s: %(names)s.", y=y_label, x=x_label, names=", ".join(one.label for one in series))
    return Chart(svg(title, described, height, parts), Table(title, columns, rows))


def risk_coverage(title: str, curves: Sequence[Series], *, target: float | None = None) -> Chart:
    """The share of errors among what is coded automatically (y), against the share that is (x): lower is better."""
    return line_with_interval(
        title,
        curves,
        x_label=_("Coverage: share coded without a person"),
        y_label=_("Risk: share of those that is wrong"),
        limit=target,
        limit_label=_("target %(risk)s", risk=current().percent(target, 1)) if target is not None else "",
        percent=True,
        x_kind="percent",
    )


def dots_with_intervals(
    title: str,
    rows: Sequence[Dot],
    *,
    reference: float | None = None,
    reference_label: str = "",
    maximum: float = 1.0,
    minimum: float = 0.0,
) -> Chart:
    """A row per name: a dot and its interval on one axis; a hollow dot is the value before, a line the reference."""
    said = current()
    left, right = LABEL, WIDTH - VALUE
    top = 24 if reference is not None else 8
    bottom = top + ROW * max(len(rows), 1)
    x_at = scale(minimum, maximum, left, right)
    parts: list[str] = []
    for mark in even_marks(minimum, maximum):
        parts.append(line("grid", x_at(mark), top, x_at(mark), bottom))
        parts.append(
            f'<text class="soft-text middle" x="{x_at(mark):.1f}" y="{bottom + 18}">{said.number(mark)}</text>'
        )
    if reference is not None:
        parts.append(line("limit", x_at(reference), top - 4, x_at(reference), bottom))
        words = reference_label or said.number(reference)
        parts.append(f'<text class="limit-text middle" x="{x_at(reference):.1f}" y="{top - 10}">{escape(words)}</text>')
    for place, row in enumerate(rows):
        parts += _dot_row(row, top + ROW * (place + 0.5), left, right, x_at)
    columns: list[dict[str, Any]] = [
        {"key": "label", "label": _("Name")},
        {"key": "value", "label": _("Value"), "kind": "interval"},
    ]
    if any(row.before is not None for row in rows):
        columns.append({"key": "before", "label": _("Before"), "kind": "number", "decimals": 3})
    if any(row.passed is not None for row in rows):
        columns.append({"key": "passed", "label": _("Gate"), "kind": "chip"})
    table = [
        {
            "label": row.label,
            "value": {"value": row.value, "lower": row.lower, "upper": row.upper},
            "before": row.before,
            "passed": None if row.passed is None else "passed" if row.passed else "failed",
        }
        for row in rows
    ]
    described = _("%(count)s values with their intervals.", count=len(rows))
    return Chart(svg(title, described, bottom + 28, parts), Table(title, columns, table))


def bars(title: str, rows: Sequence[Bar], *, unit: str = "", maximum: float | None = None) -> Chart:
    """A bar per name, from zero; negative ones go left. The figure at the end has its sign when any is negative."""
    said = current()
    values = [row.value for row in rows]
    low, high = min([0.0, *values]), max([0.0, *values, *some(maximum)])
    if low == high:
        high = 1.0
    signed = low < 0
    left, right = LABEL, WIDTH - 96
    x_at = scale(low, high, left + (56 if signed else 0), right)
    parts: list[str] = []
    for place, row in enumerate(rows):
        y = 4 + ROW * place
        x, zero = x_at(row.value), x_at(0.0)
        parts.append(f'<text class="end" x="{left - 12}" y="{y + 18}">{name(row.label)}</text>')
        parts.append(rect(row.tone or "fill", min(x, zero), y + 6, max(abs(x - zero), 0.8), 16))
        written = ("+" if signed and row.value > 0 else "") + said.number(row.value) + (f" {unit}" if unit else "")
        note = f' <tspan class="soft-text">{escape(row.note)}</tspan>' if row.note else ""
        anchor, at = ("end", x - 8) if row.value < 0 else ("", x + 8)
        parts.append(f'<text class="{anchor}" x="{at:.1f}" y="{y + 18}">{escape(written)}{note}</text>')
    height = 8 + ROW * max(len(rows), 1)
    parts.append(line("base", x_at(0.0), 4, x_at(0.0), height - 4))
    columns = [
        {"key": "label", "label": _("Name")},
        {"key": "value", "label": unit or _("Value"), "kind": "number"},
    ]
    table = [{"label": row.label, "value": row.value} for row in rows]
    described = _("%(count)s amounts as bars from zero.", count=len(rows))
    return Chart(svg(title, described, height, parts), Table(title, columns, table))


def _dot_row(row: Dot, y: float, left: float, right: float, x_at: Callable[[float], float]) -> list[str]:
    parts = [f'<text class="end" x="{left - 12}" y="{y + 4.5:.1f}">{name(row.label)}</text>']
    if row.value is None:
        return [
            *parts,
            f'<text class="soft-text" x="{left + 8}" y="{y + 4.5:.1f}">{escape(_("too few to report"))}</text>',
        ]

    def at(value: float) -> float:
        return min(max(x_at(value), left), right)

    kind = "dot" if row.passed is None else "ok" if row.passed else "danger"
    if row.before is not None:
        parts.append(line("change", at(row.before), y, at(row.value), y))
        parts.append(f'<circle class="hollow" cx="{at(row.before):.1f}" cy="{y:.1f}" r="4.5"/>')
    if row.lower is not None and row.upper is not None:
        parts.append(line(f"range {kind}" if kind != "dot" else "range", at(row.lower), y, at(row.upper), y))
    x = at(row.value)
    if kind == "danger":  # a shape of its own: a diamond
        parts.append(f'<path class="danger" d="M{x:.1f} {y - 6:.1f}l6 6l-6 6l-6 -6z"/>')
    else:
        parts.append(f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="4.5"/>')
    note = f' <tspan class="soft-text">{escape(row.note)}</tspan>' if row.note else ""
    verdict = "" if row.passed is None else " \u2713" if row.passed else " \u2717"
    return [*parts, f'<text x="{right + 12}" y="{y + 4.5:.1f}">{current().number(row.value, 3)}{verdict}{note}</text>']


def _lines(
    series: Sequence[Series],
    x_at: Callable[[float], float],
    y_at: Callable[[float], float],
    write: Callable[[float], str],
) -> tuple[list[str], list[tuple[float, str, str]]]:
    parts: list[str] = []
    ends: list[tuple[float, str, str]] = []
    for place, one in enumerate(series):
        if not one.points:
            continue
        hue = (one.hue if one.hue is not None else place + 1) - 1
        points = sorted(one.points, key=lambda point: point.x)
        at = [(x_at(p.x), y_at(p.y)) for p in points]
        banded = [(p.x, p.lower, p.upper) for p in points if p.lower is not None and p.upper is not None]
        inner = ""
        if banded:
            edge = [(x_at(x), y_at(upper)) for x, _lower, upper in banded]
            edge += [(x_at(x), y_at(lower)) for x, lower, _upper in reversed(banded)]
            inner = f'<polygon class="band" points="{path(edge)}"/>'
        inner += f'<polyline class="line" points="{path(at)}"/>'
        inner += f'<circle class="dot" cx="{at[-1][0]:.1f}" cy="{at[-1][1]:.1f}" r="3.5"/>'
        group = f"hue-{hue % HUES + 1}"
        parts.append(f'<g class="{group}">{inner}</g>')
        words = write(points[-1].y) if len(series) == 1 else f"{cut(one.label, 12)} {write(points[-1].y)}"
        ends.append((at[-1][1], words, "" if len(series) == 1 else group))
    return parts, ends
