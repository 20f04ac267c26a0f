"""Where an auditor starts: search from anything, the way back from a version, the check of a dossier."""

from __future__ import annotations

import pytest

from tests.admin_api.consortium_folder import EVALUATOR, RUN, TRAINERS
from tests.admin_api.web.conftest import Web


def _version(web: Web) -> str:
    with web.here.home.log() as log:
        return next(str(entry.body["version"]) for _, entry in log.entries(kind="version.created"))


def test_search_finds_things_by_name_digest_code_and_number(web: Web) -> None:
    client = web.signed_in("authority")
    version = _version(web)
    for words, kind, href in (
        ("amstel", "hospital", "/hospitals/amstel"),
        (RUN, "run", f"/runs/{RUN}"),
        (version[7:19], "version", f"/trace/{version}"),
        ("I10", "code", "/authority?code=I10"),
        ("3", "entry", "/log/3"),
    ):
        found = client.get("/api/v1/search", params={"q": words}).json()
        assert (kind, href) in {(each["kind"], each["href"]) for each in found}, words
        page = client.get("/search", params={"q": words})
        assert page.status_code == 200
        assert f'href="{href}"' in page.text
    assert client.get("/api/v1/search", params={"q": "nothing goes by this"}).json() == []
    assert "Nothing found" in client.get("/search", params={"q": "nothing goes by this"}).text


def test_a_contact_finds_the_own_hospital_and_no_other(web: Web) -> None:
    contact = web.signed_in("hospital_contact", hospital="amstel")
    found = {each["name"] for words in TRAINERS for each in contact.get("/api/v1/search", params={"q": words}).json()}
    assert "amstel" in found
    assert not found & {"berkel", "dommel"}
    assert contact.get(f"/api/v1/trace/{_version(web)}").status_code == 403


def test_a_version_leads_back_to_its_run_hospitals_and_entries(web: Web) -> None:
    client = web.signed_in("authority")
    version = _version(web)
    trace = client.get(f"/api/v1/trace/{version}").json()
    (made,) = trace["versions"]
    assert made["version"] == version
    assert made["run"]["run"] == RUN
    assert made["run"]["plan_hash"] == web.ran.plan_hash
    assert {each["site"] for each in made["run"]["hospitals"]} == {*TRAINERS, EVALUATOR}
    assert {each["decision"] for each in made["run"]["decisions"]} == {"approve"}
    assert trace["origin"] is not None
    with web.here.home.log() as log:
        for report in made["reports"]:
            assert log.entry(report["entry"]).body["site"] == report["site"]
    page = client.get(f"/trace/{version}")
    for site in TRAINERS:
        assert site in page.text
    rounds = client.get(f"/trace/rounds/{RUN}")
    assert rounds.text.count("/log/") == made["run"]["completed"]
    assert "<html" not in rounds.text


@pytest.mark.parametrize("name", ["sha256:" + "0" * 64, "no-such-release"])
def test_what_nobody_made_has_no_trace(web: Web, name: str) -> None:
    client = web.signed_in("authority")
    assert client.get(f"/api/v1/trace/{name}").status_code == 404
    assert client.get(f"/trace/{name}").status_code == 404


def test_the_start_page_says_what_is_in_force_and_who_watches(web: Web) -> None:
    client = web.signed_in("authority")
    page = client.get("/authority", params={"code": "I10"})
    assert "No release is in force" in page.text
    assert web.here.home.config().log_vkey in page.text
    assert "cosigned up to entry" in page.text
    assert client.get("/authority", params={"code": "../etc"}).status_code == 422


def test_the_check_of_a_dossier_names_what_it_relies_on(web: Web) -> None:
    config = web.here.home.config()
    for role in ("authority", "hospital_contact"):
        page = web.signed_in(role).get("/verify", params={"release": "not-kept-here"})
        assert page.status_code == 200
        assert f'data-dossier-vkey="{config.log_vkey}"' in page.text
        assert f'data-dossier-root="{config.root_fingerprint}"' in page.text
        assert "dossier-fetch" not in page.text
    assert web.client().get("/verify").status_code == 303
