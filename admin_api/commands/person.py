"""`zegel person`: keys of people who sign."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from admin_api.commands.options import (
    HERE,
    PERSON_VARIABLE,
    AsJson,
    Home,
    PersonPassphrase,
    answer,
    open_home,
    passphrase,
    told,
)

person_app = typer.Typer(no_args_is_help=True, help="Keys and certificates of people who sign.")


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
    from admin_api.onboarding import read_request
    from admin_api.person_requests import request_person

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


@person_app.command("list")
def person_list(home: Home = HERE, as_json: AsJson = False) -> None:
    """Everybody with a certificate: person id, and the name where it was not erased."""
    from admin_api.people import people_of

    with told():
        rows = people_of(open_home(home))
    answer(
        {"people": rows},
        [f"{row['person']}  {row['name']} ({row['role']}, {row['organisation']}) until {row['until']}" for row in rows]
        or ["Nobody yet."],
        as_json,
    )


@person_app.command("renew")
def person_renew(
    folder: Annotated[Path, typer.Argument(help="The folder with the person's key and certificate.")],
    passphrase_file: PersonPassphrase = None,
    as_json: AsJson = False,
) -> None:
    """Make a new key, under the same passphrase, and a request for a renewed certificate. The old one stays in use.

    The consortium answers with `zegel consortium renew`; `zegel person install` changes over.
    """
    from admin_api.onboarding import read_request
    from admin_api.renewing_people import request_person_renewal

    with told():
        secret = passphrase(passphrase_file, PERSON_VARIABLE, f"Passphrase of the key in {folder}")
        path = request_person_renewal(folder, passphrase=secret)
        asked = read_request(path)
    answer(
        {"request": str(path), "fingerprint": asked.fingerprint},
        [
            f"Request written to {path}; send it to the consortium.",
            f"Fingerprint of the new key: {asked.fingerprint}; read it to the consortium.",
            f"Then: `zegel person install {folder} THE-REPLY`. Nothing changes until then.",
        ],
        as_json,
    )


@person_app.command("install")
def person_install(
    folder: Annotated[Path, typer.Argument(help="The folder with the person's key and certificate.")],
    reply: Annotated[Path, typer.Argument(help="The consortium's reply to `zegel person renew`.")],
    passphrase_file: PersonPassphrase = None,
    home: Home = HERE,
    as_json: AsJson = False,
) -> None:
    """Put a renewed certificate and its key in the place of the old ones."""
    from admin_api.renewing_people import install_person_renewal

    with told():
        consortium = open_home(home)
        secret = passphrase(passphrase_file, PERSON_VARIABLE, f"Passphrase of the key in {folder}")
        ends = install_person_renewal(folder, reply, passphrase=secret, root=consortium.root(), now=consortium.clock())
    answer({"ends": f"{ends:%Y-%m-%d}"}, [f"Renewed; valid until {ends:%Y-%m-%d}."], as_json)
