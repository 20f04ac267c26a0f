"""Section 6 of the report: the gates, and what the hospitals measured."""

from __future__ import annotations

from collections.abc import Sequence

from audit.canonical import format_time
from audit.documents import charts
from audit.documents.bridge import chapter_order
from audit.documents.candidate import Candidate
from audit.documents.page import Html, details, figure, figures, interval, join, number, paragraph, table, text, who
from audit.gates import AT_LEAST
from audit.metrics_trace import MetricsTrace

_SHARES = (("hit@1", "right among one suggestion"), ("hit@3", "right among three suggestions"))
_AUTOMATION = ("threshold", "coverage", "precision")
# What statistics offices ask for besides, by a part of the metrics' names.
_WISHED = (("/age", "age band"), ("/sex", "sex"), ("_f1", "micro and macro F1"))
_COLUMNS = 7  # with intervals, as many as fit on paper


def quality_section(candidate: Candidate) -> Html:
    """6. Gates and quality."""
    gates = [
        (
            gate.name,
            f"{'at least' if gate.comparison == AT_LEAST else 'at most'} {gate.threshold:g}",
            number(gate.value),
            gate.detail,
            Html('<span class="ok">passed</span>'),  # a statement with a failed gate cannot exist
        )
        for gate in candidate.gates
    ]
    in_force = candidate.gate_set
    parts = [
        paragraph(
            f"Set by {who(in_force.set_by)} on {format_time(in_force.set_at)} (entry {in_force.index}), before the run "
            "started and anybody knew a figure. A verifier measures each again."
        ),
        table("Gates, all of which had to hold", ["Gate", "Demanded", "Found", "From", "Result"], gates),
    ]
    trained = {hospital.site for hospital in candidate.run.hospitals if hospital.rounds_joined}
    for name, words in _SHARES:
        parts += _share(candidate.metrics, name, words, trained)
    parts += _automation(candidate.metrics)
    parts += _chapters(candidate.metrics)
    rows = [
        (metrics.site, name, interval(*_three(metrics, name)))
        for metrics in candidate.metrics
        for name in sorted(metrics.values)
    ]
    parts.append(
        details("Every reported value", table("As signed by the hospitals", ["Hospital", "Metric", "Value"], rows))
    )
    parts.append(
        paragraph(
            "Each hospital computed these on its own test patients, whom no training run uses. The values carry "
            "privacy noise, and the 95% intervals cover sampling and noise."
        )
    )
    if candidate.sites_without_metrics:
        parts.append(
            paragraph(f"Planned, but without metrics: {', '.join(candidate.sites_without_metrics)}.", "attention")
        )
    reported = {name for each in candidate.metrics for name in each.values}
    absent = [words for mark, words in _WISHED if not any(mark in name for name in reported)]
    if absent:
        parts.append(paragraph(f"No hospital reported figures by {' or '.join(absent)}.", "muted"))
    return join(parts)


def _share(metrics: Sequence[MetricsTrace], name: str, words: str, trained: set[str]) -> list[Html]:
    reported = [each for each in metrics if name in each.values]
    if not reported:
        return []
    rows = [
        charts.Row(
            each.site,
            *_three(each, name),
            hollow=each.site not in trained,
            note="evaluates only" if each.site not in trained else "",
        )
        for each in reported
    ]
    chart = charts.intervals(
        f"{name}: share of admissions {words}",
        f"One row per hospital with its 95% interval; the table below repeats the figures of {len(rows)} hospitals.",
        rows,
    )
    data = table(
        f"{name} per hospital",
        ["Hospital", "Share and 95% interval"],
        [(each.site, interval(*_three(each, name))) for each in reported],
        figures=1,
    )
    return [
        Html(f"<h3>{text(name)}: {text(words)}</h3>"),
        figure(chart, "Dot: share; line: 95% interval.", figures(data)),
    ]


def _automation(metrics: Sequence[MetricsTrace]) -> list[Html]:
    reported = [each for each in metrics if all(name in each.values for name in _AUTOMATION)]
    if not reported:
        return []
    marks = [
        charts.Point(each.site, coverage, max(1 - precision, 0.0))
        for each in reported
        for coverage, precision in [(each.values["coverage"]["value"], each.values["precision"]["value"])]
        if coverage and precision is not None  # where nothing is automatic, nothing can be wrong
    ]
    data = table(
        "Automatic coding at each hospital's threshold",
        ["Hospital", "Threshold", "Coded automatically", "Of those right"],
        [(each.site, *(interval(*_three(each, name)) for name in _AUTOMATION)) for each in reported],
        figures=3,
    )
    head = Html("<h3>Automation against error</h3>")
    if not marks:
        return [head, data]
    chart = charts.points(
        "Automation against error",
        "One dot per hospital: the share of admissions coded automatically, and the share of those coded wrongly.",
        marks,
        x_label="share of admissions coded automatically",
        y_label="share of those that are wrong",
    )
    caption = "At the lowest confidence at which the hospital's precision reached the plan's target, fixed beforehand."
    return [head, figure(chart, caption, data)]


def _chapters(metrics: Sequence[MetricsTrace]) -> list[Html]:
    found = {name.partition("/")[2] for each in metrics for name in each.values if name.startswith("hit@1/")}
    if not found:
        return [paragraph("The hospitals reported no figures per ICD-10 chapter.", "muted")]
    chapters = sorted(found, key=chapter_order)
    title = "hit@1 per chapter of the true code"

    def cell(each: MetricsTrace, chapter: str) -> Html:
        return interval(*_three(each, f"hit@1/{chapter}"), decimals=2)

    if len(chapters) <= _COLUMNS:
        rows = [(each.site, *(cell(each, chapter) for chapter in chapters)) for each in metrics]
        drawn = table(title, ["Hospital", *chapters], rows, figures=len(chapters))
    elif len(metrics) <= _COLUMNS:
        rows = [(chapter, *(cell(each, chapter) for each in metrics)) for chapter in chapters]
        drawn = table(title, ["Chapter", *(each.site for each in metrics)], rows, figures=len(metrics))
    else:  # too wide for paper either way
        long = [(chapter, each.site, cell(each, chapter)) for chapter in chapters for each in metrics]
        drawn = table(title, ["Chapter", "Hospital", "Share and 95% interval"], long, figures=1)
    return [Html("<h3>By ICD-10 chapter</h3>"), drawn]


def _three(metrics: MetricsTrace, name: str) -> tuple[float | None, float | None, float | None]:
    value = metrics.values.get(name)
    return (None, None, None) if value is None else (value["value"], value["lower"], value["upper"])
