"""Today: what needs this person now, what is going on, and what changed since they were last here."""

from admin_api.web.today.routes import ROUTERS

__all__ = ["ROUTERS"]
