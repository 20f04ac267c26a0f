"""The coordinator inside NVFlare's server job, and the transport that reaches hospitals over mutual TLS.

NVFlare builds `CoordinatorComponent` from a job's configuration, which names a run and a plan's hash only. Where the
consortium's log is comes from `local/zegel.json` of the server's kit. Errors of one hospital come back as values; a
hospital's answer is taken as data, never as code.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nvflare.collab import collab
from nvflare.collab.api.call_opt import CallOption
from nvflare.collab.api.group import group

from jobs.errors import UNREACHABLE, SiteError, SiteRefused
from jobs.federation.job import check_call_timeout
from jobs.federation.kit import SETTINGS_FILE
from jobs.transport import Message

SITE_METHOD = "handle"  # the one method a hospital publishes


class CollabTransport:
    """`Transport` over NVFlare's Collab runtime.

    Made inside the server's job, in the thread where `collab` has a context; calls may come from any thread.
    """

    def __init__(self) -> None:
        self._context = collab.context
        self._clients = {client.name: client for client in collab.clients}

    def call(
        self, method: str, requests: Mapping[str, Message], *, timeout_s: float
    ) -> Mapping[str, Message | SiteError]:
        queues = {}
        here = set(self._clients)
        option = CallOption(blocking=False, timeout=timeout_s)
        for site, message in requests.items():
            if site not in here:  # the job was given to those who were connected when it began
                continue
            one = group(self._context, [self._clients[site]], option)
            queues[site] = getattr(one, SITE_METHOD)(method=method, message=message)
        answers: dict[str, Message | SiteError] = {
            site: SiteError(site, UNREACHABLE, "it was not connected when this job began")
            for site in requests
            if site not in here
        }
        for site, queue in queues.items():
            # Each queue belongs to one hospital: it ends after its answer or after the timeout.
            results = [value for _, value in queue]
            failure = dict(getattr(queue, "failures", {})).get(site)
            answers[site] = self._answer(site, results, failure, timeout_s)
        return answers

    def _answer(
        self, site: str, results: list[Any], failure: BaseException | None, timeout_s: float
    ) -> Message | SiteError:
        if failure is None and len(results) == 1:
            return _checked(site, results[0])
        if self._context.is_aborted():
            return SiteError(site, UNREACHABLE, "no answer; NVFlare ended the job, as it does when a job process dies")
        cause = type(getattr(failure, "__cause__", None) or failure).__name__
        return SiteError(site, UNREACHABLE, f"no answer; the call failed or took over {timeout_s:g} s ({cause})")


def _checked(site: str, value: object) -> Message | SiteError:
    if not isinstance(value, dict):
        return SiteError(site, "bad-answer", f"answered with {type(value).__name__}, expected a message")
    error = value.get("error")
    if error is None:
        return value
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
        from jobs.coordinator import Timeouts
        from jobs.run import carry_out_run

        started = time.monotonic()
        workspace = Path(collab.workspace.get_site_config_dir())
        settings = json.loads((workspace / SETTINGS_FILE).read_text(encoding="utf-8"))
        carry_out_run(
            Path(settings["consortium_home"]),
            run_id=self._run_id,
            plan_hash=self._plan_hash,
            transport=CollabTransport(),
            timeouts=Timeouts(call=self._call_timeout_s),
        )
        logging.getLogger(__name__).info("run %s took %.1f s", self._run_id, time.monotonic() - started)
