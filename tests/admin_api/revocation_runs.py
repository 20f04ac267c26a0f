"""Runs of four hospitals in a real consortium, with its log, in which something happens to a certificate meanwhile.

Only the network is fake. One hospital may be missing in a round.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from admin_api.onboarding import log_manifest
from admin_api.planning import decide, propose
from admin_api.recording import read_evidence
from admin_api.revoking import change_status
from audit.canonical import digest_of
from audit.entry import VERSION_CREATED
from audit.run_trace import RunTrace, trace_run
from jobs.home import ConsortiumHome
from jobs.plan import Plan
from jobs.records import read_result
from jobs.run import carry_out_run
from jobs.transport import InMemoryTransport, Message
from privacy.ledger import Ledger
from privacy.secagg.memory import InMemoryRoundMemory
from site_packages.home import SiteHome
from site_packages.limits import TRAINING, VALIDATION, Limits
from site_packages.local_work import LocalWork
from site_packages.outbox import InMemoryOutbox
from site_packages.participant import Participant
from site_packages.revocations import KnownRevocations
from tests.admin_api.consortium_folder import (
    NAME,
    RUN,
    agree_on_gates,
    data_statement,
    enrol_person,
    enrol_site,
    now,
    opened,
    plan_of,
)
from tests.jobs.small_federation import Alter, AlteringTransport, Answer, letters, seeded

SITES = ("amstel", "berkel", "dommel", "geul")
WHO = ("admin", "officer", "manager")


def four_hospitals() -> Plan:
    return plan_of(sites=SITES, evaluation_sites=("amstel",), dropouts=1, rounds=2, name="four")


@dataclass(frozen=True)
class Prepared:
    """A consortium with an approved plan for its four hospitals."""

    home: ConsortiumHome
    people: Path
    sites: Path
    plan_hash: str


def prepare(home: ConsortiumHome, folder: Path) -> Prepared:
    """Enrol everybody, propose and approve the plan."""
    people, sites = folder / "people", folder / "sites"
    for who in WHO:
        enrol_person(home, who, people / who)
    for name in SITES:
        site = enrol_site(home, name, sites / name)
        path = sites / f"{name}.statement.json"
        path.write_text(json.dumps(data_statement(site, manifest=digest_of(name.encode()))), encoding="utf-8")
        log_manifest(home, path)
    agree_on_gates(home, people)
    plan_hash = propose(home, four_hospitals(), opened(home, people / "admin"))
    decide(home, "plan", plan_hash, opened(home, people / "officer"), approve=True, reason="fits")
    return Prepared(home, people, sites, plan_hash)


def member(site: SiteHome, folder: Path) -> Participant:
    """A hospital's participant as a process of its own would make it; `folder` is what it keeps between processes."""
    name = site.identity().name
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}.ledger.db"
    if path.exists():
        ledger = Ledger.open(path, clock=now)
    else:
        ledger = Ledger.create(path, site=name, clock=now)
        for cohort in (TRAINING, VALIDATION):
            ledger.set_budget(cohort, epsilon=100.0, delta=1e-5, officer="Officer", reason="test")
    return Participant(
        site=name,
        consortium=NAME,
        key=site.signing_key(),
        certificate=site.certificate(),
        root=site.root(),
        limits=Limits(),
        ledger=ledger,
        memory=InMemoryRoundMemory(),
        outbox=InMemoryOutbox(),
        revocations=KnownRevocations(folder / f"{name}.note", consortium=NAME, root=site.root(), clock=now),
        manifest=lambda: name.encode(),
        load_work=lambda plan: LocalWork(plan, letters(name, 12), letters(f"{name} test", 6)),
        known_codes=None,
        random_bytes=seeded(sum(name.encode())),
        clock=now,
    )


@dataclass
class Run:
    """One run; `alter` sees every call, and can do things in between."""

    prepared: Prepared
    folder: Path
    alter: Alter = lambda method, site, request, real: real()
    members: dict[str, Participant] = field(default_factory=dict)
    calls: list[tuple[str, str, int]] = field(default_factory=list)  # method, hospital, round or 0

    def __post_init__(self) -> None:
        for name in SITES:
            self.start(SiteHome(self.prepared.sites / name))

    def start(self, site: SiteHome) -> None:
        """Start a hospital's process, or start it again."""
        self.members[site.identity().name] = member(site, self.folder / "hospitals")

    def carry_out(self) -> dict[str, Any]:
        """Carry the run out, or what is left of it; returns its result."""
        home = self.prepared.home

        def heard(method: str, site: str, request: Message, real: Callable[[], Answer]) -> Any:
            self.calls.append((method, site, round_of(request)))
            return self.alter(method, site, request, real)

        handlers = {
            name: lambda method, message, name=name: self.members[name].handle(method, message) for name in SITES
        }
        transport = AlteringTransport(InMemoryTransport(handlers), heard)
        carry_out_run(home.path, run_id=RUN, plan_hash=self.prepared.plan_hash, transport=transport)
        result = read_result(home, RUN)
        assert result is not None
        return result

    def trace(self) -> RunTrace:
        """The run as a verifier rebuilds it from the log; raises when anything in it does not count."""
        evidence = read_evidence(self.prepared.home)
        plan = self.prepared.home.artifacts().get(self.prepared.plan_hash)
        created = evidence.of_kind(VERSION_CREATED)[0]
        return trace_run(evidence, created, {self.prepared.plan_hash: plan}, ["privacy_officer"])

    def asked(self, site: str) -> list[int]:
        """The rounds a hospital was asked for a vector in."""
        return [number for method, name, number in self.calls if (method, name) == ("round", site)]

    def change(self, name: str, status: str) -> tuple[str, ...]:
        """What `zegel consortium suspend`, `reinstate` and `revoke` do."""
        admin = opened(self.prepared.home, self.prepared.people / "admin")
        return change_status(self.prepared.home, name, status=status, reason="a lost laptop", admin=admin)


def round_of(request: Message) -> int:
    """The round a call is about, 0 if none."""
    protocol = request.get("secagg")
    return int(protocol["round"]) if isinstance(protocol, dict) else 0


def once(method: str, number: int, site: str, act: Callable[[], object]) -> Alter:
    """Does something once, after a hospital answered a call of a round."""
    done: list[bool] = []

    def alter(asked: str, name: str, request: Message, real: Callable[[], Answer]) -> Any:
        answer = real()
        if not done and (asked, round_of(request), name) == (method, number, site):
            done.append(True)
            act()
        return answer

    return alter
