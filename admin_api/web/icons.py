"""The icons, 16 by 16, drawn by strokes. They stand beside words and are hidden from screen readers.

Their shapes are in every page once (base.html), so that a table of a thousand states stays small.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from markupsafe import Markup, escape

SHAPES: Mapping[str, str] = {
    "check": "M3 8.5 6.5 12 13 4.5",
    "cross": "M4 4l8 8M12 4l-8 8",
    "clock": "M8 1.75a6.25 6.25 0 1 0 0 12.5a6.25 6.25 0 0 0 0-12.5M8 4.5V8l2.5 1.5",
    "warning": "M8 2 14.5 13.5h-13ZM8 6.5v3.25M8 11.5v.25",
    "stop": "M8 1.75a6.25 6.25 0 1 0 0 12.5a6.25 6.25 0 0 0 0-12.5M3.75 12.25l8.5-8.5",
    "info": "M8 1.75a6.25 6.25 0 1 0 0 12.5a6.25 6.25 0 0 0 0-12.5M8 7.25v4M8 4.75v.25",
    "seal": (
        "M8 1.75a4.75 4.75 0 1 0 0 9.5a4.75 4.75 0 0 0 0-9.5M5.9 6.6l1.5 1.5 2.7-3"
        "M5.25 10.6 4.5 14.5 8 12.9l3.5 1.6-.75-3.9"
    ),
    "search": "M7 2.25a4.75 4.75 0 1 0 0 9.5a4.75 4.75 0 0 0 0-9.5M10.5 10.5l3.5 3.5",
    "copy": "M6 5.5h7.5V14H6ZM3.5 10.5h-1V2H10v1",
    "down": "M3.5 6 8 10.5 12.5 6",
    "up": "M3.5 10 8 5.5 12.5 10",
    "right": "M6 3.5 10.5 8 6 12.5",
    "left": "M10 3.5 5.5 8 10 12.5",
    "menu": "M2 4h12M2 8h12M2 12h12",
    "key": "M5 6.5a3 3 0 1 0 .01 0M7.1 8.4 13.5 2M11 4.5l2 2",
    "person": "M8 2a2.75 2.75 0 1 0 0 5.5A2.75 2.75 0 0 0 8 2M2.75 14c.4-3 2.5-4.5 5.25-4.5s4.85 1.5 5.25 4.5",
    "hospital": "M2.5 14V5.5h11V14M5 5.5V2h6v3.5M8 7.5v4M6 9.5h4M1.5 14h13",
    "shield": "M8 1.75 13.25 3.5v4.25c0 3.25-2.25 5.5-5.25 6.5-3-1-5.25-3.25-5.25-6.5V3.5Z",
    "play": "M5 3v10l8-5Z",
    "pause": "M5.5 3v10M10.5 3v10",
    "file": "M3.5 1.75H9.5L12.5 4.75V14.25h-9ZM5.75 7.5h4.5M5.75 10.5h4.5",
    "log": "M2.25 3.5h.01M5.5 3.5H14M2.25 8h.01M5.5 8H14M2.25 12.5h.01M5.5 12.5H14",
    "link": "M6.5 9.5l3-3M7.5 4.5 9.5 2.6a2.7 2.7 0 0 1 3.9 3.9L11.5 8.5M8.5 11.5l-2 1.9a2.7 2.7 0 0 1-3.9-3.9l1.9-2",
    "filter": "M2 3h12L9.5 8.5V13l-3-1.5v-3Z",
    "sun": (
        "M8 5a3 3 0 1 0 0 6a3 3 0 0 0 0-6M8 1.25v1.25M8 13.5v1.25M1.25 8H2.5M13.5 8h1.25"
        "M3.2 3.2l.9.9M11.9 11.9l.9.9M3.2 12.8l.9-.9M11.9 4.1l.9-.9"
    ),
    "moon": "M13.5 9.75A6 6 0 0 1 6.25 2.5a6 6 0 1 0 7.25 7.25Z",
    "print": "M4.5 6V1.75h7V6M4.5 11.5h-2.5V6h12v5.5h-2.5M4.5 9.5h7v4.75h-7Z",
    "plus": "M8 3v10M3 8h10",
    "minus": "M3 8h10",
    "external": "M6.5 3H3v10h10V9.5M9.5 2.5h4v4M13.5 2.5 7.5 8.5",
    "sign-out": "M9.5 2.5H3v11h6.5M6.5 8h7.5M11.5 5.5 14 8l-2.5 2.5",
    "eye": "M1.5 8C3 5 5.25 3.5 8 3.5S13 5 14.5 8C13 11 10.75 12.5 8 12.5S3 11 1.5 8M8 6a2 2 0 1 0 0 4a2 2 0 0 0 0-4",
    "dot": "M8 6a2 2 0 1 0 0 4a2 2 0 0 0 0-4",
    "download": "M8 2v8.5M4.5 7.5 8 11l3.5-3.5M2.5 14h11",
}


SPRITE = Markup(  # noqa: S704 - shapes of this module
    '<svg class="sprite" width="0" height="0" aria-hidden="true">'
    + "".join(f'<symbol id="i-{name}" viewBox="0 0 16 16"><path d="{path}"/></symbol>' for name, path in SHAPES.items())
    + "</svg>"
)


@cache
def icon(name: str, label: str = "") -> Markup:
    """The icon; with a `label` it speaks for itself, without a word beside it. Its shape is in the page's SPRITE."""
    if name not in SHAPES:
        raise ValueError(f"no icon {name!r}; there are {', '.join(SHAPES)}")
    said = f'role="img" aria-label="{escape(label)}"' if label else 'aria-hidden="true"'
    return Markup(  # noqa: S704 - a name of this module, and a label escaped above
        f'<svg class="icon" width="16" height="16" {said}><use href="#i-{name}"/></svg>'
    )
