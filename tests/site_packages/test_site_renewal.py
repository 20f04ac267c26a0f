"""A hospital's certificate is renewed: both count meanwhile, one start changes over, a failure changes nothing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from admin_api.onboarding import approve, read_request
from admin_api.renewing import renew
from audit.certificates import certificate_digest, identity_of
from audit.signing_keys import load_private_key
from jobs.errors import ProvisioningError
from jobs.federation import kit as kits
from jobs.home import ConsortiumHome
from site_packages.home import CONNECTED_FILE, HomeError, SiteHome
from site_packages.installing import request_site
from site_packages.renewing import (
    GONE_BACK,
    RENEWED,
    WAITING,
    is_pending,
    is_staged,
    request_renewal,
    settle,
    stage,
    start_renewed,
    was_let_in,
)
from tests.admin_api.consortium_folder import (
    NAME,
    PASSPHRASE,
    copied,
    enrol_site,
    found_at,
    now,
    refused,
    snapshot,
    zegel,
)


@pytest.fixture(scope="module")
def joined(tmp_path_factory: pytest.TempPathFactory) -> tuple[ConsortiumHome, SiteHome, Path]:
    """A consortium, a hospital that asked for a renewal, and the reply. Read only."""
    folder = tmp_path_factory.mktemp("joined")
    home = found_at(folder / "consortium")
    site = enrol_site(home, "amstel", folder / "amstel")
    reply = folder / "renewal" / "amstel.signed.zip"
    reply.parent.mkdir()
    renew(home, read_request(request_renewal(site)), passphrase=PASSPHRASE.encode(), out=reply, valid_days=500)
    return home, site, reply


@pytest.fixture
def site(joined: tuple[ConsortiumHome, SiteHome, Path], tmp_path: Path) -> SiteHome:
    """A copy of the hospital of the test's own."""
    shutil.copytree(joined[1].path, tmp_path / "amstel")
    return SiteHome(tmp_path / "amstel")


@pytest.fixture
def reply(joined: tuple[ConsortiumHome, SiteHome, Path]) -> Path:
    return joined[2]


@pytest.fixture
def fingerprint(joined: tuple[ConsortiumHome, SiteHome, Path]) -> str:
    return joined[0].config().root_fingerprint


class Client:
    """What is started, with which certificate; the server lets in what a test says."""

    def __init__(self, site: SiteHome, *, lets_in: bool) -> None:
        self._site = site
        self._lets_in = lets_in
        self.started: list[str] = []
        self.stopped = 0

    def start(self) -> None:
        self.started.append(certificate_digest(self._site.certificate()))

    def stop(self) -> None:
        self.stopped += 1

    def let_in(self) -> bool:
        return self._lets_in

    def go(self, **changes: timedelta) -> str:
        at = now() + changes.get("later", timedelta())
        return start_renewed(self._site, start=self.start, stop=self.stop, let_in=self.let_in, now=at)


def test_nothing_changes_until_the_start(site: SiteHome, reply: Path, fingerprint: str) -> None:
    old, key = site.certificate(), (site.kit / "startup" / "client.key").read_bytes()
    before = snapshot(site.kit, site.key_folder)
    ends = stage(site, reply, fingerprint=fingerprint, now=now())
    assert snapshot(site.kit, site.key_folder) == before
    assert ends > old.not_valid_after_utc
    assert is_staged(site)
    assert is_pending(site)
    client = Client(site, lets_in=True)
    assert client.go() == RENEWED
    new = site.certificate()
    assert client.started == [certificate_digest(new)]
    assert (identity_of(new).name, identity_of(new).organisation) == ("amstel", "amstel")
    assert new.public_key() != old.public_key()
    assert (site.kit / "startup" / "client.key").read_bytes() != key
    assert site.signing_key().public_key() == new.public_key()
    assert not is_pending(site)
    assert not site.renewal.exists()
    assert load_private_key((site.key_folder / "amstel.key").read_bytes()).public_key() == new.public_key()
    kits.check_hardened(site.kit, classes=kits.SITE_CLASSES)
    assert {oct(mode) for mode, _ in snapshot(site.path).values()} <= {"0o600", "0o700"}
    old_key = key.strip()
    assert all(data is None or old_key not in data for _, data in snapshot(site.path).values()), "the old key is gone"


def test_what_is_not_let_in_is_gone_back_from(site: SiteHome, reply: Path, fingerprint: str) -> None:
    old = certificate_digest(site.certificate())
    stage(site, reply, fingerprint=fingerprint, now=now())
    before = snapshot(site.path)
    client = Client(site, lets_in=False)
    assert client.go() == GONE_BACK
    assert snapshot(site.path) == before
    assert client.stopped == 1
    assert client.started[1] == old != client.started[0]
    assert Client(site, lets_in=True).go() == RENEWED, "the next start tries again"


def test_an_old_certificate_that_has_ended_is_not_gone_back_to(site: SiteHome, reply: Path, fingerprint: str) -> None:
    stage(site, reply, fingerprint=fingerprint, now=now())
    client = Client(site, lets_in=False)
    assert client.go(later=timedelta(days=400)) == WAITING
    assert client.stopped == 0
    assert is_pending(site)
    assert not is_staged(site)
    assert Client(site, lets_in=True).go() == RENEWED


RENAMES = 5  # of a change-over: two for the kit, three at its end


@pytest.mark.parametrize("cut", range(RENAMES + 1))
@pytest.mark.parametrize("lets_in", [True, False])
def test_a_change_over_cut_off_anywhere_is_completed(
    site: SiteHome, reply: Path, fingerprint: str, cut: int, lets_in: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage(site, reply, fingerprint=fingerprint, now=now())
    real: Callable[[Path, Path], Path] = Path.rename
    done: list[Path] = []

    def rename(path: Path, target: Path) -> Path:
        if len(done) == cut:
            raise KeyboardInterrupt
        done.append(path)
        return real(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", rename)
        try:
            Client(site, lets_in=lets_in).go()
        except KeyboardInterrupt:
            pass
        else:
            assert len(done) == (RENAMES if lets_in else 4)
    settle(site)
    kits.check_hardened(site.kit, classes=kits.SITE_CLASSES)
    assert site.signing_key().public_key() == site.certificate().public_key(), "key and certificate belong together"
    assert site.key_folder.exists()
    if is_pending(site):
        assert Client(site, lets_in=True).go() == RENEWED
    assert not is_pending(site)
    assert site.certificate().not_valid_after_utc > now() + timedelta(days=400)
    assert not (site.path / "renewed").exists()


def test_asking_again_gives_the_same_request(site: SiteHome, reply: Path, fingerprint: str) -> None:
    before = snapshot(site.path)
    first = json.loads(zegel("site", "renew", "--home", site.path, "--json").stdout)
    assert json.loads(zegel("site", "renew", "--home", site.path, "--json").stdout) == first
    assert snapshot(site.path) == before
    stage(site, reply, fingerprint=fingerprint, now=now())
    assert "a renewed certificate waits for its first start" in refused("site", "renew", "--home", site.path)


def test_a_hospital_that_is_not_installed_cannot_renew(tmp_path: Path) -> None:
    assert "is not a hospital's folder" in refused("site", "renew", "--home", tmp_path)
    request_site(SiteHome(tmp_path / "s"), name="amstel", organisation="amstel", consortium=NAME)
    assert "run `zegel site install`" in refused("site", "renew", "--home", tmp_path / "s")


def test_replies_that_are_not_to_this_renewal(
    joined: tuple[ConsortiumHome, SiteHome, Path], site: SiteHome, fingerprint: str, tmp_path: Path
) -> None:
    other = SiteHome(tmp_path / "berkel")
    theirs = tmp_path / "berkel.signed.zip"
    home = copied(joined[0].path, tmp_path / "consortium")
    asked = request_site(other, name="berkel", organisation="berkel", consortium=NAME)
    approve(home, read_request(asked), passphrase=PASSPHRASE.encode(), out=theirs)
    first = joined[1].path.parent / "amstel.signed.zip"  # the reply to the first request, with the old key
    before = snapshot(site.path)
    for reply in (theirs, first):
        with pytest.raises((ProvisioningError, HomeError)):
            stage(site, reply, fingerprint=fingerprint, now=now())
        assert snapshot(site.path) == before


@pytest.mark.parametrize("days", [-1, 501])
def test_a_reply_out_of_time_is_not_kept(site: SiteHome, reply: Path, fingerprint: str, days: int) -> None:
    before = snapshot(site.path)
    with pytest.raises(HomeError, match="expected a time from"):
        stage(site, reply, fingerprint=fingerprint, now=now() + timedelta(days=days))
    assert snapshot(site.path) == before


def test_a_reply_from_another_root_is_not_kept(site: SiteHome, reply: Path) -> None:
    before = snapshot(site.path)
    with pytest.raises(ProvisioningError):
        stage(site, reply, fingerprint="sha256:" + "0" * 64, now=now())
    assert snapshot(site.path) == before


def test_the_commands_say_what_to_do_next(site: SiteHome, reply: Path, fingerprint: str) -> None:
    assert "the renewed one is here" not in zegel("site", "status", "--home", site.path).stdout
    result = zegel("site", "install", reply, "--home", site.path, "--fingerprint", fingerprint)
    assert result.exit_code == 0, result.output
    assert "`zegel site stop`, then `zegel site start`" in result.stdout
    value = json.loads(zegel("site", "status", "--home", site.path, "--json").stdout)
    assert value["certificate_ends_soon"] is False


def test_who_was_let_in_is_told_by_the_certificate(site: SiteHome) -> None:
    assert not was_let_in(site)
    (site.kit / CONNECTED_FILE).write_text(json.dumps({"certificate": "sha256:" + "0" * 64}), encoding="utf-8")
    assert not was_let_in(site)
    digest = certificate_digest(site.certificate())
    (site.kit / CONNECTED_FILE).write_text(json.dumps({"certificate": digest}), encoding="utf-8")
    assert was_let_in(site)


def test_nvflare_writes_the_note_when_it_was_let_in(site: SiteHome) -> None:
    from nvflare.apis.event_type import EventType
    from nvflare.apis.fl_constant import FLContextKey
    from nvflare.apis.fl_context import FLContext
    from nvflare.apis.workspace import Workspace

    from site_packages.connection import ConnectionNote

    context = FLContext()
    workspace = Workspace(str(site.kit), site_name="amstel")
    context.set_prop(FLContextKey.WORKSPACE_OBJECT, workspace, private=True, sticky=False)
    ConnectionNote().handle_event(EventType.AFTER_CLIENT_REGISTER, context)
    assert not was_let_in(site), "it got no token"
    context.set_prop(FLContextKey.CLIENT_TOKEN, "token", private=True, sticky=False)
    ConnectionNote().handle_event(EventType.BEFORE_CLIENT_REGISTER, context)
    assert not was_let_in(site)
    ConnectionNote().handle_event(EventType.AFTER_CLIENT_REGISTER, context)
    assert was_let_in(site)
