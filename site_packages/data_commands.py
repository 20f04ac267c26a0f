"""`zegel sample` and `zegel site import`: synthetic tables out, a hospital's tables in."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from site_packages.import_report import ImportReport
    from site_packages.manifest import Manifest

TABLE_STEMS = ("admissions", "documents", "diagnoses")
_LONG_IMPORT = 20_000  # rows from which a progress bar is worth its lines
_TOP_REASONS = 8


def sample(
    out: Annotated[Path, typer.Option(help="Folder to make; gets one folder per hospital.")],
    hospitals: Annotated[
        int,
        typer.Option(min=1, max=99, help="How many hospitals; the last of two or more is the shifted one."),
    ] = 5,
    admissions: Annotated[int, typer.Option(min=1, help="Admissions per hospital.")] = 1500,
    seed: Annotated[int, typer.Option(help="The same seed gives the same files on every machine.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print the counts as JSON.")] = False,
) -> None:
    """Write synthetic Dutch day admissions in the form of DHD's tables, for trying things out.

    Every letter says that it is synthetic. Each hospital gets admissions.csv, documents.csv and
    diagnoses.csv to import, truth.csv with the codes that are wrong on purpose, and a README.txt.
    """
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table

    from site_packages.sample.tables import period, write_sample

    console = Console(stderr=True)
    with _told("zegel sample"), console.status("Writing letters") as status:
        summaries = write_sample(
            out,
            seed=seed,
            hospitals=hospitals,
            admissions=admissions,
            done=lambda summary: status.update(f"Writing letters ({summary.name} done)"),
        )
    if as_json:
        first, last = period()
        value = {
            "schema": "zegel/sample/v1",
            "synthetic": True,
            "seed": seed,
            "folder": str(out),
            "period": [first, last],
            "hospitals": [summary.to_json() for summary in summaries],
        }
        typer.echo(json.dumps(value))
        return
    table = Table(title="Synthetic day admissions", box=SIMPLE, padding=(0, 1, 0, 0))
    for heading in (
        "hospital",
        "admissions",
        "patients",
        "letters",
        "no id",
        "codes",
        "wrong",
    ):
        first = heading == "hospital"
        table.add_column(heading, justify="left" if first else "right", no_wrap=first)
    for summary in summaries:
        table.add_row(
            summary.name + (" (shifted)" if summary.shifted else ""),
            f"{summary.admissions:,}",
            f"{summary.patients:,}",
            f"{summary.letters:,}",
            f"{summary.letters_without_admission_id:,}",
            str(summary.categories),
            str(summary.wrong_codes),
        )
    Console(markup=False).print(table)
    typer.echo(f"Written to {out}. Next: zegel site import {out}/{summaries[0].name} --home HOME")


def import_data(
    tables: Annotated[
        list[Path],
        typer.Argument(
            metavar="ADMISSIONS DOCUMENTS DIAGNOSES",
            help="DHD's three tables, CSV or Parquet, in this order; or one folder with them.",
        ),
    ],
    home: Annotated[
        Path,
        typer.Option("--home", envvar="ZEGEL_SITE_HOME", help="The hospital's folder.", show_default="."),
    ] = Path(),
    code_table: Annotated[
        Path | None,
        typer.Option(help="CSV with code, title, valid_from, valid_to; the WHO edition of 2019 without it."),
    ] = None,
    synthetic: Annotated[bool, typer.Option("--synthetic", help="Label the data set as not about people.")] = False,
    report: Annotated[
        Path | None,
        typer.Option(help="Also write the report here, as .json and .csv, even if nothing is imported."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Import DHD's day-admission tables as this hospital's data set.

    Nothing leaves the hospital. Every row that is not imported stands in the report with its file, line and
    reason. A file that cannot be read stops the import before anything is written; importing the same
    tables again gives the same data set.
    """
    from site_packages.codes import load_code_table, who_2019
    from site_packages.dhd_import import import_dhd
    from site_packages.home import SiteHome
    from site_packages.store import REPORT_CSV, store_dataset

    paths = _three_tables(tables)
    with _told("zegel site import"):
        site = SiteHome(home).identity().name
        table = who_2019() if code_table is None else load_code_table(code_table)
        with _progress(quiet=as_json) as progress:
            imported = import_dhd(*paths, code_table=table, progress=progress)
        if report is not None:
            _write_report(report, imported.report)
        if not imported.admissions:
            _print_reasons(imported.report, err=True)
        folder, manifest = store_dataset(home, imported, site=site, synthetic=synthetic)
    if as_json:
        value = {
            "schema": "zegel/import/v1",
            "dataset": manifest.dataset_id,
            "folder": str(folder),
            "report": str(folder / REPORT_CSV),
            "manifest_digest": manifest.digest,
            "manifest": manifest.to_json(),
        }
        typer.echo(json.dumps(value))
        return
    _print_summary(manifest, imported.report)
    _print_reasons(imported.report)
    if manifest.synthetic and not synthetic:
        typer.echo("Letters say they are synthetic, so the data set is labelled synthetic.")
    typer.echo(f"Data set {manifest.dataset_id} is now in use: {folder}")
    typer.echo(f"Every rejected row: {folder / REPORT_CSV}")


@contextmanager
def _told(command: str) -> Iterator[None]:
    """Errors of this room become one line on stderr and exit code 1."""
    from site_packages.errors import SitePackagesError

    try:
        yield
    except (SitePackagesError, OSError) as error:
        typer.echo(f"{command}: {error}", err=True)
        raise typer.Exit(1) from None


def _three_tables(given: list[Path]) -> tuple[Path, Path, Path]:
    """The three tables, from three paths or from a folder. Raises BadParameter (exit code 2) otherwise."""
    if len(given) == 3:
        return given[0], given[1], given[2]
    if len(given) != 1 or not given[0].is_dir():
        raise typer.BadParameter(
            f"expected the tables admissions, documents, diagnoses, or one folder; got {len(given)} path(s)"
        )
    found: list[Path] = []
    for stem in TABLE_STEMS:
        files = [
            path
            for path in sorted(given[0].iterdir())
            if path.stem.casefold() == stem and path.suffix.casefold() in (".csv", ".parquet")
        ]
        if len(files) != 1:
            what = "no" if not files else "more than one"
            raise typer.BadParameter(f"{given[0]} holds {what} {stem}.csv or {stem}.parquet")
        found.append(files[0])
    return found[0], found[1], found[2]


@contextmanager
def _progress(*, quiet: bool) -> Iterator[Callable[[str, int, int], None]]:
    """A progress bar on stderr for long tables, on a terminal only."""
    from rich.console import Console
    from rich.progress import Progress, TaskID

    console = Console(stderr=True)
    tasks: dict[str, TaskID] = {}
    with Progress(console=console, transient=True, disable=quiet or not console.is_terminal) as bar:

        def told(table: str, done: int, total: int) -> None:
            if total >= _LONG_IMPORT:
                if table not in tasks:
                    tasks[table] = bar.add_task(f"Reading {table}", total=total)
                bar.update(tasks[table], completed=done)

        yield told


def _write_report(path: Path, report: ImportReport) -> None:
    for suffix, content in ((".json", report.json_bytes()), (".csv", report.csv_bytes())):
        path.with_suffix(suffix).write_bytes(content)


def _print_summary(manifest: Manifest, report: ImportReport) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"Imported at {manifest.site}" + (" (synthetic)" if manifest.synthetic else ""))
    for heading in ("table", "file", "rows", "imported", "rejected"):
        table.add_column(heading, justify="left" if heading in ("table", "file") else "right")
    for count in report.tables:
        figures = (count.rows, count.imported, count.rows - count.imported)
        table.add_row(count.table, count.file, *(f"{figure:,}" for figure in figures))
    Console(markup=False).print(table)
    typer.echo(
        f"{manifest.admissions:,} admissions of {manifest.patients:,} patients, {manifest.letters:,} letters,"
        f" {len(manifest.categories)} categories, {manifest.period_first} to {manifest.period_last}; "
        f"codes checked against {manifest.code_table}."
    )


def _print_reasons(report: ImportReport, *, err: bool = False) -> None:
    from rich.console import Console
    from rich.table import Table

    from site_packages.import_report import REASONS

    reasons: list[Any] = report.top_reasons()
    if not reasons:
        return
    table = Table(title="Why rows were rejected")
    for heading in ("rows", "table", "reason", "first"):
        table.add_column(heading, justify="right" if heading == "rows" else "left")
    for name, reason, rows, first in reasons[:_TOP_REASONS]:
        table.add_row(f"{rows:,}", name, REASONS[reason], f"{first.file}, line {first.line}")
    Console(stderr=err, markup=False).print(table)
    if len(reasons) > _TOP_REASONS:
        typer.echo(f"... and {len(reasons) - _TOP_REASONS} more reasons, in the report.", err=err)
