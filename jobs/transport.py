"""How the coordinator reaches hospitals: one interface, two implementations.

`InMemoryTransport` calls participant objects in this process, for tests and benchmarks;
`jobs.federation.server.CollabTransport` calls them over NVFlare's mutual TLS. Coordinator and participant are the same
code over both. Calls differ by hospital and run side by side; one hospital's failure is that hospital's answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from jobs.errors import SiteError

# JSON scalars, lists and objects, bytes, and numpy arrays, by name. Arrays travel as arrays.
Message = dict[str, Any]


@dataclass(frozen=True)
class Timeouts:
    """How long a hospital may take, in seconds, before it counts as missing."""

    join: float = 300.0  # loading and encoding a hospital's letters
    call: float = 120.0  # one call of a round
    evaluate: float = 300.0
    probe: float = 5.0  # a sign of life from a hospital that was missing


class Transport(Protocol):
    """Calls a method of the participant at several hospitals."""

    def call(
        self, method: str, requests: Mapping[str, Message], *, timeout_s: float
    ) -> Mapping[str, Message | SiteError]:
        """Send each hospital its own request and wait for the answers.

        Args:
            method: one of the participant's published names.
            requests: hospital -> message.
            timeout_s: seconds after which a silent hospital counts as failed.
        Returns: for every hospital asked, its answer or the error that stands in for it.
        """
        ...


class InMemoryTransport:
    """Participants in this process, called one after another. Counts bytes as a network would see the payloads."""

    def __init__(self, handlers: Mapping[str, Callable[[str, Message], Message]]) -> None:
        """Args: hospital -> its participant's `handle(method, message)`, which raises SiteError."""
        self._handlers = dict(handlers)
        self.bytes_sent: dict[str, int] = dict.fromkeys(handlers, 0)  # to the hospital
        self.bytes_received: dict[str, int] = dict.fromkeys(handlers, 0)  # from the hospital

    def call(
        self, method: str, requests: Mapping[str, Message], *, timeout_s: float
    ) -> Mapping[str, Message | SiteError]:
        answers: dict[str, Message | SiteError] = {}
        for site, message in requests.items():
            self.bytes_sent[site] += payload_bytes(message)
            try:
                answer = self._handlers[site](method, message)
            except SiteError as error:
                answers[site] = error
            else:
                self.bytes_received[site] += payload_bytes(answer)
                answers[site] = answer
        return answers


def message_of(site: str, answer: object) -> Message:
    """The answer, if it is a message. Raises SiteError: the hospital's own, or because it is none."""
    if isinstance(answer, SiteError):
        raise answer
    if not isinstance(answer, dict):
        raise SiteError(site, "bad-answer", f"answered with {type(answer).__name__}, expected a message")
    return answer


_PACKED = {"packed", "dtype", "length"}  # the keys of what stands for a vector
_DTYPES = ("<u4", "<u8")  # of vectors in the ring, the only large arrays there are


def packed(message: Message) -> Message:
    """The message with the ring vectors of its parts as bytes, which NVFlare sends along.

    An array it would announce, and have the other side fetch in further calls.
    """
    return _each(message, _pack)


def unpacked(message: Message) -> Message:
    """The message as it was before `packed`; the vectors cannot be written to. Never raises.

    What is not exactly a packed vector is left as it is, for whoever expects a vector to refuse.
    """
    return _each(message, _unpack)


def _each(message: Message, change: Callable[[Any], Any]) -> Message:
    """Vectors lie in a part of the message, no deeper: nobody can nest so deep that looking for them fails."""
    return {
        name: {key: change(value) for key, value in part.items()} if isinstance(part, dict) else part
        for name, part in message.items()
    }


def _pack(value: Any) -> Any:
    if isinstance(value, np.ndarray) and value.ndim == 1 and value.dtype.str in _DTYPES:
        return {"packed": value.tobytes(), "dtype": value.dtype.str, "length": len(value)}
    return value


def _unpack(value: Any) -> Any:
    if not isinstance(value, dict) or set(value) != _PACKED:
        return value
    data, dtype, length = value["packed"], value["dtype"], value["length"]
    if not isinstance(data, bytes) or dtype not in _DTYPES or type(length) is not int:
        return value
    size = np.dtype(dtype).itemsize
    return np.frombuffer(data, dtype=dtype) if len(data) == size * length else value


def payload_bytes(value: Any) -> int:
    """Bytes of a message's content: arrays and byte strings in full, text in UTF-8, numbers as 8 bytes."""
    if isinstance(value, Mapping):
        return sum(len(str(key)) + payload_bytes(item) for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return sum(payload_bytes(item) for item in value)
    if isinstance(value, str):
        return len(value.encode())
    if isinstance(value, (bytes, bytearray, memoryview)):
        return len(value)
    size = getattr(value, "nbytes", None)
    return int(size) if size is not None else 8
