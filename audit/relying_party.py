"""Relying parties: for which web site a passkey signs, in a certificate and in what a browser says.

A passkey belongs to one relying party, named by a domain. A certificate for a passkey says so in one subject
alternative name, the URI `zegel:passkey?rp=<domain>`; a browser says from which page it was used, its origin.

>>> relying_party_uri("consortium.example")
'zegel:passkey?rp=consortium.example'
>>> check_origin("https://admin.consortium.example:8443", "consortium.example")

All fields are public. Source: WebAuthn Level 3, section 4 (Relying Party Identifier) and section 7.2 step 12 (origin).
"""

from __future__ import annotations

import re

from audit.canonical import shown
from audit.errors import CertificateError, StatementError

SCHEME = "zegel:"
_PREFIX = "zegel:passkey?rp="
_LOCAL = "localhost"  # the only place where browsers offer passkeys without TLS
_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_DOMAIN = re.compile(rf"{_LABEL}(?:\.{_LABEL})*", re.ASCII)
_MAX_DOMAIN = 253  # characters
_ORIGIN = re.compile(r"(?P<scheme>https?)://(?P<host>[a-z0-9.-]+)(?::(?P<port>[1-9][0-9]{0,4}))?", re.ASCII)
_DEFAULT_PORTS = {"https": "443", "http": "80"}  # browsers leave them out


def check_relying_party(value: str) -> str:
    """`value` when it is a domain name in lower case; raises CertificateError for anything else, IP addresses too."""
    if len(value) > _MAX_DOMAIN or not _is_domain(value):
        raise CertificateError(
            f"relying party: expected a domain name in lower case, such as consortium.example, got {shown(value)}"
        )
    return value


def relying_party_uri(relying_party: str) -> str:
    """How a certificate for a passkey names its relying party; raises CertificateError when it is no domain name."""
    return _PREFIX + check_relying_party(relying_party)


def relying_party_in(uri: str) -> str:
    """The relying party that `relying_party_uri` wrote; raises CertificateError for any other spelling."""
    if not uri.startswith(_PREFIX):
        raise CertificateError(f"subject alternative name: expected {_PREFIX}<domain>, got {shown(uri)}")
    return check_relying_party(uri.removeprefix(_PREFIX))


def check_origin(origin: str, relying_party: str) -> None:
    """Raises StatementError unless `origin` is a page of the relying party: its domain or one below, over TLS.

    Without TLS only `localhost` may be used, as in browsers. The port is free.
    """
    match = _ORIGIN.fullmatch(origin)
    host = "" if match is None else match["host"]
    if match is None or not _is_domain(host) or not (host == relying_party or host.endswith(f".{relying_party}")):
        raise StatementError(f"origin: expected https://{relying_party} or a domain below it, got {shown(origin)}")
    if match["scheme"] == "http" and relying_party != _LOCAL:
        raise StatementError(f"origin: expected https, got {shown(origin)}")
    if match["port"] is not None and (int(match["port"]) > 65535 or match["port"] == _DEFAULT_PORTS[match["scheme"]]):
        raise StatementError(f"origin: expected a port as browsers write it, got {shown(origin)}")


def _is_domain(text: str) -> bool:
    """Whether it is a domain name; the last label of one is never a number, that of an IP address is."""
    return _DOMAIN.fullmatch(text) is not None and not text.rpartition(".")[2].isdigit()
