"""The address of the pages: what browsers call our origin, what cookies are called, where a visitor may be sent.

On https the cookies carry the `__Host-` prefix, so that neither a neighbouring host nor plain http can set them.

Source: RFC 6265bis section 4.1.3 (cookie prefixes); RFC 6454 (origins).
"""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection
from starlette.responses import Response

from admin_api.web.settings import Settings

SESSION = "session"
CEREMONY = "ceremony"
_PORTS = {"http": 80, "https": 443}
_NEXT = re.compile(r"/(?![/\\])[!-\[\]-~]{0,1999}")  # printable ASCII without the backslash, which browsers read as /


def origin_of(settings: Settings) -> str:
    """The pages' origin, spelt as browsers do: lower case, no default port."""
    parts = urlsplit(settings.public_url)
    host = (parts.hostname or "").lower()
    if parts.port is None or parts.port == _PORTS[parts.scheme]:
        return f"{parts.scheme}://{host}"
    return f"{parts.scheme}://{host}:{parts.port}"


def cookie_name(settings: Settings, what: str) -> str:
    """The name of one of our cookies."""
    return f"__Host-zegel-{what}" if settings.secure else f"zegel-{what}"


def cookie_of(connection: HTTPConnection, settings: Settings, what: str) -> str | None:
    """What the browser sent in that cookie."""
    return connection.cookies.get(cookie_name(settings, what))


def set_cookie(response: Response, settings: Settings, what: str, value: str, *, seconds: int) -> None:
    """Let the browser keep `value`; an empty one and 0 seconds let it forget."""
    response.set_cookie(
        cookie_name(settings, what),
        value,
        max_age=seconds,
        path="/",
        secure=settings.secure,
        httponly=True,
        samesite="lax",
    )


def safe_next(value: str | None) -> str:
    """Where to go after signing in: a path of our own, or the first page for anything else."""
    if value is None or _NEXT.fullmatch(value) is None or value.startswith(("/sign-in", "/sign-out", "/enrol")):
        return "/"
    return value
