"""A hospital that died and came back: its memory refuses what its lost state cannot."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from privacy.secagg.client import SecAggClient
from privacy.secagg.errors import SecAggError, SecAggMemoryError, SecAggProtocolError, SecAggReplayError
from privacy.secagg.memory import Act, InMemoryRoundMemory, SqliteRoundMemory
from privacy.secagg.messages import (
    AnnounceRequest,
    RoundRequest,
    SurvivorsRequest,
    UnmaskRequest,
)
from privacy.secagg.simulate import Federation, seeded_randomness

DIMENSION = 8
SITE = "site-02"


def make(path: Path | None = None) -> Federation:
    federation = Federation.of(4, dimension=DIMENSION, allowed_dropouts=1, randomness=seeded_randomness(1))
    if path is not None:
        federation.memories[SITE] = SqliteRoundMemory(path)
        federation.clients[SITE] = federation.make_client(SITE)
    return federation


def vectors(federation: Federation) -> dict[str, np.ndarray[Any, np.dtype[np.int64]]]:
    return {site: np.full(DIMENSION, i) for i, site in enumerate(federation.clients)}


def steal_state(source: SecAggClient, target: SecAggClient) -> None:
    """A restart that kept the secrets, as an attacker with a snapshot of the process would."""
    for name, value in vars(source).items():
        if name != "_memory":
            setattr(target, name, value)


def test_a_restarted_hospital_does_not_mask_the_same_round_again(tmp_path: Path) -> None:
    federation = make(tmp_path / "memory.db")
    federation.set_up(1)
    federation.clients[SITE].open_round(federation.server.start_round()[SITE])
    federation.clients[SITE].mask(np.ones(DIMENSION, np.int64))
    restarted = make(tmp_path / "memory.db")  # everyone else starts anew as well: the server wants a replay
    restarted.set_up(1)
    assert isinstance(restarted.refused[SITE], SecAggReplayError)
    assert SITE not in restarted.server.ready
    restarted.set_up(2)
    assert restarted.run_round(vectors(restarted)).survivors == restarted.parameters.sites


def test_a_snapshot_of_the_process_does_not_mask_twice(tmp_path: Path) -> None:
    federation = make(tmp_path / "memory.db")
    federation.set_up(1)
    client = federation.clients[SITE]
    client.open_round(federation.server.start_round()[SITE])
    snapshot = federation.make_client(SITE)
    steal_state(client, snapshot)
    client.mask(np.ones(DIMENSION, np.int64))
    with pytest.raises(SecAggReplayError, match="round 1 of simulation/run-1 be masked again"):
        snapshot.mask(np.zeros(DIMENSION, np.int64))


def masked(federation: Federation) -> SecAggClient:
    federation.set_up(1)
    client = federation.clients[SITE]
    client.open_round(federation.server.start_round()[SITE])
    client.mask(np.ones(DIMENSION, np.int64))
    return client


SITES = tuple(f"site-{i:02}" for i in range(1, 5))
ALL = SurvivorsRequest(round=1, survivors=SITES, dropped=())
WITHOUT_FIRST = SurvivorsRequest(round=1, survivors=SITES[1:], dropped=SITES[:1])


def test_a_restarted_hospital_does_not_sign_a_second_set(tmp_path: Path) -> None:
    federation = make(tmp_path / "memory.db")
    client = masked(federation)
    client.sign_survivors(ALL)
    restarted = federation.make_client(SITE)
    for request in (ALL, WITHOUT_FIRST):
        with pytest.raises(SecAggProtocolError, match="no masked vector"):
            restarted.sign_survivors(request)


def test_a_snapshot_of_the_process_does_not_sign_a_second_set(tmp_path: Path) -> None:
    federation = make(tmp_path / "memory.db")
    client = masked(federation)
    fresh = federation.make_client(SITE)
    steal_state(client, fresh)
    fresh._round = None
    assert client._round is not None
    snapshot = federation.make_client(SITE)
    steal_state(client, snapshot)
    snapshot._round = type(client._round)(**vars(client._round))  # a copy from before the signature
    client.sign_survivors(ALL)
    for request in (ALL, WITHOUT_FIRST):
        with pytest.raises(SecAggReplayError, match="be signed again"):
            snapshot.sign_survivors(request)


def test_a_snapshot_of_the_process_does_not_reveal_twice(tmp_path: Path) -> None:
    federation = make(tmp_path / "memory.db")
    federation.set_up(1)
    client = federation.clients[SITE]
    kept: list[UnmaskRequest] = []
    snapshot = federation.make_client(SITE)

    def tap(site: str, wire: dict[str, Any]) -> dict[str, Any]:
        if site == SITE and wire["type"] == UnmaskRequest.KIND:
            kept.append(UnmaskRequest.from_message(wire))
            assert client._round is not None
            steal_state(client, snapshot)
            snapshot._round = type(client._round)(**vars(client._round))
        return wire

    federation.tap = tap
    federation.run_round(vectors(federation))
    with pytest.raises(SecAggReplayError, match="be revealed again"):
        snapshot.unmask(kept[0])
    with pytest.raises(SecAggProtocolError, match="no masked vector"):
        client.unmask(kept[0])


class FailingMemory(InMemoryRoundMemory):
    """Fails one act, before or after it became durable."""

    def __init__(self, act: Act, *, after: bool) -> None:
        super().__init__()
        self.failing: Act | None = act
        self.after = after

    def record(self, run: str, round_number: int, act: Act, digest: bytes) -> None:
        if act is self.failing and not self.after:
            raise SecAggMemoryError("disk full")
        super().record(run, round_number, act, digest)
        if act is self.failing:
            raise SecAggMemoryError("power cut")


@pytest.mark.parametrize("after", [False, True], ids=["before persisting", "after persisting"])
@pytest.mark.parametrize("act", list(Act))
def test_every_failed_write_costs_the_round_and_nothing_else(act: Act, after: bool) -> None:
    federation = make()
    memory = FailingMemory(act, after=after)
    federation.memories[SITE] = memory
    federation.clients[SITE] = federation.make_client(SITE)
    federation.set_up(1)
    answers: list[str] = []

    def tap(site: str, wire: dict[str, Any]) -> dict[str, Any]:
        if site == SITE and "site" in wire:
            answers.append(wire["type"])
        return wire

    federation.tap = tap
    values = vectors(federation)
    aggregate = federation.run_round(values)
    assert isinstance(federation.refused[SITE], SecAggMemoryError)
    done = {Act.MASKED: 0, Act.SIGNED: 1, Act.REVEALED: 2}[act]
    assert len(answers) == done  # the act that could not be recorded was not done
    expected = np.sum([values[site] for site in aggregate.survivors], axis=0)
    assert np.array_equal(aggregate.total, expected)
    assert (SITE in aggregate.survivors) == (act is not Act.MASKED)
    # Asked again in the same round it still refuses, however its disk is by now.
    memory.failing = None
    client = federation.clients[SITE]
    calls: dict[Act, Callable[[], object]] = {
        Act.MASKED: lambda: client.mask(values[SITE]),
        Act.SIGNED: lambda: client.unmask(UnmaskRequest(**EMPTY)),
        Act.REVEALED: lambda: client.mask(values[SITE]),
    }
    with pytest.raises((RuntimeError, SecAggError)):
        calls[act]()
    federation.set_up(2)
    assert federation.run_round(values).survivors == federation.parameters.sites


EMPTY: dict[str, Any] = {
    "round": 1,
    "signatures": {},
    "self_mask_shares": {},
    "mask_key_shares": {},
    "next_round": None,
}


def test_a_vector_that_does_not_fit_costs_nothing() -> None:
    federation = make()
    federation.set_up(1)
    client = federation.clients[SITE]
    client.open_round(federation.server.start_round()[SITE])
    for bad in (np.zeros(DIMENSION + 1, np.int64), np.zeros(DIMENSION, np.float64)):
        with pytest.raises(SecAggError, match="vector: expected"):
            client.mask(bad)  # type: ignore[arg-type]
    client.mask(np.zeros(DIMENSION, np.int64))


def test_a_round_leaves_its_three_acts_in_the_memory() -> None:
    federation = make()
    federation.set_up(1)
    aggregate = federation.run_round(vectors(federation))
    statement = hashlib.sha256(aggregate.statement).digest()
    memory = federation.memories[SITE]
    assert isinstance(memory, InMemoryRoundMemory)
    assert memory.acts == {
        ("simulation/run-1", 1, Act.MASKED): aggregate.directory,
        ("simulation/run-1", 1, Act.SIGNED): statement,
        ("simulation/run-1", 1, Act.REVEALED): statement,
    }


def test_rounds_only_go_forward() -> None:
    federation = make()
    federation.set_up(5)
    federation.run_round(vectors(federation))
    client = federation.clients[SITE]
    for past in (1, 4, 5):
        with pytest.raises(SecAggReplayError, match="masked round 5 before"):
            client.announce(AnnounceRequest(round=past))
        with pytest.raises(SecAggReplayError):
            client.open_round(RoundRequest(round=past, mask_keys={}))
