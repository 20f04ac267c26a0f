"""The log's pages and API: every entry with a proof that holds, and a contact sees the own hospital's alone."""

from __future__ import annotations

import base64

from audit.checkpoint import open_checkpoint
from audit.entry import Entry
from audit.merkle import leaf_hash, verify_consistency, verify_inclusion
from audit.note import VerifierKey
from tests.admin_api.web.conftest import Web

HASHES = list[bytes]


def _hashes(given: list[str]) -> HASHES:
    return [bytes.fromhex(each) for each in given]


def test_every_entry_is_proved_to_be_in_the_signed_tree(web: Web) -> None:
    client = web.signed_in("authority")
    page = client.get("/api/v1/log/entries", params={"limit": 200}).json()
    head = client.get("/api/v1/log/checkpoint").json()
    assert page["total"] == len(page["items"]) == head["size"]
    key = VerifierKey.parse(web.here.home.config().log_vkey)
    assert head["vkey"] == str(key)
    for line in page["items"]:
        entry = client.get(f"/api/v1/log/entries/{line['index']}").json()
        data = base64.b64decode(entry["data"])
        assert Entry.from_bytes(data).kind == entry["kind"] == line["kind"]
        assert entry["leaf"] == leaf_hash(data).hex()
        proof = client.get(f"/api/v1/log/entries/{line['index']}/proof").json()
        tree = open_checkpoint(proof["checkpoint"].encode(), key)
        verify_inclusion(line["index"], tree.size, leaf_hash(data), _hashes(proof["hashes"]), tree.root)


def test_a_later_tree_continues_an_earlier_one(web: Web) -> None:
    client = web.signed_in("authority")
    with web.here.home.log() as log:
        size = log.size
        roots = {at: log.root(at) for at in (1, 7, size)}
    for before, after in ((1, 7), (7, size), (size, size)):
        proof = client.get("/api/v1/log/consistency", params={"from": before, "to": after}).json()
        verify_consistency(before, after, _hashes(proof["hashes"]), roots[before], roots[after])
    for wrong in ({"from": 0, "to": 1}, {"from": 3, "to": 2}, {"from": 1, "to": size + 1}):
        answer = client.get("/api/v1/log/consistency", params=wrong)
        assert answer.status_code == 422
        assert answer.headers["content-type"] == "application/problem+json"


def test_a_contact_sees_what_is_about_the_own_hospital(web: Web) -> None:
    contact = web.signed_in("hospital_contact", hospital="amstel")
    everything = web.signed_in("authority").get("/api/v1/log/entries", params={"limit": 200}).json()
    own = contact.get("/api/v1/log/entries", params={"limit": 200}).json()["items"]
    seen = {line["index"] for line in own}
    assert 0 < len(seen) < everything["total"]
    for line in everything["items"]:
        expected = 200 if line["index"] in seen else 404
        assert contact.get(f"/api/v1/log/entries/{line['index']}").status_code == expected, line
    acceptances = [line for line in everything["items"] if line["kind"] == "site.accepted"]
    assert len([line for line in acceptances if line["index"] in seen]) == 1
    hidden = next(line["index"] for line in acceptances if line["index"] not in seen)
    assert contact.get(f"/log/{hidden}").status_code == 404
    assert contact.get(f"/log/{min(seen)}").status_code == 200


def test_the_pages_carry_what_the_browser_checks(web: Web) -> None:
    client = web.signed_in("privacy_officer")
    listed = client.get("/log", params={"kind": "site.accepted"})
    assert listed.status_code == 200
    assert "amstel accepted" in listed.text
    assert "round 1" not in listed.text
    entry = client.get("/log/0")
    assert f'data-verify-vkey="{web.here.home.config().log_vkey}"' in entry.text
    assert 'data-verify-step="witnesses"' in entry.text


def test_what_is_not_there_is_said_to_be_missing(web: Web) -> None:
    client = web.signed_in("authority")
    for path in ("/api/v1/log/entries/100000", "/api/v1/log/entries/100000/proof", "/log/100000"):
        assert client.get(path).status_code == 404
    assert client.get("/api/v1/log/entries/-1").status_code == 422
    assert web.client().get("/api/v1/log/entries").status_code == 401
    assert web.client().get("/log").headers["location"].startswith("/sign-in")


def test_witnesses_are_those_that_hospitals_enrolled(web: Web) -> None:
    found = web.signed_in("authority").get("/api/v1/log/witnesses").json()
    with web.here.home.log() as log:
        enrolled = {entry.body["witness"]: index for index, entry in log.entries(kind="witness.enrolled")}
    assert {each["name"]: each["entry"] for each in found} == enrolled
    assert enrolled
