"""A real consortium for tests: founded once, then copied; people and hospitals join by the real flow.

Founding and NVFlare's request flow run as they stand. The only fake is the network: runs go over the in-memory
transport, so no server starts.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from admin_api.cli import app
from admin_api.errors import ApprovalError
from admin_api.founding import found
from admin_api.gate_setting import set_gates
from admin_api.onboarding import Request, approve, decide_request, description_of, log_manifest, read_request
from admin_api.people import Person, open_person
from admin_api.person_requests import request_person
from admin_api.planning import decide, propose
from audit.canonical import digest_of, format_time
from audit.certificates import certificate_digest
from audit.entry import Entry
from audit.release import DEFAULT_POLICY
from audit.statement import DATA_MANIFEST, sign_statement
from audit.store import Log
from jobs.home import ConsortiumHome
from jobs.plan import Plan
from jobs.run import carry_out_run
from jobs.standing import certificate_evidence
from jobs.transport import InMemoryTransport
from privacy.ledger import Ledger
from privacy.secagg.memory import InMemoryRoundMemory
from site_packages.home import SiteHome
from site_packages.installing import install, request_site
from site_packages.limits import TRAINING, VALIDATION, Limits
from site_packages.local_work import LocalWork
from site_packages.outbox import InMemoryOutbox
from site_packages.participant import Participant
from site_packages.revocations import KnownRevocations
from site_packages.witnessing import HospitalWitness
from tests.jobs.small_federation import letters, seeded, small_plan

NAME = "Delta"
PASSPHRASE = "correct horse"  # noqa: S105  of a test's keys
TRAINERS = ("amstel", "berkel", "dommel")
EVALUATOR = "geul"
GATES = ("epsilon<=100", "hit@1@every-site>=-5")
RUN = "run-20261122T050000Z-00000a"
PEOPLE = {
    "admin": ("Ada Beheer", "bureau", "consortium_admin"),
    "officer": ("Pieter Privacy", "privacy board", "privacy_officer"),
    "manager": ("Rosa Release", "coding centre", "release_manager"),
    "second": ("Sven Tweede", "bureau", "release_manager"),
}


def found_at(path: Path) -> ConsortiumHome:
    """A founded consortium; whatever NVFlare would write to the user's home or the temporary folder is beside it."""
    home = ConsortiumHome(path)
    with pytest.MonkeyPatch.context() as patch:
        for name, folder in (("HOME", "user"), ("TMPDIR", "tmp")):
            (path.parent / folder).mkdir()
            patch.setenv(name, str(path.parent / folder))
        patch.setattr(tempfile, "tempdir", None)
        found(
            home,
            name=NAME,
            organisation="bureau",
            server_host="localhost",
            fed_learn_port=8002,
            admin_port=8003,
            passphrase=PASSPHRASE.encode(),
        )
        assert os.environ["HOME"] == str(path.parent / "user")
    return home


def copied(source: Path, target: Path, clock: Callable[[], datetime] | None = None) -> ConsortiumHome:
    """A copy of a consortium's folder whose kit points to itself."""
    shutil.copytree(source, target, symlinks=True)
    for name in ("zegel.json", "resources.json"):
        path = target / "server" / "kit" / "local" / name
        path.write_text(path.read_text(encoding="utf-8").replace(str(source), str(target)), encoding="utf-8")
    return ConsortiumHome(target) if clock is None else ConsortiumHome(target, clock)


def snapshot(*folders: Path) -> dict[str, tuple[int, bytes | None]]:
    """Mode and bytes of everything below these folders, to be compared before and after."""
    return {
        str(path): (stat.S_IMODE(path.lstat().st_mode), path.read_bytes() if path.is_file() else None)
        for folder in folders
        for path in (folder, *sorted(folder.rglob("*")))
    }


def zegel(*arguments: object, **environment: str) -> Result:
    """Run the command line in this process; there is no terminal, as in a script."""
    passphrases = {"ZEGEL_ROOT_PASSPHRASE": PASSPHRASE, "ZEGEL_PERSON_PASSPHRASE": PASSPHRASE}
    return CliRunner().invoke(app, [str(each) for each in arguments], env=passphrases | environment)


def refused(*arguments: object, code: int = 1, **environment: str) -> str:
    """Run a command that must be refused in good order; returns what it told the user."""
    result = zegel(*arguments, **environment)
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    assert result.stderr.strip(), "refused without a word"
    return " ".join(result.stderr.split())


class WatchedLog(ConsortiumHome):
    """Calls `around` before and after each append to its log; what it raises, the log raises."""

    around: Callable[[], None]

    def log(self) -> Log:
        log = super().log()
        really = log.append

        def append(entries: Sequence[Entry], *, expected_size: int | None = None) -> list[int]:
            self.around()
            indices = really(entries, expected_size=expected_size)
            self.around()
            return list(indices)

        log.append = append  # type: ignore[method-assign]
        return log


_ENROLLED: dict[str, Path] = {}  # folders of the people these tests enrolled, by the digest of their certificates


def approvers(home: ConsortiumHome) -> list[Person]:
    """An admin and an officer of this consortium whose keys are at hand; nobody while one of the two is missing."""
    found: dict[str, Person] = {}
    for digest in home.certificates():
        folder = _ENROLLED.get(digest)
        if folder is not None and (folder / "person.key").exists():
            with contextlib.suppress(ApprovalError):  # revoked, renewed or expired
                person = open_signer_in(home, folder)
                found.setdefault(person.identity.role, person)
    both = [found.get("consortium_admin"), found.get("privacy_officer")]
    return [each for each in both if each is not None] if all(both) else []


def agreed(home: ConsortiumHome, path: Path) -> Request:
    """A request that may be answered: approved by those who can, if there are such people."""
    request = read_request(path)
    for person in approvers(home):
        decide_request(home, description_of(home, request).digest, person, approve=True, reason="")
    return request


def enrol_site(home: ConsortiumHome, name: str, folder: Path) -> SiteHome:
    """A hospital that has asked, been approved and installed its kit."""
    site = SiteHome(folder)
    request = request_site(site, name=name, organisation=name, consortium=NAME)
    reply = folder.parent / f"{name}.signed.zip"
    approve(home, agreed(home, request), passphrase=PASSPHRASE.encode(), out=reply)
    install(site, reply, fingerprint=home.config().root_fingerprint)
    return site


def enrol_person(home: ConsortiumHome, who: str, folder: Path) -> Path:
    """A person with key and certificate in `folder`."""
    name, organisation, role = PEOPLE[who]
    request = request_person(folder, name=name, organisation=organisation, role=role, passphrase=PASSPHRASE.encode())
    certificate = approve(home, agreed(home, request), passphrase=PASSPHRASE.encode(), out=folder / "person.crt")
    _ENROLLED[certificate_digest(certificate)] = folder
    return folder


def opened(home: ConsortiumHome, folder: Path) -> Person:
    return open_person(folder, passphrase=PASSPHRASE.encode(), root=home.root(), now=home.clock())


def open_signer_in(home: ConsortiumHome, folder: Path) -> Person:
    """Like `opened`, unless the log bars the certificate."""
    revocations = certificate_evidence(home).revocations
    return open_person(
        folder, passphrase=PASSPHRASE.encode(), root=home.root(), now=home.clock(), revocations=revocations
    )


def plan_of(**changes: Any) -> Plan:
    return small_plan(**({"consortium": NAME, "sites": TRAINERS, "evaluation_sites": (*TRAINERS, EVALUATOR)} | changes))


def participant(site: SiteHome) -> Participant:
    """The hospital's real participant, with few letters in memory instead of an imported data set."""
    name = site.identity().name
    ledger = Ledger.create(site.path / "ledger.db", site=name, clock=now)
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
        witness=HospitalWitness(
            site.path / "witness",
            site=name,
            organisation=name,
            consortium=NAME,
            key=site.signing_key(),
            certificate=site.certificate(),
            root=site.root(),
            clock=now,
        ),
        manifest=lambda: name.encode(),
        load_work=lambda plan: LocalWork(plan, letters(name, 12), letters(f"{name} test", 6)),
        known_codes=None,
        revocations=KnownRevocations(site.path / "revocations.note", consortium=NAME, root=site.root(), clock=now),
        random_bytes=seeded(sum(name.encode())),  # each its own: noise that is the same everywhere adds up
        clock=now,
    )


def data_statement(hospital: SiteHome, /, **changes: object) -> dict[str, Any]:
    """A hospital's signed statement about its data, as JSON."""
    name = hospital.identity().name
    fields: dict[str, object] = {
        "type": DATA_MANIFEST,
        "consortium": NAME,
        "time": format_time(now()),
        "site": name,
        "manifest": "sha256:" + "1" * 64,
        "admissions": 120,
        "patients": 100,
        "period_first": "2025-01-01",
        "period_last": "2025-12-31",
    }
    return sign_statement(fields | changes, hospital.signing_key(), hospital.certificate()).to_json()


def now() -> datetime:
    return datetime.now(UTC)


def agree_on_gates(home: ConsortiumHome, people: Path, *gates: str) -> None:
    """A release manager sets gates, by default ones that noise on a handful of letters does not fail."""
    manager = opened(home, people / "manager")
    set_gates(
        home, task="icd_coding", gates=gates or GATES, policy=DEFAULT_POLICY, reason="agreed in advance", person=manager
    )


def run_plan(home: ConsortiumHome, plan: Plan, people: Path, sites: Path, *, run_id: str = RUN) -> str:
    """Enrol everybody, propose, approve and carry out a plan; returns its hash."""
    for who in PEOPLE:
        enrol_person(home, who, people / who)
    hospitals = {name: enrol_site(home, name, sites / name) for name in (*TRAINERS, EVALUATOR)}
    for name, site in hospitals.items():
        path = sites / f"{name}.statement.json"
        path.write_text(json.dumps(data_statement(site, manifest=digest_of(name.encode()))), encoding="utf-8")
        log_manifest(home, path)
    agree_on_gates(home, people)
    plan_hash = propose(home, plan, opened(home, people / "admin"))
    decide(home, "plan", plan_hash, opened(home, people / "officer"), approve=True, reason="fits")
    transport = InMemoryTransport({name: participant(site).handle for name, site in hospitals.items()})
    outcome = carry_out_run(home.path, run_id=run_id, plan_hash=plan_hash, transport=transport)
    assert outcome is not None
    return plan_hash
