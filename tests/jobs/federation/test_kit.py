"""Hardening NVFlare's kits, and refusing to start one that was loosened afterwards."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jobs.errors import ProvisioningError
from jobs.federation import kit as kits

STREAMER = {"id": "site_log_streamer", "path": "nvflare.app_common.logging.site_log_streamer.SiteLogStreamer"}
DELIVERED: dict[str, Any] = {  # the shape of NVFlare's resources.json.default
    "format_version": 2,
    "class_list_enforcement_mode": "enforce",
    "class_allow_list": ["nvflare.app_common.np.np_trainer.NPTrainer"],
    "allow_log_streaming": True,
    "components": [
        {"id": "process_launcher", "path": "nvflare.app_common.job_launcher.client_process_launcher.Launcher"},
        STREAMER,
        {"id": "log_receiver", "path": "nvflare.app_common.logging.job_log_receiver.JobLogReceiver"},
    ],
}


@pytest.fixture
def kit(tmp_path: Path) -> Path:
    """A hardened hospital kit."""
    kit = tmp_path / "kit"
    for folder in ("startup", "local"):
        (kit / folder).mkdir(parents=True)
    (kit / "local" / "resources.json.default").write_text(json.dumps(DELIVERED), encoding="utf-8")
    (kit / "startup" / "client.key").write_text("key", encoding="ascii")
    (kit / "startup" / "start.sh").write_text("#!/bin/sh\n", encoding="ascii")
    (kit / "startup" / "start.sh").chmod(0o755)
    kits.harden(kit, classes=kits.SITE_CLASSES, settings={"site_home": str(tmp_path)})
    return kit


def check(kit: Path) -> None:
    kits.check_hardened(kit, classes=kits.SITE_CLASSES)


def resources(kit: Path, **changes: Any) -> None:
    path = kit / "local" / "resources.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes), encoding="utf-8")


def components(kit: Path) -> list[Any]:
    value: list[Any] = json.loads((kit / "local" / "resources.json").read_text(encoding="utf-8"))["components"]
    return value


def rights(kit: Path, role: str, **changes: str) -> None:
    path = kit / "local" / "authorization.json"
    value = json.loads(path.read_text(encoding="utf-8"))
    value["permissions"][role] |= changes
    path.write_text(json.dumps(value), encoding="utf-8")


def added(path: Path, text: str = "{}") -> None:
    path.parent.mkdir(mode=0o700, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    path.chmod(0o600)


def test_a_hardened_kit_is_accepted(kit: Path) -> None:
    check(kit)
    assert [part["id"] for part in components(kit)] == ["process_launcher", "connection"]
    assert (kit / "startup" / "start.sh").stat().st_mode & 0o777 == 0o700
    assert (kit / "startup" / "client.key").stat().st_mode & 0o777 == 0o600


LOOSENINGS: dict[str, tuple[Callable[[Path], None], str]] = {
    "not enforced": (lambda kit: resources(kit, class_list_enforcement_mode="warn"), "class_list_enforcement_mode"),
    "no mode": (lambda kit: resources(kit, class_list_enforcement_mode=None), "class_list_enforcement_mode"),
    "a class more": (
        lambda kit: resources(kit, class_allow_list=[*kits.SITE_CLASSES, "os.system"]),
        "class_allow_list",
    ),
    "a whole package": (lambda kit: resources(kit, class_allow_list=["site_packages."]), "class_allow_list"),
    "NVFlare's list": (lambda kit: resources(kit, class_allow_list=DELIVERED["class_allow_list"]), "class_allow_list"),
    "log streaming": (lambda kit: resources(kit, allow_log_streaming=True), "allow_log_streaming"),
    "streaming left open": (lambda kit: resources(kit, allow_log_streaming=None), "allow_log_streaming"),
    "the streamer": (lambda kit: resources(kit, components=[*components(kit), STREAMER]), "components"),
    "a component": (
        lambda kit: resources(kit, components=[*components(kit), {"id": "mine", "path": "evil.Component"}]),
        "component mine in resources.json was added",
    ),
    "a component's class": (
        lambda kit: resources(kit, components=[{"id": "process_launcher", "path": "evil.Launcher"}]),
        "component process_launcher in resources.json was added",
    ),
    "code in jobs": (lambda kit: rights(kit, "lead", byoc="any"), "authorization.json"),
    "code for members": (lambda kit: rights(kit, "member", byoc="n:submitter"), "authorization.json"),
    "a shell": (lambda kit: rights(kit, "org_admin", shell_commands="any"), "authorization.json"),
    "jobs of others": (lambda kit: rights(kit, "project_admin", submit_job="any"), "authorization.json"),
    "an overriding file": (
        lambda kit: added(kit / "local" / "my__resources.json"),
        "my__resources.json overrides resources.json",
    ),
    "an overriding file in startup": (
        lambda kit: added(kit / "startup" / "x__j_resources.json"),
        "x__j_resources.json overrides resources.json",
    ),
    "code on the path": (lambda kit: added(kit / "local" / "custom" / "evil.py"), "local/custom brings code"),
    "an open key": (lambda kit: (kit / "startup" / "client.key").chmod(0o640), "client.key can be read by others"),
    "an open setting": (lambda kit: (kit / "local" / "zegel.json").chmod(0o604), "zegel.json can be read by others"),
    "an open folder": (lambda kit: kit.chmod(0o755), "kit can be read by others (mode 755, expected 700)"),
    "no resources": (lambda kit: (kit / "local" / "resources.json").unlink(), "not installed, or damaged"),
    "no rights": (lambda kit: (kit / "local" / "authorization.json").unlink(), "not installed, or damaged"),
    "half a file": (
        lambda kit: added(kit / "local" / "resources.json", "{"),
        "not installed, or damaged",
    ),
    "a list": (
        lambda kit: added(kit / "local" / "resources.json", "[]"),
        "not installed, or damaged",
    ),
    "rights of nobody": (
        lambda kit: added(kit / "local" / "authorization.json", '{"permissions": {}}'),
        "authorization.json is not Zegel's",
    ),
}


@pytest.mark.parametrize("name", LOOSENINGS)
def test_a_loosened_kit_is_refused(kit: Path, name: str) -> None:
    loosen, message = LOOSENINGS[name]
    loosen(kit)
    with pytest.raises(ProvisioningError) as caught:
        check(kit)
    assert str(kit) in str(caught.value)
    assert message in str(caught.value)
    assert "nstall" in str(caught.value)


def test_all_problems_are_told_at_once(kit: Path) -> None:
    resources(kit, allow_log_streaming=True)
    rights(kit, "lead", byoc="any")
    with pytest.raises(ProvisioningError, match=r"allow_log_streaming .*; authorization\.json"):
        check(kit)


def test_a_servers_kit_is_no_hospitals(kit: Path) -> None:
    with pytest.raises(ProvisioningError, match="class_allow_list"):
        kits.check_hardened(kit, classes=kits.SERVER_CLASSES)


def test_modes_are_closed_but_links_are_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("mine", encoding="utf-8")
    outside.chmod(0o644)
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "link").symlink_to(outside)
    kits.close_modes(inside)
    assert outside.stat().st_mode & 0o777 == 0o644


def test_a_server_does_not_start_without_its_own_door(kit: Path) -> None:
    kits.harden(kit, classes=kits.SERVER_CLASSES, settings={"consortium_home": "x"}, server_store=None)
    kits.check_hardened(kit, classes=kits.SERVER_CLASSES)
    hardened = components(kit)
    assert hardened[-1] == kits.DOOR
    for spoiled in (hardened[:-1], [*hardened[:-1], kits.DOOR | {"path": "jobs.federation.door.Open"}]):
        resources(kit, components=spoiled)
        with pytest.raises(ProvisioningError, match=r"components in resources\.json is not as installed"):
            kits.check_hardened(kit, classes=kits.SERVER_CLASSES)
