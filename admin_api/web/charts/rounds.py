"""Rounds as charts: a cell per round, and a row per hospital."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from admin_api.web.charts.drawing import BROAD, LABEL, Chart, Table, line, name, rect, svg, ticks
from admin_api.web.language import _


@dataclass(frozen=True)
class Round:
    """One round: completed, aborted, running or waiting."""

    number: int
    state: str
    participants: Sequence[str] = field(default=())
    dropped: Sequence[str] = field(default=())


def rounds_strip(title: str, rounds: Sequence[Round], *, planned: int | None = None) -> Chart:
    """A cell per round: filled when completed, its foot marked for dropouts, crossed when aborted, dashed to come."""
    total = max([planned or 0, *(one.number for one in rounds), 1])
    by_number = {one.number: one for one in rounds}
    columns = min(total, 50)
    step = min(BROAD / columns, 40.0)
    size = min(step - 3, 24.0)
    parts: list[str] = []
    for number in range(1, total + 1):
        x, y = step * ((number - 1) % columns), 4 + (size + 6) * ((number - 1) // columns)
        parts.append(_round_cell(by_number.get(number), x, y, step - 3, size))
    lines = -(-total // columns)
    height = 8 + (size + 6) * lines + 16
    for number in [n for n in ticks(min(total, columns)) if n]:
        parts.append(
            f'<text class="soft-text middle" x="{step * (number - 0.5) - 1.5:.1f}" y="{height - 4:.1f}">{number}</text>'
        )
    done = sum(one.state == "completed" for one in rounds)
    described = _("%(done)s of %(total)s rounds completed.", done=done, total=total)
    return Chart(svg(title, described, height, parts, broad=True), _rounds_table(title, rounds))


def participation(title: str, sites: Sequence[str], rounds: Sequence[Round]) -> Chart:
    """A row per hospital and a cell per round: filled took part, notched dropped out, nothing was not asked."""
    left, right = LABEL, BROAD - 72
    size = -(-len(rounds) // 90) if rounds else 1  # rounds in one cell, when there are many
    groups = [rounds[i : i + size] for i in range(0, len(rounds), size)]
    step = min((right - left) / max(len(groups), 1), 28.0)
    gap = 2.0 if step > 6 else 0.8
    row_height = 22 if len(sites) <= 12 else 16
    parts: list[str] = []
    rows: list[dict[str, Any]] = []
    for row, site in enumerate(sites):
        y = 4.0 + row_height * row
        took = sum(site in one.participants for one in rounds)
        missed = sum(site in one.dropped for one in rounds)
        rows.append({"site": site, "took": took, "missed": missed, "rounds": len(rounds)})
        parts.append(f'<text class="end" x="{left - 12}" y="{y + row_height / 2 + 4:.1f}">{name(site)}</text>')
        said = _("%(took)s of %(rounds)s", took=took, rounds=len(rounds))
        parts.append(f'<text x="{left + step * len(groups) + 10:.1f}" y="{y + row_height / 2 + 4:.1f}">{said}</text>')
        cells: dict[str, list[str]] = {"cell-ok": [], "cell-dropped": [], "soft": [], "notch": []}
        for column, group in enumerate(groups):
            share = sum(site in one.participants for one in group) / len(group)
            dropped = any(site in one.dropped for one in group)
            x, width, tall = left + step * column, max(step - gap, 0.8), row_height - 5
            cell = f"M{x:.1f} {y + 2:.0f}h{width:.1f}v{tall}h-{width:.1f}z"
            if share == 1:
                cells["cell-ok"].append(cell)
            elif dropped:
                cells["cell-dropped"].append(cell)
                cells["notch"].append(f"M{x:.1f} {y + 2 + tall:.0f}l{width:.1f} -{tall}")
            elif share:
                cells["soft"].append(cell)
        # One path for all cells of a kind: a third of the bytes of a rectangle each.
        parts += [f'<path class="{kind}" d="{"".join(drawn)}"/>' for kind, drawn in cells.items() if drawn]
    height = 4 + row_height * len(sites) + 22
    for place in [n for n in ticks(len(groups)) if n]:
        number = groups[place - 1][0].number
        parts.append(
            f'<text class="soft-text middle" x="{left + step * (place - 0.5):.1f}" y="{height - 6}">{number}</text>'
        )
    columns = [
        {"key": "site", "label": _("Hospital")},
        {"key": "took", "label": _("Took part"), "kind": "number"},
        {"key": "missed", "label": _("Dropped out"), "kind": "number"},
        {"key": "rounds", "label": _("Rounds"), "kind": "number"},
    ]
    described = _(
        "Which of %(sites)s hospitals took part in each of %(rounds)s rounds.", sites=len(sites), rounds=len(rounds)
    )
    return Chart(svg(title, described, height, parts, broad=True), Table(title, columns, rows))


def _round_cell(one: Round | None, x: float, y: float, width: float, size: float) -> str:
    if one is None or one.state == "waiting":
        return rect("empty-cell", x + 0.5, y + 0.5, width - 1, size - 1)
    if one.state == "running":
        return f"<g><title>{one.number}</title>{rect('cell-running', x + 1, y + 1, width - 2, size - 2)}</g>"
    if one.state == "aborted":
        cross = line("notch", x + 2, y + 2, x + width - 2, y + size - 2) + line(
            "notch", x + 2, y + size - 2, x + width - 2, y + 2
        )
        return f"<g><title>{one.number}</title>{rect('cell-aborted', x, y, width, size)}{cross}</g>"
    inner = rect("cell-ok", x, y, width, size)
    if one.dropped:
        inner += rect("cell-dropped", x, y + size * 0.6, width, size * 0.4)
        inner += line("notch", x, y + size * 0.6, x + width, y + size * 0.6)
    return f"<g><title>{one.number}</title>{inner}</g>"


def _rounds_table(title: str, rounds: Sequence[Round]) -> Table:
    columns: list[dict[str, Any]] = [
        {"key": "number", "label": _("Round"), "kind": "number"},
        {"key": "state", "label": _("State"), "kind": "chip"},
        {"key": "participants", "label": _("Took part"), "kind": "number"},
        {"key": "dropped", "label": _("Dropped out"), "wrap": True},
    ]
    rows: list[dict[str, Any]] = [
        {
            "number": one.number,
            "state": one.state,
            "participants": len(one.participants),
            "dropped": ", ".join(one.dropped) or None,
        }
        for one in rounds
    ]
    return Table(title, columns, rows)
