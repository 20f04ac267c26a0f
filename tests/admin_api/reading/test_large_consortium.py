"""What benchmarks measure on is a log like any other, and the read model has all of it."""

from __future__ import annotations

from pathlib import Path

from admin_api.reading import hospitals, logbook, releases, runs, versions
from admin_api.reading.room import ReadingRoom
from admin_api.web.database import Database
from audit import lineage
from audit.evidence import Evidence
from audit.release_state import standings
from tests.admin_api.reading.conftest import empty_home, grown
from tests.admin_api.reading.large_consortium import TRAINING, Size, fill
from tests.audit.conftest import Keys, Story


def test_a_small_large_consortium(keys: Keys, whole: Story, tmp_path: Path) -> None:
    home = empty_home(tmp_path / "consortium", keys, whole.clock)
    grown(home, whole, 1)
    size = Size(entries=700, versions=11, hospitals=9)
    told: list[int] = []
    fill(home, keys.root_key, size, lambda done, _: told.append(done))
    with home.log() as log:
        assert log.check().size == log.size == told[-1]
        assert abs(log.size - size.entries) < 0.1 * size.entries
        assert log.sign_checkpoint(home.log_key(), whole.clock) == log.last_checkpoint()
        every = [lineage.run(log, each.run_id) for each in lineage.versions(log)]
        moves = standings(Evidence(log.entries(), home.root()))
    database = Database(f"sqlite:///{tmp_path / 'web.db'}")
    room = ReadingRoom(database.engine, home)
    room.catch_up()
    now = whole.clock()
    assert [each.run for each in runs.listed(room).items] == [each.run_id for each in reversed(every)]
    assert {each.release: each.state for each in releases.listed(room).items} == {
        name: standing.state for name, standing in moves.items()
    }
    assert versions.listed(room).total == size.versions
    newest_first = versions.listed(room).items
    assert versions.ancestry(room, newest_first[0].version) == newest_first
    assert versions.ancestry(room, newest_first[2].version, limit=4) == newest_first[2:6]
    found = hospitals.listed(room, now=now).items
    assert len(found) == size.hospitals
    receipts = sum(len(entry.body["receipts"]) for _, entry in room.log.entries(kind="round.completed"))
    assert sum(each.receipts for each in found) == receipts > 0
    assert sum(each.accepted for each in found) == len(list(room.log.entries(kind="site.accepted")))
    assert sum(each.spent for each in found) == TRAINING * size.versions * 2.25
    assert sum(logbook.counts(room).values()) == room.size
    room.close()
    database.close()
