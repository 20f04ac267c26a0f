"""Hospitals witness the log of the runs they take part in: enrolled by themselves, asked by the coordinator."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from audit.cosignature import verify_cosignature
from audit.cosigned import Cosigned
from audit.enrolment import enrolled_key, enrolments, witness_policy
from audit.entry import WITNESS_ENROLLED, Entry
from audit.errors import CertificateError, WitnessError
from audit.evidence import Evidence
from audit.note import VerifierKey, parse_note
from audit.statement import SignedStatement
from audit.witness_policy import check_cosignatures
from audit.witness_protocol import Answer
from jobs.errors import RunAborted
from jobs.home import ConsortiumHome
from jobs.witnessing import HospitalWitnesses
from site_packages.home import SiteHome
from site_packages.witnessing import HospitalWitness
from tests.admin_api.conftest import AfterRun
from tests.admin_api.consortium_folder import EVALUATOR, NAME, TRAINERS, copied, now

EVERYBODY = (*TRAINERS, EVALUATOR)


def witness(ran: AfterRun, name: str, folder: Path) -> HospitalWitness:
    """A hospital's witness, with what it remembers of the run, in a folder of the test's own."""
    site = SiteHome(ran.sites / name)
    if (site.path / "witness").exists() and not folder.exists():
        shutil.copytree(site.path / "witness", folder)
    return HospitalWitness(
        folder, site=name, organisation=name, consortium=NAME, key=site.signing_key(), certificate=site.certificate(),
        root=site.root(), clock=now,
    )  # fmt: skip


def _log_certificate(home: ConsortiumHome) -> str:
    return (home.path / "log.crt").read_text(encoding="ascii")


def _key_of(enrolment: dict[str, object]) -> VerifierKey:
    return enrolled_key(SignedStatement.from_json(enrolment).statement)


def test_every_hospital_of_a_run_is_enrolled_and_has_cosigned_the_log(ran: AfterRun) -> None:
    with ran.home.log() as log:
        evidence = Evidence(log.entries(), ran.home.root())
        enrolled = enrolments(evidence)
        checkpoint = log.last_checkpoint()
    assert checkpoint is not None
    assert sorted(each.organisation for each in enrolled) == sorted(EVERYBODY)
    newest = max((ran.home.path / "cosigned").glob("*.note"), key=lambda path: int(path.stem))
    cosigned = check_cosignatures(newest.read_bytes(), witness_policy(enrolled, 4), now())
    assert len(cosigned) == 4
    # Cosigned when the run ended: nothing was logged since by the run.
    assert parse_note(newest.read_bytes()).text == parse_note(checkpoint).text


def test_a_witness_is_enrolled_once(after_run: AfterRun, tmp_path: Path) -> None:
    witnesses = HospitalWitnesses(after_run.home)
    each = witness(after_run, "amstel", tmp_path / "w")
    witnesses.enrol("amstel", each.enrol(_log_certificate(after_run.home)))
    with after_run.home.log() as log:
        assert len(list(log.entries(kind=WITNESS_ENROLLED))) == 4
    assert witnesses.ask({"amstel": lambda body: Answer.from_json(each.cosign(body))}) == 1


def test_an_enrolment_that_does_not_hold_is_left_out(after_run: AfterRun, tmp_path: Path) -> None:
    witnesses = HospitalWitnesses(after_run.home)
    good = witness(after_run, "amstel", tmp_path / "w").enrol(_log_certificate(after_run.home))
    with after_run.home.log() as log:
        size = log.size
    altered = SignedStatement.from_json(good).to_json()
    altered["statement"] = {**altered["statement"], "organisation": "berkel"}
    for value in (None, "x", {}, altered):
        witnesses.enrol("amstel", value)
    with after_run.home.log() as log:
        assert log.size == size
    assert witnesses.ask({"amstel": lambda body: pytest.fail("it is not enrolled")}) == 0


def test_a_hospital_refuses_a_log_that_the_root_does_not_vouch_for(
    after_run: AfterRun, founded: ConsortiumHome, tmp_path: Path
) -> None:
    each = witness(after_run, "amstel", tmp_path / "w")
    person = (after_run.people / "admin" / "person.crt").read_text(encoding="ascii")
    with pytest.raises(CertificateError, match="role"):
        each.enrol(person)
    with pytest.raises(RuntimeError, match="log's certificate"):
        witness(after_run, "amstel", tmp_path / "w2").cosign(b"")


def test_a_log_that_was_set_back_ends_the_run(ran: AfterRun, founded: ConsortiumHome, tmp_path: Path) -> None:
    """The consortium restores the founding log, with its checkpoint file too: no hospital that saw more cosigns it."""
    home = copied(founded.path, tmp_path / "restored")
    witnesses = HospitalWitnesses(home)
    each = witness(ran, "amstel", tmp_path / "w")
    witnesses._keys["amstel"] = _key_of(each.enrol(_log_certificate(home)))  # as if it had been enrolled again
    with pytest.raises(RunAborted, match=r"amstel does not cosign the log: .*set back"):
        witnesses.ask({"amstel": lambda body: Answer.from_json(each.cosign(body))})


def test_a_second_history_of_the_log_ends_the_run_and_is_kept(
    ran: AfterRun, founded: ConsortiumHome, tmp_path: Path
) -> None:
    """The same log key signs another history, longer than the one the hospital saw: a split view."""
    home = copied(founded.path, tmp_path / "forked")
    with ran.home.log() as log:
        size = log.size
    with home.log() as fork:
        template = next(entry for _, entry in fork.entries())
        fork.append([Entry(template.kind, template.time, template.body) for _ in range(size + 3 - fork.size)])
    home.sign_checkpoint()
    witnesses = HospitalWitnesses(home)
    each = witness(ran, "amstel", tmp_path / "w")
    with home.log() as log:
        checkpoint = log.last_checkpoint()
    assert checkpoint is not None
    witnesses._keys["amstel"] = _key_of(each.enrol(_log_certificate(home)))
    with pytest.raises(RunAborted, match="amstel does not cosign the log"):
        witnesses.ask({"amstel": lambda body: Answer.from_json(each.cosign(body))})
    assert list((tmp_path / "w" / "incidents").glob("*.json"))


def test_a_hospital_that_cannot_be_reached_is_asked_again_later(after_run: AfterRun, tmp_path: Path) -> None:
    witnesses = HospitalWitnesses(after_run.home)
    each = witness(after_run, "berkel", tmp_path / "w")
    witnesses.enrol("berkel", each.enrol(_log_certificate(after_run.home)))

    def lost(body: bytes) -> Answer:
        raise WitnessError("no answer")

    assert witnesses.ask({"berkel": lost, "unknown": lost}) == 0
    assert witnesses.ask({"berkel": lambda body: Answer.from_json(each.cosign(body))}) == 1
    key = witnesses._keys["berkel"]
    newest = Cosigned(after_run.home.path / "cosigned").seen_by(key)
    note = (after_run.home.path / "cosigned" / f"{newest}.note").read_bytes()
    line = next(line for line in parse_note(note).signatures if line.by(key))
    assert verify_cosignature(parse_note(note).text, line, key).key == key
