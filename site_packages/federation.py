"""The hospital's side of NVFlare: one published method behind which the participant stands.

NVFlare sends an exception's text and stack trace back to whoever called. A stack trace can quote a letter, so nothing
may be raised across this line: our own errors leave as a code and a sentence without data, anything unexpected leaves
as `internal` and is written in full to the hospital's own log. Calls from anybody but the server are turned away.
"""

from __future__ import annotations

import json
import logging
import threading
from pathlib import Path
from typing import Any

from nvflare.collab import collab

from jobs.errors import SiteError, SiteRefused
from jobs.federation.kit import SETTINGS_FILE
from jobs.transport import Message, packed, unpacked
from privacy.errors import PrivacyError
from site_packages.errors import DataError
from site_packages.home import SiteHome
from site_packages.participant import Participant

_LOG = logging.getLogger(__name__)


class ParticipantComponent:
    """NVFlare's client object. It is built from a job's configuration, which can pass nothing to it."""

    def __init__(self) -> None:
        self._participant: Participant | None = None
        self._one_at_a_time = threading.Lock()

    @collab.publish  # type: ignore[untyped-decorator]
    def handle(self, method: str, message: Any) -> Message:
        """Answer one call of the coordinator. Never raises."""
        try:
            if collab.caller != "server":
                raise SiteError(collab.site_name, "not-the-server", "only the consortium's server may call a hospital")
            with self._one_at_a_time:
                if self._participant is None:
                    local = Path(collab.workspace.get_site_config_dir())
                    settings = json.loads((local / SETTINGS_FILE).read_text(encoding="utf-8"))
                    self._participant = SiteHome(Path(settings["site_home"])).participant()
                answer = self._participant.handle(method, unpacked(message) if isinstance(message, dict) else message)
            return packed(answer)
        except SiteRefused as error:
            _LOG.warning("refused %s: %s", method, error)
            return {"error": {"code": error.code, "detail": error.detail, "refusal": error.refusal}}
        except SiteError as error:
            _LOG.warning("could not carry out %s: %s", method, error)
            return {"error": {"code": error.code, "detail": error.detail}}
        except (DataError, PrivacyError) as error:
            # The hospital's own files are not in order; their texts name paths, so they stay here.
            _LOG.error("could not carry out %s: %s", method, error)
            return {"error": {"code": "data", "detail": "the hospital is not ready; its own log says why"}}
        except Exception:  # noqa: BLE001  the trace must stay here; see the module's docstring
            _LOG.exception("internal error in %s", method)
            return {
                "error": {
                    "code": "internal",
                    "detail": "internal error; the hospital's own log has the details",
                }
            }
