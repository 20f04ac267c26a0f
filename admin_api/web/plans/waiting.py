"""What plans want of somebody: a decision, or to be carried out."""

from __future__ import annotations

from collections.abc import Iterable

from admin_api.reading import plans
from admin_api.web.access import ADMINS
from admin_api.web.context import Viewer, Workplace
from admin_api.web.language import _
from admin_api.web.plans.overview import last_words, why_not
from admin_api.web.waiting import Waiting

MOST = 20


def waiting(here: Workplace, viewer: Viewer) -> Iterable[Waiting]:
    """Plans that wait for this person."""
    if viewer.hospital is not None:
        return
    for line in plans.listed(here.reading, state="proposed", limit=MOST).items:
        plan = plans.one(here.reading, line.plan_hash)
        if why_not(here, plan, viewer) is None and viewer.account not in {each.person for each in last_words(plan)}:
            words = _("Plan %(name)s waits for your decision.", name=plan.title or "")
            yield Waiting(words, f"/plans/{plan.plan_hash}", since=plan.time, urgent=True)
    if viewer.role in ADMINS:
        for plan in plans.listed(here.reading, state="approved", limit=MOST).items:
            words = _("Plan %(name)s is approved and waits to be carried out.", name=plan.title or "")
            yield Waiting(words, f"/plans/{plan.plan_hash}", since=plan.time)
