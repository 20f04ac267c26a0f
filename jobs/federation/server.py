"""The coordinator inside NVFlare's server job, and the transport that reaches hospitals over mutual TLS.

NVFlare builds `CoordinatorComponent` from a job's configuration, which names a run and a plan's hash only. Where the
consortium's log is comes from `local/zegel.json` of the server's kit. Errors of one hospital come back as values; a
hospital's answer is taken as data, never as code.
"""

from __future__ import annotations

import json
import logging
import queue
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from nvflare.collab import collab
from nvflare.collab.api.call_opt import CallOption
from nvflare.collab.api.group import group

from jobs.errors import UNREACHABLE, SiteError, SiteRefused
from jobs.federation.job import check_call_timeout
from jobs.federation.kit import SETTINGS_FILE
from jobs.transport import Message, Timeouts, packed, unpacked

GRACE_S = 2.0  # for NVFlare to end a call that took too long
SITE_METHOD = "handle"  # the one method a hospital publishes


class CollabTransport:
    """`Transport` over NVFlare's Collab runtime; calls may come from any thread.

    Args:
        context, clients: `collab`'s, in the thread that NVFlare called.
    """

    def __init__(self, context: Any, clients: Iterable[Any]) -> None:
        self._context = context
        self._clients = {client.name: client for client in clients}

    def call(
        self, method: str, requests: Mapping[str, Message], *, timeout_s: float
    ) -> Mapping[str, Message | SiteError]:
        pending = {}
        here = set(self._clients)
        option = CallOption(blocking=False, timeout=timeout_s)
        for site, message in requests.items():
            if site not in here:  # the job was given to those who were connected when it began
                continue
            one = group(self._context, [self._clients[site]], option)
            pending[site] = getattr(one, SITE_METHOD)(method=method, message=packed(message))
        answers: dict[str, Message | SiteError] = {
            site: SiteError(site, UNREACHABLE, "it was not connected when this job began")
            for site in requests
            if site not in here
        }
        deadline = time.monotonic() + timeout_s + GRACE_S
        for site, results in pending.items():
            answers[site] = self._answer(site, results, deadline, timeout_s)
        return answers

    def _answer(self, site: str, results: Any, deadline: float, timeout_s: float) -> Message | SiteError:
        """The one outcome of one hospital's call, a pair of its name and what it returned, or a failure.

        NVFlare's timeout ends where an answer begins to arrive. From a hospital that dies just then the rest would be
        waited for much longer, and with it all the others: hence a deadline of our own.
        """
        try:
            outcome = results.q.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            return SiteError(site, UNREACHABLE, f"its answer did not arrive in full within {timeout_s:g} s")
        failure = results.failures.get(site)
        if failure is None:
            return _checked(site, outcome[1])
        if self._context.is_aborted():
            return SiteError(site, UNREACHABLE, "no answer; NVFlare ended the job, as it does when a job process dies")
        return SiteError(
            site, UNREACHABLE, f"no answer; the call failed or took over {timeout_s:g} s ({failure.cause_type})"
        )


def _checked(site: str, value: object) -> Message | SiteError:
    if not isinstance(value, dict):
        return SiteError(site, "bad-answer", f"answered with {type(value).__name__}, expected a message")
    error = value.get("error")
    if error is None:
        return unpacked(value)
    try:
        code, detail, refusal = str(error["code"])[:64], str(error["detail"])[:2000], error.get("refusal")
    except (KeyError, TypeError, AttributeError):
        return SiteError(site, "bad-answer", "answered with a malformed error")
    if isinstance(refusal, dict):
        return SiteRefused(site, code, detail, refusal)
    return SiteError(site, code, detail)


class CoordinatorComponent:
    """NVFlare's server object: carries out one run, then the job ends."""

    def __init__(self, run_id: str, plan_hash: str, call_timeout_s: float) -> None:
        check_call_timeout(call_timeout_s)
        self._run_id = run_id
        self._plan_hash = plan_hash
        self._call_timeout_s = call_timeout_s

    @collab.main  # type: ignore[untyped-decorator]
    def carry_out(self) -> None:
        """Called once by the Collab controller when all hospitals of the job are there."""
        from jobs.run import carry_out_run

        started = time.monotonic()
        workspace = Path(collab.workspace.get_site_config_dir())
        settings = json.loads((workspace / SETTINGS_FILE).read_text(encoding="utf-8"))
        carry_out_run(
            Path(settings["consortium_home"]),
            run_id=self._run_id,
            plan_hash=self._plan_hash,
            transport=CollabTransport(collab.context, collab.clients),
            timeouts=Timeouts(call=self._call_timeout_s),
        )
        logging.getLogger(__name__).info("run %s took %.1f s", self._run_id, time.monotonic() - started)
