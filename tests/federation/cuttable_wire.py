"""A network that can be cut: a TCP relay on this machine through which one hospital reaches the server.

While it is cut, bytes are held back and nobody is told, as when a cable is pulled: connections stay open and silent,
and new ones are accepted by nobody that answers. When it is mended, what was held back arrives.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from types import TracebackType

CHUNK = 65_536


class Wire:
    """Relays from a port of its own, `port`, to a port of this machine, while it is open."""

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._whole = threading.Event()
        self._whole.set()
        self._ended = threading.Event()
        self._sockets: list[socket.socket] = []
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept, name="wire")]

    def __enter__(self) -> Wire:
        self._threads[0].start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._whole.set()
        with self._lock:
            for each in (self._listener, *self._sockets):
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
                each.close()
        for thread in list(self._threads):
            thread.join(timeout=10)

    @contextlib.contextmanager
    def cut(self) -> Iterator[None]:
        """Nothing passes until the end; then what was held back, and everything after it."""
        self._whole.clear()
        try:
            yield
        finally:
            self._whole.set()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
                far = socket.create_connection(("127.0.0.1", self._target_port))
            except OSError:
                if self._ended.is_set():
                    return
                near.close()  # the server is away: the hospital sees a connection that ends
                continue
            with self._lock:
                if self._ended.is_set():
                    near.close()
                    far.close()
                    return
                self._sockets += [near, far]
                pumps = [threading.Thread(target=self._pump, args=pair) for pair in ((near, far), (far, near))]
                self._threads += pumps
            for pump in pumps:
                pump.start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):  # either end may close at any time; so does this one then
            while data := source.recv(CHUNK):
                self._whole.wait()
                sink.sendall(data)
        for each in (source, sink):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
