"""Releases: candidates and certified, compared, decided about, certified, withdrawn."""

from __future__ import annotations

from typing import Any


def __getattr__(name: str) -> Any:
    """What the app asks for; made then, since areas use parts of each other."""
    if name == "ROUTERS":
        from admin_api.web.releases import api, comparison_page, pages

        return (api.router, comparison_page.router, pages.router)  # /releases/compare before /releases/{release}
    if name == "ACTS":
        from admin_api.web.releases.acts import ACTS

        return ACTS
    if name == "waiting":
        from admin_api.web.releases.view import waiting

        return waiting
    raise AttributeError(f"module {__name__} has no attribute {name}")
