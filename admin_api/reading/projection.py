"""From the log's entries to the read model's rows.

What an entry says is taken as the log has it: it was judged when it was logged, and acts judge it again. So an entry's
bytes are only parsed here. Kinds that no page asks about are counted and leave it at that.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping

from sqlalchemy import Connection

from admin_api.errors import ReadingError
from admin_api.reading import fold_holders, fold_releases, fold_runs
from admin_api.reading.fold import FREQUENT, NEWS, Fold, folded_name
from admin_api.reading.rows import Row, Rows
from admin_api.reading.tables import KindRow, MentionRow, PositionRow, SubjectRow
from audit.disclosure import COMMITTING
from audit.entry import VALUE_ERASED
from audit.merkle import leaf_hash

FOLDS: Mapping[str, Callable[[Fold], None]] = {**fold_holders.FOLDS, **fold_runs.FOLDS, **fold_releases.FOLDS}
_COMMITTING = frozenset({*COMMITTING, VALUE_ERASED})


def project(
    connection: Connection, entries: Iterable[tuple[int, bytes]], plan_text: Callable[[str], bytes | None]
) -> Row:
    """Projects entries that follow those projected so far, within a writing transaction; returns the new position.

    `plan_text` gives a plan's bytes by hash, None when they are not kept here. Raises ReadingError for an entry out of
    order, or one that is not as entries of its kind are.
    """
    rows = Rows(connection)
    position = rows.change(PositionRow, 1)
    if position is None:
        raise ReadingError("the read model has no position; restart the server to make it anew")
    kinds = _Kinds(rows)
    for index, data in entries:
        if index != position["size"]:
            raise ReadingError(f"expected entry {position['size']} of the log, got {index}")
        try:
            value = json.loads(data)
            fold = Fold(rows, index, value["time"], value["kind"], value["body"], plan_text)
            act = FOLDS.get(fold.kind)
            if act is not None:
                act(fold)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ReadingError(
                f"entry {index} of the log is not as its kind's are ({type(error).__name__}: {error}); "
                "`zegel audit check` says what is wrong with it"
            ) from error
        kind = kinds.counted(fold.kind)
        if fold.kind not in FREQUENT:
            fold.mention(NEWS, "")
        for what, name in fold.mentioned:
            rows.add(MentionRow, _subject(rows, position, what, name, index), index, kind)
        if fold.kind in _COMMITTING:
            position["committing"] = index
        position["size"] = index + 1
        position["leaf"] = leaf_hash(data)
    rows.write()
    return position


def _subject(rows: Rows, position: Row, what: str, name: str, index: int) -> int:
    """The number of a subject; a new one gets the next."""
    row = rows.change(SubjectRow, what, name)
    if row is None:
        position["subjects"] += 1
        row = rows.put(
            SubjectRow,
            what=what,
            name=name,
            id=position["subjects"],
            folded=folded_name(name),
            entry=index,
            mentions=0,
        )
    row["mentions"] += 1
    return int(row["id"])


class _Kinds:
    """Numbers of kinds, which are given as kinds are first seen, and how many entries there are of each."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self._last = max((row["id"] for row in rows.all(KindRow)), default=0)

    def counted(self, kind: str) -> int:
        """One more entry of a kind; returns the kind's number."""
        row = self._rows.change(KindRow, kind)
        if row is None:
            self._last += 1
            row = self._rows.put(KindRow, kind=kind, id=self._last, entries=0)
        row["entries"] += 1
        return int(row["id"])
