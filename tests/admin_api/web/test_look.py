"""What pages look like, checked without a browser: contrast, the policy, weight, escaping, every component's markup."""

from __future__ import annotations

import gzip
import hashlib
import html
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
from httpx2 import Response
from jinja2 import UndefinedError
from starlette.testclient import TestClient

from admin_api.web import parts
from admin_api.web.icons import SHAPES, icon
from admin_api.web.language import speaking
from admin_api.web.preferences import same_origin_path
from admin_api.web.rendering import PLACES, STATIC, TEMPLATES, asset, attributes, environment_for, sentence_of
from admin_api.web.states import STATES, TONES, shown
from tests.admin_api.web.gallery import Somebody, gallery_app

CSS = (STATIC / "zegel.css").read_text(encoding="utf-8")
FIRST_LOAD_BYTES = 200_000
VENDOR = Path(__file__).parent / "vendor"


def tokens(theme: str) -> dict[str, str]:
    """The colours of zegel.css in one theme."""
    pairs = re.findall(r"--([\w-]+): light-dark\((#\w{6}), (#\w{6})\);", CSS)
    return {name: light if theme == "light" else dark for name, light, dark in pairs}


def luminance(colour: str) -> float:
    """WCAG 2.2 relative luminance."""

    def linear(channel: str) -> float:
        share = int(channel, 16) / 255
        return share / 12.92 if share <= 0.04045 else float(((share + 0.055) / 1.055) ** 2.4)

    red, green, blue = (linear(colour[i : i + 2]) for i in (1, 3, 5))
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    """WCAG 2.2 contrast ratio."""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_the_ratio_is_the_one_of_wcag() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.478, abs=0.001)


TEXT = [
    *((text, ground) for text in ("text", "muted", "accent", "accent-strong") for ground in ("surface", "raised")),
    *((text, "sunken") for text in ("text", "muted")),
    *((tone, "surface") for tone in ("ok", "attention", "danger", "info", "neutral", "for", "against")),
    *((tone, f"{tone}-soft") for tone in ("ok", "attention", "danger", "info", "neutral", "accent")),
    *(("text", f"{tone}-soft") for tone in ("ok", "attention", "danger", "info", "accent")),
    ("accent-strong", "accent-soft"),
    ("on-accent", "accent"),
    ("on-accent", "accent-strong"),
    ("on-danger", "danger"),
    *((f"hue-{i}", "surface") for i in range(1, 9)),  # they colour the names at the ends of lines
]
MARKS = [("line-strong", "surface"), ("line-strong", "raised"), ("accent", "sunken"), ("accent", "accent-soft")]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_contrast(theme: str) -> None:
    colours = tokens(theme)
    poor = [
        f"{a} on {b}: {contrast(colours[a], colours[b]):.2f}, at least {least} asked"
        for pairs, least in ((TEXT, 4.5), (MARKS, 3.0))
        for a, b in pairs
        if contrast(colours[a], colours[b]) < least
    ]
    assert poor == []


def test_both_themes_have_every_colour_and_the_sheet_uses_no_other() -> None:
    _declared, rest = CSS.split(':root[data-theme="light"]', 1)
    assert set(tokens("light")) == set(tokens("dark")) >= {"surface", "raised", "line", "text", "muted", "accent"}
    assert re.findall(r"#[0-9a-fA-F]{3,8}\b", rest) == []
    used = set(re.findall(r"var\(--([\w-]+)\)", CSS))
    known = set(re.findall(r"--([\w-]+):", CSS))
    assert used - known == set()


def test_distances_are_on_the_grid() -> None:
    """Gaps and margins between things are multiples of 4 px, or 2, 6, 10 inside small controls."""
    found = re.findall(r"(?:margin|gap|margin-top|margin-bottom|column-gap):([^;}]+)", CSS)
    odd = [
        value.strip()
        for value in found
        for size in re.findall(r"(?<![\w.-])(\d+)px", value)
        if int(size) % 4 and int(size) not in (1, 2, 3, 6, 10)
    ]
    assert odd == []


def templates() -> Iterator[tuple[str, str]]:
    """Every template of every area, with its name."""
    for path in sorted(TEMPLATES.rglob("*.html")):
        yield path.relative_to(TEMPLATES).as_posix(), path.read_text(encoding="utf-8")


def test_templates_hold_nothing_that_the_policy_refuses() -> None:
    refused = {
        "an inline style": r"<[^>{]*\sstyle\s*=",
        "a style element": r"<style\b",
        "an inline handler": r"<[^>{]*\son[a-z]+\s*=",
        "an inline script": r"<script(?![^>]*\bsrc=)",
        "another host": r"(?:src|href|action|hx-\w+)\s*=\s*[\"'](?:https?:)?//",
        "a javascript address": r"javascript:",
    }
    found = [
        f"{name}: {what}"
        for name, text in templates()
        for what, pattern in refused.items()
        if re.search(pattern, re.sub(r"\{#.*?#\}", "", text, flags=re.S), re.I)
    ]
    assert found == []


def test_every_template_compiles_in_every_language() -> None:
    for code in ("en", "nl"):
        for name, _text in templates():
            environment_for(code).get_template(name)


def test_scripts_evaluate_nothing_and_reach_no_other_host() -> None:
    for path in [*STATIC.glob("*.js"), *STATIC.glob("verify/*.js")]:
        text = path.read_text(encoding="utf-8")
        for forbidden in (
            r"\beval\(",
            r"new Function\b",
            r"document\.write",
            r"https?://(?!www\.w3\.org/)",
            r"\.setAttribute\(\"style",
        ):
            assert not re.search(forbidden, text), f"{path.name}: {forbidden}"


@pytest.mark.parametrize("folder", [STATIC / "vendor", VENDOR])
def test_vendored_files_are_the_ones_that_were_published(folder: Path) -> None:
    lines = (folder / "README").read_text(encoding="utf-8").splitlines()
    listed = {line[66:]: line[:64] for line in lines if re.match("[0-9a-f]{64}  ", line)}
    assert set(listed) == {path.name for path in folder.iterdir() if path.suffix in (".js", ".css")}
    for name, digest in listed.items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest, name
    assert all(path.stat().st_size for path in folder.glob("*.LICENSE*"))
    assert len(list(folder.glob("*.LICENSE"))) >= len({name.split(".")[0] for name in listed})


class _Page(HTMLParser):
    """The elements of a page, and what it refers to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in _VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open[-1] == tag, f"</{tag}> closes <{self.open[-1]}>"
        self.open.pop()

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


_VOID = frozenset(("area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "wbr"))


@pytest.fixture(scope="module")
def client() -> TestClient:
    return TestClient(gallery_app())


def fetched(client: TestClient, path: str = "/gallery", language: str = "en") -> tuple[Response, _Page, str]:
    """A page of the gallery: the answer, its elements, its text."""
    response = client.get(path, headers={"Accept-Language": language})
    return response, _Page(response.text), response.text


def test_the_gallery_is_well_formed_and_says_its_language(client: TestClient) -> None:
    for language in ("en", "nl"):
        response, page, _text = fetched(client, language=language)
        assert response.status_code == 200
        assert page.open == []
        assert page.all("html")[0]["lang"] == language == response.headers["content-language"]
        assert "Cookie" in response.headers["vary"]
        assert "Accept-Language" in response.headers["vary"]


def test_landmarks_headings_and_ids(client: TestClient) -> None:
    _response, page, text = fetched(client)
    assert len(page.all("main")) == len(page.all("h1")) == 1
    ids = [attributes["id"] for _tag, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert page.all("a")[0]["href"] == "#main"
    referred = {
        name
        for _tag, attributes in page.elements
        for key in ("aria-describedby", "aria-labelledby", "for", "popovertarget", "data-dialog-open")
        for name in (attributes.get(key) or "").split()
    }
    assert referred - set(ids) == set()
    assert text.index("<h1>") < text.index('class="sentence"') < text.index("<h2")


def test_every_table_has_a_caption_and_scopes(client: TestClient) -> None:
    _response, page, text = fetched(client)
    tables = len(page.all("table"))
    assert tables >= 10
    assert text.count("<caption") == tables
    assert all(attributes.get("scope") in ("col", "row") for attributes in page.all("th"))


def test_every_chart_has_its_table(client: TestClient) -> None:
    _response, _page, text = fetched(client)
    figures = re.findall(r"<figure class=\"chart-figure\".*?</figure>", text, re.S)
    assert len(figures) >= 10
    assert all("<details" in figure and "<table" in figure for figure in figures)


def test_navigation_shows_what_the_viewer_may_open() -> None:
    app = gallery_app()
    app.state.pages = type(app.state.pages)("https://zegel.example", lambda _viewer, route: route == "log.page")
    text = TestClient(app).get("/gallery").text
    assert 'data-go="l"' in text
    assert 'data-go="h"' not in text
    letters = [place.letter for place in PLACES] + ["m"]
    assert len(letters) == len(set(letters))


def test_signed_out_pages_have_no_navigation_and_no_menu() -> None:
    text = TestClient(gallery_app(None)).get("/broken").text
    assert 'class="alone"' in text
    assert "sign-out" not in text.split("<main")[1]
    assert 'href="/sign-in"' in text
    assert 'action="/preferences"' in text


def test_first_load_is_light(client: TestClient) -> None:
    """A page of fifty rows with all it loads, uncompressed; charts in the browser come on top, where they are used."""
    response, page, _text = fetched(client, "/broken")
    loaded = [str(link["href"]) for link in page.all("link")] + [str(script["src"]) for script in page.all("script")]
    files = [(STATIC / name.removeprefix("/static/").split("?")[0]).read_bytes() for name in loaded]
    rows = [{"href": f"/hospitals/h{i}", "id": f"h{i}", "a": i, "b": "training", "c": 4711 + i} for i in range(50)]
    kinds = ({"key": "a", "kind": "number"}, {"key": "b", "kind": "chip"}, {"key": "c", "kind": "seal"})
    table = parts.table_body([{"label": "x", **kind} for kind in kinds], rows).encode()
    assert not any("uPlot" in name for name in loaded)
    assert sum(map(len, [response.content, table, *files])) < FIRST_LOAD_BYTES
    assert sum(len(gzip.compress(file)) for file in [response.content, *files]) < 60_000


def test_what_comes_from_outside_stays_text() -> None:
    evil = '"><script>alert(1)</script>'
    given = [
        parts.chip(evil),
        parts.chip("open", evil),
        parts.digest(evil),
        parts.meter(1, 2, evil),
        parts.cell({"text": evil, "href": "/x?" + evil}, {"key": "k", "kind": "link"}),
        parts.cell(evil, {"key": "k", "unit": evil}),
        parts.table_body([{"key": "k", "label": "K"}], [{"k": evil, "href": evil, "tone": evil, "id": evil}]),
        attributes({"value": evil, "data_x": evil}),
    ]
    for markup in given:
        assert "<script" not in markup
        assert '"><script' not in html.unescape(re.sub(r"&#34;&gt;&lt;script", "", markup))


def test_pages_escape_names(client: TestClient) -> None:
    viewer = Somebody(name="<img src=x onerror=alert(1)>", organisation="A & B")
    text = TestClient(gallery_app(viewer)).get("/gallery").text
    assert "<img" not in text
    assert "&lt;img src=x onerror=alert(1)&gt;" in text
    assert "A &amp; B" in text


def test_forms_carry_the_token_and_a_fresh_key(client: TestClient) -> None:
    keys = set()
    for _time in range(2):
        _response, page, _text = fetched(client)
        hidden = [a for a in page.all("input") if a.get("type") == "hidden"]
        assert {a["value"] for a in hidden if a["name"] == "csrf"} == {"a-token"}
        found = [a["value"] for a in hidden if a["name"] == "idempotency_key"]
        assert len(found) == len(set(found)) == 2
        assert all(re.fullmatch(r"[!-~]{20,200}", str(key)) for key in found)
        keys.update(found)
    assert len(keys) == 4


def test_one_block_for_htmx(client: TestClient) -> None:
    text = client.get("/gallery?block=sentence").text
    assert text.startswith('<p class="sentence">')
    assert "<html" not in text
    with pytest.raises(ValueError, match=r"has no block 'nothing'; it has .*content"):
        client.get("/gallery?block=nothing")


def test_problems_are_pages_and_fragments(client: TestClient) -> None:
    page = client.get("/broken")
    assert page.status_code == 404
    assert "<h1>Not found</h1>" in page.text
    assert "No plan sha256:1f3a is logged." in page.text
    assert "5f0c9b1e7a2d4c11" in page.text
    fragment = client.get("/broken", headers={"HX-Request": "true"})
    assert fragment.text.strip().startswith('<div class="problem">')
    boosted = client.get("/broken", headers={"HX-Request": "true", "HX-Boosted": "true"})
    assert "<html" in boosted.text


def test_an_unknown_name_in_a_template_is_an_error() -> None:
    with pytest.raises(UndefinedError):
        environment_for("en").from_string("{{ hospital.name }}").render()


@pytest.mark.parametrize(
    ("given", "kind", "shows", "sorts_by"),
    [
        (1234.5, "number", "1,234.5", "1234.5"),
        (0.715, "percent", "72%", "0.715"),
        (3.214, "epsilon", "3.21", "3.214"),
        ("2026-11-22T05:00:00Z", "moment", "2026-11-22 05:00 UTC", "2026-11-22T05:00:00Z"),
        ("certified", "chip", "certified", "certified"),
        ({"state": "open", "word": "waits for you"}, "chip", "waits for you", "waits for you"),
        ({"value": 0.7, "lower": 0.6, "upper": 0.8}, "interval", "[0.600, 0.800]", "0.7"),
        ({"value": None, "lower": None, "upper": None}, "interval", "too few", ""),
        ({"spent": 3.2, "of": 8.0}, "bar", "3.2 of 8", "3.2"),
        ([1.0, 2.0], "spark", "polyline", "2.0"),
        ({"text": "Zuid", "href": "/h/zuid"}, "link", '<a href="/h/zuid">Zuid</a>', "Zuid"),
        (4711, "seal", 'href="/log/4711"', "4711"),
        (None, "number", "\u2013", ""),
        (None, "seal", "no evidence", ""),
    ],
)
def test_cells(given: object, kind: str, shows: str, sorts_by: str) -> None:
    assert shows in parts.cell(given, {"key": "k", "kind": kind})
    assert parts.exact(given, kind) == sorts_by


def test_a_row_or_a_column_that_is_wrong_is_a_fault_of_the_page() -> None:
    with pytest.raises(KeyError, match="has no 'b'"):
        parts.table_body([{"key": "b", "label": "B"}], [{"a": 1}])
    with pytest.raises(ValueError, match="no kind 'colour'"):
        parts.cell(1, {"key": "k", "kind": "colour"})
    with pytest.raises(ValueError, match="refused by the content security policy"):
        attributes({"onclick": "x"})
    with pytest.raises(ValueError, match="no icon 'unicorn'"):
        icon("unicorn")
    with pytest.raises(ValueError, match=r"static/ holds no \.\./settings\.py"):
        asset("../settings.py")


def test_states_have_an_icon_a_tone_and_a_class() -> None:
    for name, state in STATES.items():
        assert state.icon in SHAPES, name
        assert state.tone in TONES, name
        assert f".chip.{state.tone}" in CSS or state.tone == "neutral"
    assert shown("never_heard-of").word == "never heard of"


def test_a_state_is_said_in_the_readers_language() -> None:
    english = parts.chip("withdrawn")
    with speaking("nl"):
        assert parts.chip("withdrawn") != english
    assert parts.chip("withdrawn") == english


def test_assets_change_their_address_with_their_bytes() -> None:
    digest = hashlib.sha256((STATIC / "zegel.css").read_bytes()).hexdigest()
    assert asset("zegel.css") == f"/static/zegel.css?v={digest[:12]}"


@pytest.mark.parametrize(
    ("words", "said"),
    [("no plan x", "No plan x."), ("Wait!", "Wait!"), ("", ""), ("see (a)", "See (a)"), (" x ", "X.")],
)
def test_errors_become_sentences(words: str, said: str) -> None:
    assert sentence_of(words) == said


@pytest.mark.parametrize(
    ("target", "goes"),
    [
        ("/runs?x=1", "/runs?x=1"),
        ("//evil.example", "/"),
        ("/\\evil.example", "/"),
        ("https://evil.example/", "/"),
        ("javascript:alert(1)", "/"),
        ("/a\r\nSet-Cookie: x", "/"),
        ("/a b", "/"),
        ("", "/"),
    ],
)
def test_going_back_leads_nowhere_else(target: str, goes: str) -> None:
    assert same_origin_path(target) == goes
