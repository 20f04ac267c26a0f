"""A browser for each module's journeys: Playwright's synchronous driver allows one at a time in a thread."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from tests.admin_api.conftest import AfterRun
from tests.admin_api.web.browser import chromium
from tests.admin_api.web.journeys.town import Town, town


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as opened:
        yield opened


@pytest.fixture(scope="module")
def place(ran: AfterRun, tmp_path_factory: pytest.TempPathFactory, browser: Browser) -> Iterator[Town]:
    """A consortium after a run, of the module's own."""
    with town(ran, tmp_path_factory.mktemp("town"), browser) as opened:
        yield opened
