"""The log over HTTP: what a stranger's client may fetch, and what not."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.testclient import TestClient

from audit.errors import CorruptLogError, LogError
from audit.merkle import Node
from audit.serve import log_app
from audit.tiles import tiles_of
from tests.audit.independent_verifier import verify_folder
from tests.audit.memory_log import VKEY, MemoryLog, entries


@pytest.fixture(scope="module")
def log() -> MemoryLog:
    return MemoryLog(entries(700))


@pytest.fixture(scope="module")
def client(log: MemoryLog) -> TestClient:
    """600 of 700 entries are signed for."""
    return TestClient(log_app(log, lambda: log.checkpoint(600)))


def test_a_stranger_can_mirror_and_verify_it(client: TestClient, log: MemoryLog, tmp_path: Path) -> None:
    for path in ("checkpoint", *(tile.path for tile in tiles_of(600))):
        response = client.get(f"/{path}")
        assert response.status_code == 200, path
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(response.content)
    assert verify_folder(tmp_path, str(VKEY), [], proofs=False).root == log.root(600)


def test_headers(client: TestClient) -> None:
    checkpoint = client.get("/checkpoint")
    assert checkpoint.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert checkpoint.headers["Cache-Control"] == "no-cache"
    for path in ("/tile/0/000", "/tile/0/002.p/88", "/tile/1/000.p/2", "/tile/entries/000", "/tile/entries/002.p/88"):
        tile = client.get(path)
        assert tile.headers["Content-Type"] == "application/octet-stream"
        assert tile.headers["Cache-Control"] == "public, max-age=31536000, immutable"
        assert tile.headers["Access-Control-Allow-Origin"] == "*"
    packed = client.get("/tile/entries/000", headers={"Accept-Encoding": "gzip"})
    plain = client.get("/tile/entries/000", headers={"Accept-Encoding": "identity"})
    assert packed.headers["Content-Encoding"] == "gzip"
    assert "Content-Encoding" not in plain.headers
    assert int(packed.headers["Content-Length"]) < len(plain.content) / 2
    assert packed.content == plain.content
    assert "Accept-Encoding" in packed.headers["Vary"]


@pytest.mark.parametrize("path", ["/checkpoint", "/tile/0/000", "/tile/entries/002.p/88"])
def test_head_is_get_without_the_body(client: TestClient, path: str) -> None:
    head, get = client.head(path), client.get(path)
    assert head.status_code == get.status_code == 200
    assert head.headers["Content-Type"] == get.headers["Content-Type"]
    assert head.headers["Cache-Control"] == get.headers["Cache-Control"]


def test_partial_tiles_of_earlier_checkpoints_are_served(client: TestClient, log: MemoryLog) -> None:
    """Any partial tile within what is signed: somebody may hold the checkpoint that needs it."""
    whole = client.get("/tile/0/001").content
    for width in (1, 44, 255):
        assert client.get(f"/tile/0/001.p/{width}").content == whole[: 32 * width]


@pytest.mark.parametrize(
    "path",
    [
        "/tile/0/002",  # not full yet
        "/tile/0/002.p/89",  # stored, but not signed for
        "/tile/0/003",
        "/tile/0/002.p/255",
        "/tile/1/000",
        "/tile/1/000.p/3",
        "/tile/2/000.p/1",
        "/tile/63/000",
        "/tile/entries/002",
        "/tile/entries/002.p/89",
        "/tile/entries/x999/x999/x999/x999/x999/999",
    ],
)
def test_what_is_not_signed_for_is_not_found(client: TestClient, path: str) -> None:
    response = client.get(path)
    assert response.status_code == 404
    assert "is not in the signed tree of 600 entries" in response.text
    assert response.headers["Cache-Control"] == "no-cache"


@pytest.mark.parametrize(
    "path",
    [
        "/tile/0/0",
        "/tile/64/000",
        "/tile/0/000.p/0",
        "/tile/0/000.p/256",
        "/tile/0/x000/000",
        "/tile/entries",
        "/tile/entries/",
        "/tile/0/000/",
        "/tile/0/%2e%2e/%2e%2e/log.key",
        "/tile/..%2f..%2flog.key",
        "/tile/entries/000%00",
        "/tile/%D9%A0/000",
    ],
)
def test_what_is_no_tile_is_a_bad_request(client: TestClient, path: str) -> None:
    response = client.get(path)
    assert response.status_code == 400, response.text
    assert response.text.startswith("tile ")
    assert response.text.count("\n") == 1


@pytest.mark.parametrize("path", ["/", "/log.key", "/checkpoint/", "/tile", "/../log.key", "/checkpoint/../log.key"])
def test_there_is_nothing_else(client: TestClient, path: str) -> None:
    assert client.get(path, follow_redirects=False).status_code == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
@pytest.mark.parametrize("path", ["/checkpoint", "/tile/0/000"])
def test_it_is_read_only(client: TestClient, method: str, path: str) -> None:
    assert client.request(method, path).status_code == 405


def test_before_the_first_checkpoint_there_is_nothing(log: MemoryLog) -> None:
    empty = TestClient(log_app(log, lambda: None))
    assert empty.get("/checkpoint").status_code == 404
    assert empty.get("/tile/0/000").status_code == 404


def test_a_damaged_log_is_not_shown_in_parts(log: MemoryLog) -> None:
    class Damaged(MemoryLog):
        def read_hashes(self, nodes: Sequence[Node]) -> list[bytes]:
            raise CorruptLogError("tree node (level 0, index 3) is missing; /srv/secret/log.db")

    damaged = Damaged(entries(10))
    client = TestClient(log_app(damaged, log.checkpoint))
    response = client.get("/tile/0/000")
    assert response.status_code == 500
    assert "zegel audit check" in response.text
    assert "secret" not in response.text

    def unreadable() -> bytes:
        raise LogError("two histories in /srv/secret")

    broken = TestClient(log_app(log, unreadable))
    for path in ("/checkpoint", "/tile/0/000"):
        response = broken.get(path)
        assert response.status_code == 500
        assert "secret" not in response.text


def test_it_can_be_mounted(log: MemoryLog) -> None:
    client = TestClient(Starlette(routes=[Mount("/audit/log", log_app(log, log.checkpoint))]))
    assert client.get("/audit/log/checkpoint").content == log.checkpoint()
    assert client.get("/audit/log/tile/entries/000").status_code == 200
    assert client.get("/tile/entries/000").status_code == 404
