"""One real federation for all tests of this folder: the demo, left running, on ports of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.federation.live_federation import Live, zegel

EPSILON = 30  # so that few synthetic patients train a model that passes the gates


@pytest.fixture(scope="session")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    workspace = tmp_path_factory.mktemp("federation") / "demo"
    try:
        ended = zegel(
            *("demo", "--workspace", workspace, "--hospitals", "4", "--admissions", "300", "--epsilon", str(EPSILON)),
            "--keep-running",
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr
        yield Live(workspace, ended.stdout)
    finally:
        zegel("demo-stop", "--workspace", workspace)
