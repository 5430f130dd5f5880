"""What is in the spool and is no result, put aside for a person to look at."""

import logging
from pathlib import Path

log = logging.getLogger(__name__)

MOST = 100
ASIDE = "unreadable"


class Aside:
    """A folder within the spool that takes a bounded number of files."""

    def __init__(self, spool: Path) -> None:
        self._folder = spool / ASIDE

    def move(self, path: Path, reason: str) -> None:
        """Take a whole file away; when there are too many already, throw it away."""
        try:
            if self._has_room():
                path.replace(self._folder / path.name)
            else:
                path.unlink()
        except OSError as failure:
            log.exception("spool.not_moved", extra={"file": path.name, "reason": str(failure)})
        log.error("spool.unreadable", extra={"file": path.name, "reason": reason})

    def copy(self, path: Path, at: int, line: bytes, reason: str) -> None:
        """Keep a line of a file that is still needed; seen again at the next start, it is not kept again."""
        copy = self._folder / f"{path.stem}-{at}{path.suffix}"
        if copy.exists():
            return
        try:
            if self._has_room():
                copy.write_bytes(line)
        except OSError as failure:
            log.exception("spool.not_moved", extra={"file": path.name, "reason": str(failure)})
        log.error("spool.unreadable", extra={"file": path.name, "line_at": at, "reason": reason})

    def _has_room(self) -> bool:
        self._folder.mkdir(mode=0o700, exist_ok=True)
        return sum(1 for _ in self._folder.iterdir()) < MOST
