"""What the process says about itself: a request id on every answer, one log line per request, metrics, health.

Log lines are JSON on standard error: time, request id, route, status, milliseconds. No path parameter, query, body,
name or address stands in them: who did what is in the audit log, where it belongs and can be proven.
"""

from __future__ import annotations

import json
import logging
import re
import secrets
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from sqlmodel import select
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from admin_api.web.context import Here, workplace
from admin_api.web.language import N_
from admin_api.web.problems import Problem, unforeseen
from admin_api.web.routes import ApiRoute
from admin_api.web.tables import AnswerRow
from audit.checkpoint import open_checkpoint
from audit.errors import AuditError, StaleLogError
from audit.note import VerifierKey
from jobs.errors import JobError

_REQUESTS = logging.getLogger("zegel.requests")
_ERRORS = logging.getLogger("zegel.web")
_GIVEN_ID = re.compile(r"[0-9A-Za-z-]{8,64}")
_LOOPBACK = frozenset({"127.0.0.1", "::1"})
router = APIRouter(route_class=ApiRoute, include_in_schema=False)


class Measures:
    """The process's metrics, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "zegel_requests_total", "Requests answered", ("route", "status"), registry=self.registry
        )
        self.seconds = Histogram(
            "zegel_request_seconds", "Time to answer", ("route",), registry=self.registry,
            buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10),
        )  # fmt: skip
        self.running = Gauge("zegel_requests_running", "Requests being answered", registry=self.registry)
        self.log_size = Gauge("zegel_log_entries", "Entries of the audit log", registry=self.registry)


class Observing:
    """The outermost layer: whatever happens further in, a request gets one answer, one id and one line."""

    def __init__(self, app: ASGIApp, *, measures: Measures, clock: Callable[[], float] = time.perf_counter) -> None:
        self._app = app
        self._measures = measures
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope, receive)
        given = request.headers.get("x-request-id", "")
        request_id = given if _GIVEN_ID.fullmatch(given) else secrets.token_hex(8)
        request.state.request_id = request_id
        status = 0

        async def with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["x-request-id"] = request_id
            await send(message)

        began = self._clock()
        self._measures.running.inc()
        try:
            await self._app(scope, receive, with_id)
        except Exception as error:
            _ERRORS.error("request %s failed", request_id, exc_info=error)
            if status:  # half an answer is out; the connection is closed by the server
                raise
            await unforeseen(request)(scope, receive, with_id)
        finally:
            self._measures.running.dec()
            self._tell(scope, request_id, status, self._clock() - began)

    def _tell(self, scope: Scope, request_id: str, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "name", "none")
        self._measures.requests.labels(route, str(status)).inc()
        self._measures.seconds.labels(route).observe(seconds)
        _REQUESTS.info(
            "%s",
            route,
            extra={"request_id": request_id, "method": scope["method"], "status": status,
                   "milliseconds": round(seconds * 1000, 1)},
        )  # fmt: skip


class JsonLines(logging.Formatter):
    """A log record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        value: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        for name in ("request_id", "method", "status", "milliseconds"):
            if hasattr(record, name):
                value[name] = getattr(record, name)
        if record.exc_info:
            value["exception"] = self.formatException(record.exc_info)
        return json.dumps(value, ensure_ascii=False)


def write_json_lines(level: int = logging.INFO) -> None:
    """Let this process's loggers write JSON lines to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    for name in ("zegel", "uvicorn.error"):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.setLevel(level)
        logger.propagate = False


@router.get("/healthz", name="health")
def health() -> dict[str, str]:
    """The process answers."""
    return {"status": "ok"}


@router.get("/readyz", name="ready")
def ready(here: Here) -> dict[str, str]:
    """The process can work: both databases answer and the log's checkpoint fits its database."""
    with here.database.reading() as session:
        session.exec(select(AnswerRow.key).limit(1)).first()
    try:
        key = VerifierKey.parse(here.home.config().log_vkey)
        with here.home.log() as log:
            size, note = log.size, log.last_checkpoint()
            signed = None if note is None else open_checkpoint(note, key)
            if signed is not None and (signed.size > size or log.root(signed.size) != signed.root):
                raise StaleLogError(f"the log's {size} entries do not continue its checkpoint over {signed.size}")
    except (AuditError, JobError) as error:
        raise Problem(503, "not-ready", N_("Not ready"), str(error), "see the server's log") from None
    return {"status": "ready", "entries": str(size)}


@router.get("/metrics", name="metrics")
def metrics(request: Request, here: Here) -> Response:
    """Prometheus metrics, for whoever is on this machine."""
    if request.client is None or request.client.host not in _LOOPBACK or "x-forwarded-for" in request.headers:
        raise Problem(403, "not-allowed", N_("Only from this machine"), "metrics are served to this machine alone",
                      N_("let the collector run beside the server"))  # fmt: skip
    measures: Measures = request.app.state.measures
    with workplace(request).home.log() as log:
        measures.log_size.set(log.size)
    return Response(generate_latest(measures.registry), media_type=CONTENT_TYPE_LATEST)
