"""Documents around a real run: made at the proposal, read and signed by approvers, stamped and checked at the end."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from admin_api.dossier_documents import software as software_module
from admin_api.dossier_documents.ml_bom import check_ml_bom
from admin_api.dossier_documents.software import record_software, source_digest
from admin_api.dossier_documents.time_stamp import request_time_stamp
from admin_api.errors import ReleaseRefused
from admin_api.releasing import load_statement, propose_release
from audit.archive import unpack
from audit.canonical import digest_of
from audit.documents.collection import (
    CANDIDATE_REPORT,
    ENVELOPE,
    FOLDER,
    MODEL_SIGNATURE,
    PROVENANCE,
    REPORT,
    TIME_STAMP,
)
from audit.documents.notes import ReleaseNotes
from audit.documents.privacy_curve import PrivacyCurve
from audit.documents.software import Software
from audit.errors import ReleaseError
from audit.time_stamp import verify_time_stamp
from audit.verify import verify_dossier
from tests.admin_api.conftest import AfterRun
from tests.admin_api.consortium_folder import RUN, TRAINERS, copied, opened, refused, zegel
from tests.audit.other_tools import verified_payload, verify_model
from tests.audit.time_stamping_authority import Authority

RELEASE = "2027.1"
NOTES: dict[str, Any] = {
    "schema": "zegel/release-notes/v1",
    "title": "Day admissions coder",
    "intended_use": "Proposes the main diagnosis of a day admission.",
    "users": ["trained medical coders"],
    "exclusions": [],
    "icd_edition": "ICD-10 2019",
    "coding_rules": "national guideline 2025",
    "language": "nl",
    "licence": "Apache-2.0",
    "known_failures": [],
    "drift_triggers": [],
    "rollback": None,
    "expires": "2027-12-31",
    "coder_agreement": None,
    "contact": "coding office",
}
needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl, the authority here, is missing")


def proposed(after: AfterRun, folder: Path, *, notes: dict[str, Any] | None = NOTES) -> None:
    path = folder / "notes.json"
    path.write_text(json.dumps(NOTES if notes is None else notes, indent=2), encoding="utf-8")
    given = () if notes is None else ("--notes", path)
    done = zegel(
        *("release", "propose", RELEASE, "--run", RUN, "--as", after.people / "admin", "--home", after.home.path),
        *given,
    )
    assert done.exit_code == 0, done.output


def approved(after: AfterRun) -> None:
    for who in ("officer", "manager"):
        done = zegel("release", "approve", RELEASE, "--as", after.people / who, "--home", after.home.path)
        assert done.exit_code == 0, done.output


@pytest.fixture(scope="module")
def released(ran: AfterRun, tmp_path_factory: pytest.TempPathFactory) -> tuple[AfterRun, Path]:
    """A certified release with documents, by the commands, and its dossier. Read only."""
    folder = tmp_path_factory.mktemp("released")
    after = AfterRun(copied(ran.home.path, folder / "consortium"), ran.people, ran.sites, ran.plan_hash)
    proposed(after, folder)
    approved(after)
    out = folder / "release.dossier"
    done = zegel("release", "certify", RELEASE, "--home", after.home.path, "--out", out)
    assert done.exit_code == 0, done.output
    return after, out


def documents_in(path: Path) -> dict[str, bytes]:
    members = unpack(path.read_bytes())
    return {name.removeprefix(FOLDER): data for name, data in members.items() if name.startswith(FOLDER)}


# -- the whole way


def test_a_dossier_verifies_with_all_documents(released: tuple[AfterRun, Path]) -> None:
    after, path = released
    root = (after.home.ca / "rootCA.pem").read_bytes()
    report = verify_dossier(path.read_bytes(), root, now=after.home.clock())
    findings = {check.name: check.finding for check in report.documents}
    assert len(findings) == 12
    assert sum("made again from the evidence" in finding for finding in findings.values()) == 7
    assert findings[ENVELOPE].startswith("signed by ")
    assert "Rosa Release" in findings[ENVELOPE]
    assert "Pieter Privacy" in findings[ENVELOPE]
    assert findings[MODEL_SIGNATURE] == "signed by Rosa Release (release_manager, coding centre)"


def test_other_tools_verify_the_signatures(released: tuple[AfterRun, Path], tmp_path: Path) -> None:
    after, path = released
    documents = documents_in(path)
    people = [opened(after.home, after.people / who) for who in ("officer", "manager")]
    signers = {each.certificate_digest: each.certificate for each in people}
    assert verified_payload(documents[ENVELOPE], signers) == documents[PROVENANCE]
    (tmp_path / "model.safetensors").write_bytes(unpack(path.read_bytes())["model.safetensors"])
    (tmp_path / "bundle.json").write_bytes(documents[MODEL_SIGNATURE])
    verify_model(tmp_path / "model.safetensors", tmp_path / "bundle.json", after.home.ca / "rootCA.pem")


def test_certifying_again_writes_the_same_documents(released: tuple[AfterRun, Path], tmp_path: Path) -> None:
    after, path = released
    again = tmp_path / "again.dossier"
    assert zegel("release", "certify", RELEASE, "--home", after.home.path, "--out", again).exit_code == 0
    assert documents_in(again) == documents_in(path)


def test_the_curve_is_the_accountant_s(released: tuple[AfterRun, Path]) -> None:
    after, path = released
    curve = PrivacyCurve.from_bytes(documents_in(path)["privacy-curve.json"])
    with after.home.log() as log:
        finished = next(entry.body for _, entry in log.entries(kind="run.finished"))
    assert curve.points[-1][0] == finished["rounds"]
    assert curve.points[-1][1] == pytest.approx(finished["epsilon"], rel=0.01, abs=0.01)
    assert [epsilon for _, epsilon in curve.points] == sorted(epsilon for _, epsilon in curve.points)


def test_every_hospital_is_in_the_report(released: tuple[AfterRun, Path]) -> None:
    report = documents_in(released[1])[REPORT].decode()
    for each in (*TRAINERS, "geul", "Day admissions coder", "2027-12-31", "privacy board", "coding centre"):
        assert each in report


# -- proposing


def test_approvers_read_what_they_bind(after_run: AfterRun, tmp_path: Path) -> None:
    proposed(after_run, tmp_path)
    folder = tmp_path / "documents"
    done = zegel("release", "documents", RELEASE, "--home", after_run.home.path, "--out", folder, "--json")
    listed = json.loads(done.stdout)["documents"]
    assert {path.name: digest_of(path.read_bytes()) for path in folder.iterdir()} == listed
    assert listed == load_statement(after_run.home, RELEASE).documents
    assert "A candidate: nobody has approved it yet." in (folder / CANDIDATE_REPORT).read_text(encoding="utf-8")
    assert "exists already" in refused("release", "documents", RELEASE, "--home", after_run.home.path, "--out", folder)


def test_without_notes_the_documents_say_so(after_run: AfterRun, tmp_path: Path) -> None:
    proposed(after_run, tmp_path, notes=None)
    digests = load_statement(after_run.home, RELEASE).documents
    assert "release-notes.json" not in digests
    text = after_run.home.artifacts().get(digests[CANDIDATE_REPORT]).decode()
    assert "No release notes were given: intended use, exclusions, edition and coding rules are not stated." in text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"title": "<name of the model, as people will read it>"}, "still holds the template's text"),
        ({"expires": "soon"}, "expected a day such as 2027-12-31"),
        ({"licence": "my own"}, "expected an SPDX identifier or expression such as Apache-2.0"),
    ],
)
def test_notes_that_cannot_be_used_propose_nothing(
    after_run: AfterRun, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    path = tmp_path / "notes.json"
    path.write_text(json.dumps(NOTES | change), encoding="utf-8")
    told = refused(
        *("release", "propose", RELEASE, "--run", RUN, "--as", after_run.people / "admin"),
        *("--home", after_run.home.path, "--notes", path),
    )
    assert message in told
    with pytest.raises(ReleaseRefused, match=r"no release '2027\.1' was proposed"):
        load_statement(after_run.home, RELEASE)


def test_the_template_is_printed_and_written_once(tmp_path: Path) -> None:
    printed = zegel("release", "notes-template").stdout
    assert json.loads(printed)["schema"] == NOTES["schema"]
    path = tmp_path / "notes.json"
    assert zegel("release", "notes-template", "--out", path).exit_code == 0
    assert path.read_text(encoding="utf-8") == printed
    assert "exists already" in refused("release", "notes-template", "--out", path)


# -- signing


def test_only_approvers_signatures_enter(after_run: AfterRun, tmp_path: Path) -> None:
    """Somebody who refused after all signed nothing that counts."""
    proposed(after_run, tmp_path)
    home = after_run.home.path
    assert zegel("release", "approve", RELEASE, "--as", after_run.people / "second", "--home", home).exit_code == 0
    approved(after_run)
    done = zegel(
        *("release", "approve", RELEASE, "--refuse", "--reason", "on reflection, no"),
        *("--as", after_run.people / "second", "--home", home),
    )
    assert done.exit_code == 0, done.output
    out = tmp_path / "release.dossier"
    assert "refused by Sven Tweede" in refused("release", "certify", RELEASE, "--home", home, "--out", out)
    assert zegel("release", "approve", RELEASE, "--as", after_run.people / "second", "--home", home).exit_code == 0
    assert zegel("release", "certify", RELEASE, "--home", home, "--out", out).exit_code == 0
    assert len(json.loads(documents_in(out)[ENVELOPE])["signatures"]) == 3


def test_a_refusal_signs_nothing(after_run: AfterRun, tmp_path: Path) -> None:
    proposed(after_run, tmp_path)
    done = zegel(
        *("release", "approve", RELEASE, "--refuse", "--reason", "no"),
        *("--as", after_run.people / "manager", "--home", after_run.home.path),
    )
    assert done.exit_code == 0, done.output
    assert not (after_run.home.path / "signatures").exists()


def test_approvals_without_signed_documents_still_certify(after_run: AfterRun, tmp_path: Path) -> None:
    """Signatures for other tools are beside the approvals; losing them loses no release."""
    proposed(after_run, tmp_path)
    approved(after_run)
    shutil.rmtree(after_run.home.path / "signatures")
    out = tmp_path / "release.dossier"
    done = zegel("release", "certify", RELEASE, "--home", after_run.home.path, "--out", out)
    assert done.exit_code == 0, done.output
    assert not {ENVELOPE, MODEL_SIGNATURE} & set(documents_in(out))


def test_a_document_lost_after_the_proposal_stops_certification(after_run: AfterRun, tmp_path: Path) -> None:
    proposed(after_run, tmp_path)
    approved(after_run)
    digest = load_statement(after_run.home, RELEASE).documents[CANDIDATE_REPORT]
    after_run.home.artifacts().path(digest).write_bytes(b"another report")
    out = tmp_path / "release.dossier"
    told = refused("release", "certify", RELEASE, "--home", after_run.home.path, "--out", out)
    assert f"artifact {digest} has changed on disk" in told
    assert not out.exists()


# -- time stamps


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.found(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def url(authority: Authority) -> Iterator[str]:
    """The authority over HTTP on this machine."""

    class Answers(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            assert self.headers["Content-Type"] == "application/timestamp-query"
            answer = authority.answer(body)
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: object) -> None:
            """Says nothing."""

    server = HTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    thread.join()
    server.server_close()


@needs_openssl
def test_a_stamp_is_asked_for_and_kept(
    released: tuple[AfterRun, Path], url: str, authority: Authority, tmp_path: Path
) -> None:
    after = AfterRun(copied(released[0].home.path, tmp_path / "consortium"), Path(), Path(), "")
    one, two = tmp_path / "one.dossier", tmp_path / "two.dossier"
    given = ("release", "certify", RELEASE, "--home", after.home.path)
    assert zegel(*given, "--out", one, "--time-stamp", url).exit_code == 0
    assert zegel(*given, "--out", two).exit_code == 0  # nobody is asked twice about one checkpoint
    assert one.read_bytes() == two.read_bytes()
    stamp = documents_in(one)[TIME_STAMP]
    assert verify_time_stamp(stamp, unpack(one.read_bytes())["log/checkpoint"]).authority == "CN=Stamps,O=Notary"
    report = verify_dossier(one.read_bytes(), (after.home.ca / "rootCA.pem").read_bytes(), now=after.home.clock())
    (finding,) = [check.finding for check in report.documents if check.name == TIME_STAMP]
    assert "by CN=Stamps,O=Notary; its own root is not checked" in finding
    assert b"documents/checkpoint.tsr" in documents_in(one)[REPORT]


@needs_openssl
def test_an_answer_to_another_request(authority: Authority) -> None:
    """An old answer over the same bytes is somebody's replay: its nonce is another one."""
    old = authority.stamp(b"data")
    with pytest.raises(ReleaseRefused, match="answered another request"):
        request_time_stamp("http://authority", b"data", lambda _, request: old)


@needs_openssl
def test_an_answer_about_other_bytes(authority: Authority) -> None:
    with pytest.raises(ReleaseRefused, match="was given for other bytes"):
        request_time_stamp("http://authority", b"data", lambda _, request: authority.stamp(b"other"))


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("ftp://authority/", "expected a URL that begins with https:// or http://"),
        ("http://127.0.0.1:9/", "does not answer"),
        ("file:///etc/hostname", "expected a URL that begins with"),
    ],
)
def test_an_authority_that_cannot_be_asked(url: str, message: str) -> None:
    with pytest.raises(ReleaseRefused, match=message):
        request_time_stamp(url, b"data")


def test_an_answer_that_is_none() -> None:
    with pytest.raises(ReleaseRefused, match="time stamping authority http://authority: time stamp: "):
        request_time_stamp("http://authority", b"data", lambda _, request: b"<html>busy</html>")


# -- the software record


def tree(folder: Path) -> Path:
    for room in software_module.ROOMS:
        (folder / room).mkdir(parents=True)
        (folder / room / "__init__.py").write_text(f"# {room}\n", encoding="utf-8")
    return folder


def test_the_source_digest_follows_names_and_contents(tmp_path: Path) -> None:
    one, two = tree(tmp_path / "one"), tree(tmp_path / "two")
    assert source_digest(one) == source_digest(two)
    (two / "audit" / "__init__.py").write_text("# changed\n", encoding="utf-8")
    assert source_digest(one) != source_digest(two)
    (one / "audit" / "more.py").write_text("", encoding="utf-8")
    assert source_digest(one) != source_digest(tree(tmp_path / "three"))


def test_the_record_of_this_machine() -> None:
    software = record_software()
    assert Software.from_bytes(software.to_bytes()) == software
    assert "cryptography" in dict(software.packages)
    assert "zegel" not in dict(software.packages)


def test_the_commit_is_named_with_its_changes(tmp_path: Path) -> None:
    folder = tree(tmp_path / "one")
    assert record_software(folder).commit is None

    def git(*arguments: str) -> None:
        identity = ("-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false")
        subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)

    git("init")
    git("add", ".")
    git("commit", "-m", "first")
    commit = record_software(folder).commit
    assert commit is not None
    assert len(commit) == 40
    (folder / "audit" / "__init__.py").write_text("# changed\n", encoding="utf-8")
    assert record_software(folder).commit == f"{commit} with local changes"


def test_a_wrong_bill_of_materials_is_told() -> None:
    with pytest.raises(ReleaseRefused, match=r"does not follow CycloneDX 1\.6"):
        check_ml_bom(b'{"bomFormat":"CycloneDX","specVersion":"1.6","version":"one"}')


def test_an_artless_proposal_through_the_api(after_run: AfterRun) -> None:
    """What the pages will call: notes as bytes, errors as ours."""
    admin = opened(after_run.home, after_run.people / "admin")
    with pytest.raises(ReleaseRefused, match="not JSON in UTF-8"):
        propose_release(after_run.home, run_id=RUN, release=RELEASE, proposer=admin, notes=b"{")
    statement = propose_release(
        after_run.home, run_id=RUN, release=RELEASE, proposer=admin, notes=json.dumps(NOTES).encode()
    )
    notes = ReleaseNotes.from_bytes(after_run.home.artifacts().get(statement.documents["release-notes.json"]))
    assert notes.title == "Day admissions coder"
    with pytest.raises(ReleaseError):
        type(statement).from_bytes(statement.to_bytes()[:-1])
