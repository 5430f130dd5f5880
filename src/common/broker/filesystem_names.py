"""The names of message files: they sort in the order of delivery, and say what is asked without opening the file."""

import re
from dataclasses import dataclass, replace
from typing import Self
from urllib.parse import quote, unquote

FRESH = "msg"
AGAIN = "again"
LOWEST_RANK = 9
_NAME = re.compile(r"(\d)-(\d{19})-(\d{19})-([0-9a-f]{32})\.(msg|again)")


@dataclass(frozen=True, slots=True)
class FileName:
    """`rank` 0 is delivered first; `time` and `expires` are nanoseconds since the epoch, `expires` 0 is never.

    `publisher` is the session that wrote the file; it never writes two at the same `time`.
    """

    rank: int
    time: int
    expires: int
    publisher: str
    redelivered: bool = False

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Return what a name says; None when it is not the name of a message."""
        match = _NAME.fullmatch(text)
        if match is None:
            return None
        rank, time, expires, publisher, mark = match.groups()
        return cls(int(rank), int(time), int(expires), publisher, mark == AGAIN)

    def marked(self) -> Self:
        """Return the name after a delivery that was not acknowledged; its place in the order stays."""
        return replace(self, redelivered=True)

    def is_expired(self, now: int) -> bool:
        return 0 < self.expires <= now

    def __str__(self) -> str:
        mark = AGAIN if self.redelivered else FRESH
        return f"{self.rank}-{self.time:019d}-{self.expires:019d}-{self.publisher}.{mark}"


def rank_of(priority: int, *, has_priorities: bool) -> int:
    """Return where a priority stands in the names of a queue's files."""
    return max(0, min(LOWEST_RANK, LOWEST_RANK - priority)) if has_priorities else 0


def folder_of(queue: str) -> str:
    """Return the name of a queue's folder; names that would lead out of the root are made harmless."""
    quoted = quote(queue, safe="")
    return quoted.replace(".", "%2E") if quoted in (".", "..") else quoted


def queue_of(folder: str) -> str:
    return unquote(folder)
