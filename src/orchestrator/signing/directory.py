"""The directory of signing keys.

`<key_id>.pem` is a private key, `<key_id>.retired` remembers one that never counts again.

A file says from when on its key signs, so that agents hear of a key before they meet it. One made by another program
says nothing, and signs at once.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from common.durable import sync_folder, write_file
from common.errors import Conflict, StartupRefused
from common.private import check_private
from common.signing.keys import KEY_ID_LENGTH, PrivateKey, UnusableKey

KEY_SUFFIX, RETIRED_SUFFIX = ".pem", ".retired"
SIGNS_FROM = b"Signs-From: "
LONG_AGO = datetime.fromtimestamp(0, UTC)


class KeysUnusable(StartupRefused):
    """The directory does not hold what can be signed with; the message says what to do."""


class CannotRetire(Conflict):
    """Work would be refused that should run."""


@dataclass(frozen=True, slots=True)
class StoredKey:
    key: PrivateKey
    signs_from: datetime


@dataclass(frozen=True, slots=True)
class StoredKeys:
    """All that a directory holds; `keys` in the order in which they begin to sign."""

    keys: tuple[StoredKey, ...]
    retired: tuple[str, ...]

    def signing(self, now: datetime) -> StoredKey | None:
        """Return the key that signs: the newest whose time has come, or the first of all."""
        begun = [key for key in self.keys if key.signs_from <= now]
        return begun[-1] if begun else next(iter(self.keys), None)


def read_keys(directory: Path) -> StoredKeys:
    """Return what a directory holds. Raises `KeysUnusable` when it cannot be read, or others may read a key in it."""
    if directory.exists() and not directory.is_dir():
        raise KeysUnusable(f"{directory} is no directory.")
    try:
        check_private(directory, "The directory of signing keys")
        found = [_read(path) for path in sorted(directory.glob(f"*{KEY_SUFFIX}"))]
        retired = sorted(path.stem for path in directory.glob(f"*{RETIRED_SUFFIX}"))
    except OSError as error:
        raise KeysUnusable(f"The signing keys in {directory} cannot be read: {error.strerror or error}.") from None
    kept = [stored for stored in found if stored.key.key_id not in retired]
    return StoredKeys(tuple(sorted(kept, key=lambda stored: (stored.signs_from, stored.key.key_id))), tuple(retired))


def add_key(directory: Path, *, signs_from: datetime) -> PrivateKey:
    """Make a key that signs from then on, readable by this user only."""
    key = PrivateKey.new()
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    content = SIGNS_FROM + signs_from.astimezone(UTC).isoformat().encode() + b"\n\n" + key.pem()
    _write(directory / f"{key.key_id}{KEY_SUFFIX}", content)
    return key


def retire_key(directory: Path, key_id: str, *, now: datetime, heard_for: float) -> None:
    """Have a key never count again, and delete it. Raises `CannotRetire`.

    Another must have signed for `heard_for` seconds, so that every orchestrator that reads this directory uses it.
    """
    stored = read_keys(directory)
    if key_id in stored.retired:
        return
    if key_id not in {one.key.key_id for one in stored.keys}:
        raise CannotRetire(
            f"There is no key {key_id!r} in {directory}. `chiffon keys list` shows those that there are."
        )
    later = [one for one in stored.keys if one.key.key_id != key_id]
    if not later:
        raise CannotRetire("It is the only key. Make another first: chiffon keys rotate.")
    signing = stored.signing(now)
    assert signing is not None
    if signing.key.key_id == key_id:
        raise CannotRetire("It is the key that signs. Wait until the next one does: chiffon keys list says when.")
    if heard_for and (passed := (now - signing.signs_from).total_seconds()) < heard_for:
        raise CannotRetire(
            f"Its successor has signed for {passed:.0f} s only, and for {heard_for:.0f} s an orchestrator may go on "
            "signing with this one. Wait, or give --now when the key is in the wrong hands."
        )
    # The note comes first: after a crash in between, the key is retired all the same.
    public = next(one.key.public for one in stored.keys if one.key.key_id == key_id)
    _write(directory / f"{key_id}{RETIRED_SUFFIX}", public.pem())
    for path in _files_of(directory, key_id):
        path.unlink()
    sync_folder(directory)


def _files_of(directory: Path, key_id: str) -> Iterator[Path]:
    for path in directory.glob(f"*{KEY_SUFFIX}"):
        if _read(path).key.key_id == key_id:
            yield path


def _read(path: Path) -> StoredKey:
    if path.stat().st_mode & 0o077:
        raise KeysUnusable(f"{path} is a private key that others may read or write. chmod 600 it.")
    content = path.read_bytes()
    try:
        return StoredKey(PrivateKey.from_pem(content), _signs_from(content))
    except (UnusableKey, ValueError) as error:
        raise KeysUnusable(f"{path} is no signing key: {error}.") from None


def _signs_from(content: bytes) -> datetime:
    first = content.split(b"\n", 1)[0]
    if not first.startswith(SIGNS_FROM):
        return LONG_AGO
    given = datetime.fromisoformat(first[len(SIGNS_FROM) :].decode())
    return given if given.tzinfo is not None else given.replace(tzinfo=UTC)


def _write(path: Path, content: bytes) -> None:
    assert len(path.stem) == KEY_ID_LENGTH
    write_file(path, content)
