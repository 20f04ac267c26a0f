"""The feature cache: what is read is what was written, whatever happened to the file in between."""

from __future__ import annotations

import hashlib
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from jobs.icd_coding.errors import EncoderError
from jobs.icd_coding.transformer_cache import FeatureCache

FEATURES = 6

WRITER = """
import hashlib, sys
from pathlib import Path
import numpy as np
from jobs.icd_coding.transformer_cache import FeatureCache
path, first, step, batches = Path(sys.argv[1]), *map(int, sys.argv[2:])
cache = FeatureCache(path, features=6)
for batch in range(batches):
    numbers = [first + step * (20 * batch + i) for i in range(20)]
    cache.write({hashlib.sha256(b"%d" % n).digest(): np.full(6, n, dtype=np.float32) for n in numbers})
    print(numbers[-1], flush=True)
"""


def key(number: int) -> bytes:
    return hashlib.sha256(b"%d" % number).digest()


def rows(*numbers: int) -> dict[bytes, NDArray[np.float32]]:
    return {key(number): np.full(FEATURES, number, dtype=np.float32) for number in numbers}


@pytest.fixture
def cache(tmp_path: Path) -> FeatureCache:
    return FeatureCache(tmp_path / "kept" / "features.db", features=FEATURES)


def test_what_is_written_is_read_and_nothing_else(cache: FeatureCache) -> None:
    assert cache.read([key(1)]) == {}
    assert not cache.path.parent.exists()  # reading makes nothing
    cache.write(rows(*range(1200)))
    found = cache.read([key(number) for number in range(1100, 1300)])
    assert found.keys() == {key(number) for number in range(1100, 1200)}
    for number in range(1100, 1200):
        assert found[key(number)].dtype == np.float32
        assert (found[key(number)] == number).all()
    cache.write({key(1): np.zeros(FEATURES, dtype=np.float32)})
    assert not cache.read([key(1)])[key(1)].any()
    assert cache.path.stat().st_mode & 0o777 == 0o600


def test_a_vector_of_another_length_is_not_written(cache: FeatureCache) -> None:
    with pytest.raises(EncoderError, match="vectors of 6 numbers"):
        cache.write(rows(1) | {key(2): np.zeros(5, dtype=np.float32)})
    assert cache.read([key(1)]) == {}


@pytest.mark.parametrize(
    "harm",
    [
        "UPDATE feature SET vector = zeroblob(24) WHERE key = ?",
        "UPDATE feature SET vector = substr(vector, 1, 20) WHERE key = ?",
        "UPDATE feature SET checksum = zeroblob(32) WHERE key = ?",
        "UPDATE feature SET vector = (SELECT vector FROM feature WHERE key <> ?1), "
        "checksum = (SELECT checksum FROM feature WHERE key <> ?1) WHERE key = ?1",
        "DELETE FROM feature WHERE key = ?",
    ],
)
def test_a_harmed_row_counts_as_absent(cache: FeatureCache, harm: str) -> None:
    cache.write(rows(1, 2))
    connection = sqlite3.connect(cache.path)
    connection.execute(harm, (key(1),))
    connection.commit()
    connection.close()
    assert cache.read([key(1), key(2)]).keys() == {key(2)}
    cache.write(rows(1))
    assert cache.read([key(1), key(2)]).keys() == {key(1), key(2)}


def test_numbers_that_are_not_finite_are_not_taken_from_the_cache(cache: FeatureCache) -> None:
    cache.write({key(1): np.full(FEATURES, np.nan, dtype=np.float32)})
    assert cache.read([key(1)]) == {}


def test_every_way_to_cut_or_garble_the_file_gives_intact_rows_or_none(cache: FeatureCache) -> None:
    cache.write(rows(*range(200)))
    whole = cache.path.read_bytes()
    harmed = [whole[: len(whole) * part // 8] for part in range(8)]
    generator = np.random.default_rng(1)
    for _ in range(40):
        garbled = bytearray(whole)
        start = int(generator.integers(len(whole)))
        garbled[start : start + 200] = generator.bytes(len(garbled[start : start + 200]))
        harmed.append(bytes(garbled))
    for content in harmed:
        cache.path.write_bytes(content)
        found = cache.read([key(number) for number in range(200)])
        for number in range(200):
            assert key(number) not in found or (found[key(number)] == number).all()
        cache.write(rows(*range(200)))
        if len(cache.read([key(number) for number in range(200)])) < 200:  # a page that reading met, not writing
            cache.write(rows(*range(200)))
            assert len(cache.read([key(number) for number in range(200)])) == 200


def test_a_file_that_cannot_be_used_is_said_so(cache: FeatureCache) -> None:
    cache.path.parent.mkdir()
    connection = sqlite3.connect(cache.path)
    connection.execute("CREATE TABLE feature (something_else TEXT)")
    connection.close()
    for use in (lambda: cache.read([key(1)]), lambda: cache.write(rows(1))):
        with pytest.raises(EncoderError, match="remove the file"):
            use()


def test_two_processes_write_one_cache(cache: FeatureCache) -> None:
    cache.path.parent.mkdir()
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(cache.path), str(first), "2", "10"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        for first in (0, 1)
    ]
    for writer in writers:
        _, trouble = writer.communicate(timeout=300)
        assert (writer.returncode, trouble) == (0, b"")
    found = cache.read([key(number) for number in range(400)])
    assert len(found) == 400
    assert all((found[key(number)] == number).all() for number in range(400))


def test_a_kill_keeps_what_was_written_before(cache: FeatureCache) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(cache.path), "0", "1", "1000000"], stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout is not None
        told = [int(writer.stdout.readline()) for _ in range(3)]
        writer.send_signal(signal.SIGKILL)
        told += [int(line) for line in writer.stdout.read().split() if line]
    last = max(told[:3])
    found = cache.read([key(number) for number in range(last + 1)])
    assert len(found) == last + 1
    assert all((found[key(number)] == number).all() for number in range(last + 1))
    cache.write(rows(-1))  # and it goes on
    assert cache.read([key(-1)])
