"""`zegel audit erase`: take a personal value away from beside the log."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from admin_api.commands.options import (
    HERE,
    AsJson,
    Home,
    PersonFolder,
    PersonPassphrase,
    Yes,
    answer,
    open_home,
    open_signer,
    told,
)


def erase(
    signer: PersonFolder,
    reason: Annotated[str, typer.Option(help="Why; kept beside the log as well, so without what is erased.")],
    commitments: Annotated[
        list[str] | None,
        typer.Argument(metavar="[COMMITMENT]...", help="What the log holds in the value's place, sha256:..."),
    ] = None,
    person: Annotated[
        str | None,
        typer.Option(help="A person's name or id: the name, and every reason they wrote or that concerns them."),
    ] = None,
    yes: Yes = False,
    passphrase_file: PersonPassphrase = None,
    home: Home = HERE,
    as_json: AsJson = False,
) -> None:
    """Erase personal values for good: a name, or a reason somebody wrote. A consortium admin signs.

    The log only holds salted commitments to them, so everything still verifies, and the erasure is an entry itself. A
    name goes only when none of the person's certificates counts any more. Dossiers and backups made before still hold
    the value; whoever keeps them has to erase it there.

    Examples:

      zegel audit erase --person "Ada Beheer" --reason "art. 17 request of 3 May" --as people/admin --home consortium

      zegel audit entry 12 --home consortium     # shows the commitments in an entry
    """
    from admin_api.erasing import erasable
    from admin_api.erasing import erase as erase_values
    from admin_api.errors import ErasureRefused

    with told(home):
        consortium = open_home(home)
        chosen = erasable(consortium, commitments or (), person=person)
        for each in chosen:
            typer.echo(f"{each.field:<7} {each.commitment}  {each.value or '(no longer here)'}", err=True)
        if not yes:
            if not sys.stdin.isatty():
                raise ErasureRefused("nothing brings a value back: look at what is listed, then give --yes")
            typer.confirm("Erase these for good?", abort=True, err=True)
        admin = open_signer(consortium, signer, passphrase_file)
        entries = erase_values(consortium, chosen, reason=reason, admin=admin)
    where = f"; entries {', '.join(map(str, entries))} of the log say so" if entries else ""
    answer(
        {"erased": [each.commitment for each in chosen], "entries": list(entries)},
        [f"Erased {len(chosen)} value{'' if len(chosen) == 1 else 's'}{where}."],
        as_json,
    )
