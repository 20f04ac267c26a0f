"""Decisions and releases: from the entry to its rows. The moves themselves were judged when they were logged."""

from __future__ import annotations

from typing import Any

from admin_api.reading.fold import PERSON, PLAN, RELEASE, REQUEST, STATEMENT, VERSION, Fold, signed_digest
from admin_api.reading.tables import DecisionRow, PlanRow, ReleaseEventRow, ReleaseRow
from audit.entry import (
    APPROVAL_GIVEN,
    RELEASE_CERTIFIED,
    RELEASE_PROPOSED,
    RELEASE_SUPERSEDED,
    RELEASE_WITHDRAWN,
    WITHDRAWAL_PROPOSED,
)
from audit.release import APPROVE
from audit.release_state import CANDIDATE, CERTIFIED, SUPERSEDED, WITHDRAWN

APPROVED, REFUSED, WITHDRAWAL = "approved", "refused", "withdrawal proposed"


def approval(fold: Fold) -> None:
    signed = fold.body["approval"]
    statement = signed["statement"]
    what, digest = statement["subject"]["kind"], statement["subject"]["digest"]
    fold.rows.put(
        DecisionRow,
        entry=fold.index,
        time=fold.time,
        what=what,
        digest=digest,
        person=statement["name"],
        certificate=signed["certificate"],
        **{field: statement[field] for field in ("organisation", "role", "decision", "meaning", "reason")},
    )
    fold.mention(PERSON, statement["name"])
    word = APPROVED if statement["decision"] == APPROVE else REFUSED
    if what == "plan":
        fold.mention(PLAN, digest)
        _count(fold.rows.change(PlanRow, digest), word)
    elif what == "release":
        for release in fold.rows.all(ReleaseRow, statement=digest):
            _count(fold.rows.change(ReleaseRow, release["release"]), word)
            _event(fold, release["release"], word, signed["certificate"], statement["reason"])
    elif what == "withdrawal":
        for release in fold.rows.all(ReleaseRow, withdrawal=digest):
            _event(fold, release["release"], f"withdrawal {word}", signed["certificate"], statement["reason"])
    else:
        fold.mention(REQUEST, digest)


def _count(row: dict[str, Any] | None, word: str) -> None:
    """One more decision about a plan or release; a plan not yet carried out takes the last one's word as its state."""
    if row is None:
        return
    row["approvals" if word == APPROVED else "refusals"] += 1
    if row["state"] in ("proposed", APPROVED, REFUSED):
        row["state"] = word


def release_proposed(fold: Fold) -> None:
    body = fold.body
    signed = body["proposal"]
    fold.rows.put(
        ReleaseRow,
        release=body["release"],
        folded=body["release"].casefold(),
        entry=fold.index,
        time=fold.time,
        task=body["task"],
        version=body["version"],
        statement=body["statement"],
        predecessor=body["predecessor"],
        proposer=signed["statement"]["name"],
        state=CANDIDATE,
        state_entry=fold.index,
        state_time=fold.time,
        approvals=0,
        refusals=0,
    )
    fold.mention(PERSON, signed["statement"]["name"])
    fold.mention(VERSION, body["version"])
    fold.mention(STATEMENT, body["statement"])
    _event(fold, body["release"], CANDIDATE, signed["certificate"])


def release_certified(fold: Fold) -> None:
    row = _moved(fold, fold.body["release"], CERTIFIED)
    if row is not None:
        row["certified_entry"], row["certified_time"] = fold.index, fold.time
    fold.mention(VERSION, fold.body["version"])
    _event(fold, fold.body["release"], CERTIFIED)


def release_superseded(fold: Fold) -> None:
    row = _moved(fold, fold.body["release"], SUPERSEDED)
    if row is not None:
        row["superseded_by"] = fold.body["by"]
    fold.mention(RELEASE, fold.body["by"])
    signed = fold.body["supersession"]
    if signed is None:
        _event(fold, fold.body["release"], SUPERSEDED, other=fold.body["by"])
    else:
        reason = signed["statement"]["reason"]
        _event(fold, fold.body["release"], SUPERSEDED, signed["certificate"], reason, other=fold.body["by"])


def withdrawal_proposed(fold: Fold) -> None:
    signed = fold.body["withdrawal"]
    row = fold.rows.change(ReleaseRow, fold.body["release"])
    if row is not None:
        row["withdrawal"], row["withdrawal_entry"] = signed_digest(signed), fold.index
        row["withdrawal_by"], row["withdrawal_reason"] = signed["certificate"], signed["statement"]["reason"]
    _event(fold, fold.body["release"], WITHDRAWAL, signed["certificate"], signed["statement"]["reason"])


def release_withdrawn(fold: Fold) -> None:
    _moved(fold, fold.body["release"], WITHDRAWN)
    _event(fold, fold.body["release"], WITHDRAWN)


def _moved(fold: Fold, release: str, state: str) -> dict[str, Any] | None:
    row = fold.rows.change(ReleaseRow, release)
    if row is not None:
        row["state"], row["state_entry"], row["state_time"] = state, fold.index, fold.time
    return row


def _event(
    fold: Fold,
    release: str,
    event: str,
    certificate: str | None = None,
    reason: str | None = None,
    *,
    other: str | None = None,
) -> None:
    fold.rows.put(
        ReleaseEventRow,
        entry=fold.index,
        time=fold.time,
        release=release,
        event=event,
        certificate=certificate,
        reason=reason,
        other=other,
    )
    fold.mention(RELEASE, release)
    if certificate is not None:
        fold.signer(certificate)


FOLDS = {
    APPROVAL_GIVEN: approval,
    RELEASE_PROPOSED: release_proposed,
    RELEASE_CERTIFIED: release_certified,
    RELEASE_SUPERSEDED: release_superseded,
    WITHDRAWAL_PROPOSED: withdrawal_proposed,
    RELEASE_WITHDRAWN: release_withdrawn,
}
