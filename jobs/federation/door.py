"""The server's door: who is let in and who is shown out, as the consortium's log has it now.

NVFlare lets in whoever holds the key of a certificate under the root: it knows no revocation, and TLS asks no list
either. Three things are added, by NVFlare's own means and without patching it:

* a filter on registrations: the certificate presented must be one that the log has, and that counts now. NVFlare then
  checks that the client holds its key and bears its name;
* every `POLL_S` seconds the hospitals that the log bars are put on NVFlare's denylist, and those it bars no more are
  taken off. Being put on it ends the session: the token is dropped, heartbeats and registrations are refused. With the
  same step the door notes whom NVFlare heard of (`jobs.federation.presence`);
* the server can sign as soon as anybody can reach it (`let_sign`).

Invariants:
- a log that cannot be read lets nobody in; sessions that are open stay as they were, and the coordinator asks the log
  for itself before every round;
- the server does not start without its door.

Source: nvflare 2.9, `FederatedServer.register_client`, `ClientManager`, `CoreCell.add_incoming_request_filter`.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography import x509
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_component import FLComponent
from nvflare.apis.fl_constant import FLContextKey, SecureTrainConst
from nvflare.apis.fl_context import FLContext
from nvflare.apis.fl_exception import UnsafeComponentError
from nvflare.fuel.f3.cellnet.core_cell import make_reply
from nvflare.fuel.f3.cellnet.defs import IdentityChallengeKey, ReturnCode
from nvflare.private.defs import CellChannel, CellChannelTopic, CellMessageHeaderKeys

from audit.certificates import CLIENT, certificate_digest, identity_of
from audit.errors import AuditError
from jobs.errors import JobError
from jobs.federation.kit import SETTINGS_FILE
from jobs.federation.presence import PresenceNotes, presence_path
from jobs.home import ConsortiumHome
from jobs.standing import LogStanding, Standing

POLL_S = 5.0
SHUT = "the server cannot read its log at the moment and lets nobody in; try again later"

_LOG = logging.getLogger(__name__)


class Doorkeeper:
    """Decides; knows nothing of NVFlare.

    Args:
        standing: whose certificates count, as of when it is called.
    """

    def __init__(self, standing: Callable[[], Standing], clock: Callable[[], datetime]) -> None:
        self._standing = standing
        self._clock = clock

    def refusal(self, name: str, chain: bytes) -> str | None:
        """Why a client is not let in, or None.

        Args:
            name: as the client calls itself.
            chain: the certificates it presents, PEM, its own first.
        """
        try:
            certificate = x509.load_pem_x509_certificates(chain)[0]
        except (ValueError, TypeError):
            return "no certificate was presented"
        try:
            self._standing().check(certificate_digest(certificate), at=self._clock())
            holder = identity_of(certificate).name
        except AuditError as error:
            return str(error)
        except (JobError, OSError) as error:
            _LOG.error("nobody is let in: %s", error)
            return SHUT
        return None if holder == name else f"the certificate is {holder}'s, not {name}'s"

    def barred(self) -> dict[str, bool]:
        """Every hospital of the log, and whether it is barred. Raises AuditError, JobError, OSError."""
        standing = self._standing()
        barred = standing.barred(at=self._clock())
        hospitals = {
            identity.name for identity in map(identity_of, standing.certificates.values()) if identity.role == CLIENT
        }
        return {name: name in barred for name in sorted(hospitals)}


class Denylist:
    """Keeps NVFlare's denylist as the log has it.

    Args:
        disable, enable: put names on the denylist, and take them off it.
    """

    def __init__(
        self, keeper: Doorkeeper, disable: Callable[[list[str]], object], enable: Callable[[list[str]], object]
    ) -> None:
        self._keeper = keeper
        self._disable = disable
        self._enable = enable
        self._told: dict[str, bool] = {}  # what NVFlare was told last; nothing after a start, when it is all told anew

    def follow(self) -> None:
        """Tell NVFlare what changed. Raises what reading the log raises; NVFlare's denylist stays as it was then."""
        now = self._keeper.barred()
        for change, call in ((True, self._disable), (False, self._enable)):
            names = [name for name, barred in now.items() if barred is change and self._told.get(name) is not change]
            if names:
                call(names)
                self._told |= dict.fromkeys(names, change)


def let_sign(fl_ctx: FLContext, startup: Path) -> None:
    """Let the server sign its messages while it is still starting.

    NVFlare listens before it is told its own certificate, and keeps the empty signature it puts under a message then:
    hospitals that reconnect at once after a restart would leave it a server whom nobody believes until the next one.

    Args:
        startup: the folder of the server's kit with `fed_server.json`, certificate and key.
    """
    (config,) = json.loads((startup / "fed_server.json").read_text(encoding="utf-8"))["servers"]
    for name in (SecureTrainConst.SSL_CERT, SecureTrainConst.PRIVATE_KEY, SecureTrainConst.SSL_ROOT_CERT):
        config[name] = str(startup / config[name])
    fl_ctx.set_prop(FLContextKey.SERVER_CONFIG, [config], private=True, sticky=True)  # NVFlare sets the same at the end
    fl_ctx.get_prop(FLContextKey.SITE_OBJ).my_own_token_signature = None


class Door(FLComponent):  # type: ignore[misc]
    """NVFlare's component at the server, named in its kit's `resources.json`."""

    def __init__(self) -> None:
        super().__init__()
        self._closing = threading.Event()
        self._keeper: Doorkeeper | None = None

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Stand at the door from the server's start to its end."""
        if event_type == EventType.SYSTEM_BOOTSTRAP:
            try:
                engine = fl_ctx.get_engine()
                let_sign(fl_ctx, Path(engine.get_workspace().get_startup_kit_dir()))
                self._open(engine)
            except Exception as error:
                # The one exception of a component that keeps NVFlare from starting.
                raise UnsafeComponentError(f"the server does not start without its door: {error}") from error
        elif event_type == EventType.SYSTEM_END:
            self._closing.set()

    def admit(self, request: Any) -> Any:
        """A filter of NVFlare's on registrations: None lets one through, a reply turns it away."""
        name = str(request.get_header(CellMessageHeaderKeys.CLIENT_NAME))
        chain = request.payload.get(IdentityChallengeKey.CERT) if isinstance(request.payload, dict) else None
        keeper = self._keeper
        reason = SHUT if keeper is None else keeper.refusal(name, chain if isinstance(chain, bytes) else b"")
        if reason is None:
            return None
        _LOG.warning("%s is not let in: %s", name, reason)
        return make_reply(ReturnCode.UNAUTHENTICATED, error=reason)

    def _open(self, engine: Any) -> None:
        local = Path(engine.get_workspace().get_site_config_dir())
        settings = json.loads((local / SETTINGS_FILE).read_text(encoding="utf-8"))
        home = ConsortiumHome(Path(settings["consortium_home"]))
        self._keeper = Doorkeeper(LogStanding(home), home.clock)
        denylist = Denylist(self._keeper, engine.disable_clients, engine.enable_clients)
        denylist.follow()  # before anybody can be let in who was barred while the server was down
        engine.get_cell().core_cell.add_incoming_request_filter(
            channel=CellChannel.SERVER_MAIN, topic=CellChannelTopic.Register, cb=self.admit
        )
        notes = PresenceNotes(presence_path(home), home.clock)
        threading.Thread(target=self._watch, args=(denylist, notes, engine), name="door", daemon=True).start()

    def _watch(self, denylist: Denylist, notes: PresenceNotes, engine: Any) -> None:
        while not self._closing.wait(POLL_S):
            try:
                denylist.follow()
            except (AuditError, JobError, OSError) as error:
                _LOG.error("who is barred cannot be seen at the moment: %s", error)
            try:
                notes.note(heartbeats(engine.get_clients()))
            except Exception:  # noqa: BLE001 - whatever is wrong with a note for people, the barred are shown out
                _LOG.exception("who is connected cannot be noted at the moment")


def heartbeats(clients: Iterable[Any]) -> dict[str, datetime]:
    """When each of NVFlare's clients was last heard of; of two sessions of one hospital the later."""
    heard: dict[str, datetime] = {}
    for client in clients:
        moment = datetime.fromtimestamp(client.last_connect_time, UTC)
        heard[client.name] = max(moment, heard.get(client.name, moment))
    return heard
