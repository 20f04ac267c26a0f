"""Counts per code: what is counted, what is spent first, what is told; and the officer's commands around it."""

from __future__ import annotations

import json
import math
import shutil
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from jobs.leaves import LEAVES, NOISY
from privacy import accounting
from privacy.errors import AlreadySpent, BudgetExceeded, BudgetMissing, LedgerError
from privacy.events import LabelCounts
from privacy.ledger import Ledger
from site_packages.codes import who_2019
from site_packages.commands import site_app
from site_packages.dataset import Dataset, dataset_from_records
from site_packages.dhd_import import import_dhd
from site_packages.errors import DatasetError
from site_packages.home import SiteHome
from site_packages.label_counts import (
    KEY,
    PURPOSE,
    CountTerms,
    LabelCountsError,
    check_limits,
    exact_counts,
    release_label_counts,
)
from site_packages.limits import TRAINING, Limits
from site_packages.store import store_dataset
from tests.jobs.small_federation import seeded
from tests.site_packages.dhd_tables import Tables, admission, diagnosis, document

CODES = ("E11", "H25", "I10", "K40")
TERMS = CountTerms(CODES, 2.0, 10)
DATE = datetime(2026, 11, 22, 5, 0, 0, tzinfo=UTC)


def patients(*codes_of_each: str) -> Dataset:
    """One patient for each argument, with the codes written in it, one admission each."""
    rows = [(f"p{number}", code) for number, codes in enumerate(codes_of_each) for code in codes.split()]
    return dataset_from_records([p for p, _ in rows], ["letter"] * len(rows), [code for _, code in rows])


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    made = Ledger.create(tmp_path / "ledger.db", site="amstel", clock=lambda: DATE)
    made.set_budget(TRAINING, epsilon=5.0, delta=1e-5, officer="J. de Vries", reason="DPIA 12")
    return made


# -- what is counted ---------------------------------------------------------------------------------------------


def test_a_patient_counts_once() -> None:
    training = patients("I10", "I10 I10 I10", "H25", "Z99", "Z99 Z99")
    assert exact_counts(CODES, training, seeded(1)).tolist() == [0, 1, 2, 0]
    both = [tuple(exact_counts(CODES, patients("E11 K40"), seeded(seed)).tolist()) for seed in range(60)]
    assert set(both) == {(1, 0, 0, 0), (0, 0, 0, 1)}  # one admission of the two, sometimes this, sometimes that
    assert 15 <= Counter(both)[1, 0, 0, 0] <= 45


histories = st.lists(st.lists(st.sampled_from([*CODES, "Z99"]), min_size=1, max_size=4), min_size=0, max_size=12)


@settings(derandomize=True, max_examples=80, deadline=None)
@given(histories=histories, further=st.lists(st.sampled_from([*CODES, "Z99"]), min_size=1, max_size=6))
def test_a_further_patient_moves_one_count_by_at_most_one(histories: list[list[str]], further: list[str]) -> None:
    """With the same draws for the others: the L2 sensitivity is 1."""

    def counted(each_history: list[list[str]]) -> np.ndarray:
        rows = [(f"p{number:03}", code) for number, each in enumerate(each_history) for code in each]
        training = dataset_from_records([p for p, _ in rows], ["letter"] * len(rows), [code for _, code in rows])
        return exact_counts(CODES, training, seeded(3))

    before = counted(histories)
    moved = counted([*histories, further]) - before  # the further patient is drawn last
    assert moved.sum() in (0, 1)
    assert np.abs(moved).sum() <= 1
    assert before.sum() <= len(histories)


# -- what is told ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("noise", "codes", "smallest", "threshold"),
    [
        pytest.param(0.5, 4, 10, 10, id="the smallest cell decides"),
        pytest.param(0.5, 4, 25, 25, id="a stricter hospital"),
        pytest.param(4.0, 2000, 10, math.ceil(4 * math.sqrt(2 * math.log(2000 / 0.05))), id="the noise decides"),
    ],
)
def test_the_least_count_that_is_told(noise: float, codes: int, smallest: int, threshold: int) -> None:
    terms = CountTerms(tuple(f"A{number:05}" for number in range(codes)), noise, smallest)
    assert terms.threshold == threshold
    told = terms.told([threshold - 0.51, threshold - 0.5, threshold, -3.0, *[0.0] * (codes - 4)][:codes])
    assert all(count >= threshold for count in told.values())
    assert "A00000" not in told
    assert told["A00002"] == threshold


def test_a_code_that_nobody_has_is_hardly_ever_told() -> None:
    """5% of releases at most tell any of 500 codes without a patient: 200 releases of nothing."""
    terms = CountTerms(tuple(f"A{number:03}" for number in range(500)), 6.0, 1)
    noise = np.random.default_rng(1).normal(0.0, 6.0, (200, 500))
    assert sum(bool(terms.told(row.tolist())) for row in noise) <= 20


@pytest.mark.parametrize("codes", [(), ("I10", "H25"), ("I10", "I10")])
def test_codes_are_a_sorted_list(codes: tuple[str, ...]) -> None:
    with pytest.raises(LabelCountsError, match="sorted"):
        CountTerms(codes, 2.0, 10)


@pytest.mark.parametrize("noise", [0.0, -1.0, math.nan, math.inf])
def test_there_is_always_noise(noise: float) -> None:
    with pytest.raises(LabelCountsError, match="noise must be positive"):
        CountTerms(CODES, noise, 10)


def test_the_hospitals_limits_hold() -> None:
    check_limits(TERMS, delta=1e-5, limits=Limits(minimum_noise_multiplier=2.0, maximum_delta=1e-5))
    with pytest.raises(LabelCountsError, match=r"ask for at least 2\.1; ask for a smaller epsilon"):
        check_limits(TERMS, delta=1e-5, limits=Limits(minimum_noise_multiplier=2.1))
    with pytest.raises(LabelCountsError, match=r"delta at most 0\.0001"):
        check_limits(TERMS, delta=1e-3, limits=Limits())


def test_the_digest_names_the_terms() -> None:
    others = [CountTerms(CODES[:3], 2.0, 10), CountTerms(CODES, 2.001, 10), CountTerms(CODES, 2.0, 11)]
    assert len({TERMS.digest, *(each.digest for each in others)}) == 4


# -- spent before counted ----------------------------------------------------------------------------------------


def many() -> Dataset:
    return patients(*["I10"] * 60, *["H25"] * 40, *["K40"] * 3)


def test_a_release_from_ledger_to_counts(ledger: Ledger) -> None:
    def load_training() -> Dataset:
        (cohort,) = ledger.summary().cohorts
        assert cohort.spent == accounting.epsilon([TERMS.event], 1e-5)  # before anything is read
        return many()

    value = release_label_counts(
        TERMS, ledger=ledger, run_id="label-counts-1", load_training=load_training, random_bytes=seeded(5)
    )
    assert set(value["counts"]) == {"I10", "H25"}
    assert abs(value["counts"]["I10"] - 60) <= 12
    assert (value["left_out"], value["threshold"], value["noise_std"]) == (2, 10, 2.0)
    assert value["event"] == LabelCounts(2.0, PURPOSE).to_json()
    assert ledger.position(value["ledger_head"]) == 4
    (run,) = ledger.summary().cohorts[0].runs
    assert (run.run_id, run.plan_hash, run.is_open, run.committed) == ("label-counts-1", TERMS.digest, False, 1)
    json.dumps(value)
    with pytest.raises(LedgerError, match="was closed"):
        release_label_counts(TERMS, ledger=ledger, run_id="label-counts-1", load_training=many, random_bytes=seeded(5))


def test_the_noise_is_the_events(ledger: Ledger) -> None:
    """The mean square of 400 coordinates of noise is within 5 standard errors of the variance paid for."""
    codes = tuple(f"A{number:03}" for number in range(400))
    seen: list[list[float]] = []

    class Listening(CountTerms):
        def told(self, noisy: Any) -> dict[str, int]:
            seen.append(list(noisy))
            return super().told(noisy)

    terms = Listening(codes, 3.0, 10)
    release_label_counts(
        terms, ledger=ledger, run_id="r", load_training=lambda: patients("Z99"), random_bytes=seeded(2)
    )
    variance = float(np.mean(np.square(seen[0])))
    assert abs(variance - 9.0) <= 5 * 9.0 * math.sqrt(2 / 400)


def untouched() -> Dataset:
    raise AssertionError("the data was opened")


def test_over_budget_nothing_is_read_and_nothing_spent(ledger: Ledger, tmp_path: Path) -> None:
    with pytest.raises(BudgetExceeded):
        release_label_counts(
            CountTerms(CODES, 0.5, 10), ledger=ledger, run_id="r", load_training=untouched, random_bytes=seeded(1)
        )
    assert ledger.price(TRAINING).spent == ledger.price(TRAINING).reserved == 0.0
    bare = Ledger.create(tmp_path / "bare.db", site="amstel", clock=lambda: DATE)
    with pytest.raises(BudgetMissing):
        release_label_counts(TERMS, ledger=bare, run_id="r", load_training=untouched, random_bytes=seeded(1))


def test_data_that_cannot_be_used_leaves_the_spend(ledger: Ledger) -> None:
    def broken() -> Dataset:
        raise DatasetError("changed after import")

    with pytest.raises(DatasetError):
        release_label_counts(TERMS, ledger=ledger, run_id="r", load_training=broken, random_bytes=seeded(1))
    price = ledger.price(TRAINING)
    assert (price.spent, price.reserved) == (accounting.rdp_epsilon([TERMS.event], 1e-5), 0.0)
    with pytest.raises((AlreadySpent, LedgerError)):
        ledger.commit("r", KEY, TERMS.event)


# -- the officer's commands --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hospital with 60 patients: 40 with I10, 20 with H25."""
    folder = tmp_path_factory.mktemp("imported")
    site = SiteHome(folder / "home")
    site.create("amstel", "Ziekenhuis", "Delta")
    tables = Tables(folder)
    tables.admissions, tables.documents, tables.diagnoses = [], [], []
    for number in range(60):
        tables.admissions.append(admission(number, patient_id=f"p{number}"))
        tables.documents.append(document(number, patient_id=f"p{number}"))
        code = "H25.1" if number % 3 == 0 else "I10"
        tables.diagnoses.append(diagnosis(number, patient_id=f"p{number}", icd10_diagnosis_code=code))
    store_dataset(site.path, import_dhd(*tables.write(), code_table=who_2019()), site="amstel", synthetic=True)
    return site.path


@pytest.fixture
def home(imported: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(imported, tmp_path / "home"))


def site(*arguments: object) -> Any:
    """`zegel site`, without a terminal."""
    return CliRunner().invoke(site_app, [str(each) for each in arguments])


def budget(home: Path, epsilon: float = 4.0, delta: float = 1e-5, *further: str) -> Any:
    words = ["--epsilon", epsilon, "--delta", delta, "--officer", "J. de Vries", "--reason", "DPIA 12"]
    return site("budget", "set", TRAINING, *words, "--home", home, *(further or ("--yes",)))


def release(home: Path, out: Path, *further: object, epsilon: float = 1.0) -> Any:
    return site(
        "label-counts", "--epsilon", epsilon, "--officer", "J. de Vries", "--out", out, "--home", home, *further
    )


def test_label_counts_end_to_end(home: Path, tmp_path: Path) -> None:
    assert budget(home).exit_code == 0
    labels = tmp_path / "labels.txt"
    labels.write_text("I10\nH25\nK40\n", encoding="utf-8")
    out = tmp_path / "counts.json"
    done = release(home, out, "--labels", labels, "--yes", "--json")
    assert done.exit_code == 0, done.output
    value = json.loads(out.read_text(encoding="utf-8"))
    assert out.stat().st_mode & 0o777 == 0o600
    assert json.loads(done.stdout) == {"file": str(out), **value}
    assert (value["site"], value["cohort"], value["synthetic"], value["delta"]) == ("amstel", TRAINING, True, 1e-5)
    assert set(value["counts"]) <= {"H25", "I10"}
    assert 10 <= value["counts"]["I10"] <= 60
    assert value["threshold"] >= 10
    held = [item for item in LEAVES if item.how == NOISY and item.holds("label-counts.counts.I10")]
    assert len(held) == 1
    shown = site("ledger", "--home", home)
    assert "1 of 1 x label-counts" in shown.stdout
    (cohort,) = json.loads(site("ledger", "--home", home, "--json").stdout)["cohorts"]
    assert 0.99 < cohort["spent"] <= 1.0 < cohort["spent_rdp"]
    assert sorted(item.name for item in tmp_path.iterdir()) == ["counts.json", "home", "labels.txt"]


def test_without_a_list_every_category_of_the_code_table_is_counted(home: Path, tmp_path: Path) -> None:
    budget(home)
    done = release(home, tmp_path / "counts.json", "--yes")
    assert done.exit_code == 0, done.output
    value = json.loads((tmp_path / "counts.json").read_text(encoding="utf-8"))
    assert len(value["counts"]) + value["left_out"] == len(who_2019().categories(DATE.date(), DATE.date()))
    assert "19 times in 20" in done.stdout


REFUSED: dict[str, tuple[Callable[[Path, Path], Any], str]] = {
    "no budget": (lambda home, out: release(home, out, "--yes"), "`zegel site budget set` makes it"),
    "nobody confirms": (lambda home, out: (budget(home), release(home, out))[1], "the officer must confirm"),
    "more than is left": (
        lambda home, out: (budget(home), release(home, out, "--yes", epsilon=5.0))[1], "this needs epsilon",
    ),
    "a wide delta": (
        lambda home, out: (budget(home), release(home, out, "--yes", "--delta", "0.01"))[1], "delta at most 0.0001",
    ),
    "an epsilon out of range": (
        lambda home, out: (budget(home), release(home, out, "--yes", epsilon=0.0))[1], "epsilon must be in",
    ),
    "a file that is there": (
        lambda home, out: (budget(home), out.write_text("earlier"), release(home, out, "--yes"))[2], "exists; choose",
    ),
    "a folder that is not": (
        lambda home, out: (budget(home), release(home, out / "x" / "y.json", "--yes"))[1], "No such file",
    ),
    "a list of codes that is none": (
        lambda home, out: (budget(home), release(home, out, "--yes", "--labels", home / "limits.json"))[1], "line 1",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused_costs_nothing(case: str, home: Path, tmp_path: Path) -> None:
    act, told = REFUSED[case]
    done = act(home, tmp_path / "counts.json")
    assert done.exit_code == 1
    assert isinstance(done.exception, SystemExit)
    assert told in " ".join(done.stderr.split())
    assert done.stdout == ""
    if (home / "ledger.db").exists():
        price = SiteHome(home).ledger().price(TRAINING)
        assert (price.spent, price.reserved) == (0.0, 0.0)
    assert not list(tmp_path.glob("*.part"))


def test_counts_that_cannot_be_written_are_printed(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    budget(home)
    write = Path.write_text

    def full(path: Path, *arguments: Any, **named: Any) -> int:
        if path.suffix == ".part":
            raise OSError("no space left on device")
        return write(path, *arguments, **named)

    monkeypatch.setattr(Path, "write_text", full)
    done = release(home, tmp_path / "counts.json", "--yes")
    assert done.exit_code == 1
    assert "no space left" in done.stderr
    assert json.loads(done.stdout)["cohort"] == TRAINING  # paid for, so it is not lost


def test_a_budget_is_confirmed_and_told(home: Path) -> None:
    assert "must confirm" in budget(home, 4.0, 1e-5, "--json").stderr
    assert not (home / "ledger.db").exists()
    assert budget(home).exit_code == 0
    raised = budget(home, 6.0, 0.5)
    assert "Budget now: epsilon 4; spent 0.0000, reserved 0.0000, left 4.0000" in raised.stderr
    assert "Warning: delta 0.5 is more than 1 in 10 times the 60 patients imported" in raised.stderr
    value = json.loads(budget(home, 6.0, 1e-5, "--yes", "--json").stdout)
    assert (value["epsilon"], value["left"], value["spent_rdp"]) == (6.0, 6.0, 0.0)
    for epsilon, delta in ((0.0, 1e-5), (201.0, 1e-5), (math.nan, 1e-5), (3.0, 0.0), (3.0, 1.0)):
        assert budget(home, epsilon, delta).exit_code == 1
    wrong = site("budget", "set", "calibration", "--epsilon", 1, "--delta", 1e-5, "--officer", "A", "--reason", "B")
    assert wrong.exit_code == 2


def test_a_lost_ledger_is_declared_by_the_officer(home: Path, tmp_path: Path) -> None:
    budget(home)
    names = ("ledger.db", "ledger.db.anchor")
    copies = {name: (home / name).read_bytes() for name in names}
    declare = ("recover-ledger", "--officer", "J. de Vries", "--reason", "disk failed", "--home", home)
    assert "nothing to recover" in site(*declare, "--yes").stderr
    assert release(home, tmp_path / "counts.json", "--yes").exit_code == 0
    for name in names:
        (home / name).write_bytes(copies[name])
    for command in (("ledger", "--home", home), ("label-counts", "--epsilon", 1, "--officer", "A", "--out",
                    tmp_path / "again.json", "--yes", "--home", home)):  # fmt: skip
        told = site(*command)
        assert told.exit_code == 1
        assert "given away" in told.stderr
        assert "recover-ledger" in told.stderr
    assert "must confirm" in site(*declare).stderr
    done = site(*declare, "--yes", "--json")
    assert json.loads(done.stdout)["suspended"] is True
    assert "history was lost" in site("ledger", "--home", home).stdout
    assert "suspended" in release(home, tmp_path / "again.json", "--yes").stderr
    assert budget(home).exit_code == 0
    assert release(home, tmp_path / "again.json", "--yes").exit_code == 0


def test_the_officer_sees_everything_that_leaves() -> None:
    shown = site("releases").stdout
    for item in LEAVES:
        assert f"  - {item.what}" in shown
    value = json.loads(site("releases", "--json").stdout)
    assert sorted(what for items in value.values() for what in items) == sorted(item.what for item in LEAVES)
