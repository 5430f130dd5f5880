"""Command lines of `chiffon`: within this process, as most tests want them, or as a process of their own.

A process costs half a second of the processor, nearly all of it for imports. Within this process a command line has
streams, an environment and an exit status of its own all the same, as `python -m chiffon` would give them to it.
"""

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, TextIO

import pytest

from chiffon.cli.app import run
from chiffon.cli.streams import unfailing_output

Done = subprocess.CompletedProcess[bytes]


def run_here(
    arguments: Sequence[str],
    *,
    stdin: str = "",
    stdout: IO[bytes] | None = None,
    stderr: IO[bytes] | None = None,
    encoding: str = "utf-8",
    **environment: str,
) -> Done:
    """Run a command line within this process, with these files, or files of its own, as its output and errors."""
    with TemporaryFile() as own_output, TemporaryFile() as own_errors, pytest.MonkeyPatch.context() as process:
        for name, value in environment.items():
            process.setenv(name, value)
        process.setattr(sys, "stdin", StringIO(stdin))
        with _stream(stdout or own_output, encoding) as output, _stream(stderr or own_errors, encoding) as errors:
            process.setattr(sys, "stdout", output)
            process.setattr(sys, "stderr", errors)
            with unfailing_output():
                status = run(arguments)
        return subprocess.CompletedProcess(arguments, status, _content(own_output), _content(own_errors))


@contextmanager
def _stream(file: IO[bytes], encoding: str) -> Iterator[TextIO]:
    """Open a standard stream that writes to a file, with a descriptor of its own, which the command may turn away.

    Raises `OSError` at the end when the command has left in its buffer what cannot be written, about which Python
    complains when a process ends.
    """
    with os.fdopen(os.dup(file.fileno()), "w", encoding=encoding) as stream:
        yield stream


def _content(file: IO[bytes]) -> bytes:
    file.seek(0)
    return file.read()


@contextmanager
def gone_reader() -> Iterator[IO[bytes]]:
    """Open a pipe that nobody reads any more."""
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as pipe:
        yield pipe


@contextmanager
def full_disk() -> Iterator[IO[bytes]]:
    """Open a file to which nothing can be written."""
    with Path("/dev/full").open("wb", buffering=0) as file:
        yield file


def said(*words: str, **environment: str) -> tuple[int, str, str]:
    """Run a command line within this process and return its exit status, its output and its messages.

    Of the settings of Chiffon it has those that are given, and no others of this process.
    """
    with pytest.MonkeyPatch.context() as process:
        for name in [name for name in os.environ if name.startswith("CHIFFON_")]:
            process.delenv(name)
        done = run_here(words, stdin="", stdout=None, stderr=None, encoding="utf-8", **environment)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def run_process(arguments: Sequence[str], **environment: str) -> Done:
    """Run a command line as a process."""
    return subprocess.run(
        [sys.executable, "-m", "chiffon", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env=os.environ | environment,
        timeout=60,
        check=False,
    )


def shell_command(line: str, *arguments: str) -> list[str]:
    """Return the command that runs a line in which `chiffon` is this command."""
    script = f'chiffon() {{ "{sys.executable}" -m chiffon "$@"; }}; set -o pipefail; {line}'
    return ["bash", "-c", script, "bash", *arguments]


def run_in_a_shell(line: str, *arguments: str) -> Done:
    """Run a line in which `chiffon` is this command, as a process."""
    return subprocess.run(shell_command(line, *arguments), capture_output=True, timeout=60, check=False)
