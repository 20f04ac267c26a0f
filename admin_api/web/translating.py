"""The translators' side: find every message, keep the translations, name what has none.

    python -m admin_api.web.language extract        new messages into locale/<code>/LC_MESSAGES/zegel.po, old ones out
    python -m admin_api.web.language merge FILE...  take translations from other .po files, where they know the message
    python -m admin_api.web.language check          name messages without a translation, or with other placeholders

Messages are found in the templates (`_`, `ngettext`, trans blocks), in Python (`_`, `ngettext`, `N_`) and in the
scripts of static/ (`_`). Exit status 1 when `check` finds something to do.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from babel.messages.catalog import Catalog, Message
from babel.messages.extract import extract_from_dir
from babel.messages.pofile import read_po, write_po

from admin_api.web.language import LANGUAGES, SOURCE, catalogue_path, read_catalogue

ROOT = Path(__file__).parent
METHODS = [
    ("**/templates/gallery.html", "ignore"),
    ("static/vendor/**", "ignore"),
    ("**.html", "jinja2"),
    ("**.py", "python"),
    ("**.js", "javascript"),
]
OPTIONS = {
    "**.html": {
        "trimmed": "true",
        "trim_blocks": "true",
        "lstrip_blocks": "true",
        "silent": "false",
        "extensions": "jinja2.ext.do, jinja2.ext.loopcontrols",
    },
}
KEYWORDS: dict[str, tuple[int, ...] | None] = {"_": None, "N_": None, "gettext": None, "ngettext": (1, 2)}
_PLACEHOLDER = re.compile(r"%\((\w+)\)[a-z]|%%")
_USAGE = "usage: python -m admin_api.web.language extract | check | merge FILE..."


def find_messages(root: Path = ROOT) -> Catalog:
    """Every message of the pages, with the files it stands in (relative to `root`, without line numbers)."""
    found = Catalog(domain="zegel", project="Zegel", charset="utf-8")
    extracted = extract_from_dir(
        root,
        method_map=METHODS,
        options_map=OPTIONS,
        keywords=KEYWORDS,
        comment_tags=("Translators:",),
        strip_comment_tags=True,
    )
    for name, _line, message, comments, context in extracted:
        # Without line numbers: a line moved is no change to the translations.
        found.add(message, None, [(Path(name).as_posix(), 0)], auto_comments=comments, context=context)
    return found


def updated(code: str, found: Catalog) -> Catalog:
    """The translations into `code`, for exactly the messages that were found."""
    before = read_catalogue(code)
    after = Catalog(locale=code, domain="zegel", project="Zegel", charset="utf-8", fuzzy=False)
    for message in sorted((each for each in found if each.id), key=_order):
        known = before.get(message.id, message.context)
        translated = known.string if known is not None and "fuzzy" not in known.flags else None
        after.add(
            message.id, translated, message.locations, auto_comments=message.auto_comments, context=message.context
        )
    return after


def faults(code: str, found: Catalog) -> Iterator[str]:
    """What keeps the translations into `code` from being complete, one line each."""
    catalogue = read_catalogue(code)
    for message in sorted((each for each in found if each.id), key=_order):
        known = catalogue.get(message.id, message.context)
        where = ", ".join(sorted({name for name, _line in message.locations}))
        if known is None or not all(_forms(known.string)) or "fuzzy" in known.flags:
            yield f"{code}: no translation of {_first(message)!r} ({where})"
            continue
        asked = _placeholders(_forms(message.id))
        for form in _forms(known.string):
            if not _placeholders([form]) <= asked or (isinstance(message.id, str) and _placeholders([form]) != asked):
                yield f"{code}: {form!r} has other placeholders than {_first(message)!r} ({where})"
    wanted = {(_first(each), each.context) for each in found if each.id}
    for message in catalogue:
        if message.id and (_first(message), message.context) not in wanted:
            yield f"{code}: {_first(message)!r} is translated but stands nowhere; run extract"


def merge(code: str, files: Sequence[Path]) -> int:
    """Fill in translations from other .po files where there are none yet. Returns: how many were taken."""
    catalogue = updated(code, find_messages())
    taken = 0
    for path in files:
        with path.open("rb") as file:
            other = read_po(file, locale=code, abort_invalid=True)
        for message in other:
            known = catalogue.get(message.id, message.context) if message.id else None
            if known is not None and all(_forms(message.string)) and not all(_forms(known.string)):
                known.string = message.string
                taken += 1
    write(code, catalogue)
    return taken


def write(code: str, catalogue: Catalog) -> None:
    """Store the translations into `code`: sorted, without dates, so that the same messages give the same bytes."""
    path = catalogue_path(code)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        head = f'# Zegel in {LANGUAGES[code]}. Kept by python -m admin_api.web.language extract.\nmsgid ""\nmsgstr ""\n'
        head += f'"Language: {code}\\n"\n"Content-Type: text/plain; charset=utf-8\\n"\n'
        head += f'"Content-Transfer-Encoding: 8bit\\n"\n"Plural-Forms: {catalogue.plural_forms}\\n"\n\n'
        file.write(head.encode())
        write_po(file, catalogue, omit_header=True, width=120, include_lineno=False)


def main(arguments: Sequence[str]) -> int:
    """The command line. Returns: its exit status."""
    targets = [code for code in LANGUAGES if code != SOURCE]
    match list(arguments):
        case ["extract"]:
            found = find_messages()
            for code in targets:
                write(code, updated(code, found))
                _say(f"{code}: {len(found)} messages, {sum(1 for _fault in faults(code, found))} to do")
        case ["check"]:
            found = find_messages()
            lines = [fault for code in targets for fault in faults(code, found)]
            _say("\n".join(lines) if lines else f"{len(found)} messages, all translated")
            return 1 if lines else 0
        case ["merge", *names] if names:
            for code in targets:
                _say(f"{code}: {merge(code, [Path(name) for name in names])} translations taken")
        case _:
            sys.stderr.write(_USAGE + "\n")
            return 2
    return 0


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")


def _first(message: Message) -> str:
    return _forms(message.id)[0]


def _order(message: Message) -> tuple[str, str]:
    return (min(name for name, _line in message.locations), _first(message))


def _forms(said: str | Sequence[str] | None) -> list[str]:
    if said is None:
        return [""]
    return [said] if isinstance(said, str) else list(said)


def _placeholders(forms: Sequence[str]) -> set[str]:
    return {match for form in forms for match in _PLACEHOLDER.findall(form) if match}
