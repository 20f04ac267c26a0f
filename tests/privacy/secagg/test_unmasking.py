"""Who is named for wrong shares: every explanation with as few liars as the terms assume, and no other."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privacy.secagg.unmasking import Dispute, blame

CASES: dict[str, tuple[set[Dispute], int, set[str]]] = {
    "nobody": (set(), 2, set()),
    "a dealer or its holder": ({("a", "x")}, 2, {"a", "x"}),
    "a holder who is wrong about everybody": ({("a", "x"), ("b", "x"), ("c", "x"), ("d", "x")}, 3, {"x"}),
    "a dealer whom many cannot read": ({("a", "w"), ("a", "x"), ("a", "y"), ("a", "z")}, 3, {"a"}),
    "a dealer, or two holders": ({("a", "x"), ("a", "y")}, 2, {"a", "x", "y"}),
    "a dealer, for two holders would be too many": ({("a", "x"), ("a", "y")}, 1, {"a"}),
    "one who is wrong about itself": ({("a", "a"), ("a", "b")}, 2, {"a"}),
    "two holders about everybody": ({(d, h) for d in "abcd" for h in "xy"}, 3, {"x", "y"}),
    "more than may lie": ({("a", "w"), ("b", "x"), ("c", "y")}, 2, {"a", "b", "c", "w", "x", "y"}),
}


@pytest.mark.parametrize("case", CASES)
def test_who_is_named(case: str) -> None:
    disputes, most, named = CASES[case]
    assert blame(disputes, most_liars=most) == named


SITES = "abcdef"


@settings(derandomize=True, max_examples=200, deadline=None)
@given(st.sets(st.tuples(st.sampled_from(SITES), st.sampled_from(SITES)), max_size=9), st.integers(1, 4))
def test_it_is_every_least_explanation(disputes: set[Dispute], most: int) -> None:
    """Against all sets of hospitals, tried one by one."""
    explain = [
        set(liars)
        for size in range(most + 1)
        for liars in itertools.combinations(SITES, size)
        if all(set(liars) & set(dispute) for dispute in disputes)
    ]
    least = [liars for liars in explain if not any(other < liars for other in explain)]
    everybody = {site for dispute in disputes for site in dispute}
    assert blame(disputes, most_liars=most) == (set().union(*least) if explain else everybody)


def test_a_large_federation_with_many_liars_is_judged_at_once() -> None:
    """50 hospitals, 17 of whom garble every share they reveal."""
    sites = [f"{number:02}" for number in range(50)]
    disputes = {(dealer, holder) for dealer in sites for holder in sites[:17]}
    assert blame(disputes, most_liars=17) == set(sites[:17])
