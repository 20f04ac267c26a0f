"""`zegel consortium enrol`: a one-time link with which somebody makes their passkey for the pages.

It works on the consortium's folder, whether or not the pages are being served: so comes the first admin in, and so does
whoever looks after the folder let somebody in again when every admin has lost their passkeys.
"""

from __future__ import annotations

from typing import Annotated, Any

import typer

from admin_api.commands.options import HERE, AsJson, Home, answer, told


def consortium_enrol(
    name: Annotated[str, typer.Argument(help="The person's name; kept in the pages' own database, and erasable.")],
    role: Annotated[
        str,
        typer.Option(help="consortium_admin, privacy_officer, release_manager, authority or hospital_contact."),
    ],
    organisation: Annotated[str, typer.Option(help="Where they work.")],
    hospital: Annotated[str | None, typer.Option(help="Of a hospital contact: the hospital's name (site).")] = None,
    language: Annotated[str, typer.Option(help="Which language they read: en or nl.")] = "en",
    new_link: Annotated[
        bool, typer.Option("--new-link", help="They have an account: make another link, as when all passkeys are lost.")
    ] = False,
    public_url: Annotated[
        str | None,
        typer.Option(
            envvar="ZEGEL_PUBLIC_URL", help="Where browsers reach the pages; passkeys belong to its host name.",
            show_default="http://localhost:8443",
        ),
    ] = None,
    database_url: Annotated[
        str | None,
        typer.Option(envvar="ZEGEL_DATABASE_URL", help="The pages' own database.", show_default="web.db in the folder"),
    ] = None,
    home: Home = HERE,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Print a one-time link: whoever opens it makes the passkey of this account. It holds for 72 hours.

    An account lets somebody read and prepare. To sign, its passkey needs a certificate, asked for in the pages.

        zegel consortium enrol "Ada Beheer" --role consortium_admin --organisation bureau
    """
    from pydantic import ValidationError

    from admin_api.errors import WebError
    from admin_api.web.app import make_workplace
    from admin_api.web.settings import Settings
    from admin_api.web.sign_in.accounts import invite, named
    from admin_api.web.sign_in.accounts import new_link as another_link
    from admin_api.web.sign_in.recording import write_due

    given: dict[str, Any] = {"public_url": public_url, "database_url": database_url}
    with told(home):
        try:
            settings = Settings(home=home, **{key: value for key, value in given.items() if value is not None})
        except ValidationError as error:
            raise WebError("; ".join(f"{each['loc'][0]}: {each['msg']}" for each in error.errors())) from None
        here = make_workplace(settings)
        try:
            if new_link:
                invitation = another_link(here, named(here, name, role, organisation).id, by=None)
            else:
                invitation = invite(
                    here, name=name, role=role, organisation=organisation, hospital=hospital, language=language
                )
            write_due(here)
        finally:
            here.database.close()
    account = invitation.account
    answer(
        {
            "account": account.id,
            "role": account.role,
            "organisation": account.organisation,
            "hospital": account.hospital,
            "link": invitation.link,
            "ends": invitation.ends.isoformat(timespec="seconds"),
        },
        [
            invitation.link,
            f"For {account.called} ({account.role}, {account.organisation}), account {account.id}.",
            f"It works once, until {invitation.ends:%Y-%m-%d %H:%M} UTC.",
            "Hand it over so that nobody else can read it: whoever opens it first makes the passkey.",
        ],
        as_json,
    )
