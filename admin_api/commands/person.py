"""`zegel person`: keys of people who sign."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from admin_api.commands.options import PERSON_VARIABLE, AsJson, PersonPassphrase, answer, passphrase, told

person_app = typer.Typer(no_args_is_help=True, help="Keys and certificates of people who sign.")


@person_app.callback()
def _person() -> None:
    """Keys and certificates of people who sign."""  # with one command only, Typer would drop the group


@person_app.command("request")
def person_request(
    folder: Annotated[Path, typer.Argument(help="A new folder for the person's key.")],
    name: Annotated[str, typer.Option(help="The person's name.")],
    organisation: Annotated[str, typer.Option(help="Where the person works.")],
    role: Annotated[str, typer.Option(help="consortium_admin, privacy_officer, release_manager or authority.")],
    passphrase_file: PersonPassphrase = None,
    as_json: AsJson = False,
) -> None:
    """Make a person's signing key, which stays here, and a certificate request for the consortium.

    Put the consortium's reply into the same folder as person.crt.
    """
    from admin_api.onboarding import read_request, request_person

    with told():
        secret = passphrase(passphrase_file, PERSON_VARIABLE, "Passphrase for the new key", confirm=True)
        path = request_person(folder, name=name, organisation=organisation, role=role, passphrase=secret)
        asked = read_request(path)
    answer(
        {"request": str(path), "fingerprint": asked.fingerprint},
        [
            f"Request written to {path}.",
            f"Fingerprint of the key: {asked.fingerprint}; read it to the consortium.",
            f"Put the consortium's reply into {folder} as person.crt; keep the folder to yourself.",
        ],
        as_json,
    )
