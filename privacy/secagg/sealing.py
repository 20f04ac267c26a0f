"""Secret shares on their way from one hospital to another, through a server that must not read or move them.

Invariants:
  - AES-256-GCM under a key of one pair, direction and run, with a random 96-bit nonce (far fewer than 2^32
    shares per key, as NIST SP 800-38D asks);
  - the associated data names consortium, run, terms, round, sender, recipient, which secret is shared, and
    the sender's mask key of the round. A share that was moved to another round, hospital or purpose does not
    open.

Source: NIST SP 800-38D (GCM).
"""

from typing import Literal

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from privacy.secagg.errors import SecAggProtocolError
from privacy.secagg.keys import Randomness
from privacy.secagg.parameters import SecAggParameters
from privacy.secagg.shamir import SHARE_BYTES

NONCE_BYTES = 12
TAG_BYTES = 16
SEALED_SHARE_BYTES = NONCE_BYTES + SHARE_BYTES + TAG_BYTES

ShareOf = Literal["self mask seed", "mask key"]


def seal_share(
    share: bytes,
    *,
    parameters: SecAggParameters,
    key: bytes,
    share_of: ShareOf,
    round_number: int,
    sender: str,
    recipient: str,
    sender_mask_key: bytes,
    randomness: Randomness,
) -> bytes:
    """Encrypts one 33-byte share; returns 61 bytes: nonce, ciphertext, tag."""
    nonce = randomness(NONCE_BYTES)
    data = _associated_data(parameters, share_of, round_number, sender, recipient, sender_mask_key)
    return nonce + AESGCM(key).encrypt(nonce, share, data)


def open_share(
    sealed: bytes,
    *,
    parameters: SecAggParameters,
    key: bytes,
    share_of: ShareOf,
    round_number: int,
    sender: str,
    recipient: str,
    sender_mask_key: bytes,
) -> bytes:
    """Decrypts one share.

    Raises:
      SecAggProtocolError: it is not this sender's share of this secret and round for this recipient.
    """
    data = _associated_data(parameters, share_of, round_number, sender, recipient, sender_mask_key)
    try:
        return AESGCM(key).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], data)
    except InvalidTag as error:
        raise SecAggProtocolError(
            sender, f"its share of its {share_of} of round {round_number} for {recipient} does not decrypt"
        ) from error


def _associated_data(
    parameters: SecAggParameters,
    share_of: ShareOf,
    round_number: int,
    sender: str,
    recipient: str,
    sender_mask_key: bytes,
) -> bytes:
    return parameters.context(
        "sealed share",
        share_of=share_of,
        round=round_number,
        sender=sender,
        recipient=recipient,
        sender_mask_key=sender_mask_key.hex(),
    )
