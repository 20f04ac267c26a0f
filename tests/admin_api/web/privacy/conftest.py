"""One office for all tests of privacy."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.admin_api.conftest import AfterRun
from tests.admin_api.web.crew import Office, office


@pytest.fixture(scope="module")
def privacy_office(ran: AfterRun, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Office]:
    """Shared by a module's tests."""
    with office(ran, tmp_path_factory.mktemp("privacy")) as opened:
        yield opened
