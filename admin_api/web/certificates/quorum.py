"""Who has to approve a certificate request, who did, and what is still missing.

What is shown comes from the read model. Whether it suffices is judged on the log itself when the certificate is issued
(`admin_api.onboarding.check_quorum`, `audit.certificate_request`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from admin_api.onboarding import Request, decide_request, description_of
from admin_api.reading import certificates as held
from admin_api.reading import plans
from admin_api.signing import Signer
from admin_api.web.certificates.tables import RequestRow
from admin_api.web.context import Workplace
from admin_api.web.language import _
from audit.certificate_request import DECIDERS, REQUEST, SECOND_ROLES, VALID_FOR
from audit.certificates import CONSORTIUM_ADMIN
from audit.release import APPROVE, REFUSE
from jobs.home import ConsortiumHome


class Decided(BaseModel):
    """A decision about a request, as the log has it."""

    model_config = ConfigDict(from_attributes=True)

    entry: int
    time: datetime
    decision: str = Field(examples=["approve"], description="approve or refuse")
    person: str
    name: str
    organisation: str
    role: str
    reason: str


class Rule(BaseModel):
    """Something that approvals have to be."""

    words: str
    met: bool


def digest_of_request(home: ConsortiumHome, asked: Request) -> str:
    """What people approve about a request. Raises OnboardingError."""
    return description_of(home, asked).digest


def decide(here: Workplace, asked: Request, signer: Signer, *, approve: bool, reason: str) -> Mapping[str, Any]:
    """Sign a decision about a request and log it. Raises ApprovalError."""
    return decide_request(here.home, digest_of_request(here.home, asked), signer, approve=approve, reason=reason)


def decisions_about(here: Workplace, digest: str) -> list[Decided]:
    """The decisions about a request, oldest first."""
    return [Decided.model_validate(each) for each in plans.decisions(here.reading, REQUEST, digest)]


def rules_for(here: Workplace, row: RequestRow, decisions: Sequence[Decided]) -> list[Rule]:
    """What approvals have to be, and whether they are, as far as the read model tells."""
    people = _deciders(here, row)
    if not any(_fit(one, other) for one in people.values() for other in people.values()):
        words = _("Nobody could approve it yet: whoever holds the root's passphrase issues alone, and the log says so.")
        return [Rule(words=words, met=True)]
    now = here.now()
    last = {each.person: each for each in decisions if each.time > now - VALID_FOR and each.person in people}
    given = [people[person] for person, each in last.items() if each.decision == APPROVE]
    admins = [each for each in given if each.role == CONSORTIUM_ADMIN]
    seconds = [each for each in given if each.role in SECOND_ROLES]
    together = any(_fit(one, other) for one in given for other in given)
    rules = [
        Rule(words=_("A consortium admin approves."), met=bool(admins)),
        Rule(
            words=_("A privacy officer or somebody of the authority approves, of another organisation."),
            met=together or (not admins and bool(seconds)),
        ),
    ]
    if any(each.decision == REFUSE for each in last.values()):
        rules.append(Rule(words=_("Nobody refuses it."), met=False))
    return rules


def _deciders(here: Workplace, row: RequestRow) -> dict[str, held.Certificate]:
    """Who may decide now, by person: a certificate in good standing, and not the request's own holder's first one."""
    found: dict[str, held.Certificate] = {}
    for role in sorted(DECIDERS):
        after: str | None = None
        while True:
            page = held.listed(here.reading, now=here.now(), role=role, state=held.GOOD, limit=200, after=after)
            for each in page.items:
                own_other = each.holder == row.holder and (each.role, each.organisation) != (row.role, row.organisation)
                if not own_other:
                    found[each.holder] = each
            after = page.after
            if after is None:
                break
    return found


def _fit(one: held.Certificate, other: held.Certificate) -> bool:
    return (
        one.role == CONSORTIUM_ADMIN
        and other.role in SECOND_ROLES
        and one.holder != other.holder
        and one.organisation.casefold() != other.organisation.casefold()
    )
