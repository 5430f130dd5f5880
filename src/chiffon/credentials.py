"""Where the token of a client comes from: the environment, or a file that `chiffon up` keeps for its own server.

A token that is kept for one server is never sent to another, nor to what listens in its place when it was killed.
"""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

from common.durable import write_file
from common.errors import StartupRefused

HOLD_ATTEMPTS, HOLD_PAUSE = 20, 0.01
TOKEN_VARIABLE = "CHIFFON_TOKEN"  # noqa: S105 - the name of a variable
FILE_VARIABLE = "CHIFFON_TOKEN_FILE"


class TokenUnreadable(StartupRefused):
    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"The file with the token, {path}, cannot be used: {reason}.")


def find_token(server: str, *, file: Path | None = None) -> str | None:
    """Return the token for a server: from `file`, CHIFFON_TOKEN, the file CHIFFON_TOKEN_FILE, or what is kept for it.

    Raises `TokenUnreadable` for a file that was named and cannot be read.
    """
    if file is not None:
        return read_token(file)
    if given := os.environ.get(TOKEN_VARIABLE):
        return given.strip()
    if named := os.environ.get(FILE_VARIABLE):
        return read_token(Path(named))
    link = _kept(server)
    if not _is_running(link):
        return None
    with suppress(TokenUnreadable):
        return read_token(link)
    return None


def read_token(path: Path) -> str:
    """Return the token in a file; raises `TokenUnreadable`."""
    try:
        token = path.read_text(encoding="ascii").strip()
    except OSError as error:
        raise TokenUnreadable(path, error.strerror or str(error)) from None
    except UnicodeDecodeError:
        token = ""
    if not token or not token.isprintable() or " " in token:
        raise TokenUnreadable(path, "it holds no token")
    return token


def write_token(path: Path, token: str) -> None:
    """Write a token to a file that only this user can read; a crash leaves the old file or the new one."""
    write_file(path, f"{token}\n".encode("ascii"))


@contextmanager
def kept_for(server: str, token_file: Path) -> Iterator[None]:
    """While the block runs, let clients on this host find the token of a server that runs here."""
    link = _kept(server)
    try:
        link.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        link.unlink(missing_ok=True)
        link.symlink_to(token_file)
        lock = _lock_of(link).open("w")
    except OSError:  # no home directory, or one that cannot be written to: they have to be given the token
        yield
        return
    with lock:
        _hold(lock)
        try:
            yield
        finally:
            with suppress(OSError):
                if link.readlink() == token_file:
                    link.unlink()
                    _lock_of(link).unlink()


def _lock_of(link: Path) -> Path:
    return link.with_name(link.name + ".lock")


def _hold(lock: IO[str]) -> None:
    """Say that the server runs, for as long as the file is open; clients ask for moments only."""
    for _ in range(HOLD_ATTEMPTS):
        with suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        time.sleep(HOLD_PAUSE)


def _is_running(link: Path) -> bool:
    """Return whether the server still runs for which a token is kept.

    One that was killed leaves its token behind, and any user of the host may listen on its port since.
    """
    try:
        with _lock_of(link).open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        pass
    return False


def _kept(server: str) -> Path:
    base = os.environ.get("XDG_CONFIG_HOME")
    place = urlsplit(server)
    host = "127.0.0.1" if place.hostname == "localhost" else (place.hostname or "nowhere").replace(":", "_")
    port = place.port or (443 if place.scheme == "https" else 80)
    return (Path(base) if base else Path.home() / ".config") / "chiffon" / "tokens" / f"{host}-{port}"
