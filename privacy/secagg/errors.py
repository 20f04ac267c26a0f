"""What can go wrong in secure aggregation.

    SecAggError
    +-- SecAggParameterError   the terms of the aggregation are impossible or unsafe
    +-- SecAggRangeError       numbers that do not fit the ring, or are not finite
    +-- SecAggMessageError     a message that is not well formed; names the field
    +-- SecAggProtocolError    a well-formed message that breaks the protocol; names the peer
    |   +-- SecAggSignatureError   a key or a survivors' set without a valid signature
    |   +-- SecAggReplayError      something that may happen once was asked for again
    +-- SecAggShareError       secret shares that do not give back the secret
    +-- SecAggAbortError       too few hospitals are left; nothing was unmasked
    +-- SecAggMemoryError      the durable memory could not be read or written

Calling a method of a state machine at the wrong time from our own code is a `RuntimeError`.
"""


class SecAggError(Exception):
    """Root of every error of secure aggregation."""


class SecAggParameterError(SecAggError):
    """The terms of the aggregation are impossible or unsafe."""


class SecAggRangeError(SecAggError):
    """A number does not fit the ring, or is not finite."""


class SecAggMessageError(SecAggError):
    """A message is malformed.

    Attributes:
      field: the field at fault, written `<message kind>.<field>`.
    """

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field


class SecAggProtocolError(SecAggError):
    """A well-formed message breaks the protocol.

    Attributes:
      peer: who is at fault as far as can be seen: a hospital's name, or `server`.
    """

    def __init__(self, peer: str, problem: str) -> None:
        super().__init__(f"{peer}: {problem}")
        self.peer = peer


class SecAggSignatureError(SecAggProtocolError):
    """A key or a survivors' set does not carry a valid signature of the hospital it names."""


class SecAggReplayError(SecAggProtocolError):
    """Something that may happen once in a round was asked for again."""


class SecAggShareError(SecAggError):
    """Secret shares do not give back the secret that was dealt."""


class SecAggAbortError(SecAggError):
    """Too few hospitals are left, so the round ends before anything is unmasked.

    Attributes:
      present: the hospitals that were still there, sorted.
      needed: how many were needed.
    """

    def __init__(self, step: str, present: tuple[str, ...], needed: int) -> None:
        names = ", ".join(present) if present else "none"
        super().__init__(
            f"{step}: {len(present)} hospitals left ({names}), {needed} needed; the round is not unmasked, "
            f"set up again with the hospitals that can be reached"
        )
        self.present = present
        self.needed = needed


class SecAggMemoryError(SecAggError):
    """The durable memory of what was done could not be read or written."""
