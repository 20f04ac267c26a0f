"""`zegel benchmark text` on a small table, as a person or a program calls it."""

from __future__ import annotations

import csv
import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner, Result

from site_packages.benchmark import benchmark_app
from tests.jobs.small_federation import CODES, WORDS

torch.set_num_threads(1)
FEDERATED = ["hit@1", "hit@3", "macro-F1", "coverage at 90% precision"]
COST = ["epsilon", "delta", "rounds", "wall time", "upload per hospital", "download per hospital"]
POOLED = [f"pooled {name}" for name in FEDERATED]
SINGLE = [f"single-hospital {name}" for name in FEDERATED]


def write(path: Path, rows: int, *, seed: int, **columns: str) -> Path:
    generator = random.Random(seed)  # noqa: S311
    with path.open("w", encoding="utf-8", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(["id", "text", "code", *columns])
        for number in range(rows):
            code = generator.choice(CODES)
            told = code if generator.random() < 0.7 else generator.choice(CODES)  # so that models can differ
            text = f"opname wegens {WORDS[told]}, kamer {generator.randrange(50)}"
            writer.writerow([number, text, code, *(value.format(number % 4) for value in columns.values())])
    return path


@pytest.fixture(scope="module")
def train(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("tables") / "train.csv", 80, seed=1)


@pytest.fixture(scope="module")
def test(train: Path) -> Path:
    return write(train.with_name("test.csv"), 30, seed=2)


def benchmark(train: Path, test: Path, *options: str) -> Result:
    arguments = ["text", "--train", str(train), "--test", str(test), "--features", "256", "--rounds", "3"]
    return CliRunner().invoke(benchmark_app, [*arguments, *options])


def values(result: Result) -> dict[str, Any]:
    assert result.exit_code == 0, result.output
    rows = json.loads(result.stdout)
    assert all(set(row) == {"name", "value", "unit", "target", "holds"} for row in rows)
    found = {row["name"]: row["value"] for row in rows}
    assert len(found) == len(rows)
    return found


def test_rows_for_machines_with_privacy(train: Path, test: Path) -> None:
    result = benchmark(train, test, "--hospitals", "4", "--epsilon", "8", "--json")
    found = values(result)
    assert list(found) == [*FEDERATED, *COST, *POOLED, *SINGLE]
    assert result.stderr == ""
    assert (found["epsilon"], found["delta"], found["rounds"]) == (8, 1e-5, 4)
    for name in (*FEDERATED, *POOLED, *SINGLE):
        assert 0 <= found[name] <= 1, name
    assert found["hit@1"] <= found["hit@3"]
    assert found["wall time"] > 0
    # Four masked vectors of (256 + 1) * 4 numbers of 8 bytes, and a little more.
    assert 4 * 8 * 257 * 4 < found["upload per hospital"] < 4 * 8 * 257 * 4 + 30_000
    assert found["download per hospital"] > 4 * 4 * 257 * 4


def test_without_privacy_it_equals_the_pooled_model(train: Path, test: Path) -> None:
    found = values(benchmark(train, test, "--hospitals", "3", "--epsilon", "none", "--json", "--no-single"))
    assert list(found) == [*FEDERATED, *COST, *POOLED]
    assert found["epsilon"] is None
    for name in FEDERATED:
        assert found[name] == pytest.approx(found[f"pooled {name}"], abs=0.01)
    assert 0.5 < found["hit@1"] < 1


def test_the_table_for_people(train: Path, test: Path) -> None:
    result = benchmark(train, test, "--hospitals", "3", "--epsilon", "none")
    assert result.exit_code == 0, result.output
    assert "train.csv: 3 hospitals, epsilon none" in result.stdout
    for name in (*FEDERATED, *COST, *POOLED, *SINGLE):
        assert name in result.stdout


def test_hospitals_of_the_table_are_used_whatever_their_names(tmp_path: Path, test: Path) -> None:
    """Names with slashes and dots are names, not paths."""
    named = write(tmp_path / "named.csv", 60, seed=3, hospital="../{0}/St. Å", patient="p{0}")
    found = values(benchmark(named, test, "--epsilon", "none", "--json", "--no-single"))
    assert found["hit@3"] > 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["named.csv"]


def test_splits_of_one_file(tmp_path: Path) -> None:
    path = tmp_path / "both.csv"
    lines = ["id,text,code,split"]
    for number in range(40):
        code = CODES[number % 4]
        lines.append(f"{number},{WORDS[code]} {number},{code},{'dev' if number % 3 == 0 else 'train'}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    splits = ("--train-split", "train", "--test-split", "dev")
    found = values(benchmark(path, path, *splits, "--hospitals", "3", "--epsilon", "none", "--json", "--no-single"))
    assert found["hit@1"] > 0.9


BAD: dict[str, tuple[str | None, tuple[str, ...], str]] = {
    "no such file": (None, (), "train.csv: "),
    "no column": ("id,text\n1,x\n", (), "no column code or code3; it has id, text"),
    "a short row": ("id,text,code\n1,x\n", (), "line 2: expected 3 fields"),
    "few patients": ("id,text,code\n1,x,I10\n2,y,H25\n", (), "2 patients cannot be dealt to 8 hospitals"),
    "one code": (
        "id,text,code\n" + "".join(f"{number},x,I10\n" for number in range(9)), (), "label_space: 2 to 20000 codes",
    ),
    "two hospitals": ("id,text,code,hospital\n1,x,I10,A\n2,y,H25,B\n", (), "needs 3 to 50 training hospitals, got 2"),
    "an odd width": ("", ("--features", "300"), "power of two"),
    "too many dropouts": ("", ("--dropouts", "4"), "allowed_dropouts: expected 0-2 for 8 hospitals"),
    "too many colluders": ("", ("--colluders", "8"), "8 hospitals cannot carry 8 colluders"),
    "a delta above one": ("", ("--delta", "2"), "delta"),
    "a delta no hospital takes": ("", ("--delta", "0.01"), "a larger delta than the hospital allows"),
    "no such split": ("", ("--train-split", "dev"), "there is no column split"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_told_in_a_line(case: str, train: Path, test: Path, tmp_path: Path) -> None:
    content, options, message = BAD[case]
    table = tmp_path / "train.csv"
    if content is not None:
        table.write_text(content or train.read_text(encoding="utf-8"), encoding="utf-8")
    result = benchmark(table, test, "--epsilon", "none", *options, "--json")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.startswith("zegel benchmark text: ")
    assert message in result.stderr
    assert "Traceback" not in result.stderr


WRONG = (
    "--epsilon many",
    "--epsilon 0",
    "--epsilon=-1",
    "--epsilon nan",
    "--epsilon 201",
    "--rounds 0",
    "--hospitals 2",
)


@pytest.mark.parametrize("options", WRONG)
def test_wrong_options_are_usage_errors(options: str, train: Path, test: Path) -> None:
    result = benchmark(train, test, *options.split())
    assert result.exit_code == 2
    assert "Traceback" not in result.output
