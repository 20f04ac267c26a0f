"""RFC 3161 time stamps: an outside authority's word that some bytes existed at a time.

What is checked here needs no trust in anybody: the answer grants a stamp over exactly these bytes, its signature is by
the certificate inside it, and that certificate is for time stamping and was valid at the stated time. Whether to trust
the authority is the reader's: `TimeStamp.authority` names it, and `openssl ts -verify` with its root checks the rest.

Source: RFC 3161 (TimeStampResp, TSTInfo), RFC 5652 section 5.4 (what a SignerInfo signs), X.690 (DER).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from audit.canonical import format_time, shown
from audit.errors import DocumentError

MAX_SIZE = 1 << 16  # bytes of a response
_SEQUENCE, _SET, _INTEGER, _OCTETS, _OID, _TIME = 0x30, 0x31, 0x02, 0x04, 0x06, 0x18
_TAG_0 = 0xA0  # context-specific, constructed, number 0
_SIGNED_DATA, _TST_INFO = "2a864886f70d010702", "2a864886f70d0109100104"
_MESSAGE_DIGEST, _CONTENT_TYPE = "2a864886f70d010904", "2a864886f70d010903"
_UNREADABLE = (
    *(IndexError, KeyError, ValueError, TypeError, UnsupportedAlgorithm),
    *(x509.InvalidVersion, x509.DuplicateExtension, x509.UnsupportedGeneralNameType),
)
_HASHES: dict[str, type[hashes.SHA256] | type[hashes.SHA384] | type[hashes.SHA512]] = {
    "608648016503040201": hashes.SHA256,
    "608648016503040202": hashes.SHA384,
    "608648016503040203": hashes.SHA512,
}


@dataclass(frozen=True)
class TimeStamp:
    """A verified stamp. `authority` is the subject of its certificate, as RFC 4514 writes it."""

    time: datetime
    authority: str
    certificate: x509.Certificate
    nonce: int | None  # of the request it answers


@dataclass(frozen=True)
class _Node:
    """One DER value."""

    tag: int
    content: bytes
    whole: bytes

    def children(self) -> list[_Node]:
        return list(_nodes(self.content))

    def expect(self, tag: int, what: str) -> _Node:
        if self.tag != tag:
            raise DocumentError(f"time stamp: {what}: expected DER tag {tag:#04x}, got {self.tag:#04x}")
        return self


def verify_time_stamp(response: bytes, data: bytes) -> TimeStamp:
    """The stamp in a TimeStampResp over `data`. Raises DocumentError when it is none, or not over these bytes."""
    if len(response) > MAX_SIZE:
        raise DocumentError(f"time stamp: expected at most {MAX_SIZE} bytes, got {len(response)}")
    try:
        return _verify(response, data)
    except _UNREADABLE as error:
        raise DocumentError(f"time stamp: not a time stamp response: {error}") from error


def _verify(response: bytes, data: bytes) -> TimeStamp:
    status, *rest = _only(response).expect(_SEQUENCE, "response").children()
    granted = status.children()[0].expect(_INTEGER, "status").content
    if granted not in (b"\x00", b"\x01"):  # granted, granted with modifications
        raise DocumentError(f"time stamp: the authority refused it (status {granted.hex()})")
    (token,) = rest
    kind, wrapped = token.expect(_SEQUENCE, "token").children()
    if kind.content.hex() != _SIGNED_DATA:
        raise DocumentError("time stamp: expected signed data")
    signed_data = _only(wrapped.expect(_TAG_0, "signed data").content).children()
    content_kind, content = signed_data[2].children()
    if content_kind.content.hex() != _TST_INFO:
        raise DocumentError("time stamp: expected a TSTInfo")
    info = _only(content.content).expect(_OCTETS, "TSTInfo").content
    time, nonce = _check_info(info, data)
    certificates = [
        x509.load_der_x509_certificate(each.whole) for each in signed_data[3].expect(_TAG_0, "certificates").children()
    ]
    signers = signed_data[-1].expect(_SET, "signers").children()
    if len(signers) != 1:
        raise DocumentError(f"time stamp: expected one signer, got {len(signers)}")
    certificate = _check_signer(signers[0].children(), certificates, info)
    _check_certificate(certificate, time)
    return TimeStamp(time, certificate.subject.rfc4514_string(), certificate, nonce)


def _check_info(info: bytes, data: bytes) -> tuple[datetime, int | None]:
    """The TSTInfo's time and nonce, after comparing its imprint with `data`."""
    fields = _only(info).expect(_SEQUENCE, "TSTInfo").children()
    algorithm, imprint = fields[2].expect(_SEQUENCE, "message imprint").children()
    chosen = _hash(algorithm)
    if imprint.content != hashlib.new(chosen.name, data).digest():
        raise DocumentError("time stamp: was given for other bytes")
    text = fields[4].expect(_TIME, "time").content.decode("ascii")
    # GeneralizedTime in DER: UTC, with a fraction only when it is not zero.
    whole, _, _ = text.removesuffix("Z").partition(".")
    if not text.endswith("Z") or len(whole) != 14 or not whole.isdigit():
        raise DocumentError(f"time stamp: expected a UTC time, got {shown(text)}")
    # After the time: accuracy (a sequence), ordering (a boolean), nonce (an integer), each optional.
    nonces = [int.from_bytes(each.content, "big", signed=True) for each in fields[5:] if each.tag == _INTEGER]
    return datetime.strptime(whole, "%Y%m%d%H%M%S").replace(tzinfo=UTC), nonces[0] if nonces else None


def _check_signer(fields: list[_Node], certificates: list[x509.Certificate], info: bytes) -> x509.Certificate:
    """The certificate that signed, by issuer and serial number."""
    issuer, serial = fields[1].expect(_SEQUENCE, "signer's issuer and serial number").children()
    number = int.from_bytes(serial.expect(_INTEGER, "serial number").content, "big", signed=True)
    found = [
        each for each in certificates if each.serial_number == number and each.issuer.public_bytes() == issuer.whole
    ]
    if len(found) != 1:
        raise DocumentError("time stamp: the signer's certificate is not in it")
    chosen = _hash(fields[2])
    attributes = fields[3].expect(_TAG_0, "signed attributes")
    values = {each.children()[0].content.hex(): each.children()[1].children()[0] for each in attributes.children()}
    if values[_MESSAGE_DIGEST].content != hashlib.new(chosen.name, info).digest():
        raise DocumentError("time stamp: the signature is over another TSTInfo")
    if values[_CONTENT_TYPE].content.hex() != _TST_INFO:
        raise DocumentError("time stamp: the signature is over another type of content")
    # What is signed is the attributes' DER as a SET, not with the tag they carry here (RFC 5652, 5.4).
    signed = bytes([_SET]) + attributes.whole[1:]
    key, signature = found[0].public_key(), fields[5].expect(_OCTETS, "signature").content
    try:
        if isinstance(key, rsa.RSAPublicKey):
            key.verify(signature, signed, padding.PKCS1v15(), chosen)
        elif isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(signature, signed, ec.ECDSA(chosen))
        else:
            raise DocumentError(f"time stamp: cannot check signatures by {type(key).__name__}")
    except InvalidSignature:
        raise DocumentError("time stamp: the signature is not its certificate's") from None
    return found[0]


def _check_certificate(certificate: x509.Certificate, time: datetime) -> None:
    try:
        usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage)
    except x509.ExtensionNotFound:
        raise DocumentError("time stamp: its certificate is not for time stamping") from None
    if not usage.critical or list(usage.value) != [ExtendedKeyUsageOID.TIME_STAMPING]:
        raise DocumentError("time stamp: its certificate is not for time stamping alone")
    first, last = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if not first <= time <= last:
        raise DocumentError(
            f"time stamp: made {format_time(time)}, its certificate is valid {format_time(first)} to "
            f"{format_time(last)}"
        )


def _hash(algorithm: _Node) -> hashes.SHA256 | hashes.SHA384 | hashes.SHA512:
    name = algorithm.children()[0].expect(_OID, "hash algorithm").content.hex()
    if name not in _HASHES:
        raise DocumentError("time stamp: expected SHA-256, SHA-384 or SHA-512")
    return _HASHES[name]()


def _only(data: bytes) -> _Node:
    nodes = list(_nodes(data))
    if len(nodes) != 1:
        raise DocumentError(f"time stamp: expected one DER value, got {len(nodes)}")
    return nodes[0]


def _nodes(data: bytes) -> Iterator[_Node]:
    """The DER values one after another in `data`; lengths are checked, high tag numbers refused."""
    position = 0
    while position < len(data):
        start, tag = position, data[position]
        length = data[position + 1]
        position += 2
        if tag & 0x1F == 0x1F:
            raise DocumentError("time stamp: a DER tag of more than one byte")
        if length >= 0x80:
            size = length & 0x7F
            if not 1 <= size <= 4 or position + size > len(data):
                raise DocumentError("time stamp: a DER length is not definite or too large")
            length = int.from_bytes(data[position : position + size], "big")
            position += size
        if position + length > len(data):
            raise DocumentError("time stamp: is cut off")
        yield _Node(tag, data[position : position + length], data[start : position + length])
        position += length
