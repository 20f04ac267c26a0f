"""Honest federations: exact sums, dropouts at every phase, aborts, rejoining, the steady state."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest

from privacy.secagg import keys
from privacy.secagg.errors import SecAggAbortError
from privacy.secagg.parameters import default_threshold
from privacy.secagg.simulate import Federation, seeded_randomness

DIMENSION = 33
VECTOR = "secagg-masked-vector"
SURVIVORS = "secagg-survivors-request"
SIGNATURE = "secagg-survivors-signature"
UNMASK = "secagg-unmask-request"
ANSWER = "secagg-unmask-answer"
Vectors = dict[str, np.ndarray[Any, np.dtype[np.int64]]]


def make(n: int, *, dropouts: int | None = None, seed: int = 1, ring_bits: Any = 64) -> Federation:
    allowed = n - default_threshold(n) if dropouts is None else dropouts
    return Federation.of(
        n,
        dimension=DIMENSION,
        allowed_dropouts=allowed,
        randomness=seeded_randomness(seed),
        ring_bits=ring_bits,
    )


def vectors_of(federation: Federation, seed: int = 0) -> Vectors:
    rng = np.random.default_rng(seed)
    return {site: rng.integers(-(2**58), 2**58, DIMENSION) for site in federation.clients}


def total(vectors: Vectors, sites: Iterable[str]) -> np.ndarray[Any, np.dtype[np.int64]]:
    result: np.ndarray[Any, np.dtype[np.int64]] = np.sum([vectors[site] for site in sites], axis=0)
    return result


def lose(federation: Federation, sites: Iterable[str], *kinds: str) -> None:
    """From now on these messages of these hospitals are lost."""
    lost = set(sites)
    federation.tap = lambda site, wire: None if site in lost and wire["type"] in kinds else wire


@pytest.mark.parametrize("n", range(3, 11))
def test_the_sum_is_exact_in_the_2_64_ring_and_over_rounds(n: int) -> None:
    federation = make(n)
    federation.set_up(1)
    for round_number in (1, 2):
        vectors = vectors_of(federation, round_number)
        aggregate = federation.run_round(vectors)
        assert np.array_equal(aggregate.total, total(vectors, vectors))
        assert aggregate.total.dtype == np.int64
        assert aggregate.round == round_number
        assert (aggregate.survivors, aggregate.dropped) == (federation.parameters.sites, ())
        assert (federation.refused, aggregate.suspects) == ({}, ())


@pytest.mark.parametrize("n", [3, 7])
def test_the_sum_is_exact_in_the_2_32_ring(n: int) -> None:
    federation = make(n, ring_bits=32)
    federation.set_up(1)
    rng = np.random.default_rng(n)
    vectors = {site: rng.integers(-(2**27), 2**27, DIMENSION) for site in federation.clients}
    aggregate = federation.run_round(vectors)
    assert aggregate.total.dtype == np.int32
    assert np.array_equal(aggregate.total, total(vectors, vectors))


def test_fifty_hospitals() -> None:
    federation = make(50)
    federation.set_up(1)
    lose(federation, federation.parameters.sites[10:26], VECTOR)
    vectors = vectors_of(federation)
    aggregate = federation.run_round(vectors)
    assert len(aggregate.survivors) == 34
    assert np.array_equal(aggregate.total, total(vectors, aggregate.survivors))


COUNTS = [(n, k) for n in (4, 5, 6, 7, 8, 10) for k in range(1, n - default_threshold(n) + 1)]


@pytest.mark.parametrize(
    ("n", "count", "kind"),
    [(n, k, kind) for n, k in COUNTS for kind in (VECTOR, SIGNATURE, ANSWER)]
    + [(7, k, kind) for k in (1, 2) for kind in ("secagg-round-request", SURVIVORS, UNMASK)],
)
def test_dropouts_at_every_phase_up_to_n_minus_threshold(n: int, count: int, kind: str) -> None:
    federation = make(n)
    federation.set_up(1)
    vectors = vectors_of(federation)
    rng = np.random.default_rng(n * 100 + count)
    lost = {str(site) for site in rng.choice(federation.parameters.sites, count, replace=False)}
    lose(federation, lost, kind)
    aggregate = federation.run_round(vectors)
    before_survivors = kind in ("secagg-round-request", VECTOR)
    gone = lost if before_survivors else set()
    assert set(aggregate.dropped) == gone
    assert set(aggregate.survivors) == set(federation.parameters.sites) - gone
    assert np.array_equal(aggregate.total, total(vectors, aggregate.survivors))
    # The next round starts without the missing ones and without another set-up.
    assert set(federation.server.ready) == set(federation.parameters.sites) - lost
    federation.tap = lambda _site, wire: wire
    vectors = vectors_of(federation, 1)
    following = federation.run_round(vectors)
    assert set(following.survivors) == set(federation.parameters.sites) - lost
    assert np.array_equal(following.total, total(vectors, following.survivors))


def test_dropouts_in_all_phases_of_one_round() -> None:
    federation = make(10)  # threshold 7
    federation.set_up(1)
    phases = {"site-02": VECTOR, "site-05": SIGNATURE, "site-09": ANSWER}
    federation.tap = lambda site, wire: None if phases.get(site) == wire["type"] else wire
    vectors = vectors_of(federation)
    aggregate = federation.run_round(vectors)
    assert aggregate.dropped == ("site-02",)
    assert np.array_equal(aggregate.total, total(vectors, aggregate.survivors))
    assert set(federation.server.ready) == set(federation.parameters.sites) - set(phases)


@pytest.mark.parametrize("n", [3, 4, 5, 7, 10])
@pytest.mark.parametrize(
    ("kind", "step"), [(VECTOR, "masked vectors"), (SIGNATURE, "signatures"), (ANSWER, "unmask answers")]
)
def test_below_the_threshold_the_round_aborts_before_unmasking(n: int, kind: str, step: str) -> None:
    federation = make(n)
    federation.set_up(1)
    lost = federation.parameters.sites[: n - default_threshold(n) + 1]
    kinds: list[str] = []

    def tap(site: str, wire: dict[str, Any]) -> dict[str, Any] | None:
        kinds.append(wire["type"])
        return None if site in lost and wire["type"] == kind else wire

    federation.tap = tap
    with pytest.raises(SecAggAbortError, match=step) as caught:
        federation.run_round(vectors_of(federation))
    assert caught.value.needed == default_threshold(n)
    assert len(caught.value.present) == default_threshold(n) - 1
    if kind != ANSWER:
        assert UNMASK not in kinds  # no share in the clear was asked for
    assert federation.server.ready == ()
    # The round is not repeated; after a set-up with whoever is there the next one works.
    assert federation.server.next_round == 2
    federation.tap = lambda _site, wire: wire
    federation.set_up(2)
    vectors = vectors_of(federation, 2)
    assert np.array_equal(federation.run_round(vectors).total, total(vectors, vectors))


def test_more_dropouts_than_the_noise_allows_abort_though_the_threshold_is_met() -> None:
    federation = make(10, dropouts=1)  # threshold 7, at least 9 survivors
    federation.set_up(1)
    lose(federation, ["site-01", "site-02"], VECTOR)
    with pytest.raises(SecAggAbortError, match=r"8 hospitals left .*, 9 needed"):
        federation.run_round(vectors_of(federation))


def test_a_round_or_set_up_with_too_few_does_not_start() -> None:
    federation = make(5)
    with pytest.raises(SecAggAbortError, match="set-up: 3 hospitals left"):
        federation.set_up(1, federation.parameters.sites[:3])
    lose(federation, ["site-01", "site-02"], "secagg-announcement")
    with pytest.raises(SecAggAbortError, match="announcements"):
        federation.set_up(1)
    lose(federation, ["site-01", "site-02"], "secagg-key-shares")
    federation.set_up(1)
    with pytest.raises(SecAggAbortError, match="round: 3 hospitals left"):
        federation.run_round(vectors_of(federation))


def test_a_set_up_without_some_hospitals_starts_with_the_others() -> None:
    federation = make(7)  # threshold 5
    phases = {"site-01": "secagg-announcement", "site-04": "secagg-key-shares"}
    federation.tap = lambda site, wire: None if phases.get(site) == wire["type"] else wire
    federation.set_up(1)
    assert set(federation.server.ready) == set(federation.parameters.sites) - set(phases)
    vectors = vectors_of(federation)
    aggregate = federation.run_round(vectors)
    assert np.array_equal(aggregate.total, total(vectors, aggregate.survivors))


@pytest.mark.parametrize("restarted", [False, True], ids=["same process", "restarted"])
def test_a_hospital_that_comes_back_rejoins_at_the_next_round(restarted: bool) -> None:
    federation = make(5)  # threshold 4
    federation.set_up(1)
    lose(federation, ["site-03"], "secagg-round-request")
    federation.run_round(vectors_of(federation))
    assert "site-03" not in federation.server.ready
    federation.tap = lambda _site, wire: wire
    if restarted:
        federation.clients["site-03"] = federation.make_client("site-03")
    federation.set_up(2)
    vectors = vectors_of(federation, 2)
    aggregate = federation.run_round(vectors)
    assert aggregate.survivors == federation.parameters.sites
    assert np.array_equal(aggregate.total, total(vectors, vectors))
    # And its shares count: another hospital may now drop although 4 of 5 are needed.
    lose(federation, ["site-01"], VECTOR)
    vectors = vectors_of(federation, 3)
    aggregate = federation.run_round(vectors)
    assert aggregate.dropped == ("site-01",)
    assert np.array_equal(aggregate.total, total(vectors, aggregate.survivors))


def test_a_set_up_in_the_middle_of_a_round_gives_the_round_up() -> None:
    federation = make(4)
    federation.set_up(1)
    requests = federation.server.start_round()
    federation.clients["site-01"].open_round(requests["site-01"])
    federation.clients["site-01"].mask(vectors_of(federation)["site-01"])
    federation.set_up(2)
    vectors = vectors_of(federation)
    aggregate = federation.run_round(vectors)
    assert aggregate.round == 2
    assert np.array_equal(aggregate.total, total(vectors, vectors))


def test_the_steady_state_is_three_calls() -> None:
    federation = make(4)
    federation.set_up(1)
    federation.run_round(vectors_of(federation))
    kinds: list[str] = []

    def tap(site: str, wire: dict[str, Any]) -> dict[str, Any]:
        kinds.append(wire["type"])
        return wire

    federation.tap = tap
    federation.run_round(vectors_of(federation, 1))
    requests = [kind for kind in kinds if kind.endswith("-request")]
    assert len(requests) == 3 * 4
    assert set(requests) == {"secagg-round-request", SURVIVORS, UNMASK}


def test_the_last_round_asks_for_no_key() -> None:
    federation = make(3)
    federation.set_up(1)
    federation.run_round(vectors_of(federation), next_key=False)
    assert federation.server.ready == ()
    assert federation.server.next_round == 2


def test_the_evidence_verifies() -> None:
    federation = make(5)
    federation.set_up(1)
    lose(federation, ["site-02"], VECTOR)
    aggregate = federation.run_round(vectors_of(federation))
    statement = keys.survivors_bytes(
        federation.parameters,
        round_number=1,
        directory=aggregate.directory,
        survivors=aggregate.survivors,
        dropped=aggregate.dropped,
    )
    assert aggregate.statement == statement
    assert set(aggregate.signatures) == set(aggregate.survivors)
    for site, signature in aggregate.signatures.items():
        federation.verifier(site, statement, signature)


def test_calls_out_of_order_are_runtime_errors() -> None:
    federation = make(3)
    server, client = federation.server, federation.clients["site-01"]
    for call in (server.share_requests, server.survivors_requests, server.unmask_requests, server.finish):
        with pytest.raises(RuntimeError, match="expected to wait for"):
            call()
    with pytest.raises(RuntimeError, match="open_round first"):
        client.mask(vectors_of(federation)["site-01"])
    with pytest.raises(RuntimeError, match="hospitals of the plan"):
        server.start_set_up(1, ["site-01", "site-99"])
    federation.set_up(1)
    with pytest.raises(RuntimeError, match="sites"):
        server.start_round(["site-01", "site-99"])
    server.start_round()
    with pytest.raises(RuntimeError, match="masked vectors"):
        server.start_round()
    with pytest.raises(RuntimeError, match="round after 1"):
        server.start_set_up(1, federation.parameters.sites)


def test_nothing_depends_on_which_randomness_bytes_come() -> None:
    sums = []
    for seed in (1, 2):
        federation = make(4, seed=seed)
        federation.set_up(1)
        sums.append(federation.run_round(vectors_of(federation)).total)
    assert np.array_equal(sums[0], sums[1])
