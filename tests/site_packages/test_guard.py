"""The guard: each reason to refuse, found before the manifest, the data or the ledger is touched."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st

from audit.canonical import format_time
from audit.certificates import (
    CONSORTIUM_ADMIN,
    PRIVACY_OFFICER,
    RELEASE_MANAGER,
    certificate_digest,
    certificate_pem,
    issue_certificate,
)
from audit.passkey import challenge_for
from audit.statement import APPROVAL, SignedStatement, sign_statement, statement_bytes
from jobs.errors import PlanError, SiteRefused
from jobs.plan import Plan
from privacy.errors import LedgerError
from privacy.ledger import Ledger
from site_packages.guard import CODES as REASONS
from site_packages.guard import Admitted, GuardRefusal, check_plan
from site_packages.limits import TRAINING, VALIDATION, Limits
from site_packages.participant import Participant
from site_packages.simulation import OFFICER, Keyring, Simulation, approve_plan, make_keyring
from tests.jobs.small_federation import (
    CODES,
    NOW,
    SITES,
    clock,
    plan_values,
    simulation,
    small_plan,
    unprotected_plan,
)
from tests.passkey import SoftwarePasskey

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def keyring() -> Keyring:
    return make_keyring("Delta", SITES, now=NOW)


def approval(keyring: Keyring, plan: Plan, *, role: str = PRIVACY_OFFICER, **changes: Any) -> dict[str, Any]:
    """An approval of a plan; `signer` signs it instead of the officer."""
    key, certificate = changes.pop("signer", keyring.officer)
    statement = {
        "type": APPROVAL,
        "consortium": "Delta",
        "time": format_time(NOW),
        "subject": {"kind": "plan", "digest": plan.hash},
        "decision": "approve",
        "meaning": "It may be carried out.",
        "reason": None,
        "name": "person-00c0ffee00c0ffee",
        "organisation": "Delta",
        "role": role,
        **changes,
    }
    return sign_statement(statement, key, certificate).to_json()


def person(keyring: Keyring, role: str, *, minutes: tuple[int, int] = (-30, 30)) -> tuple[Any, Any]:
    key = ec.generate_private_key(ec.SECP256R1())
    first, last = (NOW + timedelta(minutes=each) for each in minutes)
    certificate = issue_certificate(
        key.public_key(), name="person-00c0ffee00c0ffee", organisation="Delta", role=role, root_cert=keyring.root,
        root_key=keyring.root_key, not_before=first, not_after=last,
    )  # fmt: skip
    return key, certificate


def passkey_approval(keyring: Keyring, plan: Plan) -> tuple[dict[str, Any], Any]:
    """An officer's approval, signed by a passkey, and its certificate."""
    passkey = SoftwarePasskey()
    first, last = NOW - timedelta(minutes=30), NOW + timedelta(minutes=30)
    certificate = issue_certificate(
        passkey.public_key, name="person-00c0ffee00c0ffee", organisation="Delta", role=PRIVACY_OFFICER,
        root_cert=keyring.root, root_key=keyring.root_key, not_before=first, not_after=last,
        relying_party=passkey.relying_party,
    )  # fmt: skip
    statement = SignedStatement.from_json(approve_plan(keyring, plan, now=NOW)).statement
    signature, assertion = passkey.assertion(challenge_for(statement_bytes(statement)))
    return SignedStatement(statement, certificate_digest(certificate), signature, assertion).to_json(), certificate


@dataclass(frozen=True)
class Ask:
    """One call of the guard; `data` and the others follow from the plan unless given."""

    plan: Plan
    approvals: list[dict[str, Any]] | None = None
    extra: tuple[Any, ...] = ()  # further certificates sent along
    data: bytes | None = None
    expected_hash: str | None = None
    site: str = "amstel"
    consortium: str = "Delta"
    limits: Limits = field(default_factory=Limits)
    known_codes: frozenset[str] | None = None
    root: Any = None
    installed: frozenset[str] = frozenset()


def check(keyring: Keyring, ask: Ask) -> Admitted:
    approvals = [approve_plan(keyring, ask.plan, now=NOW)] if ask.approvals is None else ask.approvals
    certificates: Mapping[str, Any] = {
        **keyring.certificates,
        **{certificate_digest(certificate): certificate for certificate in ask.extra},
    }
    return check_plan(
        ask.plan.to_bytes() if ask.data is None else ask.data,
        approvals,
        certificates,
        expected_hash=ask.plan.hash if ask.expected_hash is None else ask.expected_hash,
        site=ask.site,
        consortium=ask.consortium,
        root=keyring.root if ask.root is None else ask.root,
        limits=ask.limits,
        known_codes=ask.known_codes,
        installed_encoders=ask.installed,
        now=NOW,
    )


PLAN = small_plan(evaluation_sites=("amstel", "zenne"))
EVALUATION = plan_values()["evaluation"]
STRICT = Limits()
MODEL = "sha256:" + 64 * "d"
TRANSFORMER = {
    "kind": "transformer", "model": "small", "digest": MODEL, "features": 384, "max_tokens": 64, "chunks": 2,
    "pooling": "mean",
}  # fmt: skip
COMBINED = {
    "kind": "combined",
    "parts": [{"share": 0.7, "encoder": PLAN.encoder}, {"share": 0.3, "encoder": TRANSFORMER}],
}
READERS = replace(STRICT, encoders=("hashed-ngrams", "transformer", "combined"))


def local_plan(**changes: Any) -> Plan:
    """Each hospital adds all of the noise to two local steps a round."""
    noise = changes.pop("noise_multiplier", 3.0)
    values = {"noise_mode": "local", "local_steps": 2, "noise_multiplier": noise, "epsilon": 50.0, **changes}
    return small_plan(**values)


def altered(plan: Plan) -> bytes:
    return plan.to_bytes().replace(b'"rounds":2', b'"rounds":9')


CASES: dict[str, tuple[str, Callable[[], Ask], str]] = {
    "no JSON": ("plan-malformed", lambda: Ask(PLAN, data=b"{"), "not JSON"),
    "a space in it": ("plan-malformed", lambda: Ask(PLAN, data=PLAN.to_bytes() + b" "), "canonical form"),
    "another task in it": (
        "plan-malformed",
        lambda: Ask(PLAN, data=PLAN.to_bytes().replace(b"icd_coding", b"icd_chatty")),
        "task: expected 'icd_coding'",
    ),
    "a sum that wraps": (
        "plan-malformed", lambda: Ask(small_plan(ring_bits=32, epsilon=5.0)), "more than the 2^32 ring",
    ),
    "an encoder with an odd width": (
        "plan-malformed", lambda: Ask(small_plan(encoder={**PLAN.encoder, "features": 255})), "power of two",
    ),
    "more dropouts than the threshold allows": (
        "plan-malformed", lambda: Ask(small_plan(sites=(*SITES, "vecht"), dropouts=2)), "allowed_dropouts",
    ),
    "an unknown optimiser": ("plan-malformed", lambda: Ask(small_plan(optimiser={"adam": 1})), "adam"),
    "an evaluation without noise": (
        "plan-malformed", lambda: Ask(small_plan(evaluation={**EVALUATION, "noise_multiplier": 0})), "positive number",
    ),
    "altered bytes": ("plan-differs", lambda: Ask(PLAN, data=altered(PLAN)), f"expected {PLAN.hash}, got sha256:"),
    "the hash of another plan": ("plan-differs", lambda: Ask(PLAN, expected_hash="sha256:" + 64 * "0"), "sha256:0000"),
    "nobody approved": ("not-approved", lambda: Ask(PLAN, approvals=[]), "no approval came with the plan"),
    "another consortium's plan": ("wrong-consortium", lambda: Ask(PLAN, consortium="Echo"), "expected 'Echo'"),
    "a hospital it does not name": ("not-invited", lambda: Ask(PLAN, site="maas"), "maas is in neither list"),
    "a task switched off": ("task-not-allowed", lambda: Ask(PLAN, limits=replace(STRICT, tasks=())), "icd_coding"),
    "an encoder switched off": (
        "encoder-not-allowed", lambda: Ask(PLAN, limits=replace(STRICT, encoders=("bert",))), "allowed: bert",
    ),
    "a part of the encoder switched off": (
        "encoder-not-allowed",
        lambda: Ask(small_plan(encoder=COMBINED), limits=replace(READERS, encoders=("hashed-ngrams", "combined"))),
        "transformer; allowed: hashed-ngrams, combined",
    ),
    "an encoder of no known kind": (
        "encoder-not-allowed", lambda: Ask(small_plan(encoder={"kind": "oracle"})), "oracle; allowed",
    ),
    "a model that is not installed": (
        "encoder-not-installed", lambda: Ask(small_plan(encoder=TRANSFORMER), limits=READERS), f"{MODEL}; its operator",
    ),
    "a model of a part that is not installed": (
        "encoder-not-installed",
        lambda: Ask(small_plan(encoder=COMBINED), limits=READERS, installed=frozenset({"sha256:" + 64 * "e"})),
        f"{MODEL}; its operator",
    ),
    "little noise of its own": (
        "own-noise-too-weak",
        lambda: Ask(PLAN, limits=replace(STRICT, maximum_epsilon_against_everyone=2.5)),
        "epsilon at most 2.5 if the server and all other hospitals work together, this plan's is",
    ),
    "local noise under the floor": (
        "noise-too-weak",
        lambda: Ask(local_plan(noise_multiplier=2.9), limits=replace(STRICT, minimum_noise_multiplier=3.0)),
        "at least 3, got 2.9",
    ),
    "local steps understated": ("epsilon-understated", lambda: Ask(local_plan(epsilon=1.0)), "it says 1, this hosp"),
    "local noise against everybody else": (
        "own-noise-too-weak",
        lambda: Ask(local_plan(), limits=replace(STRICT, maximum_epsilon_against_everyone=0.5)),
        "epsilon at most 0.5",
    ),
    "codes it has no table for": (
        "label-not-known", lambda: Ask(PLAN, known_codes=frozenset({"H25", "M17"})), "2 codes, the first I10",
    ),
    "few hospitals": (
        "too-few-hospitals", lambda: Ask(PLAN, limits=replace(STRICT, minimum_sites=5)), "at least 5, got 4",
    ),
    "few hospitals with a dropout": (
        "too-few-hospitals",
        lambda: Ask(small_plan(dropouts=1), limits=replace(STRICT, minimum_sites=4)),
        "at least 4, got 3",
    ),
    "many rounds": ("too-many-rounds", lambda: Ask(PLAN, limits=replace(STRICT, maximum_rounds=2)), "at most 2, got 3"),
    "a large clip": (
        "clip-too-large", lambda: Ask(PLAN, limits=replace(STRICT, maximum_l2_clip_norm=0.4)), "at most 0.4, got 0.5",
    ),
    "no noise at all": ("unprotected", lambda: Ask(unprotected_plan()), "epsilon is null"),
    "little noise": (
        "noise-too-weak", lambda: Ask(PLAN, limits=replace(STRICT, minimum_noise_multiplier=3.5)), "at least 3.5",
    ),
    "little noise on the mean": (
        "noise-too-weak",
        lambda: Ask(small_plan(feature_mean_noise_multiplier=0.29)),
        "at least 0.3, got 0.29",
    ),
    "little noise on the metrics": (
        "noise-too-weak",
        lambda: Ask(PLAN, limits=replace(STRICT, minimum_noise_multiplier=2.5)),
        "its metrics: at least 2.5, got 2",
    ),
    "a large delta": ("delta-too-large", lambda: Ask(PLAN, limits=replace(STRICT, maximum_delta=1e-6)), "most 1e-06"),
    "a large delta of the metrics": (
        "delta-too-large",
        lambda: Ask(small_plan(evaluation_sites=("amstel",), evaluation={**EVALUATION, "delta": 0.5})),
        "its metrics: at most 0.0001, got 0.5",
    ),
    "epsilon understated by a hundredth": (
        "epsilon-understated", lambda: Ask(small_plan(epsilon=PLAN.epsilon - 0.01)), "it says",  # type: ignore[operator]
    ),
    "epsilon of the metrics understated": (
        "epsilon-understated",
        lambda: Ask(
            small_plan(
                evaluation_sites=("amstel",), evaluation={**EVALUATION, "epsilon": EVALUATION["epsilon"] - 0.01}
            )
        ),
        "its metrics say",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_what_is_refused(case: str, keyring: Keyring) -> None:
    code, ask, detail = CASES[case]
    with pytest.raises(GuardRefusal) as refused:
        check(keyring, ask())
    assert refused.value.code == code
    assert refused.value.detail.startswith(REASONS[code] + ": ")
    assert detail in refused.value.detail


def test_the_table_reaches_every_code() -> None:
    """All but what the ledger finds, see below, and the list of revocations, which is read before."""
    later = {"over-budget", "ledger-rolled-back", "revocations-unknown"}
    assert {code for code, _, _ in CASES.values()} == set(REASONS) - later


PASSING: dict[str, Ask] = {
    "a plan within the limits": Ask(PLAN),
    "for a hospital that only evaluates": Ask(PLAN, site="zenne"),
    "codes it knows, and more": Ask(PLAN, known_codes=frozenset({*CODES, "Z99"})),
    "at every limit": Ask(
        PLAN,
        limits=Limits(
            minimum_sites=4,
            maximum_rounds=3,
            maximum_l2_clip_norm=0.5,
            minimum_noise_multiplier=2.0,
            maximum_delta=1e-5,
        ),
    ),
    "an encoder whose model is installed": Ask(
        small_plan(encoder=COMBINED), limits=READERS, installed=frozenset({MODEL, "sha256:" + 64 * "e"})
    ),
    "enough noise of its own": Ask(PLAN, limits=replace(STRICT, maximum_epsilon_against_everyone=50.0)),
    "local noise at the floor": Ask(local_plan(), limits=replace(STRICT, minimum_noise_multiplier=2.0)),
    "no noise on public data": Ask(unprotected_plan(), limits=Limits(data_is_public=True)),
    "more epsilon than it costs": Ask(small_plan(epsilon=50.0)),
    # Each hospital asks only what concerns it.
    "weak metrics asked of others": Ask(
        small_plan(evaluation_sites=("zenne",), evaluation={**EVALUATION, "delta": 0.5}), site="amstel"
    ),
    "training epsilon understated for others": Ask(small_plan(evaluation_sites=("zenne",), epsilon=0.1), site="zenne"),
}


@pytest.mark.parametrize("case", PASSING)
def test_what_passes(case: str, keyring: Keyring) -> None:
    ask = PASSING[case]
    admitted = check(keyring, ask)
    assert (admitted.plan, admitted.plan_hash) == (ask.plan, ask.plan.hash)
    assert [identity.name for identity in admitted.approvers] == [OFFICER]


def test_an_approval_by_passkey_counts(keyring: Keyring) -> None:
    approved, certificate = passkey_approval(keyring, PLAN)
    assert [each.role for each in check(keyring, Ask(PLAN, [approved], (certificate,))).approvers] == [PRIVACY_OFFICER]
    bare = {name: value for name, value in approved.items() if name != "passkey"}
    with pytest.raises(GuardRefusal, match="expected an assertion"):
        check(keyring, Ask(PLAN, [bare], (certificate,)))


def test_approvals_that_do_not_count(keyring: Keyring) -> None:
    other = small_plan(name="other")
    expired = person(keyring, PRIVACY_OFFICER, minutes=(-50, -1))
    early = person(keyring, PRIVACY_OFFICER, minutes=(1, 20))
    admin, manager = person(keyring, CONSORTIUM_ADMIN), person(keyring, RELEASE_MANAGER)
    stranger = make_keyring("Delta", SITES, now=NOW)
    good = approval(keyring, PLAN)
    forged = {**good, "statement": {**good["statement"], "reason": "sha256:" + "0" * 64}}
    cases: list[tuple[dict[str, Any], tuple[Any, ...], str]] = [
        (approval(keyring, other), (), "signed for {'kind': 'plan'"),
        (
            approval(keyring, PLAN, subject={"kind": "release", "digest": PLAN.hash}),
            (),
            "signed for {'kind': 'release'",
        ),
        (approval(keyring, PLAN, signer=admin), (admin[1],), "expected role privacy_officer, got consortium_admin"),
        (approval(keyring, PLAN, signer=manager), (manager[1],), "expected role privacy_officer, got release_manager"),
        (approval(keyring, PLAN, signer=keyring.sites["amstel"]), (), "expected role privacy_officer, got client"),
        (approval(keyring, PLAN, signer=expired), (expired[1],), "certificate of person-00c0ffee00c0ffee"),
        (approval(keyring, PLAN, signer=early), (early[1],), "certificate of person-00c0ffee00c0ffee"),
        (approval(keyring, PLAN, signer=admin), (), "which is not known here"),
        (approval(stranger, PLAN), (stranger.officer[1],), f"certificate of {OFFICER}"),
        (approval(keyring, PLAN, consortium="Echo"), (), "expected consortium Delta"),
        (approval(keyring, PLAN, type="zegel/refusal/v1"), (), "expected type zegel/approval/v1"),
        (forged, (), f"the signature is not {OFFICER}'s"),
        ({"statement": {}}, (), "expected exactly"),
    ]
    for value, extra, detail in cases:
        with pytest.raises(GuardRefusal) as refused:
            check(keyring, Ask(PLAN, approvals=[value], extra=extra))
        assert refused.value.code == "not-approved"
        assert detail in refused.value.detail
        # Beside a good one it does no harm.
        assert check(keyring, Ask(PLAN, approvals=[value, good], extra=extra)).approvers


@pytest.mark.parametrize("decision", ["refuse", "maybe", None])
def test_a_refusal_by_an_officer_stands_beside_any_approval(decision: str | None, keyring: Keyring) -> None:
    second = person(keyring, PRIVACY_OFFICER)
    good = approval(keyring, PLAN)
    against = approval(keyring, PLAN, signer=second, decision=decision)
    for approvals in ([against], [good, against], [against, good]):
        with pytest.raises(GuardRefusal, match=f"person-00c0ffee00c0ffee decided {decision!r}") as refused:
            check(keyring, Ask(PLAN, approvals=approvals, extra=(second[1],)))
        assert refused.value.code == "not-approved"


def test_another_root_than_the_installed_one_vouches_for_nobody(keyring: Keyring) -> None:
    other = make_keyring("Delta", SITES, now=NOW)
    with pytest.raises(GuardRefusal, match="no valid approval"):
        check(keyring, Ask(PLAN, root=other.root))


# -- before anything is touched ----------------------------------------------------------------------------------


class Untouchable:
    """Stands for a ledger, a memory or data that must not be used."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"touched {name}")

    def __call__(self, *_: Any) -> Any:
        raise AssertionError("was called")


def guarded(keyring: Keyring, ask: Ask) -> Participant:
    key, certificate = keyring.sites["amstel"]
    nothing: Any = Untouchable()
    return Participant(
        site=ask.site,
        consortium=ask.consortium,
        key=key,
        certificate=certificate,
        root=keyring.root,
        limits=ask.limits,
        ledger=nothing,
        memory=nothing,
        outbox=nothing,
        manifest=nothing,
        load_work=nothing,
        known_codes=ask.known_codes,
        installed_encoders=ask.installed,
        random_bytes=nothing,
        clock=clock,
    )


@pytest.mark.parametrize("case", CASES)
def test_a_refusal_touches_neither_manifest_nor_data_nor_ledger(case: str, keyring: Keyring) -> None:
    code, make, detail = CASES[case]
    ask = make()
    approvals = [approve_plan(keyring, ask.plan, now=NOW)] if ask.approvals is None else ask.approvals
    request = {
        "run_id": "run-1",
        "plan_hash": ask.plan.hash if ask.expected_hash is None else ask.expected_hash,
        "plan": ask.plan.to_bytes() if ask.data is None else ask.data,
        "approvals": approvals,
        "certificates": [certificate_pem(certificate) for certificate in keyring.certificates.values()],
    }
    with pytest.raises(SiteRefused) as refused:
        guarded(keyring, ask).handle("join", request)
    assert refused.value.code == code
    signed = SignedStatement.from_json(refused.value.refusal)
    assert (signed.statement["code"], signed.statement["plan_hash"]) == (code, request["plan_hash"])
    assert detail in signed.statement["reason"]


def test_the_touchstone_works(keyring: Keyring) -> None:
    """A plan that passes does reach the ledger: the test above can fail."""
    ask = Ask(PLAN)
    request = {
        "run_id": "run-1",
        "plan_hash": PLAN.hash,
        "plan": PLAN.to_bytes(),
        "approvals": [approve_plan(keyring, PLAN, now=NOW)],
        "certificates": [certificate_pem(certificate) for certificate in keyring.certificates.values()],
    }
    with pytest.raises(AssertionError, match="touched reserve"):
        guarded(keyring, ask).handle("join", request)


@st.composite
def asked_of(draw: st.DrawFn) -> tuple[dict[str, Any], Limits, bytes]:
    """Some plan, some limits, and bytes that may not be the plan's."""
    changes = draw(
        st.fixed_dictionaries(
            {},
            optional={
                "rounds": st.integers(1, 600),
                "noise_multiplier": st.sampled_from([0.1, 0.3, 3.0]),
                "epsilon": st.sampled_from([0.1, 2.5, 40.0]),
                "delta": st.sampled_from([1e-9, 1e-5, 1e-3]),
                "l2_clip_norm": st.sampled_from([0.5, 11.0]),
                "dropouts": st.integers(0, 2),
                "encoder": st.sampled_from([PLAN.encoder, TRANSFORMER, COMBINED, {"kind": "oracle"}]),
                "evaluation_sites": st.sampled_from([(), ("amstel",), ("zenne",)]),
            },
        )
    )
    limits = draw(
        st.builds(
            Limits,
            minimum_sites=st.integers(3, 5),
            maximum_rounds=st.sampled_from([2, 500]),
            encoders=st.sampled_from([(), ("hashed-ngrams",), READERS.encoders]),
        )
    )
    return changes, limits, draw(st.sampled_from([b"", b" ", b"x", b"}"]))


@settings(derandomize=True, max_examples=40, deadline=None)
@given(asked=asked_of(), approved=st.booleans(), site=st.sampled_from(["amstel", "maas"]))
def test_nothing_is_read_before_the_guard_and_the_ledger_agreed(
    asked: tuple[dict[str, Any], Limits, bytes], approved: bool, site: str, keyring: Keyring
) -> None:
    """Whatever is asked: it is refused with a code, or the first thing touched is the ledger's reservation."""
    changes, limits, tail = asked
    try:
        plan = small_plan(**changes)
    except PlanError:
        return  # no such plan can be written
    request = {
        "run_id": "run-1",
        "plan_hash": plan.hash,
        "plan": plan.to_bytes() + tail,
        "approvals": [approve_plan(keyring, plan, now=NOW)] if approved else [],
        "certificates": [certificate_pem(certificate) for certificate in keyring.certificates.values()],
    }
    with pytest.raises((SiteRefused, AssertionError)) as ended:
        guarded(keyring, Ask(plan, site=site, limits=limits)).handle("join", request)
    if isinstance(ended.value, SiteRefused):
        assert ended.value.code in REASONS
    else:
        assert str(ended.value) == "touched reserve"
        assert approved
        assert not tail
        assert site == "amstel"


# -- the budget --------------------------------------------------------------------------------------------------


def joined(whole: Simulation, site: str) -> Any:
    return whole.participants[site].handle(
        "join",
        {
            "run_id": whole.run_id,
            "plan_hash": whole.plan.hash,
            "plan": whole.plan.to_bytes(),
            "approvals": [approve_plan(whole.keyring, whole.plan, now=NOW)],
            "certificates": [certificate_pem(certificate) for certificate in whole.keyring.certificates.values()],
        },
    )


@pytest.mark.parametrize("short", [TRAINING, VALIDATION])
def test_over_budget_leaves_nothing_reserved_in_either_cohort(short: str, tmp_path: Path) -> None:
    whole = simulation(tmp_path, PLAN)
    ledger = whole.ledgers["amstel"]
    ledger.set_budget(short, epsilon=0.5, delta=1e-5, officer="Officer", reason="nearly used up")
    with pytest.raises(SiteRefused, match=rf"does not cover the plan: cohort '{short}'") as refused:
        joined(whole, "amstel")
    assert refused.value.code == "over-budget"
    for cohort in ledger.summary().cohorts:
        assert (cohort.reserved_rdp, cohort.spent) == (0, 0)
        assert not any(run.is_open for run in cohort.runs)
    # With the budget raised, a new run is admitted.
    ledger.set_budget(short, epsilon=50.0, delta=1e-5, officer="Officer", reason="raised")
    whole.run_id = "run-20260102T000000Z-000000"
    assert joined(whole, "amstel")["acceptance"]["statement"]["epsilon_reserved"] == PLAN.epsilon
    assert all(cohort.reserved_rdp > 0 for cohort in ledger.summary().cohorts)


def test_a_second_run_does_not_fit_beside_the_first(tmp_path: Path) -> None:
    """What one run reserved is not there for another one, though nothing was spent yet."""
    assert PLAN.epsilon is not None
    whole = simulation(tmp_path, small_plan(), budget=(1.5 * PLAN.epsilon, 1e-5))
    joined(whole, "amstel")
    other = replace(whole.plan, name="second")
    with pytest.raises(LedgerError, match="cohort 'training'"):
        whole.ledgers["amstel"].reserve("run-2", TRAINING, other.training_events(), plan_hash=other.hash)


def test_a_ledger_that_was_put_back_is_refused_by_its_code(tmp_path: Path) -> None:
    """Database and anchor are put back together; only what the hospital signed before tells."""
    whole = simulation(tmp_path, PLAN)
    path, given = tmp_path / "amstel-again.db", tmp_path / "given-head.json"
    ledger = Ledger.create(path, site="amstel", clock=clock, given_path=given)
    for cohort in (TRAINING, VALIDATION):
        ledger.set_budget(cohort, epsilon=50.0, delta=1e-5, officer="Officer", reason="test")
    copies = {each: each.read_bytes() for each in (path, path.with_name(f"{path.name}.anchor"))}
    whole.participants["amstel"]._ledger = ledger
    signed = joined(whole, "amstel")["acceptance"]["statement"]
    assert json.loads(given.read_bytes())["head"] == signed["ledger_head"] == ledger.head
    for each, content in copies.items():
        each.write_bytes(content)
    whole.participants["amstel"]._ledger = Ledger.unread(path, clock=clock, given_path=given)
    whole.run_id = "run-20260102T000000Z-000000"
    with pytest.raises(SiteRefused, match="zegel site recover-ledger") as refused:
        joined(whole, "amstel")
    assert refused.value.code == "ledger-rolled-back"
    assert str(tmp_path) not in json.dumps(refused.value.refusal)
    # The officer declares the loss and sets the budgets again: the next run is admitted.
    recovered = Ledger.recover(path, officer="Officer", reason="disk", clock=clock, given_path=given)
    for cohort in (TRAINING, VALIDATION):
        recovered.set_budget(cohort, epsilon=50.0, delta=1e-5, officer="Officer", reason="reviewed")
    assert joined(whole, "amstel")["acceptance"]["statement"]["ledger_head"] == recovered.head


def test_a_hospital_without_a_budget_refuses(tmp_path: Path) -> None:
    whole = simulation(tmp_path, PLAN)
    ledger = Ledger.create(tmp_path / "new.db", site="amstel", clock=clock)
    participant = whole.participants["amstel"]
    participant._ledger = ledger
    with pytest.raises(SiteRefused, match="has no budget") as refused:
        joined(whole, "amstel")
    assert refused.value.code == "over-budget"
