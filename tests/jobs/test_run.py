"""Carrying out a run from the consortium's folder: what is done twice, and what is not."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from jobs.errors import FederationError, SiteError
from jobs.home import ConsortiumHome
from jobs.records import ENDED, LOCK_FILE, RESULT_FILE, read_result
from jobs.run import carry_out_run
from jobs.transport import Message

RUN, PLAN = "run-20261122T050000Z-abcdef", "sha256:" + "0" * 64


class Silent:
    """A transport over which nobody may be called."""

    def call(
        self, method: str, requests: Mapping[str, Message], *, timeout_s: float
    ) -> Mapping[str, Message | SiteError]:
        pytest.fail(f"{method} was called")


@pytest.mark.parametrize("status", ENDED)
def test_a_run_that_has_ended_is_not_carried_out_again(tmp_path: Path, status: str) -> None:
    """NVFlare may begin late with a job of a run that another job has finished."""
    home = ConsortiumHome(tmp_path)
    folder = home.run_folder(RUN)
    folder.mkdir(parents=True)
    result = {"status": status, "reason": "as it was"}
    (folder / RESULT_FILE).write_text(json.dumps(result), encoding="utf-8")
    assert carry_out_run(tmp_path, run_id=RUN, plan_hash=PLAN, transport=Silent()) is None
    assert read_result(home, RUN) == result


def test_one_process_at_a_time_carries_out_a_run(tmp_path: Path) -> None:
    folder = ConsortiumHome(tmp_path).run_folder(RUN)
    folder.mkdir(parents=True)
    with (folder / LOCK_FILE).open("w", encoding="utf-8") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        with pytest.raises(FederationError, match=f"run {RUN} is being carried out by another process"):
            carry_out_run(tmp_path, run_id=RUN, plan_hash=PLAN, transport=Silent())
