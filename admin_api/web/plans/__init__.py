"""Plans: what was proposed and decided, what a plan would cost, and proposing one."""

from admin_api.web.plans import api, pages
from admin_api.web.plans.acts import DECIDE, PROPOSE
from admin_api.web.plans.waiting import waiting

ROUTERS = (api.router, pages.router)
ACTS = (PROPOSE, DECIDE)

__all__ = ["ACTS", "ROUTERS", "waiting"]
