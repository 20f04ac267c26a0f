"""Secret sharing: any threshold shares open it, wrong ones are found, fewer tell nothing."""

import itertools

import pytest

from privacy.secagg.errors import SecAggShareError
from privacy.secagg.shamir import PRIME, SHARE_BYTES, deal, interpolate, recover
from privacy.secagg.simulate import seeded_randomness

SECRET = bytes(range(32))


def is_secret(candidate: bytes) -> bool:
    return candidate == SECRET


def test_the_modulus_is_the_first_prime_above_2_to_256() -> None:
    def probably_prime(n: int) -> bool:  # Miller-Rabin with the first primes as bases
        odd, twos = n - 1, 0
        while odd % 2 == 0:
            odd, twos = odd // 2, twos + 1
        for base in (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41):
            x = pow(base, odd, n)
            if x in (1, n - 1):
                continue
            if not any((x := x * x % n) == n - 1 for _ in range(twos - 1)):
                return False
        return True

    assert [k for k in range(1, 298) if probably_prime(2**256 + k)] == [297]
    assert PRIME == 2**256 + 297


@pytest.mark.parametrize("secret", [bytes(32), b"\xff" * 32, SECRET], ids=["zeros", "ones", "mixed"])
def test_every_small_case(secret: bytes) -> None:
    for holders in range(1, 7):
        for threshold in range(1, holders + 1):
            shares = deal(
                secret,
                threshold=threshold,
                holders=range(1, holders + 1),
                randomness=seeded_randomness(holders),
            )
            for chosen in itertools.combinations(shares, threshold):
                subset = {x: shares[x] for x in chosen}
                assert recover(subset, threshold=threshold, accept=lambda s: s == secret).secret == secret


def test_fewer_shares_than_the_threshold_fit_every_secret() -> None:
    shares = deal(SECRET, threshold=3, holders=[1, 2, 3], randomness=seeded_randomness(1))
    known = {x: int.from_bytes(shares[x], "big") for x in (1, 2)}
    for other in (0, 1, 2**255):
        third = interpolate(known | {0: other}, 3)  # a third share that makes the secret `other`
        assert interpolate(known | {3: third}, 0) == other


@pytest.mark.parametrize(
    ("holders", "wrong"), [(8, ()), (8, (3,)), (9, (1, 9)), (9, (1, 2)), (10, (8, 9, 10)), (10, (2, 7))]
)
def test_wrong_shares_are_left_out_and_named(holders: int, wrong: tuple[int, ...]) -> None:
    shares = deal(SECRET, threshold=7, holders=range(1, holders + 1), randomness=seeded_randomness(2))
    for x in wrong:
        shares[x] = (int.from_bytes(shares[x], "big") ^ 1).to_bytes(SHARE_BYTES, "big")
    recovery = recover(shares, threshold=7, accept=is_secret)
    assert recovery.secret == SECRET
    assert recovery.wrong == wrong


@pytest.mark.parametrize("share", [b"", bytes(32), bytes(34), PRIME.to_bytes(33, "big"), b"\xff" * 33], ids=range(5))
def test_malformed_shares_are_left_out_and_named(share: bytes) -> None:
    shares = deal(SECRET, threshold=3, holders=[1, 2, 3, 4], randomness=seeded_randomness(3)) | {2: share}
    assert recover(shares, threshold=3, accept=is_secret).wrong == (2,)


def test_doubted_holders_are_used_last_and_wrong_ones_among_them_cost_no_search() -> None:
    shares = deal(SECRET, threshold=7, holders=range(1, 11), randomness=seeded_randomness(2))
    for x in (1, 2, 3):
        shares[x] = (int.from_bytes(shares[x], "big") ^ 1).to_bytes(SHARE_BYTES, "big")
    tried = []

    def accept(secret: bytes) -> bool:
        tried.append(secret)
        return secret == SECRET

    assert recover(shares, threshold=7, accept=accept, doubted=(1, 2, 3)).wrong == (1, 2, 3)
    assert tried == [SECRET]
    # Doubting an honest holder does no harm: it is still needed, and not named.
    del shares[2], shares[3]
    assert recover(shares, threshold=7, accept=is_secret, doubted=(1, 10)).wrong == (1,)


def test_too_few_or_too_many_wrong_shares_never_give_a_secret() -> None:
    shares = deal(SECRET, threshold=3, holders=[1, 2, 3, 4], randomness=seeded_randomness(4))
    with pytest.raises(SecAggShareError, match="at least 3 well-formed shares, got 2"):
        recover({x: shares[x] for x in (1, 2)}, threshold=3, accept=is_secret)
    swapped = shares | {1: shares[2], 2: shares[1]}
    with pytest.raises(SecAggShareError, match="no accepted secret"):
        recover(swapped, threshold=3, accept=is_secret)
    with pytest.raises(SecAggShareError):
        recover(shares, threshold=2, accept=is_secret)  # lower degree than it was dealt with


@pytest.mark.parametrize(
    ("secret", "threshold", "holders"),
    [(b"short", 1, [1]), (SECRET, 0, [1]), (SECRET, 1, [1, 1]), (SECRET, 1, [0])],
)
def test_dealing_refuses_wrong_arguments(secret: bytes, threshold: int, holders: list[int]) -> None:
    with pytest.raises(ValueError, match="expected"):
        deal(secret, threshold=threshold, holders=holders, randomness=seeded_randomness(5))
