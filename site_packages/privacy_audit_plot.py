"""The audit's picture: an SVG that stands alone, readable on light and dark paper and by screen readers.

Left: for each configuration the epsilon claimed and what an attack proves at least. Right: the variance of the
released noise over the claimed one, with its 95% interval. What fails says so in words, not by colour alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape

from privacy.empirical_checks import Check
from site_packages.privacy_audit import AuditReport, ConfigurationReport

_ROW, _TOP, _LEFT, _WIDE, _GAP = 44, 84, 110, 260, 70  # pixels
_WIDTH = _LEFT + 2 * _WIDE + _GAP + 56
_STYLE = """
svg{--ink:#1c2430;--soft:#5b6675;--line:#c9d0d9;--paper:#ffffff;--bar:#2f6db3;--bad:#b3261e}
@media (prefers-color-scheme: dark){
svg{--ink:#e8ecf1;--soft:#a3aebb;--line:#46505c;--paper:#14181d;--bar:#79aee8;--bad:#ff8a80}}
text{font:13px system-ui,sans-serif;fill:var(--ink)}
.soft{fill:var(--soft);font-size:11px}.head{font-weight:600}.bad{fill:var(--bad)}
.paper{fill:var(--paper)}.bar{fill:var(--bar)}.axis{stroke:var(--line)}
.claim{stroke:var(--ink);stroke-width:2}.reach{stroke:var(--bar);stroke-width:2}
.badbar{fill:var(--bad)}.badreach{stroke:var(--bad);stroke-width:2}
"""


def plot(report: AuditReport) -> str:
    """The report as an SVG document."""
    rows = report.configurations
    height = _TOP + _ROW * len(rows) + 56
    verdict = "passed" if report.passed else "FAILED"
    heading = f"Empirical privacy audit: {verdict}"
    body = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img" '
        'aria-labelledby="title description">',
        f'<title id="title">{escape(heading)}</title>',
        f'<desc id="description">{escape(_described(report))}</desc>',
        f"<style>{_STYLE}</style>",
        f'<rect class="paper" width="{_WIDTH}" height="{height}"/>',
        _text(16, 26, heading, "head" if report.passed else "head bad"),
        _text(16, 44, f"{report.software}, {report.time}{', quick' if report.quick else ''}", "soft"),
        *_epsilons(rows),
        *_variances(rows),
    ]
    for position, row in enumerate(rows):
        y = _TOP + _ROW * position + 18
        body.append(_text(16, y, row.configuration.name))
        failed = [check.name for check in row.checks if not check.passed]
        if failed:
            body.append(_text(16, y + 16, "fails: " + ", ".join(failed), "soft bad"))
    return "\n".join([*body, "</svg>", ""])


def _described(report: AuditReport) -> str:
    sentences = []
    for row in report.configurations:
        noise = _noise(row)
        failed = [check.name for check in row.checks if not check.passed]
        sentences.append(
            f"{row.configuration.name}: epsilon {row.claim:.2f} claimed, at least {row.attack.lower_bound:.2f} proven; "
            f"noise variance {noise.measured:.3f} of the claimed one; "
            + ("failed: " + ", ".join(failed) if failed else "all checks passed")
            + "."
        )
    return " ".join(sentences)


def _epsilons(rows: Sequence[ConfigurationReport]) -> list[str]:
    largest = _round_up(max(max(row.claim, row.attack.lower_bound) for row in rows) * 1.1)

    def at(value: float) -> float:
        return _LEFT + _WIDE * value / largest

    parts = _frame(_LEFT, len(rows), "epsilon: bar proven at least, line claimed", [0, largest / 2, largest], at)
    for position, row in enumerate(rows):
        y = _TOP + _ROW * position
        bad = row.attack.lower_bound > row.claim
        width = at(row.attack.lower_bound) - _LEFT
        parts.append(
            f'<rect class="{"badbar" if bad else "bar"}" x="{_LEFT}" y="{y + 8}" width="{width:.1f}" height="12"/>'
        )
        parts.append(_line(at(row.claim), y + 3, at(row.claim), y + 25, "claim"))
    return parts


def _variances(rows: Sequence[ConfigurationReport]) -> list[str]:
    left = _LEFT + _WIDE + _GAP
    checks = [_noise(row) for row in rows]
    reach = max(0.02, *(abs(end - 1) for check in checks for end in _interval(check)))
    reach = min(1.0, reach * 1.15)

    def at(value: float) -> float:
        return left + _WIDE * (min(max(value, 1 - reach), 1 + reach) - 1 + reach) / (2 * reach)

    parts = _frame(left, len(rows), "noise variance over the claimed one", [1 - reach, 1.0, 1 + reach], at)
    parts.append(_line(at(1.0), _TOP, at(1.0), _TOP + _ROW * len(rows), "claim"))
    for position, check in enumerate(checks):
        y = _TOP + _ROW * position + 14
        low, high = _interval(check)
        kind = "reach" if check.passed else "badreach"
        parts.append(_line(at(low), y, at(high), y, kind))
        parts.append(
            f'<circle class="{"bar" if check.passed else "badbar"}" cx="{at(check.measured):.1f}" cy="{y}" r="4"/>'
        )
        # A value outside the picture sits at its edge; the number says where it is.
        parts.append(_text(left + _WIDE + 8, y + 4, f"{check.measured:.3f}", "soft"))
    return parts


def _frame(left: int, rows: int, heading: str, ticks: Sequence[float], at: Callable[[float], float]) -> list[str]:
    bottom = _TOP + _ROW * rows
    parts = [_text(left, _TOP - 14, heading, "soft"), _line(left, bottom, left + _WIDE, bottom, "axis")]
    for tick in ticks:
        parts.append(_line(at(tick), _TOP, at(tick), bottom + 4, "axis"))
        parts.append(_text(at(tick), bottom + 18, f"{tick:.3g}", "soft", anchor="middle"))
    return parts


def _noise(row: ConfigurationReport) -> Check:
    (check,) = [check for check in row.checks if check.name == "noise-variance"]
    return check


def _interval(check: Check) -> tuple[float, float]:
    low, high = check.lower, check.upper
    return (check.measured if low is None else low, check.measured if high is None else high)


def _round_up(value: float) -> float:
    step = 10.0 ** math.floor(math.log10(value))
    return math.ceil(value / step * 2) * step / 2


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _text(x: float, y: float, words: str, kind: str = "", anchor: str = "start") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'
