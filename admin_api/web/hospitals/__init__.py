"""Hospitals: invited, joining, taking part, and what is known of each."""

from __future__ import annotations

from typing import Any


def __getattr__(name: str) -> Any:
    """What the app asks for; made then, since areas use parts of each other."""
    if name == "ROUTERS":
        from admin_api.web.hospitals import api, pages

        return (api.router, pages.router)
    if name == "waiting":
        from admin_api.web.hospitals.view import waiting

        return waiting
    raise AttributeError(f"module {__name__} has no attribute {name}")
