"""`zegel sample` and `zegel site import` as their users meet them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from site_packages.data_commands import import_data, sample
from tests.site_packages.dhd_tables import Tables, diagnosis

app = typer.Typer()
app.command("sample")(sample)
app.command("import")(import_data)
runner = CliRunner(env={"COLUMNS": "200"})


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A hospital's folder, as far as an import reads it."""
    folder = tmp_path / "home"
    folder.mkdir()
    identity = {"name": "sint-anna", "organisation": "Sint_Anna", "consortium": "c", "root_fingerprint": None}
    (folder / "site.json").write_text(json.dumps(identity), encoding="utf-8")
    return folder


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    folder = tmp_path / "tables"
    folder.mkdir()
    return Tables(folder)


def test_sample_then_import(tmp_path: Path, home: Path) -> None:
    out = tmp_path / "sample"
    made = runner.invoke(app, ["sample", "--out", str(out), "--hospitals", "2", "--admissions", "40", "--json"])
    assert made.exit_code == 0, made.output
    value = json.loads(made.stdout)
    assert value["synthetic"] is True
    assert [h["admissions"] for h in value["hospitals"]] == [40, 40]
    assert [h["shifted"] for h in value["hospitals"]] == [False, True]
    done = runner.invoke(app, ["import", str(out / "hospital-2"), "--home", str(home), "--json"])
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    assert result["manifest"]["admissions"] == 40
    assert result["manifest"]["synthetic"] is True
    assert result["manifest"]["site"] == "sint-anna"
    assert (home / "data" / "current").read_text(encoding="ascii").strip() == result["dataset"]


def test_sample_for_people(tmp_path: Path) -> None:
    made = runner.invoke(app, ["sample", "--out", str(tmp_path / "s"), "--hospitals", "2", "--admissions", "20"])
    assert made.exit_code == 0
    assert "hospital-2 (shifted)" in made.stdout
    again = runner.invoke(app, ["sample", "--out", str(tmp_path / "s"), "--hospitals", "2", "--admissions", "20"])
    assert again.exit_code == 1
    assert "not an empty folder" in again.stderr


def test_import_tells_what_was_rejected_and_where_to_read_more(tables: Tables, home: Path) -> None:
    tables.diagnoses[1]["icd10_diagnosis_code"] = "H29"
    done = runner.invoke(app, ["import", *map(str, tables.write()), "--home", str(home)])
    assert done.exit_code == 0, done.output
    assert "2 admissions of 2 patients, 2 letters" in done.stdout
    assert "not in the code table" in " ".join(done.stdout.split())
    assert "import-report.csv" in done.stdout


def test_import_with_the_hospitals_own_code_table(tables: Tables, home: Path, tmp_path: Path) -> None:
    codes = tmp_path / "codes.csv"
    codes.write_text("code,title,valid_from,valid_to\nH25.1,staar,,2023-12-31\n", encoding="utf-8")
    arguments = ["import", *map(str, tables.write()), "--home", str(home), "--code-table", str(codes)]
    done = runner.invoke(app, arguments)
    assert done.exit_code == 1
    assert "no admission could be imported" in done.stderr
    assert not (home / "data").exists()
    codes.write_text("code,title,valid_from,valid_to\nH25.1,staar,,\n", encoding="utf-8")
    done = runner.invoke(app, [*arguments, "--json"])
    assert done.exit_code == 0
    assert json.loads(done.stdout)["manifest"]["code_table"]["name"] == "codes.csv"


def test_the_report_can_be_kept_of_an_import_that_stores_nothing(tables: Tables, home: Path, tmp_path: Path) -> None:
    tables.diagnoses = [diagnosis(i, icd10_diagnosis_code="?") for i in (1, 2, 3)]
    arguments = ["import", *map(str, tables.write()), "--home", str(home), "--report", str(tmp_path / "why")]
    done = runner.invoke(app, arguments)
    assert done.exit_code == 1
    assert len(json.loads((tmp_path / "why.json").read_bytes())["rejections"]) == 9
    assert (tmp_path / "why.csv").read_text(encoding="utf-8-sig").count("\n") == 10


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda paths: paths[1].unlink(), "cannot be read"),
        (lambda paths: paths[1].write_bytes(b"\xff\xfe"), "not UTF-8"),
        (lambda paths: paths[2].write_text('patient_id,"x\n', encoding="utf-8"), "broken quoting"),
        (lambda paths: paths[0].write_text("a,b\n1,2\n", encoding="utf-8"), "lacks the column patient_id"),
    ],
)
def test_a_malformed_file_changes_nothing(tables: Tables, home: Path, break_it: object, message: str) -> None:
    assert callable(break_it)
    paths = tables.write()
    break_it(paths)
    done = runner.invoke(app, ["import", *map(str, paths), "--home", str(home)])
    assert done.exit_code == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert [path.name for path in home.iterdir()] == ["site.json"]


def test_wrong_use_is_exit_code_2(tables: Tables, home: Path, tmp_path: Path) -> None:
    paths = tables.write()
    for given in ([paths[0]], [paths[0], paths[1]], [tmp_path]):
        done = runner.invoke(app, ["import", *map(str, given), "--home", str(home)])
        assert done.exit_code == 2, done.output
    assert [path.name for path in home.iterdir()] == ["site.json"]


def test_a_folder_that_is_no_hospitals(tables: Tables, tmp_path: Path) -> None:
    done = runner.invoke(app, ["import", *map(str, tables.write()), "--home", str(tmp_path / "nowhere")])
    assert done.exit_code == 1
    assert "not a hospital's folder" in done.stderr
    assert not (tmp_path / "nowhere").exists()
