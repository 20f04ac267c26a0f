"""`zegel benchmark`: how good is the federated model, and what does privacy cost?

`text` trains on a table of texts and codes with the real coordinator and participants over the in-memory transport.
`homes` trains comparison models in the clear on hospitals' imported data sets, for synthetic data only.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from jobs.icd_coding.model import Parameters
    from jobs.plan import Plan
    from site_packages.text_table import TextRow

benchmark_app = typer.Typer(no_args_is_help=True, help="Measure the federated model beside others.")

PRECISION = 0.9  # of automatic coding, in the coverage figure
MAX_EPSILON = 150.0  # above it the admission filter, which prices a little higher, has no budget large enough
AsJson = Annotated[bool, typer.Option("--json", help="Print rows for machines.")]


@contextmanager
def _told(command: str) -> Iterator[None]:
    from jobs.errors import JobError
    from jobs.icd_coding.errors import CodingError
    from privacy.errors import PrivacyError
    from site_packages.errors import SitePackagesError

    try:
        yield
    except (SitePackagesError, JobError, PrivacyError, CodingError) as error:
        typer.echo(f"{command}: {error}", err=True)
        raise typer.Exit(1) from None


@benchmark_app.command()
def text(
    train: Annotated[
        Path, typer.Option(help="CSV with columns id, text, code (or code3); optional hospital, patient.")
    ],
    test: Annotated[Path, typer.Option(help="CSV of the same form to measure on.")],
    hospitals: Annotated[int, typer.Option(help="Hospitals to deal patients to.", min=3, max=50)] = 8,
    epsilon: Annotated[str, typer.Option(help="Privacy loss per patient, or 'none' for no privacy at all.")] = "8",
    rounds: Annotated[int | None, typer.Option(help="Optimiser steps; the recipe's if not given.", min=1)] = None,
    delta: Annotated[float, typer.Option(help="At most 1 in 10 times the number of patients.")] = 1e-5,
    features: Annotated[
        int | None, typer.Option(help="Columns of the hashed text encoder, a power of two; the recipe's if not given.")
    ] = None,
    colluders: Annotated[int, typer.Option(help="Hospitals that may work with the server.", min=1)] = 1,
    dropouts: Annotated[int, typer.Option(help="Hospitals that may drop out of a round.", min=0)] = 0,
    estimator: Annotated[
        str, typer.Option(help="dp-sgd: gradient steps; ridge: closed form, all of it in one secure sum.")
    ] = "dp-sgd",
    noise: Annotated[
        str, typer.Option(help="distributed: shares under secure aggregation; local: each hospital adds all of it.")
    ] = "distributed",
    local_steps: Annotated[
        int | None, typer.Option(help="Steps between two secure sums, under local noise.", min=1)
    ] = None,
    train_split: Annotated[str | None, typer.Option(help="Only rows of the training file with this split.")] = None,
    test_split: Annotated[str | None, typer.Option(help="Only rows of the test file with this split.")] = None,
    seed: Annotated[int, typer.Option(help="Deals the patients; noise is never seeded.")] = 1,
    single: Annotated[bool, typer.Option(help="Also train every hospital's own model.")] = True,
    as_json: AsJson = False,
) -> None:
    """Train one model on a table dealt to hospitals, and print hit@1, hit@3, macro-F1 and more.

    Beside the federated model stand the pooled one without privacy and the mean of the hospitals' own models.
    The label space is the training file's codes: for published data sets only, since a list of codes that occur is
    itself a release about patients.
    """
    from site_packages.text_table import deal, read_text_table

    if train.resolve() == test.resolve() and train_split == test_split:
        raise typer.BadParameter("training and test rows are the same; give --train-split and --test-split")
    with _told("zegel benchmark text"):
        wanted = _epsilon(epsilon)
        dealt = deal(read_text_table(train, split=train_split), hospitals, seed=seed)
        rows = _measure(
            dealt,
            read_text_table(test, split=test_split),
            epsilon=wanted,
            rounds=rounds,
            delta=delta,
            features=features,
            colluders=colluders,
            dropouts=dropouts,
            estimator=estimator,
            noise_mode=noise,
            local_steps=local_steps,
            single=single,
            quiet=as_json,
        )
    if as_json:
        typer.echo(json.dumps(rows))
        return
    _print_rows(f"{train.name}: {len(dealt)} hospitals, epsilon {epsilon}, {estimator}, {noise} noise", rows)


def _epsilon(value: str) -> float | None:
    if value.lower() == "none":
        return None
    try:
        number = float(value)
    except ValueError:
        number = float("nan")
    if not 0 < number <= MAX_EPSILON:
        raise typer.BadParameter(f"epsilon {value!r}: expected a number in (0, {MAX_EPSILON:g}], or none")
    return number


def _measure(
    dealt: Mapping[str, list[TextRow]],
    test_rows: Sequence[TextRow],
    *,
    epsilon: float | None,
    rounds: int | None,
    delta: float,
    features: int | None,
    colluders: int,
    dropouts: int,
    estimator: str,
    noise_mode: str,
    local_steps: int | None,
    single: bool,
    quiet: bool,
) -> list[dict[str, Any]]:
    import numpy as np

    from jobs.icd_coding.model import LinearModel
    from jobs.proposal import Wish, make_plan, settings
    from jobs.terms import plan_encoder
    from site_packages.baselines import encode, train_in_the_clear
    from site_packages.learner import linear_parameters
    from site_packages.simulation import Simulation, SiteRecords
    from site_packages.text_table import patients_in, to_dataset

    began = time.monotonic()
    # By number: a table's names for hospitals need not be ones that a certificate could hold.
    dealt = {f"hospital-{number:02}": rows for number, rows in enumerate(dealt.values(), start=1)}
    sites = tuple(dealt)
    labels = tuple(sorted({row.code for rows in dealt.values() for row in rows}))
    wish = Wish(
        name="benchmark",
        consortium="benchmark",
        sites=sites,
        evaluation_sites=(),
        label_space=labels,
        nominal_patients=patients_in(dealt),
        epsilon=epsilon,
        delta=delta,
        rounds=rounds,
        features=features,
        colluders=colluders,
        dropouts=dropouts,
        estimator=estimator,
        noise_mode=noise_mode,
        local_steps=local_steps,
    )
    plan = make_plan(wish)
    test = to_dataset(list(test_rows))
    records = {site: to_dataset(rows) for site, rows in dealt.items()}
    encoder = plan_encoder(plan).opened()
    test_matrix, truth = encode(encoder, [test], labels)
    with tempfile.TemporaryDirectory() as folder, _bar(quiet, plan) as told:
        nobody = test.take(np.zeros(0, dtype=np.int64))
        simulation = Simulation(
            plan,
            {site: SiteRecords(records[site], nobody) for site in sites},
            Path(folder),
            limits=_public_limits(),
            budget=(200.0, delta),
            progress=told,
        )
        outcome = simulation.run()
        federated_seconds = time.monotonic() - began
        sent, received = simulation.transport.bytes_sent, simulation.transport.bytes_received
    shape = LinearModel(features=encoder.features, labels=len(labels))
    # The pooled model stands beside all of them the same: gradient steps in the clear.
    plain = settings(Wish(**{**vars(wish), "epsilon": None, "estimator": "dp-sgd", "local_steps": None}))
    matrices = {site: encode(encoder, [records[site]], labels) for site in sites}
    from scipy import sparse

    pooled = train_in_the_clear(
        sparse.vstack([rows for rows, _ in matrices.values()], format="csr"),
        np.concatenate([codes for _, codes in matrices.values()]),
        shape,
        plain,
    )
    rows = [*_figures("", linear_parameters(outcome.parameters), test_matrix, truth)]
    rows.append(_row("epsilon", plan.epsilon if plan.epsilon is not None else None, "per patient, PLD"))
    rows.append(_row("delta", plan.delta, "per patient"))
    rows.append(_row("rounds", plan.aggregations, "secure aggregations"))
    rows.append(_row("wall time", federated_seconds, "s"))
    rows.append(_row("upload per hospital", max(received.values()), "bytes"))
    rows.append(_row("download per hospital", max(sent.values()), "bytes"))
    rows += _figures("pooled ", pooled, test_matrix, truth)
    if single:
        alone = [_figures("", train_in_the_clear(*matrices[site], shape, plain), test_matrix, truth) for site in sites]
        for position, example in enumerate(alone[0]):
            value = float(np.mean([figures[position]["value"] for figures in alone]))
            rows.append(_row(f"single-hospital {example['name']}", value, example["unit"]))
    return rows


def _public_limits() -> Any:
    from site_packages.limits import Limits

    return Limits(data_is_public=True, maximum_rounds=10_000, minimum_noise_multiplier=0.0, maximum_l2_clip_norm=1e6)


def _figures(prefix: str, parameters: Parameters, matrix: Any, truth: NDArray[np.int64]) -> list[dict[str, Any]]:
    from jobs.icd_coding.evaluation import confidence_and_correct, coverage_at_precision, hit_at_k, macro_f1
    from jobs.icd_coding.model import scores

    score = scores(parameters, matrix)
    covered = coverage_at_precision(*confidence_and_correct(score, truth), PRECISION)
    return [
        _row(f"{prefix}hit@1", hit_at_k(score, truth, 1), "share"),
        _row(f"{prefix}hit@3", hit_at_k(score, truth, 3), "share"),
        _row(f"{prefix}macro-F1", macro_f1(score, truth), "share"),
        _row(f"{prefix}coverage at 90% precision", covered.coverage, "share"),
    ]


def _row(name: str, value: float | None, unit: str) -> dict[str, Any]:
    """One row of a benchmark; this one sets no targets itself, `benchmarks/text.py` does."""
    return {"name": name, "value": value, "unit": unit, "target": None, "holds": None}


@contextmanager
def _bar(quiet: bool, plan: Plan) -> Iterator[Any]:
    """A progress bar on stderr."""
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True, disable=quiet) as bar:
        task = bar.add_task("training", total=plan.aggregations)
        yield lambda step: bar.update(
            task, completed=step.round, description=f"round {step.round}, epsilon {step.epsilon:.2f}"
        )


def _print_rows(title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title)
    table.add_column("figure")
    table.add_column("value", justify="right")
    table.add_column("unit")
    for row in rows:
        value = row["value"]
        shown = "none" if value is None else (f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}")
        table.add_row(row["name"], shown, row["unit"])
    Console().print(table)


@benchmark_app.command()
def homes(
    train: Annotated[list[Path], typer.Option("--train", help="A hospital's folder to train on; once per hospital.")],
    evaluate: Annotated[list[Path], typer.Option("--evaluate", help="A hospital's folder to measure on.")],
    labels: Annotated[Path, typer.Option(help="File with the codes of the label space, one per line.")],
    features: Annotated[int, typer.Option(help="Columns of the hashed text encoder, a power of two.")] = 4096,
    as_json: AsJson = False,
) -> None:
    """Train comparison models in the clear, pooled and per hospital, on imported synthetic data sets.

    Refuses data sets that are not labelled synthetic: putting real hospitals' records together is what this system
    exists to avoid.
    """
    from jobs.proposal import Wish, read_labels, settings
    from site_packages.clear_comparison import compare_homes

    with _told("zegel benchmark homes"):
        label_space = read_labels(labels)
        recipe = settings(
            Wish(
                name="comparison",
                consortium="comparison",
                label_space=label_space,
                epsilon=None,
                features=features,
            )
        )
        result = compare_homes(train, evaluate, label_space=label_space, recipe=recipe, features=features)
    if as_json:
        typer.echo(json.dumps(result))
        return
    for name, values in result["sites"].items():
        typer.echo(f"{name:20} pooled {values['pooled']:.3f}   alone {values['alone']}")
