"""What went wrong with a run, in words, and what to do about it.

The reasons come from elsewhere (`result.json`, a keeper's last words, a hospital's refusal) and are shown as they are;
beside each stands what it means and the next step. Refusals carry their code in brackets, `... [over-budget]`; other
reasons are known by how they begin. A reason nobody foresaw is shown alone, with the general advice.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from pydantic import BaseModel, Field

from admin_api.web.language import N_, _

_CODE = re.compile(r"\[([a-z][a-z-]*)\]")


class Trouble(BaseModel):
    """Why something did not go on."""

    title: str = Field(examples=["Hospitals are missing"])
    reason: str = Field(description="as it was reported", examples=["not connected: berkel"])
    todo: str = Field(examples=["Ask them to start their software (`zegel site start`), then resume the run."])
    resumable: bool = Field(description="whether the run can go on from its last finished round")


# By the code of a refusal or error of a hospital.
_CODES: Mapping[str, tuple[str, str]] = {
    "over-budget": (
        N_("A hospital's privacy budget does not cover the plan"),
        N_("Propose a plan with a smaller epsilon, or without this hospital; its officer alone can raise the budget."),
    ),
    "ledger-rolled-back": (
        N_("A hospital's ledger lost part of its history"),
        N_(
            "Its operator puts back the newest copy, or its officer declares the loss; nothing can be spent until then."
        ),
    ),
    "ledger": (
        N_("A hospital's ledger cannot be used"),
        N_("The hospital's own log says why. Nothing was released by it."),
    ),
    "not-approved": (
        N_("A hospital does not find the plan approved"),
        N_("Somebody may have been revoked since: have a privacy officer decide about the plan again."),
    ),
    "revocations-unknown": (
        N_("A hospital did not believe the list of revoked certificates"),
        N_("Check that the hospital knows this log's certificate; it may have been installed for another consortium."),
    ),
    "manifest-not-logged": (
        N_("The log does not know a hospital's data"),
        N_("It makes a statement with `zegel site manifest`; log it on the hospital's page, then resume the run."),
    ),
    "too-few-hospitals": (
        N_("Too few hospitals for one hospital's limits"),
        N_("Propose a plan with more hospitals or fewer dropouts."),
    ),
    "too-many-rounds": (N_("More rounds than a hospital allows"), N_("Propose a plan with fewer rounds.")),
    "clip-too-large": (
        N_("One patient would count for more than a hospital allows"),
        N_("Propose a plan with a smaller clip norm."),
    ),
    "noise-too-weak": (N_("Less noise than a hospital's floor"), N_("Propose a plan with a smaller epsilon.")),
    "own-noise-too-weak": (
        N_("A hospital's own noise alone protects less than it asks for"),
        N_("Propose a plan with local noise, a smaller epsilon or fewer colluders."),
    ),
    "delta-too-large": (N_("A larger delta than a hospital allows"), N_("Propose a plan with a smaller delta.")),
    "epsilon-understated": (
        N_("A hospital computes more epsilon than the plan states"),
        N_("Its software and yours differ: update both, then propose the plan again."),
    ),
    "label-not-known": (
        N_("The plan has codes that a hospital's table lacks"),
        N_("The hospital updates its table of codes, or you propose a plan without these codes."),
    ),
    "encoder-not-allowed": (
        N_("A hospital does not run this text encoder"),
        N_("Its operator allows it in its limits, or you propose a plan with another encoder."),
    ),
    "encoder-not-installed": (
        N_("A language model is missing at a hospital"),
        N_("Its operator adds it with `zegel site encoder add`, then resume the run."),
    ),
    "task-not-allowed": (N_("A hospital does not do this task"), N_("Propose a plan without this hospital.")),
    "plan-malformed": (
        N_("A hospital cannot read the plan"),
        N_("Its software is older than the plan: update it, then resume the run."),
    ),
    "data": (
        N_("A hospital's data set cannot be used"),
        N_("The hospital's own log says why. It repairs or imports it again, then resume the run."),
    ),
    "unreachable": (
        N_("A hospital did not answer"),
        N_("Ask it to start its software (`zegel site start`), then resume the run."),
    ),
    "revoked": (N_("A hospital's certificate was revoked"), N_("Renew it on the hospital's page, or plan without it.")),
    "peer-revoked": (
        N_("A hospital would not work with one that was revoked"),
        N_("Resume the run; it goes on without the revoked hospital if the plan allows a dropout."),
    ),
    "witness": (
        N_("A hospital did not cosign the log"),
        N_("It saw another history of this log. Do not go on before you know why: compare checkpoints."),
    ),
    "bad-answer": (
        N_("A hospital's answer does not hold"),
        N_("Have the hospital check its software and certificate, then resume the run."),
    ),
}

# By words in the reason, the first that fits.
_WORDS: tuple[tuple[str, str, str], ...] = (
    ("not connected:", N_("Hospitals are not connected"),
     N_("Ask them to start their software (`zegel site start`), then try again.")),
    ("does not answer", N_("The federation's server does not answer"),
     N_("Start the server on the page of runs, then try again.")),
    ("server is gone", N_("The federation's server is gone"),
     N_("Start the server on the page of runs, then resume the run.")),
    ("does not know the job", N_("The server was restarted and lost the job"), N_("Resume the run.")),
    ("does not cosign", N_("A hospital did not cosign the log"),
     N_("It saw another history of this log. Do not go on before you know why: compare checkpoints.")),
    ("training hospitals are", N_("Too few hospitals are there"),
     N_("Resume the run when they are back; rounds that hospitals may have answered are never asked for again.")),
    ("every round was lost", N_("Every round was lost"),
     N_("There is no version; what was spent stays spent. Find out why hospitals dropped out, then propose again.")),
    ("not evaluated everywhere", N_("The model is trained, but not evaluated everywhere"),
     N_("Resume the run when the missing hospitals are back; no further training is done.")),
    ("no data manifest", N_("A hospital has announced no data"),
     N_("It makes a statement with `zegel site manifest`; log it on its page, then start again.")),
    ("no gates", N_("No gates are in force"), N_("A release manager sets them; then start the run.")),
    ("gates", N_("No gates are in force"), N_("A release manager sets them; then start the run.")),
    ("approv", N_("The plan's approvals do not suffice"), N_("See on the plan's page whose decision is missing.")),
    ("does not go on", N_("The run does not go on"), N_("Correct what is named, then resume the run.")),
    ("the plan starts from", N_("This software makes another first model"),
     N_("The plan was proposed with another version of the software. Propose it again.")),
    ("suspended", N_("A certificate is suspended"), N_("See the hospital's page.")),
    ("certificate", N_("A certificate is not valid now"), N_("See the page of certificates, and renew it.")),
    ("did not end in time", N_("Nobody follows the run any more"),
     N_("The run goes on. Resume it to follow it again.")),
)  # fmt: skip


def explained(reason: str, *, resumable: bool) -> Trouble:
    """What a reason means and what to do, in the reader's language; the reason itself stays as it is."""
    for code in _CODE.findall(reason):
        if code in _CODES:
            title, todo = _CODES[code]
            return Trouble(title=_(title), reason=reason, todo=_(todo), resumable=resumable)
    for words, title, todo in _WORDS:
        if words in reason:
            return Trouble(title=_(title), reason=reason, todo=_(todo), resumable=resumable)
    todo = (
        _("Correct what is named, then resume the run; it goes on from its last finished round.")
        if resumable
        else _("Correct what is named and propose again. What was spent stays spent.")
    )
    return Trouble(title=_("The run stopped"), reason=reason, todo=todo, resumable=resumable)
