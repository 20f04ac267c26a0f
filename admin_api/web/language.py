"""English and Dutch: whose language it is, what was translated, and how figures and times are written.

Invariants:
- English is the source text; a message without a translation is shown in English. `python -m admin_api.web.language
  check` names such messages, and a test runs it.
- The language of an answer is settled once, by `LanguageMiddleware`: the account's, or for those who are signed out
  the choice made in this browser (a cookie), then what the browser asks for.
- Catalogues are compiled in memory from locale/<code>/LC_MESSAGES/zegel.po; there are no compiled files to forget.
- Dates are ISO 8601 and times name their zone in every language; only decimals, groups and words follow it.

Source: gettext; Unicode CLDR through babel; RFC 9110 section 12.5.4 (Accept-Language).
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

from babel import Locale
from babel.dates import format_timedelta
from babel.messages.catalog import Catalog
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po
from babel.numbers import get_decimal_symbol, get_group_symbol
from babel.support import NullTranslations, Translations
from babel.units import format_unit
from starlette.datastructures import MutableHeaders
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

SOURCE = "en"
LANGUAGES: Mapping[str, str] = {"en": "English", "nl": "Nederlands"}  # code -> its own name
COOKIE = "zegel-language"
LOCALE = Path(__file__).parent / "locale"
DASH = "\u2013"  # where there is no figure
_MINUS = "\u2212"
_DIGEST = 19  # characters of a digest in running text: "sha256:" and 12 hex digits
_FALLBACK_ACCEPT = 1.0


@dataclass(frozen=True)
class Language:
    """One language: its messages, and its way of writing figures."""

    code: str
    locale: Locale
    translations: NullTranslations
    script_messages: Mapping[str, str]  # English -> translated: what the pages' scripts say
    signs: Mapping[int, str]  # for str.translate: the locale's decimal sign, group sign and minus

    def gettext(self, message: str, /, **values: object) -> str:
        """`message` in this language, its %(name)s filled in; a literal percent sign is written %%."""
        said: str = self.translations.gettext(message)
        return said % values if values else said.replace("%%", "%")

    def ngettext(self, one: str, many: str, num: int, /, **values: object) -> str:
        """The form that `num` asks for; %(num)s stands for `num` itself."""
        said: str = self.translations.ngettext(one, many, num)
        return said % {"num": self.number(num), **values}

    def number(self, value: float | None, decimals: int | None = None) -> str:
        """A figure: with `decimals` decimals, or up to three when None."""
        if value is None or math.isnan(value):
            return DASH
        if math.isinf(value):
            return "\u221e" if value > 0 else f"{_MINUS}\u221e"
        return self._written(value, 3, trim=True) if decimals is None else self._written(value, decimals)

    def percent(self, value: float | None, decimals: int = 0) -> str:
        """A share (1.0 is all) in percent."""
        if value is None or math.isnan(value):
            return DASH
        return f"{self._written(value * 100, decimals)}%"

    def epsilon(self, value: float | None) -> str:
        """A privacy loss in three significant digits; an infinite one protects nobody."""
        if value is None or math.isnan(value):
            return DASH
        if math.isinf(value):
            return self.gettext("no guarantee")
        if value == 0:
            return "0"
        decimals = max(0, 2 - math.floor(math.log10(abs(value))))
        if decimals > 6:
            return self.delta(value)
        return self._written(value, decimals, trim=True)

    def delta(self, value: float | None) -> str:
        """A very small number as people write it: 1e-6."""
        if value is None:
            return DASH
        mantissa, _, exponent = f"{value:.1e}".partition("e")
        return f"{mantissa.removesuffix('.0')}e{int(exponent)}"

    def date(self, value: datetime | date | str | None) -> str:
        """The day, ISO 8601, in UTC."""
        if value is None:
            return DASH
        if isinstance(value, date) and not isinstance(value, datetime):
            return value.isoformat()
        return instant(value).date().isoformat()

    def moment(self, value: datetime | str | None) -> str:
        """Day and time to the minute, with its zone."""
        return DASH if value is None else f"{instant(value):%Y-%m-%d %H:%M} UTC"

    def ago(self, value: datetime | str | None, now: datetime) -> str:
        """How long before or after `now`: "3 days ago", "in 2 hours"."""
        if value is None:
            return DASH
        apart = instant(value) - now
        if abs(apart) < timedelta(seconds=5):
            return self.gettext("just now")
        return format_timedelta(apart, add_direction=True, threshold=1.2, locale=self.locale)

    def duration(self, seconds: float | None) -> str:
        """A length of time in its two largest units."""
        if seconds is None or not math.isfinite(seconds):
            return DASH
        if seconds < 60:
            return self._unit(round(seconds, 1 if seconds < 10 else 0), "second")
        left, parts = round(seconds), []
        for name, length in (("day", 86400), ("hour", 3600), ("minute", 60), ("second", 1)):
            count, left = divmod(left, length)
            if count:
                parts.append(self._unit(count, name))
            elif parts:
                break
        return " ".join(parts[:2])

    def bytes_size(self, value: float | None) -> str:
        """A number of bytes in kB, MB, GB (powers of 1000)."""
        if value is None:
            return DASH
        unit = 0
        while abs(value) >= 999.5 and unit < 4:
            value, unit = value / 1000, unit + 1
        return (
            f"{self.number(value, 0 if unit == 0 or abs(value) >= 99.5 else 1)} {('B', 'kB', 'MB', 'GB', 'TB')[unit]}"
        )

    def short_digest(self, value: str | None) -> str:
        """Enough of a digest to recognise it."""
        return DASH if value is None else value[:_DIGEST]

    def _written(self, value: float, decimals: int, *, trim: bool = False) -> str:
        """With the locale's signs (both languages group by threes), `trim` without zeros at the end.

        Written here and not by babel, which takes a hundred times as long: tables hold thousands of figures.
        """
        plain = f"{value:,.{decimals}f}"
        if trim and "." in plain:
            plain = plain.rstrip("0").rstrip(".")
        if plain.startswith("-") and not plain.strip("-0.,"):
            plain = plain[1:]  # no minus before zero
        return plain.translate(self.signs)

    def _unit(self, value: float, unit: str) -> str:
        return format_unit(value, f"duration-{unit}", length="short", format="#,##0.#", locale=self.locale)


def instant(value: datetime | date | str) -> datetime:
    """A point in time in UTC, from a datetime (without zone: UTC), a day, or RFC 3339 text."""
    if isinstance(value, str):
        value = datetime.fromisoformat(value.replace("Z", "+00:00"))
    if not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day, tzinfo=UTC)
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def catalogue_path(code: str) -> Path:
    """Where the translations into `code` are."""
    return LOCALE / code / "LC_MESSAGES" / "zegel.po"


def read_catalogue(code: str) -> Catalog:
    """The translations into `code`; an empty catalogue when there are none yet."""
    path = catalogue_path(code)
    if not path.exists():
        return Catalog(locale=code, domain="zegel")
    with path.open("rb") as file:
        return read_po(file, locale=code, domain="zegel", abort_invalid=True)


@cache
def language(code: str) -> Language:
    """The language `code`, one of LANGUAGES; read once per process."""
    if code not in LANGUAGES:
        raise ValueError(f"no language {code!r}; there are {', '.join(LANGUAGES)}")
    if code == SOURCE:
        return Language(code, Locale.parse(code), NullTranslations(), {}, _signs(code))
    catalogue = read_catalogue(code)
    compiled = BytesIO()
    write_mo(compiled, catalogue)
    compiled.seek(0)
    said = {
        str(message.id): str(message.string)
        for message in catalogue
        if message.id and message.string and any(name.endswith(".js") for name, _ in message.locations)
    }
    return Language(code, Locale.parse(code), Translations(compiled), said, _signs(code))


def _signs(code: str) -> dict[int, str]:
    return {ord(","): get_group_symbol(code), ord("."): get_decimal_symbol(code), ord("-"): _MINUS}


# The language of the answer being made. Context variables follow a request into its thread.
_CURRENT: ContextVar[str] = ContextVar("zegel_language", default=SOURCE)


def current() -> Language:
    """The language of the request being answered; English outside of one."""
    return language(_CURRENT.get())


@contextmanager
def speaking(code: str) -> Iterator[Language]:
    """Speak `code` inside the block."""
    before = _CURRENT.set(language(code).code)
    try:
        yield language(code)
    finally:
        _CURRENT.reset(before)


def _(message: str, /, **values: object) -> str:
    """`message` in the language of the request being answered, its %(name)s filled in when `values` are given."""
    return current().gettext(message, **values)


def ngettext(one: str, many: str, num: int, /, **values: object) -> str:
    """The form that `num` asks for, in the language of the request being answered; %(num)s stands for `num`."""
    return current().ngettext(one, many, num, **values)


def N_(message: str) -> str:  # noqa: N802 - the name that translators' tools know
    """Mark a constant for translation. It is translated where it is shown, not here."""
    return message


def language_of(connection: HTTPConnection) -> str:
    """The language a request is answered in: settled already, or account, cookie, browser, in this order."""
    settled = getattr(connection.state, "language", None)
    if settled in LANGUAGES:
        return str(settled)
    viewer = getattr(connection.state, "viewer", None)
    if viewer is not None and viewer.language in LANGUAGES:
        return str(viewer.language)
    chosen = connection.cookies.get(COOKIE)
    if chosen in LANGUAGES:
        return str(chosen)
    return accepted(connection.headers.get("accept-language", ""))


def accepted(header: str) -> str:
    """The language of LANGUAGES that an Accept-Language header likes best; English when it likes none."""
    wishes: list[tuple[float, int, str]] = []
    for position, part in enumerate(header[:1000].split(",")):
        tag, _, rest = part.strip().partition(";")
        weight = _FALLBACK_ACCEPT
        name, _, value = rest.strip().partition("=")
        if name.strip() == "q":
            try:
                weight = float(value)
            except ValueError:
                weight = 0.0
        code = tag.strip().lower().split("-")[0]
        if code == "*":
            code = SOURCE
        if code in LANGUAGES and 0 < weight <= 1:
            wishes.append((-weight, position, code))
    return min(wishes)[2] if wishes else SOURCE


class LanguageMiddleware:
    """Settles each request's language, inside the middleware that says who asks (pure ASGI)."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers `scope` with the inner app, in the language settled for it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        code = language_of(HTTPConnection(scope))
        state: MutableMapping[str, Any] = scope.setdefault("state", {})
        state["language"] = code

        async def named(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                if headers.get("content-type", "").startswith("text/html"):
                    headers["Content-Language"] = code
                    headers.add_vary_header("Accept-Language")
                    headers.add_vary_header("Cookie")
            await send(message)

        with speaking(code):
            await self.app(scope, receive, named)


if __name__ == "__main__":
    from admin_api.web.translating import main

    sys.exit(main(sys.argv[1:]))
