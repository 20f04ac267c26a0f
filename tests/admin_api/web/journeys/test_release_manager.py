"""A release manager's week: gates, two versions side by side, an approval, the certification, the dossier."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import expect

from admin_api.releasing import propose_release
from audit.errors import AuditError
from audit.verify import verify_dossier
from tests.admin_api.consortium_folder import EVALUATOR, RUN, TRAINERS, opened
from tests.admin_api.web.browser import Visit
from tests.admin_api.web.certificates.cast import signed as signed_by
from tests.admin_api.web.journeys.town import Town, looked_at, signed

NAME = "winter-2026"


@pytest.fixture(scope="module")
def rosa(place: Town) -> Visit:
    """Her window, while a candidate waits that the privacy officer has approved already."""
    petra = place.resident("Petra Privacy", "privacy_officer", "privacy board")
    resident = place.resident("Rosa Release", "release_manager", "coding centre")
    admin = opened(place.here.home, place.ran.people / "admin")
    propose_release(place.here.home, run_id=RUN, release=NAME, proposer=admin)
    answer = signed_by(petra.visitor, "release-decision", release=NAME, decision="approve", reason="gates passed")
    assert answer.status_code == 200, answer.text
    return place.at_work(resident)


def test_today_names_what_waits(rosa: Visit) -> None:
    rosa.go("/")
    looked_at(rosa, "manager-today")
    rosa.page.get_by_role("main").get_by_role("link", name=NAME).first.click()
    rosa.page.wait_for_url(f"**/releases/{NAME}*")


def test_gates_are_set_with_a_signature(rosa: Visit) -> None:
    page = rosa.page
    rosa.go("/releases")
    looked_at(rosa, "releases")
    page.get_by_role("link", name="Gates").click()
    looked_at(rosa, "gates")
    page.get_by_label("Gates, one a line").fill("epsilon<=6\nhit@1@every-site>=0.3")
    page.get_by_label("Reason").fill("agreed in the winter meeting")
    page.get_by_role("button", name="Show what I sign").click()
    signed(rosa, "gates-sign")
    rosa.go("/releases/gates")
    newest = page.locator("main section").first
    expect(newest).to_contain_text("agreed in the winter meeting")
    expect(newest).to_contain_text("hit@1@every-site ≥ 0.3")
    expect(newest).to_contain_text("Rosa Release")


def test_versions_are_compared(rosa: Visit) -> None:
    page = rosa.page
    rosa.go("/releases/compare")
    for label in ("Before", "After"):
        page.get_by_label(label, exact=True).select_option(index=0)
    page.get_by_role("button", name="Compare").click()
    page.wait_for_url("**/releases/compare?before=*")
    looked_at(rosa, "compare")
    figures = page.get_by_role("table", name="Every figure reported about either version")
    for site in (*TRAINERS, EVALUATOR):
        expect(figures.get_by_role("rowheader", name=site).first).to_be_visible()
    assert page.locator("figure.chart-figure").count() >= 1
    expect(page.get_by_role("table", name="Bridge study")).to_be_visible()


def test_a_candidate_is_approved_certified_and_its_dossier_verifies(rosa: Visit, place: Town, tmp_path: Path) -> None:
    page = rosa.page
    rosa.go(f"/releases/{NAME}")
    looked_at(rosa, "candidate")
    expect(page.get_by_role("link", name="Dossier")).to_have_count(0)
    expect(page.get_by_role("button", name="Certify")).to_have_count(0)
    page.get_by_label("Reason").fill("all gates passed, report read")
    page.get_by_role("button", name="Approve").click()
    signed(rosa, "release-approve-sign")
    page.wait_for_url(f"**/releases/{NAME}")
    expect(page.get_by_text("Every approval is given")).to_be_visible()
    page.get_by_role("button", name="Certify").click()
    expect(page.get_by_text("Certified on")).to_be_visible()
    looked_at(rosa, "certified")
    with page.expect_download() as download:
        page.get_by_role("link", name="Dossier").click()
    path = tmp_path / "release.dossier"
    download.value.save_as(path)
    assert download.value.suggested_filename == f"{NAME}.dossier"
    root = (place.here.home.ca / "rootCA.pem").read_bytes()
    report = verify_dossier(path.read_bytes(), root, now=place.here.home.clock())
    assert report.trace.release == NAME
    cut = path.read_bytes()
    with pytest.raises(AuditError):
        verify_dossier(cut[: len(cut) // 2], root, now=place.here.home.clock())


def test_the_report_opens_in_its_sandbox(rosa: Visit) -> None:
    rosa.go(f"/releases/{NAME}")
    with rosa.page.expect_popup() as popup:
        rosa.page.get_by_role("link", name="Read the report").click()
    report = popup.value
    report.wait_for_load_state()
    expect(report.locator("h1").first).to_be_visible()
    report.close()
