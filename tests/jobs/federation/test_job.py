"""A job is two configuration files: no code, no class but ours, no plan."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest

from jobs.errors import FederationError
from jobs.federation import kit as kits
from jobs.federation.job import write_job

HASH = "sha256:" + "ab" * 32
SITES = ("amstel", "berkel", "dommel")


@pytest.fixture
def job(tmp_path: Path) -> Path:
    return write_job(tmp_path / "run-1", run_id="run-1", plan_hash=HASH, sites=SITES)


def values_of(value: Any, key: str) -> list[Any]:
    """All values under `key`, however deep."""
    if isinstance(value, list):
        return [found for item in value for found in values_of(item, key)]
    if not isinstance(value, dict):
        return []
    return [found for name, item in value.items() for found in ([item] if name == key else values_of(item, key))]


def test_a_job_brings_no_code(job: Path) -> None:
    files = sorted(str(path.relative_to(job)) for path in job.rglob("*") if path.is_file())
    assert files == ["app/config/config_fed_client.json", "app/config/config_fed_server.json", "meta.json"]
    assert "custom" not in "".join(str(path.relative_to(job)) for path in job.rglob("*"))
    for path in job.rglob("*.json"):
        assert "custom" not in path.read_text(encoding="utf-8")


def test_a_job_names_classes_of_the_allow_lists_only(job: Path) -> None:
    for name, allowed in (("server", kits.SERVER_CLASSES), ("client", kits.SITE_CLASSES)):
        config = json.loads((job / "app" / "config" / f"config_fed_{name}.json").read_text(encoding="utf-8"))
        assert sorted(values_of(config, "path")) == sorted(allowed)
        assert values_of(config, "class_path") == values_of(config, "name") == []


def test_the_classes_exist_under_these_names() -> None:
    for path in (*kits.SERVER_CLASSES, *kits.SITE_CLASSES):
        module, _, name = path.rpartition(".")
        found = getattr(importlib.import_module(module), name)
        assert isinstance(found, type)


def test_a_job_names_the_plan_but_does_not_hold_it(job: Path) -> None:
    server = json.loads((job / "app" / "config" / "config_fed_server.json").read_text(encoding="utf-8"))
    (coordinator,) = server["components"]
    assert coordinator["args"] == {"run_id": "run-1", "plan_hash": HASH, "call_timeout_s": 120.0}
    client = json.loads((job / "app" / "config" / "config_fed_client.json").read_text(encoding="utf-8"))
    assert client["components"] == [{"id": "participant", "path": kits.PARTICIPANT, "args": {}}]


def test_all_hospitals_are_needed(job: Path) -> None:
    meta = json.loads((job / "meta.json").read_text(encoding="utf-8"))
    assert meta["mandatory_clients"] == list(SITES)
    assert meta["min_clients"] == len(SITES)
    assert meta["deploy_map"] == {"app": ["server", *SITES]}


def test_a_further_job_of_a_run_starts_with_those_who_answer(tmp_path: Path) -> None:
    first, second = (
        write_job(tmp_path, run_id="run-1", plan_hash=HASH, sites=SITES, enough=enough) for enough in (None, 2)
    )
    assert (first.name, second.name) == ("run-1", "run-1.2")
    meta = json.loads((second / "meta.json").read_text(encoding="utf-8"))
    assert (meta["min_clients"], meta["mandatory_clients"]) == (2, [])


@pytest.mark.parametrize("seconds", [0.0, 4.9, 3600.1, float("inf"), float("nan")])
def test_a_call_timeout_must_be_sensible(tmp_path: Path, seconds: float) -> None:
    with pytest.raises(FederationError, match=r"call timeout: expected 5 to 3600 seconds, got .*; nothing was started"):
        write_job(tmp_path, run_id="run-1", plan_hash=HASH, sites=SITES, call_timeout_s=seconds)
    assert list(tmp_path.iterdir()) == []
