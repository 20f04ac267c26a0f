"""A certificate request as people read it: who asks, what was checked, who decided, what comes next."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from pydantic import BaseModel, Field

from admin_api.errors import NotKnown
from admin_api.reading import certificates as held
from admin_api.web.certificates import fingerprint as fingerprints
from admin_api.web.certificates import issuing, requests
from admin_api.web.certificates.checks import Check, checks_of, failed
from admin_api.web.certificates.quorum import Decided, Rule, decisions_about, digest_of_request, rules_for
from admin_api.web.certificates.tables import InvitationRow, RequestRow
from admin_api.web.context import HOSPITAL_CONTACT, Viewer, Workplace
from admin_api.web.database import utc
from admin_api.web.language import _
from admin_api.web.sign_in.tables import AccountRow
from admin_api.web.waiting import Waiting
from audit.certificate_request import DECIDERS
from audit.certificates import CONSORTIUM_ADMIN


class CertificateRequest(BaseModel):
    """A certificate request, and how far it has come."""

    id: str = Field(examples=["3f9a1c22d4e5b607"])
    kind: str = Field(examples=["site"], description="site, person or passkey")
    holder: str = Field(examples=["amstel"], description="the hospital, or the account; empty for a key in a file")
    name: str = Field(examples=["amstel"], description="what the holder is called, as far as that may be shown")
    organisation: str = Field(examples=["amstel"])
    role: str = Field(examples=["client"])
    further: bool = Field(description="the holder has a certificate of this role already: a renewal or a further key")
    state: str = Field(examples=["open"], description="open, issued, withdrawn or replaced")
    next_step: str = Field(examples=["compare"], description="compare, approve, issue, or none")
    received: datetime
    received_by: str = Field(examples=["contact-00112233aabbccdd"], description="the account that sent it")
    digest: str = Field(description="what approvals are about")
    fingerprint_start: list[str] = Field(description="its first groups; the holder reads the rest out")
    fingerprint: str | None = Field(description="all of it, once it was compared")
    compared: datetime | None
    compared_by: str | None
    checks: list[Check]
    decisions: list[Decided]
    rules: list[Rule] = Field(description="what approvals have to be, and whether they are")
    closed: datetime | None
    certificate: str | None = Field(description="digest of the certificate that was issued")
    entry: int | None = Field(description="the log's entry of that certificate")
    reply: bool = Field(description="whether a reply can be downloaded")
    etag: str = Field(description="for If-Match")


class RequestLine(BaseModel):
    """A certificate request in a list."""

    id: str
    kind: str
    holder: str
    name: str
    organisation: str
    role: str
    state: str
    received: datetime
    compared: bool


def request_view(here: Workplace, row: RequestRow, viewer: Viewer) -> CertificateRequest:
    """The request as this viewer sees it; a hospital's contact sees the whole fingerprint of the own key."""
    checks: list[Check] = []
    rules: list[Rule] = []
    further, digest = False, row.digest
    name = name_of(here, row)
    if row.state == requests.OPEN:
        asked = requests.asked_for(here, row)
        name = asked.name if not asked.name.startswith("person-") else here.reading.names().get(asked.name, asked.name)
        further = issuing.is_further(here, row, asked)
        checks = checks_of(here, row, asked, expected_organisation=expected_organisation(here, row))
        digest = digest_of_request(here.home, asked)  # of a person it may have changed since
        rules = rules_for(here, row, decisions_about(here, digest))
    entry = None
    if row.certificate is not None:
        try:
            entry = held.one(here.reading, row.certificate, now=here.now()).entry
        except NotKnown:  # the read model follows the log at the next request
            entry = None
    own = viewer.role == HOSPITAL_CONTACT or row.holder == viewer.account
    return CertificateRequest(
        id=row.id,
        kind=row.kind,
        holder=row.holder,
        name=name,
        organisation=row.organisation,
        role=row.role,
        further=further,
        state=row.state,
        next_step=next_step(row, checks, rules),
        received=utc(row.received),
        received_by=row.received_by,
        digest=digest,
        fingerprint_start=fingerprints.shown_groups(row.fingerprint),
        fingerprint=row.fingerprint if own or row.compared is not None or row.state != requests.OPEN else None,
        compared=None if row.compared is None else utc(row.compared),
        compared_by=row.compared_by,
        checks=checks,
        decisions=decisions_about(here, digest),
        rules=rules,
        closed=None if row.closed is None else utc(row.closed),
        certificate=row.certificate,
        entry=entry,
        reply=issuing.reply_path(here, row).exists(),
        etag=requests.etag(row),
    )


def fingerprint_groups(asked: CertificateRequest) -> list[str]:
    """The groups of the fingerprint that may be shown."""
    return asked.fingerprint_start if asked.fingerprint is None else fingerprints.groups(asked.fingerprint)


def next_step(row: RequestRow, checks: Sequence[Check], rules: Iterable[Rule]) -> str:
    """What has to be done next: compare, approve, issue, or none (also when a check failed)."""
    if row.state != requests.OPEN or failed(list(checks)):
        return "none"
    if row.compared is None:
        return "compare"
    return "issue" if all(rule.met for rule in rules) else "approve"


def request_line(here: Workplace, row: RequestRow) -> RequestLine:
    """The request in a list."""
    return RequestLine(
        id=row.id,
        kind=row.kind,
        holder=row.holder,
        name=name_of(here, row),
        organisation=row.organisation,
        role=row.role,
        state=row.state,
        received=utc(row.received),
        compared=row.compared is not None,
    )


def name_of(here: Workplace, row: RequestRow) -> str:
    """What the holder is called, where it may be shown."""
    if row.kind == requests.SITE:
        return row.holder
    if row.certificate is not None:
        try:
            return held.one(here.reading, row.certificate, now=here.now()).name
        except NotKnown:
            pass
    with here.database.reading() as session:
        account = session.get(AccountRow, row.holder) if row.holder else None
    return (account.name or account.id) if account is not None else _("a person with a key in a file")


def expected_organisation(here: Workplace, row: RequestRow) -> str | None:
    """The organisation that was invited, or that the account or an earlier certificate has."""
    with here.database.reading() as session:
        if row.kind == requests.SITE:
            invitation = session.get(InvitationRow, row.holder)
            if invitation is not None:
                return invitation.organisation
        elif row.holder:
            account = session.get(AccountRow, row.holder)
            if account is not None:
                return account.organisation
    if not row.holder:
        return None
    return next((each.organisation for each in held.of_holder(here.reading, row.holder, now=here.now())), None)


def waiting(here: Workplace, viewer: Viewer) -> list[Waiting]:
    """Requests that wait for this person: to be compared and issued by admins, to be decided by others."""
    if viewer.role not in DECIDERS:
        return []
    rows, _after = requests.listed(here, limit=20)
    found: list[Waiting] = []
    for row in rows:
        href, name, since = f"/requests/{row.id}", name_of(here, row), utc(row.received)
        if any(each.person == viewer.account for each in decisions_about(here, row.digest)):
            if viewer.role != CONSORTIUM_ADMIN:
                continue
            words = _("The certificate request of %(name)s goes on.", name=name)
        elif row.compared is None:
            if viewer.role != CONSORTIUM_ADMIN or row.holder == viewer.account:
                continue
            words = _("The certificate request of %(name)s waits for a telephone call.", name=name)
        elif row.holder == viewer.account:
            continue
        else:
            words = _("The certificate request of %(name)s waits for your decision.", name=name)
        found.append(Waiting(words, href, since))
    return found


def account_name(here: Workplace, account_id: str) -> str:
    """What an account is called; its id where the name was erased."""
    with here.database.reading() as session:
        account = session.get(AccountRow, account_id)
    return account_id if account is None or account.name is None else account.name
