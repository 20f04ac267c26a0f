"""The gallery in a real Chromium: accessibility in both themes, keys, tables, live parts, charts, print, no scripts."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.admin_api.web.browser import Visit, chromium, serving, visiting
from tests.admin_api.web.gallery import gallery_app


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as opened:
        yield opened


@pytest.fixture(scope="module")
def address(browser: Browser) -> Iterator[str]:
    with serving(gallery_app()) as found:
        yield found


@pytest.fixture
def visit(browser: Browser, address: str) -> Iterator[Visit]:
    """The gallery on a wide, light screen; nothing may go wrong on it."""
    with visiting(browser, address) as opened:
        opened.go("/gallery")
        yield opened
        assert opened.faults == []


@pytest.mark.parametrize(
    ("width", "dark", "language"),
    [(1440, False, "en"), (390, True, "nl")],
)
def test_accessible_in_every_theme_width_and_language(
    browser: Browser, address: str, width: int, dark: bool, language: str
) -> None:
    with visiting(browser, address, width=width, dark=dark, language=language) as visit:
        visit.go("/gallery")
        assert visit.accessibility() == []
        assert visit.overflow() == 0
        assert visit.faults == []


@pytest.mark.parametrize("width", [320, 641, 800, 901, 1920])
def test_nothing_has_to_be_scrolled_sideways(browser: Browser, address: str, width: int) -> None:
    with visiting(browser, address, width=width, language="nl") as visit:
        visit.go("/gallery")
        assert visit.overflow() == 0


def test_menus_and_dialogs_are_accessible(browser: Browser, address: str) -> None:
    with visiting(browser, address, width=390) as visit:
        visit.go("/gallery")
        visit.page.click('[popovertarget="places"]')
        expect(visit.page.get_by_role("navigation", name="Places")).to_be_visible()
        assert visit.accessibility(within="#places") == []
        visit.page.keyboard.press("Escape")
        visit.page.click('.bar [popovertarget="viewer-menu"]')
        expect(visit.page.get_by_role("button", name="Sign out")).to_be_visible()
        assert visit.accessibility(within="#viewer-menu") == []
        visit.page.keyboard.press("Escape")
        visit.page.keyboard.press("?")
        expect(visit.page.get_by_role("dialog", name="Keyboard")).to_be_visible()
        assert visit.accessibility(within="#keys") == []


def test_keys(visit: Visit) -> None:
    page = visit.page
    page.keyboard.press("/")
    expect(page.locator("#search")).to_be_focused()
    page.keyboard.type("g l")  # typed, not a shortcut
    assert page.url.endswith("/gallery")
    page.keyboard.press("Escape")
    expect(page.locator("#search")).not_to_be_focused()

    page.keyboard.press("j")
    expect(page.get_by_role("link", name="st-elders")).to_be_focused()
    page.keyboard.press("j")
    expect(page.locator("tr.at")).to_contain_text("noordzee")
    page.keyboard.press("k")
    expect(page.locator("tr.at")).to_contain_text("st-elders")

    page.keyboard.press("?")
    expect(page.locator("[data-keys-page]")).to_contain_text("Save")
    page.keyboard.press("j")  # the page behind a dialog stays as it is
    expect(page.locator("tr.at")).to_contain_text("st-elders")
    page.keyboard.press("Escape")

    visit.expected_statuses.add(404)
    page.keyboard.press("g")
    page.keyboard.press("l")
    page.wait_for_url("**/log")


def test_enter_opens_a_row(visit: Visit) -> None:
    visit.expected_statuses.add(404)
    visit.page.keyboard.press("j")
    visit.page.keyboard.press("Enter")
    visit.page.wait_for_url("**/hospitals/st-elders")


def shown_rows(visit: Visit) -> list[str]:
    """The names of the hospitals' table, in the order shown."""
    return visit.page.locator("#hospitals tbody tr:visible th").all_inner_texts()


def test_tables_sort_by_the_figure_and_not_by_its_text(visit: Visit) -> None:
    head = visit.page.get_by_role("button", name="Certificate, days left")
    head.click()
    assert shown_rows(visit) == ["west", "noordzee", "st-elders", "zuid"]  # what has no figure is last
    expect(visit.page.locator("th[aria-sort=ascending]")).to_contain_text("Certificate")
    head.click()
    assert shown_rows(visit) == ["st-elders", "noordzee", "west", "zuid"]
    expect(visit.page.locator("#said")).to_have_text("Sorted by Certificate, days left, descending.")


def test_tables_filter_and_say_how_many_are_left(visit: Visit) -> None:
    visit.page.fill("[data-filter]", "EVAL noord")
    assert shown_rows(visit) == ["noordzee"]
    expect(visit.page.locator("#hospitals-frame [data-count]")).to_have_text("1 of 4 rows")
    visit.page.fill("[data-filter]", "nobody")
    expect(visit.page.locator("#hospitals-frame [data-no-match]")).to_be_visible()
    visit.page.fill("[data-filter]", "")
    assert len(shown_rows(visit)) == 4


def test_tables_as_csv_hold_figures_and_no_formulas(visit: Visit, tmp_path: Path) -> None:
    visit.page.evaluate("document.querySelector('#hospitals tbody th a').textContent = '=HYPERLINK(1)'")
    with visit.page.expect_download() as waiting:
        visit.page.click("#hospitals-frame [data-csv]")
    assert waiting.value.suggested_filename == "hospitals-of-the-consortium.csv"
    waiting.value.save_as(tmp_path / "rows.csv")
    with (tmp_path / "rows.csv").open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0][:3] == ["Hospital", "State", "Certificate, days left"]
    assert rows[1][:5] == ["'=HYPERLINK(1)", "training", "212", "2026-11-22T04:58:12Z", "0.712"]
    assert len(rows) == 5


def test_the_theme_is_kept_and_the_server_draws_it(visit: Visit) -> None:
    def ground() -> str:
        return str(visit.page.evaluate("getComputedStyle(document.body).backgroundColor"))

    assert ground() == "rgb(255, 255, 255)"
    visit.page.click(".viewer")
    visit.page.click("#viewer-menu [data-theme-choice=dark]")
    assert ground() == "rgb(18, 21, 27)"
    visit.page.reload()
    assert visit.page.locator("html").get_attribute("data-theme") == "dark"
    assert ground() == "rgb(18, 21, 27)"


def test_the_language_is_kept(visit: Visit) -> None:
    visit.page.click(".viewer")
    visit.page.get_by_role("button", name="Nederlands").click()
    expect(visit.page.locator("html")).to_have_attribute("lang", "nl")
    expect(visit.page.locator("[data-go=h]")).to_contain_text("Ziekenhuizen")
    visit.page.get_by_role("button", name="Certificate, days left").click()
    expect(visit.page.locator("#said")).to_have_text("Gesorteerd op Certificate, days left, oplopend.")


def test_figures_change_in_place_and_a_stream_goes_on_where_it_was(visit: Visit) -> None:
    expect(visit.page.locator("[data-live-value=round]")).to_have_text("7")
    expect(visit.page.locator("#swapped")).to_have_text("Swapped in.")
    expect(visit.page.locator("#loss-plot-figures tbody tr")).to_have_count(5)  # sent after the connection was cut
    assert visit.page.locator("#loss-plot-figures tbody tr").last.inner_text().split() == ["5", "1.3", "1.6"]
    expect(visit.page.locator(".lost")).to_have_count(0)


def test_a_lost_connection_says_so_and_since_when(browser: Browser, address: str) -> None:
    with visiting(browser, address) as visit:
        visit.page.route("**/events*", lambda route: route.abort())
        visit.go("/gallery")
        expect(visit.page.locator(".lost")).to_contain_text("No connection since")
        visit.page.unroute("**/events*")
        expect(visit.page.locator("[data-live-value=round]")).to_have_text("7")
        expect(visit.page.locator(".lost")).to_have_count(0)


def test_a_question_comes_before_what_cannot_be_taken_back(visit: Visit) -> None:
    stop = visit.page.get_by_role("button", name="Stop the run")
    visit.page.fill("#field-epsilon", "1")
    visit.expected_statuses.add(404)  # the icon of the plain answer at the end
    stop.click()
    question = visit.page.get_by_role("dialog", name="Stop the run? It can be resumed later.")
    expect(question.get_by_role("button", name="Cancel")).to_be_focused()
    question.get_by_role("button", name="Cancel").click()
    expect(question).to_have_count(0)
    assert visit.page.url.endswith("/gallery")
    stop.click()
    question.get_by_role("button", name="Stop the run").click()
    expect(visit.page.locator("body")).to_contain_text("csrf")
    assert "idempotency_key" in visit.page.inner_text("body")


def test_digests_are_copied_whole(visit: Visit) -> None:
    visit.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    visit.page.get_by_role("button", name="Copy the digest sha256:5f0c9b1e7a2d").first.click()
    expect(visit.page.locator("#said")).to_have_text("Copied.")
    copied = visit.page.evaluate("navigator.clipboard.readText()")
    assert copied == "sha256:5f0c9b1e7a2d4c11aa03b2c9d8e7f60123456789abcdef0123456789abcdef01"


def test_the_interactive_chart_is_drawn_from_its_table(visit: Visit) -> None:
    expect(visit.page.locator("#loss-plot canvas")).to_have_count(1)
    drawn = visit.page.evaluate(
        "(() => { const p = document.querySelector('#loss-plot canvas'); const d = p.getContext('2d')"
        ".getImageData(0, 0, p.width, p.height).data; return d.some((v, i) => i % 4 === 3 && v > 0); })()"
    )
    assert drawn
    expect(visit.page.locator("#loss-plot-figures")).to_be_visible()


def test_without_scripts_everything_can_be_read_and_sent(browser: Browser, address: str) -> None:
    with visiting(browser, address, scripts=False) as visit:
        visit.go("/gallery")
        page = visit.page
        assert shown_rows(visit) == ["st-elders", "noordzee", "zuid", "west"]
        expect(page.locator("#hospitals-frame [data-csv]")).to_be_hidden()
        expect(page.locator("#loss-plot-figures")).to_be_visible()
        page.click(".viewer")  # a popover needs no script
        page.click("#viewer-menu button[name=theme][value=dark]")
        expect(page.locator("html")).to_have_attribute("data-theme", "dark")
        page.fill("#field-epsilon", "1")
        page.get_by_role("button", name="Save").click()
        expect(page.locator("body")).to_contain_text("csrf")


def test_print_leaves_out_what_paper_cannot_use(browser: Browser, address: str) -> None:
    with visiting(browser, address, dark=True) as visit:
        visit.go("/gallery")
        page = visit.page
        page.emulate_media(media="print", color_scheme="dark")
        for gone in (".places", ".actions", ".pager", ".table-tools", ".copy"):
            expect(page.locator(gone).first).to_be_hidden()
        expect(page.locator("text=Printed from https://zegel.example/gallery")).to_be_visible()
        assert page.evaluate("getComputedStyle(document.body).color") == "rgb(26, 31, 41)"
        figures = page.locator("details.data:not([open]) table").first
        assert page.evaluate("(table) => table.getBoundingClientRect().height > 0", figures.element_handle())


def test_who_wants_less_motion_gets_none(visit: Visit) -> None:
    assert visit.page.evaluate("getComputedStyle(document.querySelector('.skeleton span')).animationName") == "none"
