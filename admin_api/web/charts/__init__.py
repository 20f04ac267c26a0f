"""Charts as SVG, made on the server: budgets, rounds, lines with intervals, risk against coverage, dots, bars.

Invariants:
- A chart brings the table it was drawn from (`Chart.table`): no page can show one without the other.
- Colours are classes of zegel.css; there is no style attribute, which the content security policy would refuse.
- State is a shape or a sign as well as a colour.
- Bars start at zero, lines are named at their ends, intervals are drawn.
- Coordinates have one decimal, so the same numbers give the same bytes.

Figures in charts are written in the reader's language, as in the rest of the page.
"""

from admin_api.web.charts.budgets import Budget, budget_bars, burn_down, sparkline
from admin_api.web.charts.drawing import Chart, Table
from admin_api.web.charts.measured import (
    Bar,
    Dot,
    Point,
    Series,
    bars,
    dots_with_intervals,
    line_with_interval,
    risk_coverage,
)
from admin_api.web.charts.rounds import Round, participation, rounds_strip

__all__ = [
    "Bar",
    "Budget",
    "Chart",
    "Dot",
    "Point",
    "Round",
    "Series",
    "Table",
    "bars",
    "budget_bars",
    "burn_down",
    "dots_with_intervals",
    "line_with_interval",
    "participation",
    "risk_coverage",
    "rounds_strip",
    "sparkline",
]
