"""Asking an RFC 3161 time stamping authority about a checkpoint.

The authority learns a digest and nothing else. Its answer is checked as the dossier's verifier will, and its nonce
against the request's, before it is used.
"""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Callable
from urllib.parse import urlsplit

from admin_api.errors import ReleaseRefused
from audit.errors import DocumentError
from audit.time_stamp import MAX_SIZE, verify_time_stamp

TIMEOUT_S = 30
Post = Callable[[str, bytes], bytes]


def request_time_stamp(url: str, data: bytes, post: Post | None = None) -> bytes:
    """The authority's answer about `data`, verified as far as it can be without trusting the authority.

    `post` sends a request to a URL and returns the answer; None sends it over HTTP. Raises ReleaseRefused, naming the
    authority.
    """
    from rfc3161_client import HashAlgorithm, TimestampRequestBuilder

    request = TimestampRequestBuilder().data(data).hash_algorithm(HashAlgorithm.SHA256).nonce().cert_request(
        cert_request=True
    ).build()  # fmt: skip
    answer = (post or _post)(url, request.as_bytes())
    try:
        stamp = verify_time_stamp(answer, data)
    except DocumentError as error:
        raise ReleaseRefused(f"time stamping authority {url}: {error}") from None
    if stamp.nonce != request.nonce:
        raise ReleaseRefused(f"time stamping authority {url}: answered another request (its nonce is {stamp.nonce})")
    return answer


def _post(url: str, body: bytes) -> bytes:
    if urlsplit(url).scheme not in ("http", "https"):
        raise ReleaseRefused(f"time stamping authority {url}: expected a URL that begins with https:// or http://")
    request = urllib.request.Request(  # noqa: S310 - the scheme was checked
        url, data=body, headers={"Content-Type": "application/timestamp-query"}
    )
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:  # noqa: S310 - the scheme was checked
            answer: bytes = response.read(MAX_SIZE + 1)
    except (urllib.error.URLError, OSError, ValueError) as error:
        raise ReleaseRefused(
            f"time stamping authority {url} does not answer: {error}; certify again later, or without --time-stamp"
        ) from None
    return answer
