"""The trace: a true story is told back, and each forgery is found and named."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from audit.canonical import digest_of, format_time
from audit.errors import AuditError, ReleaseError, TraceError
from audit.gates import Gate
from audit.release import Policy
from audit.signing_keys import generate_person_key
from tests.audit.conftest import pseudonym

if TYPE_CHECKING:
    from tests.audit.conftest import Keys, Story
else:
    Keys = Story = object

SITES = ["hospital-a", "hospital-b", "hospital-c"]
OTHER = "sha256:" + "0" * 64
Hook = Callable[[dict[str, Any]], Any]


def test_the_story_is_told_back(told: Story) -> None:
    trace = told.trace()
    assert trace.consortium == "Zegel Demo"
    assert (trace.release, trace.version) == ("2027.1", digest_of(b"model bytes"))
    assert (trace.epsilon, trace.delta, trace.accountant) == (1.5, 1e-6, "pld")
    assert trace.proposer.name == pseudonym("Ada")
    assert [a.approver.name for a in trace.approvals] == [pseudonym("Bob"), pseudonym("Carol")]
    assert [(g.name, g.value, g.detail) for g in trace.gates] == [
        ("micro_f1@every-site", 0.7, "hospital-d's, the worst of 4"),
        ("epsilon", 1.5, "the run's"),
    ]
    assert trace.gate_set.set_by.name == pseudonym("Carol")
    assert trace.gate_set.index < trace.run.started_index
    assert (trace.standing.state, trace.standing.predecessor, trace.predecessor) == ("certified", None, None)
    assert [m.site for m in trace.metrics] == [*SITES, "hospital-d"]
    run = trace.run
    assert [h.site for h in run.hospitals] == SITES
    assert [h.rounds_joined for h in run.hospitals] == [3, 3, 2]
    assert [h.rounds_dropped for h in run.hospitals] == [0, 0, 1]
    assert run.hospitals[0].admissions == 1200
    assert run.hospitals[0].patients is None
    assert [r.number for r in run.rounds] == [1, 2, 3]
    assert run.rounds[0].version_in == run.initial_version
    assert [r.version_in for r in run.rounds[1:]] == [r.version_out for r in run.rounds[:-1]]
    assert run.rounds[-1].version_out == trace.version
    assert [a.approver.name for a in run.plan.approvals] == [pseudonym("Bob")]
    assert sum(len(r.receipts) for r in run.rounds) == 8


def test_a_version_that_grew_out_of_an_earlier_run(story: Story) -> None:
    first = story
    first.found()
    first.run()
    second = copy(first)
    second.initial_version, second.model = first.version, b"second model"
    second.run_id = "run-20261123T050000Z-abcdef"
    second.run()
    second.release()
    trace = second.trace()
    assert [run.run_id for run in trace.runs] == [first.run_id, second.run_id]
    assert trace.runs[1].initial_version == trace.runs[0].version
    second.artifacts.pop(trace.runs[0].plan.plan_hash)
    with pytest.raises(TraceError, match="its bytes are not there"):
        second.trace()


def only(number: int, change: Hook) -> Hook:
    """Applies `change` to one round only."""

    def hook(fields: dict[str, Any]) -> None:
        if fields["round"] == number:
            change(fields)

    return hook


def of(site: str, change: Hook) -> Hook:
    """Applies `change` to one hospital's statement only."""

    def hook(fields: dict[str, Any]) -> None:
        if fields["site"] == site:
            change(fields)

    return hook


def sets(**values: Any) -> Hook:
    return lambda fields: fields.update(values)


def skips(fields: dict[str, Any]) -> None:
    fields["skip"] = True


FORGERIES: list[tuple[str, dict[str, Hook], str]] = [
    # the chain of versions
    (
        "version_in of another version",
        {"round.completed": only(2, sets(version_in=OTHER))},
        "version_in: expected",
    ),
    (
        "version_out leads elsewhere",
        {"round.completed": only(2, sets(version_out=OTHER))},
        "version_in: expected",
    ),
    ("a round missing", {"round.completed": only(2, skips)}, "expected round 2, got round 3"),
    ("the last round missing", {"round.completed": only(3, skips)}, "rounds: expected 2, got 3"),
    ("a round numbered twice", {"round.completed": only(2, sets(round=1))}, "expected round 2, got round 1"),
    ("run starts elsewhere", {"run.started": sets(initial_version=OTHER)}, "initial_version: expected"),
    ("run ends elsewhere", {"run.finished": sets(version=OTHER)}, "version: expected"),
    ("rounds miscounted", {"run.finished": sets(rounds=4)}, "rounds: expected 3, got 4"),
    ("version from other rounds", {"version.created": sets(rounds=[2, 3])}, "rounds: expected"),
    ("version with another parent", {"version.created": sets(parents=[OTHER])}, "parents: expected"),
    ("version is not the model", {"version.created": sets(model=OTHER)}, "model: expected"),
    ("version never created", {"version.created": skips}, "no version.created entry made it"),
    ("run never finished", {"run.finished": skips}, "expected exactly one run.finished entry, got 0"),
    ("run never started", {"run.started": skips}, "expected exactly one run.started entry, got 0"),
    # receipts
    ("receipt of another round", {"signed receipt": only(2, sets(round=3))}, "round: expected 2, got 3"),
    ("receipt of another run", {"signed receipt": sets(run_id="run-x")}, "run_id: expected"),
    ("receipt of another plan", {"signed receipt": sets(plan_hash=OTHER)}, "plan_hash: expected"),
    (
        "receipt of another version",
        {"signed receipt": only(3, sets(version_in=OTHER))},
        "version_in: expected",
    ),
    (
        "receipt of unknown data",
        {"signed receipt": sets(manifest=OTHER)},
        "expected the data manifest of its acc",
    ),
    (
        "receipt of another consortium",
        {"signed receipt": sets(consortium="Other")},
        "expected consortium Zegel Demo",
    ),
    (
        "receipt signed by another",
        {"signed receipt": of("hospital-a", sets(signer="hospital-b"))},
        "by hospital-b",
    ),
    ("receipt signed by a person", {"signed receipt": sets(signer="Bob")}, "expected role client"),
    ("receipt dated later", {"signed receipt": sets(time="2026-11-22T06:00:00Z")}, "after it was logged"),
    (
        "receipt of one that dropped out",
        {"round.completed": only(1, sets(participants=SITES[:2], dropped=SITES[2:]))},
        "hospital-c, which is not among the participants",
    ),
    (
        "participant without receipt",
        {"round.completed": only(2, sets(participants=SITES, dropped=[]))},
        "expected one receipt of each",
    ),
    (
        "receipt twice",
        {"round.completed": only(1, lambda f: f["receipts"].append(f["receipts"][0]))},
        "expected one receipt of each",
    ),
    (
        "both there and not",
        {"round.completed": only(1, sets(dropped=SITES[:1]))},
        "both took part and dropped out",
    ),
    ("stranger dropped", {"round.completed": only(1, sets(dropped=["x"]))}, "x is not part of the run"),
    (
        "too few for the noise",
        {"plan": sets(dropouts=0)},
        "expected at least 3 participants for the plan's noise, got 2",
    ),
    # hospitals
    ("never accepted", {"site.accepted": lambda f: _skip_site(f, "acceptance")}, "without having accepted"),
    ("accepted another plan", {"signed acceptance": sets(plan_hash=OTHER)}, "plan_hash: expected"),
    ("accepted another run", {"signed acceptance": sets(run_id="run-x")}, "run_id: expected"),
    ("accepted by another", {"signed acceptance": sets(signer="hospital-d")}, "by hospital-d"),
    (
        "data never announced",
        {"site.manifest": lambda f: _skip_site(f, "manifest")},
        "did not announce before",
    ),
    ("data announced by another", {"signed data-manifest": sets(signer="hospital-d")}, "by hospital-d"),
    ("run with a stranger", {"run.started": sets(sites=[*SITES, "hospital-d"])}, "the plan does not name it"),
    (
        "run without one",
        {"run.started": sets(sites=SITES[:2])},
        "hospital-c is not part of the run",
    ),
    # the plan
    (
        "plan not approved",
        {"approval": lambda f: _skip_subject(f, "plan")},
        "expected approval by privacy_officer",
    ),
    ("plan refused", {"signed approval": lambda f: _refuse(f, "plan")}, f"refused by {pseudonym('Bob')}"),
    (
        "plan approved by another role",
        {"signed approval": lambda f: _as_carol(f, "plan")},
        "by privacy_officer",
    ),
    ("approval in another's name", {"signed approval": sets(name="Zoe")}, "the statement names Zoe"),
    ("approval by a hospital", {"signed approval": sets(signer="hospital-a")}, "expected role authority or"),
    ("plan never proposed", {"plan.proposed": skips}, "expected exactly one plan.proposed entry, got 0"),
    (
        "plan of another consortium",
        {"plan": sets(consortium="Other")},
        "expected consortium Zegel Demo, got Other",
    ),
    ("plan without epsilon", {"plan": lambda f: f.pop("epsilon")}, "missing epsilon"),
    ("plan for fewer rounds", {"plan": sets(rounds=2)}, "the plan allows 2 rounds, the log holds 3"),
    ("plan for less epsilon", {"plan": sets(epsilon=1.4)}, "epsilon: the plan allows 1.4, got 1.5"),
    ("plan for less delta", {"plan": sets(delta=1e-7)}, "delta: the plan allows 1e-07, got 1e-06"),
    ("plan with another accountant", {"plan": sets(accountant="rdp")}, "accountant: expected rdp, got pld"),
    (
        "plan proposed by an officer",
        {"signed proposal": lambda f: _propose_as(f, "plan", "Bob")},
        "expected role consortium_admin, got privacy_officer",
    ),
    ("plan proposed for another", {"signed proposal": sets(name="Zoe")}, "the statement names Zoe"),
    (
        "proposal of another plan",
        {"signed proposal": sets(subject={"kind": "plan", "digest": OTHER})},
        "proposal's subject: expected",
    ),
    # the release
    (
        "epsilon understated",
        {"release statement": sets(epsilon=1.0)},
        "epsilon: the log says 1.5, the release",
    ),
    ("delta understated", {"release statement": sets(delta=0.0)}, "delta: the log says"),
    ("site left out", {"release statement": sets(sites=("hospital-a",))}, "sites: the log says"),
    ("site made up", {"release statement": sets(sites=(*SITES, "hospital-x"))}, "sites: the log says"),
    ("another run", {"release statement": sets(run_id="run-x")}, "run_id: the log says"),
    ("another plan", {"release statement": sets(plan_hash=OTHER)}, "plan_hash: the log says"),
    ("another consortium", {"release statement": sets(consortium="Other")}, "expected consortium Zegel Demo"),
    ("weak policy", {"release statement": sets(policy=Policy(release=("release_manager",)))}, "leaves out"),
    (
        "statement proposed twice",
        {"release.proposed": sets(statement=OTHER)},
        "expected exactly one release.proposed",
    ),
    ("another statement certified", {"release.certified": sets(statement=OTHER)}, "statement: expected"),
    ("another version certified", {"release.certified": sets(version=OTHER)}, "version: expected"),
    ("never certified", {"release.certified": skips}, "expected exactly one release.certified entry, got 0"),
    (
        "certified with a made-up approval",
        {"release.certified": sets(approvals=[OTHER])},
        "is not in the log",
    ),
    (
        "release not approved",
        {"release approvers": lambda f: f["approvers"].remove("Bob")},
        "by privacy_officer",
    ),
    ("release refused", {"signed approval": lambda f: _refuse(f, "release")}, f"refused by {pseudonym('Bob')}"),
    # metrics
    ("metrics of another version", {"signed metrics": sets(version=OTHER)}, "version: expected"),
    ("metrics of another run", {"signed metrics": sets(run_id="run-x")}, "expected the first report of every"),
    (
        "metrics signed by another",
        {"signed metrics": of("hospital-d", sets(signer="hospital-a"))},
        "by hospital-a",
    ),
    (
        "metrics of a stranger",
        {"plan": sets(evaluation_sites=SITES)},
        "metrics of hospital-d, which the plan",
    ),
    (
        "metrics never reported",
        {"metrics.reported": lambda f: f.update(skip=f["site"] == "hospital-d")},
        "expected the first report of every hospital",
    ),
    (
        "metrics under another name",
        {"metrics.reported": of("hospital-d", sets(site="x"))},
        "expected a statement of x by x, got one of hospital-d",
    ),
    # the founding
    (
        "another root",
        {"consortium.founded": sets(root_certificate=OTHER)},
        "expected the root certificate given",
    ),
    ("another log name", {"consortium.founded": sets(name="Other")}, "log certificate: expected name"),
    ("not founded", {"consortium.founded": skips}, "expected exactly one consortium.founded entry, got 0"),
    ("certificate hidden", {"certificate.issued": lambda f: _skip_name(f, "hospital-a")}, "not known here"),
    (
        "certificate renamed",
        {"certificate.issued": lambda f: _rename(f, "hospital-a")},
        "as the certificate says",
    ),
    (
        "certificate prolonged",
        {"certificate.issued": sets(not_after="2036-01-01T00:00:00Z")},
        "as the certificate",
    ),
]


def _skip_site(fields: dict[str, Any], name: str) -> None:
    fields["skip"] = fields[name]["statement"]["site"] == "hospital-a"


def _skip_subject(fields: dict[str, Any], kind: str) -> None:
    fields["skip"] = fields["approval"]["statement"]["subject"]["kind"] == kind


def _refuse(fields: dict[str, Any], kind: str) -> None:
    if fields["subject"]["kind"] == kind and fields["name"] == pseudonym("Bob"):
        fields["decision"] = "refuse"


def _as_carol(fields: dict[str, Any], kind: str) -> None:
    if fields["subject"]["kind"] == kind:
        fields.update(signer="Carol", name=pseudonym("Carol"), organisation="Statistics", role="release_manager")


def _propose_as(fields: dict[str, Any], kind: str, name: str) -> None:
    if fields["subject"]["kind"] == kind:
        fields["signer"] = name


def _skip_name(fields: dict[str, Any], name: str) -> None:
    fields["skip"] = fields["name"] == name


def _rename(fields: dict[str, Any], name: str) -> None:
    if fields["name"] == name:
        fields["organisation"] = "Elsewhere"


@pytest.mark.parametrize(("name", "hooks", "message"), FORGERIES, ids=[case[0] for case in FORGERIES])
def test_forgeries_are_found(story: Story, name: str, hooks: dict[str, Hook], message: str) -> None:
    story.hooks = hooks
    story.tell()
    with pytest.raises(AuditError, match=message) as caught:
        story.trace()
    assert isinstance(caught.value, TraceError | ReleaseError)


def test_gates_must_follow_from_the_metrics(story: Story) -> None:
    story.gates = (Gate("micro_f1@every-site", "at_least", 0.6, 0.8),)
    with pytest.raises(ReleaseError, match=r"the log gives 0\.7, the release statement says 0\.8"):
        story.tell().trace()


def test_the_first_report_counts_and_none_is_left_out(story: Story) -> None:
    def drop(fields: dict[str, Any]) -> None:
        fields["metrics"].pop("hospital-d")
        fields["evaluation_sites"] = SITES

    story.hooks["release statement"] = drop
    with pytest.raises(TraceError, match=r"expected the first report of every hospital, which are .*hospital-d"):
        story.tell().trace()


def test_a_hospital_that_did_not_evaluate_is_named_and_fails_every_site(story: Story) -> None:
    def drop(fields: dict[str, Any]) -> None:
        fields["metrics"].pop("hospital-d", None)
        fields["evaluation_sites"] = SITES

    story.hooks = {
        "metrics.reported": lambda f: f.update(skip=f["site"] == "hospital-d"),
        "release statement": drop,
    }
    with pytest.raises(ReleaseError, match="gate micro_f1@every-site: hospital-d reported no micro_f1"):
        story.tell().trace()
    again = type(story)(story.keys, hooks=story.hooks, gates=(Gate("micro_f1@hospital-a", "at_least", 0.6, 0.8),))
    assert again.tell().trace().sites_without_metrics == ("hospital-d",)


def test_proposer_cannot_approve(story: Story) -> None:
    story.proposer = "Carol"
    with pytest.raises(ReleaseError, match=f"{pseudonym('Carol')} proposed it and does not count"):
        story.tell().trace()


def test_proposer_cannot_approve_with_a_second_certificate(story: Story, keys: Keys) -> None:
    again = keys.person("Carol", "Statistics", "consortium_admin")
    story.keys = type(keys)(keys.root_key, keys.root, {**keys.holders, "Carol again": again}, keys.names)
    story.proposer = "Carol again"
    with pytest.raises(ReleaseError, match=f"{pseudonym('Carol')} proposed it and does not count"):
        story.tell().trace()


def test_the_statement_names_who_signed_its_proposal(story: Story) -> None:
    story.hooks["release statement"] = lambda fields: fields.update(proposer=story.keys.holders["Carol"].digest)
    with pytest.raises(TraceError, match="proposer: expected sha256:"):
        story.tell().trace()


@pytest.mark.parametrize("who", ["hospital-a", "Bob"])
def test_who_may_not_propose_a_release(story: Story, who: str) -> None:
    story.proposer = who
    with pytest.raises(TraceError, match=r"release\.proposed.*expected role consortium_admin or release_manager"):
        story.tell().trace()


def test_a_renewed_certificate_is_accepted(story: Story, keys: Keys) -> None:
    old = keys.holders["hospital-a"]
    renewed = keys.machine(old.key, "hospital-a", "client")
    story.hooks["before run"] = lambda fields: fields["story"].issue(renewed)
    story.hooks["signed receipt"] = lambda fields: fields.update(
        signer=renewed if fields["site"] == "hospital-a" else fields["signer"]
    )
    trace = story.tell().trace()
    assert trace.run.rounds[0].receipts[0].certificate == renewed.digest


def test_a_certificate_announced_after_its_use_is_refused(story: Story, keys: Keys) -> None:
    late = keys.person("Bob", "Hospital A", "privacy_officer")
    story.hooks["before run"] = lambda fields: fields["story"].issue(late)
    story.hooks["signed approval"] = lambda fields: fields.update(
        signer=late if fields["subject"]["kind"] == "plan" else fields["signer"]
    )
    with pytest.raises(TraceError, match="announced only in entry"):
        story.tell().trace()


def test_an_expired_certificate_is_refused_even_with_an_old_date(story: Story, keys: Keys) -> None:
    short = keys.person("Bob", "Hospital A", "privacy_officer", not_after=story.now + timedelta(seconds=60))
    stated = format_time(story.now + timedelta(seconds=30))
    keys = type(keys)(keys.root_key, keys.root, {**keys.holders, "Bob": short}, keys.names)
    story.keys = keys
    with pytest.raises(TraceError, match="expected a time from"):
        story.tell().trace()
    story.entries, story.now = [], story.now.replace(hour=5, minute=0, second=0)
    story.hooks["signed approval"] = lambda fields: fields.update(time=stated)
    with pytest.raises(TraceError, match="expected its certificate to be valid at"):
        story.tell().trace()


def test_two_people_with_one_key_are_refused(story: Story, keys: Keys) -> None:
    key = generate_person_key()
    one = keys.person("Dan", "Hospital B", "privacy_officer", key=key)
    two = keys.person("Eve", "Hospital C", "release_manager", key=key)

    def issue(fields: dict[str, Any]) -> None:
        fields["story"].issue(one)
        fields["story"].issue(two)

    story.hooks["before run"] = issue
    with pytest.raises(TraceError, match=f"{pseudonym('Eve')} and {pseudonym('Dan')} hold the same key"):
        story.tell().trace()


def test_a_plan_approved_only_after_the_run_started(story: Story) -> None:
    plan: list[Any] = []

    def hold_back(fields: dict[str, Any]) -> None:
        statement = fields["approval"]["statement"]
        if statement["subject"]["kind"] == "plan" and not plan:
            plan.append(dict(fields))
            fields["skip"] = True

    def catch_up(fields: dict[str, Any]) -> None:
        if plan and fields["run_id"]:
            waiting, plan[:] = plan[0], ["done"]
            if waiting != "done":
                story.add("approval", **waiting)

    story.hooks = {"approval": hold_back, "run.finished": catch_up}
    with pytest.raises(ReleaseError, match="expected approval by privacy_officer, got it from nobody"):
        story.tell().trace()


def test_entries_out_of_order(told: Story) -> None:
    from audit.evidence import Evidence

    entries = list(enumerate(told.entries))
    with pytest.raises(TraceError, match="expected ascending indices"):
        Evidence([entries[0], entries[2], entries[1]], told.keys.root)
    with pytest.raises(TraceError, match="expected the founding to be entry 0"):
        Evidence([(index + 1, entry) for index, entry in entries], told.keys.root)
