"""What is signed about releases: gates, proposals, decisions, withdrawals, supersession."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from admin_api.gate_setting import parse_gate, set_gates
from admin_api.planning import decide
from admin_api.reading import runs
from admin_api.releasing import approve_withdrawal, propose_release, propose_withdrawal, supersede
from admin_api.signing import Signer
from admin_api.web.acts import Act, Words
from admin_api.web.context import Viewer, Workplace
from admin_api.web.language import _, current, ngettext
from admin_api.web.problems import Problem
from admin_api.web.releases.view import find_release, release_view
from audit.gates import AT_LEAST
from audit.release import DEFAULT_POLICY, Policy

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
MOST_REASON = 4000
_Reason = Field(default="", max_length=MOST_REASON, description="why; kept beside the log, can be erased later")


class _Parameters(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Gates(_Parameters):
    """Fix what a task's releases must reach, for the runs that start from now on."""

    task: str = Field(min_length=1, max_length=100, examples=["icd_coding"])
    gates: list[str] = Field(min_length=1, max_length=100, examples=[["epsilon<=8", "hit@1@every-site>=0.4"]])
    organisations: int = Field(default=DEFAULT_POLICY.organisations, ge=1, le=10)
    reason: str = _Reason


class Proposal(_Parameters):
    """Put a finished run's version up for certification."""

    release: str = Field(pattern=NAME, examples=["autumn-2026"])
    run: str = Field(pattern=NAME, examples=["run-20261122T050000Z-1a2b3c"])
    notes: str | None = Field(
        default=None, max_length=200_000, description="release notes, JSON as the template has it"
    )


class ReleaseDecision(_Parameters):
    """Approve or refuse a candidate. The last decision of a person counts."""

    release: str = Field(pattern=NAME)
    decision: Literal["approve", "refuse"]
    reason: str = _Reason

    @model_validator(mode="after")
    def _refused_with_reason(self) -> ReleaseDecision:
        if self.decision == "refuse" and not self.reason.strip():
            raise ValueError("to refuse a release, give a reason; the proposer needs it")
        return self


class Withdrawal(_Parameters):
    """Propose to take a release out of use, for ever."""

    release: str = Field(pattern=NAME)
    reason: str = Field(min_length=1, max_length=MOST_REASON)


class WithdrawalDecision(_Parameters):
    """Agree to a withdrawal that somebody else proposed; the release is withdrawn at once."""

    release: str = Field(pattern=NAME)
    reason: str = _Reason


class Supersession(_Parameters):
    """Retire a release in favour of one of another task."""

    release: str = Field(pattern=NAME)
    by: str = Field(pattern=NAME)
    reason: str = Field(min_length=1, max_length=MOST_REASON)


def _gates_words(here: Workplace, viewer: Viewer, given: Gates) -> Words:
    rules = [parse_gate(text) for text in given.gates]
    said = [
        _("%(name)s must be at least %(threshold)s.", name=rule.name, threshold=current().number(rule.threshold))
        if rule.comparison == AT_LEAST
        else _("%(name)s must be at most %(threshold)s.", name=rule.name, threshold=current().number(rule.threshold))
        for rule in rules
    ]
    return Words(
        title=_("Set the gates of %(task)s", task=given.task),
        sentences=[
            *said,
            ngettext(
                "Approvals must come from %(num)s organisation.",
                "Approvals must come from %(num)s organisations.",
                given.organisations,
            ),
        ],
        if_signed=_("Every run that starts from now on is judged by these gates; runs that started before are not."),
        if_not=_("The gates stay as they are."),
        back="/releases/gates",
    )


def _set_gates(here: Workplace, signer: Signer, given: Gates) -> Mapping[str, Any]:
    policy = Policy(organisations=given.organisations)
    chosen = set_gates(here.home, task=given.task, gates=given.gates, policy=policy, reason=given.reason, person=signer)
    return {"task": chosen.task, "gates": list(given.gates)}


def _proposal_words(here: Workplace, viewer: Viewer, given: Proposal) -> Words:
    run = runs.one(here.reading, given.run)
    if run.state != "finished":
        raise Problem(409, "refused", "Refused", f"run {given.run} has not finished", "wait for its end")
    return Words(
        title=_("Propose release %(name)s", name=given.release),
        sentences=[
            _("The version that run %(run)s made is put up for certification.", run=given.run),
            _("Its documents (report, model card, bill of materials, bridge study) are made from the log now; every "
              "approval binds them."),
        ],
        if_signed=_("Those whose roles decide see it on their pages. You cannot approve it yourself."),
        if_not=_("Nothing is proposed."),
        back=f"/releases/{given.release}",
    )  # fmt: skip


def _propose(here: Workplace, signer: Signer, given: Proposal) -> Mapping[str, Any]:
    notes = given.notes.encode("utf-8") if given.notes and given.notes.strip() else None
    statement = propose_release(here.home, run_id=given.run, release=given.release, proposer=signer, notes=notes)
    return {"release": given.release, "statement": statement.digest, "version": statement.version}


def _decision_words(here: Workplace, viewer: Viewer, given: ReleaseDecision) -> Words:
    found = release_view(here, given.release)
    facts = [
        _("Release %(name)s, version %(version)s.", name=found.release, version=current().short_digest(found.version)),
        _("Patients' privacy loss: epsilon %(epsilon)s.", epsilon=current().epsilon(found.epsilon)),
        *(
            _("Gate %(name)s: %(value)s.", name=gate.name, value=current().number(gate.value, 3))
            for gate in found.gates
        ),
    ]
    if given.decision == "refuse":
        return Words(
            title=_("Refuse release %(name)s", name=given.release),
            sentences=[*facts, _("Your reason: %(reason)s", reason=given.reason)],
            if_signed=_("The refusal is in the log; the release cannot be certified while it stands."),
            if_not=_("The release waits for your decision."),
            back=f"/releases/{given.release}",
        )
    missing = sum(not need.met for need in found.needs if need.role != viewer.role)
    return Words(
        title=_("Approve release %(name)s", name=given.release),
        sentences=[
            _("I have read this release's evidence; it may be used for coding."),
            *facts,
            *([_("Your reason: %(reason)s", reason=given.reason)] if given.reason.strip() else []),
        ],
        if_signed=_("It can be certified.") if missing == 0 else ngettext(
            "%(num)s more approval is needed before it can be certified.",
            "%(num)s more approvals are needed before it can be certified.",
            missing,
        ),
        if_not=_("The release waits for your decision."),
        back=f"/releases/{given.release}",
    )  # fmt: skip


def _decide(here: Workplace, signer: Signer, given: ReleaseDecision) -> Mapping[str, Any]:
    found = find_release(here, given.release)
    decide(here.home, "release", found.statement, signer, approve=given.decision == "approve", reason=given.reason)
    return {"release": given.release, "decision": given.decision}


def _withdrawal_words(here: Workplace, viewer: Viewer, given: Withdrawal) -> Words:
    find_release(here, given.release)
    return Words(
        title=_("Propose to withdraw release %(name)s", name=given.release),
        sentences=[
            _("This release must not be used for coding any more."),
            _("Your reason, which everybody who uses it will read: %(reason)s", reason=given.reason),
        ],
        if_signed=_("A second person decides. A withdrawn release never comes back, and its dossier does not verify."),
        if_not=_("The release stays in use."),
        back=f"/releases/{given.release}",
    )


def _propose_withdrawal(here: Workplace, signer: Signer, given: Withdrawal) -> Mapping[str, Any]:
    digest = propose_withdrawal(here.home, given.release, reason=given.reason, person=signer)
    return {"release": given.release, "withdrawal": digest}


def _agreement_words(here: Workplace, viewer: Viewer, given: WithdrawalDecision) -> Words:
    found = find_release(here, given.release)
    return Words(
        title=_("Withdraw release %(name)s", name=given.release),
        sentences=[
            _("I have read why; this release must not be used for coding any more."),
            _("Proposed by %(name)s: %(reason)s", name=found.withdrawal_by_name, reason=found.withdrawal_reason),
        ],
        if_signed=_("The release is withdrawn at once, for ever. Tell everybody who uses it."),
        if_not=_("The release stays in use."),
        back=f"/releases/{given.release}",
    )


def _agree(here: Workplace, signer: Signer, given: WithdrawalDecision) -> Mapping[str, Any]:
    approve_withdrawal(here.home, given.release, reason=given.reason, person=signer)
    return {"release": given.release, "state": "withdrawn"}


def _supersession_words(here: Workplace, viewer: Viewer, given: Supersession) -> Words:
    find_release(here, given.release)
    find_release(here, given.by)
    return Words(
        title=_("Retire release %(name)s", name=given.release),
        sentences=[
            _("Release %(by)s takes the place of %(name)s.", by=given.by, name=given.release),
            _("Your reason: %(reason)s", reason=given.reason),
        ],
        if_signed=_("It is superseded at once; what was coded with it stays traceable."),
        if_not=_("Both stay certified."),
        back=f"/releases/{given.release}",
    )


def _supersede(here: Workplace, signer: Signer, given: Supersession) -> Mapping[str, Any]:
    supersede(here.home, given.release, by=given.by, reason=given.reason, person=signer)
    return {"release": given.release, "state": "superseded", "by": given.by}


ACTS: tuple[Act[Any], ...] = (
    Act("gates", Gates, _gates_words, _set_gates),
    Act("release-proposal", Proposal, _proposal_words, _propose),
    Act("release-decision", ReleaseDecision, _decision_words, _decide),
    Act("withdrawal-proposal", Withdrawal, _withdrawal_words, _propose_withdrawal),
    Act("withdrawal-decision", WithdrawalDecision, _agreement_words, _agree),
    Act("supersession", Supersession, _supersession_words, _supersede),
)
