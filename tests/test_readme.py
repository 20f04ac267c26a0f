"""The README's tree names every module, and nothing that is not there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("jobs", "site_packages", "privacy", "audit", "admin_api", "benchmarks")


def test_the_tree_is_the_tree() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    tree = readme.split("## The tree", 1)[1].split("```")[1]
    listed: set[str] = set()
    folders: list[str] = []
    for line in tree.strip("\n").splitlines():
        match = re.fullmatch(r"( *)(\S+?)(/?)(?:\s{2,}(\S.*))?", line)
        assert match is not None, line
        depth = len(match[1]) // 2
        folders = [*folders[:depth], match[2]]
        assert match[4], f"{match[2]} has no comment"
        if not match[3] and folders[0] in ROOMS:
            listed.add("/".join(folders))
    present = {
        str(path.relative_to(ROOT))
        for room in ROOMS
        for path in (ROOT / room).rglob("*.py")
        if path.name != "__init__.py"
    }
    assert listed == present


def test_the_readme_s_commands_exist() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in set(re.findall(r"^make ([a-z]+)", readme, flags=re.MULTILINE)):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target
    for link in re.findall(r"\]\(([^)h][^)]*)\)", readme):
        assert (ROOT / link).exists(), link
