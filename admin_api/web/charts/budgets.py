"""Privacy budgets as charts: a small line, what is left over time, and all hospitals beside each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime

from markupsafe import Markup, escape

from admin_api.web.charts.drawing import (
    LABEL,
    ROW,
    VALUE,
    WIDTH,
    Chart,
    Table,
    day_marks,
    end_labels,
    even_marks,
    grid_y,
    label,
    name,
    path,
    rect,
    round_up,
    scale,
    svg,
)
from admin_api.web.language import _, current, instant

_DAY = 86400.0  # seconds


@dataclass(frozen=True)
class Budget:
    """Privacy budget of a hospital and cohort; `ghost` is what the next plan would take."""

    label: str
    spent: float
    reserved: float
    budget: float
    ghost: float = 0.0


def sparkline(values: Sequence[float], title: str = "", limit: float | None = None) -> Markup:
    """A line of 96 x 24 without axes, from zero; its last value is marked. The number stands beside it."""
    if not values:
        return Markup("")
    top = max([*values, limit or 0.0, 1e-12])
    step = 92 / max(len(values) - 1, 1)
    at = [(2 + step * i, 21 - 18 * max(value, 0.0) / top) for i, value in enumerate(values)]
    parts = [f'<polyline class="line" points="{path(at)}"/>' if len(at) > 1 else ""]
    if limit is not None:
        y = 21 - 18 * limit / top
        parts.insert(0, f'<line class="limit" x1="2" y1="{y:.1f}" x2="94" y2="{y:.1f}"/>')
    parts.append(f'<circle class="dot" cx="{at[-1][0]:.1f}" cy="{at[-1][1]:.1f}" r="2.5"/>')
    named = f'role="img" aria-label="{escape(title)}"' if title else 'aria-hidden="true"'
    return Markup(  # noqa: S704 - numbers, and a title escaped above
        f'<svg class="chart spark" viewBox="0 0 96 24" width="96" height="24" {named}>' + "".join(parts) + "</svg>"
    )


def burn_down(
    title: str,
    points: Sequence[tuple[datetime | date | str, float]],
    budget: float,
    *,
    reserved: float = 0.0,
    ghost: float = 0.0,
    ghost_label: str = "",
    now: datetime | None = None,
) -> Chart:
    """What is left of `budget` as steps over time. `points`: when, and all that was spent until then, in order.

    What runs have reserved, and what the next plan would take (`ghost`), are drawn below the line's end.
    """
    said = current()
    left, right, top, bottom, height = 40, WIDTH - VALUE, 32, 216, 248
    track = [(instant(when).timestamp(), spent) for when, spent in points]
    start = track[0][0] if track else (instant(now).timestamp() if now else 0.0)
    end = max([start + _DAY, *(when for when, _spent in track), *([instant(now).timestamp()] if now else [])])
    spent_now = track[-1][1] if track else 0.0
    after = budget - spent_now - reserved - ghost
    floor = min(0.0, after)
    y_at = scale(floor, round_up(budget), bottom, top)
    x_at = scale(start, end, left, right)
    parts = [label(0, 14, _("epsilon left"), "soft-text")]
    parts += grid_y(left, right, y_at, even_marks(0.0, round_up(budget)), said.epsilon)
    steps: list[tuple[float, float]] = [(left, y_at(budget))]
    for when, spent in track:
        steps += [(x_at(when), steps[-1][1]), (x_at(when), y_at(budget - spent))]
    steps.append((right, steps[-1][1]))
    zero = y_at(0.0)
    parts.append(f'<polygon class="area" points="{path([(left, zero), *steps, (right, zero)])}"/>')
    parts.append(f'<line class="base" x1="{left}" y1="{zero:.1f}" x2="{right}" y2="{zero:.1f}"/>')
    parts.append(f'<polyline class="line" points="{path(steps)}"/>')
    labels = [(steps[-1][1], _("%(value)s left", value=said.epsilon(budget - spent_now)), "")]
    here = steps[-1][1]
    if reserved > 0:
        below = y_at(budget - spent_now - reserved)
        parts.append(f'<rect class="soft" x="{right - 10}" y="{here:.1f}" width="10" height="{below - here:.1f}"/>')
        labels.append(((here + below) / 2, _("%(value)s reserved", value=said.epsilon(reserved)), "soft-text"))
        here = below
    if ghost > 0:
        below = y_at(after)
        over = " over" if after < 0 else ""
        parts.append(
            f'<rect class="ghost{over}" x="{right - 10}" y="{here:.1f}" width="10" height="{below - here:.1f}"/>'
        )
        words = ghost_label or _("next plan")
        labels.append(((here + below) / 2, f"{words} {said.epsilon(ghost)}", "danger" if after < 0 else "soft-text"))
    parts += end_labels(right + 10, labels, top, bottom)
    parts += day_marks(start, end, x_at, bottom)
    rows = [{"when": instant(when), "spent": spent, "left": budget - spent} for when, spent in points]
    columns = [
        {"key": "when", "label": _("When"), "kind": "moment"},
        {"key": "spent", "label": _("Spent (epsilon)"), "kind": "epsilon"},
        {"key": "left", "label": _("Left"), "kind": "epsilon"},
    ]
    described = _("%(left)s of %(budget)s left.", left=said.epsilon(budget - spent_now), budget=said.epsilon(budget))
    return Chart(svg(title, described, height, parts), Table(title, columns, rows))


def budget_bars(title: str, rows: Sequence[Budget]) -> Chart:
    """A bar per hospital and cohort: spent, reserved, and what the next plan would take, against the budget."""
    said = current()
    left, right = LABEL, WIDTH - VALUE
    widest = (
        max([row.budget for row in rows] + [row.spent + row.reserved + row.ghost for row in rows], default=1.0) or 1.0
    )
    x_at = scale(0.0, widest, left, right)
    parts: list[str] = []
    for place, row in enumerate(rows):
        y = 4 + ROW * place
        spent, reserved, ghost = row.spent, row.spent + row.reserved, row.spent + row.reserved + row.ghost
        over = ghost > row.budget
        parts.append(f'<text class="end" x="{left - 12}" y="{y + 18}">{name(row.label)}</text>')
        parts.append(rect("rest", left, y + 6, x_at(row.budget) - left, 16))
        parts.append(rect("fill", left, y + 6, x_at(spent) - left, 16))
        if row.reserved > 0:
            parts.append(rect("soft", x_at(spent), y + 6, x_at(reserved) - x_at(spent), 16))
        if row.ghost > 0:
            parts.append(
                rect("ghost over" if over else "ghost", x_at(reserved), y + 6.75, x_at(ghost) - x_at(reserved), 14.5)
            )
        words = _(
            "%(left)s of %(budget)s left",
            left=said.epsilon(max(row.budget - ghost, 0.0)),
            budget=said.epsilon(row.budget),
        )
        if over:
            words = _("%(over)s too much", over=said.epsilon(ghost - row.budget))
        parts.append(label(right + 12, y + 18, words, "danger" if over else ""))
    height = 8 + ROW * max(len(rows), 1)
    columns = [
        {"key": "label", "label": _("Hospital and cohort")},
        {"key": "spent", "label": _("Spent"), "kind": "epsilon"},
        {"key": "reserved", "label": _("Reserved"), "kind": "epsilon"},
        {"key": "ghost", "label": _("Next plan"), "kind": "epsilon"},
        {"key": "budget", "label": _("Budget"), "kind": "epsilon"},
    ]
    table = [
        {"label": row.label, "spent": row.spent, "reserved": row.reserved, "ghost": row.ghost, "budget": row.budget}
        for row in rows
    ]
    described = _("Spent, reserved and left of %(count)s budgets.", count=len(rows))
    return Chart(svg(title, described, height, parts), Table(title, columns, table))
