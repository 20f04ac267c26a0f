"""A hospital's way into the consortium: seven steps, and one sentence that says what is so and what is needed now.

Steps that the log shows carry its entry. Being invited and having asked stand in the pages' own tables, connections in
the server's note; a hospital that joined by the command line has neither of the first two.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from pydantic import BaseModel, Field

from admin_api.reading import certificates as held
from admin_api.reading import hospitals
from admin_api.reading.hospitals import Hospital
from admin_api.web.certificates import requests
from admin_api.web.certificates.tables import InvitationRow, RequestRow
from admin_api.web.database import utc
from admin_api.web.language import _, ngettext
from jobs.federation.presence import Seen

DONE, NOW, TODO, FAILED = "done", "now", "todo", "failed"


class Step(BaseModel):
    """A step on a hospital's way into the consortium."""

    name: str = Field(examples=["approved"])
    state: str = Field(examples=["done"], description="done, now, todo or failed")
    label: str = Field(examples=["Approved"])
    when: datetime | None = None
    entry: int | None = Field(default=None, description="the log's entry that shows it; null: not in the log")
    note: str = ""


def reached_word(hospital: Hospital, heard: Seen | None) -> str:
    """The last step of the journey, in the words of the pages."""
    reached = {step.word for step in hospital.journey}
    if hospitals.TRAINED in reached:
        return "training"
    if hospitals.EVALUATED in reached:
        return "evaluated"
    if hospitals.DATA in reached:
        return "data"
    return "connected" if heard is not None else "approved"


def journey(
    hospital: Hospital | None,
    invitation: InvitationRow | None,
    asked: Sequence[RequestRow],
    heard: Seen | None,
) -> list[Step]:
    """The seven steps; the first that is not done is `now`. A hospital that joined by the command line skipped two."""
    reached = {step.word: step for step in hospital.journey} if hospital else {}
    certified = reached.get(hospitals.CERTIFIED)
    first = min((utc(row.received) for row in asked), default=None)
    outside = _("by the command line") if certified else ""
    steps = [
        Step(
            name="invited", label=_("Invited"), state=DONE if invitation or certified else TODO,
            when=utc(invitation.invited) if invitation else None, note="" if invitation else outside,
        ),
        Step(
            name="requested", label=_("Request received"), state=DONE if asked or certified else TODO,
            when=first, note="" if asked else outside,
        ),
        _logged("approved", _("Approved"), certified),
        Step(
            name="connected", label=_("Connected"),
            state=DONE if heard or hospitals.TRAINED in reached or hospitals.EVALUATED in reached else TODO,
            when=heard.first if heard else None,
        ),
        _logged("data", _("Data announced"), reached.get(hospitals.DATA)),
        _logged("evaluated", _("Evaluated a version"), reached.get(hospitals.EVALUATED)),
        _logged("training", _("Trains"), reached.get(hospitals.TRAINED)),
    ]  # fmt: skip
    for step in steps:
        if step.state == TODO:
            step.state = NOW
            break
    if invitation is not None and invitation.withdrawn is not None and certified is None:
        steps[0].state, steps[0].note = FAILED, _("withdrawn")
    return steps


def _logged(name: str, label: str, step: hospitals.Step | None) -> Step:
    if step is None:
        return Step(name=name, label=label, state=TODO)
    return Step(name=name, label=label, state=DONE, when=step.time, entry=step.entry)


def sentence(
    hospital: Hospital | None,
    invitation: InvitationRow | None,
    asked: Sequence[RequestRow],
    heard: Seen | None,
    *,
    connected: bool,
    server_runs: bool,
) -> str:
    """What is so, and what it needs now."""
    opened = next((row for row in asked if row.state == requests.OPEN), None)
    if hospital is None:
        if invitation is not None and invitation.withdrawn is not None:
            return _("The invitation was withdrawn.")
        if opened is None:
            return _("Invited. Its certificate request has not come yet.")
        if opened.compared is None:
            return _("Its request is here. Somebody has to telephone and compare the key's fingerprint.")
        return _("Its request is here and the fingerprint is the same. It waits for approvals and for the root key.")
    if hospital.standing in ("suspended", "revoked", "expired"):
        words = {
            "suspended": _("Suspended: it takes part in nothing until it is reinstated."),
            "revoked": _("Revoked: it takes part in nothing under this name."),
            "expired": _("Its certificate has ended: it takes part in nothing until it is renewed."),
        }
        return words[hospital.standing]
    if opened is not None:
        return _("In good standing. A request to renew its certificate waits.")
    if hospital.days is not None and hospital.days < held.WARNING_DAYS:
        return ngettext(
            "Its certificate ends in %(num)s day; it has to ask for a renewal.",
            "Its certificate ends in %(num)s days; it has to ask for a renewal.", hospital.days,
        )  # fmt: skip
    if hospital.manifest is None:
        return _("In good standing. It has not announced its data yet.")
    if hospital.reports == 0 and hospital.rounds == 0:
        if server_runs and heard is None:
            return _("In good standing. The server has not heard of it yet.")
        return _("In good standing. It has evaluated nothing yet.")
    if connected:
        return _("In good standing and connected. Nothing is needed.")
    return _("In good standing. Nothing is needed.")


def own_sentence(hospital: Hospital | None, asked: Sequence[RequestRow]) -> str:
    """The same for the hospital's contact: what they have to do."""
    opened = next((row for row in asked if row.state == requests.OPEN), None)
    issued = next((row for row in asked if row.state == requests.ISSUED), None)
    if opened is not None and opened.compared is None:
        return _("Your request is with the consortium. They will call you to compare the fingerprint of your key.")
    if opened is not None:
        return _("Your request is with the consortium. The fingerprint is the same; nothing is needed from you now.")
    if hospital is None:
        return _("Send your hospital's certificate request.")
    if hospital.standing in ("suspended", "revoked"):
        return _("Your hospital takes part in nothing now; the consortium says why. Ask them what to do.")
    if hospital.standing == "expired" or (hospital.days is not None and hospital.days < held.WARNING_DAYS):
        return _("Your hospital's certificate ends soon or has ended: send a request to renew it.")
    if hospital.manifest is None and issued is not None:
        return _("Your certificate is issued: download the reply, install it, then announce your data.")
    if hospital.manifest is None:
        return _("Announce your hospital's data: send its signed manifest.")
    return _("Your hospital is in good standing. Nothing is needed from you.")
