"""`zegel audit trace`: any version followed back, as a tree, JSON and a picture."""

from __future__ import annotations

import json
from copy import copy
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import pytest
from typer.testing import CliRunner

from audit.artifacts import Artifacts
from audit.canonical import digest_of
from audit.commands import audit_app
from audit.documents.picture import version_picture
from audit.errors import TraceError
from audit.round_trace import RoundTrace
from audit.version_trace import VersionTrace, find_version, plan_hashes_behind, trace_any_version
from audit.wording import version_tree

if TYPE_CHECKING:
    from tests.audit.conftest import Keys, Story
else:
    Keys = Story = object


def traced(story: Story, version: str) -> VersionTrace:
    evidence = story.evidence()
    plans = {each: story.artifacts[each] for each in plan_hashes_behind(evidence, version)}
    return trace_any_version(evidence, version, plans)


@pytest.fixture(scope="module")
def two_runs(keys: Keys) -> Story:
    """A version that was never released, and a released one that grew out of it."""
    from tests.audit.conftest import Story as Told

    story = Told(keys)
    story.found()
    story.run()
    second = copy(story)
    second.initial_version, second.model, second.run_id = story.version, b"second", "run-20261123T050000Z-abcdef"
    second.run()
    second.release()
    return second


@pytest.fixture(scope="module")
def home(two_runs: Story, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The story as a consortium's folder."""
    folder = tmp_path_factory.mktemp("consortium")
    artifacts = Artifacts(folder / "artifacts")
    for data in two_runs.artifacts.values():
        artifacts.put(data)
    two_runs.log(folder).close()
    (folder / "ca").mkdir()
    (folder / "ca" / "rootCA.pem").write_bytes(two_runs.keys.root_pem)
    config = {"log_vkey": str(two_runs.evidence().founding.log_key)}
    (folder / "consortium.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def first_version(story: Story) -> str:
    return story.initial_version


# -- the trace


def test_a_version_that_was_never_released(two_runs: Story) -> None:
    trace = traced(two_runs, first_version(two_runs))
    assert [run.run_id for run in trace.runs] == ["run-20261122T050000Z-abcdef"]
    assert trace.releases == ()
    assert trace.metrics == ()
    assert "none was proposed with it" in "\n".join(version_tree(trace).lines())


def test_a_released_version(two_runs: Story) -> None:
    trace = traced(two_runs, two_runs.version)
    assert [run.version for run in trace.runs] == [first_version(two_runs), two_runs.version]
    (release,) = trace.releases
    assert (release.release, release.state, len(release.approvals)) == ("2027.1", "certified", 2)
    assert [each.site for each in trace.metrics] == [f"hospital-{letter}" for letter in "abcd"]
    lines = "\n".join(version_tree(trace).lines())
    assert "2027.1: certified 2026-11-22T" in lines
    assert "with the runs before it at most 3" in lines


def test_a_candidate(keys: Keys, story: Story) -> None:
    story.hooks["release.certified"] = lambda body: body.update(skip=True)
    trace = traced(story.tell(), story.version)
    assert [(each.state, len(each.approvals)) for each in trace.releases] == [("candidate", 2)]


def test_a_gap_is_told(story: Story) -> None:
    story.tell()
    story.entries = [e for e in story.entries if not (e.kind == "round.completed" and e.body["round"] == 2)]
    with pytest.raises(TraceError, match="expected round 2, got round 3"):
        traced(story, story.version)


@pytest.mark.parametrize("name", ["release", "digest", "hex", "prefix"])
def test_a_version_is_found_by(two_runs: Story, name: str) -> None:
    version = two_runs.version
    names = {"release": "2027.1", "digest": version, "hex": version[7:], "prefix": version[7:15]}
    assert find_version(two_runs.evidence(), names[name]) == version


@pytest.mark.parametrize("name", ["", "sha256:", "1234567", "zz", "2027.2", "f" * 64])
def test_what_is_no_version_is_told(two_runs: Story, name: str) -> None:
    with pytest.raises(TraceError, match=r"expected a release \(2027\.1\) or a version's digest"):
        find_version(two_runs.evidence(), name)


# -- the picture


def words_of(picture: bytes) -> str:
    return " ".join(ElementTree.fromstring(picture.decode()).itertext())  # noqa: S314 - made by us a moment ago


def test_a_picture_of_two_runs(two_runs: Story) -> None:
    trace = traced(two_runs, two_runs.version)
    words = words_of(version_picture(trace))
    for run in trace.runs:
        assert run.run_id in words
        assert run.version[7:19] in words
    assert version_picture(trace) == version_picture(traced(two_runs, two_runs.version))
    assert "No release was proposed" in words_of(version_picture(traced(two_runs, first_version(two_runs))))


def test_fifty_hospitals_over_five_hundred_rounds(two_runs: Story) -> None:
    """Names are all there, rounds are drawn together, and nothing lies outside the picture."""
    trace = traced(two_runs, two_runs.version)
    names = [f"hospital-{number:02}" for number in range(50)]
    start = trace.run.rounds[0]
    rounds = tuple(
        replace(
            start,
            number=number,
            participants=tuple(n for i, n in enumerate(names) if (number + i) % 97),
            dropped=tuple(n for i, n in enumerate(names) if not (number + i) % 97),
            time=start.time + timedelta(minutes=number),
        )
        for number in range(1, 501)
    )
    hospitals = tuple(
        replace(
            trace.run.hospitals[0],
            site=name,
            rounds_joined=sum(name in each.participants for each in rounds),
            rounds_dropped=sum(name in each.dropped for each in rounds),
        )
        for name in names
    )
    large = replace(trace, runs=(trace.runs[0], replace(trace.run, rounds=rounds, hospitals=hospitals)))
    picture = version_picture(large)
    assert len(picture) < 600_000
    words = words_of(picture)
    for name in names:
        assert f"{name} " in words
    assert "rounds 1 to 500, 9 per cell" in words
    assert "rounds 496 to 500: 5 joined, 0 dropped" in words
    _check_inside(picture)
    _check_cells(rounds, picture)


def _check_inside(picture: bytes) -> None:
    root = ElementTree.fromstring(picture.decode())  # noqa: S314 - made by us a moment ago
    _, _, width, height = map(float, root.attrib["viewBox"].split())
    for element in root.iter():
        if element.tag.endswith(("rect", "text")) and "x" in element.attrib:
            assert 0 <= float(element.attrib["x"]) <= width
            assert 0 <= float(element.attrib["y"]) <= height
        if element.tag.endswith("rect") and "x" in element.attrib:
            assert float(element.attrib["x"]) + float(element.attrib["width"]) <= width
            assert float(element.attrib["y"]) + float(element.attrib["height"]) <= height


def _check_cells(rounds: tuple[RoundTrace, ...], picture: bytes) -> None:
    """Each cell of the large run says what its rounds were; together they hold every round of every hospital."""
    words = [
        title.text or ""
        for title in ElementTree.fromstring(picture.decode()).iter("{http://www.w3.org/2000/svg}title")  # noqa: S314
        if "hospital-07, round" in (title.text or "")
    ]
    joined = sum(int(each.split(": ")[1].split(" ")[0]) for each in words)
    dropped = sum(int(each.split(", ")[2].split(" ")[0]) for each in words)
    assert joined == sum("hospital-07" in each.participants for each in rounds)
    assert dropped == sum("hospital-07" in each.dropped for each in rounds)


# -- the command


def called(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(audit_app, ["trace", *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout, result.stderr


def test_the_command_prints_a_tree(two_runs: Story, home: Path) -> None:
    code, out, _ = called("2027.1", "--home", home)
    assert code == 0
    assert out.startswith(f"Version {two_runs.version} of Zegel Demo, entry ")
    assert "rounds 1 to 3 unbroken, 8 signed receipts" in out


def test_the_command_prints_json(two_runs: Story, home: Path) -> None:
    code, out, _ = called(two_runs.version, "--home", home, "--format", "json")
    value = json.loads(out)
    assert (code, value["version"], len(value["runs"])) == (0, two_runs.version, 2)
    assert value["runs"][0]["started_at"].endswith("Z")


def test_the_command_writes_a_picture_once(two_runs: Story, home: Path, tmp_path: Path) -> None:
    path = tmp_path / "trace.svg"
    code, out, error = called("2027.1", "--home", home, "--format", "svg", "--output", path)
    assert (code, out) == (0, "")
    assert error.startswith(f"wrote {path}, ")
    assert path.read_bytes() == version_picture(traced(two_runs, two_runs.version))
    code, _, error = called("2027.1", "--home", home, "--format", "svg", "--output", path)
    assert (code, error) == (1, f"error: {path} exists already; choose another --output\n")


def test_the_command_writes_a_tree(home: Path, tmp_path: Path) -> None:
    path = tmp_path / "trace.txt"
    assert called("2027.1", "--home", home, "-o", path)[0] == 0
    assert path.read_text(encoding="utf-8") == called("2027.1", "--home", home)[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["2030.9"], "expected a release (2027.1) or a version's digest"),
        (["2027.1", "--output", "/nowhere/at/all.svg"], "error: /nowhere/at/all.svg: No such file or directory"),
    ],
)
def test_what_the_command_refuses(home: Path, arguments: list[str], message: str) -> None:
    code, out, error = called(*arguments, "--home", home)
    assert (code, out) == (1, "")
    assert message in error


def test_a_lost_plan_is_told(two_runs: Story, home: Path, tmp_path: Path) -> None:
    import shutil

    folder = tmp_path / "copy"
    shutil.copytree(home, folder)
    (folder / "artifacts" / digest_of(two_runs.plan)[7:]).unlink()
    code, _, error = called("2027.1", "--home", folder)
    assert code == 1
    assert f"artifact {digest_of(two_runs.plan)} is not in" in error
