"""An office with a release manager besides, and a release that its admin proposed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.admin_api.conftest import AfterRun
from tests.admin_api.consortium_folder import RUN
from tests.admin_api.web.certificates.cast import signed
from tests.admin_api.web.crew import Office, office, with_certificate
from tests.admin_api.web.sign_in.visitor import Visitor


@dataclass(frozen=True)
class Board:
    """Those who decide about a release, and its name."""

    office: Office
    rosa: Visitor
    name: str

    def approved(self) -> None:
        """Two organisations approve."""
        for who in (self.rosa, self.office.pieter):
            answer = signed(who, "release-decision", release=self.name, decision="approve", reason="gates passed")
            assert answer.status_code == 200, answer.text

    def certified(self) -> bytes:
        """The dossier, after two organisations approved."""
        self.approved()
        done = self.rosa.post(f"/releases/{self.name}/certification", {})
        assert done.status_code == 200, done.text
        dossier: bytes = self.office.ada.client.get(f"/api/v1/releases/{self.name}/dossier").content
        return dossier


@contextmanager
def board_of(ran: AfterRun, folder: Path, name: str) -> Iterator[Board]:
    """A board over a copy of the consortium after a run."""
    with office(ran, folder) as opened:
        rosa = with_certificate(opened, "Rosa Release", "release_manager", "coding centre")
        answer = signed(opened.ada, "release-proposal", release=name, run=RUN)
        assert answer.status_code == 200, answer.text
        yield Board(opened, rosa, name)
