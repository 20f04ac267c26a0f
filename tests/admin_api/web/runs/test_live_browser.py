"""A run watched in a real Chromium while its coordinator writes: figures change in place, and its end is told."""

from __future__ import annotations

import fcntl
import json
from dataclasses import replace
from pathlib import Path

from playwright.sync_api import expect
from starlette.testclient import TestClient

from admin_api.web.app import create_app, make_workplace
from admin_api.web.settings import Settings
from jobs.records import LOCK_FILE, PLAN_FILE, PROGRESS_FILE, RESULT_FILE
from tests.admin_api.conftest import AfterRun
from tests.admin_api.web.browser import chromium, free_port, serving, visiting
from tests.admin_api.web.sign_in.signed_in import sign_in_for_tests

RUN = "run-20261122T120000Z-0000ff"


def tell(folder: Path, stage: str, number: int) -> None:
    """A line of progress, as the coordinator writes it."""
    line = {"stage": stage, "round": number, "rounds": 3, "participants": ["amstel", "berkel", "dommel"],
            "epsilon": 0.25 * number, "seconds": 2.0 * number, "round_seconds": 2.0}  # fmt: skip
    with (folder / PROGRESS_FILE).open("a", encoding="utf-8") as handle:
        handle.write(json.dumps(line) + "\n")


def test_figures_change_in_place_until_the_run_stands_still(after_run: AfterRun) -> None:
    with chromium() as browser:
        port = free_port()
        settings = Settings(home=after_run.home.path, public_url=f"http://localhost:{port}")
        here = replace(make_workplace(settings), home=after_run.home)
        app = create_app(settings, here)
        folder = here.home.run_folder(RUN)
        folder.mkdir()
        (folder / PLAN_FILE).write_text(after_run.plan_hash)
        tell(folder, "joining", 0)
        client = TestClient(app, base_url=settings.public_url)
        sign_in_for_tests(client, here, "privacy_officer")
        with (
            (folder / LOCK_FILE).open("w") as lock,
            serving(app, port) as address,
            visiting(browser, address) as visit,
        ):
            fcntl.flock(lock, fcntl.LOCK_EX)
            visit.page.context.add_cookies(
                [{"name": each.name, "value": each.value or "", "url": address} for each in client.cookies.jar]
            )
            visit.go(f"/runs/{RUN}")
            epsilon = visit.page.locator("[data-live-value=epsilon]")
            for number, shown in ((1, "0.25"), (2, "0.5")):
                tell(folder, "training", number)
                expect(epsilon).to_have_text(shown)
            reason = "2 of 3 training hospitals are missing: berkel: no answer [unreachable]"
            (folder / RESULT_FILE).write_text(json.dumps({"status": "interrupted", "reason": reason}))
            expect(visit.page.locator("#run-trouble")).to_contain_text("A hospital did not answer")
            assert visit.accessibility() == []
            assert visit.faults == []
        here.reading.close()
        here.database.close()
