"""Privacy: hospitals' budgets, what leaves them, and what the empirical audit found."""

from admin_api.web.privacy import api, pages
from admin_api.web.privacy.acts import LOG_AUDIT

ROUTERS = (api.router, pages.router)
ACTS = (LOG_AUDIT,)

__all__ = ["ACTS", "ROUTERS"]
