"""Storing a data set: the same twice, never half, and read back only if untouched."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from site_packages import store
from site_packages.codes import who_2019
from site_packages.dataset import current_dataset, open_dataset
from site_packages.dhd_import import ImportedTables, import_dhd
from site_packages.errors import DatasetError, ImportRefusedError, ManifestError
from site_packages.manifest import parse_manifest
from site_packages.store import store_dataset
from tests.site_packages.dhd_tables import Tables, document


def imported(tables: Tables) -> ImportedTables:
    return import_dhd(*tables.write(), code_table=who_2019())


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    folder = tmp_path / "tables"
    folder.mkdir()
    return Tables(folder)


def test_stored_and_read_back(tables: Tables, tmp_path: Path) -> None:
    tables.documents.append(document(1, document_type="PA-verslag", publication_date="2024-03-15", text="pa"))
    folder, manifest = store_dataset(tmp_path / "home", imported(tables), site="sint-anna", synthetic=False)
    assert folder == current_dataset(tmp_path / "home")
    assert folder.name == manifest.dataset_id
    dataset = open_dataset(folder)
    assert dataset.manifest == manifest
    assert dataset.patients == ("p1", "p2", "p3")
    assert dataset.texts[0] == "[Ontslagbrief]\nbrief over opname 1\n\n[PA-verslag]\npa"
    assert dataset.labels == ("H25", "H25", "H25")
    assert dataset.codes == ("H25.1", "H25.1", "H25.1")
    assert (dataset.year.tolist(), dataset.age.tolist()) == ([2024] * 3, [64] * 3)
    assert dataset.sex == ("female",) * 3


def test_manifest_says_what_is_there(tables: Tables, tmp_path: Path) -> None:
    tables.diagnoses[1]["icd10_diagnosis_code"] = "H29"
    folder, manifest = store_dataset(tmp_path / "home", imported(tables), site="sint-anna", synthetic=False)
    value = json.loads((folder / "manifest.json").read_bytes())
    assert value == manifest.to_json()
    assert value["schema"] == "zegel/data-manifest/v1"
    assert value["synthetic"] is False
    assert (value["admissions"], value["patients"], value["letters"]) == (2, 2, 2)
    assert value["rejected"]["diagnoses"] == {"code_unknown": 1}
    assert value["categories"] == {"H25": 2}
    assert value["code_table"] == {"name": "WHO ICD-10 2019", "digest": who_2019().digest}
    assert (value["period_first"], value["period_last"]) == ("2024-03-10", "2024-03-10")
    assert (folder / "import-report.json").exists()
    assert (folder / "import-report.csv").exists()


def test_only_the_owner_reads_it(tables: Tables, tmp_path: Path) -> None:
    folder, _ = store_dataset(tmp_path / "home", imported(tables), site="s", synthetic=False)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}


def test_twice_the_same_is_the_same(tables: Tables, tmp_path: Path) -> None:
    first, one = store_dataset(tmp_path / "home", imported(tables), site="s", synthetic=False)
    tables.admissions.reverse()
    tables.documents.reverse()
    again, two = store_dataset(tmp_path / "home", imported(tables), site="s", synthetic=False)
    elsewhere, three = store_dataset(tmp_path / "other", imported(tables), site="s", synthetic=False)
    assert (first, one.digest) == (again, two.digest)
    assert (first.name, one.digest) == (elsewhere.name, three.digest)
    assert sorted(path.name for path in (tmp_path / "home" / "data").iterdir()) == sorted(["current", first.name])


def test_a_letter_that_says_it_is_synthetic_labels_the_data_set(tables: Tables, tmp_path: Path) -> None:
    tables.documents[0]["text"] = "SYNTHETISCHE BRIEF - geen echte patiënt\nstaar"
    _, manifest = store_dataset(tmp_path / "home", imported(tables), site="s", synthetic=False)
    assert manifest.synthetic


def test_the_operator_may_label_it_synthetic(tables: Tables, tmp_path: Path) -> None:
    _, manifest = store_dataset(tmp_path / "home", imported(tables), site="s", synthetic=True)
    assert manifest.synthetic


def test_nothing_is_stored_without_an_admission(tables: Tables, tmp_path: Path) -> None:
    for row in tables.admissions:
        row["gender"] = "q"
    with pytest.raises(ImportRefusedError, match="no admission could be imported"):
        store_dataset(tmp_path / "home", imported(tables), site="s", synthetic=False)
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
@pytest.mark.parametrize("write", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("after", [False, True])
def test_an_interrupted_import_leaves_the_earlier_data_set_in_use(
    tables: Tables,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: type[BaseException],
    write: int,
    after: bool,
) -> None:
    home = tmp_path / "home"
    earlier, _ = store_dataset(home, imported(tables), site="s", synthetic=False)
    tables.documents.append(document(2, text="nieuwe brief"))
    fresh = imported(tables)
    original: Callable[[Path, bytes], None] = store._write_private
    count = 0

    def interrupted(path: Path, content: bytes) -> None:
        nonlocal count
        count += 1
        if count == write and not after:
            raise error
        original(path, content)
        if count == write:
            raise error

    monkeypatch.setattr(store, "_write_private", interrupted)
    with pytest.raises(error):
        store_dataset(home, fresh, site="s", synthetic=False)
    monkeypatch.undo()
    assert current_dataset(home) == earlier
    open_dataset(earlier)
    left = {path.name for path in (home / "data").iterdir()} - {"current", earlier.name}
    if write < 5:
        assert left == set()
    else:  # the new data set is whole, only not in use yet
        (name,) = left
        open_dataset(home / "data" / name)
    later, _ = store_dataset(home, fresh, site="s", synthetic=False)
    assert current_dataset(home) == later != earlier


def test_a_changed_file_is_refused(tables: Tables, tmp_path: Path) -> None:
    folder, _ = store_dataset(tmp_path / "home", imported(tables), site="s", synthetic=False)
    path = folder / "admissions.parquet"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(DatasetError, match="was changed after import"):
        open_dataset(folder)
    with pytest.raises(ImportRefusedError, match="damaged"):
        store_dataset(tmp_path / "home", imported(tables), site="s", synthetic=False)


def test_every_changed_manifest_is_refused(tables: Tables, tmp_path: Path) -> None:
    folder, _ = store_dataset(tmp_path / "home", imported(tables), site="s", synthetic=False)
    sound = (folder / "manifest.json").read_bytes()
    value = json.loads(sound)
    assert parse_manifest(sound).to_json() == value
    for field in value:
        broken = {name: content for name, content in value.items() if name != field}
        with pytest.raises(ManifestError):
            parse_manifest(json.dumps(broken, sort_keys=True, separators=(",", ":")).encode())
    for bad in (b"", b"[]", b"\xff", sound + b"\n", sound.replace(b'"admissions":3', b'"admissions":4')):
        with pytest.raises(ManifestError):
            parse_manifest(bad)
    changed = sound.replace(b'"letters":3', b'"letters":4')
    (folder / "manifest.json").write_bytes(changed)
    with pytest.raises(DatasetError, match="with 3 letters, its manifest says 3, 3 and 4"):
        open_dataset(folder)


def test_no_data_set(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"manifest\.json is missing"):
        open_dataset(tmp_path)
    with pytest.raises(DatasetError, match="run `zegel site import`"):
        current_dataset(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "current").write_text("../../etc\n", encoding="ascii")
    with pytest.raises(DatasetError, match="does not name a data set"):
        current_dataset(tmp_path)
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["current"]
