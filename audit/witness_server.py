"""A witness over HTTP: POST `/add-checkpoint`, and GET `/<SHA-256 of the origin>/checkpoint` to see what it cosigned.

Who may ask is no matter: only the log's signature counts.

Source: C2SP tlog-witness (https://c2sp.org/tlog-witness).
"""

from __future__ import annotations

import hashlib
import logging

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from audit.errors import WitnessError
from audit.witness import Witness
from audit.witness_protocol import BROKEN, MAX_REQUEST_SIZE, OK, answer

_logger = logging.getLogger(__name__)


def witness_app(witness: Witness) -> Starlette:
    """The application; mount it under the witness's submission prefix."""

    async def add_checkpoint(request: Request) -> Response:
        body = bytearray()
        try:
            async for chunk in request.stream():
                body += chunk
                if len(body) > MAX_REQUEST_SIZE:
                    return PlainTextResponse(f"expected at most {MAX_REQUEST_SIZE} bytes\n", 413)
        except ClientDisconnect:  # nobody is left to answer; nothing was signed
            return Response(status_code=400)
        given = await run_in_threadpool(answer, witness, bytes(body))
        if given.status not in (OK, BROKEN):
            _logger.warning("add-checkpoint: %s %s", given.status, given.body.decode().strip())
        return Response(given.body, given.status, headers={"Content-Type": given.content_type})

    def cosigned(request: Request) -> Response:
        wanted = request.path_params["digest"]
        try:
            for log in witness.logs():
                if hashlib.sha256(log.name.encode()).hexdigest() == wanted:
                    note = witness.memory(log.name).note
                    if note is not None:
                        return PlainTextResponse(note, headers={"Cache-Control": "no-cache"})
                    return PlainTextResponse("nothing cosigned yet\n", 404)
        except WitnessError as error:
            _logger.error("%s", error)
            return PlainTextResponse("the witness's memory is damaged\n", BROKEN)
        return PlainTextResponse("no log with this origin is watched here\n", 404)

    return Starlette(
        routes=[
            Route("/add-checkpoint", add_checkpoint, methods=["POST"]),
            Route("/{digest:str}/checkpoint", cosigned, methods=["GET"]),
        ]
    )
