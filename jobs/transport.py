"""How the coordinator reaches hospitals: one interface, two implementations.

`InMemoryTransport` calls participant objects in this process, for tests and benchmarks;
`jobs.federation.server.CollabTransport` calls them over NVFlare's mutual TLS. Coordinator and participant are the same
code over both. Calls differ by hospital and run side by side; one hospital's failure is that hospital's answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from jobs.errors import SiteError

# JSON scalars, lists and objects, bytes, and numpy arrays, by name. Arrays travel as arrays.
Message = dict[str, Any]


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
