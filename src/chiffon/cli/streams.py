"""Standard output and error that never fail: what cannot be printed changes no outcome and no exit status.

A full disk or a closed descriptor is said once, on standard error; a reader that has seen enough is not. A character
that the terminal's encoding lacks is written out as an escape.
"""

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO, cast

STANDARD = (0, 1, 2)


class Unfailing:
    """A stream whose writes never raise; `has_failed` says that nobody gets them any more."""

    def __init__(self, stream: TextIO, *, is_told: bool) -> None:
        self._stream = stream
        self._is_told = is_told
        self.has_failed = False

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError as error:
            self._fail(error)
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            self._fail(error)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _fail(self, error: OSError) -> None:
        if self.has_failed:
            return
        self.has_failed = True
        # What is still in the buffers has to go somewhere, or Python complains about it when it ends.
        with open(os.devnull, "w") as nowhere:  # noqa: PTH123 - a device
            os.dup2(nowhere.fileno(), self._stream.fileno())
        if self._is_told and error.errno != errno.EPIPE:
            print(f"chiffon: the output cannot be written: {error.strerror}", file=sys.stderr, flush=True)


@contextmanager
def unfailing_output() -> Iterator[None]:
    """Have standard output and error never fail in this process, whatever they are."""
    _open_standard()
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name) or open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115 - a device
        stream.reconfigure(errors="backslashreplace")
        setattr(sys, name, cast("TextIO", Unfailing(stream, is_told=name == "stdout")))
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


def is_read() -> bool:
    """Say whether anybody still gets what is printed; a command that only prints may end when nobody does."""
    return not getattr(sys.stdout, "has_failed", False)


def _open_standard() -> None:
    """Open what was closed: else the next file or connection takes its number, and gets what is meant to be printed."""
    for number in STANDARD:
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
