"""The terms: limits, threshold, digest."""

import dataclasses
import itertools
from typing import Any

import pytest

from privacy.secagg.errors import SecAggParameterError
from privacy.secagg.parameters import SecAggParameters, default_threshold, threshold_against

GOOD = SecAggParameters(consortium="demo", run_id="run-1", sites=("a", "b", "c", "d"), dimension=10, allowed_dropouts=1)


@pytest.mark.parametrize("n", range(3, 51))
def test_the_default_threshold_is_just_above_two_thirds(n: int) -> None:
    t = default_threshold(n)
    assert 3 * t > 2 * n >= 3 * (t - 1)
    assert 2 * t > n + n // 3  # so n // 3 colluding hospitals do not help a lying server


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"consortium": ""}, "consortium"),
        ({"run_id": "a\nb"}, "run_id"),
        ({"run_id": "x" * 101}, "run_id"),
        ({"sites": ("a", "b")}, "3-50"),
        ({"sites": tuple(f"{i:02}" for i in range(51))}, "3-50"),
        ({"sites": ("b", "a", "c")}, "sorted"),
        ({"sites": ("a", "a", "b")}, "sorted"),
        ({"sites": ("a", "b", "\ud800")}, "printable"),
        ({"dimension": 0}, "dimension"),
        ({"dimension": 2**28 + 1}, "dimension"),
        ({"ring_bits": 16}, "ring_bits"),
        ({"shamir_threshold": 2}, "3-4"),
        ({"shamir_threshold": 5}, "3-4"),
        ({"allowed_dropouts": 2}, "allowed_dropouts"),
        ({"allowed_dropouts": -1}, "allowed_dropouts"),
        ({"shamir_threshold": 4}, "allowed_dropouts"),
    ],
)
def test_impossible_terms_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(SecAggParameterError, match=message):
        dataclasses.replace(GOOD, **change)


def test_limits() -> None:
    assert (GOOD.threshold, GOOD.minimum_survivors) == (3, 3)
    strict = dataclasses.replace(GOOD, allowed_dropouts=0, shamir_threshold=4)
    assert (strict.threshold, strict.minimum_survivors) == (4, 4)
    assert [GOOD.index(site) for site in GOOD.sites] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    "change",
    [
        {"consortium": "other"},
        {"run_id": "run-2"},
        {"sites": ("a", "b", "c", "e")},
        {"dimension": 11},
        {"ring_bits": 32},
        {"allowed_dropouts": 0},
        {"shamir_threshold": 4, "allowed_dropouts": 0},
    ],
)
def test_every_term_is_in_the_digest(change: dict[str, Any]) -> None:
    other = dataclasses.replace(GOOD, **change)
    assert other.digest != GOOD.digest
    assert other.context("use") != GOOD.context("use")


def test_the_default_threshold_and_its_number_are_the_same_terms() -> None:
    assert dataclasses.replace(GOOD, shamir_threshold=3).digest == GOOD.digest
    assert GOOD.digest.startswith("sha256:")
    assert len(GOOD.digest) == 71


@pytest.mark.parametrize("n", range(3, 51))
def test_the_threshold_against_colluders_is_the_smallest_that_withstands_them(n: int) -> None:
    for colluders in range(n):
        threshold = threshold_against(colluders, sites=n)
        assert default_threshold(n) <= threshold <= n
        assert 2 * threshold > n + colluders
        assert threshold == default_threshold(n) or 2 * (threshold - 1) <= n + colluders
    assert threshold_against(n // 3, sites=n) == default_threshold(n)


def of(n: int, dropouts: int, threshold: int | None = None) -> SecAggParameters:
    return SecAggParameters(
        consortium="demo",
        run_id="run-1",
        sites=tuple(f"{i:02}" for i in range(n)),
        dimension=1,
        allowed_dropouts=dropouts,
        shamir_threshold=threshold,
    )


ALL_TERMS = [(n, d) for n in range(3, 51) for d in range(n - default_threshold(n) + 1)]


def peers_of(terms: SecAggParameters) -> dict[str, set[str]]:
    return {site: {peer for peer in terms.sites if terms.share_a_mask(site, peer)} for site in terms.sites}


@pytest.mark.parametrize("n", range(3, 51))
def test_everybody_shares_as_many_masks_and_both_ends_know(n: int) -> None:
    for dropouts in range(n - default_threshold(n) + 1):
        terms = of(n, dropouts)
        peers = peers_of(terms)
        assert {len(found) for found in peers.values()} == {terms.mask_degree}
        assert all(site in peers[peer] for site, found in peers.items() for peer in found)
        assert all(site not in found for site, found in peers.items())
        assert terms.mask_degree >= min(n - 1, terms.colluders + dropouts + 1)
        assert terms.mask_degree <= min(n - 1, terms.colluders + dropouts + 2)


def reached(peers: dict[str, set[str]], left: set[str]) -> set[str]:
    """The hospitals among `left` that hang together with the first of them."""
    found, new = set(), {min(left)}
    while new:
        found |= new
        new = {peer for site in new for peer in peers[site] & left} - found
    return found


@pytest.mark.parametrize(("n", "dropouts"), [terms for terms in ALL_TERMS if terms[0] <= 10])
def test_whoever_colludes_or_drops_the_others_masks_hang_together(n: int, dropouts: int) -> None:
    """Every way to take colluders and dropouts out of every small federation; and one more may cut it."""
    terms = of(n, dropouts)
    peers, sites = peers_of(terms), set(terms.sites)
    for gone in itertools.combinations(terms.sites, min(terms.colluders + dropouts, n - 1)):
        left = sites - set(gone)
        assert reached(peers, left) == left
    if terms.mask_degree < n - 1:
        left = sites - peers[terms.sites[0]]
        assert reached(peers, left) == {terms.sites[0]}


@pytest.mark.parametrize(("n", "dropouts"), [(15, 0), (15, 2), (20, 1), (33, 2), (40, 4), (50, 0), (50, 9)])
def test_larger_federations_hang_together_along_enough_ways(n: int, dropouts: int) -> None:
    """Menger: two hospitals stay connected without any k - 1 others if k ways join them that share no hospital.

    On a circle every hospital sees the same graph, so the ways from the first are enough.
    """
    terms = of(n, dropouts)
    needed = terms.colluders + dropouts + 1
    peers = peers_of(terms)
    first = terms.sites[0]
    for last in set(terms.sites) - peers[first] - {first}:
        assert disjoint_ways(peers, first, last) >= needed


def disjoint_ways(peers: dict[str, set[str]], source: str, target: str) -> int:
    """The most ways between two hospitals that share no third one: a maximum flow through vertices of capacity one."""
    room = {((site, "in"), (site, "out")): 1 for site in peers}
    room |= {((site, "out"), (peer, "in")): 1 for site, found in peers.items() for peer in found}
    edges: dict[tuple[str, str], set[tuple[str, str]]] = {}
    for start, end in list(room):
        edges.setdefault(start, set()).add(end)
        edges.setdefault(end, set()).add(start)
        room.setdefault((end, start), 0)
    ways = 0
    while True:
        came: dict[tuple[str, str], tuple[str, str]] = {}
        new = [(source, "out")]
        while new and (target, "in") not in came:
            here = new.pop()
            for there in edges[here]:
                if room[here, there] and there not in came and there != (source, "out"):
                    came[there] = here
                    new.append(there)
        if (target, "in") not in came:
            return ways
        ways, there = ways + 1, (target, "in")
        while there != (source, "out"):
            room[came[there], there] -= 1
            room[there, came[there]] += 1
            there = came[there]
