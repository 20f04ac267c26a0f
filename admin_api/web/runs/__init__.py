"""Runs: all of them, one of them live, and starting, stopping and resuming them."""

from admin_api.web.runs import api, pages
from admin_api.web.runs.waiting import waiting

ROUTERS = (api.router, pages.router)

__all__ = ["ROUTERS", "waiting"]
