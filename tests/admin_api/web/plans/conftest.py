"""One office for all tests of plans."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.admin_api.conftest import AfterRun
from tests.admin_api.web.crew import Office, office


@pytest.fixture(scope="module")
def desk_office(ran: AfterRun, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Office]:
    """Shared by a module's tests, which follow one plan from its draft to its approval."""
    with office(ran, tmp_path_factory.mktemp("plans")) as opened:
        yield opened
