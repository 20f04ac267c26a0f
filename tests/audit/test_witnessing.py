"""Log and witnesses together: the protocol's bytes, asking over HTTP and in memory, and keeping what was answered."""

from __future__ import annotations

import hashlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from starlette.testclient import TestClient

from audit.canonical import encode_base64
from audit.cosignature import add_signatures, cosign
from audit.cosigned import Cosigned
from audit.errors import (
    AuditError,
    CosignatureError,
    InconsistentLogError,
    LogError,
    RollbackError,
    SplitViewError,
    UnknownLogError,
    UnsignedCheckpointError,
    WitnessError,
    WitnessRequestError,
)
from audit.note import COSIGNATURE, NoteSignature, VerifierKey, parse_note
from audit.witness import Witness, create_witness
from audit.witness_client import (
    Asked,
    Send,
    WitnessAddress,
    check_url,
    collect,
    over_http,
    read_addresses,
    request_cosignature,
    write_addresses,
)
from audit.witness_policy import WitnessPolicy, check_cosignatures
from audit.witness_protocol import MAX_REQUEST_SIZE, SIZE, TEXT, AddCheckpoint, Answer, answer
from audit.witness_server import witness_app
from tests.audit.memory_log import ORIGIN, VKEY, MemoryLog, entries

AT = datetime(2026, 11, 22, 5, 0, 0, tzinfo=UTC)
KEYS = [Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32) for number in range(1, 6)]


def clock() -> datetime:
    return AT


def made(folder: Path, number: int = 0, logs: tuple[VerifierKey, ...] = (VKEY,)) -> Witness:
    return create_witness(folder, f"w{number}.example", logs, KEYS[number], clock)


@pytest.fixture
def witness(tmp_path: Path) -> Witness:
    return made(tmp_path / "w")


@pytest.fixture
def log() -> MemoryLog:
    return MemoryLog(entries(80))


def direct(witness: Witness) -> Send:
    return lambda body: answer(witness, body)


# -- the bytes


def test_a_request_as_the_specification_shows_it(log: MemoryLog) -> None:
    proof = tuple(log.consistency_proof(50, 80))
    request = AddCheckpoint(50, proof, log.checkpoint())
    lines = request.to_bytes().split(b"\n")
    assert lines[0] == b"old 50"
    assert lines[1 : 1 + len(proof)] == [encode_base64(value).encode() for value in proof]
    assert lines[1 + len(proof)] == b""
    assert lines[2 + len(proof)] == ORIGIN.encode()
    assert AddCheckpoint.from_bytes(request.to_bytes()) == request
    empty = AddCheckpoint(0, (), log.checkpoint())
    assert empty.to_bytes() == b"old 0\n\n" + log.checkpoint()
    assert AddCheckpoint.from_bytes(empty.to_bytes()) == empty


HASH = encode_base64(bytes(32)).encode()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\n\n",
        b"old 0\n",
        b"old 0\n\n",
        b"old\n\nx",
        b"old \n\nx",
        b"old  0\n\nx",
        b"old 00\n\nx",
        b"old 01\n\nx",
        b"old -1\n\nx",
        b"old +1\n\nx",
        b"old 1 \n\nx",
        b"OLD 1\n\nx",
        b"old 9223372036854775808\n\nx",
        b"old 1\r\n\r\nx",
        b"old 1\nAAAA\n\nx",
        b"old 1\n" + HASH + b" \n\nx",
        b"old 1\n" + HASH[:-1] + b"\n\nx",
        b"old 1\n\xff\n\nx",
        b"old 1\n" + 64 * (HASH + b"\n") + b"\nx",
        b"x" * (MAX_REQUEST_SIZE + 1),
    ],
)
def test_requests_that_cannot_be_read(witness: Witness, body: bytes) -> None:
    with pytest.raises(WitnessRequestError):
        AddCheckpoint.from_bytes(body)
    assert answer(witness, body).status == 400


@pytest.mark.parametrize(
    ("status", "content_type", "body", "size"),
    [
        (409, SIZE, b"50\n", 50),
        (409, SIZE, b"0\n", 0),
        (409, SIZE, b"50", None),
        (409, SIZE, b"050\n", None),
        (409, SIZE, b"", None),
        (409, SIZE, b"9999999999999999999\n", None),
        (409, TEXT, b"50\n", None),
        (422, SIZE, b"50\n", None),
    ],
)
def test_sizes_in_answers(status: int, content_type: str, body: bytes, size: int | None) -> None:
    assert Answer(status, body, content_type).size == size


def test_answers_in_json() -> None:
    given = Answer(200, "\u2014 name x\n".encode())
    assert Answer.from_json(given.to_json()) == given
    for broken in (
        None,
        {},
        given.to_json() | {"more": 1},
        given.to_json() | {"status": "200"},
        given.to_json() | {"status": True},
        given.to_json() | {"body": 1},
        given.to_json() | {"body": "x" * 100_000},
        given.to_json() | {"content_type": None},
    ):
        with pytest.raises(WitnessError, match="witness's answer"):
            Answer.from_json(broken)


# -- the log asks


def test_a_wrong_hint_is_corrected(witness: Witness, log: MemoryLog) -> None:
    for size, hint in ((10, 0), (30, 0), (50, 99), (50, 3), (80, 50)):
        line = request_cosignature(Asked(witness.key, direct(witness), hint), log, log.checkpoint(size), AT)
        assert witness.memory(ORIGIN).checkpoint.size == size
        note = add_signatures(log.checkpoint(size), [line])
        assert check_cosignatures(note, WitnessPolicy(1, (witness.key,)), AT)


def test_a_witness_that_saw_more_names_the_rollback(witness: Witness, log: MemoryLog) -> None:
    request_cosignature(Asked(witness.key, direct(witness)), log, log.checkpoint(), AT)
    restored = MemoryLog(entries(50))
    with pytest.raises(
        RollbackError, match="cosigned a tree of 80 entries, but this checkpoint covers 50 only"
    ) as caught:
        request_cosignature(Asked(witness.key, direct(witness)), restored, restored.checkpoint(), AT)
    assert caught.value.size == 80


@pytest.mark.parametrize(
    ("history", "error"),
    [(MemoryLog(entries(80, "b")), SplitViewError), (MemoryLog(entries(90, "b")), InconsistentLogError)],
    ids=["same size", "grown"],
)
def test_two_histories_are_named(witness: Witness, log: MemoryLog, history: MemoryLog, error: type[AuditError]) -> None:
    """The log shows the second witness another history; the honest first one does not cosign it."""
    request_cosignature(Asked(witness.key, direct(witness)), log, log.checkpoint(), AT)
    with pytest.raises(error, match=r"w0\.example answered 4.*split view.*kept as"):
        request_cosignature(Asked(witness.key, direct(witness)), history, history.checkpoint(), AT)
    assert len(witness.incidents()) == 1


def test_refusals_are_named(tmp_path: Path, log: MemoryLog) -> None:
    stranger = made(tmp_path / "a", 0, ())
    with pytest.raises(UnknownLogError, match=r"answered 404: .*does not watch"):
        request_cosignature(Asked(stranger.key, direct(stranger)), log, log.checkpoint(), AT)
    other = made(tmp_path / "b", 1, (VerifierKey.of(ORIGIN, KEYS[4]),))
    with pytest.raises(UnsignedCheckpointError, match="answered 403"):
        request_cosignature(Asked(other.key, direct(other)), log, log.checkpoint(), AT)
    lost = made(tmp_path / "c", 2)
    next((lost.folder / "logs").iterdir()).unlink()
    with pytest.raises(WitnessError, match="answered 500: this witness cannot sign"):
        request_cosignature(Asked(lost.key, direct(lost)), log, log.checkpoint(), AT)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (Answer(200, b""), WitnessError, "without signature lines"),
        (Answer(200, b"ok\n"), WitnessError, "without signature lines"),
        (Answer(409, b"0\n", SIZE), WitnessError, "says it saw 0 entries, but refuses"),
        (Answer(409, b"0\n"), SplitViewError, "answered 409: 0"),
        (Answer(302, b""), WitnessError, "answered 302"),
        (Answer(500, b"\x1b[31mred\xff" + b"x" * 900), WitnessError, r"answered 500: '\\x1b"),
        (Answer(400, b"no"), WitnessRequestError, "answered 400: no"),
    ],
)
def test_nonsense_from_a_witness(log: MemoryLog, given: Answer, error: type[AuditError], message: str) -> None:
    key = VerifierKey.of("w0.example", KEYS[0], COSIGNATURE)
    with pytest.raises(error, match=message):
        request_cosignature(Asked(key, lambda body: given), log, log.checkpoint(), AT)


def test_signatures_that_are_not_what_was_asked(log: MemoryLog) -> None:
    key = VerifierKey.of("w0.example", KEYS[0], COSIGNATURE)
    text, other = parse_note(log.checkpoint()).text, parse_note(log.checkpoint(79)).text

    def saying(text: str, name: str, signer: int, at: datetime = AT) -> Asked:
        return Asked(key, lambda body: Answer(200, cosign(text, name, KEYS[signer], at).to_line()))

    with pytest.raises(CosignatureError, match="does not fit this checkpoint"):
        request_cosignature(saying(other, "w0.example", 0), log, log.checkpoint(), AT)
    with pytest.raises(WitnessError, match="signatures of other keys"):
        request_cosignature(saying(text, "w0.example", 1), log, log.checkpoint(), AT)
    with pytest.raises(CosignatureError, match="one of the clocks is wrong"):
        request_cosignature(saying(text, "w0.example", 0, AT + timedelta(minutes=6)), log, log.checkpoint(), AT)


def test_a_witness_that_names_ever_other_sizes(log: MemoryLog) -> None:
    sizes = iter((3, 5, 7, 9))
    key = VerifierKey.of("w0.example", KEYS[0], COSIGNATURE)
    with pytest.raises(WitnessError, match="named another size in each of 3 answers"):
        request_cosignature(
            Asked(key, lambda body: Answer(409, f"{next(sizes)}\n".encode(), SIZE)), log, log.checkpoint(), AT
        )


def test_one_bad_witness_does_not_stop_the_others(tmp_path: Path, log: MemoryLog) -> None:
    witnesses = [made(tmp_path / str(number), number) for number in range(4)]

    def dead(body: bytes) -> Answer:
        raise WitnessError("cannot be reached")

    asked = [Asked(each.key, direct(each)) for each in witnesses]
    asked[1] = Asked(witnesses[1].key, dead)
    got = collect(asked, log, log.checkpoint(), AT)
    assert [key for key, _ in got.cosignatures] == [witnesses[number].key for number in (0, 2, 3)]
    assert [(key, str(error)) for key, error in got.refusals] == [(witnesses[1].key, "cannot be reached")]
    assert collect([], log, log.checkpoint(), AT).cosignatures == ()
    note = Cosigned(tmp_path / "cosigned").add(log.checkpoint(), got.cosignatures)
    policy = WitnessPolicy(3, tuple(each.key for each in witnesses))
    assert len(check_cosignatures(note, policy, AT)) == 3
    with pytest.raises(CosignatureError, match=r"missing: w1\.example"):
        check_cosignatures(note, WitnessPolicy(4, policy.witnesses), AT)


# -- keeping cosignatures


def test_cosignatures_are_never_lost(tmp_path: Path, log: MemoryLog) -> None:
    kept = Cosigned(tmp_path / "cosigned")
    keys = [VerifierKey.of(f"w{number}.example", KEYS[number], COSIGNATURE) for number in range(3)]

    def line(number: int, size: int) -> tuple[VerifierKey, NoteSignature]:
        return keys[number], cosign(parse_note(log.checkpoint(size)).text, keys[number].name, KEYS[number], AT)

    assert kept.latest() is None
    assert kept.note(log.checkpoint(5)) == log.checkpoint(5)
    assert kept.add(log.checkpoint(5), []) == log.checkpoint(5)
    first = kept.add(log.checkpoint(5), [line(0, 5)])
    both = kept.add(log.checkpoint(5), [line(1, 5)])
    assert both.startswith(first)
    assert kept.add(log.checkpoint(5), [line(0, 5)]) == both
    kept.add(log.checkpoint(9), [line(0, 9)])
    assert kept.note(log.checkpoint(5)) == both
    assert kept.latest() == kept.note(log.checkpoint(9))
    assert [kept.seen_by(key) for key in keys] == [9, 5, 0]
    with pytest.raises(CosignatureError, match="does not fit"):
        kept.add(log.checkpoint(9), [line(1, 9), line(2, 5)])
    assert kept.seen_by(keys[1]) == 5
    fork = MemoryLog(entries(9, "b"))
    with pytest.raises(LogError, match="the log signed two histories"):
        kept.note(fork.checkpoint())
    with pytest.raises(LogError, match="the log signed two histories"):
        kept.add(fork.checkpoint(), [])
    stored = tmp_path / "cosigned" / "9.note"
    stored.write_bytes(stored.read_bytes().replace(b"w0.example", b"w9.example"))
    assert kept.seen_by(keys[0]) == 5


# -- over HTTP


def test_the_server_speaks_the_protocol(witness: Witness, log: MemoryLog) -> None:
    client = TestClient(witness_app(witness))
    memory = hashlib.sha256(ORIGIN.encode()).hexdigest()
    assert client.get(f"/{memory}/checkpoint").status_code == 404
    first = client.post("/add-checkpoint", content=AddCheckpoint(0, (), log.checkpoint(50)).to_bytes())
    assert first.status_code == 200
    note = log.checkpoint(50) + first.content
    assert check_cosignatures(note, WitnessPolicy(1, (witness.key,)), AT)
    shown = client.get(f"/{memory}/checkpoint")
    assert (shown.status_code, shown.content) == (200, note)
    assert shown.headers["Content-Type"] == TEXT
    assert shown.headers["Cache-Control"] == "no-cache"

    stale = client.post("/add-checkpoint", content=AddCheckpoint(0, (), log.checkpoint()).to_bytes())
    assert (stale.status_code, stale.headers["Content-Type"], stale.content) == (409, SIZE, b"50\n")
    fork = MemoryLog(entries(50, "b"))
    for request, status in (
        (AddCheckpoint(51, (), log.checkpoint(50)), 400),
        (AddCheckpoint(50, (), fork.checkpoint()), 409),
        (AddCheckpoint(50, (), log.checkpoint()), 422),
        (AddCheckpoint(0, (), MemoryLog(origin="zegel-log/else").checkpoint()), 404),
        (AddCheckpoint(50, (), MemoryLog(entries(60), key=KEYS[4]).checkpoint()), 403),
    ):
        response = client.post("/add-checkpoint", content=request.to_bytes())
        assert (response.status_code, response.headers["Content-Type"]) == (status, TEXT), response.text
    assert client.post("/add-checkpoint", content=b"nonsense").status_code == 400
    assert client.post("/add-checkpoint", content=b"x" * (MAX_REQUEST_SIZE + 1)).status_code == 413
    assert client.get("/add-checkpoint").status_code == 405
    assert client.get("/").status_code == 404
    assert client.get(f"/{'0' * 64}/checkpoint").status_code == 404
    last = client.post(
        "/add-checkpoint", content=AddCheckpoint(50, tuple(log.consistency_proof(50, 80)), log.checkpoint()).to_bytes()
    )
    assert last.status_code == 200
    next((witness.folder / "logs").iterdir()).write_bytes(b"spoiled")
    assert client.get(f"/{memory}/checkpoint").status_code == 500
    assert client.post("/add-checkpoint", content=AddCheckpoint(80, (), log.checkpoint()).to_bytes()).status_code == 500


@contextmanager
def running(*arguments: str) -> Iterator[str]:
    """A `zegel` command that serves, and the URL it says."""
    process = subprocess.Popen(
        [sys.executable, "-m", "admin_api.cli", *arguments, "--port", "0"], stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    try:
        said = process.stderr.readline()
        match = re.search(r"http://\S+?:\d+", said)
        assert match is not None, said
        yield match[0]
    finally:
        process.send_signal(signal.SIGINT)
        _, rest = process.communicate(timeout=30)
    assert process.returncode == 0, rest
    assert "Traceback" not in rest


def test_a_witness_in_a_process_of_its_own(witness: Witness, log: MemoryLog) -> None:
    real = Witness(witness.folder, lambda: datetime.now(UTC))
    with running("witness", "serve", "--home", str(real.folder)) as url:
        asked = Asked(real.key, over_http(url, 30.0))
        for size in (50, 80):
            request_cosignature(asked, log, log.checkpoint(size), datetime.now(UTC))
        with pytest.raises(SplitViewError, match="answered 409"):
            request_cosignature(asked, log, MemoryLog(entries(80, "b")).checkpoint(), datetime.now(UTC))
    assert real.memory(ORIGIN).checkpoint.size == 80
    assert len(real.incidents()) == 1
    with pytest.raises(WitnessError, match="cannot be reached"):
        over_http(url, 5.0)(b"x")


@contextmanager
def web(handle: Callable[[BaseHTTPRequestHandler], None]) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            handle(self)

        def log_message(self, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def test_servers_that_are_no_witness() -> None:
    def redirecting(request: BaseHTTPRequestHandler) -> None:
        request.send_response(302)
        request.send_header("Location", "http://127.0.0.1:9/elsewhere")
        request.end_headers()

    def endless(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.end_headers()
        request.wfile.write(b"x" * 100_000)

    def rude(request: BaseHTTPRequestHandler) -> None:
        request.wfile.write(b"not http at all\r\n\r\n")

    with web(redirecting) as url:
        assert over_http(url, 5.0)(b"x").status == 302
    with web(endless) as url, pytest.raises(WitnessError, match="at most 65536 bytes"):
        over_http(url, 5.0)(b"x")
    with web(rude) as url, pytest.raises(WitnessError, match="cannot be reached"):
        over_http(url, 5.0)(b"x")


def test_a_silent_server_is_given_up() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as listening:
        send = over_http(f"http://127.0.0.1:{listening.getsockname()[1]}/", 0.2)
        with pytest.raises(WitnessError, match=r"cannot be reached: .*timed out"):
            send(b"x")


@pytest.mark.parametrize(
    "url", ["", "w.example", "file:///etc/passwd", "ftp://w.example", "http://", "http://w/?a=b", "http://w/#x"]
)
def test_urls_that_are_no_prefix(url: str) -> None:
    with pytest.raises(WitnessError, match="witness URL"):
        check_url(url)


def test_addresses_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "witnesses.json"
    assert read_addresses(path) == ()
    addresses = (WitnessAddress(VerifierKey.of("w.example", KEYS[0], COSIGNATURE), "https://w.example/prefix"),)
    write_addresses(path, addresses)
    assert read_addresses(path) == addresses
    for broken in ("", "[]", "{}", '{"witnesses":[{"vkey":"x","url":"y"}]}', '{"witnesses":[{}]}'):
        path.write_text(broken, encoding="utf-8")
        with pytest.raises(WitnessError, match="cannot be read"):
            read_addresses(path)


def test_a_port_in_use_is_told(witness: Witness) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as listening:
        done = subprocess.run(
            [sys.executable, "-m", "admin_api.cli", "witness", "serve", "--home", str(witness.folder),
             "--port", str(listening.getsockname()[1])],
            capture_output=True, text=True, timeout=60, check=False, env=dict(os.environ),
        )  # fmt: skip
    assert done.returncode == 1
    assert "cannot listen on 127.0.0.1" in done.stderr
    assert "Traceback" not in done.stderr
