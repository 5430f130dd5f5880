"""The use case of keys: free those of cancelled tasks of whose end nobody told."""

from functools import reduce
from operator import or_

from orchestrator.database.pool import Pool, transaction
from orchestrator.keys import admission, queries
from orchestrator.keys.model import Keys


class KeyService:
    """Frees keys."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def free_overdue(self, *, limit: int) -> int:
        """Free the keys of cancelled tasks whose lease would be over by now; return of how many."""
        async with transaction(self._pool) as db:
            found = await queries.overdue(db, limit=limit)
            if not found:
                return 0
            await admission.hold_for(db, found)
            freed = await queries.give_up_on(db, found)
            await admission.admit(db, reduce(or_, freed, Keys()))
        return len(freed)
