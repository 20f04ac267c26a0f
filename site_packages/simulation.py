"""A whole federation in one process: the real coordinator and participants over the in-memory transport.

Used by `zegel benchmark text` and by tests. Everything but the network is real: certificates under one root, an
approved plan, guards, ledgers on disk, masks, noise, receipts that the coordinator checks. Certificates are made on the
spot and mean nothing outside.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from audit.artifacts import Artifacts
from audit.canonical import digest_of, format_time
from audit.certificates import PRIVACY_OFFICER, PrivateKey, certificate_digest, issue_certificate
from audit.release import APPROVE
from audit.statement import APPROVAL, sign_statement
from jobs.coordinator import Coordinator, Outcome
from jobs.plan import Plan
from jobs.progress import Progress
from jobs.run_state import RunState
from jobs.standing import Standing
from jobs.timings import TimedCall
from jobs.transport import InMemoryTransport, Transport
from privacy.ledger import Ledger
from privacy.secagg.memory import InMemoryRoundMemory
from privacy.secagg.quantisation import FloatVector
from site_packages.dataset import Dataset
from site_packages.limits import TRAINING, VALIDATION, Limits
from site_packages.local_work import LocalWork
from site_packages.outbox import InMemoryOutbox
from site_packages.participant import Participant

RandomBytes = Callable[[int], bytes]

OFFICER = "person-5100000000000000"  # the simulated privacy officer's person id


@dataclass(frozen=True, eq=False)
class SiteRecords:
    """A hospital's admissions on both sides of its split."""

    training: Dataset
    test: Dataset


@dataclass(frozen=True)
class Keyring:
    """A root, one certificate per hospital and a privacy officer, made for this process."""

    consortium: str
    root: x509.Certificate
    root_key: ec.EllipticCurvePrivateKey
    certificates: Mapping[str, x509.Certificate]  # by digest
    sites: Mapping[str, tuple[PrivateKey, x509.Certificate]]
    officer: tuple[PrivateKey, x509.Certificate]


def make_keyring(consortium: str, sites: tuple[str, ...], *, now: datetime, valid_days: int = 30) -> Keyring:
    """Certificates of the forms NVFlare's flow and our own give out."""
    from nvflare.lighter.utils import Identity, generate_cert

    root_key = ec.generate_private_key(ec.SECP256R1())
    begin, end = now - timedelta(hours=1), now + timedelta(days=valid_days)
    root: x509.Certificate = generate_cert(
        Identity(consortium), Identity(consortium), root_key, root_key.public_key(), ca=True,
        not_valid_before=begin, not_valid_after=end,
    )  # fmt: skip
    usage = x509.KeyUsage(
        digital_signature=True, content_commitment=False, key_encipherment=True, data_encipherment=False,
        key_agreement=False, key_cert_sign=False, crl_sign=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    holders: dict[str, tuple[PrivateKey, x509.Certificate]] = {}
    for site in sites:
        key = ec.generate_private_key(ec.SECP256R1())
        certificate: x509.Certificate = generate_cert(
            Identity(site, site.replace("-", "_"), "client"), Identity(consortium), root_key, key.public_key(),
            not_valid_before=begin, not_valid_after=end,
            extra_extensions=[(x509.BasicConstraints(ca=False, path_length=None), True), (usage, True)],
        )  # fmt: skip
        holders[site] = (key, certificate)
    officer_key = ec.generate_private_key(ec.SECP256R1())
    officer = issue_certificate(
        officer_key.public_key(), name=OFFICER, organisation="simulation", role=PRIVACY_OFFICER,
        root_cert=root, root_key=root_key, not_before=begin.replace(microsecond=0),
        not_after=root.not_valid_after_utc,
    )  # fmt: skip
    everybody = [officer, *(certificate for _, certificate in holders.values())]
    return Keyring(
        consortium=consortium,
        root=root,
        root_key=root_key,
        certificates={certificate_digest(certificate): certificate for certificate in everybody},
        sites=holders,
        officer=(officer_key, officer),
    )


def approve_plan(keyring: Keyring, plan: Plan, *, now: datetime) -> dict[str, Any]:
    """The simulated officer's approval of a plan, as JSON."""
    key, certificate = keyring.officer
    return sign_statement(
        {
            "type": APPROVAL,
            "consortium": keyring.consortium,
            "time": format_time(now),
            "subject": {"kind": "plan", "digest": plan.hash},
            "decision": APPROVE,
            "meaning": "simulated",
            "reason": None,
            "name": OFFICER,
            "organisation": "simulation",
            "role": PRIVACY_OFFICER,
        },
        key,
        certificate,
    ).to_json()


@dataclass
class Simulation:
    """A federation ready to run a plan.

    Attributes:
        folder: where ledgers and artifacts go.
        records: hospital -> its admissions.
        limits: what every hospital allows.
        budget: (epsilon, delta) each hospital's officer sets for both cohorts.
        random_bytes: of every hospital; seeded in tests, `os.urandom` otherwise.
        wrap: put around the transport, so that a test may drop or alter messages.
        models: installed encoders, the same for every hospital.
        announced: manifests the coordinator takes as logged; None: it does not ask.
        opened: shown the number and the sum of every aggregation.
        timed: told how long every call took, and at which hospital.
        entries: what was recorded, in order.
        states: the run's states as the coordinator kept them; `run` goes on from the last.
        standing: whose certificates count, as the coordinator is told; a test may change it while a run goes on.
    """

    plan: Plan
    records: Mapping[str, SiteRecords]
    folder: Path
    limits: Limits = field(default_factory=Limits)
    budget: tuple[float, float] = (100.0, 1e-5)
    random_bytes: RandomBytes = os.urandom
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    wrap: Callable[[Transport], Transport] = lambda transport: transport
    progress: Callable[[Progress], None] = lambda _: None
    announced: Mapping[str, frozenset[str]] | None = None
    models: Path | None = None
    opened: Callable[[int, FloatVector], None] = lambda number, total: None
    timed: Callable[[str, TimedCall], None] = lambda site, call: None
    run_id: str = "run-20260101T000000Z-000000"
    states: list[RunState] = field(default_factory=list)
    entries: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        now = self.clock()
        self.keyring = make_keyring(self.plan.consortium, tuple(sorted(self.records)), now=now)
        self.standing = Standing(self.keyring.certificates)
        self.ledgers: dict[str, Ledger] = {}
        self.participants = {site: self._participant(site) for site in sorted(self.records)}
        self.transport = InMemoryTransport({site: each.handle for site, each in self.participants.items()})
        self.artifacts = Artifacts(self.folder / "artifacts")

    def run(self) -> Outcome:
        """Carry out the plan, or what is left of it. Raises RunAborted and RunInterrupted as the coordinator does."""
        return Coordinator(
            plan=self.plan,
            run_id=self.run_id,
            transport=self.wrap(self.transport),
            approvals=[approve_plan(self.keyring, self.plan, now=self.clock())],
            standing=lambda: self.standing,
            root=self.keyring.root,
            record=self._record,
            recorded=self._recorded,
            store=self._store,
            fetch=self.artifacts.get,
            save=self._save,
            resume=RunState.from_bytes(self.states[-1].to_bytes()) if self.states else None,
            clock=self.clock,
            announced=self.announced,
            opened=self.opened,
            progress=self.progress,
        ).run()

    def _record(self, kind: str, body: Mapping[str, Any]) -> int:
        self.entries.append((kind, dict(body)))
        return len(self.entries)

    def _save(self, state: RunState) -> None:
        self.states.append(state)

    def _store(self, data: bytes) -> str:
        return self.artifacts.put(data)

    def _recorded(self, kind: str) -> list[Mapping[str, Any]]:
        return [body for name, body in self.entries if name == kind]

    def _participant(self, site: str) -> Participant:
        # By number: a hospital's name may hold what a path must not.
        folder = self.folder / f"site-{sorted(self.records).index(site) + 1:02}"
        folder.mkdir(parents=True)
        ledger = Ledger.create(folder / "ledger.db", site=site, clock=self.clock)
        for cohort in (TRAINING, VALIDATION):
            ledger.set_budget(
                cohort,
                epsilon=self.budget[0],
                delta=self.budget[1],
                officer="Simulated Officer",
                reason="simulation",
            )
        self.ledgers[site] = ledger
        key, certificate = self.keyring.sites[site]
        records = self.records[site]
        return Participant(
            site=site,
            consortium=self.plan.consortium,
            key=key,
            certificate=certificate,
            root=self.keyring.root,
            limits=self.limits,
            ledger=ledger,
            memory=InMemoryRoundMemory(),
            outbox=InMemoryOutbox(),
            manifest=lambda: digest_of(site.encode()).encode(),
            load_work=lambda plan: LocalWork(plan, records.training, records.test, models=self.models),
            known_codes=None,
            installed_encoders=frozenset() if self.models is None else _installed(self.models),
            random_bytes=self.random_bytes,
            clock=self.clock,
            timed=lambda call: self.timed(site, call),
        )


def _installed(models: Path) -> frozenset[str]:
    return frozenset(f"sha256:{folder.name}" for folder in models.iterdir() if len(folder.name) == 64)
