"""Pages from templates: `render(request, "runs/list.html", runs=...)`.

Invariants:
- Everything is escaped unless this project made it as markup; a name that a template does not know is an error.
- Templates are compiled once per language. What belongs to a request (who asks, the CSRF token, the theme) is given to
  each rendering, so that nothing of one viewer can stay for another.
- The navigation shows a place only to those whose role may open it, by the same table that lets them in.

With htmx, a page answers with one of its blocks: `render(request, "runs/list.html", block="rows", ...)`.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template, pass_context
from jinja2.bccache import Bucket, BytecodeCache
from jinja2.runtime import Context
from markupsafe import Markup, escape
from starlette.requests import Request
from starlette.responses import HTMLResponse

from admin_api.web import charts, parts
from admin_api.web.icons import SPRITE, icon
from admin_api.web.language import DASH, LANGUAGES, N_, language, language_of, speaking
from admin_api.web.states import ROLES

FOLDER = Path(__file__).parent
TEMPLATES = FOLDER / "templates"
STATIC = FOLDER / "static"
THEME_COOKIE = "zegel-theme"
THEMES: Mapping[str, str] = {"light": N_("Light"), "dark": N_("Dark"), "system": N_("As the system")}


@dataclass(frozen=True)
class Place:
    """An entry of the navigation."""

    route: str  # name of the page's route: who may open it sees it
    path: str
    word: str
    letter: str  # `g` and this letter go there
    icon: str


PLACES: tuple[Place, ...] = (
    Place("today.page", "/", N_("Today"), "t", "sun"),
    Place("hospitals.list.page", "/hospitals", N_("Hospitals"), "h", "hospital"),
    Place("privacy.page", "/privacy", N_("Privacy"), "p", "shield"),
    Place("plans.list.page", "/plans", N_("Plans"), "n", "file"),
    Place("runs.list.page", "/runs", N_("Runs"), "r", "play"),
    Place("releases.list.page", "/releases", N_("Releases"), "e", "seal"),
    Place("authority.page", "/authority", N_("Authority"), "a", "eye"),
    Place("log.page", "/log", N_("Log"), "l", "log"),
    Place("people.page", "/people", N_("People"), "o", "person"),
)


@dataclass(frozen=True)
class Pages:
    """What the pages of one app share: where they are reached, and who may open which route (viewer, route's name)."""

    public_url: str
    may_open: Callable[[Any, str], bool]


def wants_fragment(request: Request) -> bool:
    """Whether htmx asks for a part of the page; a boosted link or a restored page wants all of it."""
    headers = request.headers
    return headers.get("hx-request") == "true" and not {"hx-boosted", "hx-history-restore-request"} & set(headers)


def render(
    request: Request,
    template: str,
    *,
    status_code: int = 200,
    headers: Mapping[str, str] | None = None,
    block: str | None = None,
    **values: object,
) -> HTMLResponse:
    """The page that `template` makes of `values`, in the request's language; only its `block` when one is named."""
    code = language_of(request)
    with speaking(code):
        environment = environment_for(code)
        page = environment.get_template(template)
        given = {**_of_request(request, code), **values}
        given["c"] = environment.get_template("components.html").make_module(given)
        text = page.render(given) if block is None else _one_block(page, block, given)
    return HTMLResponse(text, status_code=status_code, headers=dict(headers or {}))


def _one_block(page: Template, block: str, given: dict[str, Any]) -> str:
    if block not in page.blocks:
        raise ValueError(f"{page.name} has no block {block!r}; it has {', '.join(sorted(page.blocks))}")
    return "".join(page.blocks[block](page.new_context(given)))


def _of_request(request: Request, code: str) -> dict[str, Any]:
    viewer = getattr(request.state, "viewer", None)
    theme = request.cookies.get(THEME_COOKIE)
    pages: Pages | None = getattr(request.app.state, "pages", None)
    return {
        "request": request,
        "viewer": viewer,
        "csrf": getattr(request.state, "csrf", ""),
        "language": code,
        "theme": theme if theme in THEMES else "system",
        "now": _now(request),
        "public_url": str(request.base_url).rstrip("/") if pages is None else pages.public_url,
        "places": _places(request, viewer, pages),
        "here": request.url.path,
        "fragment": wants_fragment(request),
    }


def _now(request: Request) -> datetime:
    workplace = getattr(request.app.state, "workplace", None)
    return datetime.now(UTC) if workplace is None else workplace.now()


def _places(request: Request, viewer: Any, pages: Pages | None) -> list[Place]:
    """The navigation of who is signed in: the places that the access table lets them open."""
    if viewer is None or pages is None:
        return []
    return [place for place in PLACES if pages.may_open(viewer, place.route)]


class _Compiled(BytecodeCache):
    """Templates compiled by one language's environment, for the others: the code is the same, the words are not."""

    def __init__(self) -> None:
        self._code: dict[str, tuple[str, bytes]] = {}

    def load_bytecode(self, bucket: Bucket) -> None:
        """Give the code that was compiled from the same source, if there is some."""
        checksum, code = self._code.get(bucket.key, ("", b""))
        if checksum == bucket.checksum:
            bucket.bytecode_from_string(code)

    def dump_bytecode(self, bucket: Bucket) -> None:
        """Keep what was compiled."""
        self._code[bucket.key] = (bucket.checksum, bucket.bytecode_to_string())


_COMPILED = _Compiled()  # a cache that checks its source
_FILTERS = ("number", "percent", "epsilon", "delta", "date", "moment", "duration", "bytes_size", "short_digest")


@cache
def environment_for(code: str) -> Environment:
    """The templates in one language, with the filters that write figures its way."""
    said = language(code)
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        bytecode_cache=_COMPILED,
        extensions=["jinja2.ext.i18n", "jinja2.ext.do", "jinja2.ext.loopcontrols"],
    )
    environment.policies["ext.i18n.trimmed"] = True
    environment.install_gettext_translations(said.translations, newstyle=True)  # type: ignore[attr-defined]
    for name in _FILTERS:
        environment.filters[name] = getattr(said, name)

    @pass_context
    def ago(context: Context, value: datetime | str | None) -> str:
        return said.ago(value, context["now"])

    environment.filters.update(
        ago=ago,
        role=lambda name: said.gettext(ROLES.get(name, str(name))),
        iso=parts.iso,
        sentence=sentence_of,
    )
    environment.globals.update(
        asset=asset,
        charts=charts,
        DASH=DASH,
        LANGUAGES=LANGUAGES,
        THEMES=THEMES,
        icon=icon,
        draw=icon,
        parts=parts,
        sprite=SPRITE,
        new_key=lambda: secrets.token_urlsafe(18),
        script_messages=json.dumps(dict(said.script_messages), ensure_ascii=False),
        attributes=attributes,
    )
    return environment


def sentence_of(words: str) -> str:
    """Words that begin small and end open, as errors do, as a sentence. A name in front is not spelled otherwise."""
    words = words.strip()
    if not words:
        return words
    name = any(character.isdigit() for character in words.split(maxsplit=1)[0])
    return (words if name else words[0].upper() + words[1:]) + ("" if words[-1] in ".!?:;)" else ".")


def attributes(given: Mapping[str, object]) -> Markup:
    """Attributes of an element, escaped; underscores in names become hyphens. None and False leave one out."""
    parts: list[str] = []
    for name, value in given.items():
        name = name.rstrip("_").replace("_", "-")
        if name == "style" or name.startswith("on"):
            raise ValueError(f"the attribute {name} would be refused by the content security policy; use a class")
        if value is True:
            parts.append(f" {name}")
        elif value is not None and value is not False:
            parts.append(f' {name}="{escape(value)}"')
    return Markup("".join(parts))  # noqa: S704 - names are the templates' own, values are escaped


@cache
def asset(name: str) -> str:
    """The address of a file of static/, with a version that changes when its bytes do."""
    path = STATIC / name
    if not path.resolve().is_relative_to(STATIC) or not path.is_file():
        raise ValueError(f"static/ holds no {name}")
    return f"/static/{name}?v={hashlib.sha256(path.read_bytes()).hexdigest()[:12]}"
