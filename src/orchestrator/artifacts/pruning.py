"""Remove what was kept for long enough: the content of files of runs and tasks that are over, and uploads.

Rows of artifacts stay, and say when their content was removed. A content goes when nothing has it any more.
"""

import logging
from collections.abc import Sequence
from datetime import timedelta
from functools import partial
from uuid import UUID

from common.clock import Clock
from orchestrator.artifacts import events as told
from orchestrator.artifacts import queries
from orchestrator.artifacts.rules import placed
from orchestrator.artifacts.store import Store, StoreProblem
from orchestrator.database.pool import Connection, Pool, transaction
from orchestrator.events import queries as events

log = logging.getLogger(__name__)

# So many files, and so many uploads, are removed in one turn.
AT_ONCE = 1000


class PruneArtifacts:
    """Removes files whose run, or task outside of any run, ended longer ago than `keep`; None: nothing is removed."""

    def __init__(self, pool: Pool, store: Store, clock: Clock, *, keep: timedelta | None) -> None:
        self._pool = pool
        self._store = store
        self._clock = clock
        self._keep = keep

    async def run_once(self) -> int:
        """Remove what is due, and return how much that was. A store that is away is tried again the next time."""
        if self._keep is None:
            return 0
        async with self._pool.acquire() as db:
            due = await queries.expired(db, self._keep, limit=AT_ONCE)
            uploads = await queries.expired_uploads(db, self._keep, limit=AT_ONCE)
        removed = 0
        try:
            for folder, artifact_ids in due.items():
                removed += await self._remove_files(folder, artifact_ids)
            for sha256 in uploads:
                removed += await self._remove_upload(sha256, self._keep)
        except StoreProblem as problem:
            log.warning("artifacts.not_pruned", extra={"reason": problem.reason})
        if removed:
            log.info("artifacts.pruned", extra={"removed": removed})
        return removed

    async def _remove_files(self, folder: UUID, artifact_ids: Sequence[UUID]) -> int:
        """Remove files of one folder, unless others store into it; what else has their contents keeps them."""
        async with transaction(self._pool) as db:
            if not await queries.try_folder(db, folder):
                return 0
            due = [one for one in placed(await queries.in_folder(db, folder)) if one.artifact_id in artifact_ids]
            free = await queries.try_contents(db, {one.sha256 for one in due})
            reason = f"it was removed on {self._clock.now():%Y-%m-%d}, as nothing is kept longer (artifact_keep_days)"
            gone = await queries.set_removed(db, [one.artifact_id for one in due if one.sha256 in free], reason)
            # Before the commit: what a crash leaves is removed again.
            for one in due:
                if one.artifact_id in gone:
                    await self._store.run(partial(self._store.take_path, folder, one.path))
            await self._remove_contents(db, {one.sha256 for one in gone.values()})
            await events.append(db, *map(told.removed, gone.values()))
        return len(gone)

    async def _remove_upload(self, sha256: str, keep: timedelta) -> int:
        async with transaction(self._pool) as db:
            if not await queries.try_contents(db, {sha256}):
                return 0
            upload = await queries.forget_upload(db, sha256, keep)
            if upload is None:
                return 0
            await self._remove_contents(db, {sha256})
            await events.append(db, told.upload_removed(upload))
        return 1

    async def _remove_contents(self, db: Connection, digests: set[str]) -> None:
        """Remove contents that no artifact and no upload has any more."""
        for sha256 in await queries.without_owner(db, digests):
            await self._store.run(partial(self._store.remove, sha256))
