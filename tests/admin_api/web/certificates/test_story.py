"""From a founded consortium to a hospital with its data announced: by the API alone, everybody with a passkey."""

from __future__ import annotations

import json
from pathlib import Path

from audit.certificates import CLIENT
from audit.entry import CERTIFICATE_ISSUED
from site_packages.home import SiteHome
from site_packages.installing import install
from tests.admin_api.consortium_folder import data_statement
from tests.admin_api.web.certificates.cast import (
    asked_at,
    compared,
    contact,
    first_admin,
    issued,
    officer,
    sent,
    signed,
    uploaded,
)
from tests.admin_api.web.sign_in.conftest import Door


def test_a_consortium_is_founded_and_a_hospital_joins(door: Door, tmp_path: Path) -> None:
    ada = first_admin(door)
    pieter = officer(door, ada)
    assert ada.client.get(f"/api/v1/people/{pieter.who()}").json()["signs"] == "signs"

    nel = contact(door, ada)
    page = nel.client.get("/api/v1/hospitals/amstel").json()
    assert [step["name"] for step in page["journey"] if step["state"] == "now"] == ["requested"]
    answer = uploaded(nel, "/hospitals/amstel/requests", asked_at(tmp_path))
    assert answer.status_code == 201, answer.text
    seen_by_nel = answer.json()
    seen_by_ada = ada.client.get(f"/api/v1/requests/{seen_by_nel['id']}").json()
    assert {check["state"] for check in seen_by_ada["checks"]} == {"passed", "waiting"}
    assert seen_by_ada["fingerprint"] is None, "the admin has to hear the last groups"
    assert seen_by_nel["fingerprint"].startswith("sha256:" + "".join(seen_by_ada["fingerprint_start"]))

    early = signed(ada, "request-decision", request=seen_by_ada["id"], approve=True)
    assert early.status_code == 409
    assert "compared" in early.json()["detail"]
    request = compared(ada, seen_by_ada, seen_by_nel["fingerprint"])
    assert request["next_step"] == "approve"
    alone = issued(ada, request)
    assert alone.status_code == 409, "two people of two organisations approve first"
    assert signed(ada, "request-decision", request=request["id"], approve=True).status_code == 200
    request = ada.client.get(f"/api/v1/requests/{request['id']}").json()
    assert request["next_step"] == "approve"
    assert issued(ada, request).status_code == 409
    assert signed(pieter, "request-decision", request=request["id"], approve=True).status_code == 200
    request = ada.client.get(f"/api/v1/requests/{request['id']}").json()
    assert request["next_step"] == "issue"
    assert len(request["decisions"]) == 2
    answer = issued(ada, request)
    assert answer.status_code == 201, answer.text
    assert answer.json()["entry"] is not None
    assert issued(ada, answer.json()).status_code == 409, "once only"

    reply = nel.client.get(f"/api/v1/hospitals/amstel/requests/{request['id']}/reply")
    assert reply.status_code == 200
    assert reply.headers["content-disposition"] == 'attachment; filename="amstel.signed.zip"'
    site = SiteHome(tmp_path / "amstel")
    path = tmp_path / "amstel.signed.zip"
    path.write_bytes(reply.content)
    install(site, path, fingerprint=door.here.home.config().root_fingerprint)
    kept = door.here.home.path / "requests" / request["id"] / "amstel.signed.zip"
    assert kept.stat().st_mode & 0o777 == 0o600

    door.clock.forward(minutes=3)  # NVFlare took the time of its certificate from the machine's clock
    answer = uploaded(nel, "/hospitals/amstel/manifests", json.dumps(data_statement(site)).encode())
    assert answer.status_code == 201, answer.text
    page = nel.client.get("/api/v1/hospitals/amstel").json()
    assert [step["state"] for step in page["journey"]][:3] == ["done"] * 3
    assert [step["name"] for step in page["journey"] if step["entry"] is not None] == ["approved", "data"]
    assert page["patients"] == 100
    with door.here.home.log() as log:
        (entry,) = [e for _, e in log.entries(kind=CERTIFICATE_ISSUED) if e.body["role"] == CLIENT]
    assert len(entry.body["approvals"]) == 2
    assert [each["site"] for each in ada.client.get("/api/v1/hospitals").json()["items"]] == ["amstel"]

    answer = signed(ada, "certificate-status", holder="amstel", status="suspended", reason="a lost laptop")
    assert answer.status_code == 200, answer.text
    page = nel.client.get("/api/v1/hospitals/amstel").json()
    assert page["standing"] == "suspended"
    assert sent(ada, "GET", "/hospitals/amstel/certificates").json()[0]["reason"] == "a lost laptop"
