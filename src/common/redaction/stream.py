"""Hide secrets in bytes that come in pieces, whatever the pieces.

A piece that may be the beginning of a secret is held back until more comes or it is asked for; everything else
goes on at once. What is held is bounded by the longest known form and the longest head of a token.
"""

from common.redaction.known import Span
from common.redaction.search import Open, merged, search
from common.redaction.values import Values

MARK = b"[redacted]"


class Redactor:
    """One stream of output."""

    def __init__(self, values: Values) -> None:
        self._values = values
        self._held = b""
        # How much of what is held is hidden by a mark that is already out; None when the last byte out was no mark.
        self._covered: int | None = None
        # What is to be hidden of that which is held, because of what stood before it and is out.
        self._ahead: list[Span] = []
        self._open: list[Open] = []

    @property
    def holds(self) -> int:
        """How many bytes wait for what comes next."""
        return len(self._held)

    def feed(self, data: bytes) -> bytes:
        """Take in what came, and return what can go on."""
        return self._pass(self._held + data, is_last=False)

    def flush(self) -> bytes:
        """Return what is held: nothing came that would have made a secret of it. More may come all the same."""
        return self._pass(self._held, is_last=True) if self._held else b""

    def _pass(self, data: bytes, *, is_last: bool) -> bytes:
        found = search(data, self._values.forms, self._open)
        end = len(data) if is_last else found.undecided
        found.spans.extend(self._ahead)
        if is_last:  # what may have been the last line of a key, and was not, belongs to the key
            found.spans.extend((token.at, end) for token in found.open.values() if token.at < end)
        spans = merged(found.spans if self._covered is None else [(0, self._covered), *found.spans])
        out: list[bytes] = []
        at = 0
        ends_in_mark = False
        for start, stop in spans:
            if start >= end and not (start == 0 and self._covered is not None):
                break
            out.append(data[at:start])
            if start > 0 or self._covered is None:
                out.append(MARK)
            at, ends_in_mark = stop, True
        if at < end:
            out.append(data[at:end])
            ends_in_mark = False
        self._covered = max(0, at - end) if ends_in_mark else None
        self._held = data[end:]
        self._ahead = [(start - end, stop - end) for start, stop in spans if start >= end]
        self._open = [_moved(token, by=end) for token in found.open.values()]
        return b"".join(out)


def _moved(token: Open, *, by: int) -> Open:
    """Count from a later byte; what was let go before the token's next byte was decided is behind it."""
    let_go = max(0, by - token.at)
    return Open(token.shape, token.at - by + let_go, token.left - let_go)
