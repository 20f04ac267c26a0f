"""Many hospitals' budgets in pieces, and a long course of one in few points, in either kind of database."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import pytest
from sqlalchemy import insert

from admin_api.errors import BadCursor
from admin_api.reading import privacy
from admin_api.reading.room import ReadingRoom
from admin_api.reading.tables import PointRow, PrivacyRow, table
from admin_api.web.database import Database
from jobs.home import ConsortiumHome

WHEN = "2026-11-22T05:00:00Z"
HOSPITALS = 30
SILENT = {3, 17}  # hospitals that state no budget
LONG = 1000


@pytest.fixture
def crowded(database: Database, whole_home: ConsortiumHome) -> Iterator[ReadingRoom]:
    """The read model with further hospitals, whose budgets are known."""
    room = ReadingRoom(database.engine, whole_home)
    room.catch_up()
    rows, points = [], []
    for number in range(HOSPITALS):
        silent = number in SILENT
        rows.append(
            {"site": f"Crowd_{number:02}", "cohort": "training", "spent": 9.0 + number, "reserved": 0.0, "events": 1,
             "budget": None if silent else 8.0, "budget_delta": None if silent else 1e-5,
             "ledger_spent": None if silent else float(number % 4), "ledger_reserved": None if silent else 0.5,
             "stated_entry": None if silent else 5, "last_entry": number, "last_time": WHEN}
        )  # fmt: skip
    for entry in range(2 * LONG):
        stated = entry % 2 == 0
        points.append(
            {"site": "Crowd_00", "entry": entry, "cohort": "training", "time": WHEN, "event": "stated", "run": "r",
             "epsilon": 0.0, "delta": None, "spent": float(entry), "reserved": 0.0, "budget": 8.0 if stated else None,
             "ledger_spent": entry / 1000 if stated else None, "ledger_reserved": 0.0 if stated else None}
        )  # fmt: skip
    with database.engine.begin() as connection:
        connection.execute(insert(table(PrivacyRow)), rows)
        connection.execute(insert(table(PointRow)), points)
    yield room
    room.close()


def pieces(room: ReadingRoom, limit: int, sort: str, *, descending: bool) -> list[privacy.CohortPrivacy]:
    found: list[privacy.CohortPrivacy] = []
    after: str | None = None
    while True:
        piece = privacy.sliced(
            room, search="CROWD_", sort=sort, descending=descending, limit=limit, after=after
        )  # fmt: skip
        assert piece.total == HOSPITALS
        found += piece.items
        if (after := piece.after) is None:
            return found


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("sort", privacy.SORTS)
def test_every_budget_once_in_its_order(crowded: ReadingRoom, sort: str, descending: bool) -> None:
    found = pieces(crowded, 7, sort, descending=descending)
    assert len({each.site for each in found}) == len(found) == HOSPITALS

    def key(each: privacy.CohortPrivacy) -> float | str:
        spent = each.spent if each.ledger_spent is None else each.ledger_spent
        reserved = each.reserved if each.ledger_reserved is None else each.ledger_reserved
        if sort == "left":
            return float("-inf" if descending else "inf") if each.budget is None else each.budget - spent - reserved
        keys: dict[str, float | str] = {
            "site": each.site, "spent": spent, "reserved": reserved, "when": float(each.last_entry)
        }  # fmt: skip
        return keys[sort]

    keys = [key(each) for each in found]
    assert keys == sorted(keys, reverse=descending)
    if sort == "left":
        assert {each.site for each in found[-len(SILENT) :]} == {f"Crowd_{number:02}" for number in SILENT}


def test_a_search_takes_every_character_as_it_is(crowded: ReadingRoom) -> None:
    assert privacy.sliced(crowded, search="crowd%").total == 0
    assert privacy.sliced(crowded, search="d_07").total == 1
    assert privacy.sliced(crowded, search="d_0", only="Crowd_03").total == 1
    with pytest.raises(BadCursor):
        privacy.sliced(crowded, after="nonsense")
    cursor = privacy.sliced(crowded, sort="site", limit=1).after
    with pytest.raises(BadCursor):
        privacy.sliced(crowded, sort="spent", after=cursor)


@pytest.mark.parametrize("most", [2, 3, 80, LONG - 1, LONG, LONG + 1])
@pytest.mark.parametrize("stated", [True, False])
def test_a_course_keeps_its_ends_and_is_even_between_them(crowded: ReadingRoom, most: int, stated: bool) -> None:
    found = privacy.course(crowded, "Crowd_00", "training", stated=stated, most=most)
    assert len(found) == min(most, LONG)
    places = [each.entry // 2 for each in found]
    assert (places[0], places[-1]) == (0, LONG - 1)
    assert all((each.ledger_spent is not None) == stated for each in found)
    steps = [after - before for before, after in pairwise(places)]
    assert max(steps) - min(steps) <= 1
    assert privacy.course(crowded, "Crowd_01", "training", stated=stated, most=most) == ()
