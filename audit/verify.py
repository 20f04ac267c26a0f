"""Verification of a dossier, offline, from the root certificate alone.

`verify_dossier` takes bytes and returns what was proved, or raises. The checks run in a fixed order, each
relying only on those before it; the first that fails ends the verification and is named. A dossier written
after its release was withdrawn does not verify.

What is proved: the named hospitals and people signed these statements; they are in the log whose key the
root vouches for; together they tell one unbroken story from plan to certified release, past gates that were
set before the run; the log's keeper committed to the register being complete; as many witnesses as the gates
ask for saw this log; the model in the dossier is the one released. What is not: that a hospital's data or
arithmetic were right; without witnesses, that the log shows everybody the same history (compare checkpoints);
that entries outside the register and left out of the dossier do not exist; or that nothing happened after the
checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, is_dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from audit.canonical import digest_of, format_time, hex_of
from audit.certificates import (
    certificate_pem,
    check_root,
    load_certificate,
    root_fingerprint,
)
from audit.checkpoint import Checkpoint, open_checkpoint, parse_proof
from audit.disclosure import NOTHING_DISCLOSED, Disclosed, disclosed, unpack_disclosures
from audit.documents.collection import DocumentCheck, check_documents, summary
from audit.documents.report import LogHead
from audit.dossier import (
    CHECKPOINT,
    DISCLOSURES,
    REGISTER,
    RELEASE,
    ROOT,
    Dossier,
    check_manifest,
    check_manifest_signature,
    in_member,
    open_dossier,
)
from audit.entry import Entry
from audit.erasure import erasures
from audit.errors import AuditError, DossierError
from audit.evidence import Evidence
from audit.gate_trace import witnesses_needed
from audit.merkle import leaf_hash, verify_inclusion
from audit.register import check_register
from audit.release import ReleaseStatement
from audit.release_state import SUPERSEDED, WITHDRAWN, Standing
from audit.selection import certificates_used, entries_bearing_on
from audit.trace import ReleaseTrace, trace_release
from audit.witness_policy import check_cosignatures

MAX_CLOCK_SKEW = timedelta(minutes=5)


@dataclass(frozen=True)
class Check:
    """A check that succeeded, and what it found."""

    name: str
    detail: str


@dataclass(frozen=True)
class Report:
    """What a dossier proves."""

    checks: tuple[Check, ...]
    trace: ReleaseTrace
    disclosed: Disclosed  # names and reasons, for readers: nothing rests on them
    documents: tuple[DocumentCheck, ...]  # and how far each was checked
    log_key: str
    tree_size: int
    entries: int  # how many of the log's entries the dossier holds

    def to_json(self) -> dict[str, Any]:
        """For machines; times and digests in their usual spelling."""
        value = _jsonable(asdict(replace(self, disclosed=NOTHING_DISCLOSED)))
        return {"verified": True, **value, "disclosed": self.disclosed.to_json()}


@dataclass
class _Progress:
    passed: list[Check] = field(default_factory=list)
    disclosed: Disclosed = NOTHING_DISCLOSED  # names for messages, once they are checked

    @contextmanager
    def check(self, name: str) -> Iterator[list[str]]:
        """Runs one check; the block appends what it found to the list it is given."""
        found: list[str] = []
        try:
            yield found
        except AuditError as error:
            words = self.disclosed.in_words(str(error))
            raise DossierError(f"{name}: {words}", check=name, passed=self.passed) from error
        self.passed.append(Check(name, self.disclosed.in_words(", ".join(found))))


def verify_dossier(data: bytes, root_pem: bytes, *, now: datetime) -> Report:
    """Checks a dossier's bytes against the root certificate the verifier trusts.

    `now` is the verifier's clock (aware): nothing in the dossier may be dated after it. Certificates are
    judged at the times of their use, so a dossier stays verifiable after they expire.

    Raises DossierError with the failed check's name, what was expected and what was found.
    """
    progress = _Progress()
    with progress.check("container") as found:
        dossier = open_dossier(data)
        found.append(f"{len(dossier.members)} members, {len(data)} bytes, no byte to spare")
    with progress.check("root certificate") as found:
        root = load_certificate(root_pem)
        check_root(root)
        found.append(root_fingerprint(root))
        if dossier.root_pem != certificate_pem(root).encode():
            raise DossierError(f"{ROOT}: expected the root certificate given, the dossier was made under another one")
    with progress.check("manifest") as found:
        check_manifest(dossier)
        found.append(f"sizes and digests of {len(dossier.members) - 2} members")
    with progress.check("entries") as found:
        entries: dict[int, Entry] = {}
        for index, content in dossier.entries.items():
            with in_member(f"log/entries/{index}.json"):
                entries[index] = Entry.from_bytes(content)
        _check_not_after(entries, now)
        found.append(f"{len(entries)} entries follow their schemas")
    with progress.check("founding and certificates") as found:
        evidence = Evidence(entries.items(), root)
        if dossier.log_key != f"{evidence.founding.log_key}\n".encode():
            raise DossierError(f"log/log.vkey: expected {evidence.founding.log_key}, as in the founding entry")
        found.append(f"{evidence.founding.consortium}, {len(evidence.certificates)} certificates under the root")
    with progress.check("checkpoint") as found:
        with in_member(CHECKPOINT):
            checkpoint = open_checkpoint(dossier.checkpoint, evidence.founding.log_key)
        found.append(f"log of {checkpoint.size} entries, signed by {evidence.founding.log_key.name}")
    with progress.check("inclusion") as found:
        for index in entries:
            _check_inclusion(dossier, index, checkpoint)
        found.append(f"{len(entries)} entries are in the log")
    with progress.check("register") as found:
        with in_member(REGISTER):
            listed = check_register(dossier.register, evidence.founding.log_key, checkpoint, entries.items())
        found.append(f"{listed} entries on gates, audits, certificates and releases; the log signed no other")
    with progress.check("disclosures") as found:
        gone = erasures(evidence)
        with in_member(DISCLOSURES):
            said = disclosed(entries.items(), unpack_disclosures(dossier.disclosures))
        progress.disclosed = said
        found.append(f"{len(said.values)} values open their commitments, {len(gone)} were erased")
    with progress.check("release statement") as found:
        with in_member(RELEASE):
            statement = ReleaseStatement.from_bytes(dossier.release)
        check_manifest_signature(dossier, statement.release, evidence.founding.log_key)
        found.append(f"{statement.release}, {len(statement.gates)} gates passed, manifest signed by the log")
    with progress.check("model") as found:
        _same("model.safetensors", statement.version, digest_of(dossier.model))
        found.append(f"{len(dossier.model)} bytes are version {statement.version}")
    with progress.check("plan") as found:
        _same("plan.json", statement.plan_hash, digest_of(dossier.plan))
        for stated, content in dossier.earlier_plans.items():
            _same(f"plans/{hex_of(stated)}.json", stated, digest_of(content))
        found.append(statement.plan_hash)
    with progress.check("trace") as found:
        plans = {**dossier.earlier_plans, statement.plan_hash: dossier.plan}
        trace = trace_release(evidence, dossier.release, plans)
        receipts = sum(len(r.receipts) for run in trace.runs for r in run.rounds)
        rounds = sum(len(run.rounds) for run in trace.runs)
        found.append(f"{rounds} rounds, {receipts} receipts, {len(trace.metrics)} metric statements")
    with progress.check("witnesses") as found:
        policy = witnesses_needed(evidence, trace.gate_set.gates, before=trace.standing.proposed_index)
        with in_member(CHECKPOINT):
            cosigned = check_cosignatures(dossier.checkpoint, policy, now)
        found.append(f"{len(cosigned)} of {len(policy.witnesses)} cosigned the checkpoint, {policy.threshold} needed")
    with progress.check("state") as found:
        found.append(_state_words(trace.standing))
    with progress.check("documents") as found:
        head = LogHead(str(evidence.founding.log_key), dossier.checkpoint, len(entries))
        documents = check_documents(
            dossier.documents, statement, trace, dossier.plan, head, certificates=evidence.certificates, root=root
        )
        found.append(summary(documents))
    with progress.check("completeness") as found:
        _check_nothing_stray(dossier, evidence, statement)
        found.append("every member bears on the release")
    return Report(
        checks=tuple(progress.passed),
        trace=trace,
        disclosed=said,
        documents=tuple(replace(each, finding=said.in_words(each.finding)) for each in documents),
        log_key=str(evidence.founding.log_key),
        tree_size=checkpoint.size,
        entries=len(entries),
    )


def _state_words(standing: Standing) -> str:
    """Where the release stood when the dossier was written; raises DossierError when it must not be used."""
    if standing.state == WITHDRAWN and standing.withdrawal is not None:
        reason = standing.withdrawal.reason or "no reason given"
        raise DossierError(f"release {standing.release} was withdrawn in entry {standing.since}: {reason}")
    if standing.state == SUPERSEDED:
        return f"certified in entry {standing.certified_index}, superseded by {standing.superseded_by}"
    return f"certified in entry {standing.certified_index}, current as of the checkpoint"


def _same(what: str, expected: str, got: str) -> None:
    if expected != got:
        raise DossierError(f"{what}: expected digest {expected}, got {got}")


def _check_not_after(entries: dict[int, Entry], now: datetime) -> None:
    for index, entry in entries.items():
        if entry.time > now + MAX_CLOCK_SKEW:
            raise DossierError(f"entry {index}: dated {format_time(entry.time)}, but it is {format_time(now)} now")


def _check_inclusion(dossier: Dossier, index: int, checkpoint: Checkpoint) -> None:
    with in_member(f"log/proofs/{index}.txt"):
        stated, proof, bundled = parse_proof(dossier.proofs[index])
    if stated != index:
        raise DossierError(f"log/proofs/{index}.txt: expected index {index}, got {stated}")
    if bundled != dossier.checkpoint:
        raise DossierError(f"log/proofs/{index}.txt: expected the checkpoint of log/checkpoint, got another one")
    with in_member(f"log/entries/{index}.json with log/proofs/{index}.txt"):
        verify_inclusion(index, checkpoint.size, leaf_hash(dossier.entries[index]), proof, checkpoint.root)


def _check_nothing_stray(dossier: Dossier, evidence: Evidence, statement: ReleaseStatement) -> None:
    """What does not bear on the release has no place in its dossier: a reader would take it for checked."""
    entries = [(logged.index, logged.entry) for logged in evidence.entries]
    selected, plan_hashes = entries_bearing_on(entries, statement, digest_of(dossier.release))
    stray = sorted(set(dossier.entries) - {index for index, _ in selected})
    if stray:
        raise DossierError(f"log/entries/{stray[0]}.json: does not bear on the release")
    if set(dossier.earlier_plans) != plan_hashes - {statement.plan_hash}:
        odd = sorted(set(dossier.earlier_plans) ^ (plan_hashes - {statement.plan_hash}))
        raise DossierError(f"plans/{hex_of(odd[0])}.json: expected the plans of the earlier runs; missing or not one")
    used = certificates_used(selected, statement)
    if set(dossier.certificates) != used:
        odd = sorted(set(dossier.certificates) ^ used)
        raise DossierError(f"certificates/{hex_of(odd[0])}.pem: expected exactly those used; it is missing or not used")
    for digest, content in dossier.certificates.items():
        known = evidence.certificates.get(digest)
        if known is None or content != certificate_pem(known).encode():
            raise DossierError(f"certificates/{hex_of(digest)}.pem: expected the certificate announced in the log")


def _jsonable(value: Any) -> Any:
    if isinstance(value, datetime):
        return format_time(value)
    if is_dataclass(value) and not isinstance(value, type):
        return _jsonable(asdict(value))
    if isinstance(value, dict):
        return {key: _jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_jsonable(item) for item in value]
    return value
