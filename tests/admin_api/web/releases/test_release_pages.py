"""A release's way through the pages: proposed, approved by two passkeys, certified, verified offline, withdrawn."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from audit.canonical import digest_of
from audit.verify import verify_dossier
from tests.admin_api.conftest import AfterRun
from tests.admin_api.consortium_folder import EVALUATOR, RUN, TRAINERS
from tests.admin_api.web.certificates.cast import signed
from tests.admin_api.web.crew import posted
from tests.admin_api.web.releases.board import Board, board_of


@pytest.fixture(scope="module")
def board(ran: AfterRun, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Board]:
    """One release, followed from its proposal to its end by a module's tests, in their order."""
    with board_of(ran, tmp_path_factory.mktemp("releases"), "winter-2026") as opened:
        yield opened


def test_a_candidate_shows_what_was_measured(board: Board) -> None:
    view = board.office.ada.client.get(f"/api/v1/releases/{board.name}").json()
    assert view["state"] == "candidate"
    assert {gate["name"] for gate in view["gates"]} >= {"epsilon"}
    assert all(gate["passed"] for gate in view["gates"])
    assert {each["site"] for each in view["reports"]} >= set(TRAINERS)
    assert all(each["figures"]["hit@1"] is not None for each in view["reports"])
    assert [need["met"] for need in view["needs"]] == [False, False]
    page = board.office.ada.client.get(f"/releases/{board.name}")
    assert page.status_code == 200
    assert "winter-2026" in page.text
    assert "0 of 2 approvals" in page.text


def test_it_waits_for_those_who_decide_and_not_for_its_proposer(board: Board) -> None:
    assert "winter-2026" in board.rosa.client.get("/api/v1/today").text
    assert "winter-2026 waits" not in board.office.ada.client.get("/api/v1/today").json()["sentence"]
    refused = board.office.ada.client.post(
        "/api/v1/acts/release-decision",
        json={"release": board.name, "decision": "approve"},
        headers={"Idempotency-Key": "ada-tries"},
    )
    assert refused.status_code == 409


def test_it_is_not_certified_before_two_organisations_approve(board: Board) -> None:
    refused = board.rosa.post(f"/releases/{board.name}/certification", {})
    assert refused.status_code == 409
    assert board.office.ada.client.get(f"/api/v1/releases/{board.name}/dossier").status_code == 404
    data = board.certified()
    again = board.office.ada.client.get(f"/api/v1/releases/{board.name}/dossier")
    assert again.headers["etag"] == f'"{digest_of(data)}"'
    root = (board.office.here.home.ca / "rootCA.pem").read_bytes()
    verified = verify_dossier(data, root, now=board.office.here.home.clock())
    assert verified.trace.standing.release == board.name
    view = board.office.ada.client.get(f"/api/v1/releases/{board.name}").json()
    assert view["state"] == "certified"
    assert all(need["met"] for need in view["needs"])


def test_what_approvers_read_is_served_as_it_is_bound(board: Board) -> None:
    view = board.office.ada.client.get(f"/api/v1/releases/{board.name}").json()
    for name, digest in view["documents"].items():
        answer = board.office.ada.client.get(f"/api/v1/releases/{board.name}/documents/{name}")
        assert answer.status_code == 200
        assert answer.content == board.office.here.home.artifacts().get(digest)
        assert answer.headers["content-disposition"].startswith("attachment")
    report = board.office.ada.client.get(f"/releases/{board.name}/report")
    assert "sandbox" in report.headers["content-security-policy"]
    certified = board.office.ada.client.get(f"/api/v1/releases/{board.name}/documents/report.html")
    assert certified.content.lower().startswith(b"<!doctype html>")
    picture = board.office.ada.client.get(f"/releases/{board.name}/picture")
    assert picture.headers["content-type"] == "image/svg+xml"
    assert "sandbox" in picture.headers["content-security-policy"]
    assert picture.content.startswith(b"<svg")
    assert board.office.ada.client.get(f"/api/v1/releases/{board.name}/documents/other.json").status_code == 404


def test_a_version_is_traced_to_its_entries(board: Board) -> None:
    client = board.office.somebody("authority")
    trace = client.get(f"/api/v1/trace/{board.name}").json()
    first = trace["versions"][0]
    assert first["run"]["run"] == RUN
    assert {each["site"] for each in first["run"]["hospitals"]} == {*TRAINERS, EVALUATOR}
    assert {each["decision"] for each in first["releases"][0]["decisions"]} == {"approve"}
    with board.office.here.home.log() as log:
        assert log.entry(first["entry"]).kind == "version.created"
        assert log.entry(first["run"]["finished_entry"]).kind == "run.finished"
    assert client.get(f"/trace/{board.name}").status_code == 200
    assert client.get(f"/trace/rounds/{RUN}").status_code == 200
    for words in ("winter", "I10", "amstel", trace["version"][7:20], "0"):
        assert client.get("/search", params={"q": words}).status_code == 200
        assert client.get("/api/v1/search", params={"q": words}).json(), words
    assert client.get("/authority", params={"code": "I10"}).status_code == 200


def test_two_versions_are_compared(board: Board) -> None:
    version = board.office.ada.client.get(f"/api/v1/releases/{board.name}").json()["version"]
    same = board.office.ada.client.get("/api/v1/compare", params={"before": version, "after": version}).json()
    assert same["differences"]
    assert {each["change"] for each in same["differences"]} <= {0, None}
    assert not any(each["clear"] for each in same["differences"])
    assert {each["chapter"] for each in same["differences"]} > {None}
    bridge = same["bridge"]
    assert bridge["release"] == board.name
    assert not bridge["compares_before"]
    assert {each["against"] for each in bridge["rows"]} == {"human"}
    assert "There is no earlier certified release to compare with." in bridge["absent"]
    page = board.office.ada.client.get("/releases/compare", params={"before": version, "after": version})
    assert page.status_code == 200
    for words in ("Coding more, erring less", "Bridge study", "Figures by year are not reported"):
        assert words in page.text
    unknown = board.office.ada.client.get("/api/v1/compare", params={"before": version, "after": "sha256:" + "0" * 64})
    assert unknown.status_code == 404


def test_gates_are_set_by_a_release_manager(board: Board) -> None:
    for path in ("/releases", "/releases/gates", "/releases/new", "/releases/compare"):
        assert board.rosa.client.get(path).status_code == 200, path
    answer = signed(board.rosa, "gates", task="icd_coding", gates=["epsilon<=6"], organisations=2, reason="agreed")
    assert answer.status_code == 200, answer.text
    wrong = board.rosa.client.post(
        "/api/v1/acts/gates", json={"task": "icd_coding", "gates": ["nonsense"]}, headers={"Idempotency-Key": "wrong"}
    )
    assert wrong.status_code == 409
    assert "nonsense" in wrong.json()["detail"]


def test_the_form_leads_to_the_signature(board: Board) -> None:
    answer = posted(
        board.rosa.client, "/acts/new/withdrawal-proposal", {"release": board.name, "reason": "codes were wrong"}, "w1"
    )
    assert answer.status_code == 303
    page = board.rosa.client.get(answer.headers["location"])
    assert page.status_code == 200
    assert "codes were wrong" in page.text


def test_it_is_withdrawn_by_two_people(board: Board) -> None:
    proposed = signed(board.rosa, "withdrawal-proposal", release=board.name, reason="codes were wrong")
    assert proposed.status_code == 200, proposed.text
    assert "Agree to withdraw it" not in board.rosa.client.get(f"/releases/{board.name}").text
    assert "Agree to withdraw it" in board.office.pieter.client.get(f"/releases/{board.name}").text
    assert board.office.ada.client.get(f"/api/v1/releases/{board.name}").json()["state"] == "certified"
    agreed = signed(board.office.pieter, "withdrawal-decision", release=board.name, reason="I saw it too")
    assert agreed.status_code == 200, agreed.text
    view = board.office.ada.client.get(f"/api/v1/releases/{board.name}").json()
    assert view["state"] == "withdrawn"
    assert view["withdrawal_reason"] == "codes were wrong"
    assert "codes were wrong" in board.office.ada.client.get(f"/releases/{board.name}").text
