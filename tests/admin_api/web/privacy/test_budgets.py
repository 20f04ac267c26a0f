"""Budgets as hospitals stated them, what a plan would take, what leaves, and the audit somebody stands for."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest

from admin_api.planning import propose
from admin_api.web.privacy.budgets import CohortLine
from admin_api.web.privacy.pages import LEAVING_WORDS, _bars
from audit.canonical import canonical_json
from audit.entry import METRICS_REPORTED, SITE_ACCEPTED, Entry
from audit.errors import EntryError
from audit.statement import ACCEPTANCE
from jobs.leaves import LEAVES
from privacy.ledger import Ledger
from site_packages.limits import TRAINING, VALIDATION
from tests.admin_api.consortium_folder import EVALUATOR, TRAINERS, now, opened, plan_of
from tests.admin_api.web.certificates.cast import signed
from tests.admin_api.web.crew import Office, computed, posted


def ledger_of(office: Office, site: str) -> Ledger:
    return Ledger.open(office.ran.sites / site / "ledger.db", clock=now)


def test_budgets_are_what_ledgers_say_and_hospitals_signed(privacy_office: Office) -> None:
    found = privacy_office.ada.client.get("/api/v1/privacy").json()
    lines = {(line["site"], line["cohort"]): line for line in found["items"]}
    assert set(lines) == {(site, cohort) for site in (*TRAINERS, EVALUATOR) for cohort in (TRAINING, VALIDATION)}
    for (site, cohort), line in lines.items():
        stands = ledger_of(privacy_office, site).price(cohort)
        assert line["source"] == "ledger"
        assert (line["budget"], line["delta"]) == (stands.budget, stands.delta)
        assert line["spent"] == pytest.approx(stands.spent, abs=1e-6)
        assert line["left"] == pytest.approx(line["budget"] - line["spent"] - line["reserved"])
        with privacy_office.here.home.log() as log:
            entry = Entry.from_bytes(log.entry_bytes(line["entry"]))
        assert entry.kind == METRICS_REPORTED
        assert entry.body["site"] == site
    assert lines["amstel", TRAINING]["spent"] > 0
    assert lines[EVALUATOR, TRAINING]["spent"] == 0


def test_how_it_was_spent_is_told_with_its_evidence(privacy_office: Office) -> None:
    found = privacy_office.ada.client.get("/api/v1/privacy/hospitals/amstel?limit=200").json()
    points = [point for point in found["points"]["items"] if point["cohort"] == TRAINING]
    assert [point["event"] for point in reversed(points)] == ["reserved", "spent", "stated"]
    stated = [point for point in reversed(points) if point["source"] == "ledger"]
    assert [point["spent"] for point in stated] == sorted(point["spent"] for point in stated)
    assert stated[0]["reserved"] > 0
    page = privacy_office.ada.client.get("/privacy/amstel").text
    assert "What is left for training patients" in page
    for point in points:
        assert f'href="/log/{point["entry"]}"' in page


def test_the_list_comes_in_pieces_sorted_and_searched(privacy_office: Office) -> None:
    client = privacy_office.ada.client
    whole = client.get("/api/v1/privacy?limit=200").json()
    sites = (*TRAINERS, EVALUATOR)
    assert (whole["total"], whole["next"]) == (2 * len(sites), None)
    assert [line["site"] for line in whole["items"]] == sorted(line["site"] for line in whole["items"])
    for sort, field in (("left", "left"), ("-spent", "spent")):
        pieces, after = [], ""
        while True:
            piece = client.get(f"/api/v1/privacy?sort={sort}&limit=3{after}").json()
            pieces += piece["items"]
            if piece["next"] is None:
                break
            after = f"&after={piece['next']}"
        assert sorted(map(str, pieces)) == sorted(map(str, whole["items"])), "nothing twice, nothing left out"
        assert [line[field] for line in pieces] == sorted(
            (line[field] for line in pieces), reverse=sort.startswith("-")
        )
    found = client.get("/api/v1/privacy?search=MSTE").json()
    assert {line["site"] for line in found["items"]} == {"amstel"}
    assert client.get("/api/v1/privacy?after=nonsense").status_code == 422
    assert client.get("/api/v1/privacy?sort=plan").status_code == 422


def test_the_sentence_is_about_all_hospitals_whatever_is_shown(privacy_office: Office) -> None:
    client = privacy_office.ada.client
    said = re.search(r'class="sentence">([^<]+)', client.get("/privacy").text)
    assert said is not None
    searched = client.get("/privacy?search=geul&sort=-left").text
    assert said[1] in searched
    assert 'href="/privacy/geul"' in searched
    assert 'href="/privacy/amstel"' not in searched
    assert 'aria-sort="descending"' in searched
    assert "name matches." in client.get("/privacy?search=nobody").text


def test_spreadsheets_hold_everything(privacy_office: Office) -> None:
    client = privacy_office.ada.client
    answer = client.get("/privacy/export/budgets.csv?sort=-spent")
    assert answer.headers["content-type"].startswith("text/csv")
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    items = client.get("/api/v1/privacy?sort=-spent&limit=200").json()["items"]
    assert [(row["site"], row["cohort"], float(row["left"])) for row in rows] == [
        (line["site"], line["cohort"], line["left"]) for line in items
    ]
    rows = list(csv.DictReader(io.StringIO(client.get("/privacy/amstel/points.csv").text)))
    points = client.get("/api/v1/privacy/hospitals/amstel?limit=200").json()["points"]["items"]
    assert [(row["when"], row["event"], int(row["entry"])) for row in rows] == [
        (point["when"], point["event"], point["entry"]) for point in points
    ]
    assert client.get("/privacy/nobody/points.csv").status_code == 404
    geul = privacy_office.somebody("hospital_contact", hospital=EVALUATOR)
    assert geul.get("/privacy/amstel/points.csv").status_code == 404
    rows = list(csv.DictReader(io.StringIO(geul.get("/privacy/export/budgets.csv").text)))
    assert {row["site"] for row in rows} == {EVALUATOR}


def test_a_waiting_plan_stands_beside_the_budgets(privacy_office: Office) -> None:
    home = privacy_office.here.home
    plan = plan_of(name="next", evaluation_sites=("amstel",))
    plan_hash = propose(home, plan, opened(home, privacy_office.ran.people / "admin"))
    client = privacy_office.ada.client
    found = client.get("/api/v1/privacy").json()
    assert (found["plan"], found["plan_title"], found["plan_exact"]) == (plan_hash, "next", False)
    lines = {(line["site"], line["cohort"]): line for line in found["items"]}
    assert lines["berkel", TRAINING]["plan"] == plan.epsilon
    assert lines["berkel", TRAINING]["fits"]
    assert lines["berkel", VALIDATION]["plan"] is None
    assert lines[EVALUATOR, TRAINING]["plan"] is None
    assert "next takes" in client.get("/privacy").text
    # Looked at once, its forecast is kept, and the figures are those that ledgers count.
    forecast = computed(lambda: client.get(f"/api/v1/plans/{plan_hash}/forecast")).json()
    found = client.get("/api/v1/privacy").json()
    assert found["plan_exact"]
    lines = {(line["site"], line["cohort"]): line for line in found["items"]}
    stands = ledger_of(privacy_office, "berkel").price(TRAINING, plan.training_events())
    assert lines["berkel", TRAINING]["plan"] == pytest.approx(stands.asked, abs=1e-3)
    assert forecast["budget_needed"] == pytest.approx(stands.asked, abs=1e-3)
    assert client.get("/api/v1/privacy?plan=sha256:" + "0" * 64).status_code == 404


def test_a_hospitals_contact_sees_the_own_budgets_only(privacy_office: Office) -> None:
    geul = privacy_office.somebody("hospital_contact", hospital=EVALUATOR)
    assert {line["site"] for line in geul.get("/api/v1/privacy").json()["items"]} == {EVALUATOR}
    assert geul.get(f"/api/v1/privacy/hospitals/{EVALUATOR}").status_code == 200
    for path in ("/api/v1/privacy/hospitals/amstel", "/privacy/amstel"):
        assert geul.get(path).status_code == 404
    page = geul.get("/privacy").text
    assert "amstel" not in page
    assert privacy_office.somebody("authority").get("/api/v1/privacy/hospitals/nobody").status_code == 404


def test_everything_that_leaves_is_shown(privacy_office: Office) -> None:
    client = privacy_office.somebody("hospital_contact", hospital="amstel")
    items = client.get("/api/v1/privacy/leaves").json()["items"]
    assert [(each["what"], each["how"]) for each in items] == [(each.what, each.how) for each in LEAVES]
    assert {each.what for each in LEAVES} == LEAVING_WORDS, "all of them can be translated"
    page = client.get("/privacy").text
    assert sum("spent and reserved" in each.what for each in LEAVES) == 1
    assert "how much of each is spent and reserved" in page


def audit_report(**changes: Any) -> dict[str, Any]:
    def check(name: str, measured: float, passed: bool = True) -> dict[str, Any]:
        return {"name": name, "passed": passed, "measured": measured, "claimed": 1.0, "lower": measured - 0.02,
                "upper": measured + 0.02, "p_value": 0.4, "false_alarm": 0.0005, "detail": "as claimed"}  # fmt: skip

    configuration = {
        "name": "dp-sgd", "description": "gradient steps", "estimator": "dp-sgd", "noise_mode": "distributed",
        "plan_hash": "sha256:" + "2" * 64, "epsilon": 1.0, "delta": 1e-5, "canaries": 400, "guesses": 80,
        "correct": 50, "lower_bound": 0.25, "checks": [check("noise-variance", 1.01)],
    }  # fmt: skip
    return {
        "schema": "zegel/privacy-audit/v1", "software": "zegel 0.4.0", "time": "2026-11-20T04:00:00Z", "quick": True,
        "passed": True, "claim": 1.0, "delta": 1e-5, "lower_bound": 0.25, "confidence": 0.95, "false_alarm": 0.002,
        "configurations": [configuration], **changes,
    }  # fmt: skip


def test_an_audit_is_logged_by_somebody_who_stands_for_it(privacy_office: Office) -> None:
    client = privacy_office.pieter.client
    assert "No audit was logged" in client.get("/privacy").text
    text = canonical_json(audit_report()).decode()
    done = signed(privacy_office.pieter, "privacy-audit", report=text)
    assert done.status_code == 200, done.text
    (line,) = client.get("/api/v1/privacy/audits").json()["items"]
    assert (line["claim"], line["lower_bound"], line["passed"], line["by_name"]) == (1.0, 0.25, True, "Petra Privacy")
    report = client.get(f"/api/v1/privacy/audits/{line['report']}").json()
    assert report["configurations"][0]["checks"][0]["measured"] == 1.01
    for path in ("/privacy", f"/privacy/audits/{line['report']}"):
        page = client.get(path)
        assert page.status_code == 200
        assert "Variance of the released noise" in page.text
    assert client.get("/api/v1/privacy/audits/sha256:" + "0" * 64).status_code == 404


@pytest.mark.parametrize(
    ("report", "words"),
    [
        ("not JSON", "unchanged"),
        (json.dumps({"schema": "other"}, separators=(",", ":")), "expected schema"),
        (canonical_json(audit_report(time="2036-01-01T00:00:00Z")).decode(), "dated 2036"),
    ],
)
def test_what_is_no_report_is_refused(privacy_office: Office, report: str, words: str) -> None:
    answer = privacy_office.pieter.post("/acts/privacy-audit", {"report": report})
    assert answer.status_code == 409, answer.text
    assert words in answer.json()["detail"]


def test_an_admin_stands_for_no_audit(privacy_office: Office) -> None:
    assert privacy_office.ada.post("/acts/privacy-audit", {"report": "{}"}).status_code == 403
    page = privacy_office.ada.client.get("/privacy").text
    assert "Log an audit" not in page
    form = posted(privacy_office.pieter.client, "/acts/new/privacy-audit", {"report": "{}"}, "audit-1")
    assert form.status_code == 409


def test_of_many_budgets_those_with_the_least_left_are_drawn() -> None:
    lines = [
        CohortLine(
            site=f"h{number:03}", cohort=TRAINING, budget=10.0, delta=1e-5, spent=number / 20, reserved=0.0,
            left=10 - number / 20, source="ledger", when=now(), entry=number, plan=1.0, fits=number != 7,
        )
        for number in range(100)
    ]  # fmt: skip
    chart = _bars(lines)
    assert chart is not None
    labels = [row["label"] for row in chart.table.rows]
    assert labels == ["h007, training", *(f"h{number:03}, training" for number in range(99, 88, -1))]
    assert chart.table.caption == "The 12 of 100 budgets with the least left"


def acceptance_of(office: Office) -> dict[str, Any]:
    with office.here.home.log() as log:
        entry = next(entry for _, entry in log.entries(kind=SITE_ACCEPTED))
    value: dict[str, Any] = json.loads(json.dumps(dict(entry.body)))
    assert value["acceptance"]["statement"]["type"] == ACCEPTANCE
    return value


@pytest.mark.parametrize(
    "budgets",
    [
        "all",
        [{"cohort": "training"}],
        [{"cohort": "training", "epsilon": -1, "delta": 1e-5, "spent": 0, "reserved": 0}],
        [{"cohort": "training", "epsilon": 1, "delta": 2, "spent": 0, "reserved": 0}],
        [{"cohort": "training", "epsilon": 1, "delta": 1e-5, "spent": "0", "reserved": 0}],
        [{"cohort": "training", "epsilon": 1, "delta": 1e-5, "spent": 0, "reserved": 0, "patients": 3}],
    ],
)
def test_a_budget_of_another_form_does_not_enter_the_log(privacy_office: Office, budgets: object) -> None:
    body = acceptance_of(privacy_office)
    body["acceptance"]["statement"]["budgets"] = budgets
    with pytest.raises(EntryError, match="budgets"):
        Entry(SITE_ACCEPTED, now(), body)


def test_statements_of_earlier_versions_say_nothing_about_budgets(privacy_office: Office) -> None:
    body = acceptance_of(privacy_office)
    del body["acceptance"]["statement"]["budgets"]
    assert Entry(SITE_ACCEPTED, now(), body).body == body


def test_without_a_statement_the_log_is_added_up(tmp_path: Path, privacy_office: Office) -> None:
    from dataclasses import replace

    from admin_api.reading.privacy import listed
    from admin_api.web.privacy.budgets import _line, sentence

    known = next(each for each in listed(privacy_office.here.reading) if each.site == "amstel")
    silent = replace(known, budget=None, budget_delta=None, ledger_spent=None, ledger_reserved=None, stated_entry=None)
    line = _line(silent, None)
    assert (line.source, line.budget, line.left, line.fits, line.spent) == ("log", None, None, None, known.spent)
    assert "No hospital states its budget" in sentence([line], None)
