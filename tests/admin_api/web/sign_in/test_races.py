"""Many at once, on SQLite and on PostgreSQL: what may happen once happens once, and nothing is counted twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Barrier
from typing import TypeVar

import pytest

from admin_api.web.app import make_workplace
from admin_api.web.context import Workplace
from admin_api.web.settings import Settings
from admin_api.web.sign_in.accounts import end_account, lock
from admin_api.web.sign_in.ceremonies import SIGN_IN, begin_ceremony, take_ceremony
from admin_api.web.sign_in.errors import AccessRefused, SignInError, TooMany
from admin_api.web.sign_in.rates import Rate, spend
from admin_api.web.sign_in.recording import note_refusal, waiting, write_due
from admin_api.web.sign_in.sessions import begin_session, end_every_session, find_session
from admin_api.web.sign_in.tokens import find_token, make_token
from audit.entry import ACCESS_REFUSED
from jobs.home import ConsortiumHome
from tests.admin_api.consortium_folder import copied
from tests.admin_api.web.sign_in.conftest import URL, Clock, Door, emptied
from tests.admin_api.web.sign_in.signed_in import account_for_tests
from tests.audit.postgresql import OWNER, memory_folder, running_server

T = TypeVar("T")
AT_ONCE = 6


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def opened(
    request: pytest.FixtureRequest, founded: ConsortiumHome, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Door]:
    clock = Clock()
    home = copied(founded.path, tmp_path_factory.mktemp("races") / "consortium", clock)
    if request.param == "sqlite":
        yield from _door(home, clock, None)
    else:
        with running_server(memory_folder()) as server:
            yield from _door(home, clock, server.url(OWNER, server.new_database()))


def _door(home: ConsortiumHome, clock: Clock, url: str | None) -> Iterator[Door]:
    here = replace(make_workplace(Settings(home=home.path, public_url=URL, database_url=url)), home=home)
    yield Door(None, here, clock)  # type: ignore[arg-type]  # nobody comes in by HTTP here
    here.database.close()


@pytest.fixture
def here(opened: Door) -> Workplace:
    return emptied(opened).here


def at_once(work: Callable[[], T], refused: type[Exception], times: int = AT_ONCE) -> list[T]:
    """What the threads got that were not refused."""
    barrier = Barrier(times)

    def one() -> list[T]:
        barrier.wait()
        try:
            return [work()]
        except refused:
            return []

    with ThreadPoolExecutor(times) as pool:
        return [result for each in [pool.submit(one) for _ in range(times)] for result in each.result()]


def test_a_challenge_is_taken_once(here: Workplace) -> None:
    with here.database.begin() as session:
        ceremony = begin_ceremony(session, here, SIGN_IN)
    taken = at_once(lambda: take_ceremony(here, ceremony.secret, SIGN_IN, method="passkey"), AccessRefused)
    assert len(taken) == 1


def test_a_bucket_gives_what_it_holds(here: Workplace) -> None:
    rate = Rate("race", 4, 1000.0)
    assert len(at_once(lambda: spend(here, rate, "192.0.2.1", method="passkey"), TooMany, 8)) == 4


def test_refusals_are_all_counted(here: Workplace) -> None:
    def refuse() -> None:
        for _ in range(5):
            note_refusal(here, None, "passkey", "unknown")

    at_once(refuse, ZeroDivisionError)
    at_once(lambda: write_due(here, everything=True), ZeroDivisionError)
    write_due(here, everything=True)
    assert waiting(here) == 0
    since = here.now().replace(second=0)
    with here.home.log() as log:
        counts = [e.body["count"] for _, e in log.entries(kind=ACCESS_REFUSED) if e.time >= since]
    assert sum(counts) == 5 * AT_ONCE


def test_one_admin_stays_whoever_locks_whom(here: Workplace) -> None:
    pair = [account_for_tests(here, "consortium_admin", organisation=each).id for each in ("one", "two")]
    ways = iter([(lock, pair[0]), (end_account, pair[1])])
    barrier = Barrier(2)

    def change() -> bool:
        way, account = next(ways)
        barrier.wait()
        try:
            way(here, account, by=None)
        except SignInError:
            return False
        return True

    with ThreadPoolExecutor(2) as pool:
        done = [pool.submit(change) for _ in range(2)]
    assert sorted(each.result() for each in done) == [False, True]


def test_sessions_and_tokens_come_and_go(here: Workplace) -> None:
    account = account_for_tests(here, "authority")
    secrets = at_once(lambda: begin_session(here, account.id, via="passkey", device="x", earlier=None), AccessRefused)
    found = [find_session(here, each) for each in secrets]
    assert len({each.viewer.session for each in found if each is not None}) == AT_ONCE
    assert found[0] is not None
    ends = here.now().replace(year=here.now().year + 1)
    _token, secret = make_token(here, found[0].viewer, name="x", scope=["today:read"], ends=ends)
    assert find_token(here, secret)[0].account == account.id
    assert end_every_session(here, account.id) == AT_ONCE
    assert [find_session(here, each) for each in secrets] == [None] * AT_ONCE
