"""Attempts to come in, from outside: counted per address before they are looked at, noted when they are refused."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from fastapi import Request

from admin_api.web.context import workplace
from admin_api.web.language import _
from admin_api.web.problems import Problem
from admin_api.web.sign_in.errors import AccessRefused, TooMany
from admin_api.web.sign_in.rates import ASKING, FAILING, check_left, place_of, spend
from admin_api.web.sign_in.recording import note_refusal


@contextmanager
def attempting(request: Request, method: str) -> Iterator[None]:
    """Around anything that a visitor may try: raises Problem 429 for too many attempts and 403 for a refused one."""
    here = workplace(request)
    place = place_of(request.client.host if request.client else None)
    try:
        check_left(here, FAILING, place, method=method)
        spend(here, ASKING, place, method=method)
        yield
    except AccessRefused as error:
        note_refusal(here, error.account, error.method, error.reason)
        if not isinstance(error, TooMany):
            with suppress(TooMany):  # it was the last one left: the next attempt is told
                spend(here, FAILING, place, method=method)
        raise told(error) from None


def told(error: AccessRefused) -> Problem:
    """The problem for a refused attempt."""
    if isinstance(error, TooMany):
        return Problem(
            429, "too-many", _("Too many attempts"), str(error),
            _("wait %(seconds)s seconds, then try again", seconds=error.seconds),
            {"Retry-After": str(error.seconds)},
        )  # fmt: skip
    return Problem(403, "sign-in-refused", _("Not let in"), str(error),
                   _("begin again; if it stays, ask a consortium admin for a new link"))  # fmt: skip
