"""The log over HTTP, read-only: `/checkpoint`, `/tile/...`, `/tile/entries/...`.

Invariants:
- Nothing beyond the last signed checkpoint is served: what nobody has signed for may still be refused or lost.
- A path is parsed into numbers, never joined to a folder's name.
- Tiles and entry bundles never change and say so to caches; the checkpoint may not be cached.

Source: C2SP tlog-tiles (https://c2sp.org/tlog-tiles).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Protocol

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from audit.checkpoint import Checkpoint
from audit.errors import AuditError, TileError
from audit.merkle import Node
from audit.note import parse_note
from audit.tiles import ENTRIES, TILE_WIDTH, Tile, encode_bundle

_TEXT = "text/plain; charset=utf-8"
_BYTES = "application/octet-stream"
_FOR_EVER = {"Cache-Control": "public, max-age=31536000, immutable", "Access-Control-Allow-Origin": "*"}
_NOT_AT_ALL = {"Cache-Control": "no-cache", "Access-Control-Allow-Origin": "*"}
_logger = logging.getLogger(__name__)


class ServedLog(Protocol):
    """What is read of a log (`audit.store.Log`), from several threads."""

    def read_hashes(self, nodes: Sequence[Node]) -> list[bytes]: ...

    def read_entries(self, start: int, stop: int) -> list[bytes]: ...


def log_app(log: ServedLog, checkpoint: Callable[[], bytes | None]) -> Starlette:
    """The application; mount it under the log's URL prefix.

    `checkpoint` gives the last signed checkpoint with its cosignatures, None before the first.
    """

    def serve_checkpoint(request: Request) -> Response:
        try:
            data = checkpoint()
        except AuditError:
            _logger.exception("the checkpoint cannot be read")
            return _plain(500, "the checkpoint cannot be read; the log's keeper should run `zegel audit check`")
        if data is None:
            return _plain(404, "no checkpoint has been signed yet")
        return Response(data, media_type=_TEXT, headers=_NOT_AT_ALL)

    def serve_tile(request: Request) -> Response:
        path = f"tile/{request.path_params['path']}"
        try:
            tile = Tile.parse(path)
        except TileError as error:
            return _plain(400, str(error))
        try:
            signed = checkpoint()
            size = 0 if signed is None else Checkpoint.from_text(parse_note(signed).text).size
            if tile.end > size:
                return _plain(404, f"{path} is not in the signed tree of {size} entries")
            if tile.level == ENTRIES:
                first = tile.index * TILE_WIDTH
                data = encode_bundle(log.read_entries(first, first + tile.width))
            else:
                data = b"".join(log.read_hashes(tile.nodes()))
        except AuditError:
            _logger.exception("%s cannot be read", path)
            return _plain(500, f"{path} cannot be read; the log's keeper should run `zegel audit check`")
        return Response(data, media_type=_BYTES, headers=_FOR_EVER)

    app = Starlette(
        routes=[
            Route("/checkpoint", serve_checkpoint, methods=["GET"]),
            # Entries are text and compress well; hashes do not.
            Route("/tile/{path:path}", serve_tile, methods=["GET"], middleware=[Middleware(GZipMiddleware)]),
        ]
    )
    app.router.redirect_slashes = False  # one spelling of every path
    return app


def _plain(status: int, words: str) -> Response:
    return PlainTextResponse(f"{words}\n", status, headers=_NOT_AT_ALL)
