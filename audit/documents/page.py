"""The parts of an HTML document: escaped text, tables, key-value lists, and the style they share.

Invariants:
- Whatever comes from outside passes through `text`: markup in a hospital's name stays text.
- A page refers to nothing outside itself and holds no script; its content security policy forbids both.
- Only what prints well is used: no fixed positions, no hover; figures in tables are aligned.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

from audit.certificates import Identity
from audit.documents.form import MARK

MAX_TEXT = 2000  # characters of one text; more would be an attack on the reader


class Html(str):
    """Markup made by this package. A plain `str` is text, and is escaped wherever markup is expected."""

    __slots__ = ()


def text(value: object) -> Html:
    """`value` as text: escaped, on one line, without control or direction characters."""
    if isinstance(value, Html):
        return value
    shown = "".join(c if c.isprintable() else "\ufffd" for c in str(value))
    if len(shown) > MAX_TEXT:
        shown = shown[:MAX_TEXT] + "..."
    return Html(html.escape(shown, quote=True))


def join(parts: Iterable[Html], separator: str = "\n") -> Html:
    """Markup after markup."""
    return Html(separator.join(parts))


def number(value: float | None, decimals: int = 3) -> Html:
    """A figure with a fixed number of decimals; a dash where there is none."""
    if value is None:
        return Html("&ndash;")
    return Html(f"{value:.{decimals}f}".replace("-", "&minus;"))


def small(value: float) -> str:
    """A number of any size in few digits: 1e-6, 0.05, 12.5."""
    return f"{value:g}".replace("e-0", "e-")


def who(identity: Identity) -> str:
    """A person in words."""
    return f"{identity.name} ({identity.role.replace('_', ' ')}, {identity.organisation})"


def interval(value: float | None, lower: float | None, upper: float | None, decimals: int = 3) -> Html:
    """A figure and its 95% interval."""
    if value is None:
        return Html('<span class="muted">too few</span>')
    if lower is None or upper is None:
        return number(value, decimals)
    return Html(
        f'{number(value, decimals)} <span class="muted">[{number(lower, decimals)}, {number(upper, decimals)}]</span>'
    )


def digest(value: str) -> Html:
    """A digest in full, which a narrow page may break."""
    return Html(f'<code class="digest">{text(value)}</code>')


def paragraph(content: object, kind: str = "") -> Html:
    """A paragraph of text or markup."""
    return Html(f"<p{_class(kind)}>{text(content)}</p>")


def bullets(items: Iterable[object]) -> Html:
    """A list."""
    return Html("<ul>" + "".join(f"<li>{text(item)}</li>" for item in items) + "</ul>")


def pairs(rows: Iterable[tuple[str, object]]) -> Html:
    """A key-value list."""
    inner = "".join(f"<div><dt>{text(key)}</dt><dd>{text(value)}</dd></div>" for key, value in rows)
    return Html(f"<dl>{inner}</dl>")


def table(caption: str, head: Sequence[str], rows: Iterable[Sequence[object]], *, figures: int = 0) -> Html:
    """A table whose first column names the row and whose last `figures` columns are right-aligned."""
    first_figure = len(head) - figures
    heads = "".join(
        f'<th scope="col"{_class("figure" if i >= first_figure else "")}>{text(name)}</th>'
        for i, name in enumerate(head)
    )
    lines: list[str] = []
    for row in rows:
        cells = [f'<th scope="row">{text(row[0])}</th>']
        cells += [
            f"<td{_class('figure' if i >= first_figure else '')}>{text(cell)}</td>"
            for i, cell in enumerate(row[1:], start=1)
        ]
        lines.append(f"<tr>{''.join(cells)}</tr>")
    return Html(
        f'<div class="scroll" tabindex="0" role="region" aria-label="{text(caption)}"><table>'
        f"<caption>{text(caption)}</caption><thead><tr>{heads}</tr></thead><tbody>"
        + "\n".join(lines)
        + "</tbody></table></div>"
    )


def details(summary: str, content: Html, kind: str = "") -> Html:
    """A part that opens on demand. Of closed ones, only the figures behind a chart (`kind` "data") are printed."""
    return Html(f"<details{_class(kind)}><summary>{text(summary)}</summary>{content}</details>")


def figures(content: Html) -> Html:
    """The table behind a chart, opened on demand."""
    return details("The figures", content, "data")


def figure(svg: Html, caption: str, data: Html) -> Html:
    """A chart with its caption, and the table it was drawn from."""
    return Html(f"<figure>{svg}<figcaption>{text(caption)}</figcaption></figure>\n{data}")


def page(title: str, body: Html) -> bytes:
    """A whole document."""
    return (
        "<!doctype html>\n"
        f'<html lang="en">\n<head>\n<meta charset="utf-8">\n<meta name="generator" content="{MARK}">\n'
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'\">\n"
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{text(title)}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    ).encode()


def _class(kind: str) -> str:
    return f' class="{kind}"' if kind else ""


COLOURS = """:root {
  --surface: #ffffff; --raised: #f5f6f8; --line: #d5d9e0; --text: #1a1f29; --muted: #586173;
  --accent: #1f4b8f; --ok: #1c6e4a; --attention: #8a5300; --mark-soft: #a9bfe0;
}
@media (prefers-color-scheme: dark) {
  :root {
    --surface: #12151b; --raised: #1b2029; --line: #343c4a; --text: #e6e9ef; --muted: #a2abba;
    --accent: #8db4f0; --ok: #74c69d; --attention: #e6b566; --mark-soft: #3d5a8a;
  }
}
@media print {
  :root {
    --surface: #ffffff; --raised: #ffffff; --line: #b8bdc7; --text: #000000; --muted: #444c5a;
    --accent: #1f4b8f; --ok: #1c6e4a; --attention: #8a5300; --mark-soft: #a9bfe0;
  }
}
"""

CHART_STYLE = """.chart text {
  font: 13px system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif; fill: var(--text);
  font-variant-numeric: tabular-nums;
}
.chart .muted { fill: var(--muted); }
.chart .end { text-anchor: end; }
.chart .middle { text-anchor: middle; }
.chart .axis { stroke: var(--line); stroke-width: 1; }
.chart .limit { stroke: var(--attention); stroke-width: 1.5; stroke-dasharray: 5 3; }
.chart .range { stroke: var(--accent); stroke-width: 2; }
.chart .line { stroke: var(--accent); stroke-width: 2; fill: none; stroke-linejoin: round; }
.chart .mark { fill: var(--accent); }
.chart .soft { fill: var(--mark-soft); }
.chart .hollow { fill: var(--surface); stroke: var(--accent); stroke-width: 1.5; }
.chart .gap { fill: var(--surface); stroke: var(--attention); stroke-width: 1.5; }
"""

STYLE = (
    COLOURS
    + CHART_STYLE
    + """* { box-sizing: border-box; }
body {
  margin: 0 auto; padding: 32px 24px 64px; max-width: 1008px; background: var(--surface); color: var(--text);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif;
  font-variant-numeric: tabular-nums;
}
h1 { font-size: 32px; line-height: 1.2; margin: 4px 0 8px; font-weight: 600; text-wrap: balance; }
h2 {
  font-size: 24px; line-height: 1.25; margin: 56px 0 12px; padding-top: 16px; border-top: 1px solid var(--line);
  font-weight: 600;
}
h2 .no { color: var(--muted); font-weight: 400; margin-right: 8px; }
h3 { font-size: 18px; margin: 32px 0 8px; font-weight: 600; }
p, li { max-width: 72ch; }
p { margin: 0 0 12px; }
ul { margin: 0 0 12px; padding-left: 20px; }
a { color: var(--accent); text-underline-offset: 2px; }
header { border-top: 4px solid var(--accent); padding-top: 20px; }
.overline { font-size: 13px; color: var(--muted); margin: 0; }
.sentence { font-size: 18px; margin-bottom: 20px; }
.muted { color: var(--muted); }
.state { font-weight: 600; }
.ok { color: var(--ok); }
.attention { color: var(--attention); }
nav ol { columns: 2; column-gap: 32px; padding-left: 24px; margin: 24px 0 0; }
nav li { break-inside: avoid; padding: 2px 0; }
dl { margin: 0 0 16px; border-top: 1px solid var(--line); }
dl > div {
  display: grid; grid-template-columns: 232px 1fr; gap: 16px; padding: 6px 0; border-bottom: 1px solid var(--line);
}
dt { color: var(--muted); }
dd { margin: 0; min-width: 0; max-width: 72ch; overflow-wrap: anywhere; }
code, pre { font: 13px/1.5 ui-monospace, "SF Mono", Menlo, Consolas, monospace; }
.digest { overflow-wrap: anywhere; word-break: break-all; }
pre { background: var(--raised); padding: 12px 16px; overflow-x: auto; margin: 0 0 16px; }
.scroll { overflow-x: auto; margin: 0 0 20px; }
table { border-collapse: collapse; width: 100%; font-size: 13px; }
caption { text-align: left; color: var(--muted); padding: 0 0 6px; }
th, td { text-align: left; vertical-align: top; padding: 6px 16px 6px 0; border-bottom: 1px solid var(--line); }
th { font-weight: 600; }
thead th { color: var(--muted); font-weight: 400; white-space: nowrap; }
th:last-child, td:last-child { padding-right: 0; }
.figure { text-align: right; white-space: nowrap; }
figure { margin: 8px 0 12px; overflow-x: auto; }
figure svg { width: 100%; min-width: 640px; height: auto; display: block; }
figcaption { color: var(--muted); font-size: 13px; max-width: 72ch; }
details { margin: 0 0 16px; }
summary { cursor: pointer; color: var(--accent); }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
@media (max-width: 640px) {
  body { padding: 20px 16px 48px; }
  h1 { font-size: 24px; }
  h2 { font-size: 18px; margin-top: 40px; }
  nav ol { columns: 1; }
  dl > div { grid-template-columns: 1fr; gap: 0; }
}
@media print {
  body { max-width: none; padding: 0; font-size: 10.5pt; }
  h1 { font-size: 22pt; } h2 { font-size: 15pt; margin-top: 24pt; } h3 { font-size: 12pt; }
  nav { display: none; }
  h2, h3, caption { break-after: avoid; }
  figure, tr, dl > div { break-inside: avoid; }
  thead { display: table-header-group; }
  .scroll, figure { overflow: visible; }
  figure svg { min-width: 0; }
  details.data::details-content { content-visibility: visible; }
  table, code, pre, figcaption { font-size: 9pt; }
  pre { border: 1px solid var(--line); white-space: pre-wrap; }
  a { color: inherit; text-decoration: none; }
}
@page { margin: 18mm 16mm; }
"""
)
