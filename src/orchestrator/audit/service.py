"""The use cases of the audit log: note what an orchestrator itself does, and answer who did what."""

from collections.abc import Sequence

from orchestrator.audit import queries
from orchestrator.audit.model import Page, Question
from orchestrator.database.pool import Pool, transaction
from orchestrator.events import queries as events
from orchestrator.events.model import Kind, NewEvent
from orchestrator.settings import OrchestratorSettings

# Without an index that leads to what is wanted, one page looks through so many events, so that it answers in time.
WINDOW = 200_000

ITSELF = "orchestrator"


class AuditService:
    """Reads the audit log, and writes what nobody else is there to write."""

    def __init__(self, pool: Pool, *, window: int = WINDOW) -> None:
        self._pool = pool
        self._window = window

    async def started(self, settings: OrchestratorSettings, policy_version: str, keys: Sequence[str]) -> None:
        """Note by which policy, with which keys and checkpoints an orchestrator works from now on."""
        file = settings.audit_checkpoints_file
        about = {
            "policy_version": policy_version,
            "keys": list(keys),
            "checkpoints_file": None if file is None else str(file),
            "checkpoint_seconds": None if file is None else settings.audit_checkpoint_seconds,
            "authentication": settings.authentication,
        }
        async with transaction(self._pool) as db:
            await events.append(db, NewEvent(Kind.ORCHESTRATOR_STARTED, ITSELF, about))

    async def keys_changed(self, keys: Sequence[str], retired: Sequence[str]) -> None:
        """Note which keys sign from now on."""
        async with transaction(self._pool) as db:
            about = {"keys": list(keys), "retired": list(retired)}
            await events.append(db, NewEvent(Kind.KEYS_CHANGED, ITSELF, about))

    async def ask(self, question: Question, *, after: int, limit: int) -> Page:
        """Return a page of the wanted events numbered above `after`, oldest first."""
        async with self._pool.acquire() as db:
            head = (await queries.head(db)).seq
            end = head
            if question.since is not None:
                after = max(after, await queries.first_since(db, question.since, head=head) - 1)
            if question.until is not None:
                end = await queries.first_since(db, question.until, head=head) - 1
            until = end if question.is_about_few else min(end, after + self._window)
            found = await queries.ask(db, question, after=after, until=until, limit=limit)
        if found.has_more:
            return Page(found.rows, found.rows[-1].event.seq)
        return Page(found.rows, until if until < end else None)
