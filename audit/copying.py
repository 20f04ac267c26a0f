"""Copying a log into another database: entry by entry, going on where an earlier copy stopped, roots compared."""

from __future__ import annotations

from collections.abc import Callable

from audit.entry import Entry
from audit.errors import LogError
from audit.store import Log

_BATCH = 1000  # entries copied in one transaction


def copy_log(source: Log, target: Log, *, progress: Callable[[int, int], None] = lambda _done, _size: None) -> int:
    """Copy the entries of `source` that `target` lacks; returns how many. Only the entries of this moment are copied.

    Raises LogError when the target holds another log, or when the roots differ in the end: do not use it then.
    """
    size, copied = source.size, target.size
    if copied > size or target.root() != source.root(copied):
        raise LogError(f"the target holds another log ({copied} entries); give an empty database")
    began_at = copied
    while copied < size:
        stop = min(copied + _BATCH, size)
        target.append([Entry.from_bytes(data) for data in source.read_entries(copied, stop)], expected_size=copied)
        copied = stop
        progress(copied, size)
    if target.root() != source.root(size):
        raise LogError("the copy's root differs from the log's; do not use it")
    return size - began_at
