"""Say why a program cannot be started, in the words of what the caller gave."""

import errno
from collections.abc import Sequence
from pathlib import Path

# The kernel reads no more of the first line.
LONGEST_FIRST_LINE = 256


class CannotStart(Exception):
    """The program does not exist or cannot be run; `exit_code` is the one that a shell gives for that."""

    def __init__(self, program: str, paths: Sequence[str], cwd: Path, error: OSError) -> None:
        self.exit_code = 126
        if error.errno not in (errno.ENOENT, errno.ENOTDIR):
            super().__init__(f"The program {program!r} cannot be started: {error.strerror}.")
            return
        there = next((path for name in paths if (path := cwd / name).is_file()), None)
        if there is None:
            super().__init__(f"The program {program!r} was not found.")
            self.exit_code = 127
        else:
            super().__init__(f"The program {program!r} cannot be started: {_what_is_missing(there)}.")


def _what_is_missing(path: Path) -> str:
    """Say what the kernel did not find to run a file that is there."""
    try:
        with path.open("rb") as file:
            first = file.read(LONGEST_FIRST_LINE).partition(b"\n")[0]
    except OSError as error:
        return f"it cannot be read ({error.strerror})"
    if not first.startswith(b"#!"):
        return "the loader or interpreter that it names is not on this host"
    line = first[2:].decode(errors="replace")
    if line.endswith("\r"):
        return (
            f"its first line, {first.decode(errors='replace')!r}, ends with a carriage return, which the kernel takes "
            "for a part of the name; save the file with LF line ends"
        )
    interpreter = line.split()[0] if line.split() else ""
    return f"the interpreter {interpreter!r} of its first line is not on this host"
