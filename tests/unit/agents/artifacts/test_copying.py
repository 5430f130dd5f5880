"""No secret leaves the host in a file that is kept."""

import hashlib
import os
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path

import pytest

from agents.artifacts.copying import BLOCK_BYTES, Copied, copy_without_secrets
from agents.artifacts.matching import Unusable
from common.redaction.values import Values

# Of as many letters as leave no rest in base64.
SECRET = "s3cret-of-the-host-01234567890"
LIMIT = 4 * 1024 * 1024

Copy = Callable[..., tuple[Copied, bytes]]


@pytest.fixture
def copy(tmp_path: Path) -> Copy:
    def copied(content: bytes, *, values: Values | None = None, limit: int = LIMIT) -> tuple[Copied, bytes]:
        source, target = tmp_path / "source", tmp_path / "target"
        source.write_bytes(content)
        with source.open("rb") as read, target.open("w+b") as written:
            result = copy_without_secrets(read.fileno(), written.fileno(), values or Values([SECRET]), limit=limit)
        return result, target.read_bytes()

    return copied


@pytest.mark.parametrize("content", [b"", b"a text\n", "ä€😀".encode() * 100_000, bytes(range(256)) * 5000], ids=len)
def test_what_holds_no_secret_is_copied_as_it_is(copy: Copy, content: bytes) -> None:
    result, copied = copy(content)

    assert copied == content
    assert result == Copied(hashlib.sha256(content).hexdigest(), len(content))


@pytest.mark.parametrize("written", [SECRET.encode(), b64encode(SECRET.encode()), SECRET.encode().hex().encode()])
@pytest.mark.parametrize("before", [0, BLOCK_BYTES - 5, 2 * BLOCK_BYTES - 1])
def test_in_a_text_a_secret_is_hidden_also_between_two_blocks(copy: Copy, written: bytes, before: int) -> None:
    result, copied = copy(b"x" * before + b"\n" + written + b"\nend")

    assert copied == b"x" * before + b"\n[redacted]\nend"
    assert result == Copied(hashlib.sha256(copied).hexdigest(), len(copied))


def test_in_a_text_what_looks_like_a_token_is_hidden(copy: Copy) -> None:
    _, copied = copy(b"token ghp_0123456789abcdefghijABCDEFGHIJ and more", values=Values())

    assert copied == b"token [redacted] and more"


@pytest.mark.parametrize("binary", [b"\x00", b"\xff\xfe", b"\x80"])
@pytest.mark.parametrize("written", [SECRET.encode(), b64encode(SECRET.encode())])
@pytest.mark.parametrize("before", [0, BLOCK_BYTES - 5, 2 * BLOCK_BYTES - 1])
def test_a_binary_file_with_a_secret_is_refused(copy: Copy, binary: bytes, written: bytes, before: int) -> None:
    with pytest.raises(Unusable, match="holds a secret of this host"):
        copy(binary + b"\x01" * before + written + b"\x01" * 10)


def test_a_file_that_turns_out_to_be_binary_at_its_end_is_searched_from_its_beginning(copy: Copy) -> None:
    with pytest.raises(Unusable, match="holds a secret of this host"):
        copy(SECRET.encode() + b"x" * 2 * BLOCK_BYTES + b"\xff")


def test_a_binary_file_that_looks_like_a_token_somewhere_stays_as_it_is(copy: Copy) -> None:
    content = b"\x00ghp_0123456789abcdefghijABCDEFGHIJ\x00"

    assert copy(content)[1] == content


def test_secrets_of_the_attempt_and_of_the_agent_are_hidden(copy: Copy) -> None:
    values = Values(parent=Values([SECRET]))
    values.hide("another-secret-of-the-attempt")

    assert copy(f"{SECRET} another-secret-of-the-attempt".encode(), values=values)[1] == b"[redacted] [redacted]"
    with pytest.raises(Unusable):
        copy(b"\x00another-secret-of-the-attempt", values=values)
    with pytest.raises(Unusable):
        copy(b"\x00" + SECRET.encode(), values=values)


@pytest.mark.parametrize("content", [b"x" * 101, b"\x00" * 101])
def test_a_file_that_is_too_large_is_refused(copy: Copy, content: bytes) -> None:
    assert copy(content[:100], limit=100)[0].size == 100
    with pytest.raises(Unusable, match=r"101 bytes.*max_artifact_bytes"):
        copy(content, limit=100)


def test_a_text_that_hiding_makes_too_large_is_refused(copy: Copy) -> None:
    with pytest.raises(Unusable, match="max_artifact_bytes"):
        copy(b"abcdef " * 10, values=Values(["abcdef"]), limit=75)


def test_a_sparse_file_of_a_terabyte_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.truncate(2**40)
    with path.open("rb") as read, (tmp_path / "target").open("w+b") as written:
        with pytest.raises(Unusable, match=str(2**40)):
            copy_without_secrets(read.fileno(), written.fileno(), Values(), limit=LIMIT)

        assert os.fstat(written.fileno()).st_size == 0


def test_a_file_that_grows_while_it_is_read_is_read_to_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "growing"
    path.write_bytes(b"x")
    pread = os.pread

    def growing(file: int, size: int, at: int) -> bytes:
        with path.open("ab") as more:
            more.write(b"x" * 1000)
        return pread(file, size, at)

    monkeypatch.setattr(os, "pread", growing)
    with path.open("rb") as read, (tmp_path / "target").open("w+b") as written:
        with pytest.raises(Unusable, match="max_artifact_bytes"):
            copy_without_secrets(read.fileno(), written.fileno(), Values(), limit=10_000)

        assert os.fstat(written.fileno()).st_size <= 10_000
    assert path.stat().st_size < 20_000
