"""English and Dutch: which is chosen, how figures and times are written, and that nothing is left untranslated."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path

import pytest
from babel.messages.catalog import Catalog
from babel.messages.pofile import read_po, write_po
from starlette.requests import Request

from admin_api.web import language as spoken
from admin_api.web import translating
from admin_api.web.language import LANGUAGES, N_, _, accepted, current, language, language_of, ngettext, speaking
from admin_api.web.rendering import environment_for

EN, NL = language("en"), language("nl")
NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


def test_every_message_is_translated() -> None:
    """What it prints is what to translate: python -m admin_api.web.language extract, then edit the .po file."""
    found = translating.find_messages()
    assert len(found) > 150
    assert [fault for code in LANGUAGES if code != "en" for fault in translating.faults(code, found)] == []


@pytest.mark.parametrize(
    ("header", "code"),
    [
        ("", "en"),
        ("nl", "nl"),
        ("nl-NL,nl;q=0.9,en;q=0.8", "nl"),
        ("de,en;q=0.5,nl;q=0.7", "nl"),
        ("en;q=0.5, nl;q=0.5", "en"),
        ("fr", "en"),
        ("*", "en"),
        ("nl;q=0, en", "en"),
        ("nl;q=x", "en"),
        ("nl;q=9", "en"),
        (";;;,,,", "en"),
        ("NL-be", "nl"),
        ("x" * 100_000 + ",nl", "en"),
    ],
)
def test_accept_language(header: str, code: str) -> None:
    assert accepted(header) == code


@dataclass
class _Viewer:
    language: str


@pytest.mark.parametrize(
    ("state", "cookie", "account", "header", "code"),
    [
        ("nl", "en", "en", "en", "nl"),
        (None, "nl", "en", "nl", "en"),
        (None, "nl", None, "en", "nl"),
        (None, "xx", None, "nl", "nl"),
        (None, "xx", "nl", "en", "nl"),
        (None, None, "nl", "en", "nl"),
        (None, None, "xx", "nl", "nl"),
        (None, None, None, "nl", "nl"),
    ],
)
def test_who_decides(state: str | None, cookie: str | None, account: str | None, header: str, code: str) -> None:
    headers = [(b"accept-language", header.encode())]
    if cookie:
        headers.append((b"cookie", f"zegel-language={cookie}".encode()))
    kept: dict[str, object] = {} if state is None else {"language": state}
    if account is not None:
        kept["viewer"] = _Viewer(account)
    assert language_of(Request({"type": "http", "headers": headers, "state": kept})) == code


def test_messages_are_said_in_the_language_of_the_moment() -> None:
    assert _("Hospitals") == "Hospitals"
    with speaking("nl"):
        assert _("Hospitals") == "Ziekenhuizen"
        assert current() is NL
        with speaking("en"):
            assert _("Hospitals") == "Hospitals"
        assert _("Hospitals") == "Ziekenhuizen"
    assert _("Hospitals") == "Hospitals"


def test_the_language_follows_into_threads_and_stays_out_of_others() -> None:
    with ThreadPoolExecutor(1) as pool, speaking("nl"):
        assert pool.submit(copy_context().run, _, "Hospitals").result() == "Ziekenhuizen"
        assert pool.submit(_, "Hospitals").result() == "Hospitals"


def test_values_and_percent_signs() -> None:
    assert _("No connection since %(time)s. The figures are from then; trying again.", time="12:00").startswith(
        "No connection since 12:00."
    )
    assert _("95%% interval") == "95% interval"
    assert _("100% of it") == "100% of it"
    assert _("%(share)s is 100%%", share="all") == "all is 100%"
    with pytest.raises(KeyError):
        _("%(share)s", other=1)
    assert N_("Hospitals") == "Hospitals"


def test_plurals() -> None:
    one, many = "%(have)s of %(num)s approval", "%(have)s of %(num)s approvals"
    assert ngettext(one, many, 1, have=0) == "0 of 1 approval"
    assert ngettext(one, many, 2000, have=1) == "1 of 2,000 approvals"
    with speaking("nl"):
        assert ngettext(one, many, 1, have=0) == "0 van 1 goedkeuring"
        assert ngettext(one, many, 2000, have=1) == "1 van 2.000 goedkeuringen"


@pytest.mark.parametrize(
    ("value", "decimals", "english", "dutch"),
    [
        (0, None, "0", "0"),
        (1234567.891, None, "1,234,567.891", "1.234.567,891"),
        (0.5, 3, "0.500", "0,500"),
        (-0.04, None, "\u22120.04", "\u22120,04"),
        (-0.0001, 2, "0.00", "0,00"),
        (-0.0, None, "0", "0"),
        (100, None, "100", "100"),
        (2.0004, None, "2", "2"),
        (None, None, "\u2013", "\u2013"),
        (math.nan, 2, "\u2013", "\u2013"),
        (math.inf, None, "\u221e", "\u221e"),
        (-math.inf, None, "\u2212\u221e", "\u2212\u221e"),
    ],
)
def test_numbers(value: float | None, decimals: int | None, english: str, dutch: str) -> None:
    assert EN.number(value, decimals) == english
    assert NL.number(value, decimals) == dutch


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (3.2, "3.2"),
        (3.2145, "3.21"),
        (12.345, "12.3"),
        (1234.5, "1,234"),
        (0.05123, "0.0512"),
        (0.0, "0"),
        (1e-9, "1e-9"),
        (math.inf, "no guarantee"),
        (None, "\u2013"),
        (-0.31, "\u22120.31"),
    ],
)
def test_epsilon(value: float | None, written: str) -> None:
    assert EN.epsilon(value) == written


def test_epsilon_without_bound_protects_nobody_in_any_language() -> None:
    assert NL.epsilon(math.inf) == "geen garantie"


def test_other_figures() -> None:
    assert EN.percent(0.7149) == "71%"
    assert NL.percent(0.7149, 1) == "71,5%"
    assert EN.percent(None) == "\u2013"
    assert [EN.delta(value) for value in (1e-6, 2.5e-7, None)] == ["1e-6", "2.5e-7", "\u2013"]
    assert [EN.bytes_size(value) for value in (0, 999, 1000, 52_182, 1_500_000, 2e12, None)] == [
        "0 B",
        "999 B",
        "1.0 kB",
        "52.2 kB",
        "1.5 MB",
        "2.0 TB",
        "\u2013",
    ]
    assert EN.short_digest("sha256:" + "ab" * 32) == "sha256:abababababab"


@pytest.mark.parametrize(
    ("seconds", "english"),
    [
        (0.42, "0.4 sec"),
        (42, "42 sec"),
        (75, "1 min 15 sec"),
        (3600, "1 hr"),
        (3725, "1 hr 2 min"),
        (90061, "1 day 1 hr"),
        (86401, "1 day"),
        (None, "\u2013"),
        (math.inf, "\u2013"),
    ],
)
def test_durations(seconds: float | None, english: str) -> None:
    assert EN.duration(seconds) == english


def test_days_and_times_are_iso_in_utc_in_every_language() -> None:
    summer = datetime(2026, 7, 1, 0, 30, tzinfo=timezone(timedelta(hours=2)))
    for one in (EN, NL):
        assert one.date(summer) == "2026-06-30"
        assert one.moment(summer) == "2026-06-30 22:30 UTC"
        assert one.moment("2026-11-22T05:00:00Z") == "2026-11-22 05:00 UTC"
        assert one.date(date(2026, 1, 2)) == "2026-01-02"
        assert one.date(None) == one.moment(None) == "\u2013"
    assert EN.moment(datetime(2026, 1, 2, 3, 4)) == "2026-01-02 03:04 UTC"


def test_how_long_ago() -> None:
    assert EN.ago("2026-11-19T12:00:00Z", NOW) == "3 days ago"
    assert EN.ago(NOW + timedelta(hours=2), NOW) == "in 2 hours"
    assert NL.ago("2026-11-19T12:00:00Z", NOW) == "3 dagen geleden"
    assert NL.ago(NOW, NOW) == "zojuist"
    assert (
        environment_for("en").from_string("{{ when|ago }}").render(when="2026-11-19T12:00:00Z", now=NOW) == "3 days ago"
    )


def test_an_unknown_language_is_refused() -> None:
    with pytest.raises(ValueError, match="no language 'de'; there are en, nl"):
        language("de")


@pytest.fixture
def translators(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small project of one template, one module and one script, with a catalogue of its own."""
    (tmp_path / "templates").mkdir()
    (tmp_path / "static").mkdir()
    (tmp_path / "templates" / "page.html").write_text(
        "{% trans %}Hello{% endtrans %} {% trans n=2 %}{{ n }} run{% pluralize %}{{ n }} runs{% endtrans %}"
    )
    (tmp_path / "module.py").write_text('WORD = N_("Seal")\nsaid = _("By %(name)s", name=1)\n')
    (tmp_path / "static" / "page.js").write_text('const a = _("Lost since %(time)s", { time });')
    monkeypatch.setattr(translating, "ROOT", tmp_path)
    monkeypatch.setattr(spoken, "LOCALE", tmp_path / "locale")
    monkeypatch.setattr(translating, "find_messages", lambda find=translating.find_messages: find(tmp_path))
    return tmp_path


def translate(folder: Path, words: dict[str, str | tuple[str, str]]) -> None:
    """Put translations into the folder's catalogue."""
    path = folder / "locale/nl/LC_MESSAGES/zegel.po"
    with path.open("rb") as file:
        catalogue = read_po(file, locale="nl")
    for message in catalogue:
        first = message.id[0] if isinstance(message.id, tuple | list) else message.id
        if first in words:
            message.string = words[first]
    translating.write("nl", catalogue)


def test_extract_check_and_merge(translators: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert translating.main(["extract"]) == 0
    assert capsys.readouterr().out == "nl: 5 messages, 5 to do\n"
    assert translating.main(["check"]) == 1
    said = capsys.readouterr().out
    assert "nl: no translation of 'Hello' (templates/page.html)" in said
    assert "nl: no translation of 'Lost since %(time)s' (static/page.js)" in said

    translate(
        translators,
        {
            "Hello": "Hallo",
            "%(n)s run": ("%(n)s run", "%(n)s runs"),
            "By %(name)s": "Door %(naam)s",
            "Lost since %(time)s": "Weg sinds %(time)s",
        },
    )
    assert translating.main(["check"]) == 1
    said = capsys.readouterr().out
    assert "'Door %(naam)s' has other placeholders than 'By %(name)s' (module.py)" in said
    assert said.count("\n") == 2

    other = Catalog(locale="nl")
    other.add("Seal", "Zegel")
    other.add("Hello", "Dag")  # there is one already, which stays
    other.add("Nowhere", "Nergens")
    with (translators / "other.po").open("wb") as file:
        write_po(file, other)
    assert translating.main(["merge", str(translators / "other.po")]) == 0
    assert capsys.readouterr().out == "nl: 1 translations taken\n"

    (translators / "module.py").write_text('WORD = N_("Seal")\n')
    assert translating.main(["check"]) == 1
    assert "'By %(name)s' is translated but stands nowhere; run extract" in capsys.readouterr().out
    assert translating.main(["extract"]) == 0
    assert translating.main(["check"]) == 0
    assert capsys.readouterr().out.endswith("4 messages, all translated\n")
    written = (translators / "locale/nl/LC_MESSAGES/zegel.po").read_bytes()
    assert translating.main(["extract"]) == 0
    assert (translators / "locale/nl/LC_MESSAGES/zegel.po").read_bytes() == written


def test_the_command_says_how_it_is_used(capsys: pytest.CaptureFixture[str]) -> None:
    assert translating.main(["merge"]) == translating.main([]) == 2
    assert "usage: python -m admin_api.web.language" in capsys.readouterr().err


def test_scripts_get_their_own_messages_only() -> None:
    assert NL.script_messages["Copied."] == "Gekopieerd."
    assert "Hospitals" not in NL.script_messages
    assert EN.script_messages == {}
