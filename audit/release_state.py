"""The states of releases, and the only moves between them.

    candidate --certified--> certified --superseded--> superseded
                                |                          |
                                +-----withdrawn------------+-----> withdrawn

Every move is an entry of the log. `standings` replays them in log order and refuses the first that is not
allowed, so a log in which it succeeds has made no other. Writers replay their entries before they append
them; the verifier replays those of the dossier.

Rules, besides the arrows above:
- A name is proposed once. A proposal names the certified release of its task at that time, or none.
- At most one release of a task is certified. Certifying another supersedes it by the very next entry, and is
  refused when the certified release is not the one the candidate was compared with.
- A release manager may say that a certified release is superseded by one of another task.
- Nobody withdraws alone: one person proposes, another approves, one of the two is a release manager. Nothing
  comes back from withdrawn. Refusals do not stop a withdrawal: who finds harm is not outvoted.

Whether a certified release had its quorum, gates and evidence is `audit.trace`'s business.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from audit.certificates import AUTHORITY, CONSORTIUM_ADMIN, PRIVACY_OFFICER, RELEASE_MANAGER, Identity
from audit.entry import (
    RELEASE_CERTIFIED,
    RELEASE_PROPOSED,
    RELEASE_SUPERSEDED,
    RELEASE_WITHDRAWN,
    WITHDRAWAL_PROPOSED,
)
from audit.errors import ReleaseError, TraceError
from audit.evidence import Evidence, Logged
from audit.release import APPROVE
from audit.statement import SUPERSESSION, WITHDRAWAL

CANDIDATE = "candidate"
CERTIFIED = "certified"
SUPERSEDED = "superseded"
WITHDRAWN = "withdrawn"
TRANSITIONS: Mapping[str, frozenset[str]] = {
    CANDIDATE: frozenset({CERTIFIED}),
    CERTIFIED: frozenset({SUPERSEDED, WITHDRAWN}),
    SUPERSEDED: frozenset({WITHDRAWN}),
    WITHDRAWN: frozenset(),
}
RELEASE_PROPOSERS = frozenset({CONSORTIUM_ADMIN, RELEASE_MANAGER})
WITHDRAWERS = frozenset({RELEASE_MANAGER, PRIVACY_OFFICER, AUTHORITY})


@dataclass(frozen=True)
class Withdrawal:
    """A proposal to withdraw a release, and once it is done who approved."""

    digest: str  # of the signed withdrawal
    index: int
    proposer: Identity
    reason: str | None  # commitment (audit.disclosure)
    approvers: tuple[Identity, ...] = ()


@dataclass(frozen=True)
class Standing:
    """Where a release stands."""

    release: str
    task: str
    statement: str  # digest
    version: str  # digest
    predecessor: str | None  # name of the release it would replace
    proposer: Identity
    proposed_index: int
    state: str = CANDIDATE
    since: int = 0  # entry that brought it here
    certified_index: int | None = None
    superseded_by: str | None = None
    withdrawal: Withdrawal | None = None  # the last one proposed; carried out when `state` says withdrawn

    def moved(self, state: str, logged: Logged) -> Standing:
        """The release after a move; raises ReleaseError when no arrow leads there."""
        if state not in TRANSITIONS[self.state]:
            raise ReleaseError(f"{logged}: release {self.release} is {self.state} and cannot become {state}")
        return replace(self, state=state, since=logged.index)


def standings(evidence: Evidence) -> dict[str, Standing]:
    """Every release by name, in the order of proposal, after all entries of `evidence`.

    `evidence` must hold all entries of the kinds above, the approvals of withdrawals, and the signers'
    certificates. Raises ReleaseError or TraceError, naming the entry, for a move that is not allowed.
    """
    replay = _Replay(evidence)
    moves: Mapping[str, Callable[[Logged], None]] = {
        RELEASE_PROPOSED: replay.proposed,
        RELEASE_CERTIFIED: replay.certified,
        RELEASE_SUPERSEDED: replay.superseded,
        WITHDRAWAL_PROPOSED: replay.withdrawal_proposed,
        RELEASE_WITHDRAWN: replay.withdrawn,
    }
    for logged in evidence.entries:
        replay.expect_supersession(logged)
        move = moves.get(logged.entry.kind)
        if move is not None:
            move(logged)
    replay.expect_supersession(None)
    return replay.releases


def certified_of(releases: Mapping[str, Standing], task: str) -> Standing | None:
    """The certified release of a task, if there is one."""
    return next((each for each in releases.values() if each.task == task and each.state == CERTIFIED), None)


class _Replay:
    def __init__(self, evidence: Evidence) -> None:
        self._evidence = evidence
        self.releases: dict[str, Standing] = {}
        self._due: tuple[int, str, str] | None = None  # at this index, this release is superseded by that one

    def expect_supersession(self, logged: Logged | None) -> None:
        """After a certification the next entry of the log must retire the predecessor: one append, no gap."""
        if self._due is None:
            return
        index, release, by = self._due
        if logged is None or logged.index != index or logged.entry.kind != RELEASE_SUPERSEDED:
            raise ReleaseError(f"entry {index}: expected {RELEASE_SUPERSEDED}: {release} by {by}, just certified")

    def proposed(self, logged: Logged) -> None:
        body = logged.body
        if body["release"] in self.releases:
            raise ReleaseError(f"{logged}: release {body['release']} was proposed already")
        certified = certified_of(self.releases, body["task"])
        logged.expect("predecessor", None if certified is None else certified.release, body["predecessor"])
        self.releases[body["release"]] = Standing(
            release=body["release"],
            task=body["task"],
            statement=body["statement"],
            version=body["version"],
            predecessor=body["predecessor"],
            proposer=self._evidence.proposer(logged, "release", body["statement"], RELEASE_PROPOSERS),
            proposed_index=logged.index,
            since=logged.index,
        )

    def certified(self, logged: Logged) -> None:
        standing = self._known(logged, logged.body["release"])
        for field, expected in (("statement", standing.statement), ("version", standing.version)):
            logged.expect(field, expected, logged.body[field])
        moved = replace(standing.moved(CERTIFIED, logged), certified_index=logged.index)
        current = certified_of(self.releases, standing.task)
        if current is not None and current.release != standing.predecessor:
            raise ReleaseError(
                f"{logged}: release {standing.release} was compared with {standing.predecessor or 'no release'}, but "
                f"{current.release} is certified now; propose it anew"
            )
        if current is not None:
            self._due = (logged.index + 1, current.release, standing.release)
        self._set(moved)

    def superseded(self, logged: Logged) -> None:
        release, by = logged.body["release"], logged.body["by"]
        standing, successor = self._known(logged, release), self._known(logged, by)
        if self._due is not None:
            logged.expect("release, by", self._due[1:], (release, by))
            logged.expect("supersession", None, logged.body["supersession"])
            self._due = None
        else:
            if logged.body["supersession"] is None:
                raise ReleaseError(f"{logged}: nobody signed that {by} supersedes {release}")
            if successor.state != CERTIFIED or release == by:
                raise ReleaseError(f"{logged}: expected a certified release to supersede {release}, got {by}")
            signed = logged.entry.signed("supersession")
            self._evidence.verify(logged, signed, SUPERSESSION, frozenset({RELEASE_MANAGER}))
            for field, expected in (("release", release), ("by", by)):
                logged.expect(field, expected, signed.statement[field])
        self._set(replace(standing.moved(SUPERSEDED, logged), superseded_by=by))

    def withdrawal_proposed(self, logged: Logged) -> None:
        standing = self._known(logged, logged.body["release"])
        standing.moved(WITHDRAWN, logged)  # only what could be withdrawn
        signed = logged.entry.signed("withdrawal")
        proposer = self._evidence.verify(logged, signed, WITHDRAWAL, WITHDRAWERS)
        for field, expected in (("release", standing.release), ("digest", standing.statement)):
            logged.expect(field, expected, signed.statement[field])
        withdrawal = Withdrawal(signed.digest, logged.index, proposer, signed.statement["reason"])
        self._set(replace(standing, withdrawal=withdrawal))

    def withdrawn(self, logged: Logged) -> None:
        standing = self._known(logged, logged.body["release"])
        logged.expect("statement", standing.statement, logged.body["statement"])
        proposed = standing.withdrawal
        if proposed is None or proposed.digest != logged.body["withdrawal"]:
            raise ReleaseError(f"{logged}: withdraws by {logged.body['withdrawal']}, which is not the last proposal")
        approvers = withdrawal_approvers(self._evidence, proposed, before=logged.index)
        logged.expect("approvals", sorted(each.certificate_digest for each in approvers), logged.body["approvals"])
        self._set(replace(standing.moved(WITHDRAWN, logged), withdrawal=replace(proposed, approvers=approvers)))

    def _known(self, logged: Logged, release: str) -> Standing:
        standing = self.releases.get(release)
        if standing is None:
            raise TraceError(f"{logged}: release {release} was never proposed")
        return standing

    def _set(self, standing: Standing) -> None:
        self.releases[standing.release] = standing


def withdrawal_approvers(evidence: Evidence, withdrawal: Withdrawal, *, before: int) -> tuple[Identity, ...]:
    """Who approved a withdrawal before entry `before`; raises ReleaseError unless that suffices."""
    approvals = evidence.approvals("withdrawal", withdrawal.digest, after=withdrawal.index, before=before)
    last = {each.approver.person: each for each in approvals if each.approver.person != withdrawal.proposer.person}
    approvers = tuple(
        each.approver for each in last.values() if each.decision == APPROVE and each.approver.role in WITHDRAWERS
    )
    if not approvers:
        raise ReleaseError(
            f"withdrawal {withdrawal.digest}: expected approval by somebody besides {withdrawal.proposer}, got none"
        )
    if RELEASE_MANAGER not in {each.role for each in (withdrawal.proposer, *approvers)}:
        raise ReleaseError(f"withdrawal {withdrawal.digest}: expected a {RELEASE_MANAGER} among proposer and approvers")
    return approvers
