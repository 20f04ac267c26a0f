"""A plan from its draft to its approval, by the API with passkeys and by the pages; who may do and see what."""

from __future__ import annotations

from typing import Any

import pytest

from admin_api.planning import propose
from audit.canonical import digest_of
from audit.entry import PLAN_PROPOSED
from jobs.plan import Plan
from tests.admin_api.consortium_folder import EVALUATOR, TRAINERS, opened, plan_of
from tests.admin_api.web.certificates.cast import sent, signed
from tests.admin_api.web.crew import Office, computed, posted

TERMS: dict[str, Any] = {
    "sites": list(TRAINERS),
    "epsilon": 6.0,
    "delta": 1e-5,
    "rounds": 4,
    "nominal_patients": 300,
}
WISH: dict[str, Any] = {**TERMS, "name": "autumn-2026", "labels": ["i10", "K40"], "evaluation_sites": [EVALUATOR]}
UNKNOWN = "sha256:" + "0" * 64


@pytest.fixture(scope="module")
def proposed(desk_office: Office) -> str:
    """The hash of a plan that an admin proposed with a passkey."""
    answer = computed(lambda: signed(desk_office.ada, "plan-proposal", **WISH))
    assert answer.status_code == 200, answer.text
    found: str = answer.json()["result"]["plan_hash"]
    return found


def test_a_plan_is_proposed_with_a_passkey(desk_office: Office, proposed: str) -> None:
    client = desk_office.ada.client
    view = client.get(f"/api/v1/plans/{proposed}").json()
    assert (view["title"], view["state"], view["proposer"]) == ("autumn-2026", "proposed", desk_office.ada.who())
    assert view["text"]["label_space"] == ["I10", "K40"]
    assert view["needs"] == [{"role": "privacy_officer", "met": False, "by": None}]
    plan = Plan.from_bytes(desk_office.here.home.artifacts().get(proposed))
    assert plan.evaluation_sites == tuple(sorted((*TRAINERS, EVALUATOR)))
    with desk_office.here.home.log() as log:
        entry = [entry for _, entry in log.entries(kind=PLAN_PROPOSED)][-1]
    assert entry.signed("proposal").passkey is not None


def test_the_forecast_of_terms_is_that_of_the_plan(desk_office: Office, proposed: str) -> None:
    client = desk_office.ada.client
    asked = computed(lambda: desk_office.ada.post("/plans/forecast", TERMS))
    assert asked.status_code == 200, asked.text
    of_terms = asked.json()
    of_plan = computed(lambda: client.get(f"/api/v1/plans/{proposed}/forecast")).json()
    for name in ("epsilon_model", "epsilon_server", "epsilon_everyone", "noise_multiplier", "odds", "curve"):
        assert of_terms[name] == of_plan[name], name
    assert 5.9 < of_plan["epsilon_server"] <= 6.0 < of_plan["epsilon_everyone"]
    assert of_plan["curve"] == sorted(of_plan["curve"])
    effects = {(each["site"], each["cohort"]): each for each in of_plan["effects"]}
    assert effects["amstel", "training"]["budget"] == 100
    assert effects["amstel", "training"]["plan"] == pytest.approx(of_plan["budget_needed"], abs=1e-3)
    assert (EVALUATOR, "training") not in effects
    assert effects[EVALUATOR, "validation"]["fits"]


def test_terms_that_cannot_be_had_name_the_field(desk_office: Office) -> None:
    for changes, words in (
        ({"sites": ["amstel", "berkel"]}, "sites"),
        ({"sites": ["amstel", "amstel", "berkel"]}, "named twice"),
        ({"colluders": 3}, "nobody's noise would be left"),
        ({"epsilon": None}, "epsilon or a noise_multiplier"),
        ({"delta": 1.0}, "delta"),
        ({"hospitals": 4}, "hospitals"),
    ):
        answer = desk_office.ada.post("/plans/forecast", {**TERMS, **changes})
        assert answer.status_code == 422, answer.text
        assert words in answer.text
    page = desk_office.ada.client.get("/plans/forecast/result", params={"sites": ["amstel"], "epsilon": "3"})
    assert page.status_code == 200
    assert "These terms cannot be had" in page.text


def test_a_proposer_does_not_decide_and_an_officer_does(desk_office: Office, proposed: str) -> None:
    ada, pieter = desk_office.ada, desk_office.pieter
    refused = signed(ada, "plan-decision", plan_hash=proposed, decision="approve", reason="mine")
    assert refused.status_code == 409, refused.text
    assert signed(pieter, "plan-decision", plan_hash=proposed, decision="refuse").status_code == 422
    assert signed(pieter, "plan-decision", plan_hash=UNKNOWN, decision="approve").status_code == 404
    assert "You proposed it" in ada.client.get(f"/plans/{proposed}").text

    done = signed(pieter, "plan-decision", plan_hash=proposed, decision="refuse", reason="Too soon")
    assert done.status_code == 200, done.text
    view = pieter.client.get(f"/api/v1/plans/{proposed}").json()
    assert (view["state"], view["decisions"][-1]["reason"]) == ("refused", "Too soon")

    done = signed(pieter, "plan-decision", plan_hash=proposed, decision="approve", reason="Now it fits")
    assert done.status_code == 200, done.text
    view = pieter.client.get(f"/api/v1/plans/{proposed}").json()
    assert view["state"] == "approved"
    assert [each["decision"] for each in view["decisions"]] == ["refuse", "approve"]
    assert view["needs"] == [{"role": "privacy_officer", "met": True, "by": "Petra Privacy"}]


def test_the_page_leads_to_the_signature(desk_office: Office, proposed: str) -> None:
    client = desk_office.pieter.client
    fields = {"plan_hash": proposed, "decision": "refuse", "reason": "Look again"}
    answer = posted(client, "/acts/new/plan-decision", fields, "decide-1")
    assert answer.status_code == 303, answer.text
    page = client.get(answer.headers["location"])
    assert page.status_code == 200
    for words in ("Refuse plan autumn-2026", "Look again", "amstel, berkel and dommel train a model of 2 codes."):
        assert words in page.text
    wrong = posted(client, "/acts/new/plan-decision", {**fields, "reason": ""}, "decide-2")
    assert wrong.status_code == 422
    assert "give a reason" in wrong.text


def test_a_proposal_says_what_is_wrong_before_anything_is_signed(desk_office: Office) -> None:
    ada = desk_office.ada
    for changes, status, words in (
        ({"labels": ["I10", "I1"]}, 422, "three-character ICD-10 category"),
        ({"name": "a/b"}, 422, "name"),
        ({"estimator": "ridge", "noise_mode": "local", "dropouts": 1, "sites": ["x", "y", "z"],
          "nominal_patients": None}, 409, "no count of patients from x, y, z"),
        ({"predecessor": UNKNOWN}, 422, "no version"),
    ):  # fmt: skip
        answer = ada.post("/acts/plan-proposal", {**WISH, **changes})
        assert answer.status_code == status, answer.text
        assert words in answer.text
    assert desk_office.somebody("consortium_admin").post(
        "/api/v1/acts/plan-proposal", json=WISH, headers={"Idempotency-Key": "k"}
    ).status_code == 409, "without a passkey nobody signs"  # fmt: skip


def test_drafts_are_changed_by_whoever_saw_the_last_version(desk_office: Office) -> None:
    ada = desk_office.ada
    made = sent(ada, "POST", "/plans/drafts", json={"name": "winter", "terms": {"epsilon": 3.0}})
    assert made.status_code == 201, made.text
    first, path = made.headers["etag"], f"/plans/drafts/{made.json()['id']}"
    assert sent(ada, "PUT", path, json={"name": "winter"}).status_code == 428
    changed = sent(ada, "PUT", path, etag=first, json={"name": "winter", "terms": {"epsilon": 2.0}})
    assert changed.status_code == 200
    assert sent(ada, "PUT", path, etag=first, json={"name": "mine"}).status_code == 412
    assert ada.client.get(f"/api/v1{path}").json()["terms"] == {"epsilon": 2.0}
    assert sent(ada, "POST", "/plans/drafts", json={"name": "x", "terms": {"secret": 1}}).status_code == 422
    assert "winter" in ada.client.get("/plans").text
    page = ada.client.get(f"/plans/new?draft={made.json()['id']}")
    assert 'value="2"' in page.text

    fields = {**WISH, "draft": made.json()["id"], "if_match": changed.headers["etag"], "labels": "I10\nK40"}
    saved = posted(ada.client, "/plans/drafts", fields, "draft-1")
    assert saved.status_code == 303, saved.text
    kept = ada.client.get(f"/api/v1{path}").json()
    assert kept["terms"]["labels"] == ["I10", "K40"]
    assert kept["version"] == 3
    assert posted(ada.client, "/plans/drafts", fields, "draft-2").status_code == 412
    assert sent(ada, "DELETE", path, etag=first).status_code == 412
    etag = ada.client.get(f"/api/v1{path}").headers["etag"]
    assert sent(ada, "DELETE", path, etag=etag).status_code == 204
    assert ada.client.get(f"/api/v1{path}").status_code == 404


def test_a_hospitals_contact_sees_the_plans_that_name_the_hospital(desk_office: Office, proposed: str) -> None:
    other = plan_of(name="elsewhere", sites=("amstel", "berkel", "dommel"), evaluation_sites=("amstel",))
    hash_ = propose(desk_office.here.home, other, opened(desk_office.here.home, desk_office.ran.people / "admin"))
    geul = desk_office.somebody("hospital_contact", hospital=EVALUATOR)
    listed = {each["plan_hash"] for each in geul.get("/api/v1/plans").json()["items"]}
    assert proposed in listed
    assert hash_ not in listed
    assert geul.get(f"/api/v1/plans/{hash_}").status_code == 404
    assert geul.get(f"/plans/{hash_}").status_code == 404
    assert geul.get(f"/plans/{proposed}").status_code == 200
    forecast = computed(lambda: geul.get(f"/api/v1/plans/{proposed}/forecast")).json()
    assert {each["site"] for each in forecast["effects"]} == {EVALUATOR}
    assert geul.get("/api/v1/plans/drafts").status_code == 403
    assert geul.get(f"/api/v1/plans/{UNKNOWN}").status_code == 404


@pytest.mark.parametrize("role", ["consortium_admin", "privacy_officer", "release_manager", "authority"])
def test_everybody_reads_plans_and_admins_alone_propose(desk_office: Office, proposed: str, role: str) -> None:
    client = desk_office.somebody(role)
    for path in ("/plans", f"/plans/{proposed}", f"/plans/{proposed}/forecast", "/plans/forecast"):
        assert client.get(path).status_code == 200, path
    assert client.get("/plans/new").status_code == (200 if role == "consortium_admin" else 403)
    start = client.post("/api/v1/acts/plan-proposal", json=WISH, headers={"Idempotency-Key": f"as-{role}"})
    assert start.status_code == (409 if role == "consortium_admin" else 403)


def test_plans_wait_for_those_who_decide(desk_office: Office) -> None:
    plan = plan_of(name="waits-for-you")
    home = desk_office.here.home
    propose(home, plan, opened(home, desk_office.ran.people / "admin"))
    assert "Plan waits-for-you waits for your decision." in desk_office.pieter.client.get("/").text
    assert "waits for your decision" not in desk_office.somebody("release_manager").get("/").text


def test_what_is_proposed_is_what_was_shown(desk_office: Office) -> None:
    """The bytes whose hash is signed are the plan's own, and stand in the act's statement."""
    answer = computed(lambda: desk_office.ada.post("/acts/plan-proposal", {**WISH, "name": "shown"}))
    assert answer.status_code == 201, answer.text
    body = answer.json()
    plan_hash = body["statement"]["subject"]["digest"]
    assert body["words"]["back"] == f"/plans/{plan_hash}"
    assert body["words"]["title"] == "Propose plan shown"
    again = desk_office.ada.post("/acts/plan-proposal", {**WISH, "name": "shown"}).json()
    assert again["statement"]["subject"]["digest"] == plan_hash, "the same wish is the same plan"
    assert plan_hash != digest_of(b"")
