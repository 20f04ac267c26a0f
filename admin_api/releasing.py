"""From a finished run to a certified release, and out of use again: statement, quorum, dossier, withdrawal.

A release statement gathers what the log has about a version, and measures the gates that were set before its run. Its
approvals are counted when it is certified, under the rules the offline verifier applies afterwards, and in the same
append the release it replaces is retired.
"""

from __future__ import annotations

from dataclasses import replace

from admin_api.dossier_documents.candidate import candidate_documents
from admin_api.dossier_documents.certification import documents_for_certification
from admin_api.errors import ReleaseRefused
from admin_api.planning import PROPOSED, decide
from admin_api.recording import in_own_name, read_evidence, reason_of, record_judged, signed_by
from admin_api.signing import Signer
from audit.canonical import digest_of
from audit.certification import certifying_entries, withdrawing_entry
from audit.checkpoint import open_checkpoint
from audit.cosigned import Cosigned
from audit.disclosure import commitment_of
from audit.dossier import write_dossier
from audit.entry import (
    RELEASE_CERTIFIED,
    RELEASE_PROPOSED,
    RELEASE_SUPERSEDED,
    RUN_FINISHED,
    RUN_STARTED,
    WITHDRAWAL_PROPOSED,
    Entry,
)
from audit.errors import AuditError, DossierError
from audit.evidence import Evidence
from audit.gate_trace import figures_of, gates_in_force, measured, witnesses_needed
from audit.metrics_trace import trace_metrics
from audit.note import VerifierKey
from audit.plan_trace import read_plan
from audit.release import Predecessor, ReleaseStatement
from audit.release_state import RELEASE_PROPOSERS, WITHDRAWERS, Standing, certified_of, standings
from audit.selection import lineage
from audit.statement import PROPOSAL, SUPERSESSION, WITHDRAWAL
from audit.trace import trace_version
from audit.verify import verify_dossier
from audit.witness_policy import cosignatures_of
from jobs.home import ConsortiumHome


def propose_release(
    home: ConsortiumHome, *, run_id: str, release: str, proposer: Signer, notes: bytes | None = None
) -> ReleaseStatement:
    """Gather a finished run's evidence into a release statement with its documents, and log it as a candidate.

    `notes` are the release notes as somebody wrote them. Raises: ReleaseRefused when the run has not finished, the name
    is taken, a gate fails, or the notes cannot be read.
    """
    proposer.require(*sorted(RELEASE_PROPOSERS))
    try:
        evidence = read_evidence(home)
        if release in standings(evidence):
            raise ReleaseRefused(f"release {release!r} was proposed already; choose another name")
        draft = _draft(home, evidence, run_id, release, proposer)
        documents = candidate_documents(home, evidence, draft, notes)
        statement = replace(draft, documents={name: digest_of(content) for name, content in documents.items()})
        signed = signed_by(
            home,
            proposer,
            PROPOSAL,
            {
                "subject": {"kind": "release", "digest": statement.digest},
                "meaning": PROPOSED["release"],
                **in_own_name(proposer),
            },
        )

        def build(_: Evidence) -> list[Entry]:
            for content in (*documents.values(), statement.to_bytes()):
                home.artifacts().put(content)
            body = {
                "release": release,
                "task": statement.task,
                "statement": statement.digest,
                "version": statement.version,
                "predecessor": None if statement.predecessor is None else statement.predecessor.release,
                "proposal": signed.to_json(),
            }
            return [Entry(RELEASE_PROPOSED, home.clock(), body)]

        record_judged(home, build)
    except AuditError as error:
        raise ReleaseRefused(f"release {release!r} is not proposed: {error}") from None
    return statement


def _draft(home: ConsortiumHome, evidence: Evidence, run_id: str, release: str, proposer: Signer) -> ReleaseStatement:
    """The statement about a run's version, with every gate measured on the log as it is."""
    finished = evidence.of_kind(RUN_FINISHED, run_id=run_id)
    if not finished:
        raise ReleaseRefused(f"run {run_id} has not finished; `zegel run status {run_id}` says where it is")
    version = finished[0].body["version"]
    plans = plans_behind(home, evidence, version)
    task = read_plan(plans[finished[0].body["plan_hash"]])["task"]
    started = evidence.only(RUN_STARTED, f"run {run_id}", run_id=run_id)
    in_force = gates_in_force(evidence, task, before=started.index)
    run = trace_version(evidence, version, plans, in_force.gates.policy)[-1]
    metrics = trace_metrics(evidence, run, before=evidence.size)
    certified = certified_of(standings(evidence), task)
    now = proposer.now(home.clock).replace(microsecond=0)
    figures = figures_of(
        evidence,
        run,
        metrics,
        predecessor=None if certified is None else certified.version,
        before=evidence.size,
        at=now,
    )
    return ReleaseStatement(
        consortium=home.config().name,
        release=release,
        task=task,
        version=version,
        predecessor=(
            None if certified is None else Predecessor(certified.release, certified.statement, certified.version)
        ),
        plan_hash=run.plan.plan_hash,
        run_id=run_id,
        sites=tuple(sorted(hospital.site for hospital in run.hospitals if hospital.rounds_joined)),
        evaluation_sites=tuple(each.site for each in metrics),
        epsilon=run.epsilon,
        delta=run.delta,
        accountant=run.accountant,
        metrics={each.site: each.digest for each in metrics},
        gates=measured(in_force.gates, figures),
        gate_set=in_force.digest,
        time=now,
        proposer=proposer.certificate_digest,
        policy=in_force.gates.policy,
    )


def plans_behind(home: ConsortiumHome, evidence: Evidence, version: str) -> dict[str, bytes]:
    """The plans of the runs that led to a version, by hash. Raises ArtifactError when one is not kept here."""
    _, plan_hashes = lineage([(each.index, each.entry) for each in evidence.entries], version)
    artifacts = home.artifacts()
    return {plan_hash: artifacts.get(plan_hash) for plan_hash in plan_hashes}


def load_statement(home: ConsortiumHome, release: str) -> ReleaseStatement:
    """A proposed release's statement. Raises ReleaseRefused when there is none of that name."""
    with home.log() as log:
        found = [entry.body for _, entry in log.entries(kind=RELEASE_PROPOSED) if entry.body["release"] == release]
    if not found:
        raise ReleaseRefused(f"no release {release!r} was proposed; `zegel release list` shows those that were")
    return ReleaseStatement.from_bytes(home.artifacts().get(found[0]["statement"]))


def list_releases(home: ConsortiumHome) -> list[Standing]:
    """Every release and where it stands, in the order of proposal. Raises AuditError when the log is broken."""
    return list(standings(read_evidence(home)).values())


def certify(home: ConsortiumHome, release: str, *, time_stamp_url: str | None = None) -> bytes:
    """Certify a proposed release whose approvals suffice, and write its dossier.

    The entries that certify it and retire its predecessor go into the log first, since the dossier must hold them.
    Before that, the release is traced with these entries as the verifier will; if anything is missing, nothing is
    logged and nothing written. A release that was certified before only gets its dossier written again.
    `time_stamp_url` is an RFC 3161 authority that is asked to stamp the dossier's checkpoint.

    Returns: the dossier's bytes. Raises: ReleaseRefused when approvals are missing or a part does not hold, or when the
        witnesses its gates ask for have not cosigned yet: then it is in the log, and a later call writes the dossier.
    """
    statement = load_statement(home, release)
    try:
        record_judged(home, lambda evidence: _certifying(home, evidence, statement))
        root_pem = (home.ca / "rootCA.pem").read_bytes()
        certified = read_evidence(home).only(RELEASE_CERTIFIED, f"release {release}", release=release)
        approvers: list[str] = certified.body["approvals"]
        with home.log() as log:
            dossier = write_dossier(
                log,
                home.artifacts(),
                home.disclosures(),
                release,
                key=home.log_key(),
                root_pem=root_pem,
                clock=home.clock,
                checkpoint=_cosigned_checkpoint(home, statement),
                further_documents=documents_for_certification(home, statement, approvers, time_stamp_url),
            )
        verify_dossier(dossier, root_pem, now=home.clock())  # nothing is handed out that others would refuse
        return dossier
    except DossierError as error:
        raise ReleaseRefused(f"release {release!r}: no dossier is handed out: {error}{_advice(error)}") from None
    except AuditError as error:
        raise ReleaseRefused(f"release {release!r} is not certified: {error}") from None


def _certifying(home: ConsortiumHome, evidence: Evidence, statement: ReleaseStatement) -> list[Entry]:
    if evidence.of_kind(RELEASE_CERTIFIED, release=statement.release):
        return []
    home.artifacts().get(statement.version)  # the model must be there: the dossier holds it
    plans = plans_behind(home, evidence, statement.version)
    return certifying_entries(evidence, statement.to_bytes(), plans, at=home.clock())


def _cosigned_checkpoint(home: ConsortiumHome, statement: ReleaseStatement) -> bytes | None:
    """The largest cosigned checkpoint that covers the certification and has the witnesses the gates ask for.

    None when there is none: a fresh one is signed then. The log grows while witnesses answer, so the newest checkpoint
    is not always the one they signed.
    """
    evidence = read_evidence(home)
    certified = evidence.only(RELEASE_CERTIFIED, f"release {statement.release}", release=statement.release)
    standing = standings(evidence)[statement.release]
    started = evidence.only(RUN_STARTED, f"run {statement.run_id}", run_id=statement.run_id)
    gates = gates_in_force(evidence, statement.task, before=started.index).gates
    policy = witnesses_needed(evidence, gates, before=standing.proposed_index)
    collected = Cosigned(home.path / "cosigned")
    with home.log() as log:
        signed = log.last_checkpoint()
    key = VerifierKey.parse(home.config().log_vkey)
    for checkpoint in (None if signed is None else collected.note(signed), collected.latest()):
        if checkpoint is None or open_checkpoint(checkpoint, key).size < max(certified.index, standing.since) + 1:
            continue
        if len(cosignatures_of(checkpoint, policy.witnesses)) >= policy.threshold:
            return checkpoint
    return None


def _advice(error: DossierError) -> str:
    if error.check == "witnesses":
        return ". It is in the log; ask the witnesses with `zegel audit cosign`, then certify again"
    return ""


def propose_withdrawal(home: ConsortiumHome, release: str, *, reason: str, person: Signer) -> str:
    """Log that a release should be withdrawn; returns the digest that a second person approves.

    Raises: ReleaseRefused when there is no such release in use, or one is being withdrawn already.
    """
    person.require(*sorted(WITHDRAWERS))
    if not reason.strip():
        raise ReleaseRefused(f"to withdraw release {release!r}, give a --reason; everybody who uses it will read it")
    statement = load_statement(home, release)
    try:
        why = reason_of(reason, person)
        fields = {"release": release, "digest": statement.digest, "reason": commitment_of(why)}
        signed = signed_by(home, person, WITHDRAWAL, fields)
        entry = Entry(WITHDRAWAL_PROPOSED, home.clock(), {"release": release, "withdrawal": signed.to_json()})
        record_judged(home, lambda _: [entry], beside=[why])
    except AuditError as error:
        raise ReleaseRefused(f"release {release!r} is not withdrawn: {error}") from None
    return signed.digest


def approve_withdrawal(home: ConsortiumHome, release: str, *, reason: str, person: Signer) -> None:
    """A second person agrees; the release is withdrawn at once.

    Raises: ReleaseRefused when nobody proposed it, or the two people do not suffice: then the approval stays in the
        log, and the release as it was.
    """
    standing = standings(read_evidence(home)).get(release)
    if standing is None or standing.withdrawal is None:
        raise ReleaseRefused(f"release {release!r}: nobody proposed to withdraw it")
    decide(home, "withdrawal", standing.withdrawal.digest, person, approve=True, reason=reason)
    try:
        record_judged(home, lambda evidence: [withdrawing_entry(evidence, release, at=home.clock())])
    except AuditError as error:
        raise ReleaseRefused(f"release {release!r} is not withdrawn yet: {error}") from None


def supersede(home: ConsortiumHome, release: str, *, by: str, reason: str, person: Signer) -> None:
    """A release manager's word that a release of another task replaces a certified one.

    Within a task certification does this itself. Raises: ReleaseRefused unless both are certified.
    """
    if not reason.strip():
        raise ReleaseRefused("give a --reason; everybody who uses the release will read it")
    try:
        why = reason_of(reason, person)
        fields = {"release": release, "by": by, "reason": commitment_of(why)}
        signed = signed_by(home, person, SUPERSESSION, fields)
        body = {"release": release, "by": by, "supersession": signed.to_json()}
        entry = Entry(RELEASE_SUPERSEDED, home.clock(), body)
        record_judged(home, lambda _: [entry], beside=[why])
    except AuditError as error:
        raise ReleaseRefused(f"release {release!r} is not superseded: {error}") from None
