"""The dossier's container: a zip file with exactly one possible spelling.

Members are stored uncompressed, sorted by name, with a fixed date and no extra fields, comments or
attributes. `unpack` slices the members out and then packs them again: a file that differs in one byte from
what `pack` gives is refused. That leaves no room for what zip files are abused for (two readers seeing
different members, paths that leave the folder, links, bombs, data before, between or after members). Any
zip program can still open the file.

Source: PKWARE APPNOTE 6.3, sections 4.3.7, 4.3.12 and 4.3.16.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Mapping

from audit.canonical import shown
from audit.errors import DossierError

MAX_ARCHIVE_SIZE = 2**32 - 1  # bytes; beyond this zip needs another format
MAX_MEMBERS = 30_000
MAX_NAME_SIZE = 128  # bytes
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*(/[a-z0-9][a-z0-9._-]*)*", re.ASCII)

_LOCAL = struct.Struct("<IHHHHHIIIHH")
_CENTRAL = struct.Struct("<IHHHHHHIIIHHHHHII")
_END = struct.Struct("<IHHHHIIH")
_LOCAL_MAGIC, _CENTRAL_MAGIC, _END_MAGIC = 0x04034B50, 0x02014B50, 0x06054B50
_VERSION = 10  # of the format: stored files need no more; host system 0, so no file modes or links
_DATE = 0x21  # 1 January 1980, the format's earliest


def pack(members: Mapping[str, bytes]) -> bytes:
    """The archive of these members; the same members always give the same bytes.

    Raises DossierError for a name that is not plain lower-case ASCII and for too many or too large members.
    """
    if len(members) > MAX_MEMBERS:
        raise DossierError(f"archive: expected at most {MAX_MEMBERS} members, got {len(members)}")
    for name in members:
        _check_name(name)
    return _packed(members)


def _packed(members: Mapping[str, bytes]) -> bytes:
    parts: list[bytes] = []
    directory: list[bytes] = []
    offset = 0
    for name in sorted(members):
        data, encoded = members[name], name.encode("ascii")
        if offset + len(data) > MAX_ARCHIVE_SIZE:
            raise DossierError(f"archive: expected at most {MAX_ARCHIVE_SIZE} bytes, {name} goes beyond")
        common = (_VERSION, 0, 0, 0, _DATE, zlib.crc32(data), len(data), len(data), len(encoded), 0)
        header = _LOCAL.pack(_LOCAL_MAGIC, *common) + encoded
        directory.append(_CENTRAL.pack(_CENTRAL_MAGIC, _VERSION, *common, 0, 0, 0, 0, offset) + encoded)
        parts += (header, data)
        offset += len(header) + len(data)
    size = sum(map(len, directory))
    if offset + size + _END.size > MAX_ARCHIVE_SIZE:
        raise DossierError(f"archive: expected at most {MAX_ARCHIVE_SIZE} bytes, got {offset + size}")
    end = _END.pack(_END_MAGIC, 0, 0, len(members), len(members), size, offset, 0)
    return b"".join([*parts, *directory, end])


def unpack(data: bytes) -> dict[str, bytes]:
    """The members by name; raises DossierError unless `data` is exactly what `pack` makes of them.

    Nothing is written anywhere, and no more memory is used than a few times the file's size.
    """
    if not _END.size <= len(data) <= MAX_ARCHIVE_SIZE:
        raise DossierError(f"archive: expected {_END.size} to {MAX_ARCHIVE_SIZE} bytes, got {len(data)}")
    magic, _, _, _, count, size, start, _ = _END.unpack_from(data, len(data) - _END.size)
    if magic != _END_MAGIC or start + size + _END.size != len(data):
        raise DossierError("archive: does not end as a dossier does (cut off, extended, or another file)")
    if count > MAX_MEMBERS:
        raise DossierError(f"archive: expected at most {MAX_MEMBERS} members, got {count}")
    members: dict[str, bytes] = {}
    position, end, total = start, start + size, 0
    for _ in range(count):
        if position + _CENTRAL.size > end:
            raise DossierError("archive: the list of members is cut off")
        fields = _CENTRAL.unpack_from(data, position)
        length, name_size, offset = fields[9], fields[10], fields[16]
        position += _CENTRAL.size
        name = _decode_name(data[position : min(position + name_size, end)])
        position += name_size
        first = offset + _LOCAL.size + name_size
        if name in members or first + length > start:
            raise DossierError(f"archive: member {name} is listed twice or reaches beyond the file")
        total += length
        if total > start:
            raise DossierError("archive: members overlap")
        members[name] = data[first : first + length]
    again = _packed(members)
    if again != data:
        raise DossierError(
            f"archive: byte {_first_difference(again, data)} is not what the deterministic form has there "
            "(changed, or packed by another program)"
        )
    return members


def _decode_name(encoded: bytes) -> str:
    try:
        name = encoded.decode("ascii")
    except UnicodeDecodeError as error:
        raise DossierError(f"archive: member name is not ASCII: {shown(encoded)}") from error
    _check_name(name)
    return name


def _check_name(name: str) -> None:
    if len(name) > MAX_NAME_SIZE or not _NAME.fullmatch(name):
        raise DossierError(f"archive: member name: expected lower-case letters, digits and . _ - /, got {shown(name)}")


def _first_difference(one: bytes, other: bytes) -> int:
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high) // 2
        if one[low : middle + 1] == other[low : middle + 1]:
            low = middle + 1
        else:
            high = middle
    return low
