"""A consortium in memory: real keys and certificates, and a log's worth of entries that tests may spoil.

`keys` are made once per session. A `Story` writes the entries of one run and release; every body and
statement passes through a hook of the test's before it is signed, so that a test can forge exactly one
thing and have everything built on top of it consistently, as a cheating log keeper would.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from audit.artifacts import Artifacts
from audit.canonical import canonical_json, digest_of, format_time
from audit.certificates import (
    PEOPLE,
    PrivateKey,
    certificate_digest,
    certificate_pem,
    identity_of,
    issue_certificate,
    person_id,
    root_fingerprint,
)
from audit.checkpoint import log_origin, log_verifier_key
from audit.disclosure import NAME as PERSONS_NAME
from audit.disclosure import REASON, Disclosure
from audit.disclosure_store import Disclosures
from audit.dossier import write_dossier
from audit.enrolment import enrolment_statement
from audit.entry import Entry
from audit.evidence import Evidence
from audit.gates import AT_LEAST, AT_MOST, Gate
from audit.passkey import challenge_for
from audit.release import DEFAULT_POLICY, GateSet, Policy, Predecessor, ReleaseStatement
from audit.release_state import certified_of, standings
from audit.signing_keys import generate_log_key, generate_person_key
from audit.statement import SignedStatement, sign_statement, statement_bytes
from audit.store import Log, open_log
from audit.trace import ReleaseTrace, trace_release
from tests.audit.log_places import Place, kept, prepared
from tests.audit.postgresql import Server, memory_folder, running_server
from tests.passkey import SoftwarePasskey

NAME = "Zegel Demo"
START = datetime(2026, 11, 22, 5, 0, 0, tzinfo=UTC)
SITES = ("hospital-a", "hospital-b", "hospital-c")
EVALUATOR = "hospital-d"
TASK = "icd_coding"
Hook = Callable[[dict[str, Any]], None]


def pseudonym(name: str) -> str:
    """The person id of somebody in these tests."""
    return person_id(hashlib.sha256(name.encode()).digest()[:8])


def committed(field: str, value: str) -> Disclosure:
    """A value with a salt that is the same in every test run."""
    return Disclosure.made(field, value, lambda size: hashlib.sha256(f"{field} {value}".encode()).digest()[:size])


@dataclass(frozen=True)
class Holder:
    """A key, or a passkey, and its certificate."""

    key: Any
    certificate: x509.Certificate

    @property
    def digest(self) -> str:
        return certificate_digest(self.certificate)

    def signed(self, statement: dict[str, Any]) -> SignedStatement:
        """The statement, signed as the certificate asks for."""
        if not isinstance(self.key, SoftwarePasskey):
            return sign_statement(statement, self.key, self.certificate)
        signature, assertion = self.key.assertion(challenge_for(statement_bytes(statement)))
        return SignedStatement(statement, self.digest, signature, assertion)


def make_root(name: str) -> tuple[rsa.RSAPrivateKey, x509.Certificate]:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(START - timedelta(days=1))
        .not_valid_after(START + timedelta(days=3650))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    return key, certificate


@dataclass(frozen=True)
class Keys:
    """Everybody's keys. `holders` are by name, `names` of people by person id."""

    root_key: rsa.RSAPrivateKey
    root: x509.Certificate
    holders: dict[str, Holder]
    names: dict[str, Disclosure] = field(default_factory=dict)

    @property
    def root_pem(self) -> bytes:
        return certificate_pem(self.root).encode()

    def machine(
        self,
        key: rsa.RSAPrivateKey,
        name: str,
        role: str,
        *,
        not_before: datetime = START,
        not_after: datetime = START + timedelta(days=360),
        ca: bool = False,
        organisation: str | None = None,
    ) -> Holder:
        """A certificate as NVFlare's request flow makes them."""
        certificate = (
            x509.CertificateBuilder()
            .subject_name(
                x509.Name(
                    [
                        x509.NameAttribute(NameOID.COMMON_NAME, name),
                        x509.NameAttribute(
                            NameOID.ORGANIZATION_NAME,
                            name.replace("-", "_") if organisation is None else organisation,
                        ),
                        x509.NameAttribute(NameOID.UNSTRUCTURED_NAME, role),
                    ]
                )
            )
            .issuer_name(self.root.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(not_before)
            .not_valid_after(not_after)
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(x509.KeyUsage(True, False, True, False, False, False, False, False, False), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]),
                critical=False,
            )
            .sign(self.root_key, hashes.SHA256())
        )
        return Holder(key, certificate)

    def person(
        self,
        name: str,
        organisation: str,
        role: str,
        *,
        key: PrivateKey | SoftwarePasskey | None = None,
        not_before: datetime = START,
        not_after: datetime = START + timedelta(days=360),
    ) -> Holder:
        """A certificate of somebody called `name`, under their person id; the log's under its origin."""
        key = generate_person_key() if key is None else key
        subject = name
        if role in PEOPLE:
            subject = pseudonym(name)
            self.names[subject] = committed(PERSONS_NAME, name)
        certificate = issue_certificate(
            key.public_key if isinstance(key, SoftwarePasskey) else key.public_key(),
            *(subject, organisation, role, self.root, self.root_key, not_before, not_after),
            relying_party=key.relying_party if isinstance(key, SoftwarePasskey) else None,
        )
        return Holder(key, certificate)


def make_keys() -> Keys:
    root_key, root = make_root(NAME)
    keys = Keys(root_key, root, {})
    for site in (*SITES, EVALUATOR):
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        keys.holders[site] = keys.machine(key, site, "client")
    keys.holders["Ada"] = keys.person("Ada", "Consortium", "consortium_admin")
    keys.holders["Bob"] = keys.person("Bob", "Hospital A", "privacy_officer")
    keys.holders["Carol"] = keys.person("Carol", "Statistics", "release_manager")
    log_key = generate_log_key()
    keys.holders["log"] = keys.person(log_origin(NAME), "Consortium", "log", key=log_key)
    return keys


@dataclass
class Story:
    """The entries of a consortium from its founding to a certified release."""

    keys: Keys
    hooks: dict[str, Hook] = field(default_factory=dict)
    rounds: int = 3
    policy: Policy = DEFAULT_POLICY
    gates: tuple[Gate, ...] = (
        Gate("micro_f1@every-site", AT_LEAST, 0.6, 0.7),
        Gate("epsilon", AT_MOST, 2.0, 1.5),
    )
    model: bytes = b"model bytes"
    entries: list[Entry] = field(default_factory=list)
    artifacts: dict[str, bytes] = field(default_factory=dict)
    now: datetime = START
    run_id: str = "run-20261122T050000Z-abcdef"
    initial_version: str = digest_of(b"initial model")
    plan: bytes = b""
    statement: ReleaseStatement | None = None
    gate_set: str = ""  # digest of the last set signed
    metrics: dict[str, str] = field(default_factory=dict)  # digests by hospital
    proposer: str = "Ada"  # of the release
    reasons: list[Disclosure] = field(default_factory=list)

    def tell(self) -> Story:
        """All steps in order."""
        self.found()
        self.run()
        self.release()
        return self

    # Steps

    def found(self) -> None:
        log = self.keys.holders["log"]
        self.add(
            "consortium.founded",
            name=NAME,
            root_certificate=root_fingerprint(self.keys.root),
            log_vkey=str(log_verifier_key(log.certificate)),
            log_certificate=certificate_pem(log.certificate),
            server="server.example",
        )
        for name, holder in self.keys.holders.items():
            if name != "log":
                self.issue(holder)
        for site in (*SITES, EVALUATOR):
            signed = self.sign(
                "data-manifest",
                site,
                site=site,
                manifest=digest_of(site.encode()),
                admissions=1200,
                patients=None,
                period_first="2025-01-01",
                period_last="2025-12-31",
            )
            self.add("site.manifest", site=site, manifest=signed)
        self.set_gates()

    def set_gates(self, who: str = "Carol") -> None:
        """A release manager fixes gates and policy, before any run."""
        gates = GateSet(TASK, tuple(gate.rule for gate in self.gates), self.policy, self.reason("as every year"))
        signed = self.sign("gates", who, **gates.to_json())
        self.gate_set = digest_of(canonical_json(signed))
        self.add("gates.set", gates=signed)

    def proposal(self, kind: str, digest: str, who: str) -> dict[str, Any]:
        identity = identity_of(self.keys.holders[who].certificate)
        return self.sign(
            "proposal",
            who,
            subject={"kind": kind, "digest": digest},
            meaning="I put this forward",
            name=identity.name,
            organisation=identity.organisation,
            role=identity.role,
        )

    def issue(self, holder: Holder) -> None:
        identity = identity_of(holder.certificate)
        self.add(
            "certificate.issued",
            certificate=certificate_pem(holder.certificate),
            digest=holder.digest,
            name=identity.name,
            organisation=identity.organisation,
            role=identity.role,
            holder=self.keys.names[identity.name].commitment if identity.role in PEOPLE else None,
            not_before=format_time(holder.certificate.not_valid_before_utc),
            not_after=format_time(holder.certificate.not_valid_after_utc),
        )

    def run(self) -> None:
        plan: dict[str, Any] = {
            "schema": "zegel/plan/v1",
            "name": "first plan",
            "task": TASK,
            "consortium": NAME,
            "sites": list(SITES),
            "evaluation_sites": [*SITES, EVALUATOR],
            "rounds": self.rounds,
            "epsilon": 2.0,
            "delta": 1e-6,
            "unit": "patient",
            "accountant": "pld",
            "sampling_prob": 0.05,
            "l2_clip_norm": 1.0,
            "noise_multiplier": 1.1,
            "noise_mode": "distributed",
            "colluders": 1,
            "dropouts": 1,
            "label_space": ["I10", "J18"],
            "encoder": {"kind": "hashed-ngrams"},
            "model": {"kind": "linear"},
            "initial_version": self.initial_version,
        }
        self.apply("plan", plan)
        self.plan = canonical_json(plan)
        plan_hash = self.store(self.plan)
        self.add("plan.proposed", plan_hash=plan_hash, plan=plan_hash, proposal=self.proposal("plan", plan_hash, "Ada"))
        self.approve("plan", plan_hash, "Bob")
        self.step("before run")
        self.add(
            "run.started",
            run_id=self.run_id,
            plan_hash=plan_hash,
            sites=list(SITES),
            initial_version=plan["initial_version"],
        )
        for site in SITES:
            signed = self.sign(
                "acceptance",
                site,
                run_id=self.run_id,
                plan_hash=plan_hash,
                site=site,
                manifest=digest_of(site.encode()),
                ledger_head=digest_of(b"ledger"),
                epsilon_reserved=2.0,
            )
            self.add("site.accepted", run_id=self.run_id, acceptance=signed)
        version = self.initial_version
        for number in range(1, self.rounds + 1):
            following = self.version if number == self.rounds else digest_of(f"{self.run_id} {number}".encode())
            self.round(number, plan_hash, version, following)
            version = following
        self.add(
            "run.finished",
            run_id=self.run_id,
            plan_hash=plan_hash,
            rounds=self.rounds,
            version=self.version,
            epsilon=1.5,
            delta=1e-6,
            accountant="pld",
        )
        self.store(self.model)
        self.add(
            "version.created",
            version=self.version,
            parents=[plan["initial_version"]],
            run_id=self.run_id,
            rounds=[1, self.rounds],
            plan_hash=plan_hash,
            model=self.version,
        )

    def round(self, number: int, plan_hash: str, version_in: str, version_out: str) -> None:
        participants = [site for site in SITES if number != 2 or site != "hospital-c"]
        receipts = [
            self.sign(
                "receipt",
                site,
                run_id=self.run_id,
                round=number,
                plan_hash=plan_hash,
                version_in=version_in,
                masked_upload=digest_of(f"{site} {number}".encode()),
                privacy_event={"type": "gaussian", "noise_multiplier": 1.1},
                manifest=digest_of(site.encode()),
                ledger_head=digest_of(b"ledger"),
                site=site,
            )
            for site in participants
        ]
        self.add(
            "round.completed",
            run_id=self.run_id,
            round=number,
            plan_hash=plan_hash,
            version_in=version_in,
            version_out=version_out,
            participants=participants,
            dropped=[site for site in SITES if site not in participants],
            receipts=receipts,
        )

    def report(self) -> None:
        """Every hospital evaluates the version."""
        self.metrics = {}
        for site in (*SITES, EVALUATOR):
            signed = self.sign(
                "metrics",
                site,
                run_id=self.run_id,
                version=self.version,
                site=site,
                cohort={"admissions": 300},
                values={"micro_f1": {"value": 0.7 if site == EVALUATOR else 0.8, "lower": 0.6, "upper": 0.9}},
                mechanism={"type": "gaussian"},
                ledger_head=digest_of(b"ledger"),
            )
            self.add("metrics.reported", version=self.version, site=site, metrics=signed)
            self.metrics[site] = digest_of(canonical_json(signed))

    def draft(self, name: str) -> ReleaseStatement:
        """What a release of the version would say."""
        earlier = any(entry.kind == "release.certified" for entry in self.entries)
        certified = certified_of(standings(self.evidence()), TASK) if earlier else None
        fields: dict[str, Any] = {
            "consortium": NAME,
            "release": name,
            "task": TASK,
            "version": self.version,
            "predecessor": certified and Predecessor(certified.release, certified.statement, certified.version),
            "plan_hash": digest_of(self.plan),
            "run_id": self.run_id,
            "sites": SITES,
            "evaluation_sites": (*SITES, EVALUATOR),
            "epsilon": 1.5,
            "delta": 1e-6,
            "accountant": "pld",
            "metrics": dict(self.metrics),
            "gates": self.gates,
            "gate_set": self.gate_set,
            "documents": {},
            "time": self.now,
            "proposer": self.keys.holders[self.proposer].digest,
            "policy": self.policy,
        }
        self.apply("release statement", fields)
        return ReleaseStatement(**fields)

    def release(self, name: str = "2027.1") -> None:
        self.report()
        self.statement = self.draft(name)
        certified = self.statement.predecessor
        digest = self.store(self.statement.to_bytes())
        self.add(
            "release.proposed",
            release=name,
            task=TASK,
            statement=digest,
            version=self.version,
            predecessor=certified and certified.release,
            proposal=self.proposal("release", digest, self.proposer),
        )
        approvers = ["Bob", "Carol"]
        self.step("release approvers", approvers=approvers)
        for approver in approvers:
            self.approve("release", digest, approver)
        self.add(
            "release.certified",
            release=name,
            statement=digest,
            version=self.version,
            approvals=[self.keys.holders[approver].digest for approver in approvers],
        )
        if certified is not None:
            self.add("release.superseded", release=certified.release, by=name, supersession=None)

    def audited(self, **changes: Any) -> None:
        """A privacy officer logs an empirical audit."""
        fields: dict[str, Any] = {
            "report": digest_of(b"report"),
            "software": "zegel 0.1",
            "claim": 1.5,
            "lower_bound": 0.4,
            "delta": 1e-6,
            "passed": True,
            "quick": False,
            "audited_at": format_time(self.now),
        }
        self.add("privacy.audited", audit=self.sign("privacy-audited", "Bob", **(fields | changes)))

    def change_status(self, who: str, status: str, by: str = "Ada") -> None:
        digest = self.keys.holders[who].digest
        signed = self.sign(
            "certificate-status", by, subject=digest, status=status, reason=self.reason("lost"), name=who
        )
        self.add("certificate.status", digest=digest, status=status, revocation=signed)

    def enrol_witness(self, site: str, key: ed25519.Ed25519PrivateKey) -> None:
        identity = identity_of(self.keys.holders[site].certificate)
        statement = enrolment_statement(NAME, f"witness.{site}", identity.organisation, key, self.now)
        holder = self.keys.holders[site]
        signed = sign_statement(statement, holder.key, holder.certificate).to_json()
        self.add("witness.enrolled", witness=f"witness.{site}", enrolment=signed)

    def withdraw(self, release: str = "2027.1", proposer: str = "Carol", approver: str = "Bob") -> None:
        """Two people take a release out of use."""
        assert self.statement is not None
        signed = self.sign(
            "withdrawal",
            proposer,
            release=release,
            digest=self.statement.digest,
            reason=self.reason("codes the dead as living"),
        )
        digest = digest_of(canonical_json(signed))
        self.add("withdrawal.proposed", release=release, withdrawal=signed)
        self.approve("withdrawal", digest, approver)
        self.add(
            "release.withdrawn",
            release=release,
            statement=self.statement.digest,
            withdrawal=digest,
            approvals=[self.keys.holders[approver].digest],
        )

    def rarities(self) -> None:
        """An entry of every kind the plain story does not need."""
        refusal = self.sign(
            "refusal", "hospital-a", plan_hash=digest_of(b""), site="hospital-a", code="budget", reason="spent"
        )
        self.add("site.refused", run_id=None, refusal=refusal)
        self.add("round.aborted", run_id="run-1", round=2, reason="", participants=[], dropped=["hospital-a"])
        self.audited()
        self.change_status("hospital-d", "suspended")
        self.change_status("hospital-d", "reinstated")
        self.enrol_witness("hospital-a", ed25519.Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
        supersession = self.sign(
            "supersession", "Carol", release="2027.1", by="2028.1", reason=self.reason("another task")
        )
        self.add("release.superseded", release="2027.1", by="2028.1", supersession=supersession)
        self.withdraw()
        self.erase(self.reason("lost"))
        self.visits()

    def visits(self) -> None:
        """Somebody signs in to the pages, a stranger is refused, and the sessions end."""
        account, at = identity_of(self.keys.holders["Ada"].certificate).name, format_time(self.now)
        self.add("access.granted", account=account, method="passkey", by=account, at=at)
        self.add("access.refused", account=None, method="passkey", reason="unknown", count=3, since=at)
        self.add("access.ended", account=account, method="sign-out-everywhere", by=account, at=at)

    def erase(self, commitment: str, by: str = "Ada") -> None:
        """An admin erases a value beside the log."""
        signed = self.sign("erasure", by, commitment=commitment, reason=self.reason("asked for it"))
        self.add("value.erased", commitment=commitment, erasure=signed)

    def reason(self, text: str) -> str:
        """The commitment to what somebody writes; the text is kept beside the log."""
        said = committed(REASON, text)
        if said not in self.reasons:
            self.reasons.append(said)
        return said.commitment

    def disclosures(self, directory: Path) -> Disclosures:
        """All names and reasons as they lie beside a log."""
        store = Disclosures(directory / "disclosures")
        for each in (*self.keys.names.values(), *self.reasons):
            store.put(each)
        return store

    def approve(self, kind: str, digest: str, who: str, decision: str = "approve") -> None:
        identity = identity_of(self.keys.holders[who].certificate)
        signed = self.sign(
            "approval",
            who,
            subject={"kind": kind, "digest": digest},
            decision=decision,
            meaning="I reviewed this and approve it",
            reason=None,
            name=identity.name,
            organisation=identity.organisation,
            role=identity.role,
        )
        self.add("approval", approval=signed)

    # Building blocks

    @property
    def version(self) -> str:
        return digest_of(self.model)

    def apply(self, what: str, fields: dict[str, Any]) -> None:
        hook = self.hooks.get(what)
        if hook is not None:
            hook(fields)

    def step(self, what: str, **fields: Any) -> None:
        self.apply(what, {"story": self, **fields})

    def sign(self, kind: str, signer: str, **fields: Any) -> dict[str, Any]:
        """A signed statement as JSON. Its hook is `signed <kind>`; it may set `signer` to a name or a
        Holder.
        """
        statement = {
            "type": f"zegel/{kind}/v1",
            "consortium": NAME,
            "time": format_time(self.now),
            "signer": signer,
            **fields,
        }
        self.apply(f"signed {kind}", statement)
        by = statement.pop("signer")
        holder = by if isinstance(by, Holder) else self.keys.holders[by]
        return holder.signed(statement).to_json()

    def add(self, kind: str, **body: Any) -> None:
        """An entry. A hook may set `skip`, to leave it out, or `time`."""
        self.now += timedelta(seconds=10)
        self.apply(kind, body)
        skip, time = body.pop("skip", False), body.pop("time", self.now)
        if not skip:
            self.entries.append(Entry(kind, time, body))

    def store(self, data: bytes) -> str:
        digest = digest_of(data)
        self.artifacts[digest] = data
        return digest

    # Results

    def statement_short(self) -> str:
        """The release statement's digest as it is shown in words."""
        assert self.statement is not None
        return self.statement.digest[:19]

    def evidence(self) -> Evidence:
        return Evidence(enumerate(self.entries), self.keys.root)

    def trace(self) -> ReleaseTrace:
        assert self.statement is not None
        return trace_release(self.evidence(), self.statement.to_bytes(), self.artifacts)

    def clock(self) -> datetime:
        return self.now

    def log(self, directory: Path) -> Log:
        """The entries in a real log."""
        log = open_log(f"sqlite:///{directory / 'log.db'}", origin=log_origin(NAME))
        log.append(self.entries[log.size :])
        return log

    def log_key(self) -> ed25519.Ed25519PrivateKey:
        key = self.keys.holders["log"].key
        assert isinstance(key, ed25519.Ed25519PrivateKey)
        return key

    def dossier(self, directory: Path, checkpoint: bytes | None = None) -> bytes:
        """The dossier of the release, through a real log and artifacts; again in the same directory to go on."""
        assert self.statement is not None
        artifacts = Artifacts(directory / "artifacts")
        for data in self.artifacts.values():
            artifacts.put(data)
        with self.log(directory) as log:
            return write_dossier(
                log,
                artifacts,
                self.disclosures(directory),
                self.statement.release,
                key=self.log_key(),
                root_pem=self.keys.root_pem,
                clock=self.clock,
                checkpoint=checkpoint,
            )


@pytest.fixture(scope="session")
def keys() -> Keys:
    return make_keys()


@pytest.fixture
def story(keys: Keys) -> Story:
    """An untold story: set hooks, then `tell()`."""
    return Story(keys)


@pytest.fixture(scope="session")
def told(keys: Keys) -> Story:
    """The story told without a flaw; read only."""
    return Story(keys).tell()


@pytest.fixture(scope="session")
def whole(keys: Keys) -> Story:
    """The story and an entry of every other kind; read only."""
    story = Story(keys).tell()
    story.rarities()
    return story


@pytest.fixture(scope="session")
def dossier(told: Story, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The flawless story's dossier."""
    return told.dossier(tmp_path_factory.mktemp("dossier"))


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    """An empty log."""
    with open_log(f"sqlite:///{tmp_path / 'log.db'}", origin=log_origin(NAME)) as opened:
        yield opened


@pytest.fixture
def entries(told: Story) -> list[Entry]:
    """The flawless story's entries."""
    return list(told.entries)


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Server]:
    """A PostgreSQL server of these tests' own."""
    with running_server(memory_folder()) as server:
        yield server


@pytest.fixture(scope="session")
def empty_database(postgresql: Server) -> str:
    """The name of a PostgreSQL database with an empty log; to be copied, not used."""
    return prepared(postgresql)


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """An empty place for a log, in each kind of database."""
    with kept(request.param, tmp_path, request) as found:
        yield found
