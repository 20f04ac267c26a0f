"""The report: one HTML file with the ten groups of what a release dossier must hold, to read, print and file.

Two editions are made by the same code: the candidate's, which approvers read and whose digest they approve, and the
certified release's, which adds who signed and where it stands in the log.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from audit.canonical import format_time
from audit.documents import charts
from audit.documents.bridge import ALL_HOSPITALS, Agreement, Bridge, BridgeStudy, Ratio, code_level
from audit.documents.candidate import Candidate
from audit.documents.page import (
    Html,
    bullets,
    details,
    digest,
    figure,
    interval,
    join,
    number,
    page,
    pairs,
    paragraph,
    small,
    table,
    text,
    who,
)
from audit.documents.quality import quality_section
from audit.documents.sections import (
    configuration_section,
    hospitals_section,
    model_section,
    privacy_section,
    use_section,
)
from audit.release import APPROVE, Approval
from audit.release_state import SUPERSEDED, Standing


@dataclass(frozen=True)
class LogHead:
    """The log as the dossier shows it."""

    key: str  # the log's verifier key
    checkpoint: bytes  # the signed checkpoint all proofs refer to, verified
    entries: int  # how many of the log's entries the dossier holds

    @property
    def signers(self) -> tuple[str, ...]:
        """The names under the checkpoint, the log's own and witnesses'; only the log's is verified here."""
        lines = self.checkpoint.decode("utf-8").partition("\n\n")[2].splitlines()
        return tuple(line.split(" ")[1] for line in lines)


@dataclass(frozen=True, kw_only=True)
class Certification:
    """What came after the candidate: signatures, and the log they are in."""

    statement_digest: str
    approvals: tuple[Approval, ...]
    standing: Standing  # when the dossier was written
    certified_at: datetime
    certified_index: int
    log: LogHead
    documents: tuple[tuple[str, str], ...]  # (member, digest) of the documents that approvals bind
    present: tuple[str, ...]  # documents made after the approvals, by member


def candidate_report(candidate: Candidate, study: BridgeStudy) -> bytes:
    """What approvers read: sections 1 to 8, and what is still to come."""
    sentence = f"A candidate: nobody has approved it yet. All {len(candidate.gates)} gates passed; {_loss(candidate)}"
    undecided = paragraph("This edition was made before anybody decided. The certified release's report names them.")
    later = paragraph("This edition was made before certification, so it has no place in the log yet.")
    return _report(candidate, study, f"Candidate {candidate.release}", sentence, undecided, later)


def release_report(candidate: Candidate, study: BridgeStudy, certification: Certification) -> bytes:
    """The certified release's report."""
    approving = [each for each in certification.approvals if each.decision == APPROVE]
    people = {each.approver.person for each in approving}
    organisations = {each.approver.organisation.casefold() for each in approving}
    sentence = (
        f"Certified on {_day(certification.certified_at)}, approved by {_some(len(people), 'person', 'people')} "
        f"of {_some(len(organisations), 'organisation', 'organisations')}. All {len(candidate.gates)} gates passed; "
        f"{_loss(candidate)}"
    )
    return _report(
        candidate,
        study,
        f"Release {candidate.release}",
        sentence,
        _signatures_section(candidate, certification),
        _log_section(candidate, certification),
    )


def _report(candidate: Candidate, study: BridgeStudy, name: str, sentence: str, signatures: Html, log: Html) -> bytes:
    sections: list[tuple[str, Html]] = [
        ("Model and code", model_section(candidate)),
        ("Intended use", use_section(candidate)),
        ("Hospitals", hospitals_section(candidate)),
        ("Privacy", privacy_section(candidate)),
        ("Configuration", configuration_section(candidate)),
        ("Gates and quality", quality_section(candidate)),
        ("Bridge study", _bridge_section(candidate, study)),
        ("Limits, drift, expiry", _limits_section(candidate)),
        ("Signatures", signatures),
        ("Log and verification", log),
    ]
    links = "".join(f'<li><a href="#s{i}">{text(title)}</a></li>' for i, (title, _) in enumerate(sections, start=1))
    head = Html(
        f'<header>\n<p class="overline">{text(candidate.consortium)}</p>\n'
        f"<h1>{text(name)}: {text(candidate.title)}</h1>\n"
        f'<p class="sentence">{text(sentence)}</p>\n'
        + pairs(
            [
                ("Version", digest(candidate.version)),
                (
                    "Trained by",
                    f"{_some(_trained(candidate), 'hospital', 'hospitals')} in {len(candidate.run.rounds)} rounds",
                ),
                ("Proposed", f"{who(candidate.proposer)}, {format_time(candidate.time)}"),
                ("Usable until", candidate.notes.expires.isoformat() if candidate.notes else "not stated"),
            ]
        )
        + f'\n<nav aria-label="Contents"><ol>{links}</ol></nav>\n</header>'
    )
    body = [
        Html(f'<section><h2 id="s{i}"><span class="no">{i}</span>{text(title)}</h2>\n{content}\n</section>')
        for i, (title, content) in enumerate(sections, start=1)
    ]
    return page(f"{name}, {candidate.consortium}", join([head, Html("<main>"), *body, Html("</main>")]))


def _bridge_section(candidate: Candidate, study: BridgeStudy) -> Html:
    parts = [
        paragraph(
            "Would a series of coded diagnoses break if this model took over? A comparability ratio of 1 means that a "
            "chapter gets as many admissions as before. Computed from the hospitals' noisy counts, so it costs no "
            f"privacy. Codes are compared as {code_level(candidate.plan['label_space'])}."
        )
    ]
    for title, against, which in (
        ("Against the human coders", "human coders", "human"),
        (f"Against the predecessor {candidate.predecessor}", "predecessor", "predecessor"),
    ):
        bridges: list[tuple[str, Bridge]] = [(site.site, getattr(site, which)) for site in study.sites]
        content = _bridge(bridges, against)
        if content:
            parts += [Html(f"<h3>{text(title)}</h3>"), *content]
    notes = candidate.notes
    if notes and notes.coder_agreement:
        given = notes.coder_agreement
        shown = interval(given.share, given.lower, given.upper)
        parts += [
            Html("<h3>Between two human coders</h3>"),
            paragraph(
                Html(f"The same code in {shown} of {given.admissions} admissions coded twice ({text(given.source)}).")
            ),
        ]
    if study.absent:
        parts += [Html("<h3>What is not here</h3>"), bullets(study.absent)]
    return join(parts)


def _bridge(bridges: Sequence[tuple[str, Bridge]], against: str) -> list[Html]:
    parts: list[Html] = []
    first, overall = bridges[0]
    if overall.ratios:
        rows = [charts.Row(f"chapter {each.chapter}", each.ratio, each.lower, each.upper) for each in overall.ratios]
        most = max(max(each.upper or 0.0, each.ratio) for each in overall.ratios)
        chart = charts.intervals(
            f"Comparability ratio per chapter against the {against}, {first}",
            f"{len(rows)} chapters with 95% intervals around the ratio; 1 means no change.",
            rows,
            maximum=2.0 if most <= 2 else 4.0,
            reference=1.0,
        )
        parts.append(
            figure(
                chart, f"{first}. Dot: ratio; line: 95% interval; dashed: no change.", _ratios(first, overall.ratios)
            )
        )
        others = [_ratios(site, bridge.ratios) for site, bridge in bridges[1:] if bridge.ratios]
        if others:
            parts.append(details("Per hospital", join(others)))
    agreements = [(site, each) for site, bridge in bridges for each in bridge.agreement if site != ALL_HOSPITALS]
    whole = [(site, _share(each)) for site, each in agreements if each.chapter is None]
    if whole:
        parts.append(
            table(f"Same code as the {against}, all chapters", ["Hospital", "Share and 95% interval"], whole, figures=1)
        )
    by_chapter = [(site, each.chapter, _share(each)) for site, each in agreements if each.chapter is not None]
    if by_chapter:
        listed = table("By chapter", ["Hospital", "Chapter", "Share and 95% interval"], by_chapter, figures=1)
        parts.append(details(f"Same code as the {against}, by chapter", listed))
    return parts


def _ratios(site: str, ratios: Sequence[Ratio]) -> Html:
    rows = [
        (each.chapter, number(each.count, 0), number(each.reference, 0), interval(each.ratio, each.lower, each.upper))
        for each in ratios
    ]
    head = ["Chapter", "This version", "Compared with", "Ratio and 95% interval"]
    return table(f"Comparability, {site} (noisy counts)", head, rows, figures=3)


def _share(agreement: Agreement) -> Html:
    return interval(agreement.value, agreement.lower, agreement.upper)


def _limits_section(candidate: Candidate) -> Html:
    notes = candidate.notes
    if notes is None:
        return paragraph(
            "No release notes were given: known failures, drift triggers, rollback and expiry are not stated.",
            "attention",
        )
    failures = [(each.what, each.advice) for each in notes.known_failures]
    triggers = [(each.measure, each.limit, each.action) for each in notes.drift_triggers]
    return join(
        [
            pairs(
                [
                    ("Usable until", notes.expires.isoformat()),
                    ("Go back to", notes.rollback or candidate.predecessor or "coding without this model"),
                ]
            ),
            table("Known failures", ["What goes wrong", "What to do"], failures)
            if failures
            else paragraph("No known failures were stated."),
            table("What counts as drift", ["Measure", "Limit", "Action"], triggers)
            if triggers
            else paragraph("No drift triggers were stated.", "attention"),
        ]
    )


def _signatures_section(candidate: Candidate, certification: Certification) -> Html:
    head = ["Who", "Role", "Organisation", "Decision", "When", "What the signature means", "Log"]
    parts = [
        paragraph(
            Html(
                "Each person signed the digest of the release statement, which holds the digests of the documents "
                f"listed below: {digest(certification.statement_digest)} People appear under their person ids. Their "
                "names and reasons stand apart, in disclosures.json, where they can be erased; zegel verify shows them."
            )
        ),
        table("The release", head, [_approval(each) for each in certification.approvals]),
    ]
    for run in reversed(candidate.runs):
        caption = f"The plan {run.plan.name}, proposed by {who(run.plan.proposer)}"
        parts.append(table(caption, head, [_approval(each) for each in run.plan.approvals]))
    if certification.documents:
        rows = [(member, digest(value)) for member, value in certification.documents]
        parts.append(table("Documents the approvals bind", ["Document", "Digest"], rows))
    return join(parts)


def _approval(approval: Approval) -> tuple[object, ...]:
    approver = approval.approver
    decided = "approved" if approval.decision == APPROVE else "refused"
    return (
        approver.name,
        approver.role.replace("_", " "),
        approver.organisation,
        Html(f'<span class="{"ok" if approval.decision == APPROVE else "attention"}">{decided}</span>'),
        format_time(approval.time),
        approval.meaning,
        f"entry {approval.index}",
    )


def _log_section(candidate: Candidate, certification: Certification) -> Html:
    log = certification.log
    own = log.key.partition("+")[0]
    others = [name for name in log.signers if name != own]
    _, size, root = log.checkpoint.decode("utf-8").split("\n")[:3]
    commands = (
        f"zegel verify {candidate.release}.dossier --root rootCA.pem\n"
        "openssl x509 -in rootCA.pem -noout -fingerprint -sha256"
    )
    return join(
        [
            pairs(
                [
                    ("Certified", f"{format_time(certification.certified_at)}, entry {certification.certified_index}"),
                    ("State when this was written", _state(certification.standing)),
                    ("Log", log.key),
                    ("Checkpoint", f"{size} entries, signed by {own}"),
                    ("Root of the tree (base64)", digest(root)),
                    ("Witnesses' cosignatures", ", ".join(others) or "none"),
                    (
                        "Time stamp (RFC 3161)",
                        f"documents/{_TIME_STAMP}" if _TIME_STAMP in certification.present else "none",
                    ),
                    ("Entries in this dossier", f"{log.entries}, each with its inclusion proof"),
                    ("Other signatures", ", ".join(p for p in certification.present if p != _TIME_STAMP) or "none"),
                    ("Root certificate", digest(candidate.root_fingerprint)),
                ]
            ),
            paragraph(
                "Do not believe this page: check the dossier it came in. Get the root certificate from the "
                "consortium and compare its fingerprint by telephone. The verifier makes this report again from the "
                "evidence and compares it byte by byte."
            ),
            Html(f"<pre>{text(commands.splitlines()[0])}\n{text(commands.splitlines()[1])}</pre>"),
        ]
    )


_TIME_STAMP = "checkpoint.tsr"


def _state(standing: Standing) -> str:
    if standing.state == SUPERSEDED:
        return f"superseded by {standing.superseded_by}, entry {standing.since}"
    return f"{standing.state}, entry {standing.since}"


def _loss(candidate: Candidate) -> str:
    return (
        f"patients' privacy loss at most epsilon {candidate.epsilon:g} (delta {small(candidate.delta)}, "
        f"per {candidate.run.plan.unit})."
    )


def _trained(candidate: Candidate) -> int:
    return sum(bool(hospital.rounds_joined) for hospital in candidate.run.hospitals)


def _some(count: int, one: str, many: str) -> str:
    return f"{count} {one if count == 1 else many}"


def _day(moment: datetime) -> str:
    return format_time(moment)[:10]
