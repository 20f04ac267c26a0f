"""The real thing: NVFlare in production mode over mutual TLS, by the commands people type.

The tests share one federation and run in the order written: later ones spend budget and kill processes.
"""

from __future__ import annotations

import json
import re
import shutil
import socket
import ssl
import time
import zipfile
from pathlib import Path

import psutil
import pytest

from audit.entry import ROUND_ABORTED
from jobs.federation.job import write_job
from jobs.federation.session import open_session
from jobs.home import ConsortiumHome
from jobs.records import recorded_by_run
from tests.audit.independent_verifier import verify_folder
from tests.federation.conftest import EPSILON
from tests.federation.cuttable_wire import Wire
from tests.federation.live_federation import (
    CLIENT,
    SERVER,
    SERVER_JOB,
    SITE_JOB,
    Live,
    Orchestrator,
    check_run,
    full_disk,
    kill,
    stopped,
    wait_until,
    zegel,
)

pytestmark = pytest.mark.federation

THREE, FOUR = (1, 2, 3), (1, 2, 3, 4)
EVALUATE = ("--evaluate", "hospital-4")
CALL_TIMEOUT_S = 12


def test_the_demo_ends_in_a_release_that_verifies(live: Live) -> None:
    assert "Release demo-1" in live.output
    checked = live.zegel("verify", live.dossier, "--root", live.root, "--json")
    assert checked.returncode == 0, checked.stderr
    trace = json.loads(checked.stdout)["trace"]
    run = trace["runs"][-1]
    assert [item["number"] for item in run["rounds"]] == list(range(1, len(run["rounds"]) + 1))
    assert {item["site"] for item in run["hospitals"] if item["rounds_joined"]} == {
        "hospital-1",
        "hospital-2",
        "hospital-3",
    }
    assert {item["site"] for item in trace["metrics"]} == {f"hospital-{n}" for n in range(1, 5)}
    assert {item["approver"]["role"] for item in trace["approvals"]} == {"release_manager", "privacy_officer"}
    assert trace["epsilon"] <= EPSILON


def test_a_changed_byte_of_the_dossier_is_found(live: Live, tmp_path: Path) -> None:
    data = live.dossier.read_bytes()
    for position in (40, len(data) // 3, len(data) // 2, len(data) - 10):
        changed = bytearray(data)
        changed[position] ^= 1
        path = tmp_path / f"changed-{position}.dossier"
        path.write_bytes(changed)
        checked = live.zegel("verify", path, "--root", live.root)
        assert checked.returncode == 1
        assert "FAILED" in checked.stderr
        assert "Traceback" not in checked.stderr


def test_the_exported_log_verifies_with_a_verifier_that_shares_no_code(live: Live, tmp_path: Path) -> None:
    listed = live.zegel("audit", "witness", "list", "--home", live.consortium, "--json")
    assert listed.returncode == 0, listed.stderr
    witnesses = [str(row["vkey"]) for row in json.loads(listed.stdout)["witnesses"]]
    assert len(witnesses) == 4  # every hospital enrolled by itself in its first run
    exported = live.zegel("audit", "export", tmp_path / "log", "--home", live.consortium, "--json")
    assert exported.returncode == 0, exported.stderr
    head = verify_folder(tmp_path / "log", str(live.config()["log_vkey"]), witnesses)
    assert head.size > 30


def test_hospitals_and_server_speak_mutual_tls(live: Live) -> None:
    port = live.config()["fed_learn_port"]
    kit = live.site(1) / "kit" / "startup"

    def shake(context: ssl.SSLContext) -> str:
        with (
            socket.create_connection(("localhost", port), timeout=10) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as secured,
        ):
            # TLS 1.3 reports a missing client certificate on the first read.
            secured.settimeout(5)
            secured.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00")
            return "answered" if secured.recv(9) else "closed"

    member = ssl.create_default_context(cafile=str(live.root))
    member.set_alpn_protocols(["h2"])
    member.load_cert_chain(kit / "client.crt", kit / "client.key")
    assert shake(member) == "answered"

    stranger = ssl.create_default_context(cafile=str(live.root))
    stranger.set_alpn_protocols(["h2"])
    with pytest.raises((ssl.SSLError, ConnectionError)):
        assert shake(stranger) != "answered"
        raise ConnectionError("closed without an answer")

    with socket.create_connection(("localhost", port), timeout=10) as plain:
        plain.settimeout(5)
        plain.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00")
        with pytest.raises((TimeoutError, ConnectionError)):
            answer = plain.recv(9)
            # Without TLS the server answers nothing that HTTP/2 would: an alert record (21) at most, or the end.
            assert not answer or answer[0] == 21, answer
            raise ConnectionError("closed")


def test_people_s_certificates_are_no_use_for_tls(live: Live) -> None:
    port = live.config()["fed_learn_port"]
    context = ssl.create_default_context(cafile=str(live.root))
    person = live.workspace / "people" / "officer"
    secret = (live.workspace / "passphrases" / "officer").read_text().strip()
    context.load_cert_chain(person / "person.crt", person / "person.key", password=secret)
    with (
        pytest.raises((ssl.SSLError, ConnectionError, TimeoutError)),
        socket.create_connection(("localhost", port), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as secured,
    ):
        secured.settimeout(5)
        secured.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00")
        if not secured.recv(9):
            raise ConnectionError("closed without an answer")


def test_the_submitted_job_holds_no_code(live: Live) -> None:
    jobs = list((live.consortium / "runs").glob("run-*/run-*"))
    assert jobs
    for job in jobs:
        # NVFlare puts the submitter's signatures beside the files.
        files = sorted(
            str(path.relative_to(job)) for path in job.rglob("*") if path.is_file() and ".__nvfl" not in path.name
        )
        assert files == ["app/config/config_fed_client.json", "app/config/config_fed_server.json", "meta.json"]
        assert not any(b"custom" in path.read_bytes() for path in job.rglob("*") if path.is_file())
    stored = list((live.consortium / "server" / "store").rglob("*"))
    for path in stored:
        if path.is_file() and zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                assert not [name for name in archive.namelist() if "custom" in name or name.endswith(".py")]


def test_no_key_and_no_letter_left_a_hospital(live: Live) -> None:
    """Nothing under the consortium's folder holds a hospital's private key or a sentence of its letters."""
    key = (live.site(1) / "kit" / "startup" / "client.key").read_bytes()
    letter_mark = b"SYNTHETISCHE BRIEF"
    for path in live.consortium.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            assert key[100:400] not in data, path
            assert letter_mark not in data, path


def _submit(live: Live, job: Path, wait_s: float = 90) -> str:
    home = ConsortiumHome(live.consortium)
    with open_session(home, timeout_s=30) as session:
        job_id = session.submit(job)
        deadline = time.monotonic() + wait_s
        while time.monotonic() < deadline:
            status = session.status(job_id)
            if status.startswith("FINISHED"):
                return status
            time.sleep(0.5)
        session.abort(job_id)
    pytest.fail("the job did not end")


def test_a_class_outside_the_list_is_not_built(live: Live, tmp_path: Path) -> None:
    sites = [f"hospital-{n}" for n in range(1, 5)]
    job = write_job(tmp_path, run_id="run-outside", plan_hash="sha256:" + "0" * 64, sites=sites)
    config = job / "app" / "config" / "config_fed_client.json"
    value = json.loads(config.read_text())
    value["components"].append({"id": "x", "path": "nvflare.app_common.np.np_trainer.NPTrainer", "args": {}})
    config.write_text(json.dumps(value))
    status = _submit(live, job)
    assert status != "FINISHED:COMPLETED"
    logs = "".join(path.read_text(errors="replace") for path in (live.site(1) / "kit").glob("*/log.txt"))
    logs += "".join(path.read_text(errors="replace") for path in (live.site(1) / "kit").glob("console.log"))
    assert "NPTrainer" in logs
    assert "not authorized" in logs.lower() or "ComponentNotAuthorized" in logs


def test_a_job_that_brings_code_is_refused(live: Live, tmp_path: Path) -> None:
    sites = [f"hospital-{n}" for n in range(1, 5)]
    job = write_job(tmp_path, run_id="run-custom", plan_hash="sha256:" + "0" * 64, sites=sites)
    custom = job / "app" / "custom"
    custom.mkdir()
    marker = tmp_path / "ran"
    (custom / "mine.py").write_text(
        f"open({str(marker)!r}, 'w').write('ran')\nclass Mine:\n    def __init__(self):\n        pass\n"
    )
    config = job / "app" / "config" / "config_fed_client.json"
    value = json.loads(config.read_text())
    value["components"].append({"id": "x", "path": "mine.Mine", "args": {}})
    config.write_text(json.dumps(value))
    with open_session(ConsortiumHome(live.consortium), timeout_s=30) as session:
        try:
            job_id = session.submit(job)
        except Exception as error:  # noqa: BLE001  NVFlare's own kinds; what matters is that it refused
            assert "author" in str(error).lower() or "byoc" in str(error).lower(), error
        else:
            deadline = time.monotonic() + 60
            while not session.status(job_id).startswith("FINISHED") and time.monotonic() < deadline:
                time.sleep(0.5)
            assert session.status(job_id) != "FINISHED:COMPLETED"
    assert not marker.exists()


def test_an_unapproved_plan_does_not_start(live: Live) -> None:
    plan_hash = live.propose("unapproved", *EVALUATE, epsilon=2, train=THREE, approve=False)
    started = live.zegel("run", "start", plan_hash, "--home", live.consortium)
    assert started.returncode == 1
    assert "expected approval by privacy_officer" in started.stderr
    own = live.zegel("plan", "approve", plan_hash, "--home", live.consortium, *live.signed_by("admin"))
    assert own.returncode == 1
    assert "it needs the role privacy_officer" in own.stderr
    again = live.zegel("run", "start", plan_hash, "--home", live.consortium)
    assert again.returncode == 1
    assert "Nothing was started" in again.stderr


def test_an_over_budget_plan_is_refused_by_the_hospitals(live: Live) -> None:
    plan_hash = live.propose("too much", *EVALUATE, epsilon=EPSILON_TOO_MUCH, train=THREE)
    before = {n: _ledger(live, n) for n in (1, 2, 3)}
    started = live.zegel("run", "start", plan_hash, "--home", live.consortium)
    assert started.returncode == 1
    assert "over-budget" in started.stderr
    for n in (1, 2, 3):
        after = _ledger(live, n)
        assert after["spent"] == before[n]["spent"]
        assert after["reserved_rdp"] == 0
    logged = live.zegel("audit", "log", "--home", live.consortium, "--json")
    assert "site.refused" in logged.stdout


EPSILON_TOO_MUCH = EPSILON  # once more than the officers allowed


def _ledger(live: Live, number: int) -> dict[str, float]:
    shown = live.zegel("site", "ledger", "--home", live.site(number), "--json")
    assert shown.returncode == 0, shown.stderr
    cohorts = {cohort["cohort"]: cohort for cohort in json.loads(shown.stdout)["cohorts"]}
    training: dict[str, float] = cohorts["training"]
    return training


def test_a_run_goes_on_whoever_is_killed(live: Live, tmp_path: Path) -> None:
    """kill -9 of each process in turn; the run goes on by itself, and after its orchestrator's death by a command."""
    plan_hash = live.propose("killed", "--rounds", "20", "--dropouts", "1", epsilon=1, train=FOUR)
    patience = ("--call-timeout", str(CALL_TIMEOUT_S))
    with Orchestrator(live, tmp_path / "start", "start", plan_hash, *patience) as run:
        run_id = run.run_id
        number = run.wait_for_round(2)
        kill(live.kit(2), SITE_JOB)
        number = run.wait_for_round(number + 3)
        kill(live.server_kit, SERVER_JOB)
        number = run.wait_for_round(number + 3)
        kill(live.server_kit, SERVER)
        live.does("consortium", "start", "--home", live.consortium)
        number = run.wait_for_round(number + 3)
        kill(live.kit(3), CLIENT)
        run.wait_for_round(number + 1, hospitals=3)
        live.does("site", "start", "--home", live.site(3))
        run.kill()
        kill(live.server_kit, SERVER_JOB)
    listed = json.loads(live.does("run", "list", "--home", live.consortium, "--json").stdout)["runs"]
    assert listed[-1]["run_id"] == run_id
    assert listed[-1]["status"].startswith("stopped")
    with Orchestrator(live, tmp_path / "resume", "resume", run_id, *patience) as run:
        run.finish()
    check_run(live, run_id, train=FOUR)


def test_a_run_goes_on_without_a_hospital_that_cannot_answer(live: Live, tmp_path: Path) -> None:
    """A hospital that hangs, whose disk is full, or that is cut off drops out, and comes back by itself."""
    plan_hash = live.propose("silent", "--rounds", "60", "--dropouts", "1", epsilon=1, train=FOUR)
    start = ("start", plan_hash, "--call-timeout", str(CALL_TIMEOUT_S))
    with (
        Wire(live.config()["fed_learn_port"]) as wire,
        live.reached_through(wire.port, 2),
        Orchestrator(live, tmp_path / "start", *start) as run,
    ):
        run_id = run.run_id
        number = run.wait_for_round(2)
        with stopped(live.kit(4)):
            time.sleep(CALL_TIMEOUT_S + 2)
        number = run.wait_for_round(run.wait_for_round(number + 1, hospitals=3), hospitals=4)
        with full_disk(live.kit(1)):
            number = run.wait_for_round(number + 1, hospitals=3)
        number = run.wait_for_round(number, hospitals=4)
        with wire.cut():
            time.sleep(CALL_TIMEOUT_S + 2)
        run.wait_for_round(run.wait_for_round(number + 1, hospitals=3), hospitals=4)
        run.finish()
    done = check_run(live, run_id, train=FOUR)
    assert {site for body in done for site in body["dropped"]} >= {"hospital-1", "hospital-2", "hospital-4"}
    # What failed first: the ledger's database, or a file beside it.
    assert re.search(r"hospital-1: [^/]*; the hospital's own log says why \[(ledger|storage)\]", live.server_log())


def test_a_hospital_that_is_revoked_in_the_middle_of_a_run_is_out_at_once(live: Live, tmp_path: Path) -> None:
    """Its live session ends, the others go on without it, and it is not let in again. The last of the shared runs."""
    plan_hash = live.propose("revoked", "--rounds", "20", "--dropouts", "1", epsilon=1, train=FOUR)
    with Orchestrator(live, tmp_path / "start", "start", plan_hash, "--call-timeout", str(CALL_TIMEOUT_S)) as run:
        run_id = run.run_id
        run.wait_for_round(3)
        live.does(
            *("consortium", "revoke", "hospital-4", "--reason", "test", "--home", live.consortium),
            *live.signed_by("admin"),
        )
        wait_until("the live session's end", lambda: "Client hospital-4 disabled" in live.server_log(), timeout_s=60)
        run.finish()
    done = check_run(live, run_id, train=THREE)
    assert len(recorded_by_run(live.home, run_id, ROUND_ABORTED)) <= 1
    with_it = ["hospital-4" in body["participants"] for body in done]
    assert with_it == sorted(with_it, reverse=True), "never again after its last round"
    assert with_it[0]
    assert not with_it[-1]
    status = json.loads(live.does("consortium", "status", "--home", live.consortium, "--json").stdout)
    assert status["connected"] == ["hospital-1", "hospital-2", "hospital-3"]
    live.does("site", "stop", "--home", live.site(4))
    again = live.zegel("site", "start", "--home", live.site(4))
    assert again.returncode == 1
    assert "the server does not let hospital-4 in" in again.stderr
    assert "is revoked since entry" in again.stderr


def test_nothing_is_left_running_afterwards(live: Live) -> None:
    stopped = zegel("demo-stop", "--workspace", live.workspace)
    assert stopped.returncode == 0, stopped.stderr
    left = [
        process.info["cmdline"]
        for process in psutil.process_iter(["cmdline"])
        if any(str(live.workspace) in argument for argument in process.info["cmdline"] or ())
    ]
    assert left == []
    shutil.rmtree(live.workspace)
