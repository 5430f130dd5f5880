"""Logs to check, and what can be done to them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

from orchestrator.audit.model import Checkpoint, End, Finding, Row
from orchestrator.audit.verifier import Verifier
from orchestrator.events.chain import entry_of, link
from orchestrator.events.model import Event

BEGIN = End(0, b"\x07" * 32)
NOON = datetime(2026, 11, 25, 12, tzinfo=UTC)


@dataclass(frozen=True)
class Log:
    """The rows of a ledger and its head."""

    rows: tuple[Row, ...]
    head: End

    def renumbered(self, rows: Sequence[Row], *, head: End | None = None) -> "Log":
        """Return these rows, numbered from 1 on, under the same head or another."""
        return Log(tuple(numbered(row, seq) for seq, row in enumerate(rows, 1)), head or self.head)

    def first_change(self, original: "Log") -> int | None:
        """Return the first number at which two logs differ; None when only the heads may."""
        ours, theirs = ({row.event.seq: row for row in log.rows} for log in (self, original))
        return min((seq for seq in ours.keys() | theirs.keys() if ours.get(seq) != theirs.get(seq)), default=None)


def make_row(seq: int, text: str, *, hash: bytes | None = None) -> Row:
    event = Event(
        seq=seq,
        at=NOON + timedelta(microseconds=len(text) * 1000 + seq),
        kind="task.claimed",
        task_id=UUID(int=seq),
        trace_id=None,
        request_id=None,
        agent_id=None,
        attempt=1,
        actor="somebody",
        data={"text": text},
    )
    return Row(event, hash)


def numbered(row: Row, seq: int) -> Row:
    return replace(row, event=replace(row.event, seq=seq))


def chained(rows: Sequence[Row], *, after: bytes = BEGIN.hash) -> tuple[Row, ...]:
    """Return the rows with the hashes that an honest program would have given them."""
    done = []
    for row in rows:
        after = link(after, row.event.seq, row.event.at, entry_of(row.event).leaf)
        done.append(replace(row, hash=after))
    return tuple(done)


def make_log(length: int) -> Log:
    rows = chained([make_row(seq, f"written {seq}") for seq in range(1, length + 1)])
    return Log(rows, head_of(rows))


def head_of(rows: Sequence[Row]) -> End:
    return End(rows[-1].event.seq, rows[-1].hash or b"") if rows else BEGIN


def checkpoint(log: Log, seq: int) -> Checkpoint:
    return Checkpoint(seq, log.rows[seq - 1].hash or b"", NOON, "")


def verify(log: Log, checkpoints: Sequence[Checkpoint] = ()) -> Finding | None:
    verifier = Verifier(BEGIN, checkpoints)
    for row in log.rows:
        verifier.see(row)
    return verifier.end(log.head)


Change = Callable[[Log], Log]


def edit(at: int) -> Change:
    return lambda log: _with(log, at, lambda row: replace(row, event=replace(row.event, data={"text": "edited"})))


def edit_time(at: int) -> Change:
    return lambda log: _with(log, at, lambda row: replace(row, event=replace(row.event, at=NOON)))


def edit_hash(at: int) -> Change:
    return lambda log: _with(log, at, lambda row: replace(row, hash=b"\x01" * 32))


def remove(at: int) -> Change:
    return lambda log: Log(log.rows[: _place(log, at)] + log.rows[_place(log, at) + 1 :], log.head)


def remove_and_renumber(at: int) -> Change:
    return lambda log: log.renumbered(log.rows[: _place(log, at)] + log.rows[_place(log, at) + 1 :])


def insert(at: int, *, hash: bytes | None = b"\x02" * 32) -> Change:
    def change(log: Log) -> Log:
        place = _place(log, at)
        return log.renumbered([*log.rows[:place], make_row(0, "inserted", hash=hash), *log.rows[place:]])

    return change


def insert_chained(at: int) -> Change:
    """Insert a row with the hash that fits behind the one before it."""

    def change(log: Log) -> Log:
        place = _place(log, at)
        before = log.rows[place - 1].hash or b"" if place else BEGIN.hash
        [row] = chained([make_row(place + 1, "inserted")], after=before)
        return log.renumbered([*log.rows[:place], row, *log.rows[place:]])

    return change


def swap(one: int, other: int, *, hashes: bool = True) -> Change:
    """Let two rows change their numbers, and their hashes with them or not."""

    def change(log: Log) -> Log:
        rows = list(log.rows)
        if not rows:
            return log
        a, b = _place(log, one), _place(log, other)
        first, second = rows[a], rows[b]
        rows[a], rows[b] = numbered(second, first.event.seq), numbered(first, second.event.seq)
        if not hashes:
            rows[a], rows[b] = replace(rows[a], hash=first.hash), replace(rows[b], hash=second.hash)
        return Log(tuple(rows), log.head)

    return change


def copy(source: int, target: int) -> Change:
    def change(log: Log) -> Log:
        if not log.rows:
            return log
        row = log.rows[_place(log, source)]
        return _with(log, target, lambda old: numbered(row, old.event.seq))

    return change


def truncate(at: int, *, fix_head: bool) -> Change:
    def change(log: Log) -> Log:
        rows = log.rows[: _place(log, at)]
        return Log(rows, head_of(rows) if fix_head else log.head)

    return change


def rewrite(at: int, *, until: int | None = None) -> Change:
    """Edit a row and give it and all after it, or as far as `until`, new hashes; the head as well, if all."""

    def change(log: Log) -> Log:
        place = _place(log, at)
        end = len(log.rows) if until is None else max(place + 1, _place(log, until))
        before = log.rows[place - 1].hash or b"" if place else BEGIN.hash
        edited = edit(at)(log).rows
        rows = (*edited[:place], *chained(edited[place:end], after=before), *edited[end:])
        return Log(rows, head_of(rows) if until is None else log.head)

    return change


def _place(log: Log, at: int) -> int:
    """Return the index that a number means in a log, whatever was done to that before."""
    return (at - 1) % max(1, len(log.rows))


def _with(log: Log, at: int, change: Callable[[Row], Row]) -> Log:
    place = _place(log, at)
    return Log(tuple(change(row) if index == place else row for index, row in enumerate(log.rows)), log.head)
