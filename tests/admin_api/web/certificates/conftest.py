"""The app over a freshly founded consortium of each test's own: here the log is written to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.home import ConsortiumHome
from tests.admin_api.consortium_folder import copied
from tests.admin_api.web.sign_in.conftest import Clock, Door, open_door


@pytest.fixture
def door(founded: ConsortiumHome, tmp_path: Path) -> Iterator[Door]:
    """An app that people come in by, with a clock that the test moves."""
    clock = Clock()
    opened = open_door(copied(founded.path, tmp_path / "consortium", clock), clock)
    yield opened
    opened.here.database.close()
