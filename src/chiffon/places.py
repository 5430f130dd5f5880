"""The things of this machine that only one `up` can have: a port, and a directory for its state."""

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from common.errors import StartupRefused
from common.private import check_private, make_private


class PlaceTaken(StartupRefused):
    """Somebody else has it; the message says what to choose instead."""


def free_port(host: str) -> int:
    """Return a port on which nobody listens right now."""
    with _listener(host, 0) as listener:
        return int(listener.getsockname()[1])


def check_port(host: str, port: int) -> None:
    """Return when the port can be listened on, or raise `PlaceTaken`."""
    try:
        _listener(host, port).close()
    except OSError as error:
        message = f"Port {port} of {host} cannot be used ({error.strerror}). Choose another: --port 0 takes a free one."
        raise PlaceTaken(message) from error


@contextmanager
def sole_owner(state: Path) -> Iterator[None]:
    """Create a directory for state and keep others out of it. Raises `PlaceTaken` when it cannot be had."""
    try:
        make_private(state)
        check_private(state, "The state directory")
        if os.geteuid() == 0:
            # PostgreSQL, and the programs of agents with `run_as`, run as users of their own and must pass through.
            state.chmod(0o711)
        # For this user alone, because every user that can open it could hold it.
        lock = os.fdopen(os.open(state / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "w")
        os.fchmod(lock.fileno(), 0o600)
    except OSError as error:
        raise PlaceTaken(f"The directory {state} cannot be used ({error.strerror}); choose --state-dir.") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            message = f"Another `chiffon up` uses {state}. Stop it, or choose another with --state-dir."
            raise PlaceTaken(message) from None
        yield


def _listener(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except OSError:
        listener.close()
        raise
    return listener
