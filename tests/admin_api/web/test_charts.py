"""Charts: what is drawn is what the table says, whatever the figures are."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from admin_api.web import charts, parts
from admin_api.web.charts import Bar, Budget, Chart, Dot, Point, Round, Series
from admin_api.web.charts.drawing import BROAD, WIDTH, end_labels, even_marks, marks_inside, ticks, writer
from admin_api.web.language import speaking

NOW = datetime(2026, 11, 22, tzinfo=UTC)
SITES = ("st-elders", "noordzee", "zuid")
ROUNDS = (
    Round(1, "completed", SITES),
    Round(2, "completed", SITES[:2], SITES[2:]),
    Round(3, "aborted", (), SITES),
    Round(4, "running"),
)
CURVE = Series("st-elders", [Point(1, 0.6, 0.5, 0.7), Point(2, 0.7, 0.6, 0.8)])
EVERY_CHART: dict[str, Callable[[], Chart]] = {
    "burn_down": lambda: charts.burn_down(
        "T", [("2026-01-10T00:00:00Z", 1.0), (NOW, 3.2)], 8, reserved=0.8, ghost=9, now=NOW
    ),
    "burn_down, nothing spent": lambda: charts.burn_down("T", [], 8, now=NOW),
    "rounds_strip": lambda: charts.rounds_strip("T", ROUNDS, planned=120),
    "rounds_strip, none": lambda: charts.rounds_strip("T", []),
    "participation": lambda: charts.participation("T", SITES, ROUNDS),
    "participation, many": lambda: charts.participation(
        "T", SITES, [Round(n, "completed", SITES) for n in range(1, 900)]
    ),
    "participation, none": lambda: charts.participation("T", SITES, []),
    "line_with_interval": lambda: charts.line_with_interval("T", [CURVE], x_label="V", y_label="H", limit=0.6),
    "line_with_interval, none": lambda: charts.line_with_interval("T", [], x_label="V", y_label="H"),
    "line_with_interval, days": lambda: charts.line_with_interval(
        "T",
        [Series("a", [Point(NOW.timestamp(), 1), Point(NOW.timestamp() + 1e7, 2)])],
        x_label="V",
        y_label="H",
        x_kind="date",
    ),
    "risk_coverage": lambda: charts.risk_coverage("T", [CURVE, Series("b", [Point(0.5, 0.1)])], target=0.05),
    "dots_with_intervals": lambda: charts.dots_with_intervals(
        "T", [Dot("a", 0.7, 0.6, 0.8, 0.6, True), Dot("b", 0.5, passed=False), Dot("c", None)], reference=0.6
    ),
    "bars": lambda: charts.bars("T", [Bar("a", 0.03, tone="ok"), Bar("b", -0.02, tone="danger")], unit="pt"),
    "bars, none": lambda: charts.bars("T", []),
    "budget_bars": lambda: charts.budget_bars(
        "T", [Budget("a", 3, 1, 8, 1), Budget("b", 7, 0, 8, 2), Budget("c", 0, 0, 0)]
    ),
}


def drawn(chart: Chart) -> ElementTree.Element:
    """The drawing as XML; an SVG that is no XML fails here."""
    return ElementTree.fromstring(str(chart.svg))  # noqa: S314 - made by the code under test


def numbers(chart: Chart) -> list[float]:
    """Every coordinate of the drawing."""
    found = re.findall(r'(?:x|y|x1|x2|y1|y2|cx|cy|r|width|height|points)="([^"]*)"', str(chart.svg))
    return [float(number) for text in found for number in re.split(r"[ ,]", text) if number]


@pytest.mark.parametrize("name", EVERY_CHART)
def test_every_chart_is_accessible_policy_safe_and_comes_with_its_table(name: str) -> None:
    chart = EVERY_CHART[name]()
    root = drawn(chart)
    assert root.attrib["role"] == "img"
    assert [child.tag.split("}")[1] for child in root][:2] == ["title", "desc"]
    assert root[0].text == "T"
    assert root[1].text
    assert "style" not in str(chart.svg)
    assert all(math.isfinite(number) for number in numbers(chart))
    assert all(
        float(rect.attrib["width"]) >= 0 and float(rect.attrib["height"]) >= 0
        for rect in root.iter()
        if rect.tag.endswith("rect")
    )
    parts.table_body(chart.table.columns, chart.table.rows)
    assert chart.__html__() == chart.svg
    assert EVERY_CHART[name]().svg == chart.svg


@pytest.mark.parametrize("name", EVERY_CHART)
def test_every_chart_speaks_dutch(name: str) -> None:
    english = EVERY_CHART[name]()
    with speaking("nl"):
        dutch = EVERY_CHART[name]()
    assert drawn(dutch)[1].text != drawn(english)[1].text
    assert [column["key"] for column in dutch.table.columns] == [column["key"] for column in english.table.columns]


@pytest.mark.parametrize("name", EVERY_CHART)
def test_every_class_has_a_rule(name: str) -> None:
    from admin_api.web.rendering import STATIC

    css = (STATIC / "zegel.css").read_text(encoding="utf-8")
    classes = {one for group in re.findall(r'class="([^"]*)"', str(EVERY_CHART[name]().svg)) for one in group.split()}
    assert {one for one in classes if f".{one}" not in css} == set()


def test_names_are_escaped_and_cut() -> None:
    evil = "<script>&\"'" * 20
    for chart in (
        charts.bars(evil, [Bar(evil, 1, note=evil)], unit=evil),
        charts.dots_with_intervals(evil, [Dot(evil, 0.5, note=evil)], reference=0.1, reference_label=evil),
        charts.line_with_interval(
            evil, [Series(evil, [Point(0, 1)])] * 2, x_label=evil, y_label=evil, limit=1, limit_label=evil
        ),
        charts.participation(evil, [evil], [Round(1, "completed", [evil])]),
        charts.budget_bars(evil, [Budget(evil, 1, 0, 2)]),
        charts.burn_down(evil, [(NOW, 1)], 2, ghost=1, ghost_label=evil),
    ):
        assert "<script" not in str(chart.svg)
        drawn(chart)
    assert "<script" not in charts.sparkline([1, 2], title=evil)


def test_the_burn_down_says_what_is_left_and_marks_what_does_not_fit() -> None:
    chart = charts.burn_down("T", [("2026-01-10T00:00:00Z", 3.0)], 8, reserved=1, ghost=5, now=NOW)
    text = "".join(drawn(chart).itertext())
    assert "5 left" in text
    assert "1 reserved" in text
    assert 'class="ghost over"' in str(chart.svg)
    assert chart.table.rows[0]["left"] == 5
    assert 'class="ghost over"' not in str(charts.burn_down("T", [(NOW, 3.0)], 8, reserved=1, ghost=4, now=NOW).svg)


def test_state_is_a_shape_and_not_only_a_colour() -> None:
    failed = str(charts.dots_with_intervals("T", [Dot("a", 0.5, passed=False)]).svg)
    passed = str(charts.dots_with_intervals("T", [Dot("a", 0.5, passed=True)]).svg)
    assert "<path" in failed
    assert "<path" not in passed
    assert "\u2717" in failed
    assert "\u2713" in passed
    aborted = str(charts.rounds_strip("T", [Round(1, "aborted")]).svg)
    assert aborted.count('class="notch"') == 2
    assert 'class="notch"' in str(charts.rounds_strip("T", [Round(1, "completed", ["a"], ["b"])]).svg)


def test_a_value_that_is_not_finite_is_a_gap() -> None:
    chart = charts.line_with_interval(
        "T", [Series("a", [Point(1, math.nan), Point(2, 1.0), Point(3, math.inf)])], x_label="x", y_label="y"
    )
    assert all(math.isfinite(number) for number in numbers(chart))
    assert [row["y"]["value"] for row in chart.table.rows] == [None, 1.0, None]


def test_bars_start_at_zero_and_negative_ones_go_left() -> None:
    root = drawn(charts.bars("T", [Bar("a", 2), Bar("b", -1)]))
    right, left = (
        [float(rect.attrib[key]) for key in ("x", "width")] for rect in root.iter() if rect.tag.endswith("rect")
    )
    assert left[0] + left[1] == pytest.approx(right[0], abs=0.11)
    assert right[1] == pytest.approx(2 * left[1], abs=0.2)
    assert "+2" in "".join(root.itertext())


def test_sparklines() -> None:
    assert charts.sparkline([]) == ""
    assert 'aria-hidden="true"' in charts.sparkline([1])
    assert 'aria-label="Loss"' in charts.sparkline([1, 2, 3], title="Loss", limit=2)


@given(st.lists(st.floats(0, 260), min_size=1, max_size=16))
@settings(derandomize=True, max_examples=100)
def test_labels_at_the_ends_never_cover_each_other(heights: Sequence[float]) -> None:
    labels = end_labels(0, [(height, "x", "") for height in heights], 0, 260)
    placed = [float(y) for y in re.findall(r' y="([\d.-]+)"', "".join(labels))]
    assert all(below - above >= 15.8 for above, below in pairwise(placed))


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6))
@settings(derandomize=True, max_examples=200)
def test_marks_cover_the_values_and_are_few(low: float, span: float) -> None:
    marks = even_marks(low, low + span)
    assert marks[0] <= low + 1e-6 * span
    assert marks[-1] >= low + span - 1e-6 * span
    assert 2 <= len(marks) <= 8
    inside = marks_inside(low, low + span)
    assert all(low - 1e-6 * span <= mark <= low + span + 1e-6 * span for mark in inside)


@given(st.integers(1, 5000))
@settings(derandomize=True, max_examples=200)
def test_rounds_are_numbered_sparsely(last: int) -> None:
    found = ticks(last)
    assert found[0] == 1
    assert found[-1] == last
    assert found == sorted(set(found))
    assert len(found) <= 12


def test_whole_marks_and_their_decimals() -> None:
    assert marks_inside(1, 3, whole=True) == [1, 2, 3]
    assert [writer([0, 0.005, 0.01], percent=True)(value) for value in (0.005, 0.01)] == ["0.5%", "1.0%"]
    assert writer([0, 2500, 5000])(2500) == "2,500"
    assert writer([0, 0.25])(0.25) == "0.25"


def test_nothing_is_drawn_outside_the_drawing() -> None:
    for name, make in EVERY_CHART.items():
        chart = make()
        broad = 'class="chart broad"' in str(chart.svg)
        for text in drawn(chart).iter():
            if text.tag.endswith("text"):
                assert 0 <= float(text.attrib["x"]) <= (BROAD if broad else WIDTH), name
