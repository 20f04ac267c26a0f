"""Errors of the hospital's room. Catching SitePackagesError catches every one of them.

SitePackagesError
├── EncoderStoreError         an installed text model cannot be found, fetched or read
└── DataError                 the hospital's data or a table describing it
    ├── MalformedTableError   a file cannot be read as the table it should be; nothing was imported
    ├── CodeTableError        the configured table of diagnosis codes is unusable
    ├── CodeRefusedError      one diagnosis code is not valid (becomes a rejected row, never a failed import)
    ├── ImportRefusedError    the tables were read, but nothing may be stored
    ├── ManifestError         a data set's manifest is unreadable or incomplete
    ├── DatasetError          a data set does not match its manifest, or cannot give what is asked
    └── SampleError           a synthetic sample cannot be made as asked
"""

from __future__ import annotations


class SitePackagesError(Exception):
    """Root of every error this room raises on purpose."""


class EncoderStoreError(SitePackagesError):
    """A text model cannot be fetched, or an installed one cannot be found or read."""


class DataError(SitePackagesError):
    """Something is wrong with the hospital's data."""


class MalformedTableError(DataError):
    """A file cannot be read as a table: encoding, quoting, columns or file type."""


class CodeTableError(DataError):
    """The configured table of diagnosis codes cannot be used."""


class CodeRefusedError(DataError):
    """A diagnosis code was refused.

    Attributes:
        reason: the short reason that the import report groups by.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class ImportRefusedError(DataError):
    """The tables could be read, but storing a data set from them is refused."""


class ManifestError(DataError):
    """A data set's manifest is unreadable, incomplete or of another schema."""


class DatasetError(DataError):
    """A data set does not match its manifest, or was asked for something it cannot give."""


class SampleError(DataError):
    """A synthetic sample cannot be made as asked."""
