"""The authority: search, trace a release back to its evidence, and see who watches the log."""

from __future__ import annotations

from typing import Any


def __getattr__(name: str) -> Any:
    """What the app asks for; made then, since areas use parts of each other."""
    if name == "ROUTERS":
        from admin_api.web.authority import routes

        return (routes.api, routes.pages)
    raise AttributeError(f"module {__name__} has no attribute {name}")
