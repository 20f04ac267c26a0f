"""How long calls took at a hospital: what is measured, and the file it is written to."""

from __future__ import annotations

import logging
import stat
from pathlib import Path

import pytest
import torch

from jobs.errors import SiteError
from jobs.timings import REST, TimedCall
from site_packages.limits import Limits
from site_packages.timings_file import TimingsFile, read_timings
from tests.jobs.small_federation import SITES, simulation, small_plan, unprotected_plan

torch.set_num_threads(1)
ROUND = {REST, "ledger", "local work", "noise", "masking", "receipt"}


def test_every_call_is_timed_by_part(tmp_path: Path) -> None:
    calls: dict[str, list[TimedCall]] = {}
    whole = simulation(tmp_path, small_plan(), timed=lambda site, call: calls.setdefault(site, []).append(call))
    whole.run()
    assert set(calls) == set(SITES)
    for timed in calls.values():
        assert [(call.method, call.round) for call in timed] == [
            ("join", None), ("announce", 1), ("share_keys", 1),
            *((method, number) for number in (1, 2, 3) for method in ("round", "survivors", "unmask")),
            ("finish", None),
        ]  # fmt: skip
        assert all(set(call.seconds) == (ROUND if call.method == "round" else {REST}) for call in timed)
        assert all(second >= 0 for call in timed for second in call.seconds.values())


def test_a_plan_without_privacy_spends_no_time_on_the_ledger(tmp_path: Path) -> None:
    calls: list[TimedCall] = []
    public = Limits(data_is_public=True)
    simulation(tmp_path, unprotected_plan(rounds=1), limits=public, timed=lambda _, call: calls.append(call)).run()
    assert {part for call in calls if call.method == "round" for part in call.seconds} == ROUND - {"ledger"}


def test_a_refused_call_is_timed_as_well(tmp_path: Path) -> None:
    calls: list[TimedCall] = []
    whole = simulation(tmp_path, small_plan(), timed=lambda _, call: calls.append(call))
    for message in ({}, {"secagg": None}, {"secagg": {"round": True}}, {"secagg": {"round": "2"}}):
        with pytest.raises(SiteError, match="not-joined"):
            whole.participants["amstel"].handle("round", message)
    assert [(call.method, call.round) for call in calls] == [("round", None)] * 4


def test_the_file_holds_the_calls_since_the_last_join(tmp_path: Path) -> None:
    path = tmp_path / "timings.jsonl"
    assert read_timings(path) == []
    file = TimingsFile(path)
    for run in (1, 2):
        file(TimedCall("join", None, {REST: 1.0}))
        file(TimedCall("round", run, {REST: 0.25, "noise": 0.123456789}))
    assert read_timings(path) == [
        TimedCall("join", None, {REST: 1.0}),
        TimedCall("round", 2, {REST: 0.25, "noise": 0.12346}),
    ]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_file_that_cannot_be_written_costs_only_the_timing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="site_packages.timings_file"):
        TimingsFile(tmp_path / "nowhere" / "timings.jsonl")(TimedCall("join", None, {REST: 1.0}))
    assert "cannot be written" in caplog.text
