"""The model card: Markdown with YAML front matter, as model hubs read it.

Front matter is YAML whose values are written as JSON strings and numbers, which every YAML reader reads alike. Text
from people and hospitals is escaped so that it can make neither markup nor a table cell.

Source: Mitchell et al. 2019, Model Cards for Model Reporting; Hugging Face's model card metadata (`model-index`).
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterable, Sequence

from audit.canonical import format_time
from audit.documents.bridge import BridgeStudy, code_level
from audit.documents.candidate import Candidate
from audit.documents.form import MARK
from audit.documents.page import small, who
from audit.gates import AT_LEAST

_SPECIAL = re.compile(r"([\\`*_{}\[\]()#+!|~-])")
_SHARES = ("hit@1", "hit@3", "coverage", "precision")


def model_card(candidate: Candidate, study: BridgeStudy) -> bytes:
    """The card of a candidate, UTF-8."""
    lines = [*_front_matter(candidate), f"<!-- {MARK} -->", ""]
    lines += [f"# {_md(candidate.title)}", "", f"Release {_md(candidate.release)} of {_md(candidate.consortium)}.", ""]
    lines += _summary(candidate)
    lines += _use(candidate)
    lines += _training(candidate)
    lines += _evaluation(candidate)
    lines += _bridge(study)
    lines += _limits(candidate)
    return ("\n".join(lines).rstrip("\n") + "\n").encode()


def _front_matter(candidate: Candidate) -> list[str]:
    notes = candidate.notes
    lines = ["---"]
    if notes:
        lines += [f"license: {_yaml(notes.licence)}", f"language: {_yaml(notes.language)}"]
    lines += [
        "library_name: zegel",
        "pipeline_tag: text-classification",
        "tags:",
        *(f"- {_yaml(tag)}" for tag in ("icd-10", "medical-coding", "federated-learning", "differential-privacy")),
        "model-index:",
        f"- name: {_yaml(candidate.title)}",
        "  results:",
    ]
    for metrics in candidate.metrics:
        values = [(name, metrics.values[name]["value"]) for name in _SHARES if name in metrics.values]
        known = [(name, value) for name, value in values if value is not None]
        if known:
            lines += [
                "  - task: {type: text-classification}",
                f"    dataset: {{name: {_yaml(metrics.site + ' test patients')}, type: {_yaml('private')}}}",
                "    metrics:",
                *(f"    - {{type: {_yaml(name)}, value: {_yaml(round(float(value), 6))}}}" for name, value in known),
            ]
    return [*lines, "---", ""]


def _summary(candidate: Candidate) -> list[str]:
    plan = candidate.run.plan
    return [
        f"Assigns one of {code_level(candidate.plan['label_space'])} to a day admission from its letters. Trained by "
        f"{sum(bool(h.rounds_joined) for h in candidate.run.hospitals)} hospitals without moving a record, with "
        f"patient-level differential privacy.",
        "",
        f"- Weights: `{candidate.version}`",
        f"- Privacy: epsilon {candidate.epsilon:g}, delta {small(candidate.delta)}, per {_md(plan.unit)}",
        f"- Proposed: {format_time(candidate.time)} by {_md(who(candidate.proposer))}",
        "",
    ]


def _use(candidate: Candidate) -> list[str]:
    notes = candidate.notes
    if notes is None:
        return ["## Intended use", "", "Not stated: no release notes were given.", ""]
    return [
        "## Intended use",
        "",
        _md(notes.intended_use),
        "",
        f"- ICD-10 edition: {_md(notes.icd_edition)}",
        f"- Coding rules: {_md(notes.coding_rules)}",
        f"- Users: {_md('; '.join(notes.users) or 'not stated')}",
        f"- Contact: {_md(notes.contact)}",
        "",
        "Not for:",
        "",
        *(f"- {_md(each)}" for each in notes.exclusions or ("nothing is excluded",)),
        "",
    ]


def _training(candidate: Candidate) -> list[str]:
    run, plan = candidate.run, candidate.run.plan
    rows = [
        (
            each.site,
            _count(each.admissions),
            _count(each.patients),
            f"{each.period_first} to {each.period_last}" if each.period_first and each.period_last else "not stated",
            f"{each.rounds_joined} of {len(run.rounds)}" if each.rounds_joined else "evaluates only",
        )
        for each in run.hospitals
    ]
    return [
        "## Training",
        "",
        f"{len(run.rounds)} rounds; each patient sampled with probability {plan.sampling_prob:g}, clip "
        f"{plan.l2_clip_norm:g}, noise {plan.noise_multiplier:g} ({_md(plan.noise_mode)}), against {plan.colluders} "
        f"colluding hospitals. Plan `{plan.plan_hash}`.",
        "",
        *_table(("Hospital", "Admissions", "Patients", "Cohort period", "Rounds"), rows),
        "",
    ]


def _evaluation(candidate: Candidate) -> list[str]:
    names = [name for name in _SHARES if any(name in each.values for each in candidate.metrics)]
    rows = [
        (each.site, *(_interval(each.values[name]) if name in each.values else "not reported" for name in names))
        for each in candidate.metrics
    ]
    gates = [
        (
            each.name,
            f"{'at least' if each.comparison == AT_LEAST else 'at most'} {each.threshold:g}",
            f"{each.value:.3f}",
        )
        for each in candidate.gates
    ]
    return [
        "## Evaluation",
        "",
        "On each hospital's own test patients, with privacy noise; 95% intervals in brackets.",
        "",
        *(_table(("Hospital", *names), rows) if names else ["No shares were reported."]),
        "",
        *_table(("Gate", "Demanded", "Found"), gates),
        "",
    ]


def _bridge(study: BridgeStudy) -> list[str]:
    lines = ["## Bridge study", ""]
    first = study.sites[0] if study.sites else None
    for which, words in (("human", "the human coders"), ("predecessor", "the predecessor")):
        ratios = getattr(first, which).ratios if first else ()
        if first and ratios:
            rows = [
                (each.chapter, f"{each.ratio:.3f}" + (f" [{each.lower:.3f}, {each.upper:.3f}]" if each.upper else ""))
                for each in ratios
            ]
            lines += [f"Comparability with {words}, {_md(first.site)}:", "", *_table(("Chapter", "Ratio"), rows), ""]
    lines += [f"- {_md(each)}" for each in study.absent]
    return [*lines, ""]


def _limits(candidate: Candidate) -> list[str]:
    notes = candidate.notes
    if notes is None:
        return ["## Limits", "", "Not stated: no release notes were given."]
    return [
        "## Limits",
        "",
        *(f"- {_md(each.what)} ({_md(each.advice)})" for each in notes.known_failures),
        *(f"- Drift: {_md(each.measure)}, {_md(each.limit)}: {_md(each.action)}" for each in notes.drift_triggers),
        f"- Go back to: {_md(notes.rollback or candidate.predecessor or 'coding without this model')}",
        f"- Usable until {notes.expires.isoformat()}",
    ]


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return [
        f"| {' | '.join(_md(cell) for cell in head)} |",
        f"|{'---|' * len(head)}",
        *(f"| {' | '.join(_md(cell) for cell in row)} |" for row in rows),
    ]


def _interval(item: object) -> str:
    assert isinstance(item, dict)  # noqa: S101 - the metrics statement's schema
    if item["value"] is None:
        return "too few"
    if item["lower"] is None or item["upper"] is None:
        return f"{item['value']:.3f}"
    return f"{item['value']:.3f} [{item['lower']:.3f}, {item['upper']:.3f}]"


def _count(value: int | None) -> str:
    return "fewer than 10" if value is None else str(value)


def _md(value: str) -> str:
    """Text on one line in which nothing is markup. Figures keep their plain minus and brackets readable."""
    shown = "".join(c if c.isprintable() else "\ufffd" for c in value)
    return html.escape(_SPECIAL.sub(r"\\\1", shown), quote=False)


def _yaml(value: str | float) -> str:
    return json.dumps(value, ensure_ascii=True)
