"""Changes that two people might make at once: `If-Match` against the version that the change is based on.

Source: RFC 9110 section 13.1.1 (If-Match), RFC 6585 section 3 (428).
"""

from __future__ import annotations

from admin_api.web.language import N_
from admin_api.web.problems import Problem


def etag_of(thing: str, version: int) -> str:
    """The entity tag of a thing's version."""
    return f'"{thing}-{version}"'


def check_match(given: str | None, current: str) -> None:
    """Raises Problem 428 without a tag, 412 when the thing has changed since the tag was handed out."""
    if given is None or not given.strip():
        raise Problem(428, "if-match", N_("Say which version you change"),
                      "this may be changed by several people; the request needs the header If-Match",
                      N_("read it, and send its ETag along"))  # fmt: skip
    if current not in (each.strip() for each in given.split(",")):
        raise Problem(412, "changed-meanwhile", N_("Somebody else changed it"),
                      "it is no longer as it was when you looked at it",
                      N_("look at it again, then repeat what still applies"))  # fmt: skip
