"""Runs by API and pages: what is shown of one, where it stands, what went wrong, who may start and stop."""

from __future__ import annotations

import fcntl
import json
import re
import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from admin_api.web.runs.page_view import thinned
from admin_api.web.runs.troubles import _CODES, explained
from admin_api.web.runs.watching import MOST_EVENTS, RunView, run_view
from jobs.records import LOCK_FILE, PLAN_FILE, PROGRESS_FILE, RESULT_FILE
from site_packages.guard import CODES
from tests.admin_api.consortium_folder import EVALUATOR, RUN, TRAINERS
from tests.admin_api.web.conftest import Web
from tests.admin_api.web.crew import posted

KEY = {"Idempotency-Key": "a-key"}


FIRST_LOAD = 200_000  # bytes, with everything the page refers to


@pytest.fixture
def folder(office: Web) -> Iterator[Path]:
    """The run's folder, as the test leaves it put back."""
    path = office.here.home.run_folder(RUN)
    kept = path.parent / "kept"
    shutil.copytree(path, kept)
    yield path
    shutil.rmtree(path)
    kept.rename(path)


def test_a_finished_run_shows_what_the_log_says(office: Web) -> None:
    client = office.signed_in("authority")
    run = client.get(f"/api/v1/runs/{RUN}").json()
    assert (run["state"], run["rounds"], run["planned"], run["stage"]) == ("finished", 3, 3, "done")
    assert [(each["number"], each["state"], tuple(each["participants"])) for each in run["round_list"]] == [
        (number, "completed", TRAINERS) for number in (1, 2, 3)
    ]
    assert [each["epsilon"] for each in run["round_list"]] == sorted(each["epsilon"] for each in run["round_list"])
    assert {(each["site"], each["trains"], each["state"]) for each in run["parts"]} == {
        *((site, True, "accepted") for site in TRAINERS), (EVALUATOR, False, "accepted"),
    }  # fmt: skip
    assert run["bytes_so_far"] == 9 * (run["vector_bytes"] + run["model_bytes"])
    assert run["trouble"] is None
    assert run["version"] is not None
    listed = client.get("/api/v1/runs").json()
    assert [(each["run"], each["state"]) for each in listed["items"]] == [(RUN, "finished")]
    page = client.get(f"/runs/{RUN}").text
    assert "The run finished after 3 rounds." in page
    assert "There is no curve of the training loss" in page
    assert "Stop the run" not in page
    assert "data-live=" not in page


def grown(run: RunView, hospitals: int, rounds: int) -> RunView:
    """The run as if it had been larger: every seventh hospital drops out now and then."""
    names = [f"hospital-{number:03}" for number in range(hospitals)]
    missing = [[name for place, name in enumerate(names) if place % 7 == number % 7 == 3] for number in range(rounds)]
    return run.model_copy(
        update={
            "sites": names,
            "planned": rounds,
            "rounds": rounds,
            "round_list": [
                run.round_list[0].model_copy(
                    update={
                        "number": number + 1, "participants": [name for name in names if name not in missing[number]],
                        "dropped": missing[number], "epsilon": 0.01 * (number + 1), "seconds": 30.0 + number % 5,
                        "entry": 1000 + number,
                    }
                )
                for number in range(rounds)
            ],
            "parts": [
                run.parts[0].model_copy(
                    update={"site": name, "dropped": sum(name in each for each in missing), "rounds": rounds,
                            "state": "refused" if name == names[-1] else "accepted"}
                )
                for name in names
            ],
            "events": run.events[:1] * MOST_EVENTS,
        }
    )  # fmt: skip


@pytest.mark.parametrize(("hospitals", "rounds"), [(8, 200), (12, 200), (200, 200)])
def test_pages_of_a_large_run_are_light(
    office: Web, monkeypatch: pytest.MonkeyPatch, hospitals: int, rounds: int
) -> None:
    large = grown(run_view(office.here, RUN), hospitals, rounds)
    monkeypatch.setattr("admin_api.web.runs.pages.run_view", lambda *_: large)
    client = office.signed_in("consortium_admin")
    for path in (f"/runs/{RUN}", f"/runs/{RUN}/rounds", f"/runs/{RUN}/hospitals"):
        page = client.get(path)
        assert page.status_code == 200
        parts = set(re.findall(r'<(?:link|script|img)\b[^>]*?\b(?:href|src)="(/[^"]+)"', page.text))
        assert parts
        assert len(page.content) + sum(len(client.get(part).content) for part in parts) < FIRST_LOAD, path


def test_what_a_runs_page_leaves_out_is_on_pages_of_its_own(office: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    large = grown(run_view(office.here, RUN), 50, 120)
    monkeypatch.setattr("admin_api.web.runs.pages.run_view", lambda *_: large)
    client = office.signed_in("authority")
    page = client.get(f"/runs/{RUN}").text
    assert "The figures of all 120 rounds" in page
    assert "All 50 hospitals" in page
    assert 'href="/hospitals/hospital-049"' in page, "who refused is among the few shown"
    assert 'href="/hospitals/hospital-048"' not in page
    for place, path, expected in (
        ("rounds", "/rounds", {str(1000 + number) for number in range(120)}),
        ("hospitals", "/hospitals", {f"hospital-{number:03}" for number in range(50)}),
    ):
        found: list[str] = []
        following: str | None = f"/runs/{RUN}{path}"
        while following is not None:
            text = client.get(following).text
            pattern = r'href="/log/(\d+)"' if place == "rounds" else r'href="/hospitals/(hospital-\d+)"'
            found += re.findall(pattern, text)
            link = re.search(rf'href="(/runs/{RUN}{path}\?[^"]+)" rel="next"', text)
            following = None if link is None else link[1].replace("&amp;", "&")
        if place == "hospitals":
            assert len(found) == len(expected), "each once"
        assert expected <= set(found)
    assert "Who took part" in client.get(f"/runs/{RUN}/hospitals?first=21").text
    assert client.get(f"/runs/{RUN}/hospitals?first=1000").status_code == 200
    assert client.get(f"/runs/{RUN}/rounds?before=0").status_code == 422


def test_a_small_run_is_whole_on_its_page(office: Web) -> None:
    client = office.signed_in("authority")
    page = client.get(f"/runs/{RUN}").text
    assert f"/runs/{RUN}/rounds" not in page
    assert f"/runs/{RUN}/hospitals" not in page
    assert "Who took part" in page
    assert client.get(f"/runs/{RUN}/rounds").text.count("completed") >= 3
    for path in ("rounds", "hospitals"):
        assert client.get(f"/runs/run-none/{path}").status_code == 404


@pytest.mark.parametrize("count", [1, 2, 9, 10, 11, 12, 1000])
def test_a_curve_is_thinned_evenly_between_its_ends(count: int) -> None:
    kept = thinned(range(count), 10)
    assert len(kept) == min(count, 10)
    assert (kept[0], kept[-1]) == (0, count - 1)
    steps = [after - before for before, after in pairwise(kept)]
    assert all(step >= 1 for step in steps)
    assert not steps or max(steps) - min(steps) <= 1


@pytest.mark.parametrize(
    ("result", "state", "title", "resumable"),
    [
        ({"status": "aborted", "reason": "berkel: the hospital's privacy budget does not cover the plan [over-budget]"},
         "aborted", "A hospital's privacy budget does not cover the plan", False),
        ({"status": "interrupted", "reason": "2 of 3 training hospitals are missing: berkel: no answer [unreachable]"},
         "stopped", "A hospital did not answer", True),
        ({"status": "failed", "reason": "OSError: disk full"}, "failed", "The run stopped", True),
        (None, "stopped", "The run stopped", True),
    ],
)  # fmt: skip
def test_what_went_wrong_is_said_in_words(
    office: Web, folder: Path, result: dict[str, str] | None, state: str, title: str, resumable: bool
) -> None:
    unfinished(office, folder, result)
    run = run_view(office.here, "run-other")
    assert run.trouble is not None
    assert (run.state, run.trouble.title, run.trouble.resumable) == (state, title, resumable)
    if result is not None:
        assert run.trouble.reason == result["reason"]
    page = office.signed_in("consortium_admin").get("/runs/run-other").text
    assert run.trouble.todo.replace("'", "&#39;") in page
    assert ("Resume the run" in page) == resumable
    shutil.rmtree(folder.parent / "run-other")


def unfinished(office: Web, folder: Path, result: dict[str, str] | None) -> Path:
    """Another run of the plan, that the log does not know: it was handed to the server, and ended like this."""
    other = folder.parent / "run-other"
    other.mkdir()
    (other / PLAN_FILE).write_text(office.ran.plan_hash)
    if result is not None:
        (other / RESULT_FILE).write_text(json.dumps(result))
    return other


def test_a_run_that_is_carried_out_is_live(office: Web, folder: Path) -> None:
    other = unfinished(office, folder, None)
    lines = (folder / PROGRESS_FILE).read_text().splitlines(keepends=True)
    (other / PROGRESS_FILE).write_text("".join(lines[:4]))
    client = office.signed_in("consortium_admin")
    with (other / LOCK_FILE).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        run = client.get("/api/v1/runs/run-other").json()
        assert (run["state"], run["carried_out"], run["stage"]) == ("running", True, "training")
        assert run["epsilon"] == json.loads(lines[3])["epsilon"]
        assert run["seconds_left"] > 0
        page = client.get("/runs/run-other").text
        assert 'data-live="/api/v1/runs/run-other/events?view=page&amp;after=4"' in page
        assert "Stop the run" in page
        listed = client.get("/api/v1/runs").json()["items"]
        assert next((each["run"], each["state"]) for each in listed) == ("run-other", "running")
        assert "1 run goes on." in client.get("/runs").text
        stop = client.post("/api/v1/runs/run-other/resume", headers=KEY)
        assert stop.status_code == 409
    shutil.rmtree(other)


def test_every_refusal_of_a_hospital_has_words_of_its_own() -> None:
    known = {"wrong-consortium", "not-invited", "unprotected", "plan-differs"}  # this software does not ask for these
    assert set(CODES) - set(_CODES) == known
    for code in _CODES:
        told = explained(f"amstel: no [{code}]", resumable=True)
        assert told.title != "The run stopped"
        assert told.todo


@pytest.mark.parametrize(
    ("reason", "title"),
    [
        ("not connected: berkel; start them with `zegel site start`", "Hospitals are not connected"),
        ("the server does not answer (OSError: x); is it running?", "The federation's server does not answer"),
        ("no data manifest of berkel is logged: they make one", "A hospital has announced no data"),
        ("no gates of icd_coding are set", "No gates are in force"),
        ("plan x: expected approval by a privacy_officer", "The plan's approvals do not suffice"),
        ("something new", "The run stopped"),
    ],
)
def test_reasons_are_known_by_their_words(reason: str, title: str) -> None:
    assert explained(reason, resumable=False).title == title


def test_starting_tells_at_once_what_is_missing(office: Web) -> None:
    admin = office.signed_in("consortium_admin")
    answer = admin.post("/api/v1/runs", json={"plan_hash": office.ran.plan_hash}, headers=KEY)
    assert answer.status_code == 409
    assert "server" in answer.json()["detail"]
    unknown = admin.post("/api/v1/runs", json={"plan_hash": "sha256:" + "0" * 64}, headers={"Idempotency-Key": "b"})
    assert unknown.status_code == 422
    over = admin.post(f"/api/v1/runs/{RUN}/resume", headers={"Idempotency-Key": "c"})
    assert (over.status_code, over.json()["title"]) == (409, "The run is over")
    assert admin.post(f"/api/v1/runs/{RUN}/stop", headers={"Idempotency-Key": "d"}).status_code == 409
    assert admin.post("/api/v1/federation/stop", headers={"Idempotency-Key": "e"}).status_code == 409
    form = posted(admin, "/runs/start", {"plan_hash": office.ran.plan_hash}, "f")
    assert form.status_code == 409
    assert "start the server" in form.text
    assert admin.get("/api/v1/launches").json() == {"items": []}
    assert admin.get("/api/v1/launches/launch-none").status_code == 404


def test_the_server_is_shown_as_it_is(office: Web) -> None:
    client = office.signed_in("release_manager")
    found = client.get("/api/v1/federation?connected=true").json()
    assert (found["running"], found["connected"]) == (False, None)
    assert "Start the server" not in client.get("/runs").text
    assert "Start the server" in office.signed_in("consortium_admin").get("/runs").text
    assert client.get("/runs/federation").status_code == 200


@pytest.mark.parametrize("role", ["privacy_officer", "release_manager", "authority"])
def test_only_admins_start_and_stop(office: Web, role: str) -> None:
    client = office.signed_in(role)
    for path in ("/runs", f"/runs/{RUN}", "/api/v1/runs", f"/api/v1/runs/{RUN}", "/api/v1/federation"):
        assert client.get(path).status_code == 200, path
    for path in (f"/runs/{RUN}/stop", f"/runs/{RUN}/resume", "/federation/start", "/federation/stop"):
        assert client.post(f"/api/v1{path}", headers=KEY).status_code == 403, path
        assert posted(client, path, {}, "k").status_code == 403, path
    contact = office.signed_in("hospital_contact", hospital="amstel")
    assert contact.get(f"/api/v1/runs/{RUN}").status_code == 403
