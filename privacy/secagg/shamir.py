"""Shamir's secret sharing of 32-byte secrets over the prime field of p = 2^256 + 297.

Invariants:
  - a secret is any 32 bytes; a share is 33 bytes, big-endian, below p;
  - fewer than `threshold` shares are independent of the secret: the other coefficients are uniform in the
    field up to a bias of 2^-255 (64 random bytes reduced modulo p);
  - `recover` returns a secret only if the caller's check accepts it, so a wrong share can stop a recovery but
    never give a wrong result.

    >>> import os
    >>> secret = os.urandom(32)
    >>> shares = deal(secret, threshold=3, holders=[1, 2, 3, 4], randomness=os.urandom)
    >>> recover({x: shares[x] for x in (1, 2, 4)}, threshold=3, accept=lambda s: s == secret).secret == secret
    True

Source: Shamir, How to share a secret (1979). A Shamir sharing is a Reed-Solomon codeword, so more than
`threshold` shares allow wrong ones to be found.
"""

import functools
import itertools
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from privacy.secagg.errors import SecAggShareError

PRIME = 2**256 + 297  # the smallest prime above 2^256
SECRET_BYTES = 32
SHARE_BYTES = 33
MAX_WRONG = 2  # wrong shares searched for in a recovery: at most C(50, 2) = 1225 combinations


@dataclass(frozen=True)
class Recovery:
    """A recovered secret and who gave a share that does not lie on its polynomial.

    Attributes:
      secret: 32 bytes, secret.
      wrong: x coordinates of the wrong shares, sorted. Each came from a holder that altered it or a dealer
        that dealt it so; the shares alone cannot tell which.
    """

    secret: bytes
    wrong: tuple[int, ...]


def deal(
    secret: bytes, *, threshold: int, holders: Sequence[int], randomness: Callable[[int], bytes]
) -> dict[int, bytes]:
    """Splits a secret so that any `threshold` holders can recover it and fewer learn nothing.

    Args:
      secret: 32 bytes.
      threshold: 1 or more.
      holders: distinct x coordinates, each 1 or more.
      randomness: cryptographically secure bytes.

    Returns:
      The 33-byte share of each holder.
    """
    if len(secret) != SECRET_BYTES:
        raise ValueError(f"secret: expected {SECRET_BYTES} bytes, got {len(secret)}")
    if threshold < 1 or len(set(holders)) != len(holders) or any(x < 1 for x in holders):
        raise ValueError("expected a threshold of 1 or more and distinct holders of 1 or more")
    coefficients = [int.from_bytes(randomness(64), "big") % PRIME for _ in range(threshold - 1)]
    coefficients.append(int.from_bytes(secret, "big"))
    shares = {}
    for x in holders:
        value = 0
        for coefficient in coefficients:
            value = (value * x + coefficient) % PRIME
        shares[x] = value.to_bytes(SHARE_BYTES, "big")
    return shares


def recover(
    shares: Mapping[int, bytes], *, threshold: int, accept: Callable[[bytes], bool], doubted: Collection[int] = ()
) -> Recovery:
    """Recovers a secret and names wrong shares.

    With `threshold + k` shares, any min(k, 2) wrong ones are found and left out, more if they do not sit
    among the first. The secret is right in any case; who is named wrong is certain up to k // 2 wrong shares.

    Args:
      shares: share by x coordinate.
      threshold: the threshold it was dealt with.
      accept: whether a candidate is the secret (compare with its commitment or public key).
      doubted: holders whose shares of other secrets were wrong; used last, and not searched for again.

    Raises:
      SecAggShareError: too few shares, or no candidate was accepted.
    """
    points = {}
    malformed = []
    for x, share in sorted(shares.items(), key=lambda item: (item[0] in doubted, item[0])):
        value = int.from_bytes(share, "big")
        if len(share) == SHARE_BYTES and value < PRIME:
            points[x] = value
        else:
            malformed.append(x)
    if len(points) < threshold:
        raise SecAggShareError(
            f"expected at least {threshold} well-formed shares, got {len(points)}; the secret cannot be recovered"
        )
    best: Recovery | None = None
    for left_out in range(min(len(points) - threshold, MAX_WRONG) + 1):
        for suspects in itertools.combinations(points, left_out):
            chosen = dict(itertools.islice(((x, y) for x, y in points.items() if x not in suspects), threshold))
            value = interpolate(chosen, 0)
            if value >= 1 << (8 * SECRET_BYTES) or not accept(value.to_bytes(SECRET_BYTES, "big")):
                continue
            wrong = [x for x, y in points.items() if x not in chosen and interpolate(chosen, x) != y]
            recovery = Recovery(value.to_bytes(SECRET_BYTES, "big"), tuple(sorted(wrong + malformed)))
            # Colluding holders can bend the polynomial and still hit the secret, so that honest shares
            # seem wrong. The polynomial with the fewest wrong shares is the dealer's; within half the
            # surplus it is the only one.
            if len(set(wrong) - set(doubted)) <= max(left_out, (len(points) - threshold) // 2):
                return recovery
            if best is None or len(recovery.wrong) < len(best.wrong):
                best = recovery
    if best is not None:
        return best
    raise SecAggShareError(
        f"{len(points)} shares at threshold {threshold} give back no accepted secret; "
        f"a dealer or more than {min(len(points) - threshold, MAX_WRONG)} holders gave wrong shares"
    )


def interpolate(points: Mapping[int, int], x: int) -> int:
    """The value at `x` of the polynomial of lowest degree through the points, in the field."""
    weights = _lagrange_weights(tuple(points), x)
    return sum(weight * y for weight, y in zip(weights, points.values(), strict=True)) % PRIME


@functools.lru_cache(maxsize=256)  # every secret of a round is recovered from the same holders
def _lagrange_weights(holders: tuple[int, ...], x: int) -> tuple[int, ...]:
    weights = []
    for xi in holders:
        numerator, denominator = 1, 1
        for xj in holders:
            if xj != xi:
                numerator = numerator * (x - xj) % PRIME
                denominator = denominator * (xi - xj) % PRIME
        weights.append(numerator * pow(denominator, -1, PRIME) % PRIME)
    return tuple(weights)
