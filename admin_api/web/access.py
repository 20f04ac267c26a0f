"""Who may call what: the only place that says so.

Every route has a name and a row here; `create_app` refuses to start otherwise. The check itself is in
`admin_api.web.routes`, the tests go through every role and every row, and docs/admin.md prints the table.

A hospital's contact sees the own hospital only: `own_hospital` rows compare the path's `site` with it, and the
functions behind lists filter by it.
"""

from __future__ import annotations

from dataclasses import dataclass

from admin_api.web.context import HOSPITAL_CONTACT
from audit.certificates import AUTHORITY, CONSORTIUM_ADMIN, PEOPLE, PRIVACY_OFFICER, RELEASE_MANAGER
from audit.gate_trace import GATE_SETTERS
from audit.release_state import RELEASE_PROPOSERS, WITHDRAWERS

ANYBODY = None  # also who is not signed in
PERSONS = frozenset(PEOPLE)
EVERYONE = PERSONS | {HOSPITAL_CONTACT}
ADMINS = frozenset({CONSORTIUM_ADMIN})
OFFICERS = frozenset({PRIVACY_OFFICER})
MANAGERS = frozenset({RELEASE_MANAGER})
AUTHORITIES = frozenset({AUTHORITY})
ADMINS_AND_CONTACTS = ADMINS | {HOSPITAL_CONTACT}


@dataclass(frozen=True)
class Access:
    """A row of the table.

    roles: who may call it; None lets anybody, signed in or not.
    own_hospital: a hospital contact may name the own hospital only, in the path's `site`.
    keeps_answer: whether the answer to an idempotency key may be stored; not where it holds a secret shown once.
    keeps_request: whether a digest of the request's body may be stored with its key; not where people type a secret.
    """

    roles: frozenset[str] | None
    own_hospital: bool = False
    keeps_answer: bool = True
    keeps_request: bool = True


ACCESS: dict[str, Access] = {
    # The frame
    "health": Access(ANYBODY),
    "ready": Access(ANYBODY),
    "metrics": Access(ANYBODY),  # bound to loopback and trusted proxies, see observing.py
    "language.set": Access(ANYBODY),
    "today": Access(EVERYONE),
    "today.page": Access(EVERYONE),
    "acts.read": Access(PERSONS),
    "acts.sign": Access(PERSONS),
    "acts.sign.post": Access(PERSONS),
    "acts.page": Access(PERSONS),
    "acts.new.post": Access(PERSONS),  # and the act's own row, acts.prepare.<name>
    # Sign-in, accounts (sign_in/)
    "sign-in.page": Access(ANYBODY),
    "sign-in.options": Access(ANYBODY, keeps_answer=False),
    "sign-in.passkey": Access(ANYBODY, keeps_answer=False),
    "sign-in.elsewhere": Access(ANYBODY),
    "sign-in.elsewhere.back": Access(ANYBODY),
    "sign-in.confirm.page": Access(EVERYONE),
    "sign-in.confirm.options": Access(EVERYONE, keeps_answer=False),
    "sign-in.confirm": Access(EVERYONE, keeps_answer=False),
    "sign-out.post": Access(ANYBODY),
    "enrolment.page": Access(ANYBODY),
    "enrolment.options": Access(ANYBODY, keeps_answer=False),
    "enrolment.register": Access(ANYBODY, keeps_answer=False),
    "enrolment.prove": Access(ANYBODY, keeps_answer=False),
    "session.read": Access(EVERYONE),
    "session.end": Access(EVERYONE),
    "account.page": Access(EVERYONE),
    "account.read": Access(EVERYONE),
    "account.change": Access(EVERYONE),
    "account.language.post": Access(EVERYONE),
    "account.passkeys": Access(EVERYONE),
    "account.passkeys.options": Access(EVERYONE, keeps_answer=False),
    "account.passkeys.register": Access(EVERYONE, keeps_answer=False),
    "account.passkeys.prove": Access(EVERYONE, keeps_answer=False),
    "account.passkeys.rename": Access(EVERYONE),
    "account.passkeys.rename.post": Access(EVERYONE),
    "account.passkeys.remove": Access(EVERYONE),
    "account.passkeys.remove.post": Access(EVERYONE),
    "account.sessions": Access(EVERYONE),
    "account.sessions.end": Access(EVERYONE),
    "account.sessions.end.post": Access(EVERYONE),
    "account.session.end": Access(EVERYONE),
    "account.session.end.post": Access(EVERYONE),
    "account.tokens": Access(EVERYONE),
    "account.tokens.scopes": Access(EVERYONE),
    "account.tokens.make": Access(EVERYONE, keeps_answer=False),
    "account.tokens.make.post": Access(EVERYONE, keeps_answer=False),
    "account.tokens.revoke": Access(EVERYONE),
    "account.tokens.revoke.post": Access(EVERYONE),
    "accounts.page": Access(ADMINS),
    "accounts.list": Access(ADMINS),
    "accounts.read": Access(ADMINS),
    "accounts.invite": Access(ADMINS, keeps_answer=False),
    "accounts.invite.post": Access(ADMINS, keeps_answer=False),
    "accounts.link": Access(ADMINS, keeps_answer=False),
    "accounts.lock": Access(ADMINS),
    "accounts.unlock": Access(ADMINS),
    "accounts.end": Access(ADMINS),
    "accounts.erase": Access(ADMINS),
    "accounts.change.post": Access(ADMINS, keeps_answer=False),
    # Hospitals and people: onboarding (hospitals/, people/, certificates/)
    "hospitals.list": Access(EVERYONE),  # a hospital's contact: the own hospital
    "hospitals.list.page": Access(EVERYONE),
    "hospitals.read": Access(EVERYONE, own_hospital=True),
    "hospitals.one.page": Access(EVERYONE, own_hospital=True),
    "hospitals.certificates": Access(EVERYONE, own_hospital=True),
    "hospitals.manifests": Access(EVERYONE, own_hospital=True),
    "hospitals.reports": Access(EVERYONE, own_hospital=True),
    "hospitals.runs": Access(EVERYONE, own_hospital=True),
    "hospitals.history": Access(EVERYONE, own_hospital=True),
    "hospitals.history.page": Access(EVERYONE, own_hospital=True),
    "hospitals.manifests.send": Access(ADMINS_AND_CONTACTS, own_hospital=True),
    "hospitals.manifests.send.post": Access(ADMINS_AND_CONTACTS, own_hospital=True),
    "hospitals.requests.list": Access(EVERYONE, own_hospital=True),
    "hospitals.requests.read": Access(EVERYONE, own_hospital=True),
    "hospitals.request.page": Access(EVERYONE, own_hospital=True),
    "hospitals.requests.send": Access(ADMINS_AND_CONTACTS, own_hospital=True),
    "hospitals.requests.send.post": Access(ADMINS_AND_CONTACTS, own_hospital=True),
    "hospitals.requests.withdraw": Access(ADMINS_AND_CONTACTS, own_hospital=True),
    "hospitals.requests.withdraw.post": Access(ADMINS_AND_CONTACTS, own_hospital=True),
    "hospitals.requests.reply": Access(ADMINS_AND_CONTACTS, own_hospital=True),
    "hospitals.invite": Access(ADMINS, keeps_answer=False),
    "hospitals.invite.page": Access(ADMINS),
    "hospitals.invite.post": Access(ADMINS, keeps_answer=False),
    "hospitals.invitations.list": Access(PERSONS),
    "hospitals.invitations.read": Access(PERSONS),
    "hospitals.invitations.change": Access(ADMINS),
    "hospitals.change.post": Access(ADMINS),
    "hospitals.invitations.link": Access(ADMINS, keeps_answer=False),
    "hospitals.link.post": Access(ADMINS, keeps_answer=False),
    "hospitals.invitations.withdraw": Access(ADMINS),
    "hospitals.withdraw.post": Access(ADMINS),
    "certificates.list": Access(PERSONS),
    "certificates.page": Access(PERSONS),
    "certificates.read": Access(PERSONS),
    "certificates.status.page": Access(ADMINS),
    "acts.prepare.certificate-status": Access(ADMINS),
    "certificates.requests.list": Access(PERSONS),
    "certificates.requests.page": Access(PERSONS),
    "certificates.requests.read": Access(PERSONS),
    "certificates.request.page": Access(PERSONS),
    "certificates.requests.send": Access(ADMINS),
    "certificates.requests.send.post": Access(ADMINS),
    "certificates.requests.compare": Access(ADMINS),
    "certificates.requests.compare.post": Access(ADMINS),
    "certificates.requests.withdraw": Access(ADMINS),
    "certificates.requests.withdraw.post": Access(ADMINS),
    "certificates.requests.issue": Access(ADMINS, keeps_request=False),
    "certificates.requests.issue.post": Access(ADMINS, keeps_request=False),
    "certificates.requests.reply": Access(ADMINS),
    "acts.prepare.request-decision": Access(ADMINS | OFFICERS | AUTHORITIES),
    "people.list": Access(PERSONS),
    "people.page": Access(PERSONS),
    "people.read": Access(PERSONS),
    "people.one.page": Access(PERSONS),
    "people.passkeys.request": Access(PERSONS),  # one's own, or an admin for somebody
    "people.passkeys.request.post": Access(PERSONS),
    # Privacy and plans (privacy/, plans/)
    "privacy.list": Access(EVERYONE),  # a hospital's contact: the own hospital's
    "privacy.read": Access(EVERYONE, own_hospital=True),
    "privacy.leaves": Access(EVERYONE),
    "privacy.audits": Access(EVERYONE),
    "privacy.audits.read": Access(EVERYONE),
    "privacy.page": Access(EVERYONE),
    "privacy.one.page": Access(EVERYONE, own_hospital=True),
    "privacy.audits.page": Access(EVERYONE),
    "privacy.csv": Access(EVERYONE),  # a hospital's contact: the own hospital's
    "privacy.points.csv": Access(EVERYONE, own_hospital=True),
    "acts.prepare.privacy-audit": Access(OFFICERS | AUTHORITIES),
    "plans.list": Access(EVERYONE),  # a hospital's contact: those that name the hospital
    "plans.read": Access(EVERYONE),
    "plans.read.forecast": Access(EVERYONE),
    "plans.forecast": Access(EVERYONE),
    "plans.templates": Access(EVERYONE),
    "plans.drafts": Access(ADMINS),
    "plans.drafts.make": Access(ADMINS),
    "plans.drafts.read": Access(ADMINS),
    "plans.drafts.change": Access(ADMINS),
    "plans.drafts.delete": Access(ADMINS),
    "plans.list.page": Access(EVERYONE),
    "plans.one.page": Access(EVERYONE),
    "plans.one.forecast.page": Access(EVERYONE),
    "plans.forecast.page": Access(EVERYONE),
    "plans.forecast.result": Access(EVERYONE),
    "plans.new.page": Access(ADMINS),
    "plans.drafts.post": Access(ADMINS),
    "plans.drafts.delete.post": Access(ADMINS),
    "acts.prepare.plan-proposal": Access(ADMINS),
    "acts.prepare.plan-decision": Access(PERSONS),  # which of them decides is in the policy set with the gates
    # Runs (runs/)
    "runs.list": Access(PERSONS),
    "runs.read": Access(PERSONS),
    "runs.events": Access(PERSONS),
    "runs.start": Access(ADMINS),
    "runs.resume": Access(ADMINS),
    "runs.stop": Access(ADMINS),
    "launches.list": Access(ADMINS),
    "launches.read": Access(ADMINS),
    "federation.read": Access(PERSONS),
    "federation.start": Access(ADMINS),
    "federation.stop": Access(ADMINS),
    "runs.list.page": Access(PERSONS),
    "runs.one.page": Access(PERSONS),
    "runs.rounds.page": Access(PERSONS),
    "runs.hospitals.page": Access(PERSONS),
    "runs.start.post": Access(ADMINS),
    "runs.resume.post": Access(ADMINS),
    "runs.stop.post": Access(ADMINS),
    "launches.page": Access(ADMINS),
    "federation.page": Access(PERSONS),
    "federation.start.post": Access(ADMINS),
    "federation.stop.post": Access(ADMINS),
    # Releases (releases/)
    "releases.list": Access(EVERYONE),
    "releases.read": Access(EVERYONE),
    "releases.certify": Access(ADMINS | MANAGERS),
    "releases.dossier": Access(EVERYONE),
    "releases.document": Access(EVERYONE),
    "releases.compare": Access(PERSONS),
    "versions.reports": Access(PERSONS),
    "releases.list.page": Access(EVERYONE),
    "releases.one.page": Access(EVERYONE),
    "releases.new.page": Access(ADMINS | MANAGERS),
    "releases.gates.page": Access(PERSONS),
    "releases.compare.page": Access(PERSONS),
    "releases.certify.post": Access(ADMINS | MANAGERS),
    "releases.report.page": Access(EVERYONE),
    "releases.picture.page": Access(EVERYONE),
    "acts.prepare.gates": Access(frozenset(GATE_SETTERS)),
    "acts.prepare.release-proposal": Access(frozenset(RELEASE_PROPOSERS)),
    "acts.prepare.release-decision": Access(PERSONS),  # which roles, the task's policy says
    "acts.prepare.withdrawal-proposal": Access(frozenset(WITHDRAWERS)),
    "acts.prepare.withdrawal-decision": Access(frozenset(WITHDRAWERS)),
    "acts.prepare.supersession": Access(MANAGERS),
    # Authority and the log (authority/, logbook/)
    "search": Access(EVERYONE),
    "trace": Access(PERSONS),
    "search.page": Access(EVERYONE),
    "trace.page": Access(PERSONS),
    "trace.rounds.page": Access(PERSONS),
    "authority.page": Access(PERSONS),
    "verify.page": Access(EVERYONE),
    "log.checkpoint": Access(EVERYONE),
    "log.witnesses": Access(EVERYONE),
    "log.entries": Access(EVERYONE),  # a hospital's contact: about the own hospital
    "log.entry": Access(EVERYONE),
    "log.proof": Access(EVERYONE),
    "log.consistency": Access(EVERYONE),
    "log.page": Access(EVERYONE),
    "log.entry.page": Access(EVERYONE),
}
