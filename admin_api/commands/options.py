"""What the consortium's commands share: options, passphrases, how results and errors are told.

Every command works on the consortium's folder, `--home`, or the environment's ZEGEL_CONSORTIUM_HOME. Passphrases come
from a file, from the environment, or from a prompt; never from the command line, where other users could read them.
Results go to stdout, everything else to stderr, so that `--json` prints one JSON object and nothing more.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from admin_api.people import Person
    from jobs.home import ConsortiumHome

Home = Annotated[
    Path,
    typer.Option("--home", envvar="ZEGEL_CONSORTIUM_HOME", help="The consortium's folder.", show_default="."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object for machines.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
PassphraseFile = Annotated[
    Path | None,
    typer.Option(help="File whose first line is the root key's passphrase; else ZEGEL_ROOT_PASSPHRASE, else a prompt."),
]
PersonFolder = Annotated[Path, typer.Option("--as", help="Folder with the signing person's key and certificate.")]
OptionalPersonFolder = Annotated[
    Path | None, typer.Option("--as", help="Folder with the signing person's key and certificate.")
]
PersonPassphrase = Annotated[
    Path | None,
    typer.Option(help="File with the person's passphrase; else ZEGEL_PERSON_PASSPHRASE, else a prompt."),
]
Reason = Annotated[str, typer.Option(help="Why, for the record; a refusal needs one.")]
Refuse = Annotated[bool, typer.Option("--refuse", help="Refuse instead.")]

HERE = Path()
ROOT_VARIABLE = "ZEGEL_ROOT_PASSPHRASE"
PERSON_VARIABLE = "ZEGEL_PERSON_PASSPHRASE"


@contextmanager
def told(home: Path | None = None) -> Iterator[None]:
    """Our own errors, and files that cannot be read or written, end a command with a message and exit code 1.

    With the consortium's folder, people are called by name in it. Any other exception is a defect and shows its trace.
    """
    from admin_api.errors import AdminError
    from audit.errors import AuditError
    from jobs.errors import JobError
    from jobs.icd_coding.errors import CodingError
    from privacy.errors import PrivacyError

    try:
        yield
    except (AdminError, JobError, AuditError, PrivacyError, CodingError, OSError) as error:
        typer.echo(f"zegel: {str(error) if home is None else _named(home, str(error))}", err=True)
        raise typer.Exit(1) from None


def _named(home: Path, text: str) -> str:
    from admin_api.people import disclosed_now
    from audit.errors import AuditError
    from jobs.errors import JobError
    from jobs.home import ConsortiumHome

    try:
        return disclosed_now(ConsortiumHome(home)).in_words(text)
    except (AuditError, JobError, OSError):  # the error that ends the command is the one to be told
        return text


def answer(value: dict[str, Any], lines: list[str], as_json: bool) -> None:
    """Print one result, for people or for machines."""
    typer.echo(json.dumps(value) if as_json else "\n".join(lines))


def passphrase(file: Path | None, variable: str, prompt: str, *, confirm: bool = False) -> bytes:
    """A passphrase from a file's first line, the environment, or a prompt. Raises AdminError when there is none."""
    from admin_api.errors import AdminError

    if file is not None:
        try:
            lines = file.read_bytes().splitlines()
        except OSError as error:
            raise AdminError(f"passphrase file: {error}") from None
        if not lines or not lines[0]:
            raise AdminError(f"passphrase file {file}: its first line is empty; write the passphrase there")
        return lines[0]
    if variable in os.environ:
        if not os.environ[variable]:
            raise AdminError(f"{variable} is set but empty; set it to the passphrase, or unset it to be asked")
        return os.environ[variable].encode()
    if not sys.stdin.isatty():
        raise AdminError(f"no passphrase: set {variable}, give --passphrase-file, or run in a terminal")
    return str(typer.prompt(prompt, hide_input=True, confirmation_prompt=confirm, err=True)).encode()


def open_home(path: Path) -> ConsortiumHome:
    """The consortium in this folder. Raises FederationError when there is none."""
    from jobs.home import ConsortiumHome

    home = ConsortiumHome(path)
    home.config()
    return home


def open_signer(home: ConsortiumHome, folder: Path, file: Path | None) -> Person:
    """The person whose key is in `folder`, asking for its passphrase. Raises ApprovalError, AdminError."""
    from admin_api.people import open_person
    from admin_api.revoking import current_revocations

    secret = passphrase(file, PERSON_VARIABLE, f"Passphrase of the key in {folder}")
    revocations = current_revocations(home)
    return open_person(folder, passphrase=secret, root=home.root(), now=home.clock(), revocations=revocations)


def decide(
    home: ConsortiumHome, kind: str, name: str, digest: str, *,
    signer: Path, reason: str, refuse: bool, file: Path | None, as_json: bool,
    first: Callable[[Person], None] | None = None,
) -> None:  # fmt: skip
    """Sign and log a person's decision about a plan or a release, and say so. `name` is how people call it.

    `first` is what the person signs besides an approval, before it is logged.
    """
    from admin_api.people import disclosed_now
    from admin_api.planning import decide as decide_about

    person = open_signer(home, signer, file)
    if first is not None and not refuse:
        first(person)
    decide_about(home, kind, digest, person, approve=not refuse, reason=reason)
    said = disclosed_now(home)
    verb = "refused" if refuse else "approved"
    answer(
        {
            "digest": digest,
            "decision": verb,
            "by": said.name(person.identity.name),
            "person": person.identity.name,
            "role": person.identity.role,
        },
        [said.in_words(f"{person.identity} {verb} the {kind} {name}; the log keeps it.")],
        as_json,
    )
