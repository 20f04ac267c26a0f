"""A note that the server let this hospital in, and with which certificate; NVFlare's client writes it.

A renewed certificate replaces the old one for good only after it was used, so somebody must see that it was.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path

from nvflare.apis.event_type import EventType
from nvflare.apis.fl_component import FLComponent
from nvflare.apis.fl_constant import FLContextKey
from nvflare.apis.fl_context import FLContext

from audit.certificates import certificate_digest, load_certificate
from audit.durable_file import write_durably
from site_packages.home import CONNECTED_FILE

_LOG = logging.getLogger(__name__)


class ConnectionNote(FLComponent):  # type: ignore[misc]
    """NVFlare's component at a hospital, named in its kit's `resources.json`."""

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Write the note when the client was registered."""
        if event_type != EventType.AFTER_CLIENT_REGISTER or not fl_ctx.get_prop(FLContextKey.CLIENT_TOKEN):
            return
        kit = Path(fl_ctx.get_prop(FLContextKey.WORKSPACE_OBJECT).get_root_dir())
        digest = certificate_digest(load_certificate((kit / "startup" / "client.crt").read_bytes()))
        write_durably(kit / CONNECTED_FILE, json.dumps({"certificate": digest}).encode())
        _LOG.info("connected with certificate %s", digest)
