"""Documents of a dossier: made again from the evidence, refused when they differ, and safe to open."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from audit.archive import pack, unpack
from audit.artifacts import Artifacts
from audit.canonical import canonical_json
from audit.checkpoint import log_origin
from audit.documents.candidate import NOTES, PRIVACY_CURVE
from audit.documents.collection import (
    BRIDGE,
    CANDIDATE_REPORT,
    DERIVED,
    ENVELOPE,
    FOLDER,
    ML_BOM,
    MODEL_CARD,
    MODEL_SIGNATURE,
    PICTURE,
    PROVENANCE,
    REPORT,
    TIME_STAMP,
)
from audit.documents.notes import ReleaseNotes
from audit.dossier import MANIFEST, MANIFEST_SIGNATURE, MAX_DOCUMENT_SIZE, manifest_note, manifest_of, write_dossier
from audit.errors import DocumentError, DossierError
from audit.note import sign_note
from audit.verify import Report, verify_dossier
from tests.audit.conftest import pseudonym
from tests.audit.documented import (
    NOTES_OF_2027,
    Documents,
    documented,
    envelope_by,
    inputs_of,
    model_signature_by,
    signed_by_approvers,
)

if TYPE_CHECKING:
    from tests.audit.conftest import Keys, Story
else:
    Keys = Story = object

SECTIONS = (
    "Model and code",
    "Intended use",
    "Hospitals",
    "Privacy",
    "Configuration",
    "Gates and quality",
    "Bridge study",
    "Limits, drift, expiry",
    "Signatures",
    "Log and verification",
)
EVIL = "<script>alert(1)</script>"


def fresh(keys: Keys) -> Story:
    from tests.audit.conftest import Story as Told

    return Told(keys)


def written(story: Story, folder: Path, further: Documents) -> bytes:
    """The dossier of a told story with further documents, through a real log."""
    assert story.statement is not None
    artifacts = Artifacts(folder / "artifacts")
    for data in story.artifacts.values():
        artifacts.put(data)
    with story.log(folder) as log:
        return write_dossier(
            log,
            artifacts,
            story.disclosures(folder),
            story.statement.release,
            key=story.log_key(),
            root_pem=story.keys.root_pem,
            clock=story.clock,
            further_documents=lambda checkpoint: further,
        )


def in_folder(documents: Documents) -> Documents:
    """Documents by member."""
    return {FOLDER + name: content for name, content in documents.items()}


def verified(story: Story, data: bytes) -> Report:
    return verify_dossier(data, story.keys.root_pem, now=story.now)


def resigned(story: Story, members: Documents) -> bytes:
    """A changed dossier as the log's keeper could make it: manifest and its signature fit."""
    members = dict(members)
    members[MANIFEST] = manifest_of(members)
    note = manifest_note("2027.1", members[MANIFEST])
    members[MANIFEST_SIGNATURE] = sign_note(note, log_origin("Zegel Demo"), story.log_key())
    return pack(members)


@pytest.fixture(scope="module")
def bound(keys: Keys) -> Story:
    """A release whose approvals bind documents; read only."""
    return documented(fresh(keys))


@pytest.fixture(scope="module")
def dossier(bound: Story, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return written(bound, tmp_path_factory.mktemp("documents"), signed_by_approvers(bound))


@pytest.fixture(scope="module")
def members(dossier: bytes) -> Documents:
    return unpack(dossier)


# -- what holds


def test_every_document_is_there_and_checked(bound: Story, dossier: bytes) -> None:
    findings = {check.name: check.finding for check in verified(bound, dossier).documents}
    again = {name for name, finding in findings.items() if "made again from the evidence" in finding}
    assert again == {*DERIVED, REPORT, PICTURE}
    assert findings[PRIVACY_CURVE] == "as approved, ends within the run's epsilon"
    assert findings[ENVELOPE] == ("signed by Bob (privacy_officer, Hospital A), Carol (release_manager, Statistics)")
    assert findings[MODEL_SIGNATURE] == "signed by Carol (release_manager, Statistics)"
    assert len(findings) == 12


def test_the_same_release_gives_the_same_bytes(bound: Story, dossier: bytes, tmp_path: Path) -> None:
    further = {name: unpack(dossier)[FOLDER + name] for name in (ENVELOPE, MODEL_SIGNATURE)}
    assert written(bound, tmp_path, further) == dossier


def test_a_release_without_documents_has_a_report_and_a_picture(told: Story, tmp_path: Path) -> None:
    data = told.dossier(tmp_path)
    assert {name for name in unpack(data) if name.startswith(FOLDER)} == {FOLDER + REPORT, FOLDER + PICTURE}
    assert [check.name for check in verified(told, data).documents] == [REPORT, PICTURE]


def test_the_summary_names_what_was_signed(bound: Story, dossier: bytes) -> None:
    (check,) = [each for each in verified(bound, dossier).checks if each.name == "documents"]
    assert check.detail.startswith("12 documents, 7 of them made again byte by byte, model-signing.json signed")


# -- what is refused


@pytest.mark.parametrize("name", [*DERIVED, NOTES, PRIVACY_CURVE])
def test_a_document_that_was_changed_after_the_approvals(bound: Story, members: Documents, name: str) -> None:
    changed = members | {FOLDER + name: members[FOLDER + name].replace(b"2027", b"2028", 1) + b" "}
    with pytest.raises(
        DossierError, match=rf"documents: documents/{re.escape(name)}: expected digest sha256:.* as approved"
    ):
        verified(bound, resigned(bound, changed))


@pytest.mark.parametrize("name", [REPORT, PICTURE])
def test_a_later_document_that_was_changed(bound: Story, members: Documents, name: str) -> None:
    changed = members | {FOLDER + name: members[FOLDER + name].replace(b"hospital-a", b"hospital-x", 1)}
    with pytest.raises(
        DossierError, match=rf"documents: documents/{re.escape(name)}: is not what the evidence gives; .* line \d"
    ):
        verified(bound, resigned(bound, changed))


@pytest.mark.parametrize("name", DERIVED)
def test_a_proposer_cannot_have_another_document_approved(keys: Keys, tmp_path: Path, name: str) -> None:
    def spoil(documents: Documents) -> None:
        documents[name] = documents[name].replace(b"hospital-b", b"hospital-a")

    story = documented(fresh(keys), spoil=spoil)
    with pytest.raises(DossierError, match=rf"documents/{re.escape(name)}: is not what the evidence gives"):
        verified(story, written(story, tmp_path, {}))


@pytest.mark.parametrize("name", [*DERIVED, NOTES, REPORT, PICTURE])
def test_a_missing_document(bound: Story, members: Documents, name: str) -> None:
    left = {key: value for key, value in members.items() if key != FOLDER + name}
    with pytest.raises(
        DossierError, match=rf"documents: documents/{re.escape(name)}: (approved with|expected in every)"
    ):
        verified(bound, resigned(bound, left))


@pytest.mark.parametrize(
    ("size", "message"),
    [(MAX_DOCUMENT_SIZE, "is not what the evidence gives"), (MAX_DOCUMENT_SIZE + 1, "expected at most 16777216 bytes")],
)
def test_a_large_document(bound: Story, members: Documents, size: int, message: str) -> None:
    large = members[FOLDER + REPORT].ljust(size)
    with pytest.raises(DossierError, match=rf"documents/report\.html: {message}"):
        verified(bound, resigned(bound, members | {FOLDER + REPORT: large}))


def test_swapped_documents(bound: Story, members: Documents) -> None:
    swapped = members | {
        FOLDER + REPORT: members[FOLDER + CANDIDATE_REPORT],
        FOLDER + CANDIDATE_REPORT: members[FOLDER + REPORT],
    }
    with pytest.raises(DossierError, match=r"documents/candidate\.html: expected digest"):
        verified(bound, resigned(bound, swapped))


def test_a_document_of_another_name(bound: Story, members: Documents) -> None:
    with pytest.raises(DossierError, match=r"documents/praise\.html: no document of a dossier has this name"):
        verified(bound, resigned(bound, members | {"documents/praise.html": b"best model"}))


def test_a_document_that_nobody_approved(told: Story, members: Documents, tmp_path: Path) -> None:
    plain = unpack(told.dossier(tmp_path))
    with pytest.raises(DossierError, match=r"release-notes\.json: is not among the documents that the approvals bind"):
        verified(told, resigned(told, plain | {FOLDER + NOTES: members[FOLDER + NOTES]}))


def test_a_document_of_another_form_is_named_and_not_compared(bound: Story, members: Documents) -> None:
    changed = members | {
        FOLDER + REPORT: members[FOLDER + REPORT].replace(b"zegel documents v2", b"zegel documents v9")
    }
    report = verified(bound, resigned(bound, changed))
    (check,) = [each for each in report.checks if each.name == "documents"]
    assert check.detail.startswith("report.html NOT COMPARED: form 9, this verifier makes form 2")


@pytest.mark.parametrize(
    ("further", "message"),
    [
        (lambda s: {ENVELOPE: envelope_by(s, "Ada")}, "which approved nothing here"),
        (lambda s: {ENVELOPE: envelope_by(s, "hospital-a")}, "which approved nothing here"),
        (
            lambda s: {ENVELOPE: envelope_by(s, "Bob", payload=b"{}")},
            "expected a signature over provenance.json",
        ),
        (lambda s: {ENVELOPE: b"{}"}, "DSSE envelope: missing"),
        (lambda s: {MODEL_SIGNATURE: model_signature_by(s, "Ada")}, "which approved nothing here"),
        (
            lambda s: {MODEL_SIGNATURE: model_signature_by(s, "Bob")},
            "expected role release_manager, got privacy_officer",
        ),
        (lambda s: {MODEL_SIGNATURE: b"{}"}, "not a bundle of one certificate"),
        (lambda s: {TIME_STAMP: b"\x30\x00"}, "not a time stamp response"),
    ],
)
def test_signatures_that_do_not_count(
    bound: Story, members: Documents, further: Callable[[Story], Documents], message: str
) -> None:
    with pytest.raises(DossierError, match=message):
        verified(bound, resigned(bound, members | in_folder(further(bound))))


def test_a_model_signature_with_a_certificate_from_elsewhere(keys: Keys, bound: Story, members: Documents) -> None:
    stranger = keys.person("Carol", "Statistics", "release_manager")
    story = with_holders(bound, Carol=stranger)
    with pytest.raises(DossierError, match="never announced in the log"):
        verified(bound, resigned(bound, members | in_folder({MODEL_SIGNATURE: model_signature_by(story, "Carol")})))


def with_holders(story: Story, **holders: Any) -> Story:
    return replace(story, keys=replace(story.keys, holders=story.keys.holders | holders))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"run_id": "run-other"}, "run_id: expected run-"),
        ({"accountant": "rdp"}, "accountant: expected pld"),
        ({"delta": 1e-5}, "delta: expected 1e-06"),
        ({"points": ((1, 0.5), (3, 1.6))}, "ends at 1.6, above the run's epsilon 1.5"),
        ({"points": ((1, 1.6), (3, 1.5))}, "epsilon falls"),
        ({"points": ((1, 0.5), (2, 1.5))}, "expected ascending rounds up to 3"),
        ({"points": ()}, "expected ascending rounds up to 3"),
    ],
)
def test_a_curve_must_be_the_run_s(told: Story, change: dict[str, Any], message: str) -> None:
    from audit.documents.privacy_curve import PrivacyCurve

    curve = PrivacyCurve.from_bytes(inputs_of(told)[PRIVACY_CURVE])
    curve.check(told.trace().run)
    with pytest.raises(DocumentError, match=message):
        replace(curve, **change).check(told.trace().run)


# -- what others read


class _Page(HTMLParser):
    """Tags that must balance, and everything that would reach outside."""

    VOID = frozenset({"meta", "br"})

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str, str]] = []
        self.ids: list[str] = []
        self.words: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        self.ids += [value or "" for name, value in attrs if name == "id"]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def read_page(data: bytes) -> _Page:
    page = _Page()
    page.feed(data.decode())
    page.close()
    assert page.open == []
    return page


@pytest.mark.parametrize("name", [REPORT, CANDIDATE_REPORT])
def test_a_report_is_whole_and_reaches_nowhere(members: Documents, name: str) -> None:
    page = read_page(members[FOLDER + name])
    assert not page.tags & {"script", "iframe", "object", "embed", "link", "img", "form", "base", "video", "audio"}
    for tag, attribute, value in page.attributes:
        assert not attribute.startswith("on"), (tag, attribute)
        assert attribute not in ("src", "srcset", "action", "data", "style"), (tag, attribute)
        if attribute == "href":
            assert value.removeprefix("#") in page.ids
    style = members[FOLDER + name].decode().partition("<style>")[2].partition("</style>")[0]
    assert "url(" not in style
    assert "@import" not in style
    assert len(page.ids) == len(set(page.ids))


@pytest.mark.parametrize("name", [REPORT, CANDIDATE_REPORT])
def test_a_report_has_the_ten_groups(members: Documents, name: str) -> None:
    text = members[FOLDER + name].decode()
    headings = re.findall(r'<h2 id="s(\d+)"><span class="no">\d+</span>([^<]*)</h2>', text)
    assert headings == [(str(i), title) for i, title in enumerate(SECTIONS, start=1)]


def test_the_report_tells_what_a_dossier_must(bound: Story, members: Documents) -> None:
    words = " ".join(" ".join(read_page(members[FOLDER + REPORT]).words).split())
    trace = bound.trace()
    expected = [
        *(trace.version, trace.run.plan.plan_hash, trace.statement_digest, trace.root_fingerprint),
        *("version 1.2.3, Python 3.11.9", "torch", "ICD-10 2019, Dutch translation", "clinical decisions"),
        *("2025-01-01 to 2025-12-31", "fewer than 10", "2 of 3", "1.5 of 2 planned", "1e-6", "distributed"),
        *("pld", "patient", "micro_f1@every-site", "at least 0.6", "laterality is missed", "below .90 in a month"),
        *("2027-12-31", "double coding 2025", "I reviewed this and approve it", "zegel verify 2027.1.dossier"),
        *("Every setting of the plan", "evaluates only", "chapter IX", "coding without this model"),
    ]
    for each in expected:
        assert each in words, each


def charts_of(data: bytes) -> Iterator[ElementTree.Element]:
    for match in re.findall(r"<svg.*?</svg>", data.decode(), flags=re.DOTALL):
        yield ElementTree.fromstring(match)  # noqa: S314 - made by us a moment ago


def test_every_chart_is_described_and_has_its_table(members: Documents) -> None:
    text = members[FOLDER + REPORT].decode()
    charts = list(charts_of(members[FOLDER + REPORT]))
    assert len(charts) == 6  # who took part, epsilon, hit@1, hit@3, automation, comparability
    for chart in charts:
        title, description = chart[0], chart[1]
        assert title.tag.endswith("title")
        assert title.text
        assert description.tag.endswith("desc")
        assert description.text
        assert chart.get("role") == "img"
    for after in text.split("</figure>")[1:]:
        assert re.match(r'\s*(<details class="data">.*?)?<div class="scroll"', after)


def test_the_picture_is_whole(bound: Story, members: Documents) -> None:
    root = ElementTree.fromstring(members[FOLDER + PICTURE].decode())  # noqa: S314 - made by us a moment ago
    words = " ".join(root.itertext())
    for each in (
        "hospital-a",
        "hospital-b",
        "hospital-c",
        "2 of 3",
        pseudonym("Bob"),
        pseudonym("Carol"),
        "Release 2027.1",
        "8 signed receipts",
    ):
        assert each in words, each
    assert "url(" not in members[FOLDER + PICTURE].decode()
    assert not re.search(rb"(href|src)=", members[FOLDER + PICTURE])


def test_the_bill_of_materials_follows_cyclonedx(bound: Story, members: Documents) -> None:
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(members[FOLDER + ML_BOM].decode()) is None
    value = json.loads(members[FOLDER + ML_BOM])
    model = value["metadata"]["component"]
    assert model["hashes"] == [{"alg": "SHA-256", "content": bound.version.removeprefix("sha256:")}]
    assert model["licenses"] == [{"expression": "Apache-2.0"}]
    assert {each["name"] for each in value["components"]} == {"cryptography", "torch"}
    assert {each["slice"] for each in model["modelCard"]["quantitativeAnalysis"]["performanceMetrics"]} == {
        f"hospital-{letter}" for letter in "abcd"
    }


def test_the_provenance_is_about_the_model(bound: Story, members: Documents) -> None:
    value = json.loads(members[FOLDER + PROVENANCE])
    digest = {"sha256": bound.version.removeprefix("sha256:")}
    assert value["subject"] == [{"name": "model.safetensors", "digest": digest}]
    assert value["predicate"]["runDetails"]["metadata"]["invocationId"] == bound.run_id
    assert len(value["predicate"]["buildDefinition"]["resolvedDependencies"]) == 5


def test_the_card_has_front_matter(members: Documents) -> None:
    head, _, body = members[FOLDER + MODEL_CARD].decode().removeprefix("---\n").partition("\n---\n")
    assert 'license: "Apache-2.0"' in head.splitlines()
    assert 'language: "nl"' in head.splitlines()
    assert "# Day admissions coder" in body
    assert r"| hospital\-a | 1200 | fewer than 10 |" in body


# -- text that would like to be markup


@pytest.fixture(scope="module")
def evil(keys: Keys, tmp_path_factory: pytest.TempPathFactory) -> Documents:
    """A dossier in which every text that people and hospitals choose tries to be a script."""

    def metrics(statement: dict[str, Any]) -> None:
        figure = statement["values"]["micro_f1"]
        statement["values"] = dict.fromkeys(
            ("micro_f1", "hit@1", EVIL, f"hit@1/{EVIL}", f"true/{EVIL}", f"predicted/{EVIL}"), figure
        )

    def meaning(statement: dict[str, Any]) -> None:
        statement["meaning"] = f"{EVIL} ![x](http://x.example)"

    def plan(fields: dict[str, Any]) -> None:
        fields["name"] = EVIL
        fields["encoder"] = {EVIL: EVIL}

    notes = ReleaseNotes.from_text(
        json.dumps(
            _everywhere(NOTES_OF_2027.to_json(), EVIL)
            | {"schema": NOTES_OF_2027.to_json()["schema"], "expires": "2027-12-31"}
        ).encode()
    )
    story = fresh(keys)
    story.hooks |= {"signed metrics": metrics, "signed approval": meaning, "plan": plan}
    documented(story, notes=notes)
    data = written(story, tmp_path_factory.mktemp("evil"), {})
    assert verified(story, data).trace.release == "2027.1"
    return unpack(data)


def _everywhere(value: Any, text: str) -> Any:
    if isinstance(value, str):
        return text + " x"
    if isinstance(value, dict):
        return {key: _everywhere(item, text) for key, item in value.items()}
    if isinstance(value, list):
        return [_everywhere(item, text) for item in value]
    return value


@pytest.mark.parametrize("name", [REPORT, CANDIDATE_REPORT])
def test_text_stays_text_in_reports(evil: Documents, name: str) -> None:
    page = read_page(evil[FOLDER + name])
    assert "script" not in page.tags
    assert EVIL in " ".join(page.words)
    assert "\u202e" not in evil[FOLDER + name].decode()
    list(charts_of(evil[FOLDER + name]))


def test_text_stays_text_in_the_picture(evil: Documents) -> None:
    root = ElementTree.fromstring(evil[FOLDER + PICTURE].decode())  # noqa: S314 - made by us a moment ago
    assert not [element for element in root.iter() if element.tag.endswith("script")]
    assert EVIL in " ".join(root.itertext())


def test_text_stays_text_in_the_card(evil: Documents) -> None:
    body = evil[FOLDER + MODEL_CARD].decode().partition("\n---\n")[2]
    assert "<script" not in body
    assert "&lt;script&gt;" in body
    assert "](" not in body


def test_text_stays_text_in_json(evil: Documents) -> None:
    for name in (BRIDGE, ML_BOM, PROVENANCE):
        assert canonical_json(json.loads(evil[FOLDER + name])) == evil[FOLDER + name]
