"""A hospital whose certificate counts no more, as the coordinator sees it; and a log that bars a finished round."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch

from audit.certificates import certificate_digest
from audit.entry import ROUND_ABORTED, ROUND_COMPLETED
from audit.errors import CertificateError
from audit.revocation import REINSTATED, REVOKED, SUSPENDED, Revocations, StatusChange
from jobs.errors import RunAborted, SignerBarred
from jobs.standing import Standing
from site_packages.simulation import Simulation, make_keyring
from tests.jobs.small_federation import NOW, SITES, bodies, clock, records, seeded, small_plan

torch.set_num_threads(1)
PLAN = small_plan(dropouts=1, rounds=2)
KEYRING = make_keyring("Delta", SITES, now=NOW)
DIGESTS = {site: certificate_digest(certificate) for site, (_, certificate) in KEYRING.sites.items()}


def changed(*changes: tuple[str, str]) -> Standing:
    """The standing after changes of hospitals' certificates, in this order."""
    return Standing(
        KEYRING.certificates,
        Revocations(
            tuple(StatusChange(number, DIGESTS[site], status) for number, (site, status) in enumerate(changes))
        ),
    )


def test_who_is_barred_and_until_when() -> None:
    assert changed().barred(at=NOW) == {}
    assert set(changed(("geul", SUSPENDED)).barred(at=NOW)) == {"geul"}
    assert changed(("geul", SUSPENDED), ("geul", REINSTATED)).barred(at=NOW) == {}
    barred = changed(("geul", REVOKED), ("amstel", SUSPENDED)).barred(at=NOW)
    assert "is revoked since entry 0" in barred["geul"]
    assert "is suspended since entry 1" in barred["amstel"]
    assert changed(("geul", REVOKED)).revoked_for_ever("geul")
    assert not changed(("geul", SUSPENDED)).revoked_for_ever("geul")
    assert not changed().revoked_for_ever("geul")
    assert not changed().revoked_for_ever("nobody")


@pytest.mark.parametrize("days", [-1, 31])
def test_a_certificate_out_of_time_bars_as_well(days: int) -> None:
    at = NOW + timedelta(days=days)
    barred = changed().barred(at=at)
    assert set(barred) == set(SITES)
    assert all("expected a time from" in reason for reason in barred.values())
    with pytest.raises(CertificateError, match="expected a time from"):
        changed().check(DIGESTS["geul"], at=at)


def test_a_certificate_of_nobody_is_not_known() -> None:
    with pytest.raises(CertificateError, match="was not issued by this consortium"):
        changed().check("sha256:" + "0" * 64, at=NOW)


def test_a_second_certificate_keeps_a_hospital_in() -> None:
    other = make_keyring("Delta", ("geul",), now=NOW)
    renewed = {**KEYRING.certificates, certificate_digest(other.sites["geul"][1]): other.sites["geul"][1]}
    standing = replace(changed(("geul", REVOKED)), certificates=renewed)
    assert standing.barred(at=NOW) == {}
    assert not standing.revoked_for_ever("geul")


class BarringSimulation(Simulation):
    """A log that bars the entry of one round, once the hospital's certificate was taken back."""

    barred_round = 2
    cut_power = False  # the first time the entry is to be logged

    def _record(self, kind: str, body: Mapping[str, Any]) -> int:
        if kind == ROUND_COMPLETED and body["round"] == self.barred_round:
            if self.cut_power:
                self.cut_power = False
                raise KeyboardInterrupt
            geul = certificate_digest(self.keyring.sites["geul"][1])
            revocations = Revocations((StatusChange(7, geul, REVOKED),))
            self.standing = replace(self.standing, revocations=revocations)
            raise SignerBarred("round.completed is not logged: geul")
        return super()._record(kind, body)


def barring(folder: Path) -> BarringSimulation:
    return BarringSimulation(
        plan=PLAN, records=records(SITES, patients=6, test=3), folder=folder, random_bytes=seeded(1), clock=clock
    )


@pytest.mark.parametrize("cut_power", [False, True])
def test_a_round_the_log_bars_is_lost_and_the_model_is_as_before(tmp_path: Path, cut_power: bool) -> None:
    whole = barring(tmp_path)
    whole.cut_power = cut_power
    if cut_power:  # between the durable state and the log's entry
        with pytest.raises(KeyboardInterrupt):
            whole.run()
        assert whole.states[-1].pending is not None
        assert whole.states[-1].finished == 2
    outcome = whole.run()
    done = {body["round"]: body for body in bodies(whole.entries, ROUND_COMPLETED)}
    lost = bodies(whole.entries, ROUND_ABORTED)
    assert sorted(done) == [1, 3]
    assert [body["round"] for body in lost] == [2]
    assert done[3]["version_in"] == done[1]["version_out"]
    assert done[3]["participants"] == list(SITES[:3])
    assert outcome.version == done[3]["version_out"]
    assert whole.states[-1].lost == (2,)


def test_a_certificate_that_ends_during_a_run_ends_that_hospitals_part(tmp_path: Path) -> None:
    whole = Simulation(
        plan=PLAN, records=records(SITES, patients=6, test=3), folder=tmp_path, random_bytes=seeded(1), clock=clock
    )
    short = make_keyring("Delta", ("geul",), now=NOW - timedelta(days=40)).sites["geul"][1]  # ended
    digest = certificate_digest(whole.keyring.sites["geul"][1])
    without = {each: value for each, value in whole.keyring.certificates.items() if each != digest}
    whole.standing = Standing({**without, certificate_digest(short): short})
    with pytest.raises(RunAborted, match=r"geul: certificate .* expected a time from"):
        whole.run()
