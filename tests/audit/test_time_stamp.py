"""Time stamps: answers of a real authority, made with `openssl ts`; refused for other bytes and after any change."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from rfc3161_client import VerifierBuilder, decode_timestamp_response

from audit.certificates import load_certificate
from audit.errors import DocumentError
from audit.time_stamp import MAX_SIZE, verify_time_stamp
from tests.audit.time_stamping_authority import Authority

DATA = b"zegel/demo\n17\nroot\n"

pytestmark = pytest.mark.skipif(
    shutil.which("openssl") is None, reason="openssl, the authority of these tests, is not here"
)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.found(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def answer(authority: Authority) -> bytes:
    return authority.stamp(DATA)


def test_an_answer_is_accepted(authority: Authority, answer: bytes) -> None:
    stamp = verify_time_stamp(answer, DATA)
    assert stamp.authority == "CN=Stamps,O=Notary"
    assert authority.started <= stamp.time <= authority.now()


@pytest.mark.parametrize("algorithm", ["sha384", "sha512"])
def test_other_digests(authority: Authority, algorithm: str) -> None:
    assert verify_time_stamp(authority.stamp(DATA, algorithm), DATA).authority == "CN=Stamps,O=Notary"


def test_elliptic_curve_keys(tmp_path: Path) -> None:
    answer = Authority.found(tmp_path, key=("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256")).stamp(DATA)
    assert verify_time_stamp(answer, DATA).authority == "CN=Stamps,O=Notary"


def test_openssl_agrees(authority: Authority, answer: bytes, tmp_path: Path) -> None:
    """The command that the documentation gives to whoever trusts the authority."""
    (tmp_path / "checkpoint").write_bytes(DATA)
    (tmp_path / "checkpoint.tsr").write_bytes(answer)
    done = subprocess.run(
        ["openssl", "ts", "-verify", "-data", "checkpoint", "-in", "checkpoint.tsr", "-CAfile", authority.root],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_another_library_agrees(tmp_path: Path) -> None:
    """It reads only answers without the chain, since it wants certificates in DER's order and OpenSSL does not sort."""
    authority = Authority.found(tmp_path, chain=False)
    answer = authority.stamp(DATA)
    decoded = decode_timestamp_response(answer)
    root = load_certificate(authority.root.read_bytes())
    assert VerifierBuilder().add_root_certificate(root).build().verify_message(decoded, DATA)
    stamp = verify_time_stamp(answer, DATA)
    assert (stamp.time, stamp.nonce) == (decoded.tst_info.gen_time, decoded.tst_info.nonce)


def test_other_bytes(answer: bytes) -> None:
    with pytest.raises(DocumentError, match="was given for other bytes"):
        verify_time_stamp(answer, DATA + b"\n")


def test_every_changed_byte_that_matters(authority: Authority, answer: bytes) -> None:
    """A flipped bit is refused, or lies where nothing was signed and changes neither time nor authority."""
    honest = verify_time_stamp(answer, DATA)
    refused = 0
    for position in range(0, len(answer), 3):
        changed = answer[:position] + bytes([answer[position] ^ 1]) + answer[position + 1 :]
        try:
            stamp = verify_time_stamp(changed, DATA)
        except DocumentError:
            refused += 1
        else:
            assert (stamp.time, stamp.certificate.public_key()) == (honest.time, honest.certificate.public_key())
    assert refused > len(answer) // 3 * 0.4


@pytest.mark.parametrize("size", [0, 1, 2, 10, 100, -1])
def test_a_cut_answer(answer: bytes, size: int) -> None:
    with pytest.raises(DocumentError, match="time stamp: "):
        verify_time_stamp(answer[:size], DATA)


def test_a_refusal(authority: Authority) -> None:
    with pytest.raises(DocumentError, match=r"the authority refused it \(status 02\)"):
        verify_time_stamp(authority.refusal(), DATA)


def test_a_certificate_for_something_else(tmp_path: Path) -> None:
    """OpenSSL would not stamp with one, so it is swapped into an honest answer's place of the same length."""
    honest = Authority.found(tmp_path / "honest")
    answer = honest.stamp(DATA)
    time_stamping, code_signing = bytes.fromhex("06082b06010505070308"), bytes.fromhex("06082b06010505070303")
    assert time_stamping in answer
    with pytest.raises(DocumentError, match="not for time stamping"):
        verify_time_stamp(answer.replace(time_stamping, code_signing), DATA)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"x" * (MAX_SIZE + 1), "expected at most"),
        (b"<html>busy</html>", "time stamp: "),
        (b"\x30\x80\x00\x00", "definite"),
        (b"\x3f\x01\x00", "more than one byte"),
        (b"\x30\x84\xff\xff\xff\xff", "is cut off"),
        (b"\x30\x03\x02\x01\x00\x00", "one DER value|is cut off|not a time stamp"),
    ],
)
def test_other_files_are_refused(data: bytes, message: str) -> None:
    with pytest.raises(DocumentError, match=message):
        verify_time_stamp(data, DATA)
