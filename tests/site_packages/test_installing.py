"""Joining at the hospital: nothing is installed but the consortium's own reply to this very request."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from admin_api.onboarding import approve, read_request
from audit.certificates import certificate_pem
from jobs.federation import kit as kits
from jobs.federation import process
from jobs.federation.provisioning import open_root_key
from jobs.home import ConsortiumHome
from site_packages.errors import SitePackagesError
from site_packages.home import HomeError, SiteHome
from site_packages.installing import check_certificate, install, request_site
from site_packages.limits import Limits
from tests.admin_api.consortium_folder import NAME, PASSPHRASE, copied, enrol_site, found_at, refused, snapshot, zegel


@pytest.fixture(scope="module")
def founded(tmp_path_factory: pytest.TempPathFactory) -> ConsortiumHome:
    return found_at(tmp_path_factory.mktemp("founded") / "consortium")


@pytest.fixture
def home(founded: ConsortiumHome, tmp_path: Path) -> ConsortiumHome:
    return copied(founded.path, tmp_path / "consortium")


@pytest.fixture
def asked(home: ConsortiumHome, tmp_path: Path) -> tuple[SiteHome, Path]:
    """A hospital that asked, and the consortium's reply."""
    return ask(home, tmp_path, "amstel")


def ask(home: ConsortiumHome, folder: Path, name: str) -> tuple[SiteHome, Path]:
    site = SiteHome(folder / name)
    request = request_site(site, name=name, organisation=name, consortium=NAME)
    reply = folder / f"{name}.signed.zip"
    approve(home, read_request(request), passphrase=PASSPHRASE.encode(), out=reply)
    return site, reply


def refuse_install(site: SiteHome, reply: Path, fingerprint: str) -> str:
    before = snapshot(site.path)
    told = refused("site", "install", reply, "--home", site.path, "--fingerprint", fingerprint)
    assert snapshot(site.path) == before, "something was left behind"
    return told


def test_the_key_stays_and_is_the_hospitals_only(home: ConsortiumHome, tmp_path: Path) -> None:
    site = SiteHome(tmp_path / "amstel")
    request = request_site(site, name="amstel", organisation="amstel", consortium=NAME)
    with zipfile.ZipFile(request) as archive:
        assert all(b"PRIVATE KEY" not in archive.read(name) for name in archive.namelist())
    modes = {path: oct(mode) for path, (mode, _) in snapshot(site.path).items() if mode not in (0o600, 0o700)}
    assert modes == {}
    assert site.identity().root_fingerprint is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "two words"}, "name"),
        ({"organisation": "with-hyphen"}, "with-hyphen"),
        ({"consortium": "../up"}, "project"),
    ],
)
@pytest.mark.parametrize("existing", [False, True])
def test_a_request_that_cannot_be_made_leaves_nothing(
    tmp_path: Path, change: dict[str, str], message: str, existing: bool
) -> None:
    folder = tmp_path / "site"
    if existing:
        folder.mkdir()
        Limits(maximum_rounds=7).write(folder / "limits.json")
    before = snapshot(tmp_path)
    values = {"name": "amstel", "organisation": "amstel", "consortium": NAME} | change
    told = refused(
        *("site", "request", "--home", folder, "--name", values["name"]),
        *("--organisation", values["organisation"], "--consortium", values["consortium"]),
    )
    assert message in told
    after = snapshot(tmp_path)
    after.pop(str(folder), None), before.pop(str(folder), None)  # the folder itself is closed to others
    assert after == before


def test_a_folder_belongs_to_one_hospital(home: ConsortiumHome, tmp_path: Path) -> None:
    site = enrol_site(home, "amstel", tmp_path / "amstel")
    before = snapshot(site.path)
    arguments = ("--name", "berkel", "--organisation", "berkel", "--consortium", NAME)
    assert "already belongs to amstel; choose another --home" in refused(
        "site", "request", "--home", site.path, *arguments
    )
    assert snapshot(site.path) == before
    file = tmp_path / "file"
    file.write_text("mine", encoding="utf-8")
    assert f"{file} is a file" in refused("site", "request", "--home", file, *arguments)
    assert file.read_text(encoding="utf-8") == "mine"


def test_limits_the_hospital_already_set_are_kept(tmp_path: Path) -> None:
    folder = tmp_path / "site"
    folder.mkdir()
    Limits(maximum_rounds=7).write(folder / "limits.json")
    request_site(SiteHome(folder), name="amstel", organisation="amstel", consortium=NAME)
    assert SiteHome(folder).limits().maximum_rounds == 7


def test_another_or_no_fingerprint_installs_nothing(asked: tuple[SiteHome, Path]) -> None:
    zeros = "0" * 64
    for fingerprint in ("", " ", "sha256:", f"sha256:{zeros}", zeros, "yes", f"sha256:{zeros[1:]}", f"md5:{zeros}"):
        told = refuse_install(*asked, fingerprint)
        assert "fingerprint" in told
        assert asked[0].identity().root_fingerprint is None


def test_a_fingerprint_may_be_spelled_as_tools_do(home: ConsortiumHome, asked: tuple[SiteHome, Path]) -> None:
    config = home.config()
    digits = config.root_fingerprint.removeprefix("sha256:")
    colons = ":".join(digits[i : i + 2] for i in range(0, 64, 2))
    padded = f" {config.root_fingerprint}\n"
    for spelled in (digits, config.root_fingerprint, digits.upper(), colons, config.nvflare_fingerprint, padded):
        install(*asked, fingerprint=spelled)
        assert asked[0].identity().root_fingerprint == config.root_fingerprint
        shutil.rmtree(asked[0].kit)


def rewritten(reply: Path, change: Callable[[dict[str, bytes]], None]) -> Path:
    with zipfile.ZipFile(reply) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    change(members)
    with zipfile.ZipFile(reply, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return reply


def test_a_changed_reply_installs_nothing(home: ConsortiumHome, asked: tuple[SiteHome, Path], tmp_path: Path) -> None:
    site, reply = asked
    fingerprint = home.config().root_fingerprint
    good = reply.read_bytes()
    _, other = ask(home, tmp_path, "berkel")
    with zipfile.ZipFile(other) as archive:
        others = {name: archive.read(name) for name in archive.namelist()}

    def endpoint(members: dict[str, bytes]) -> None:
        members["signed.json"] = members["signed.json"].replace(b"localhost", b"elsewhere")

    def certificate(members: dict[str, bytes]) -> None:
        members["amstel.crt"] = others["berkel.crt"]

    def signature(members: dict[str, bytes]) -> None:
        members["signed.json.sig"] = others["signed.json.sig"]

    def added_key(members: dict[str, bytes]) -> None:
        members["client.key"] = (site.key_folder / "amstel.key").read_bytes()

    def added_path(members: dict[str, bytes]) -> None:
        members["../../evil.py"] = b"print()"

    for change in (endpoint, certificate, signature, added_key, added_path):
        reply.write_bytes(good)
        refuse_install(site, rewritten(reply, change), fingerprint)
    for data in (b"", b"not a zip", good[: len(good) // 2]):
        reply.write_bytes(data)
        refuse_install(site, reply, fingerprint)
    reply.unlink()
    assert reply.name in refuse_install(site, reply, fingerprint)
    assert list(tmp_path.rglob("evil.py")) == []


def test_another_hospitals_reply_installs_nothing(home: ConsortiumHome, tmp_path: Path) -> None:
    site, _ = ask(home, tmp_path, "amstel")
    _, other = ask(home, tmp_path, "berkel")
    told = refuse_install(site, other, home.config().root_fingerprint)
    assert "berkel" in told


def test_another_consortiums_reply_installs_nothing(
    asked: tuple[SiteHome, Path], home: ConsortiumHome, tmp_path: Path
) -> None:
    """A whole consortium of the same name, by somebody in the middle of the mail."""
    (tmp_path / "middle").mkdir()
    middle = found_at(tmp_path / "middle" / "consortium")
    site, _ = asked
    reply = tmp_path / "middle" / "amstel.signed.zip"
    request = next(site.key_folder.glob("*.request.zip"))
    approve(middle, read_request(request), passphrase=PASSPHRASE.encode(), out=reply)
    told = refuse_install(site, reply, home.config().root_fingerprint)
    assert "fingerprint does not match" in told


def test_a_kit_is_installed_once(home: ConsortiumHome, asked: tuple[SiteHome, Path]) -> None:
    fingerprint = home.config().root_fingerprint
    install(*asked, fingerprint=fingerprint)
    assert f"{asked[0].kit} is installed already" in refuse_install(*asked, fingerprint)


def test_the_installed_kit_is_hardened(home: ConsortiumHome, tmp_path: Path) -> None:
    site = enrol_site(home, "amstel", tmp_path / "amstel")
    kits.check_hardened(site.kit, classes=kits.SITE_CLASSES)
    local = site.kit / "local"
    resources = json.loads((local / "resources.json").read_text(encoding="utf-8"))
    assert resources["class_allow_list"] == [
        "site_packages.federation.ParticipantComponent",
        "nvflare.collab.runtime.executor.CollabExecutor",
    ]
    assert resources["class_list_enforcement_mode"] == "enforce"
    assert resources["allow_log_streaming"] is False
    assert "log" not in json.dumps([part["path"] for part in resources["components"]]).replace("class_", "")
    rights = json.loads((local / "authorization.json").read_text(encoding="utf-8"))["permissions"]
    assert sorted(rights) == ["lead", "member", "org_admin", "project_admin"]
    assert {role: (each["byoc"], each["shell_commands"]) for role, each in rights.items()} == dict.fromkeys(
        rights, ("none", "none")
    )
    assert not (local / "custom").exists()
    modes = {path: oct(mode) for path, (mode, _) in snapshot(site.path).items() if mode not in (0o600, 0o700)}
    assert modes == {}
    assert json.loads((local / kits.SETTINGS_FILE).read_text(encoding="utf-8")) == {"site_home": str(site.path)}


def test_a_removed_kit_can_be_installed_again(home: ConsortiumHome, asked: tuple[SiteHome, Path]) -> None:
    install(*asked, fingerprint=home.config().root_fingerprint)
    first = snapshot(asked[0].kit)
    shutil.rmtree(asked[0].kit)
    install(*asked, fingerprint=home.config().root_fingerprint)
    assert snapshot(asked[0].kit).keys() == first.keys()


# -- start


def reissued(home: ConsortiumHome, site: SiteHome, first: datetime, last: datetime) -> None:
    """Put a certificate with another validity into the kit, signed by the same root."""
    old = site.certificate()
    root_key = open_root_key(home.ca, PASSPHRASE.encode())
    builder = (
        x509.CertificateBuilder()
        .subject_name(old.subject)
        .issuer_name(old.issuer)
        .public_key(old.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(first)
        .not_valid_after(last)
    )
    for extension in old.extensions:
        builder = builder.add_extension(extension.value, extension.critical)
    certificate = builder.sign(root_key, hashes.SHA256())
    (site.kit / "startup" / "client.crt").write_text(certificate_pem(certificate), encoding="ascii")


def refuse_start(site: SiteHome) -> str:
    before = snapshot(site.path)
    told = refused("site", "start", "--home", site.path)
    assert snapshot(site.path) == before
    assert process.find(site.kit) is None
    return told


@pytest.mark.parametrize(("first", "last"), [(-30, -1), (1, 30)], ids=["expired", "not yet valid"])
def test_a_certificate_out_of_time_does_not_start(home: ConsortiumHome, tmp_path: Path, first: int, last: int) -> None:
    site = enrol_site(home, "amstel", tmp_path / "amstel")
    now = datetime.now(UTC)
    root_begins = home.root().not_valid_before_utc
    reissued(home, site, max(root_begins, now + timedelta(days=first)) if first > 0 else now + timedelta(days=first),
             now + timedelta(days=last))  # fmt: skip
    told = refuse_start(site)
    assert "certificate of amstel: expected a time from" in told
    assert "Ask the consortium for a new certificate." in told


def test_status_tells_when_to_renew(home: ConsortiumHome, tmp_path: Path) -> None:
    site = enrol_site(home, "amstel", tmp_path / "amstel")
    result = zegel("site", "status", "--home", site.path)
    assert result.exit_code == 1
    assert "amstel is not running." in result.stdout
    assert "Renew it now" not in result.stdout
    now = datetime.now(UTC)
    reissued(home, site, home.root().not_valid_before_utc, now + timedelta(days=10, hours=1))
    result = zegel("site", "status", "--home", site.path)
    assert "10 days. Renew it now: `zegel site renew`." in result.stdout
    begin = home.root().not_valid_before_utc
    reissued(home, site, begin, begin)  # over as soon as it began
    result = zegel("site", "status", "--home", site.path)
    assert f"Certificate ended on {begin:%Y-%m-%d}: `zegel site renew`." in result.stdout
    assert json.loads(zegel("site", "status", "--home", site.path, "--json").stdout)["certificate_days"] == -1


def test_a_replaced_root_does_not_start(home: ConsortiumHome, tmp_path: Path) -> None:
    site = enrol_site(home, "amstel", tmp_path / "amstel")
    (tmp_path / "middle").mkdir()
    middle = found_at(tmp_path / "middle" / "consortium")
    (site.kit / "startup" / "rootCA.pem").write_bytes((middle.ca / "rootCA.pem").read_bytes())
    assert "not issued by the root" in refuse_start(site) or "not signed by the root" in refuse_start(site)
    other = enrol_site(middle, "amstel", tmp_path / "middle" / "amstel")
    for name in ("rootCA.pem", "client.crt", "client.key"):  # a whole identity under the other root
        shutil.copy(other.kit / "startup" / name, site.kit / "startup" / name)
    told = refuse_start(site)
    assert "rootCA.pem is not the root that was installed" in told
    assert home.config().root_fingerprint in told


def test_another_hospitals_certificate_does_not_start(home: ConsortiumHome, tmp_path: Path) -> None:
    site = enrol_site(home, "amstel", tmp_path / "amstel")
    other = enrol_site(home, "berkel", tmp_path / "berkel")
    shutil.copy(other.kit / "startup" / "client.crt", site.kit / "startup" / "client.crt")
    assert "the certificate is for berkel, this is amstel" in refuse_start(site)


def test_a_loosened_kit_or_wrong_limits_do_not_start(home: ConsortiumHome, tmp_path: Path) -> None:
    site = enrol_site(home, "amstel", tmp_path / "amstel")
    (site.kit / "startup" / "client.key").chmod(0o644)
    assert "client.key can be read by others (mode 644, expected 600)" in refuse_start(site)
    (site.kit / "startup" / "client.key").chmod(0o600)
    (site.path / "limits.json").write_text("{}", encoding="utf-8")
    assert "limits.json: expected exactly the fields" in refuse_start(site)


def test_what_is_not_installed_is_told(tmp_path: Path) -> None:
    assert "is not a hospital's folder; begin with `zegel site request`" in refused("site", "start", "--home", tmp_path)
    site = SiteHome(tmp_path / "amstel")
    request_site(site, name="amstel", organisation="amstel", consortium=NAME)
    for command in ("start", "status"):
        assert "run `zegel site install`" in refused("site", command, "--home", site.path)
    with pytest.raises(HomeError, match="run `zegel site install`"):
        site.root()
    with pytest.raises(SitePackagesError):
        check_certificate(site.kit, "amstel", at=None)


def test_a_failure_while_hardening_installs_nothing(
    home: ConsortiumHome, asked: tuple[SiteHome, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise OSError("no space left on device")

    site, reply = asked
    monkeypatch.setattr(kits, "harden", stop)
    told = refused("site", "install", reply, "--home", site.path, "--fingerprint", home.config().root_fingerprint)
    assert "no space left" in told
    assert not site.kit.exists()
    assert site.identity().root_fingerprint is None
    assert [path for path in site.path.iterdir() if path.name.startswith("tmp")] == []
    monkeypatch.undo()
    install(site, reply, fingerprint=home.config().root_fingerprint)
    assert os.access(site.kit, os.R_OK)
