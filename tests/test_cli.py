"""The command line as its users meet it: quick help, clear refusals, no traces, one JSON object."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import typer
from typer.testing import CliRunner

from admin_api.cli import COMMANDS, app, load
from tests.admin_api.consortium_folder import NAME, PASSPHRASE, refused, zegel

HEAVY = ("torch", "nvflare", "sqlalchemy", "sqlmodel", "pyarrow", "opacus", "dp_accounting")
LOADED = "import sys; print('LOADED', *sorted({name.split('.')[0] for name in sys.modules}))"


def walk(name: str, command: Any) -> Iterator[tuple[str, Any]]:
    yield name, command
    for part, child in getattr(command, "commands", {}).items():
        yield from walk(f"{name} {part}", child)


EVERYTHING = dict(pair for name in COMMANDS for pair in walk(name, load(name)))


def in_new_process(*arguments: str) -> tuple[subprocess.CompletedProcess[str], set[str]]:
    """Run a command in a fresh interpreter; also the top-level modules it imported."""
    script = (
        "import sys\nfrom admin_api.cli import main\n"
        f"sys.argv = ['zegel', *{list(arguments)!r}]\n"
        "try:\n    main()\nfinally:\n    sys.stdout.flush()\n    " + LOADED.replace("print(", "print('\\n', ")
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    loaded = done.stdout.rpartition("LOADED ")[2]
    return done, set(loaded.split())


@pytest.mark.parametrize("arguments", [("--help",), ("consortium", "--help"), ("release", "propose", "--help")])
def test_help_imports_nothing_heavy(arguments: tuple[str, ...]) -> None:
    done, loaded = in_new_process(*arguments)
    assert done.returncode == 0, done.stderr
    assert "admin_api" in loaded
    assert loaded & {*HEAVY, "numpy"} == set()


def test_help_names_every_command() -> None:
    result = CliRunner().invoke(app, ["--help"])
    assert result.exit_code == 0
    for name, lazy in COMMANDS.items():
        assert name in result.output
        assert lazy.help.split()[0] in result.output
    bare = CliRunner().invoke(app, [])
    assert "Usage" in bare.output


def test_verify_imports_only_the_verifier(tmp_path: Path, dossier: tuple[Path, Path]) -> None:
    """Where only the base install is, `zegel verify` must work; and whoever checks runs as little code as possible."""
    path, root = dossier
    done, loaded = in_new_process("verify", str(path), "--root", str(root))
    assert done.returncode == 0, done.stderr
    assert "2027.1" in done.stdout
    assert loaded & {*HEAVY, "numpy", "psutil", "yaml", "jobs", "site_packages", "privacy"} == set()
    spoiled = tmp_path / "spoiled.dossier"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    spoiled.write_bytes(data)
    done, _ = in_new_process("verify", str(spoiled), "--root", str(root))
    assert done.returncode == 1
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", EVERYTHING)
def test_every_command_explains_itself(name: str) -> None:
    command = EVERYTHING[name]
    assert command.help, f"{name} has no docstring"
    assert command.help.split("\n\n")[0].rstrip().endswith((".", "?")), name
    result = CliRunner().invoke(app, [*name.split(), "--help"])
    assert result.exit_code == 0, result.output
    assert command.help.split()[0] in result.output
    for parameter in command.params:
        if isinstance(parameter, click.Option) and parameter.name != "help":
            assert parameter.help, f"{name} {parameter.opts[0]} has no help text"


def test_the_listed_line_and_the_commands_own_agree() -> None:
    for name, lazy in COMMANDS.items():
        assert lazy.help.endswith((".", "?")), name
        assert len(lazy.help) < 80, name


@pytest.mark.parametrize("arguments", [("foo",), ("consortium", "foo"), ("consort",), ("--foo",)])
def test_an_unknown_command_is_a_usage_error(arguments: tuple[str, ...]) -> None:
    told = refused(*arguments, code=2)
    assert "No such" in told


@pytest.mark.parametrize(
    "arguments",
    [
        ("consortium", "init"),
        ("consortium", "init", "x", "--organisation", "y", "--admin-port", "70000"),
        ("plan", "propose", "x"),
        ("release", "certify", "x"),
        ("run", "start"),
    ],
)
def test_missing_or_wrong_options_are_usage_errors(arguments: tuple[str, ...]) -> None:
    assert "Usage" in refused(*arguments, code=2)


HOME_COMMANDS = (
    ("consortium", "start"),
    ("consortium", "stop"),
    ("consortium", "status"),
    ("plan", "list"),
    ("plan", "show", "sha256:" + "0" * 64),
    ("run", "start", "sha256:" + "0" * 64),
    ("run", "status", "run-1"),
    ("release", "list"),
    ("site", "start"),
    ("site", "stop"),
    ("site", "status"),
    ("site", "ledger"),
    ("site", "manifest", "out.json"),
)


@pytest.mark.parametrize("arguments", HOME_COMMANDS, ids=lambda value: " ".join(value[:2]))
def test_a_folder_of_nobody_is_told_without_a_trace(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    told = refused(*arguments, "--home", tmp_path)
    assert str(tmp_path) in told
    assert "`zegel" in told, "what to do next is missing"
    assert list(tmp_path.iterdir()) == []


def test_the_home_may_come_from_the_environment(tmp_path: Path) -> None:
    assert str(tmp_path) in refused("plan", "list", ZEGEL_CONSORTIUM_HOME=str(tmp_path))
    assert str(tmp_path) in refused("site", "status", ZEGEL_SITE_HOME=str(tmp_path))


# -- passphrases


def without_passphrases(*arguments: object, **environment: str | None) -> Any:
    """As from a script: no terminal, and no variable but those given."""
    nothing: dict[str, str | None] = {"ZEGEL_ROOT_PASSPHRASE": None, "ZEGEL_PERSON_PASSPHRASE": None}
    result = CliRunner().invoke(app, [str(each) for each in arguments], env=nothing | environment)
    assert isinstance(result.exception, SystemExit), result.exception
    return result


FOUND = ("consortium", "init", NAME, "--organisation", "bureau", "--home")
PERSON = ("--name", "Ada", "--organisation", "bureau", "--role", "authority")


def test_a_missing_passphrase_says_what_to_set(tmp_path: Path) -> None:
    for arguments, variable in (
        ((*FOUND, tmp_path / "c"), "ZEGEL_ROOT_PASSPHRASE"),
        (("person", "request", tmp_path / "p", *PERSON), "ZEGEL_PERSON_PASSPHRASE"),
    ):
        result = without_passphrases(*arguments)
        assert result.exit_code == 1
        assert f"no passphrase: set {variable}, give --passphrase-file, or run in a terminal" in result.stderr
        result = without_passphrases(*arguments, **{variable: ""})
        assert result.exit_code == 1
        assert f"{variable} is set but empty" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_passphrase_file_is_checked(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.write_text("\nsecond line\n", encoding="utf-8")
    for file, message in (
        (empty, "its first line is empty"),
        (tmp_path / "absent", "No such file"),
        (tmp_path, "directory"),
    ):
        result = without_passphrases(*FOUND, tmp_path / "c", "--passphrase-file", file)
        assert result.exit_code == 1
        assert message in result.stderr
        assert str(file) in result.stderr
    assert not (tmp_path / "c").exists()


def test_a_passphrase_is_never_an_option() -> None:
    for name, command in EVERYTHING.items():
        options = [option for parameter in command.params for option in parameter.opts]
        assert not {"--passphrase", "--password", "-p"} & set(options), name


def test_no_passphrase_is_printed(tmp_path: Path) -> None:
    result = zegel("person", "request", tmp_path / "p", *PERSON)
    assert result.exit_code == 0
    assert PASSPHRASE not in result.output


# -- JSON


def test_json_is_one_object(tmp_path: Path) -> None:
    """Also where a command tells people more than its result."""
    home, site = tmp_path / "consortium", tmp_path / "amstel"
    commands: list[tuple[object, ...]] = [
        (*FOUND, home),
        ("person", "request", tmp_path / "p", *PERSON),
        ("site", "request", "--home", site, "--name", "amstel", "--organisation", "amstel", "--consortium", NAME),
        (
            *("consortium", "approve", site / "key" / "amstel.request.zip", "--yes"),
            *("--out", tmp_path / "amstel.signed.zip", "--home", home),
        ),
        ("plan", "list", "--home", home),
        ("release", "list", "--home", home),
        ("consortium", "stop", "--home", home),
        ("site", "stop", "--home", site),
    ]
    for arguments in commands:
        result = zegel(*arguments, "--json")
        assert result.exit_code == 0, result.output
        assert result.stdout.count("\n") == 1
        assert isinstance(json.loads(result.stdout), dict)
    stopped = zegel("consortium", "status", "--home", home, "--json")
    assert stopped.exit_code == 1
    assert json.loads(stopped.stdout) == {
        "running": False,
        "pid": None,
        "connected": [],
        "certificates_ending": [],
    }


# -- installed in parts


def test_a_command_whose_packages_are_missing_says_what_to_install(tmp_path: Path) -> None:
    """As after `pip install zegel`: the hospital's packages are not there."""
    (tmp_path / "absent").mkdir()
    (tmp_path / "absent" / "psutil.py").write_text(
        "raise ModuleNotFoundError(\"No module named 'psutil'\", name='psutil')\n", encoding="utf-8"
    )
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "absent")}
    done = subprocess.run(
        [sys.executable, "-m", "admin_api.cli", "site", "start", "--home", str(tmp_path)],
        env=environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "zegel site needs psutil: pip install 'zegel[site]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_defect_is_not_taken_for_a_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    from admin_api import cli

    monkeypatch.setitem(cli.COMMANDS, "broken", cli.Lazy("admin_api.nowhere:app", "Broken.", cli.ANYONE, "site"))
    result = CliRunner().invoke(app, ["broken"])
    assert isinstance(result.exception, ModuleNotFoundError)
    assert result.exception.name == "admin_api.nowhere"


def test_typer_prints_no_local_variables() -> None:
    assert isinstance(app, typer.Typer)
    assert app.pretty_exceptions_enable is False


@pytest.fixture(scope="module")
def dossier(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certified release's dossier and the root certificate, as the audit room's tests tell one."""
    from tests.audit.conftest import Story, make_keys

    folder = tmp_path_factory.mktemp("dossier")
    story = Story(make_keys()).tell()
    (folder / "r.dossier").write_bytes(story.dossier(folder))
    (folder / "rootCA.pem").write_bytes(story.keys.root_pem)
    return folder / "r.dossier", folder / "rootCA.pem"
