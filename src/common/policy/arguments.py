"""Which files an argument may name.

What a program makes of an argument is its own affair: `--file=/x`, `-f/x`, `@/x`, `a:/x` and `file:///x` may all name
`/x`. So every reading counts, and an argument whose readings cannot be told is refused.
"""

import re
from collections.abc import Iterator, Sequence

from common.policy.patterns import LONGEST_SUBJECT, Globs

# How many readings the arguments of one piece of work may have.
MOST_READINGS = 1024
# How many characters of an argument a message holds.
LONGEST_SHOWN = 200

UP = "holds '..', which a link may lead anywhere"

# What ends one name and may begin another: anything but letters, digits and what is usual within a name.
_SEPARATOR = re.compile(r"[^\w.+~/-]")
_ENCODED = re.compile(r"%[0-9A-Fa-f]{2}")
_FILE_SCHEME = re.compile(r"file:", re.IGNORECASE)
_WITH_HOST = re.compile(r"://[^/]")


def problem_of(arguments: Sequence[str], allowed: Globs) -> str | None:
    """Return which of the arguments names a file that is not allowed, or may name any; None when all are allowed."""
    left = MOST_READINGS
    for argument in arguments:
        if not _may_name_files(argument):
            continue
        if (doubt := _doubt(argument)) is not None:
            return f"the argument {shown(argument)} {doubt}"
        for path in _readings(argument):
            if left == 0:
                return f"its arguments can be read as more than {MOST_READINGS} paths"
            left -= 1
            if not allowed.match(path):
                return f"the path {shown(path)} is not under {allowed}"
    return None


def goes_up(argument: str) -> bool:
    """Return whether an argument may name the parent of a folder, which is where a link leads and not what it says."""
    return ".." in argument and any(_has_parent(piece) for piece in _SEPARATOR.split(argument))


def shown(text: str) -> str:
    """Return a text of a caller as a message holds it."""
    return repr(text) if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]!r}…"


def _may_name_files(argument: str) -> bool:
    """Return whether an argument may lead out of the working directory."""
    return "/" in argument or ".." in argument or "~" in argument or _FILE_SCHEME.search(argument) is not None


def _doubt(argument: str) -> str | None:
    """Return why the files that an argument may name cannot be told."""
    if len(argument) > LONGEST_SUBJECT:
        return f"has more than {LONGEST_SUBJECT} characters"
    for piece in _SEPARATOR.split(argument):
        if _has_parent(piece):
            return UP
        if piece.startswith("~") or (_is_option(piece) and "~" in piece):
            return "holds '~', which may stand for a home directory"
    if "/" not in argument and _FILE_SCHEME.search(argument) is None:
        return None
    if "$" in argument:
        return "holds '$' beside a path, which may stand for any text"
    if _ENCODED.search(argument):
        return "holds a path in which '%' may encode any character"
    if _WITH_HOST.search(argument):
        return "is an address with a host, whose path cannot be told"
    return None


def _is_option(piece: str) -> bool:
    """Return whether a name may follow the letters of an option."""
    return piece.startswith(("-", "+"))


def _has_parent(piece: str) -> bool:
    names = piece.split("/")
    return ".." in names or (_is_option(piece) and names[0].endswith(".."))


def _readings(argument: str) -> Iterator[str]:
    """Yield each absolute path that an argument may name: from where one may begin to each place where it may end."""
    ends = [*(found.start() for found in _SEPARATOR.finditer(argument)), len(argument)]
    begin = 0
    for number, end in enumerate(ends):
        piece = argument[begin:end]
        slash = piece.find("/")
        if slash == 0 or (slash > 0 and _is_option(piece)):
            for last in ends[number:]:
                yield argument[begin + slash : last]
        begin = end + 1
