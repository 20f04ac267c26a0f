"""Five flat packages: each is the one of this project, and the wheel holds them whole."""

from __future__ import annotations

import importlib
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("jobs", "site_packages", "privacy", "audit", "admin_api")


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel as it is given out."""
    folder = tmp_path_factory.mktemp("wheel")
    built = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=ROOT, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert built.returncode == 0, built.stdout + built.stderr
    (path,) = folder.glob("*.whl")
    return path


@pytest.mark.parametrize("name", PACKAGES)
def test_a_package_is_this_projects_own(name: str) -> None:
    """Their names are common words; a dependency's package of the same name must not win."""
    found = importlib.import_module(name).__file__
    assert found is not None
    folder = Path(found).resolve().parent
    if folder.parent != ROOT:  # the wheel is installed: then it must hold the same files
        ours = {path.relative_to(ROOT / name) for path in (ROOT / name).rglob("*.py")}
        assert {path.relative_to(folder) for path in folder.rglob("*.py")} == ours


def test_the_packages_win_from_any_folder(tmp_path: Path) -> None:
    script = f"import importlib; print(*[importlib.import_module(name).__file__ for name in {PACKAGES!r}], sep='\\n')"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True
    )
    here = [importlib.import_module(name).__file__ for name in PACKAGES]
    assert done.stdout.split("\n")[:-1] == here


def test_every_folder_of_code_is_a_package() -> None:
    """A folder without __init__.py would import as a namespace, and any other folder of that name could join it."""
    for name in PACKAGES:
        for path in (ROOT / name).rglob("*.py"):
            assert (path.parent / "__init__.py").exists(), path


def test_the_wheel_holds_the_five_packages_whole(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    tops = {name.split("/")[0] for name in names if not name.split("/")[0].endswith(".dist-info")}
    assert tops == set(PACKAGES)
    expected = {
        str(path.relative_to(ROOT))
        for name in PACKAGES
        for path in (ROOT / name).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {name for name in names if name.split("/")[0] in PACKAGES} == expected
    assert [name for name in names if name.endswith(".toml")], "the sample's vocabulary is missing"


def test_the_wheel_names_the_command_and_the_parts(wheel: Path, project: dict[str, Any]) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (points,) = [name for name in archive.namelist() if name.endswith("entry_points.txt")]
        (metadata,) = [name for name in archive.namelist() if name.endswith("METADATA")]
        assert "zegel = admin_api.cli:main" in archive.read(points).decode()
        text = archive.read(metadata).decode()
    for extra in project["project"]["optional-dependencies"]:
        assert f"Provides-Extra: {extra}" in text


def test_the_verifier_needs_no_heavy_package(project: dict[str, Any]) -> None:
    base = {item.split(">")[0].split("=")[0] for item in project["project"]["dependencies"]}
    assert base == {"cryptography", "rfc8785", "rich", "typer"}


def test_every_dependency_is_pinned(project: dict[str, Any]) -> None:
    def name(requirement: str) -> str:
        for end in "<>=!~[; ":
            requirement = requirement.split(end)[0]
        return requirement.lower().replace("_", "-")

    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = {name(line) for line in lines if "==" in line}
    extras = project["project"]["optional-dependencies"]
    wanted = {name(item) for group in (project["project"]["dependencies"], *extras.values()) for item in group}
    assert wanted - {"zegel"} - pinned == set()
