"""What runs want of somebody: a run that stands still, of admins."""

from __future__ import annotations

from collections.abc import Iterable

from admin_api.reading import runs
from admin_api.web.access import ADMINS
from admin_api.web.context import Viewer, Workplace
from admin_api.web.language import _
from admin_api.web.runs.watching import run_lines
from admin_api.web.waiting import Waiting

MOST = 20  # of the newest runs that have not finished


def waiting(here: Workplace, viewer: Viewer) -> Iterable[Waiting]:
    """Runs that stopped and can go on."""
    if viewer.role not in ADMINS:
        return
    started = runs.listed(here.reading, state="started", limit=MOST).items
    for line in run_lines(here, started):
        if line.state in ("stopped", "failed"):
            words = _("Run %(run)s stands still and can be resumed.", run=line.title or line.run)
            yield Waiting(words, f"/runs/{line.run}", since=line.started, urgent=True)
