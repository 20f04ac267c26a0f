"""Revocation: what a status change ends, what it leaves alone, and the list for those who have no log."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from audit.canonical import digest_of
from audit.checkpoint import Checkpoint
from audit.errors import AuditError, CertificateError, CheckpointError, NoteError, StatementError, TraceError
from audit.note import VerifierKey, sign_note
from audit.revocation import (
    REINSTATED,
    REVOKED,
    SUSPENDED,
    Revocations,
    StatusChange,
    open_revocations,
    sign_revocations,
)
from audit.statement import METRICS, SignedStatement, verify_statement

if TYPE_CHECKING:
    from tests.audit.conftest import Keys, Story
else:
    Keys = Story = object

ONE, TWO = digest_of(b"one"), digest_of(b"two")
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
TREE = Checkpoint("zegel-log/Demo", 100, bytes(32))
LOG = VerifierKey.of(TREE.origin, KEY)


def changes(*statuses: tuple[str, str]) -> Revocations:
    """Changes at the entries 10, 20, 30, ..."""
    return Revocations(
        tuple(StatusChange(10 * number, digest, status) for number, (digest, status) in enumerate(statuses, 1))
    )


def test_what_counts_is_the_order_of_the_log() -> None:
    history = changes((ONE, SUSPENDED), (ONE, REINSTATED), (ONE, REVOKED))
    for before in (0, 10, 21, 30):  # a signature in the entry of a change itself still counts
        history.check(ONE, before=before)
    for before, status, index in ((11, "suspended", 10), (20, "suspended", 10), (31, "revoked", 30)):
        with pytest.raises(CertificateError, match=f"is {status} since entry {index}"):
            history.check(ONE, before=before)
    with pytest.raises(CertificateError, match="is revoked since entry 30"):
        history.check(ONE)
    history.check(TWO)
    Revocations().check(ONE)


IMPOSSIBLE: list[tuple[str, list[tuple[str, str]], str]] = [
    ("reinstated from good", [(ONE, REINSTATED)], "is good and cannot be reinstated; possible: suspended, revoked"),
    ("suspended twice", [(ONE, SUSPENDED), (ONE, SUSPENDED)], "is suspended and cannot be suspended"),
    ("back from revoked", [(ONE, REVOKED), (ONE, REINSTATED)], "nothing, revoked is for ever"),
    ("revoked twice", [(ONE, REVOKED), (ONE, REVOKED)], "nothing, revoked is for ever"),
    ("another's suspension", [(TWO, SUSPENDED), (ONE, REINSTATED)], "is good and cannot be reinstated"),
]


@pytest.mark.parametrize(("name", "statuses", "message"), IMPOSSIBLE, ids=[case[0] for case in IMPOSSIBLE])
def test_changes_that_cannot_follow(name: str, statuses: list[tuple[str, str]], message: str) -> None:
    with pytest.raises(CertificateError, match=message):
        changes(*statuses)


def test_changes_stand_in_log_order() -> None:
    with pytest.raises(CertificateError, match="not in log order"):
        Revocations((StatusChange(9, ONE, SUSPENDED), StatusChange(9, TWO, SUSPENDED)))
    assert changes((ONE, SUSPENDED)).then(StatusChange(20, ONE, REVOKED)) == changes((ONE, SUSPENDED), (ONE, REVOKED))


# -- the signed list


def test_the_list_round_trips() -> None:
    for history in (Revocations(), changes((ONE, SUSPENDED), (TWO, REVOKED), (ONE, REINSTATED))):
        data = sign_revocations(history, TREE, KEY)
        assert open_revocations(data, LOG) == (TREE, history)
        assert sign_revocations(history, TREE, KEY) == data


def signed(text: str) -> bytes:
    return sign_note(text, TREE.origin, KEY)


HEAD = f"zegel revocations v1\n{TREE.to_text()}"
SPOILED: list[tuple[str, bytes, type[AuditError], str]] = [
    ("a checkpoint", signed(TREE.to_text()), CertificateError, "expected the line 'zegel revocations v1'"),
    ("no tree", signed("zegel revocations v1\n"), CheckpointError, "3 lines"),
    ("unknown status", signed(f"{HEAD}10 lost {ONE}\n"), CertificateError, "expected index, status and digest"),
    ("leading zero", signed(f"{HEAD}010 revoked {ONE}\n"), CertificateError, "expected index, status and digest"),
    ("further words", signed(f"{HEAD}10 revoked {ONE} x\n"), CertificateError, "expected index, status and digest"),
    (
        "empty line",
        signed(f"{HEAD}10 revoked {ONE}\n\n20 revoked {TWO}\n"),
        CertificateError,
        "expected index, status and digest",
    ),
    ("impossible", signed(f"{HEAD}10 reinstated {ONE}\n"), CertificateError, "cannot be reinstated"),
    ("order", signed(f"{HEAD}20 revoked {ONE}\n10 revoked {TWO}\n"), CertificateError, "not in log order"),
    ("beyond the tree", signed(f"{HEAD}100 revoked {ONE}\n"), CertificateError, "beyond the tree of 100"),
]


@pytest.mark.parametrize(("name", "data", "kind", "message"), SPOILED, ids=[case[0] for case in SPOILED])
def test_lists_that_are_refused(name: str, data: bytes, kind: type[AuditError], message: str) -> None:
    with pytest.raises(kind, match=message):
        open_revocations(data, LOG)


def test_a_list_counts_only_from_the_logs_key() -> None:
    data = sign_revocations(changes((ONE, REVOKED)), TREE, KEY)
    with pytest.raises(NoteError):
        open_revocations(data.replace(b"revoked", b"suspend"), LOG)
    with pytest.raises(NoteError):
        open_revocations(data, VerifierKey.of(TREE.origin, Ed25519PrivateKey.from_private_bytes(bytes(32))))
    other = Checkpoint("zegel-log/Other", 100, bytes(32))
    with pytest.raises(CertificateError, match="expected the log zegel-log/Demo"):
        open_revocations(sign_note(f"zegel revocations v1\n{other.to_text()}", TREE.origin, KEY), LOG)
    with pytest.raises(CertificateError, match="beyond the tree"):
        sign_revocations(changes((ONE, REVOKED)), Checkpoint(TREE.origin, 10, bytes(32)), KEY)


# -- in the log


def test_what_was_logged_before_stays_good(story: Story) -> None:
    story.tell()
    for who in ("hospital-a", "Bob", "Carol"):
        story.change_status(who, "revoked")
    trace = story.trace()
    assert trace.standing.state == "certified"
    assert [change.status for change in story.evidence().revocations.changes] == ["revoked"] * 3


USES: list[tuple[str, str, str]] = [
    ("a receipt", "hospital-a", r"entry \d+ \((site\.accepted|round\.completed)\)"),
    ("an approval", "Bob", r"entry \d+ \(approval\)"),
    ("a proposal", "Ada", r"entry \d+ \(release\.proposed\)"),
]


@pytest.mark.parametrize(("name", "who", "entry"), USES, ids=[case[0] for case in USES])
@pytest.mark.parametrize("status", ["suspended", "revoked"])
def test_what_is_signed_after_does_not_count(
    story: Story, keys: Keys, name: str, who: str, entry: str, status: str
) -> None:
    second = keys.person("Zoe", "Consortium", "consortium_admin")
    story.keys = type(keys)(keys.root_key, keys.root, {**keys.holders, "Zoe": second}, keys.names)

    def revoke(fields: dict[str, Any]) -> None:
        fields["story"].change_status(who, status, by="Zoe")

    story.hooks["before run"] = revoke
    with pytest.raises(TraceError, match=f"{entry}: .*{status} since entry"):
        story.tell().trace()


def test_a_suspension_taken_back(story: Story) -> None:
    def lift(fields: dict[str, Any]) -> None:
        fields["story"].change_status("hospital-a", "suspended")
        fields["story"].change_status("hospital-a", "reinstated")

    story.hooks["before run"] = lift
    assert story.tell().trace().standing.state == "certified"


BAD_CHANGES: list[tuple[str, Callable[[dict[str, Any]], None], str]] = [
    ("by an officer", lambda f: f.update(signer="Bob"), "expected role consortium_admin, got privacy_officer"),
    ("by a hospital", lambda f: f.update(signer="hospital-b"), "expected role consortium_admin, got client"),
    ("about another", lambda f: f.update(subject=digest_of(b"x")), "digest: expected"),
    ("another status", lambda f: f.update(status="suspended"), "status: expected suspended, got revoked"),
    ("of another consortium", lambda f: f.update(consortium="Other"), "expected consortium Zegel Demo"),
]


@pytest.mark.parametrize(("name", "change", "message"), BAD_CHANGES, ids=[case[0] for case in BAD_CHANGES])
def test_changes_nobody_may_make(
    story: Story, name: str, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    story.tell()
    story.hooks["signed certificate-status"] = change
    story.change_status("hospital-a", "revoked")
    with pytest.raises(TraceError, match=message):
        story.evidence()


def test_a_suspended_admin_reinstates_nobody(story: Story) -> None:
    story.tell()
    story.change_status("Ada", "suspended")
    story.change_status("Ada", "reinstated")
    with pytest.raises(TraceError, match=r"entry \d+ \(certificate\.status\): .*is suspended since entry"):
        story.evidence()


def test_a_live_check_asks_for_now(told: Story) -> None:
    reported = next(entry for entry in told.entries if entry.kind == "metrics.reported")
    statement = SignedStatement.from_json(reported.body["metrics"])
    evidence = told.evidence()

    def verified(revocations: Revocations | None) -> str:
        return verify_statement(
            statement,
            evidence.certificates,
            evidence.root,
            expected_type=METRICS,
            consortium="Zegel Demo",
            roles=None,
            revocations=revocations,
        ).name

    assert verified(None) == verified(Revocations()) == verified(changes((TWO, REVOKED))) == "hospital-a"
    with pytest.raises(CertificateError, match="is revoked since entry 10"):
        verified(changes((statement.certificate, REVOKED)))
    with pytest.raises(StatementError):
        verify_statement(statement, {}, evidence.root, expected_type=METRICS, consortium="Zegel Demo", roles=None)
