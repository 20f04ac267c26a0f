"""`zegel privacy audit`: does this installation protect as it claims?

It stands in the group `zegel privacy` and lives here, since it runs a whole federation. Heavy imports stay inside the
command so that `--help` is quick.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from site_packages.privacy_audit import AuditReport

MEANING = {
    "one-run-bound": "an attacker learned more than the claimed epsilon allows",
    "noise-variance": "the released noise is not as large as claimed",
    "noise-shape": "the released noise is not Gaussian",
    "noise-fresh": "two releases share their noise, which cancels when they are subtracted",
    "contribution": "one patient counts for more than the clip in what is released",
    "sensitivity": "one patient moves a hospital's sum by more than the noise is calibrated to",
    "ledger": "a hospital's ledger holds less than was released",
    "sampling-rate": "patients take part more or less often than the plan says",
    "sampling-batch-size": "the number of patients in a round does not vary as under Poisson sampling",
    "sampling-patients": "rounds are not dealt to patients independently",
    "sampling-independence": "whether a patient takes part depends on the round before",
}
"""What it means that a check fails, by name."""


def audit(
    json_file: Annotated[
        Path | None,
        typer.Option("--json", metavar="FILE", help="Write the report as canonical JSON, for the audit log."),
    ] = None,
    plot_file: Annotated[
        Path | None,
        typer.Option("--plot", metavar="FILE", help="Write a picture (SVG): what was proven beside what is claimed."),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="A smaller audit: gross faults show, small ones may not.")
    ] = False,
) -> None:
    """Attack this installation's own training, and test its noise, clipping, sampling and ledger.

    Trains on canaries, patients made up for the purpose, with the same code that trains on real ones: coordinator,
    guards, ledgers, noise and secure aggregation, all in this process. No patient data is read and nothing is sent.
    Then it attacks what was released and says which epsilon the attack proves at least (95% confidence), beside the
    epsilon claimed; and it tests directly whether the released noise is as large as claimed, what one patient can add
    to a sum, and whether patients are sampled as the accounting assumes.

    Takes about two minutes, with --quick half a minute. Exit code 0: passed; 1: a claim is refuted, or the audit could
    not be carried out. Sound code fails with a probability of at most 0.2%. Passing does not prove privacy: the
    accounting does, and the audit shows that the code does what the accounting takes for granted.

    Example: zegel privacy audit --json privacy-audit.json --plot privacy-audit.svg
    """
    for path in (json_file, plot_file):
        if path is not None and (path.is_dir() or not path.absolute().parent.is_dir()):
            # Found out now rather than when there is something to lose.
            raise typer.BadParameter(f"{path}: expected the name of a file in a folder that exists")
    if json_file is not None and json_file == plot_file:
        raise typer.BadParameter("--json and --plot name the same file")
    try:
        report = _run(quick)
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] in ("jobs", "site_packages", "privacy", "audit"):
            raise
        typer.echo(f"zegel privacy audit needs {error.name}: pip install 'zegel[site]'", err=True)
        raise typer.Exit(1) from None
    try:
        _write(report, json_file, plot_file)
    finally:
        _print(report)
    if not report.passed:
        raise typer.Exit(1)


def _run(quick: bool) -> AuditReport:
    from jobs.errors import JobError
    from privacy.errors import PrivacyError
    from site_packages import privacy_audit, privacy_audit_plans
    from site_packages.errors import SitePackagesError

    configurations = privacy_audit_plans.quick() if quick else privacy_audit_plans.full()
    # One hospital is lost on purpose, which the coordinator rightly warns of.
    log = logging.getLogger("jobs")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        with _bar() as tell:
            return privacy_audit.audit(configurations, quick=quick, tell=tell)
    except (JobError, PrivacyError, SitePackagesError) as error:
        typer.echo(f"zegel privacy audit: the audit could not be carried out, so nothing was shown: {error}", err=True)
        raise typer.Exit(1) from None
    finally:
        log.setLevel(before)


def _write(report: AuditReport, json_file: Path | None, plot_file: Path | None) -> None:
    from audit.canonical import canonical_json
    from audit.durable_file import write_durably
    from site_packages.privacy_audit_plot import plot

    try:
        if json_file is not None:
            write_durably(json_file, canonical_json(report.to_json()))
        if plot_file is not None:
            write_durably(plot_file, plot(report).encode())
    except OSError as error:
        typer.echo(f"zegel privacy audit: {error}", err=True)
        raise typer.Exit(1) from None


@contextmanager
def _bar() -> Iterator[Callable[[str, float], None]]:
    """A progress bar on stderr."""
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("audit", total=1.0)
        yield lambda what, done: bar.update(task, completed=done, description=what)


def _print(report: AuditReport) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{report.software}, {report.time}")
    for column in ("training", "epsilon claimed", "proven at least", "noise variance", "one patient adds", "checks"):
        table.add_column(column, justify="left" if column in ("training", "checks") else "right")
    for row in report.configurations:
        checks = {check.name: check for check in row.checks}
        adds = checks.get("contribution")
        failed = [check.name for check in row.checks if not check.passed]
        table.add_row(
            row.configuration.name,
            f"{row.claim:.2f}",
            f"{row.attack.lower_bound:.2f}",
            f"{checks['noise-variance'].measured:.4f}",
            "" if adds is None else f"{adds.measured:.2f} clips",
            "FAILS " + ", ".join(failed) if failed else f"{len(row.checks)} passed",
        )
    Console().print(table)
    for row in report.configurations:
        typer.echo(f"{row.configuration.name}: {row.configuration.description}; delta {row.plan.delta:g}")
    if report.passed:
        typer.echo("Passed: nothing seen contradicts the claims. Sound code fails with a probability of at most 0.2%.")
        return
    for row in report.configurations:
        for check in row.checks:
            if not check.passed:
                typer.echo(f"{row.configuration.name}, {check.name}: {MEANING[check.name]}.")
                chance = "" if check.p_value is None else f"; under the claim it has a chance of {check.p_value:.1g}"
                typer.echo(f"  {check.detail}: {check.measured:.4g}, claimed {check.claimed:.4g}{chance}")
    typer.echo(
        "FAILED: do not train with this installation. Run it once more; if it fails again, compare the installed "
        "version with the one released, and report it with the JSON file."
    )
