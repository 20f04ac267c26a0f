"""A real Chromium for tests: it starts the app on a free port, opens pages, holds a virtual passkey, runs axe.

    with serving(app) as address, chromium() as browser, visiting(browser, address) as visit:
        visit.go("/gallery")
        assert visit.faults == []
        assert visit.accessibility() == []

Chromium is Debian's (`apt-get install chromium`), or what ZEGEL_CHROMIUM names. Where there is none the tests are
skipped and say so; with ZEGEL_REQUIRES_BROWSER=1, as in CI, they fail instead.
"""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from playwright.sync_api import Browser, CDPSession, ConsoleMessage, Page, Request, Response, expect, sync_playwright
from starlette.types import ASGIApp

AXE = Path(__file__).parent / "vendor" / "axe.min.js"
TAGS = ("wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice")
_QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--font-render-hinting=none",
)
PATIENCE_S = 60  # a loaded machine is slow; nothing here waits that long when all is well


def find_chromium() -> str:
    """The browser's path. Skips the test when there is none, or fails it when ZEGEL_REQUIRES_BROWSER is set."""
    named = os.environ.get("ZEGEL_CHROMIUM")
    found = named or shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is not None and Path(found).is_file():
        return found
    said = f"no Chromium at {named}" if named else "no Chromium on this machine: apt-get install chromium"
    if os.environ.get("ZEGEL_REQUIRES_BROWSER"):
        pytest.fail(f"{said}, and ZEGEL_REQUIRES_BROWSER asks for one")
    pytest.skip(said)


@contextmanager
def serving(app: ASGIApp, port: int = 0) -> Iterator[str]:
    """`app` on a free port of localhost while the block runs. Yields its address, http://localhost:<port>."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", port))
        listening.listen(64)
        config = uvicorn.Config(
            app, log_level="error", lifespan="auto", ws="none", timeout_graceful_shutdown=2, access_log=False
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, name="app under test")
        thread.start()
        try:
            yield f"http://localhost:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(PATIENCE_S)
            if thread.is_alive():
                raise RuntimeError("the app under test did not stop")


def free_port() -> int:
    """A port that was free a moment ago, for an app that must know its address before it starts."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


@contextmanager
def chromium() -> Iterator[Browser]:
    """A headless Chromium with a profile of its own, closed at the end. Skips or fails as `find_chromium` does."""
    path = find_chromium()
    with tempfile.TemporaryDirectory(prefix="zegel-chromium-") as folder, sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path,
            args=list(_QUIET),
            timeout=PATIENCE_S * 1000,
            # Its reports of crashes go beside its profile, not into the home of whoever runs the tests.
            env={**os.environ, "XDG_CONFIG_HOME": folder, "XDG_CACHE_HOME": folder},
        )
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Visit:
    """One person's browser window. `faults`: errors on the console, refused by the policy, or hosts besides our own."""

    page: Page
    address: str
    faults: list[str] = field(default_factory=list)
    loaded: dict[str, int] = field(default_factory=dict)  # path -> bytes of the body, uncompressed
    expected_statuses: set[int] = field(default_factory=set)  # answers that the test asks for, besides 2xx and 3xx

    def go(self, path: str) -> Response:
        """Open a page of the app and wait until it is quiet enough to look at."""
        response = self.page.goto(self.address + path, wait_until="load")
        if response is None:
            raise AssertionError(f"{path} gave no response")
        return response

    def accessibility(self, *, within: str | None = None) -> list[str]:
        """What axe finds against WCAG 2.2 AA and its best practices, one line each."""
        self.page.evaluate(AXE.read_text(encoding="utf-8"))
        options = {"runOnly": {"type": "tag", "values": list(TAGS)}, "resultTypes": ["violations"]}
        found = self.page.evaluate(
            "async ([within, options]) => (await axe.run(within ?? document, options)).violations", [within, options]
        )
        return [
            f"{one['id']}: {one['help']} at {node['target']}: {node['failureSummary']}"
            for one in found
            for node in one["nodes"]
        ]

    def overflow(self) -> int:
        """By how many pixels the page is wider than the window; 0 when nothing has to be scrolled sideways."""
        return int(self.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth"))

    def passkeys(self) -> VirtualAuthenticator:
        """A built-in authenticator that says yes: a passkey made by the page lives in it."""
        session = self.page.context.new_cdp_session(self.page)
        session.send("WebAuthn.enable")
        made = session.send(
            "WebAuthn.addVirtualAuthenticator",
            {
                "options": {
                    "protocol": "ctap2",
                    "transport": "internal",
                    "hasResidentKey": True,
                    "hasUserVerification": True,
                    "isUserVerified": True,
                    "automaticPresenceSimulation": True,
                }
            },
        )
        return VirtualAuthenticator(session, made["authenticatorId"])


@dataclass(frozen=True)
class VirtualAuthenticator:
    """Chromium's own stand-in for a passkey device (CDP domain WebAuthn)."""

    session: CDPSession
    id: str

    def credentials(self) -> list[dict[str, Any]]:
        """The passkeys it holds."""
        found = self.session.send("WebAuthn.getCredentials", {"authenticatorId": self.id})
        return list(found["credentials"])

    def verified(self, yes: bool) -> None:
        """Whether the person is recognised from now on."""
        self.session.send("WebAuthn.setUserVerified", {"authenticatorId": self.id, "isUserVerified": yes})


@contextmanager
def visiting(
    browser: Browser,
    address: str,
    *,
    width: int = 1440,
    height: int = 900,
    dark: bool = False,
    language: str = "en",
    scripts: bool = True,
) -> Iterator[Visit]:
    """A fresh window without cookies, closed at the end."""
    context = browser.new_context(
        viewport={"width": width, "height": height},
        color_scheme="dark" if dark else "light",
        locale={"en": "en-GB", "nl": "nl-NL"}[language],
        timezone_id="Europe/Amsterdam",
        java_script_enabled=scripts,
        reduced_motion="reduce",
    )
    context.set_default_timeout(PATIENCE_S * 1000)
    expect.set_options(timeout=PATIENCE_S * 1000)
    page = context.new_page()
    visit = Visit(page, address)

    def heard(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and not _expected(message.text, visit.expected_statuses):
            where = message.location.get("url", "")
            visit.faults.append(f"console {message.type}: {message.text} {where}".rstrip())

    def asked(request: Request) -> None:
        if not request.url.startswith((address, "data:", "blob:")):
            visit.faults.append(f"another host: {request.url}")

    page.on("console", heard)
    page.on("pageerror", lambda error: visit.faults.append(f"script error: {error}"))
    page.on("request", asked)
    try:
        yield visit
    finally:
        context.close()


def _expected(text: str, statuses: set[int]) -> bool:
    return any(f"status of {status} " in text for status in statuses)
