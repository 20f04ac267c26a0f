"""`zegel site encoder`: the text models a hospital has installed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from site_packages.options import HERE, AsJson, Home, answer, told

encoder_app = typer.Typer(
    no_args_is_help=True,
    help="Text models for plans that name one: install, list, remove. Plans with character n-grams need none.",
)

_DEFAULT_MAX_TOKENS = 256  # as in jobs.icd_coding.transformer, which takes a second to import; a test compares
_DEFAULT_CHUNKS = 8


@encoder_app.command()
def add(
    model: Annotated[
        str,
        typer.Argument(help="A folder with config.json, tokenizer.json and model.safetensors; or see --from-hub."),
    ],
    name: Annotated[
        str | None, typer.Option(help="What people call it; the folder's or published name if not given.")
    ] = None,
    from_hub: Annotated[
        bool,
        typer.Option(
            "--from-hub", help="MODEL is a name on the Hugging Face hub, such as intfloat/e5-small: fetch it."
        ),
    ] = False,
    revision: Annotated[str | None, typer.Option(help="With --from-hub: the commit or tag to fetch.")] = None,
    max_tokens: Annotated[
        int, typer.Option(help="For the plan: tokens the model reads at once.", min=8, max=16384)
    ] = _DEFAULT_MAX_TOKENS,
    chunks: Annotated[
        int, typer.Option(help="For the plan: at most so many times --max-tokens of a letter.", min=1, max=1024)
    ] = _DEFAULT_CHUNKS,
    home: Home = HERE,
    as_json: AsJson = False,
) -> None:
    """Install a text model, try it, and print what a plan says to use it.

    Only the files that decide the features are copied; their digest names the model, the same at every hospital.
    Pickled weights and models with code of their own are refused. Nothing is fetched without --from-hub, and a run
    never fetches anything.
    """
    if revision is not None and not from_hub:
        raise typer.BadParameter("--revision belongs to --from-hub")
    from rich.console import Console

    from audit.canonical import canonical_json
    from site_packages.encoders import add_model, add_published_model, fetch_from_hub
    from site_packages.errors import EncoderStoreError
    from site_packages.home import SiteHome

    with told():
        site = SiteHome(home)
        site.identity()
        with Console(stderr=True).status(f"Fetching and trying {model}" if from_hub else f"Trying {model}"):
            if from_hub:
                installed = add_published_model(
                    site.path, model, fetch=fetch_from_hub, revision=revision, max_tokens=max_tokens, chunks=chunks,
                    name=name,
                )  # fmt: skip
            else:
                folder = Path(model).resolve()
                if not folder.is_dir():
                    raise EncoderStoreError(f"{model}: no such folder; for a name on the hub add --from-hub")
                installed = add_model(site.path, folder, name=name or folder.name, max_tokens=max_tokens, chunks=chunks)
        allowed = site.limits().encoders
    lines = [
        f"Installed {installed.name}: {installed.features} features, {installed.bytes:,} bytes.",
        f"Digest: {installed.digest}",
        f"In a plan: {canonical_json(installed.config).decode()}",
    ]
    if "transformer" not in allowed:
        limits = site.path / "limits.json"
        lines.append(
            f'Your limits refuse transformers so far; to allow them, add "transformer" to encoders in {limits}.'
        )
    answer(installed.to_json(), lines, as_json)


@encoder_app.command("list")
def list_models(home: Home = HERE, as_json: AsJson = False) -> None:
    """The installed models: name, features, size, digest. With --json also what a plan says to use each."""
    from site_packages.encoders import installed_models
    from site_packages.home import SiteHome

    with told():
        site = SiteHome(home)
        site.identity()
        models = installed_models(site.path)
    lines = [
        line
        for model in models
        for line in (
            f"{model.name}: {model.features} features, {model.bytes:,} bytes, from {model.source}",
            f"  {model.digest}",
        )
    ]
    answer(
        {"models": [model.to_json() for model in models]},
        lines or ["No model is installed; plans with character n-grams need none."],
        as_json,
    )


@encoder_app.command()
def prepare(
    digest: Annotated[str, typer.Argument(help="The model's digest, as `list` shows it.")],
    max_tokens: Annotated[
        int | None, typer.Option(help="As the plan says; what `list --json` proposes if not given.", min=8, max=16384)
    ] = None,
    chunks: Annotated[int | None, typer.Option(help="Likewise.", min=1, max=1024)] = None,
    home: Home = HERE,
    as_json: AsJson = False,
) -> None:
    """Read every letter of the data set in use now, so that a run need not wait for it.

    A model reads some tens of letters per second and core. What was read is kept, also when this is interrupted: run
    it again to go on. Letters read before, and letters unchanged by a new import, are not read again.
    """
    from rich.console import Console
    from rich.progress import Progress

    from site_packages.encoders import installed_model, prepare_features
    from site_packages.home import SiteHome

    with told():
        site = SiteHome(home)
        site.identity()
        config = dict(installed_model(site.path, digest).config)
        config |= {"max_tokens": max_tokens} if max_tokens is not None else {}
        config |= {"chunks": chunks} if chunks is not None else {}
        with Progress(console=Console(stderr=True), transient=True, disable=as_json) as bar:
            task = bar.add_task("Reading letters", total=None)
            admissions = prepare_features(
                site.path, config, progress=lambda done, total: bar.update(task, completed=done, total=total)
            )
    answer(
        {"admissions": admissions, "config": config},
        [f"The letters of {admissions:,} admissions are read; runs with this model find them in the cache."],
        as_json,
    )


@encoder_app.command()
def remove(
    digest: Annotated[str, typer.Argument(help="The model's digest, as `list` shows it.")],
    home: Home = HERE,
    as_json: AsJson = False,
) -> None:
    """Remove a model and the feature vectors it made. Runs whose plan names it can no longer be joined."""
    from site_packages.encoders import remove_model
    from site_packages.home import SiteHome

    with told():
        site = SiteHome(home)
        site.identity()
        removed = remove_model(site.path, digest)
    answer(removed.to_json(), [f"Removed {removed.name}, {removed.digest}, and the feature vectors it made."], as_json)
