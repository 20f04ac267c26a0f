"""Who comes in: accounts, passkeys, sessions, tokens, and the organisation's own sign-in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastapi import APIRouter


def __getattr__(name: str) -> Sequence[APIRouter]:
    """The routers, made when the app asks: the frame's own routes need other modules of this package first."""
    if name != "ROUTERS":
        raise AttributeError(f"module {__name__} has no attribute {name}")
    from admin_api.web.sign_in import account_api, accounts_api, api, pages

    return (api.router, account_api.router, accounts_api.router, pages.router, pages.own)
