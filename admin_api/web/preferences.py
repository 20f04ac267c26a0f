"""The language and the theme, set by a form that works without scripts.

Both are cookies of this browser: they say nothing about a person, and whoever is signed out may set them. Who is signed
in chooses the account's language by the same form; it goes before the cookie, on every device.
"""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlsplit

from fastapi import APIRouter, Form, Request
from starlette.responses import RedirectResponse, Response

from admin_api.web.context import Here, MaybeWho
from admin_api.web.language import COOKIE, LANGUAGES
from admin_api.web.problems import Problem
from admin_api.web.rendering import THEME_COOKIE, THEMES
from admin_api.web.routes import PageRoute
from admin_api.web.sign_in.accounts import choose_language

ONE_YEAR = 365 * 86400  # seconds
router = APIRouter(route_class=PageRoute, include_in_schema=False)


@router.post("/preferences", name="language.set")
def set_preferences(
    here: Here,
    who: MaybeWho,
    request: Request,
    theme: Annotated[str | None, Form(max_length=20)] = None,
    language: Annotated[str | None, Form(max_length=20)] = None,
    next: Annotated[str, Form(max_length=2000)] = "/",
) -> Response:
    """Remember a theme, a language or both, and go back to where the form was."""
    for what, given, known in (("theme", theme, THEMES), ("language", language, LANGUAGES)):
        if given is not None and given not in known:
            raise Problem(
                422, "invalid", "Some fields are not as they should be", f"there is no {what} {given}",
                f"choose one of {', '.join(known)}",
            )  # fmt: skip
    if language is not None and who is not None:
        choose_language(here, who.account, language)
    response = RedirectResponse(same_origin_path(next), status_code=303)
    secure = request.url.scheme == "https"
    for cookie, value in ((THEME_COOKIE, theme), (COOKIE, language)):
        if value is not None:
            response.set_cookie(cookie, value, max_age=ONE_YEAR, path="/", secure=secure, samesite="lax")
    return response


def same_origin_path(target: str) -> str:
    """`target` when it is a path of these pages, else "/": a link must not lead away from here."""
    parts = urlsplit(target)
    plain = target.startswith("/") and not target.startswith(("//", "/\\")) and not parts.scheme and not parts.netloc
    return target if plain and all(c.isprintable() and c not in "\\ " for c in target) else "/"
