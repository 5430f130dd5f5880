"""Check a ledger against itself and against checkpoints."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from orchestrator.audit import queries
from orchestrator.audit.model import Checkpoint, End, Finding
from orchestrator.audit.verifier import Verifier
from orchestrator.database.pool import Connection

SAY_EVERY = 10_000


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was looked at, and the first thing that is wrong with it; None when nothing is."""

    begin: End
    head: End
    events: int
    finding: Finding | None


async def verify(
    db: Connection,
    checkpoints: Iterable[Checkpoint] = (),
    *,
    progress: Callable[[int, int], None] = lambda seen, total: None,
) -> Verdict:
    """Read a whole log at one moment and judge it; `progress` hears how many events were seen, and of how many.

    The checkpoints must have been written before this is called. Memory does not grow with the log.
    """
    async with db.transaction(isolation="repeatable_read", readonly=True):
        begin, head = await queries.begin(db), await queries.head(db)
        verifier = Verifier(begin, checkpoints)
        seen = 0
        async for row in queries.rows(db, after=begin.seq):
            verifier.see(row)
            seen += 1
            if seen % SAY_EVERY == 0:
                progress(seen, head.seq - begin.seq)
        return Verdict(begin, head, seen, verifier.end(head))
