"""A report of progress: one line of text, the percentage first where there is one, as in `40% copying files`.

It travels and is stored as that text; the number is read from it where one is needed.
"""

import re

from common.visible import is_hidden

LONGEST_MESSAGE = 200
LONGEST_REPORT = len("100% ") + LONGEST_MESSAGE

_BEGINS_WITH_PERCENT = re.compile(r"([0-9]{1,3})(?:\.[0-9]+)? ?%(?: |$)")
# In a program's file the sign may be left out.
_LINE = re.compile(r"([0-9]{1,3})(?:\.[0-9]+)? ?%?(?: (.*))?")


def report(message: str, percent: float | None = None) -> str:
    """Return the text of a report; empty when it says nothing. A percentage is rounded down, and kept within 0 to 100.

    A message is made one line of what can be seen, and cut.
    """
    number = "" if percent is None else f"{int(min(100, max(0, percent)))}%"
    return f"{number} {on_one_line(message)[:LONGEST_MESSAGE]}".strip()


def parsed(line: str) -> tuple[str, float | None]:
    """Return the message and the percentage of a line such as `40 copying files`."""
    found = _LINE.fullmatch(line)
    if found is None or int(found[1]) > 100:
        return line, None
    return found[2] or "", int(found[1])


def percent_of(text: str) -> int | None:
    """Return the percentage that a report begins with."""
    found = _BEGINS_WITH_PERCENT.match(text)
    return None if found is None or int(found[1]) > 100 else int(found[1])


def on_one_line(text: str) -> str:
    """Return a text without control characters and what else cannot be seen, its white space as single spaces."""
    seen = (" " if one.isspace() else one for one in text)
    return " ".join("".join(one for one in seen if not is_hidden(one)).split())
