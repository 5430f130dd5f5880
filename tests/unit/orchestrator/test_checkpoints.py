"""Checkpoints are lines of a file that is only appended to, each believed only with its signature."""

import errno
import os
import resource
from datetime import UTC, datetime
from pathlib import Path

import pytest

from common.signing.jws import Purpose, sign
from common.signing.keys import PrivateKey
from orchestrator.audit.checkpoint_file import CheckpointFile, read_checkpoints
from orchestrator.audit.checkpoints import CheckpointsUnusable, line_of, make_checkpoint, parse
from orchestrator.audit.model import Checkpoint, End
from tests import fixed
from tests.hand_made_jws import base64url, decoded, header_of, verified_claims

NOON = datetime(2026, 11, 25, 12, tzinfo=UTC)
KEY = PrivateKey.new()
KEYS = {KEY.key_id: KEY.public}


def made(seq: int, *, key: PrivateKey = KEY) -> Checkpoint:
    return make_checkpoint(End(seq, bytes([seq]) * 32), at=NOON, key=key)


@pytest.fixture
def file(tmp_path: Path) -> CheckpointFile:
    return CheckpointFile(tmp_path / "checkpoints.jws")


def filled(file: CheckpointFile, *checkpoints: Checkpoint) -> Path:
    for checkpoint in checkpoints:
        file.append(checkpoint)
    return file.path


def test_what_was_appended_is_read_back_and_believed(file: CheckpointFile) -> None:
    path = filled(file, made(1), made(5), made(5))

    assert list(read_checkpoints(path, KEYS)) == [made(1), made(5), made(5)]
    assert file.open() == made(5)


def test_a_new_file_has_no_last_checkpoint(file: CheckpointFile) -> None:
    assert file.open() is None
    assert list(read_checkpoints(file.path, KEYS)) == []


def test_a_line_that_a_crash_cut_off_is_taken_away(file: CheckpointFile) -> None:
    path = filled(file, made(1))
    path.write_bytes(path.read_bytes() + line_of(made(2))[:-10])

    assert list(read_checkpoints(path, KEYS)) == [made(1)]
    assert file.open() == made(1)
    file.append(made(3))
    assert list(read_checkpoints(path, KEYS)) == [made(1), made(3)]


def test_a_checkpoint_is_on_disk_when_it_was_appended(file: CheckpointFile, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[bytes] = []
    monkeypatch.setattr(os, "fsync", lambda _: synced.append(file.path.read_bytes()))

    file.append(made(1))

    assert synced == [line_of(made(1))]


def test_a_checkpoint_that_the_disk_does_not_take_is_taken_away_again(
    file: CheckpointFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = filled(file, made(1))

    def refuse(_handle: int) -> None:
        raise OSError(errno.EIO, "the disk is broken")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", refuse)
        with pytest.raises(OSError, match="the disk is broken"):
            file.append(made(2))

    assert path.read_bytes() == line_of(made(1))


def test_a_checkpoint_of_which_the_disk_takes_a_part_is_taken_away_again(file: CheckpointFile) -> None:
    path = filled(file, made(1))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 10, hard))
    try:
        with pytest.raises(OSError, match="a part of the line"):
            file.append(made(2))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    assert path.read_bytes() == line_of(made(1))


def test_the_name_of_a_new_file_is_on_disk_when_it_was_opened(
    file: CheckpointFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[Path] = []
    monkeypatch.setattr(os, "fsync", lambda handle: synced.append(Path(f"/proc/self/fd/{handle}").readlink()))

    file.open()

    assert file.path.parent in synced


def test_a_file_that_is_none_of_checkpoints_is_left_as_it_is(file: CheckpointFile) -> None:
    content = line_of(made(1)) + b"x" * 5000
    file.path.write_bytes(content)

    with pytest.raises(CheckpointsUnusable, match="does not end with a checkpoint"):
        file.open()

    assert file.path.read_bytes() == content


def test_what_is_appended_after_the_file_was_opened_is_not_read(file: CheckpointFile) -> None:
    reading = read_checkpoints(filled(file, made(1)), KEYS)
    file.append(made(2))

    assert list(reading) == [made(1)]


@pytest.mark.parametrize(
    ("old", "new"),
    [(b'"seq":2', b'"seq":3'), (b"0202", b"0203"), (b'"iat":1', b'"iat":2'), (b"", b"")],
    ids=["number", "hash", "time", "signature"],
)
def test_an_edited_line_is_named(file: CheckpointFile, old: bytes, new: bytes) -> None:
    path = filled(file, made(1), made(2), made(9))
    lines = path.read_bytes().splitlines(keepends=True)
    header, claims, signature = lines[1].decode().rstrip().split(".")
    edited = base64url(decoded(claims).replace(old, new, 1))
    signature = signature if edited != claims else "A" * len(signature)
    path.write_bytes(lines[0] + f"{header}.{edited}.{signature}\n".encode() + lines[2])

    with pytest.raises(CheckpointsUnusable, match=r"line 2 .*signature"):
        list(read_checkpoints(path, KEYS))


def test_a_checkpoint_is_a_line_that_other_programs_verify(file: CheckpointFile) -> None:
    [line] = filled(file, made(7)).read_text().splitlines()

    assert verified_claims(line, KEY.public.raw) == {
        "aud": "chiffon-auditors",
        "iat": int(NOON.timestamp()),
        "seq": 7,
        "hash": "07" * 32,
    }
    assert header_of(line) == {"alg": "EdDSA", "kid": KEY.key_id, "typ": "chiffon-checkpoint+jwt"}


def test_a_checkpoint_of_a_fixed_event_by_a_fixed_key_is_a_fixed_line() -> None:
    checkpoint = make_checkpoint(End(fixed.EVENT.seq, fixed.HASH), at=fixed.EVENT.at, key=fixed.KEY)

    assert line_of(checkpoint).decode() == fixed.CHECKPOINT + "\n"
    assert parse(fixed.CHECKPOINT.encode()) == checkpoint


def test_lines_out_of_order_are_named(file: CheckpointFile) -> None:
    with pytest.raises(CheckpointsUnusable, match=r"line 2 .*earlier event"):
        list(read_checkpoints(filled(file, made(5), made(4)), KEYS))


def test_a_checkpoint_of_a_strangers_key_is_not_believed(file: CheckpointFile) -> None:
    path = filled(file, made(1, key=PrivateKey.new()))

    with pytest.raises(CheckpointsUnusable, match="not among those given"):
        list(read_checkpoints(path, KEYS))
    assert len(list(read_checkpoints(path, None))) == 1


GOOD = '{"aud":"chiffon-auditors","iat":1,"seq":1,"hash":"' + "01" * 32 + '"}'


@pytest.mark.parametrize(
    ("purpose", "claims"),
    [
        (Purpose.CHECKPOINT, "null"),
        (Purpose.CHECKPOINT, "{}"),
        (Purpose.CHECKPOINT, GOOD.replace("auditors", "agents")),
        (Purpose.CHECKPOINT, GOOD.replace("01", "zz")),
        (Purpose.CHECKPOINT, GOOD.replace('"seq":1', '"seq":-1')),
        (Purpose.CHECKPOINT, GOOD.replace('"iat"', '"more":1,"iat"')),
        (Purpose.GRANT, GOOD),
    ],
)
def test_what_is_no_checkpoint_is_refused(purpose: Purpose, claims: str) -> None:
    assert parse(sign(KEY, Purpose.CHECKPOINT, GOOD).encode() + b"\n").seq == 1
    with pytest.raises(ValueError, match=r"claims|typ"):
        parse(sign(KEY, purpose, claims).encode() + b"\n")


@pytest.mark.parametrize(
    "line", [b"", b"null", b"{}", b"a.b.c", b"\xff", pytest.param(line_of(made(1)) * 2, id="two lines")]
)
def test_what_is_no_signature_is_no_checkpoint(line: bytes) -> None:
    with pytest.raises(ValueError, match=r"JWS|utf-8"):
        parse(line)


def test_a_file_that_cannot_be_written_is_said_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(CheckpointsUnusable, match="cannot be written"):
        CheckpointFile(tmp_path / "nowhere" / "file").open()
