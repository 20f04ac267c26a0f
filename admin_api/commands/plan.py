"""`zegel plan`: propose, read and decide about training plans."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from admin_api.commands.options import (
    HERE,
    AsJson,
    Home,
    PersonFolder,
    PersonPassphrase,
    Reason,
    Refuse,
    answer,
    decide,
    open_home,
    open_signer,
    told,
)

plan_app = typer.Typer(no_args_is_help=True, help="Propose, read and approve training plans.")


@plan_app.command("propose")
def plan_propose(
    name: Annotated[str, typer.Argument(help="A name for the plan.")],
    site: Annotated[list[str], typer.Option("--site", help="A hospital that trains; give it once per hospital.")],
    labels: Annotated[Path, typer.Option(help="File with the codes of the label space, one per line.")],
    epsilon: Annotated[float, typer.Option(help="Privacy loss per patient of the whole run.")],
    delta: Annotated[float, typer.Option(help="At most 1 in 10 times the number of patients.")],
    signer: PersonFolder,
    evaluate: Annotated[
        list[str] | None, typer.Option("--evaluate", help="A further hospital that evaluates only.")
    ] = None,
    rounds: Annotated[int | None, typer.Option(help="Optimiser steps; the recipe's if not given.", min=1)] = None,
    features: Annotated[
        int | None, typer.Option(help="Columns of the hashed text encoder, a power of two; the recipe's if not given.")
    ] = None,
    colluders: Annotated[int, typer.Option(help="Hospitals that may work with the server.", min=1)] = 1,
    dropouts: Annotated[int, typer.Option(help="Hospitals that may drop out of a round.", min=0)] = 0,
    nominal_patients: Annotated[
        int | None,
        typer.Option(help="Public constant; from the hospitals' published manifests if not given.", min=1),
    ] = None,
    sampling_prob: Annotated[
        float, typer.Option(help="Chance of each patient to take part in a step.", min=1e-4, max=1.0)
    ] = 1.0,
    estimator: Annotated[
        str, typer.Option(help="dp-sgd: gradient steps. ridge: closed form, for hospitals that meet once.")
    ] = "dp-sgd",
    noise: Annotated[
        str, typer.Option(help="distributed: shares under secure aggregation. local: each hospital adds all of it.")
    ] = "distributed",
    local_steps: Annotated[
        int | None, typer.Option(help="Steps between two secure sums, under local noise.", min=1)
    ] = None,
    encoder: Annotated[
        Path | None,
        typer.Option(help="JSON of another text encoder, as `zegel site encoder add --json` gives it under config."),
    ] = None,
    lora: Annotated[
        Path | None, typer.Option(help="JSON of adapters to fine-tune the encoder with; see docs/federation.md.")
    ] = None,
    predecessor: Annotated[
        str | None, typer.Option(help="A version to compare with on the same admissions, sha256:...")
    ] = None,
    metrics_epsilon: Annotated[float, typer.Option(help="Privacy loss per validation patient of one report.")] = 4.0,
    passphrase_file: PersonPassphrase = None,
    home: Home = HERE,
    as_json: AsJson = False,
) -> None:
    """Build a plan, calibrate its noise, and put it up for approval. A consortium admin signs."""
    from admin_api.planning import propose, published_patients
    from jobs.proposal import Wish, make_plan, read_labels, read_settings
    from jobs.records import plan_of_version

    with told(home):
        consortium = open_home(home)
        proposer = open_signer(consortium, signer, passphrase_file)
        sites = tuple(sorted(set(site)))
        with _watched(quiet=as_json) as progress:
            plan = make_plan(
                Wish(
                    name=name,
                    consortium=consortium.config().name,
                    sites=sites,
                    evaluation_sites=tuple(sorted({*sites, *(evaluate or [])})),
                    label_space=read_labels(labels),
                    nominal_patients=nominal_patients or published_patients(consortium, sites),
                    epsilon=epsilon,
                    delta=delta,
                    rounds=rounds,
                    sampling_prob=sampling_prob,
                    features=features,
                    colluders=colluders,
                    dropouts=dropouts,
                    metrics_epsilon=metrics_epsilon,
                    estimator=estimator,
                    noise_mode=noise,
                    local_steps=local_steps,
                    encoder=None if encoder is None else read_settings(encoder),
                    lora=None if lora is None else read_settings(lora),
                    predecessor=None
                    if predecessor is None
                    else (plan_of_version(consortium, predecessor), predecessor),
                ),
                cache_dir=consortium.path / "cache",
                progress=progress,
            )
        plan_hash = propose(consortium, plan, proposer)
    answer(
        {"plan_hash": plan_hash, "noise_multiplier": plan.noise_multiplier},
        [
            f"Proposed plan {name}: {plan_hash}",
            f"Next: a privacy officer reads it with `zegel plan show {plan_hash}`",
            "and decides with `zegel plan approve`.",
        ],
        as_json,
    )


@plan_app.command("show")
def plan_show(
    plan_hash: Annotated[str, typer.Argument(help="sha256:..., as it was proposed.")],
    home: Home = HERE,
    as_json: AsJson = False,
) -> None:
    """Read a plan in plain words, with its forecast, as whoever approves it should."""
    from admin_api.planning import describe
    from jobs.records import load_plan

    with told(home):
        consortium = open_home(home)
        plan = load_plan(consortium, plan_hash)
        with _watched(quiet=as_json) as progress:
            value, lines = describe(plan, cache_dir=consortium.path / "cache", progress=progress)
    answer(value, lines, as_json)


@plan_app.command("forecast")
def plan_forecast(
    plan_file: Annotated[Path, typer.Argument(metavar="PLAN.json", help="The plan's bytes, as they were hashed.")],
    cache_dir: Annotated[Path | None, typer.Option(help="Folder that keeps answers, for the next time.")] = None,
    as_json: AsJson = False,
) -> None:
    """Read a plan from its file, with what it costs a patient and against whom; no consortium's folder is needed.

    For a hospital's privacy officer, who was sent the plan, and for anybody who opens a dossier. The numbers are
    computed here; nothing the plan says about its own epsilon is believed.
    """
    from admin_api.planning import describe
    from jobs.plan import Plan

    with told():
        plan = Plan.from_bytes(plan_file.read_bytes())
        with _watched(quiet=as_json) as progress:
            value, lines = describe(plan, cache_dir=cache_dir, progress=progress)
    answer(value, lines, as_json)


@contextmanager
def _watched(*, quiet: bool) -> Iterator[Callable[[str], None]]:
    """Tells on standard error, if that is a terminal, what is being computed."""
    if quiet:
        yield lambda doing: None
        return
    from rich.console import Console

    with Console(stderr=True).status("computing") as status:
        yield status.update


@plan_app.command("list")
def plan_list(home: Home = HERE, as_json: AsJson = False) -> None:
    """All proposed plans with their decisions."""
    from admin_api.planning import decisions
    from audit.entry import PLAN_PROPOSED

    with told(home):
        consortium = open_home(home)
        with consortium.log() as log:
            hashes = [entry.body["plan_hash"] for _, entry in log.entries(kind=PLAN_PROPOSED)]
        rows = [{"plan_hash": item, "decisions": decisions(consortium, "plan", item)} for item in hashes]
    lines = [
        f"{row['plan_hash']}  "
        + ("; ".join(f"{d['name']} ({d['role']}): {d['decision']}" for d in row["decisions"]) or "undecided")
        for row in rows
    ]
    answer({"plans": rows}, lines or ["No plan was proposed yet."], as_json)


@plan_app.command("approve")
def plan_approve(
    plan_hash: Annotated[str, typer.Argument(help="sha256:..., as it was proposed.")],
    signer: PersonFolder,
    reason: Reason = "",
    refuse: Refuse = False,
    passphrase_file: PersonPassphrase = None,
    home: Home = HERE,
    as_json: AsJson = False,
) -> None:
    """Sign a privacy officer's decision about a plan; it stays in the audit log for ever.

    Read the plan with `zegel plan show` first. The last decision of a person counts.
    """
    with told(home):
        decide(
            open_home(home), "plan", plan_hash, plan_hash,
            signer=signer, reason=reason, refuse=refuse, file=passphrase_file, as_json=as_json,
        )  # fmt: skip
