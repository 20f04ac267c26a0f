"""What is signed about certificates: decisions about requests, and suspending, reinstating and revoking."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, Field

from admin_api.reading import certificates as held
from admin_api.revoking import change_status
from admin_api.signing import Signer
from admin_api.web.acts import Act, Words
from admin_api.web.certificates import requests
from admin_api.web.certificates.quorum import decide
from admin_api.web.context import Viewer, Workplace
from admin_api.web.language import N_, _
from admin_api.web.problems import Problem, not_found
from admin_api.web.states import ROLES
from audit.certificates import CLIENT
from audit.revocation import REINSTATED, REVOKED, SUSPENDED

Status = Literal["suspended", "reinstated", "revoked"]


class RequestDecision(BaseModel):
    """A decision about a certificate request."""

    request: str = Field(pattern=r"^[0-9a-f]{16}$", examples=["3f9a1c22d4e5b607"])
    approve: bool
    reason: str = Field(default="", max_length=2000, description="a refusal needs one; the log commits to it")


class CertificateStatus(BaseModel):
    """A change of what a holder's certificates count for."""

    holder: str = Field(max_length=100, examples=["amstel"], description="a hospital's name or a person id")
    status: Status
    reason: str = Field(min_length=1, max_length=2000, description="the log commits to it")
    only: str | None = Field(default=None, pattern=r"^sha256:[0-9a-f]{64}$", description="this one certificate only")


def _decision_words(here: Workplace, viewer: Viewer, given: RequestDecision) -> Words:
    row = requests.find(here, given.request)
    requests.check_open(row)
    if given.approve and row.compared is None:
        raise Problem(409, "not-compared", N_("The fingerprint was not compared"),
                      "nobody has compared the key's fingerprint with the holder yet",
                      N_("a consortium admin telephones the holder first"))  # fmt: skip
    if not given.approve and not given.reason.strip():
        raise Problem(422, "reason", N_("Say why"), "a refusal needs a reason", N_("write why, for whoever asks later"))
    asked = requests.asked_for(here, row)
    who = _("%(name)s of %(organisation)s asks for a certificate as %(role)s.",
            name=asked.name, organisation=row.organisation, role=_(ROLES[row.role]))  # fmt: skip
    sentences = [who, _("Fingerprint of the key: %(fingerprint)s", fingerprint=row.fingerprint)]
    if given.reason:
        sentences.append(_("Your reason: %(reason)s", reason=given.reason))
    name = asked.name
    return Words(
        title=_("Approve the request of %(name)s", name=name)
        if given.approve
        else _("Refuse the request of %(name)s", name=name),
        sentences=sentences,
        if_signed=_("Your approval is in the log. The certificate is issued once enough people approved it.")
        if given.approve
        else _("Your refusal is in the log, with the reason. The certificate cannot be issued on this request."),
        if_not=_("Nothing is recorded; the request waits."),
        back=f"/requests/{row.id}",
    )


def _decide(here: Workplace, signer: Signer, given: RequestDecision) -> Mapping[str, Any]:
    row = requests.find(here, given.request)
    decide(here, requests.asked_for(here, row), signer, approve=given.approve, reason=given.reason)
    return {"request": row.id, "digest": row.digest, "decision": "approve" if given.approve else "refuse"}


def _status_words(here: Workplace, viewer: Viewer, given: CertificateStatus) -> Words:
    found = [
        each
        for each in held.of_holder(here.reading, given.holder, now=here.now())
        if given.only is None or each.digest == given.only
    ]
    if not found:
        raise not_found(f"{given.holder} holds no such certificate")
    name, hospital = found[0].name, found[0].role == CLIENT
    titles = {
        SUSPENDED: _("Suspend %(name)s", name=name),
        REINSTATED: _("Reinstate %(name)s", name=name),
        REVOKED: _("Revoke %(name)s", name=name),
    }
    before = _("What the log holds of %(name)s up to now stays good.", name=name)
    if hospital:
        follows = {
            SUSPENDED: _("Within seconds the server ends its session; it takes part in no round until it is "
                         "reinstated. A running training goes on without it if enough others are there."),
            REINSTATED: _("It may connect and take part again at once."),
            REVOKED: _("Within seconds the server ends its session, and it does not come back under this name. "
                       "This cannot be undone."),
        }  # fmt: skip
    else:
        follows = {
            SUSPENDED: _("Nothing they sign counts until they are reinstated. They can still sign in; end the account "
                         "to keep them out."),
            REINSTATED: _("What they sign counts again."),
            REVOKED: _("Nothing they sign with these certificates ever counts again. This cannot be undone."),
        }  # fmt: skip
    count = _("One certificate: %(digest)s", digest=given.only) if given.only else _("All certificates that can be.")
    return Words(
        title=titles[given.status],
        sentences=[count, before, _("Your reason: %(reason)s", reason=given.reason)],
        if_signed=follows[given.status],
        if_not=_("Nothing changes."),
        back=f"/hospitals/{given.holder}" if hospital else f"/people/{given.holder}",
    )


def _change_status(here: Workplace, signer: Signer, given: CertificateStatus) -> Mapping[str, Any]:
    changed = change_status(
        here.home, given.holder, status=given.status, reason=given.reason, admin=signer, only=given.only
    )
    return {"holder": given.holder, "status": given.status, "certificates": list(changed)}


ACTS: list[Act[Any]] = [
    Act("request-decision", RequestDecision, _decision_words, _decide),
    Act("certificate-status", CertificateStatus, _status_words, _change_status),
]
