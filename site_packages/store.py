"""Storing an import as the hospital's local data set.

Order of writes, and what a crash leaves:
1. a hidden folder `data/.import-*` gets all files, each synced to disk: a crash leaves that folder only,
   which nothing reads; an error or Ctrl-C removes it;
2. the folder is renamed to `data/<dataset id>`: the data set is there whole, or not at all;
3. `data/current` is replaced by a file that names it: before that the earlier data set stays in use.
Storing what is stored already writes nothing but `data/current`.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from audit.canonical import digest_of
from site_packages.admission import Admission
from site_packages.codes import CODE_TABLE_STEM
from site_packages.dataset import CURRENT_NAME, PARQUET_NAME, open_dataset
from site_packages.dhd_import import ImportedTables
from site_packages.errors import ImportRefusedError, SitePackagesError
from site_packages.manifest import MANIFEST_NAME, Manifest

REPORT_JSON = "import-report.json"
REPORT_CSV = "import-report.csv"


def parquet_bytes(admissions: Sequence[Admission]) -> bytes:
    """The admissions as the Parquet file of a data set.

    Rows are sorted here: the same admissions in any order give the same bytes, under one pyarrow version.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    letter = pa.struct(
        [("kind", pa.string()), ("specialty", pa.string()), ("date", pa.date32()), ("text", pa.string())]
    )
    schema = pa.schema(
        [
            ("patient_id", pa.string()),
            ("admission_id", pa.string()),
            ("admission_date", pa.date32()),
            ("discharge_date", pa.date32()),
            ("year", pa.int16()),
            ("age", pa.int16()),
            ("sex", pa.string()),
            ("urgency", pa.bool_()),
            ("specialty", pa.string()),
            ("letters", pa.list_(letter)),
            ("code", pa.string()),
            ("category", pa.string()),
            ("chapter", pa.string()),
        ]
    )
    rows = sorted(admissions, key=lambda a: (a.patient_id, a.admission_date, a.admission_id))
    columns: dict[str, list[object]] = {
        "patient_id": [a.patient_id for a in rows],
        "admission_id": [a.admission_id for a in rows],
        "admission_date": [a.admission_date for a in rows],
        "discharge_date": [a.discharge_date for a in rows],
        "year": [a.admission_date.year for a in rows],
        "age": [a.age for a in rows],
        "sex": [a.sex for a in rows],
        "urgency": [a.urgency for a in rows],
        "specialty": [a.specialty for a in rows],
        "letters": [
            [{"kind": x.kind, "specialty": x.specialty, "date": x.date, "text": x.text} for x in a.letters]
            for a in rows
        ],
        "code": [a.code for a in rows],
        "category": [a.category for a in rows],
        "chapter": [a.chapter for a in rows],
    }
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pydict(columns, schema=schema), sink, compression="zstd")
    content: bytes = sink.getvalue().to_pybytes()
    return content


def describe(imported: ImportedTables, content: bytes, *, site: str, synthetic: bool) -> Manifest:
    """The manifest of imported tables.

    Args:
        content: the Parquet file's bytes.
        site: the hospital's name in the consortium.
        synthetic: what the operator says; one letter with the mark makes the data set synthetic anyway.

    Raises:
        ImportRefusedError: no admission was imported.
    """
    admissions = imported.admissions
    if not admissions:
        raise ImportRefusedError(
            "no admission could be imported: every row was rejected; correct the tables and try again"
        )
    return Manifest(
        synthetic=synthetic or imported.synthetic_letters > 0,
        site=site,
        data=digest_of(content),
        admissions=len(admissions),
        patients=len({a.patient_id for a in admissions}),
        letters=sum(len(a.letters) for a in admissions),
        rejected=imported.report.counts(),
        period_first=min(a.admission_date for a in admissions),
        period_last=max(a.admission_date for a in admissions),
        code_table=imported.code_table.name,
        code_table_digest=imported.code_table.digest,
        categories=Counter(a.category for a in admissions),
    )


def store_dataset(home: Path, imported: ImportedTables, *, site: str, synthetic: bool) -> tuple[Path, Manifest]:
    """Store imported tables as the hospital's data set in use.

    Args:
        home: the hospital's folder; `data/` in it is made if needed.

    Returns:
        The data set's folder and its manifest.

    Raises:
        ImportRefusedError: no admission was imported, or the data set's folder is there but damaged.
    """
    content = parquet_bytes(imported.admissions)
    manifest = describe(imported, content, site=site, synthetic=synthetic)
    data = home / "data"
    data.mkdir(mode=0o700, parents=True, exist_ok=True)
    target = data / manifest.dataset_id
    if target.exists():
        try:
            open_dataset(target)
        except SitePackagesError as error:
            raise ImportRefusedError(
                f"{target} holds this data set already, but damaged: {error}; remove the folder and import again"
            ) from error
        for name, text in _code_table_file(imported):
            if not (target / name).exists():  # imported before the table was kept
                _write_private(target / name, text)
    else:
        unfinished = Path(tempfile.mkdtemp(prefix=".import-", dir=data))
        try:
            for name, text in (
                (PARQUET_NAME, content),
                (REPORT_JSON, imported.report.json_bytes()),
                (REPORT_CSV, imported.report.csv_bytes()),
                (MANIFEST_NAME, manifest.canonical()),
                *_code_table_file(imported),
            ):
                _write_private(unfinished / name, text)
            unfinished.rename(target)
        except BaseException:  # also Ctrl-C: no half import stays behind
            shutil.rmtree(unfinished, ignore_errors=True)
            raise
    fresh = data / f".{CURRENT_NAME}-{os.getpid()}"
    try:
        _write_private(fresh, f"{manifest.dataset_id}\n".encode())
        fresh.replace(data / CURRENT_NAME)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise
    _sync_folder(data)
    return target, manifest


def _code_table_file(imported: ImportedTables) -> list[tuple[str, bytes]]:
    """The hospital's own code table as it was given, beside the data that it decided about."""
    source = imported.code_table.source
    return [] if source is None else [(CODE_TABLE_STEM + source[0], source[1])]


def _write_private(path: Path, content: bytes) -> None:
    """Write a new file that only its owner reads, and wait until it is on disk."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
