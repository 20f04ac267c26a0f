"""`zegel site`: what the hospital's privacy officer reads and decides.

    budget set, ledger, releases, label-counts, recover-ledger

Whatever spends or withdraws a protection is confirmed by the officer, at the terminal or with --yes, and stands in
the ledger with name, time and reason.
"""

from __future__ import annotations

import json
import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from site_packages.options import HERE, AsJson, Home, Officer, Yes, answer, confirmed, told

if TYPE_CHECKING:
    from privacy.ledger import Ledger
    from privacy.ledger_book import Admission
    from site_packages.home import SiteHome
    from site_packages.label_counts import CountTerms

budget_app = typer.Typer(no_args_is_help=True, help="The privacy budget this hospital's own officer sets.")


def ledger(home: Home = HERE, as_json: AsJson = False) -> None:
    """Privacy spent, reserved and left, by cohort and run. Checks the ledger's whole chain first.

    Spent is told by both accountants: privacy loss distributions (PLD), the number to report, and Renyi DP, by
    which the budget admits.
    """
    from privacy.ledger_report import report_lines
    from site_packages.home import SiteHome

    with told():
        book = SiteHome(home).ledger()
        book.check()
        summary = book.summary()
    answer(summary.to_json(), report_lines(summary), as_json)


def releases(as_json: AsJson = False) -> None:
    """Everything that leaves this hospital: plain, with noise, masked, or part of the protocol."""
    from jobs.leaves import LEAVES, MEANING

    value = {how: [item.what for item in LEAVES if item.how == how] for how in MEANING}
    lines = []
    for how, items in value.items():
        lines += [f"{how}: {MEANING[how]}", *(f"  - {what}" for what in items), ""]
    answer(value, lines[:-1], as_json)


@budget_app.command("set")
def budget_set(
    cohort: Annotated[str, typer.Argument(help="training or validation")],
    epsilon: Annotated[float, typer.Option(help="At most this much in all, as the admission filter counts it.")],
    delta: Annotated[float, typer.Option(help="At most 1 in 10 times the number of patients.")],
    officer: Officer,
    reason: Annotated[str, typer.Option(help="Why, for the record; such as the DPIA's number.")],
    yes: Yes = False,
    home: Home = HERE,
    as_json: AsJson = False,
) -> None:
    """Set a cohort's budget. The officer confirms; the ledger keeps who, when and why.

    A budget holds for all runs together, past and future. Setting it lower than what was spent stops every further
    run; it undoes nothing.
    """
    from privacy.accounting import check_delta, check_epsilon
    from site_packages.home import SiteHome
    from site_packages.limits import TRAINING, VALIDATION

    if cohort not in (TRAINING, VALIDATION):
        typer.echo(f"zegel site: cohort {cohort!r}: expected {TRAINING} or {VALIDATION}", err=True)
        raise typer.Exit(2)
    with told():
        check_epsilon(epsilon)
        check_delta(delta)
        site = SiteHome(home)
        earlier = _standing(site, cohort)
        wide = _wide_delta(site, delta)
    question = f"{officer}: allow epsilon {epsilon:g} at delta {delta:g} for the {cohort} patients?"
    for line in (*earlier, *wide):
        typer.echo(line, err=True)
    confirmed(question, yes=yes)
    with told():
        book = site.open_or_create_ledger()
        book.set_budget(cohort, epsilon=epsilon, delta=delta, officer=officer, reason=reason)
        price = book.price(cohort)
        head = book.head
    answer(
        {
            "cohort": cohort,
            "epsilon": epsilon,
            "delta": delta,
            "spent_rdp": price.spent,
            "reserved_rdp": price.reserved,
            "left": price.left,
            "ledger_head": head,
        },
        [
            f"Budget of the {cohort} patients: epsilon {epsilon:g}, delta {delta:g}, set by {officer}.",
            f"Spent {price.spent:.4f}, reserved {price.reserved:.4f}, left {price.left:.4f}.",
        ],
        as_json,
    )


def recover_ledger(
    officer: Officer,
    reason: Annotated[str, typer.Option(help="What happened, for the record.")],
    yes: Yes = False,
    home: Home = HERE,
    as_json: AsJson = False,
) -> None:
    """Declare that the ledger's newest rows are gone for good, and go on from the older copy that is there.

    First try to put back the newest copy of ledger.db and its anchor. After this command everything that was
    reserved counts as spent, all budgets are suspended until they are set again, and the loss stays on record.
    """
    from site_packages.home import SiteHome

    confirmed(
        f"{officer}: count everything reserved as spent, and suspend all budgets, because rows are lost?", yes=yes
    )
    with told():
        book = SiteHome(home).recover_ledger(officer=officer, reason=reason)
        head = book.head
    answer(
        {"ledger_head": head, "suspended": True},
        [
            f"The loss is on record, declared by {officer}. All budgets are suspended.",
            "Next: decide what may have been spent, and `zegel site budget set` for each cohort.",
        ],
        as_json,
    )


def label_counts(
    epsilon: Annotated[float, typer.Option(help="What the release may cost a training patient (PLD).")],
    officer: Officer,
    out: Annotated[Path, typer.Option(help="JSON file to write; it must not exist yet.")],
    delta: Annotated[float | None, typer.Option(help="Of that epsilon; the budget's if not given.")] = None,
    labels: Annotated[
        Path | None,
        typer.Option(help="File with the codes to count, one per line; all categories of the code table without it."),
    ] = None,
    yes: Yes = False,
    home: Home = HERE,
    as_json: AsJson = False,
) -> None:
    """Release how many training patients have each code, with noise, charged to the training budget.

    Each patient counts for one admission, drawn at random. The spend is written to the ledger before the data is
    opened, and is never given back, also if the command is stopped after that. Counts below the hospital's smallest
    cell, or below what noise alone would reach, are left out.
    """
    from site_packages.home import SiteHome
    from site_packages.label_counts import check_limits

    with told():
        site = SiteHome(home)
        book = site.ledger()
        terms, delta = _terms(site, book, epsilon=epsilon, delta=delta, labels=labels)
        check_limits(terms, delta=delta, limits=site.limits())
        before = _asked(book, terms)
        unfinished = out.with_name(out.name + ".part")
        if out.exists():
            raise FileExistsError(f"{out} exists; choose another file, so that no release is overwritten")
        unfinished.touch(mode=0o600)  # found out now, a file that cannot be written costs nothing
    try:
        confirmed(
            f"{officer}: release counts of {len(terms.codes)} codes, epsilon {epsilon:g} at delta {delta:g}? Spent "
            f"{before.spent:.4f}, reserved {before.reserved:.4f} of {before.budget:g}; with this {before.total:.4f}.",
            yes=yes,
        )
        with told():
            value = _released(site, book, terms, epsilon=epsilon, delta=delta, officer=officer)
            text = json.dumps(value, indent=2, sort_keys=True) + "\n"
            try:
                unfinished.write_text(text, encoding="utf-8")
                unfinished.replace(out)
            except OSError:
                typer.echo(text)  # it is paid for: lost on disk, it is not lost
                raise
    finally:
        unfinished.unlink(missing_ok=True)
    counts = value["counts"]
    answer(
        {"file": str(out), **value},
        [
            f"Written to {out}: {len(counts)} codes with at least {value['threshold']} patients; the other "
            f"{value['left_out']} are left out.",
            f"Each count is within {1.96 * value['noise_std']:.0f} of the true one, 19 times in 20.",
            f"Charged to the training patients: {value['event']['kind']}, epsilon {epsilon:g} at delta {delta:g}.",
        ],
        as_json,
    )


def _standing(site: SiteHome, cohort: str) -> list[str]:
    """Where the cohort stands before its budget is changed; nothing on the first budget."""
    from privacy.errors import BudgetMissing

    if not (site.path / "ledger.db").exists():
        return []
    book = site.ledger()
    try:
        price = book.price(cohort)
    except BudgetMissing:
        return []
    return [
        f"Budget now: epsilon {price.budget:g}; spent {price.spent:.4f}, reserved {price.reserved:.4f}, "
        f"left {price.left:.4f} (Renyi DP)."
    ]


def _wide_delta(site: SiteHome, delta: float) -> list[str]:
    """A warning where delta is larger than is advised for the patients imported."""
    from site_packages.dataset import current_dataset
    from site_packages.errors import DataError
    from site_packages.manifest import MANIFEST_NAME, parse_manifest

    try:
        patients = parse_manifest((current_dataset(site.path) / MANIFEST_NAME).read_bytes()).patients
    except DataError:
        return []
    if delta * 10 * patients <= 1:
        return []
    return [f"Warning: delta {delta:g} is more than 1 in 10 times the {patients} patients imported."]


def _terms(
    site: SiteHome, book: Ledger, *, epsilon: float, delta: float | None, labels: Path | None
) -> tuple[CountTerms, float]:
    from datetime import date

    from audit.schema import MIN_COUNT
    from privacy.calibration import calibrate_noise_multiplier
    from site_packages.codes import dataset_code_table
    from site_packages.dataset import current_dataset
    from site_packages.label_counts import CountTerms
    from site_packages.limits import TRAINING

    delta = book.price(TRAINING).delta if delta is None else delta
    noise = calibrate_noise_multiplier(
        epsilon=epsilon, delta=delta, rounds=1, sampling_prob=1.0, cache_dir=site.path / "cache"
    )
    if labels is not None:
        from jobs.proposal import read_labels

        codes = read_labels(labels)
    else:
        # Every category the table ever had: which of them is in the data must not decide.
        codes = tuple(sorted(dataset_code_table(current_dataset(site.path)).categories(date.min, date.max)))
    smallest = max(site.limits().minimum_plain_count, MIN_COUNT)
    return CountTerms(codes, noise, smallest), delta


def _asked(book: Ledger, terms: CountTerms) -> Admission:
    """Where the training patients would stand; raises BudgetExceeded before anybody is asked."""
    from privacy.errors import BudgetExceeded
    from site_packages.limits import TRAINING

    price = book.price(TRAINING, [terms.event])
    if not price.admitted:
        raise BudgetExceeded(
            cohort=TRAINING,
            budget=price.budget,
            spent=price.spent,
            reserved=price.reserved,
            asked=price.asked,
            total=price.total,
        )
    return price


def _released(
    site: SiteHome, book: Ledger, terms: CountTerms, *, epsilon: float, delta: float, officer: str
) -> dict[str, Any]:
    from audit.canonical import format_time
    from site_packages.dataset import Dataset, current_dataset, open_dataset, split_patients
    from site_packages.home import utc_now
    from site_packages.label_counts import SCHEMA, release_label_counts
    from site_packages.limits import TRAINING

    now = utc_now()
    synthetic: list[bool] = []

    def load_training() -> Dataset:
        dataset = open_dataset(current_dataset(site.path))
        synthetic.append(dataset.manifest is not None and dataset.manifest.synthetic)
        return dataset.take(split_patients(dataset, site.split_key()).train)

    value = release_label_counts(
        terms,
        ledger=book,
        run_id=f"label-counts-{now:%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}",
        load_training=load_training,
        random_bytes=os.urandom,
    )
    identity = site.identity()
    return {
        "schema": SCHEMA,
        "site": identity.name,
        "consortium": identity.consortium,
        "time": format_time(now),
        "cohort": TRAINING,
        "unit": "patient, with one admission drawn at random",
        "synthetic": synthetic[0],
        "officer": officer,
        "epsilon": epsilon,
        "delta": delta,
        **value,
    }
