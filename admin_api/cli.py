"""The `zegel` command.

Sub-commands live in the rooms they belong to and are loaded when they are called, so that `zegel --help` is quick and
`zegel verify` runs where only the verifier is installed. Rooms are named here as text; nothing is imported across.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any, NoReturn

import typer


@dataclass(frozen=True)
class Lazy:
    """A sub-command and where its code is: `module:attribute`, a Typer app or a function."""

    target: str
    help: str
    panel: str
    extra: str = ""  # the extra of the package that brings what it imports
    joined: tuple[tuple[str, str], ...] = ()  # sub-commands of a group from other rooms: name, `module:function`


ROOMS = ("jobs", "site_packages", "privacy", "audit", "admin_api")
SHOW, CONSORTIUM, HOSPITAL, ANYONE = "See it work", "Consortium", "Hospital", "Anyone"

COMMANDS: dict[str, Lazy] = {
    "demo": Lazy("admin_api.demo:demo", "Found, train, certify and verify with five hospitals here.", SHOW, "all"),
    "demo-stop": Lazy("admin_api.demo:demo_stop", "Stop what `zegel demo --keep-running` left running.", SHOW, "all"),
    "sample": Lazy("site_packages.data_commands:sample", "Write synthetic Dutch day admissions.", SHOW, "site"),
    "benchmark": Lazy("site_packages.benchmark:benchmark_app", "Measure the model on a table of texts.", SHOW, "site"),
    "consortium": Lazy(
        "admin_api.commands.consortium:consortium_app",
        "Found the consortium, approve certificates, run the server.",
        CONSORTIUM,
        "consortium",
    ),
    "person": Lazy("admin_api.commands.person:person_app", "Keys of people who sign.", CONSORTIUM, "consortium"),
    "plan": Lazy("admin_api.commands.plan:plan_app", "Propose and approve training plans.", CONSORTIUM, "consortium"),
    "run": Lazy("admin_api.commands.run:run_app", "Carry out an approved plan and watch it.", CONSORTIUM, "consortium"),
    "release": Lazy("admin_api.commands.release:release_app", "Certify releases.", CONSORTIUM, "consortium"),
    "audit": Lazy(
        "audit.commands:audit_app",
        "Read and check the audit log.",
        CONSORTIUM,
        "log",
        joined=(("erase", "admin_api.commands.erase:erase"),),
    ),
    "site": Lazy("site_packages.commands:site_app", "A hospital's machine: join, import, start.", HOSPITAL, "site"),
    "privacy": Lazy(
        "privacy.commands:privacy_app",
        "What does this much noise mean?",
        ANYONE,
        "privacy",
        joined=(("audit", "site_packages.privacy_audit_commands:audit"),),
    ),
    "witness": Lazy("audit.witness_commands:witness_app", "Cosign a log so that it keeps to one story.", ANYONE, "log"),
    "verify": Lazy("audit.commands:verify", "Check a release's dossier offline.", ANYONE),
}


class LazyGroup(typer.core.TyperGroup):
    """Lists sub-commands without importing them; imports the one that is called."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        lazy = COMMANDS.get(cmd_name)
        if lazy is None:
            return None
        # What is listed is a name and a line; `resolve_command` puts the code behind it.
        return typer.core.TyperCommand(name=cmd_name, help=lazy.help, rich_help_panel=lazy.panel)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, _, rest = super().resolve_command(ctx, args)
        return name, (None if name is None else load(name)), rest

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except ModuleNotFoundError as error:  # commands import what is heavy when they run
            advise(ctx.invoked_subcommand or "", error)


def load(name: str) -> Any:
    """The real command behind a listed name."""
    lazy = COMMANDS[name]
    target = _found(lazy.target)
    if not isinstance(target, typer.Typer):
        return _single(name, target)
    command = typer.main.get_command(target)
    command.name = name
    for further, where in lazy.joined:
        command.add_command(_single(further, _found(where)))  # type: ignore[attr-defined]
    return command


def _found(target: str) -> Any:
    module, attribute = target.split(":")
    return getattr(importlib.import_module(module), attribute)


def _single(name: str, function: Any) -> Any:
    app = typer.Typer(add_completion=False)
    app.command(name=name)(function)
    command = typer.main.get_command(app)
    command.name = name
    return command


def advise(name: str, error: ModuleNotFoundError) -> NoReturn:
    """End a command whose packages are not installed with the words that install them; a module of ours is a defect."""
    lazy = COMMANDS.get(name)
    missing = (error.name or "").split(".")[0]
    if lazy is None or not lazy.extra or missing in ROOMS:
        raise error
    typer.echo(f"zegel {name} needs {missing}: pip install 'zegel[{lazy.extra}]'", err=True)
    raise SystemExit(1) from None


app = typer.Typer(
    cls=LazyGroup,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,  # its traces would print local variables, passphrases among them
    help="Hospitals train one ICD-10 coding model together; no record moves, and anyone can check what went in.",
)


@app.callback(invoke_without_command=False)
def _root() -> None:
    """Hospitals train one ICD-10 coding model together; no record moves, and anyone can check what went in."""


def main() -> None:
    """Entry point of the console script."""
    app(prog_name="zegel")


if __name__ == "__main__":
    main()
