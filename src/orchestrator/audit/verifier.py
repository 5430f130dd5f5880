"""Say whether a log is what was written, and if not, what was done to it first.

Pure: rows go in, one finding comes out. Only two rows are remembered, whatever the length of the log.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from orchestrator.audit.model import Checkpoint, End, Finding, Flaw, Row
from orchestrator.events.chain import entry_of, link
from orchestrator.events.model import Kind

# How many rows may be missing for the rest, numbered anew, to be recognised.
LONGEST_SHIFT = 64


@dataclass(frozen=True, slots=True)
class _Link:
    """A row, ready to be tried in any place of the chain."""

    row: Row
    leaf: bytes

    @property
    def seq(self) -> int:
        return self.row.event.seq

    def at_place(self, seq: int, *, after: bytes) -> bytes:
        """Return the hash that the row would have as event `seq` behind the hash `after`."""
        return link(after, seq, self.row.event.at, self.leaf)


class Verifier:
    """Sees all rows above the chain's begin in the order of their numbers, then the head.

    The checkpoints must be those written before the rows were read, in the order in which they were written. What the
    iterator raises comes out of whatever is called.
    """

    def __init__(self, begin: End, checkpoints: Iterable[Checkpoint] = ()) -> None:
        self._seq = self._proven = begin.seq
        self._hash = begin.hash
        self._hash_before: bytes | None = None
        self._checkpoints = iter(checkpoints)
        self._next = next(self._checkpoints, None)
        self._finding: Finding | None = None
        self._output: Finding | None = None
        self._suspect: _Link | None = None
        self._last: _Link | None = None
        self._begin(begin)

    def see(self, row: Row) -> None:
        """Take the next row."""
        this = _Link(row, _leaf(row))
        if self._finding is None:
            self._follow(this)
        elif self._suspect is not None:
            self._explain(self._suspect, this)
        self._last = this

    def end(self, head: End) -> Finding | None:
        """Return the first thing that is wrong, knowing how long the log must be; None when nothing is."""
        if self._finding is None:
            self._end(head)
        elif self._suspect is not None and self._suspect is self._last and self._suspect.row.hash == head.hash:
            seq = self._suspect.seq
            self._found(Flaw.REMOVED, seq, head.seq - 1, "the rest was numbered anew")
        found = [finding for finding in (self._finding, self._output) if finding is not None]
        return min(found, key=lambda finding: finding.seq, default=None)

    def _begin(self, begin: End) -> None:
        passed: int | None = None
        while self._next is not None and self._next.seq < begin.seq:
            passed = self._next.seq
            self._next = next(self._checkpoints, None)
        if passed is not None and (self._next is None or self._next.seq != begin.seq):
            self._found(
                Flaw.REMOVED, passed, begin.seq, "there are checkpoints from before the begin, and none of the begin"
            )
        else:
            self._compare()

    def _follow(self, this: _Link) -> None:
        seq = self._seq + 1
        if this.seq != seq:
            self._found(Flaw.REMOVED, seq, this.seq - 1, "there is a hole in the numbers")
        elif this.row.hash is None:
            self._found(Flaw.INSERTED, seq, seq, "it has no hash: not written by a program that knows the chain")
        elif this.at_place(seq, after=self._hash) == this.row.hash:
            self._hash_before, self._hash, self._seq = self._hash, this.row.hash, seq
            self._look_at_output(this.row)
            self._compare()
        elif self._was_written_as(this, seq - 1):
            self._found(Flaw.INSERTED, seq - 1, seq - 1, f"what is number {seq} now was written as number {seq - 1}")
        else:
            self._suspect = this
            self._found(Flaw.EDITED, seq, seq, "it is not what its hash was made of, or the one before it is not")

    def _was_written_as(self, this: _Link, seq: int) -> bool:
        """Say whether a row belongs where the last one stands; a copy of the last one does not count."""
        if self._hash_before is None or this.row.hash == self._hash:
            return False
        return this.at_place(seq, after=self._hash_before) == this.row.hash

    def _explain(self, suspect: _Link, this: _Link) -> None:
        """Learn from a later row what happened to the first that did not fit."""
        there = this.at_place(suspect.seq, after=self._hash)
        if there in (this.row.hash, suspect.row.hash):
            before = there if this.seq == suspect.seq + 1 or self._last is None else self._last.row.hash or b""
            if suspect.at_place(this.seq, after=before) in (this.row.hash, suspect.row.hash):
                self._found(Flaw.SWAPPED, suspect.seq, this.seq, "the first and the last of these changed places")
            else:
                reason = f"what is number {this.seq} now was written as number {suspect.seq}"
                self._found(Flaw.INSERTED, suspect.seq, this.seq - 1, reason)
            self._suspect = None
        elif self._last is suspect and suspect.row.hash is not None:
            for missing in range(1, LONGEST_SHIFT + 1):
                if this.at_place(this.seq + missing, after=suspect.row.hash) == this.row.hash:
                    self._found(Flaw.REMOVED, suspect.seq, suspect.seq + missing - 1, "the rest was numbered anew")
                    self._suspect = None
                    return

    def _end(self, head: End) -> None:
        if head.seq > self._seq:
            self._found(Flaw.TRUNCATED, self._seq + 1, head.seq, "the head says that there were more")
        elif head.seq < self._seq:
            self._found(Flaw.INSERTED, head.seq + 1, self._seq, "they stand behind the end that the head names")
        elif head.hash != self._hash:
            self._found(
                Flaw.FORKED, self._seq, self._seq, "the head has another hash: it was edited, or the events before it"
            )
        elif self._next is not None:
            last = self._next.seq
            for checkpoint in self._checkpoints:
                last = max(last, checkpoint.seq)
            self._found(Flaw.TRUNCATED, self._seq + 1, last, "a checkpoint says that there were more")

    def _compare(self) -> None:
        """Hold what was seen so far against the checkpoints made here."""
        while self._finding is None and self._next is not None and self._next.seq <= self._seq:
            if self._next.seq != self._seq or self._next.hash != self._hash:
                reason = "they fit each other, but are not what was there when the checkpoint was made"
                self._found(Flaw.FORKED, self._proven + 1, self._seq, reason)
            else:
                self._proven = self._seq
                self._next = next(self._checkpoints, None)

    def _look_at_output(self, row: Row) -> None:
        wanted = row.event.data.get("sha256") if row.event.kind == Kind.TASK_OUTPUT else None
        if wanted is None or wanted == row.text_digest or self._output is not None:
            return
        seq = row.event.seq
        if row.text_digest is None:
            self._output = Finding(Flaw.OUTPUT_REMOVED, seq, seq, seq, "the output that it tells of is not there")
        else:
            self._output = Finding(Flaw.OUTPUT_EDITED, seq, seq, seq, "the output is not what the event tells of")

    def _found(self, flaw: Flaw, seq: int, through: int, reason: str) -> None:
        self._finding = Finding(flaw, seq, max(seq, through), min(self._proven + 1, seq), reason)


def _leaf(row: Row) -> bytes:
    """Return the leaf of an event; one that nothing fits for data that no event was ever written with."""
    try:
        return entry_of(row.event).leaf
    except ValueError:
        return b""
