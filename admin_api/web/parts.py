"""The small parts of a page, and the rows of tables made of them: states, times, digests, seals, intervals, bars.

The components of templates/components.html are made of these. They are Python because a table holds thousands of them,
and a macro call costs more than the part itself.

Everything that comes from outside is escaped here; what is returned is markup.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any

from markupsafe import Markup, escape

from admin_api.web.charts import sparkline
from admin_api.web.icons import icon
from admin_api.web.language import DASH, _, current, instant
from admin_api.web.states import State, shown

FIGURES = frozenset({"number", "percent", "epsilon", "interval", "seal"})  # kinds of columns aligned to the right
_MISSING = object()


def state_of(state: object, word: str | None = None, tone: str | None = None) -> State:
    """A state's word in the reader's language, its icon and tone; `word` and `tone` replace the table's."""
    known = shown(str(state))
    return State(word if word is not None else _(known.word), known.icon, tone or known.tone)


def chip(state: object, word: str | None = None, tone: str | None = None) -> Markup:
    """A state: icon, word, tone."""
    return _chip(current().code, str(state), word, tone)


@lru_cache(maxsize=512)
def _chip(_language: str, state: str, word: str | None, tone: str | None) -> Markup:
    known = state_of(state, word, tone)
    return _markup(f'<span class="chip {escape(known.tone)}">{icon(known.icon)}{escape(known.word)}</span>')


def iso(value: datetime | str) -> str:
    """RFC 3339 in UTC, to the second."""
    return instant(value).strftime("%Y-%m-%dT%H:%M:%SZ")


def time(value: datetime | str | None) -> Markup:
    """A time, for people and machines."""
    if value is None:
        return _markup(DASH)
    return _markup(f'<time datetime="{iso(value)}">{current().moment(value)}</time>')


def seal(entry: int | None) -> Markup:
    """Where a figure is proved: its entry of the log; None says that no evidence exists."""
    if entry is None:
        said = escape(_("No entry of the log holds this."))
        return _markup(f'<span class="seal none" title="{said}">{escape(_("no evidence"))}</span>')
    said = escape(_("Entry %(index)s of the log", index=entry))
    return _markup(f'<a class="seal" href="/log/{int(entry)}" title="{said}">{icon("seal")}{int(entry)}</a>')


def digest(value: str | None, short: bool = True) -> Markup:
    """A digest, the whole one copied by its button."""
    if value is None:
        return _markup(DASH)
    whole, brief = escape(value), escape(current().short_digest(value))
    copy = escape(_("Copy the digest"))
    return _markup(
        f'<span class="digest"><code title="{whole}">{brief if short else whole}</code>'
        f'<button class="quiet icon-only copy" type="button" data-copy="{whole}" aria-label="{copy} {brief}">'
        f"{icon('copy')}</button></span>"
    )


def figure_interval(value: float | None, lower: float | None, upper: float | None, decimals: int = 3) -> Markup:
    """A figure with its interval."""
    number = current().number
    if value is None:
        return _markup(f'<span class="muted">{escape(_("too few"))}</span>')
    if lower is None or upper is None:
        return _markup(f'<span class="nowrap">{number(value, decimals)}</span>')
    between = f"[{number(lower, decimals)}, {number(upper, decimals)}]"
    return _markup(f'<span class="nowrap">{number(value, decimals)} <span class="muted">{between}</span></span>')


def meter(value: float, of: float, label: str, tone: str = "accent", reserved: float = 0, ghost: float = 0) -> Markup:
    """A share of something, with its numbers in words beside it."""
    total = max(of, value + reserved + ghost)
    unit = 100 / total if total else 0.0
    bars = _bar("left", 0, of * unit) + _bar("spent", 0, value * unit)
    if reserved:
        bars += _bar("reserved", value * unit, reserved * unit)
    if ghost:
        over = " over" if value + reserved + ghost > of else ""
        bars += _bar(f"ghost{over}", (value + reserved) * unit, ghost * unit)
    return _markup(
        f'<span class="meter"><svg class="track {escape(tone)}" viewBox="0 0 100 8" preserveAspectRatio="none" '
        f'aria-hidden="true">{bars}</svg><span>{escape(label)}</span></span>'
    )


def _bar(kind: str, x: float, width: float) -> str:
    return f'<rect class="{kind}" x="{x:.2f}" y="0" width="{width:.2f}" height="8"/>'


def cell(value: Any, column: Mapping[str, Any]) -> Markup:
    """A value as its column shows it. None is a dash, and where evidence should be, none."""
    kind = column.get("kind", "text")
    if value is None:
        return seal(None) if kind == "seal" else _markup(DASH)
    try:
        show = _SHOWN[kind]
    except KeyError:
        raise ValueError(f"column {column['key']!r}: no kind {kind!r}; there are {', '.join(_SHOWN)}") from None
    unit = column.get("unit")
    shown_value = show(value, column)
    return _markup(f'{shown_value} <span class="unit">{escape(unit)}</span>') if unit else shown_value


def exact(value: object, kind: str = "text") -> str:
    """What the browser sorts by and a spreadsheet reads: the figure itself, a point for decimals, no groups."""
    if value is None:
        return ""
    if kind == "chip":
        return state_of(*_state_parts(value)).word
    if kind in _INNER:
        value = _of(value, _INNER[kind])
    elif kind == "spark" and isinstance(value, Sequence):
        value = value[-1] if value else None
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, datetime):
        return iso(value)
    return str(value)


def table_body(columns: Sequence[Mapping[str, Any]], rows: Iterable[Any]) -> Markup:
    """The rows of a table. The column marked `row`, else the first, names the row and holds its link."""
    named = next((column["key"] for column in columns if column.get("row")), columns[0]["key"])
    parts: list[str] = []
    for row in rows:
        href, tone, id_ = _of(row, "href", ""), _of(row, "tone", ""), _of(row, "id", "")
        parts.append("<tr")
        for name, given in (("id", id_), ("class", tone), ("data-href", href)):
            if given:
                parts.append(f' {name}="{escape(given)}"')
        parts.append(">")
        for column in columns:
            parts.append(_table_cell(_of(row, column["key"]), column, href if column["key"] == named else None))
        parts.append("</tr>\n")
    return _markup("".join(parts))


def _table_cell(value: Any, column: Mapping[str, Any], href: str | None) -> str:
    """A cell; `href` is None for all but the row's name."""
    kind = column.get("kind", "text")
    tag, scope = ("td", "") if href is None else ("th", ' scope="row"')
    classes = " ".join((["figure"] if kind in FIGURES else []) + (["wrap"] if column.get("wrap") else []))
    inner = cell(value, column)
    if href and kind != "link":
        inner = _markup(f'<a href="{escape(href)}">{inner}</a>')
    sorts = "" if kind in _AS_SHOWN else f' data-exact="{escape(exact(value, kind))}"'
    return f"<{tag}{scope}{f' class={chr(34)}{classes}{chr(34)}' if classes else ''}{sorts}>{inner}</{tag}>"


def _state_parts(value: object) -> tuple[object, str | None, str | None]:
    if isinstance(value, Mapping):
        return value["state"], value.get("word"), value.get("tone")
    return value, None, None


def _of(thing: Any, key: str, default: Any = _MISSING) -> Any:
    """What a mapping or an object has under `key`. A row without a column's value is a fault of the page."""
    found = thing.get(key, default) if isinstance(thing, Mapping) else getattr(thing, key, default)
    if found is _MISSING:
        raise KeyError(f"a row of the table has no {key!r}: {thing!r}")
    return found


def _day(value: Any, _column: Mapping[str, Any]) -> Markup:
    day = current().date(value)
    return _markup(f'<time datetime="{day}">{day}</time>')


def _budget(value: Any, _column: Mapping[str, Any]) -> Markup:
    epsilon = current().epsilon
    spent, of = _of(value, "spent"), _of(value, "of")
    label = _("%(spent)s of %(of)s", spent=epsilon(spent), of=epsilon(of))
    return meter(spent, of, label, _of(value, "tone", "accent"), _of(value, "reserved", 0), _of(value, "ghost", 0))


def _interval(value: Any, column: Mapping[str, Any]) -> Markup:
    return figure_interval(
        _of(value, "value"), _of(value, "lower", None), _of(value, "upper", None), column.get("decimals", 3)
    )


_SHOWN: Mapping[str, Callable[[Any, Mapping[str, Any]], Markup]] = {
    "text": lambda value, _column: escape(value),
    "html": lambda value, _column: escape(value),
    "number": lambda value, column: escape(current().number(value, column.get("decimals"))),
    "percent": lambda value, column: escape(current().percent(value, column.get("decimals", 0))),
    "epsilon": lambda value, _column: escape(current().epsilon(value)),
    "date": _day,
    "moment": lambda value, _column: time(value),
    "chip": lambda value, _column: chip(*_state_parts(value)),
    "link": lambda value, _column: _markup(f'<a href="{escape(_of(value, "href"))}">{escape(_of(value, "text"))}</a>'),
    "interval": _interval,
    "bar": _budget,
    "digest": lambda value, _column: digest(value),
    "seal": lambda value, _column: seal(value),
    "spark": lambda value, _column: sparkline(value),
}
_INNER = {"link": "text", "interval": "value", "bar": "spent"}
_AS_SHOWN = frozenset({"text", "html", "link", "seal"})  # sorted by what they show


def _markup(text: str) -> Markup:
    return Markup(text)  # noqa: S704 - callers escape what comes from outside
