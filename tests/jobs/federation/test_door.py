"""The server's door: NVFlare's own registration and denylist, with what our log says about certificates."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_constant import FLContextKey, ReservedKey
from nvflare.apis.fl_context import FLContext
from nvflare.apis.fl_exception import UnsafeComponentError
from nvflare.apis.shareable import Shareable
from nvflare.apis.utils.event import fire_event_to_components
from nvflare.fuel.f3.cellnet.defs import IdentityChallengeKey, MessageHeaderKey, ReturnCode
from nvflare.fuel.f3.message import Message
from nvflare.private.defs import CellMessageHeaderKeys
from nvflare.private.fed.server.client_manager import ClientManager
from nvflare.private.fed.server.cred_keeper import CredKeeper

from audit.certificates import certificate_digest
from audit.errors import LogError
from audit.revocation import REINSTATED, REVOKED, SUSPENDED, Revocations, StatusChange
from jobs.federation.door import SHUT, Denylist, Door, Doorkeeper, let_sign
from jobs.standing import Standing
from site_packages.simulation import make_keyring
from tests.jobs.small_federation import NOW, SITES, clock

KEYRING = make_keyring("Delta", SITES, now=NOW)
STRANGER = make_keyring("Delta", ("geul",), now=NOW).sites["geul"][1]


class Log:
    """The standing a test says; broken when it is None."""

    def __init__(self) -> None:
        self.standing: Standing | None = Standing(KEYRING.certificates)

    def __call__(self) -> Standing:
        if self.standing is None:
            raise LogError("the disk is gone")
        return self.standing

    def change(self, *changes: tuple[str, str]) -> None:
        digests = {site: certificate_digest(certificate) for site, (_, certificate) in KEYRING.sites.items()}
        self.standing = Standing(
            KEYRING.certificates,
            Revocations(tuple(StatusChange(at, digests[site], status) for at, (site, status) in enumerate(changes))),
        )


def pem(site: str) -> bytes:
    return KEYRING.sites[site][1].public_bytes(serialization.Encoding.PEM)


def test_who_is_let_in() -> None:
    log = Log()
    keeper = Doorkeeper(log, clock)
    assert keeper.refusal("geul", pem("geul")) is None
    log.change(("geul", SUSPENDED))
    assert "is suspended since entry 0" in str(keeper.refusal("geul", pem("geul")))
    assert keeper.refusal("amstel", pem("amstel")) is None
    log.change(("geul", SUSPENDED), ("geul", REINSTATED))
    assert keeper.refusal("geul", pem("geul")) is None
    log.change(("geul", REVOKED))
    assert "is revoked since entry 0" in str(keeper.refusal("geul", pem("geul")))


@pytest.mark.parametrize(
    ("name", "chain", "reason"),
    [
        ("geul", STRANGER.public_bytes(serialization.Encoding.PEM), "was not issued by this consortium"),
        ("geul", pem("amstel"), "the certificate is amstel's, not geul's"),
        ("geul", b"", "no certificate was presented"),
        ("geul", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "no certificate was presented"),
    ],
)
def test_who_is_turned_away(name: str, chain: bytes, reason: str) -> None:
    assert reason in str(Doorkeeper(Log(), clock).refusal(name, chain))


def test_a_log_that_cannot_be_read_lets_nobody_in() -> None:
    log = Log()
    log.standing = None
    assert "the disk is gone" in str(Doorkeeper(log, clock).refusal("geul", pem("geul")))


def registration(name: str, payload: object) -> Message:
    return Message({CellMessageHeaderKeys.CLIENT_NAME: name}, payload)


def shareable(certificate: object) -> Shareable:
    made = Shareable()
    made[IdentityChallengeKey.CERT] = certificate
    return made


def opened(log: Log) -> Door:
    door = Door()
    door._keeper = Doorkeeper(log, clock)
    return door


def test_nvflares_filter_passes_or_turns_away() -> None:
    log = Log()
    door = opened(log)
    assert door.admit(registration("geul", shareable(pem("geul")))) is None
    log.change(("geul", REVOKED))
    reply = door.admit(registration("geul", shareable(pem("geul"))))
    assert reply.get_header(MessageHeaderKey.RETURN_CODE) == ReturnCode.UNAUTHENTICATED
    assert "is revoked" in reply.get_header(MessageHeaderKey.ERROR)
    for payload in (None, shareable(None), shareable("text"), b"bytes"):
        assert door.admit(registration("amstel", payload)) is not None


def test_before_it_is_open_nobody_passes() -> None:
    reply = Door().admit(registration("geul", shareable(pem("geul"))))
    assert reply.get_header(MessageHeaderKey.ERROR) == SHUT


def test_nvflares_denylist_follows_the_log(tmp_path: Path) -> None:
    manager = ClientManager(project_name="Delta", min_num_clients=1, max_num_clients=9)
    manager.set_disabled_clients_file(str(tmp_path / "disabled_clients.json"))
    told: list[tuple[str, list[str]]] = []

    def disable(names: list[str]) -> None:
        told.append(("disable", names))
        for name in names:
            manager.disable_client(name)

    def enable(names: list[str]) -> None:
        told.append(("enable", names))
        for name in names:
            manager.enable_client(name)

    log = Log()
    manager.disable_client("dommel")  # from before a restart: the log says otherwise now
    denylist = Denylist(Doorkeeper(log, clock), disable, enable)
    denylist.follow()
    assert told == [("enable", sorted(SITES))]
    assert manager.disabled_clients == set()
    denylist.follow()
    assert len(told) == 1, "nothing changed"
    log.change(("geul", SUSPENDED), ("amstel", REVOKED))
    denylist.follow()
    assert manager.disabled_clients == {"geul", "amstel"}
    log.change(("geul", SUSPENDED), ("amstel", REVOKED), ("geul", REINSTATED))
    denylist.follow()
    assert manager.disabled_clients == {"amstel"}
    log.standing = None
    with pytest.raises(LogError):
        denylist.follow()
    assert manager.disabled_clients == {"amstel"}
    again = ClientManager(project_name="Delta", min_num_clients=1, max_num_clients=9)
    again.set_disabled_clients_file(str(tmp_path / "disabled_clients.json"))
    assert again.is_client_disabled("amstel"), "also after a restart, before the log is asked"


class Engine:
    """The part of NVFlare's server engine that the door asks."""

    def __init__(self, workspace: Path) -> None:
        self._workspace = workspace

    def get_workspace(self) -> Any:
        return self

    def get_startup_kit_dir(self) -> str:
        return str(self._workspace / "startup")

    def get_site_config_dir(self) -> str:
        return str(self._workspace / "local")


class Boot:
    """A server that answered somebody before it was told its certificate, as NVFlare leaves it then."""

    my_own_token_signature: str | None = "NA"  # noqa: S105  what NVFlare puts there


def test_the_server_signs_from_its_start_on(tmp_path: Path) -> None:
    key, certificate = KEYRING.sites["geul"]
    pem_key = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    for name, content in (
        ("server.key", pem_key),
        ("server.crt", certificate.public_bytes(serialization.Encoding.PEM)),
        ("rootCA.pem", KEYRING.root.public_bytes(serialization.Encoding.PEM)),
        (
            "fed_server.json",
            b'{"servers": [{"name": "Delta", "ssl_private_key": "server.key", "ssl_cert": "server.crt", '
            b'"ssl_root_cert": "rootCA.pem"}]}',
        ),
    ):
        (tmp_path / name).write_bytes(content)
    context, keeper, server = FLContext(), CredKeeper(), Boot()
    context.set_prop(FLContextKey.SITE_OBJ, server, private=True, sticky=False)
    assert keeper.get_id_asserter(context) is None, "NVFlare by itself cannot sign yet"
    let_sign(context, tmp_path)
    assert keeper.get_id_asserter(context).cn == "geul"
    assert server.my_own_token_signature is None, "it is made anew with the next message"


def test_without_its_door_the_server_does_not_start(tmp_path: Path) -> None:
    context = FLContext()
    context.set_prop(ReservedKey.ENGINE, Engine(tmp_path), private=True, sticky=False)
    fire_event_to_components(EventType.SYSTEM_BOOTSTRAP, [Door()], context)
    (error,) = context.get_prop(FLContextKey.EXCEPTIONS).values()
    assert isinstance(error, UnsafeComponentError), "what NVFlare's component_security_check ends the start for"
    assert "does not start without its door" in str(error)
