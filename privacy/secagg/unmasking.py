"""Recovering the masks of a round from the shares its survivors revealed.

Invariant: a secret is used only if it matches what its owner published before the shares were revealed - the
seed's commitment, the mask key's public key. A wrong share is left out and named, or recovery fails; it never
gives a wrong mask.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from privacy.secagg import keys
from privacy.secagg.errors import SecAggShareError
from privacy.secagg.parameters import SecAggParameters
from privacy.secagg.shamir import recover

SharesByHolder = Mapping[str, Mapping[str, bytes]]
"""Holder -> owner of the secret -> share; an owner is missing where its share did not decrypt."""


@dataclass
class Masks:
    """The mask keys that turn the sum of masked vectors into the sum.

    Attributes:
      add: 32-byte keys whose masks are to be added.
      subtract: 32-byte keys whose masks are to be subtracted.
      suspects: hospitals that dealt, revealed or refused a wrong share, as far as the shares tell.
    """

    add: list[bytes] = field(default_factory=list)
    subtract: list[bytes] = field(default_factory=list)
    suspects: set[str] = field(default_factory=set)


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
    for site, commitment in commitments.items():

        def matches_commitment(seed: bytes, site: str = site, commitment: bytes = commitment) -> bool:
            found = keys.self_mask_commitment(parameters, round_number=round_number, site=site, seed=seed)
            return found == commitment

        label = f"self mask seed of {site} in round {round_number}"
        seed = _recover(parameters, label, site, self_mask_shares, matches_commitment, masks.suspects)
        masks.subtract.append(keys.self_mask_key(parameters, round_number=round_number, site=site, seed=seed))
    for site in dropped:

        def matches_key(secret: bytes, site: str = site) -> bool:
            return keys.public_key(secret) == mask_keys[site]

        label = f"mask key of {site} in round {round_number}"
        secret = _recover(parameters, label, site, mask_key_shares, matches_key, masks.suspects)
        for peer in commitments:
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
    return masks


def _recover(
    parameters: SecAggParameters,
    label: str,
    owner: str,
    shares_by_holder: SharesByHolder,
    accept: Callable[[bytes], bool],
    suspects: set[str],
) -> bytes:
    shares = {parameters.index(holder): shares[owner] for holder, shares in shares_by_holder.items() if owner in shares}
    refused = {holder for holder, shares in shares_by_holder.items() if owner not in shares}
    if refused:
        suspects |= refused | {owner}  # either dealt it unreadable or says so; nobody else can tell
    # Holders known to be wrong are left out, so that they are not searched for again in every secret; if that
    # leaves no solution, one of them was suspected wrongly.
    trusted = {x: share for x, share in shares.items() if parameters.sites[x - 1] not in suspects}
    try:
        recovery = recover(trusted, threshold=parameters.threshold, accept=accept)
    except SecAggShareError:
        try:
            recovery = recover(shares, threshold=parameters.threshold, accept=accept)
        except SecAggShareError as error:
            raise SecAggShareError(f"{label}: {error}") from error
    suspects |= {parameters.sites[x - 1] for x in recovery.wrong}
    return recovery.secret
