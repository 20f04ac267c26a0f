"""The trace as one picture: runs as bands from version to version, hospitals and rounds inside, then what followed.

Read from top to bottom: each band is a run, with the version it started from on the left, a row per hospital and a cell
per round (or per few rounds) in the middle, and the version it made on the right; below the last band stand the
hospitals' metrics, the approvals, and the releases. Plain SVG with its own light and dark colours, no script, nothing
from outside; it stays legible for 50 hospitals over thousands of rounds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from audit.canonical import format_time
from audit.documents.charts import round_bins
from audit.documents.form import MARK
from audit.documents.page import COLOURS, Html, small, text
from audit.metrics_trace import MetricsTrace
from audit.release import APPROVE, Approval
from audit.release_state import CERTIFIED
from audit.run_trace import RunTrace
from audit.trace import ReleaseTrace
from audit.version_trace import VersionTrace

_WIDTH = 1200
_MARGIN = 32
_NODE = 176  # width of a version's box
_NODE_HEIGHT = 56
_MATRIX_LEFT, _MATRIX_RIGHT = 264, 936  # names and cells and counts between these
_CELLS_LEFT, _CELLS_RIGHT = 432, 852
_OUT_LEFT = _WIDTH - _MARGIN - _NODE
_ROW = 16
_BINS = 60
_COLUMNS = 4  # of metrics and of approvals
_SHARES = ("hit@1", "micro_f1")  # the first of these that a hospital reports is shown
_STYLE = """text { font: 13px system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; fill: var(--text);
  font-variant-numeric: tabular-nums; }
.code { font-family: ui-monospace, Menlo, Consolas, monospace; }
.muted { fill: var(--muted); }
.title { font-size: 24px; font-weight: 600; }
.strong { font-weight: 600; }
.end { text-anchor: end; }
.middle { text-anchor: middle; }
.surface { fill: var(--surface); }
.box { fill: var(--raised); stroke: var(--line); }
.made { fill: var(--raised); stroke: var(--accent); stroke-width: 2; }
.mark { fill: var(--accent); }
.soft { fill: var(--mark-soft); }
.gap { fill: var(--surface); stroke: var(--attention); stroke-width: 1.5; }
.edge { stroke: var(--muted); stroke-width: 1.5; fill: none; }
.head { fill: var(--muted); }
.rule { stroke: var(--line); }
.ok { fill: var(--ok); }
.attention { fill: var(--attention); }
"""


@dataclass(frozen=True)
class _Ending:
    """A release at the foot of the picture."""

    name: str
    words: str
    certified: bool
    approvals: tuple[Approval, ...]


def release_picture(trace: ReleaseTrace) -> bytes:
    """The picture of a certified release."""
    words = f"certified {format_time(trace.certified_at)}, entry {trace.certified_index}"
    ending = _Ending(trace.release, words, True, trace.approvals)
    return _picture(f"Release {trace.release}", trace.consortium, trace.runs, trace.metrics, [ending])


def version_picture(trace: VersionTrace) -> bytes:
    """The picture of any version, released or not."""
    endings = [
        _Ending(
            each.release,
            f"{each.state} {format_time(each.since)}, entry {each.index}",
            each.state == CERTIFIED,
            each.approvals,
        )
        for each in trace.releases
    ]
    return _picture(f"Version {_short(trace.version)}", trace.consortium, trace.runs, trace.metrics, endings)


def _picture(
    title: str, consortium: str, runs: Sequence[RunTrace], metrics: Sequence[MetricsTrace], endings: Sequence[_Ending]
) -> bytes:
    parts = [
        f'<text class="muted" x="{_MARGIN}" y="36">{_cut(consortium, 80)}</text>',
        f'<text class="title" x="{_MARGIN}" y="68">{_cut(title, 60)}</text>',
    ]
    y = 96
    for position, run in enumerate(runs):
        band, height = _band(run, y, first=position == 0)
        parts += band
        if position + 1 < len(runs):
            parts.append(_turn(y + height, _out_y(run, y), y + height + 24))
        y += height + 48
    parts.append(f'<line class="rule" x1="{_MARGIN}" y1="{y - 28}" x2="{_WIDTH - _MARGIN}" y2="{y - 28}"/>')
    drawn, y = _measured(metrics, y)
    parts += drawn
    for ending in endings:
        drawn, y = _released(ending, y)
        parts += drawn
    if not endings:
        parts.append(f'<text class="muted" x="{_MARGIN}" y="{y}">No release was proposed with this version.</text>')
        y += 24
    receipts = sum(len(each.receipts) for run in runs for each in run.rounds)
    description = (
        f"{len(runs)} run(s) with {sum(len(run.rounds) for run in runs)} rounds and {receipts} signed receipts, "
        f"metrics of {len(metrics)} hospitals, {len(endings)} release(s). Filled cell: took part; paler: missed some "
        "of these rounds; outlined: dropped out; empty: not asked."
    )
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {y + 16}" width="{_WIDTH}" height="{y + 16}" '
        f'role="img" aria-labelledby="title desc">\n<!-- {MARK} -->\n'
        f'<title id="title">{text(title)}, {text(consortium)}</title>\n'
        f'<desc id="desc">{text(description)}</desc>\n<style>\n{COLOURS}{_STYLE}</style>\n'
        f'<rect class="surface" width="{_WIDTH}" height="{y + 16}"/>\n'
    )
    return (head + "\n".join(parts) + "\n</svg>\n").encode()


def _band(run: RunTrace, y: int, *, first: bool) -> tuple[list[str], int]:
    """A run: its words, the version before, the matrix, the version after. Returns the parts and their height."""
    plan = run.plan
    approved = ", ".join(a.approver.name for a in plan.approvals if a.decision == APPROVE)
    parts = [
        f'<text class="strong" x="{_MARGIN}" y="{y + 12}">{_cut(run.run_id, 60)}</text>',
        f'<text class="muted" x="{_MATRIX_LEFT + 88}" y="{y + 12}">'
        f"plan {_cut(plan.name, 30)}, approved by {_cut(approved, 40)}; epsilon {run.epsilon:g} of {plan.epsilon:g}, "
        f"delta {small(run.delta)}</text>",
    ]
    top = y + 28
    trained = [h for h in run.hospitals if h.rounds_joined or h.rounds_dropped]
    height = max(_ROW * len(trained), _NODE_HEIGHT - 24)
    middle = top + 12 + height / 2
    parts.append(
        f'<rect class="box" x="{_MATRIX_LEFT}" y="{top}" width="{_MATRIX_RIGHT - _MATRIX_LEFT}" '
        f'height="{height + 24}" rx="4"/>'
    )
    parts += _version(_MARGIN, middle, "initial version" if first else "from version", run.initial_version, "box")
    parts += _version(_OUT_LEFT, middle, "made version", run.version, "made")
    parts += _arrow(_MARGIN + _NODE, _MATRIX_LEFT, middle) + _arrow(_MATRIX_RIGHT, _OUT_LEFT, middle)
    bins = round_bins(len(run.rounds), _BINS)
    step = (_CELLS_RIGHT - _CELLS_LEFT) / max(len(bins), 20)
    for row, hospital in enumerate(trained):
        line = top + 12 + _ROW * row
        parts.append(f'<text class="end" x="{_CELLS_LEFT - 12}" y="{line + 12}">{_cut(hospital.site, 20)}</text>')
        for column, (begin, end) in enumerate(bins):
            rounds = run.rounds[begin - 1 : end]
            took = sum(hospital.site in each.participants for each in rounds)
            missed = sum(hospital.site in each.dropped for each in rounds)
            kind = "mark" if took == len(rounds) else "soft" if took else "gap" if missed else ""
            if kind:
                x = _CELLS_LEFT + step * column
                parts.append(
                    f'<rect class="{kind}" x="{x:.1f}" y="{line + 2}" width="{step - 1.5:.1f}" height="{_ROW - 4}">'
                    f"<title>{text(hospital.site)}, {_rounds(begin, end)}: {took} joined, {missed} dropped"
                    "</title></rect>"
                )
        counted = f"{hospital.rounds_joined} of {len(run.rounds)}"
        parts.append(f'<text class="end muted" x="{_MATRIX_RIGHT - 10}" y="{line + 12}">{counted}</text>')
    receipts = sum(len(each.receipts) for each in run.rounds)
    note = _rounds(1, len(run.rounds)) + (f", {bins[0][1]} per cell" if bins[0][1] > 1 else "")
    note += f"; {receipts} signed receipts"
    parts.append(f'<text class="muted" x="{_CELLS_LEFT}" y="{top + height + 42}">{note}</text>')
    return parts, height + 24 + 28 + 20


def _out_y(run: RunTrace, y: int) -> float:
    trained = sum(bool(h.rounds_joined or h.rounds_dropped) for h in run.hospitals)
    return y + 28 + 12 + max(_ROW * trained, _NODE_HEIGHT - 24) / 2 + _NODE_HEIGHT / 2


def _turn(bottom: int, start: float, y: int) -> str:
    """The way from a version on the right to the band below, which starts from it."""
    x, target = _OUT_LEFT + _NODE / 2, _MARGIN + _NODE / 2
    return (
        f'<path class="edge" d="M{x:.1f} {start:.1f}V{bottom + 12}H{target:.1f}V{y + 8}"/>'
        f'<path class="head" d="M{target:.1f} {y + 14}l-5 -8h10z"/>'
    )


def _version(x: float, middle: float, words: str, version: str, kind: str) -> list[str]:
    top = middle - _NODE_HEIGHT / 2
    return [
        f'<rect class="{kind}" x="{x}" y="{top:.1f}" width="{_NODE}" height="{_NODE_HEIGHT}" rx="4">'
        f"<title>{text(version)}</title></rect>",
        f'<text class="muted middle" x="{x + _NODE / 2}" y="{top + 23:.1f}">{text(words)}</text>',
        f'<text class="code middle" x="{x + _NODE / 2}" y="{top + 42:.1f}">{_short(version)}</text>',
    ]


def _arrow(x1: float, x2: float, y: float) -> list[str]:
    return [
        f'<path class="edge" d="M{x1} {y:.1f}H{x2 - 8}"/>',
        f'<path class="head" d="M{x2} {y:.1f}l-8 -5v10z"/>',
    ]


def _measured(metrics: Sequence[MetricsTrace], y: int) -> tuple[list[str], int]:
    """What hospitals measured, in columns."""
    parts = [f'<text class="strong" x="{_MARGIN}" y="{y}">Metrics of {len(metrics)} hospitals</text>']
    if not metrics:
        return parts, y + 32
    width = (_WIDTH - 2 * _MARGIN) / _COLUMNS
    for position, each in enumerate(metrics):
        x = _MARGIN + width * (position % _COLUMNS)
        line = y + 28 + 22 * (position // _COLUMNS)
        name = next((share for share in _SHARES if share in each.values), None)
        value = each.values[name]["value"] if name else None
        if name is None:
            words = f"{len(each.values)} values, entry {each.index}"
        else:
            words = f"{name} {'too few' if value is None else f'{value:.3f}'}, entry {each.index}"
        parts.append(
            f'<text x="{x:.1f}" y="{line}">{_cut(each.site, 18)} <tspan class="muted">{text(words)}</tspan></text>'
        )
    return parts, y + 28 + 22 * -(-len(metrics) // _COLUMNS) + 24


def _released(ending: _Ending, y: int) -> tuple[list[str], int]:
    """A release with the decisions about it."""
    kind = "made" if ending.certified else "box"
    parts = [
        f'<rect class="{kind}" x="{_MARGIN}" y="{y - 20}" width="{_WIDTH - 2 * _MARGIN}" height="32" rx="4"/>',
        f'<text class="strong" x="{_MARGIN + 16}" y="{y + 1}">Release {_cut(ending.name, 40)} '
        f'<tspan class="muted" font-weight="400">{text(ending.words)}</tspan></text>',
    ]
    y += 40
    width = (_WIDTH - 2 * _MARGIN) / _COLUMNS
    for position, approval in enumerate(ending.approvals):
        x = _MARGIN + width * (position % _COLUMNS)
        line = y + 60 * (position // _COLUMNS)
        approved = approval.decision == APPROVE
        role = approval.approver.role.replace("_", " ")
        parts += [
            f'<text x="{x:.1f}" y="{line}"><tspan class="{"ok" if approved else "attention"}">'
            f"{'approved' if approved else 'refused'}</tspan> by {_cut(approval.approver.name, 24)}</text>",
            f'<text class="muted" x="{x:.1f}" y="{line + 18}">'
            f"{_cut(f'{role}, {approval.approver.organisation}', 38)}</text>",
            f'<text class="muted" x="{x:.1f}" y="{line + 36}">'
            f"{format_time(approval.time)}, entry {approval.index}</text>",
        ]
    if not ending.approvals:
        parts.append(f'<text class="muted" x="{_MARGIN}" y="{y}">Nobody has decided about it.</text>')
    return parts, y + 60 * max(-(-len(ending.approvals) // _COLUMNS), 1) + 8


def _rounds(first: int, last: int) -> str:
    return f"round {first}" if first == last else f"rounds {first} to {last}"


def _short(digest: str) -> str:
    return digest.removeprefix("sha256:")[:12]


def _cut(value: str, most: int) -> Html:
    return text(value if len(value) <= most else value[: most - 1] + "\u2026")
