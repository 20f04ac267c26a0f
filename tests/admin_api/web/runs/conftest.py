"""One app for the tests of runs that change nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from admin_api.web.app import create_app, make_workplace
from admin_api.web.settings import Settings
from tests.admin_api.conftest import AfterRun
from tests.admin_api.consortium_folder import copied
from tests.admin_api.web.conftest import URL, Web


@pytest.fixture(scope="module")
def office(ran: AfterRun, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    home = copied(ran.home.path, tmp_path_factory.mktemp("runs") / "consortium")
    settings = Settings(home=home.path, public_url=URL)
    here = replace(make_workplace(settings), home=home)
    yield Web(create_app(settings, here), here, AfterRun(home, ran.people, ran.sites, ran.plan_hash))
    here.reading.close()
    here.database.close()
