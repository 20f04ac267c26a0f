"""Recovering the masks of a round from the shares its survivors revealed.

Invariants:
  - a secret is used only if it matches what its owner published before the shares were revealed - the seed's
    commitment, the mask key's public key. A wrong share is left out, or recovery fails; it never gives a wrong
    mask;
  - a wrong share is a dispute between its dealer and its holder, which nobody else can settle. Named are all
    hospitals that lie if as few lie as the terms assume (`blame`): whoever has more disputes than that alone.
"""

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from privacy.secagg import keys
from privacy.secagg.errors import SecAggShareError
from privacy.secagg.parameters import SecAggParameters
from privacy.secagg.shamir import recover

SharesByHolder = Mapping[str, Mapping[str, bytes]]
"""Holder -> owner of the secret -> share; an owner is missing where its share did not decrypt."""

Dispute = tuple[str, str]
"""The dealer and the holder of a wrong or unreadable share."""


@dataclass
class Masks:
    """The mask keys that turn the sum of masked vectors into the sum.

    Attributes:
      add: 32-byte keys whose masks are to be added.
      subtract: 32-byte keys whose masks are to be subtracted.
      suspects: hospitals that dealt, revealed or refused a wrong share, as far as the shares tell; see `blame`.
    """

    add: list[bytes] = field(default_factory=list)
    subtract: list[bytes] = field(default_factory=list)
    suspects: frozenset[str] = frozenset()


def blame(disputes: Collection[Dispute], *, most_liars: int) -> frozenset[str]:
    """Who may have lied, given pairs of which at least one did.

    Returns: the hospitals of every set of at most `most_liars` that explains all disputes and has none to spare; one
      hospital in all those sets lied, if so few did. Everybody in dispute where no such set exists.

    >>> sorted(blame({("a", "x"), ("b", "x"), ("c", "x")}, most_liars=2))
    ['x']
    >>> sorted(blame({("a", "x")}, most_liars=2))
    ['a', 'x']
    """
    found: set[frozenset[str]] = set()

    def explain(open_disputes: frozenset[Dispute], liars: frozenset[str]) -> None:
        if not open_disputes:
            found.add(liars)
            return
        left = most_liars - len(liars)
        if left == 0:
            return
        counts = Counter(site for dispute in open_disputes for site in set(dispute))
        site = max(sorted(counts), key=counts.__getitem__)
        explain(frozenset(d for d in open_disputes if site not in d), liars | {site})
        others = frozenset(other for d in open_disputes if site in d for other in d) - {site}
        # Without this one, all those it is in dispute with lied; nobody is in dispute with itself but a liar.
        if len(others) <= left and (site, site) not in open_disputes:
            explain(frozenset(d for d in open_disputes if not others & set(d)), liars | others)

    explain(frozenset(disputes), frozenset())
    spare = {liars for liars in found if any(other < liars for other in found)}
    everybody = frozenset(site for dispute in disputes for site in dispute)
    return frozenset().union(*(found - spare)) if found else everybody


def recover_masks(
    parameters: SecAggParameters,
    *,
    round_number: int,
    mask_keys: Mapping[str, bytes],
    commitments: Mapping[str, bytes],
    dropped: tuple[str, ...],
    self_mask_shares: SharesByHolder,
    mask_key_shares: SharesByHolder,
) -> Masks:
    """Recovers every survivor's self mask, and every dropped hospital's pairwise masks with the survivors.

    Args:
      mask_keys: the participants' public mask keys.
      commitments: the survivors' `keys.self_mask_commitment`.
      dropped: participants that are not survivors.
      self_mask_shares: shares of survivors' seeds.
      mask_key_shares: shares of dropped hospitals' mask keys.

    Raises:
      SecAggShareError: a secret cannot be recovered; names its owner.
    """
    masks = Masks()
    disputes: set[Dispute] = set()
    for site, commitment in commitments.items():

        def matches_commitment(seed: bytes, site: str = site, commitment: bytes = commitment) -> bool:
            found = keys.self_mask_commitment(parameters, round_number=round_number, site=site, seed=seed)
            return found == commitment

        label = f"self mask seed of {site} in round {round_number}"
        seed = _recover(parameters, label, site, self_mask_shares, matches_commitment, disputes)
        masks.subtract.append(keys.self_mask_key(parameters, round_number=round_number, site=site, seed=seed))
    for site in dropped:

        def matches_key(secret: bytes, site: str = site) -> bool:
            return keys.public_key(secret) == mask_keys[site]

        label = f"mask key of {site} in round {round_number}"
        secret = _recover(parameters, label, site, mask_key_shares, matches_key, disputes)
        for peer in commitments:
            if not parameters.share_a_mask(site, peer):
                continue
            key = keys.pairwise_mask_key(
                parameters,
                round_number=round_number,
                secret=secret,
                site=site,
                site_key=mask_keys[site],
                peer=peer,
                peer_key=mask_keys[peer],
            )
            # Of a pair, the first by name added the mask and the second subtracted it.
            (masks.subtract if peer < site else masks.add).append(key)
    masks.suspects = blame(disputes, most_liars=parameters.colluders)
    return masks


def _recover(
    parameters: SecAggParameters,
    label: str,
    owner: str,
    shares_by_holder: SharesByHolder,
    accept: Callable[[bytes], bool],
    disputes: set[Dispute],
) -> bytes:
    shares = {parameters.index(holder): shares[owner] for holder, shares in shares_by_holder.items() if owner in shares}
    disputes |= {(owner, holder) for holder, shares in shares_by_holder.items() if owner not in shares}
    doubted = {parameters.index(holder) for _, holder in disputes}
    try:
        recovery = recover(shares, threshold=parameters.threshold, accept=accept, doubted=doubted)
    except SecAggShareError as error:
        raise SecAggShareError(f"{label}: {error}") from error
    disputes |= {(owner, parameters.sites[x - 1]) for x in recovery.wrong}
    return recovery.secret
