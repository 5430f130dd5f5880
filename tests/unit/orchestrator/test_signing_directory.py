"""The directory of signing keys: which of them signs, when one may go, and what a crash leaves of that."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from chiffon.cli.app import run
from chiffon.cli.outcome import Exit
from orchestrator.signing.directory import CannotRetire, KeysUnusable, add_key, read_keys, retire_key
from tests.on_disk import watched_disk

NOON = datetime(2026, 11, 25, 12, tzinfo=UTC)


class Crash(Exception):
    """The process ends here."""


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    return tmp_path / "keys"


def after(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def signing_at(keys: Path, now: datetime) -> str:
    stored = read_keys(keys).signing(now)
    assert stored is not None
    return stored.key.key_id


def kept_in(keys: Path) -> set[str]:
    return {stored.key.key_id for stored in read_keys(keys).keys}


def test_the_newest_key_signs_from_its_time_on_and_not_before(keys: Path) -> None:
    old, new = add_key(keys, signs_from=NOON), add_key(keys, signs_from=after(60))

    assert signing_at(keys, after(59)) == old.key_id
    assert signing_at(keys, after(60)) == new.key_id


def test_the_key_that_signs_is_not_retired(keys: Path) -> None:
    old, new = add_key(keys, signs_from=NOON), add_key(keys, signs_from=after(60))

    with pytest.raises(CannotRetire, match="the key that signs"):
        retire_key(keys, old.key_id, now=after(59), heard_for=0)

    assert kept_in(keys) == {old.key_id, new.key_id}
    assert read_keys(keys).retired == ()


def test_a_key_is_retired_once_its_successor_has_signed_for_long_enough(keys: Path) -> None:
    old, new = add_key(keys, signs_from=NOON), add_key(keys, signs_from=after(100))

    with pytest.raises(CannotRetire, match="has signed for 59 s only"):
        retire_key(keys, old.key_id, now=after(159), heard_for=60)
    assert kept_in(keys) == {old.key_id, new.key_id}
    retire_key(keys, old.key_id, now=after(160), heard_for=60)

    assert kept_in(keys) == {new.key_id}
    assert read_keys(keys).retired == (old.key_id,)


def test_the_command_waits_until_every_orchestrator_signs_with_another_key_unless_told_not_to(keys: Path) -> None:
    now = datetime.now(UTC)
    old = add_key(keys, signs_from=now - timedelta(days=1)).key_id
    add_key(keys, signs_from=now - timedelta(seconds=30))
    command = ["keys", "retire", old, "--directory", str(keys)]

    assert run(command) == Exit.CONFLICT
    assert read_keys(keys).retired == ()
    assert run([*command, "--now"]) == Exit.OK
    assert read_keys(keys).retired == (old,)


def test_a_key_whose_removal_a_crash_cut_short_is_retired_all_the_same(
    keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = add_key(keys, signs_from=NOON), add_key(keys, signs_from=after(1))

    def crash(_path: Path) -> None:
        raise Crash

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", crash)
        with pytest.raises(Crash):
            retire_key(keys, old.key_id, now=after(2), heard_for=0)

    assert (keys / f"{old.key_id}.pem").exists()
    assert kept_in(keys) == {new.key_id}
    assert read_keys(keys).retired == (old.key_id,)


def test_a_key_is_on_disk_when_it_was_made(keys: Path) -> None:
    with watched_disk() as disk:
        key = add_key(keys, signs_from=NOON)

    path = keys / f"{key.key_id}.pem"
    assert disk.read(path) == path.read_bytes()


def test_the_end_of_a_key_is_on_disk_when_it_was_retired(keys: Path) -> None:
    old, _ = add_key(keys, signs_from=NOON), add_key(keys, signs_from=after(1))
    with watched_disk() as disk:
        retire_key(keys, old.key_id, now=after(2), heard_for=0)

    assert disk.read(keys / f"{old.key_id}.retired") == old.public.pem()
    assert not disk.has(keys / f"{old.key_id}.pem")


def test_a_private_key_is_readable_by_its_user_alone_whatever_the_umask(keys: Path) -> None:
    before = os.umask(0)
    try:
        key = add_key(keys, signs_from=NOON)
    finally:
        os.umask(before)

    assert (keys / f"{key.key_id}.pem").stat().st_mode & 0o777 == 0o600
    assert keys.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620], ids=oct)
def test_a_private_key_that_others_may_read_or_write_is_not_used(keys: Path, mode: int) -> None:
    key = add_key(keys, signs_from=NOON)
    (keys / f"{key.key_id}.pem").chmod(mode)

    with pytest.raises(KeysUnusable, match="chmod 600"):
        read_keys(keys)
