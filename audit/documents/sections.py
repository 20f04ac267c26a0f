"""Sections 1 to 5 of the report: what the release is, for what, made by whom, at what cost, and how."""

from __future__ import annotations

from audit.canonical import format_time
from audit.documents import charts
from audit.documents.candidate import Candidate
from audit.documents.page import (
    Html,
    bullets,
    details,
    digest,
    figure,
    figures,
    join,
    number,
    pairs,
    paragraph,
    small,
    table,
    text,
)
from audit.run_trace import HospitalTrace, RunTrace


def model_section(candidate: Candidate) -> Html:
    """1. Model and code."""
    plan, software = candidate.plan, candidate.software
    parts = [
        pairs(
            [
                ("Release", candidate.release),
                ("Version (digest of the weights)", digest(candidate.version)),
                ("Task", plan.get("task", "not stated")),
                ("Codes", f"{len(plan['label_space'])}, {plan.get('label_system', 'edition not stated in the plan')}"),
                ("Text encoder", _settings(plan["encoder"])),
                ("Model", _settings(plan["model"])),
            ]
        )
    ]
    if software is None:
        parts.append(paragraph("No software record was made with this release.", "attention"))
        return join(parts)
    parts.append(
        pairs(
            [
                ("Zegel", f"version {software.version}, Python {software.python}"),
                ("Source files", digest(software.source)),
                ("Repository commit", software.commit or "not recorded"),
                ("Installed package's RECORD", digest(software.record) if software.record else "not recorded"),
                (
                    "Lock file (constraints.txt)",
                    digest(software.constraints) if software.constraints else "not recorded",
                ),
            ]
        )
    )
    parts.append(
        paragraph(
            "Recorded on the consortium's machine when the release was proposed. documents/ml-bom.cdx.json lists the "
            "same as a CycloneDX bill of materials."
        )
    )
    listed = table("Installed packages", ["Package", "Version"], software.packages)
    parts.append(details(f"{len(software.packages)} installed packages", listed))
    return join(parts)


def use_section(candidate: Candidate) -> Html:
    """2. Intended use."""
    notes = candidate.notes
    if notes is None:
        return paragraph(
            "No release notes were given: intended use, exclusions, edition and coding rules are not stated.",
            "attention",
        )
    return join(
        [
            paragraph(notes.intended_use),
            pairs(
                [
                    ("ICD-10 edition", notes.icd_edition),
                    ("Coding rules", notes.coding_rules),
                    ("Language of the letters", notes.language),
                    ("Licence", notes.licence),
                    ("Contact", notes.contact),
                ]
            ),
            Html("<h3>Who may use it</h3>"),
            bullets(notes.users or ["Not stated."]),
            Html("<h3>Not for</h3>"),
            bullets(notes.exclusions or ["Nothing is excluded."]),
        ]
    )


def hospitals_section(candidate: Candidate) -> Html:
    """3. Hospitals: who took part with what, in every run the version grew out of."""
    parts: list[Html] = []
    for run in reversed(candidate.runs):
        if len(candidate.runs) > 1:
            parts.append(Html(f"<h3>Run {text(run.run_id)}</h3>"))
        parts += _hospitals(run)
    return join(parts)


def _hospitals(run: RunTrace) -> list[Html]:
    trained = [hospital for hospital in run.hospitals if hospital.rounds_joined or hospital.rounds_dropped]
    rows = [
        (
            hospital.site,
            hospital.organisation,
            _count(hospital.admissions),
            _count(hospital.patients),
            _period(hospital),
            f"{hospital.rounds_joined} of {len(run.rounds)}" if hospital in trained else "evaluates only",
            hospital.rounds_dropped,
        )
        for hospital in run.hospitals
    ]
    head = ["Hospital", "Organisation", "Admissions", "Patients", "Cohort period", "Rounds joined", "Dropped out"]
    listing = table("Counts below 10 are suppressed", head, rows)
    strip = charts.strip(
        "Who took part in which round",
        f"{len(trained)} hospitals over {len(run.rounds)} rounds; the table lists rounds joined and dropped.",
        [hospital.site for hospital in trained],
        [frozenset(each.participants) for each in run.rounds],
        [frozenset(each.dropped) for each in run.rounds],
    )
    certificates = {receipt.site: receipt for each in run.rounds for receipt in each.receipts}
    proofs = [
        (
            hospital.site,
            digest(hospital.manifest),
            digest(certificates[hospital.site].certificate) if hospital.site in certificates else "no receipt",
            digest(certificates[hospital.site].ledger_head) if hospital.site in certificates else "no receipt",
            f"{hospital.epsilon_reserved:g}",
        )
        for hospital in run.hospitals
    ]
    evidence = table(
        "What each hospital signed",
        [
            "Hospital",
            "Data manifest",
            "Certificate of its last receipt",
            "Privacy ledger at its last receipt",
            "Epsilon reserved",
        ],
        proofs,
    )
    parts = [
        figure(
            strip,
            "A cell per round, or per few. Filled: took part; paler: missed some of them; outlined: dropped out.",
            listing,
        ),
        details("Certificates, data manifests and privacy receipts", evidence),
    ]
    if run.refusals:
        refused = [(each.site, each.code, each.reason, f"entry {each.index}") for each in run.refusals]
        parts.append(table("Hospitals that refused", ["Hospital", "Ground", "Reason", "Log"], refused))
    return parts


def privacy_section(candidate: Candidate) -> Html:
    """4. Privacy."""
    plan, terms = candidate.run.plan, candidate.plan
    evaluation = terms.get("evaluation")
    rows: list[tuple[str, object]] = [
        ("Epsilon spent", f"{candidate.epsilon:g} of {plan.epsilon:g} planned"),
        ("Delta", small(candidate.delta)),
        ("Unit of protection", plan.unit),
        ("Neighbouring data sets", terms.get("neighboring_relation", "not stated")),
        ("Accountant", candidate.accountant),
        ("Sampling", f"each {plan.unit} with probability {plan.sampling_prob:g} per round (Poisson)"),
        ("Clip", f"{plan.l2_clip_norm:g} (L2 norm of one {plan.unit}'s gradient)"),
        ("Noise", f"{plan.noise_multiplier:g} times the clip, {plan.noise_mode}"),
        (
            "Aggregation threshold",
            f"{terms.get('minimum_sites', len(plan.sites) - plan.dropouts)} of {len(plan.sites)} hospitals",
        ),
        ("Colluding hospitals allowed for", plan.colluders),
        ("Missing hospitals allowed for", plan.dropouts),
    ]
    if isinstance(evaluation, dict) and "epsilon" in evaluation and "delta" in evaluation:
        cost = f"epsilon {evaluation['epsilon']:g} at delta {small(evaluation['delta'])} per test patient, on top"
        rows.append(("Evaluation", cost))
    parts = [
        paragraph(
            f"Whoever holds the model, or runs the server together with {plan.colluders} of the hospitals, learns "
            f"about one {plan.unit} no more than epsilon {candidate.epsilon:g} allows, except with probability "
            f"{small(candidate.delta)}."
        ),
        pairs(rows),
    ]
    curve = candidate.curve
    if curve is not None:
        chart = charts.curve(
            "Epsilon over the run",
            f"Grows to {curve.points[-1][1]:.3f} after round {curve.points[-1][0]}; the plan allows {plan.epsilon:g}.",
            curve.points,
            limit=plan.epsilon,
            limit_label=f"{plan.epsilon:g} planned",
            x_label="round",
        )
        data = table(
            "Epsilon after each round shown",
            ["Round", "Epsilon"],
            [(each, number(value)) for each, value in curve.points],
            figures=1,
        )
        caption = "As the accountant gave it at the proposal, on a grid somewhat coarser than the final figure's."
        parts.append(figure(chart, caption, figures(data)))
    if len(candidate.runs) > 1:
        earlier = [(run.run_id, f"{run.epsilon:g}", small(run.delta)) for run in candidate.runs]
        parts.append(
            table(
                "Runs this version grew out of: what they spent adds up",
                ["Run", "Epsilon", "Delta"],
                earlier,
                figures=2,
            )
        )
    return join(parts)


def configuration_section(candidate: Candidate) -> Html:
    """5. Configuration."""
    parts: list[Html] = []
    shown = {"label_space", "sites", "evaluation_sites"}
    settings = [(key, _settings(value)) for key, value in sorted(candidate.plan.items()) if key not in shown]
    for run in reversed(candidate.runs):
        rows: list[tuple[str, object]] = [
            ("Run", run.run_id),
            ("Plan", Html(f"{text(run.plan.name)}<br>{digest(run.plan.plan_hash)}")),
            ("Started from version", digest(run.initial_version)),
            ("Carried out", f"{format_time(run.started_at)} to {format_time(run.finished_at)}"),
            ("Rounds", f"{len(run.rounds)} completed, {run.rounds_aborted} aborted"),
        ]
        parts.append(pairs(rows))
        rounds = [
            (each.number, format_time(each.time), len(each.participants), len(each.dropped), digest(each.version_out))
            for each in run.rounds
        ]
        head = ["Round", "Time", "Hospitals", "Dropped", "Version after it"]
        parts.append(details(f"{len(run.rounds)} rounds and their digests", table("Rounds", head, rounds)))
    parts.append(details("Every setting of the plan", pairs(settings)))
    parts.append(
        paragraph(
            "Sampling and noise are drawn from the operating system's randomness and never from a seed: a public seed "
            "would undo them. What else is random is in the settings above."
        )
    )
    return join(parts)


def _settings(value: object) -> str:
    """A setting of the plan in words: `key value` pairs for objects, plain otherwise."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {_settings(item)}" for key, item in sorted(value.items())) or "none"
    if isinstance(value, list):
        return " ".join(_settings(item) for item in value) or "none"
    if isinstance(value, float):
        return small(value)
    return "none" if value is None else str(value)


def _count(value: int | None) -> str:
    return "fewer than 10" if value is None else str(value)


def _period(hospital: HospitalTrace) -> str:
    if hospital.period_first and hospital.period_last:
        return f"{hospital.period_first} to {hospital.period_last}"
    return "not stated"
