"""What the page of a run shows beside its plain figures: sentence, charts, tables; block by block while live."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from fastapi import Request

from admin_api.web import charts
from admin_api.web.language import N_, _, current, ngettext
from admin_api.web.rendering import render
from admin_api.web.runs.watching import PartView, RoundView, RunView

T = TypeVar("T")
STAGE_WORDS: Mapping[str, str] = {
    "joining": N_("hospitals are joining"),
    "training": N_("training"),
    "aborted": N_("a round was lost; the next one follows"),
    "evaluating": N_("hospitals evaluate the model"),
    "done": N_("done"),
}
BLOCKS = ("trouble", "rounds", "parts", "events")  # of runs/one.html; each has the element id run-<name>
MOST_CELLS = 400  # rounds drawn, the newest
MOST_FIGURES = 15  # rows of figures under a picture; all are on the page of rounds
MOST_POINTS = 60  # of a curve
MOST_SITES = 12  # hospitals on the run's page; all are on the page of hospitals
MOST_DRAWN = 8  # of them, for whom the matrix stands there as well


def sentence(run: RunView) -> str:
    """What is so, and what it needs."""
    if run.state == "finished":
        return _("The run finished after %(rounds)s rounds.", rounds=run.rounds)
    if run.state == "aborted":
        return _("The run was aborted. What it spent stays spent.")
    if run.state in ("failed", "stopped"):
        return _("The run stands still after round %(round)s. It can be resumed.", round=run.rounds)
    if run.state == "waiting":
        return _("The run waits for the server and the hospitals.")
    stage = _(STAGE_WORDS.get(run.stage or "joining", run.stage or ""))
    if run.planned is None or run.stage not in ("training", "aborted"):
        return _("The run goes on: %(stage)s.", stage=stage)
    missing = len(run.round_list[-1].dropped) if run.round_list else 0
    words = _("Round %(round)s of %(planned)s is done.", round=run.rounds + run.aborted, planned=run.planned)
    if missing:
        words += " " + ngettext("%(num)s hospital was missing.", "%(num)s hospitals were missing.", missing)
    return words


def values_of(run: RunView) -> dict[str, str]:
    """Figures that change in place, by `data-live-value`."""
    said = current()
    left = run.seconds_left
    return {
        "sentence": sentence(run),
        "rounds": said.number(run.rounds),
        "lost": said.number(run.aborted),
        "participants": said.number(run.participants),
        "epsilon": said.epsilon(run.epsilon),
        "left": said.duration(left),
        "bytes": said.bytes_size(run.bytes_so_far),
    }


def page_values(run: RunView) -> dict[str, Any]:
    """All that runs/one.html needs."""
    rounds = [
        charts.Round(each.number, each.state, tuple(each.participants), tuple(each.dropped)) for each in run.round_list
    ]
    shown = rounds[-MOST_CELLS:]
    live = run.state in ("running", "waiting")
    if live and run.planned is not None and run.state == "running" and run.stage in ("joining", "training", "aborted"):
        upcoming = (rounds[-1].number if rounds else 0) + 1
        if upcoming <= run.planned:
            shown = [*shown, charts.Round(upcoming, "running")]
    strip = charts.rounds_strip(_("Rounds"), shown, planned=run.planned)
    trained = trained_sites(run)
    parts = parts_in_order(run)
    return {
        "run": run,
        "live": live,
        "sentence": sentence(run),
        "values": values_of(run),
        "strip": replace(strip, table=replace(strip.table, rows=strip.table.rows[-MOST_FIGURES:])),
        "more_rounds": len(rounds) > MOST_FIGURES,
        "matrix": matrix(run, trained) if rounds and len(trained) <= MOST_DRAWN else None,
        "curve": _curve(run),
        "seconds": _seconds(run),
        "part_rows": [part_row(each) for each in parts[:MOST_SITES]],
        "more_parts": len(parts) > MOST_SITES or len(trained) > MOST_DRAWN,
        "timeline": [
            {"when": each.when, "words": each.words, "entry": each.entry, "state": _EVENT_STATES.get(each.kind)}
            for each in run.events
        ],
    }


_EVENT_STATES: Mapping[str, str] = {
    "run.started": "started",
    "run.finished": "finished",
    "round.completed": "completed",
    "round.aborted": "aborted",
    "site.accepted": "accepted",
    "site.refused": "refused",
}


def trained_sites(run: RunView) -> list[str]:
    """The hospitals that train in it, by name."""
    return sorted({site for each in run.round_list for site in (*each.participants, *each.dropped)} | set(run.sites))


def parts_in_order(run: RunView) -> list[PartView]:
    """The hospitals' parts: who refused first, who was missing next, the others by name."""
    return sorted(run.parts, key=lambda part: (part.state != "refused", part.dropped == 0, part.site))


def matrix(run: RunView, sites: Sequence[str]) -> charts.Chart:
    """Which of these hospitals took part in which round, the newest rounds."""
    rounds = [
        charts.Round(each.number, each.state, each.participants, each.dropped) for each in run.round_list[-MOST_CELLS:]
    ]
    return charts.participation(_("Who took part"), sites, rounds)


def thinned(points: Sequence[T], most: int) -> list[T]:
    """At most `most` of them, 2 at least: the first, the last, and evenly between them.

    >>> thinned(range(10), 4)
    [0, 3, 6, 9]
    """
    if len(points) <= most:
        return list(points)
    return [points[place * (len(points) - 1) // (most - 1)] for place in range(most)]


def _curve(run: RunView) -> charts.Chart | None:
    points = [charts.Point(each.number, each.epsilon) for each in run.round_list if each.epsilon is not None]
    if not points:
        return None
    chart = charts.line_with_interval(
        _("Privacy loss of a training patient so far"),
        [charts.Series(_("epsilon"), [charts.Point(0, 0.0), *thinned(points, MOST_POINTS)])],
        x_label=_("round"),
        y_label=_("epsilon"),
        limit=run.epsilon_planned,
        limit_label="" if run.epsilon_planned is None else _("plan: %(e)s", e=current().epsilon(run.epsilon_planned)),
    )
    return _with_few_figures(chart)


def _seconds(run: RunView) -> charts.Chart | None:
    points = [charts.Point(each.number, each.seconds) for each in run.round_list if each.seconds is not None]
    if len(points) < 2:
        return None
    chart = charts.line_with_interval(
        _("How long rounds took"),
        [charts.Series(_("seconds"), thinned(points, MOST_POINTS), hue=2)],
        x_label=_("round"),
        y_label=_("seconds"),
    )
    return _with_few_figures(chart)


def _with_few_figures(chart: charts.Chart) -> charts.Chart:
    return replace(chart, table=replace(chart.table, rows=thinned(chart.table.rows, MOST_FIGURES)))


def part_row(part: PartView) -> dict[str, Any]:
    """A row of the table of hospitals."""
    return {
        "site": {"text": part.site, "href": f"/hospitals/{part.site}"},
        "does": _("trains") if part.trains else _("evaluates only"),
        "state": part.state if part.state != "asked" else "waiting",
        "rounds": part.rounds,
        "dropped": part.dropped,
        "reason": part.reason,
        "entry": part.entry,
        "tone": "danger" if part.state == "refused" else "attention" if part.dropped else "",
    }


def round_row(one: RoundView) -> dict[str, Any]:
    """A row of the table of rounds."""
    return {
        "number": one.number,
        "state": one.state,
        "participants": len(one.participants),
        "dropped": ", ".join(one.dropped) or None,
        "epsilon": one.epsilon,
        "seconds": one.seconds,
        "entry": one.entry,
        "tone": "danger" if one.state == "aborted" else "attention" if one.dropped else "",
    }


def blocks_of(request: Request, run: RunView) -> dict[str, str]:
    """The page's blocks that change as a whole, by element id."""
    values = page_values(run)
    return {
        f"run-{name}": bytes(render(request, "runs/one.html", block=name, **values).body).decode() for name in BLOCKS
    }
