"""Make files of what has arrived: an artifact whose pieces are all there becomes one file, and its pieces go.

Everything that an interrupted run of this leaves behind, the next one finds in the ledger and does again.
"""

import logging
from collections.abc import Awaitable, Callable, Collection, Sequence
from datetime import timedelta
from functools import partial
from uuid import UUID

from common.clock import Clock
from common.loop import Wake
from common.orders import ArtifactsStored
from orchestrator.artifacts import events as told
from orchestrator.artifacts import queries
from orchestrator.artifacts.model import AWAY, Arriving, Artifact
from orchestrator.artifacts.pruning import PruneArtifacts
from orchestrator.artifacts.rules import Joiner, Settled, answers_of, path_beside
from orchestrator.artifacts.store import Draft, Store, StoreAway, StoreProblem
from orchestrator.database.pool import Connection, Pool, transaction
from orchestrator.events import queries as events

log = logging.getLogger(__name__)

# What another process left is looked for this often, and an absent store is tried again.
LOOK_AROUND = timedelta(seconds=5)
CLEAN_UP = timedelta(minutes=10)
# An agent that comes back after a week sends again what was not stored; until then its pieces wait.
PATIENCE = timedelta(days=7)
# What is whole waits so long for a store that is away.
AWAY_PATIENCE = timedelta(days=1)
# Pieces of at most 128 KiB are read from the ledger together.
AT_ONCE = 16

Tell = Callable[[Sequence[tuple[UUID, ArtifactsStored]]], Awaitable[object]]


class WrongContent(Exception):
    """What has arrived is not the file that was announced."""


class AssembleArtifacts:
    """Stores the artifacts that are whole, and gives up on those that will never be.

    `pruning` removes what was kept for long enough. `tell` is called with what agents are to know. `wake` is rung when
    there is something to do.
    """

    def __init__(
        self, pool: Pool, store: Store, clock: Clock, *, pruning: PruneArtifacts, tell: Tell, wake: Wake
    ) -> None:
        self._pool = pool
        self._store = store
        self._clock = clock
        self._pruning = pruning
        self._tell = tell
        self._wake = wake
        self._news: set[UUID] = set()
        self._looked_around: float | None = None
        self._cleaned_up: float | None = None

    def look_at(self, artifact_ids: Collection[UUID]) -> None:
        """Look soon at artifacts of which pieces have come."""
        if artifact_ids:
            self._news.update(artifact_ids)
            self._wake.ring()

    async def run_once(self) -> int:
        """Settle what can be settled; return how many artifacts that were."""
        settled, failures = list[Settled](), list[Exception]()
        for one in await self._due():
            try:
                answer = await self._settle(one.artifact.artifact_id)
            except Exception as failure:
                failures.append(failure)
            else:
                settled += [] if answer is None else [answer]
        if settled:
            await self._tell(answers_of(settled))
        if failures:
            raise failures[0]
        await self._clean_up()
        return len(settled)

    async def _due(self) -> list[Arriving]:
        """Return the artifacts that something is to be done about."""
        news, self._news = self._news, set()
        around = _is_due(self._looked_around, LOOK_AROUND, self._clock)
        if not around and not news:
            return []
        async with self._pool.acquire() as db:
            found = await queries.arriving(db, None if around else news, patience=PATIENCE, away_patience=AWAY_PATIENCE)
        if around:
            self._looked_around = self._clock.monotonic()
        return [one for one in found if one.is_whole or one.is_overdue]

    async def _settle(self, artifact_id: UUID) -> Settled | None:
        """Store an artifact, or say why it is missing; None when it stays open, or another process has settled it."""
        async with transaction(self._pool) as db:
            found = await self._take(db, artifact_id)
            if found is None:
                return None
            reason = await self._try(db, found)
            if reason is not None and reason == found.artifact.missing:
                return None
            artifact = await _note(db, found, reason)
            if artifact is None:
                return None
            if not artifact.is_open:
                await queries.forget_pieces(db, artifact_id)
            await events.append(db, told.stored(found, artifact) if reason is None else told.missing(found, artifact))
        if reason is not None:
            log.warning("artifact.missing", extra={"artifact_id": artifact_id, "reason": reason})
        if artifact.is_open or found.agent_id is None:
            return None
        return found.agent_id, *artifact.key, artifact.missing

    async def _take(self, db: Connection, artifact_id: UUID) -> Arriving | None:
        """Return an open artifact that no other process stores meanwhile."""
        found = await queries.arriving(db, [artifact_id], patience=PATIENCE, away_patience=AWAY_PATIENCE)
        if not found:
            return None
        if not await queries.try_folder(db, found[0].folder):
            self._news.add(artifact_id)
            return None
        # Whoever had the folder before may have settled it.
        again = await queries.arriving(db, [artifact_id], patience=PATIENCE, away_patience=AWAY_PATIENCE)
        return again[0] if again else None

    async def _try(self, db: Connection, found: Arriving) -> str | None:
        """Store an artifact that is whole; return why it is missing, None when it is stored."""
        if not found.is_whole:
            return _overdue(found.artifact)
        try:
            await self._store_one(db, found)
        except StoreAway as problem:
            is_last = found.is_overdue and found.artifact.missing is not None
            return _overdue(found.artifact) if is_last else problem.reason
        except StoreProblem as problem:
            return problem.reason
        except WrongContent as problem:
            return str(problem)
        return None

    async def _store_one(self, db: Connection, found: Arriving) -> None:
        """Make the file. Raises `WrongContent` and `StoreProblem`."""
        artifact = found.artifact
        draft = await self._store.run(self._store.draft)
        try:
            await self._write(db, artifact, draft)
            await self._store.run(draft.seal)
            if draft.sha256 != artifact.sha256:
                raise WrongContent(f"what arrived has the SHA-256 {draft.sha256}, and not {artifact.sha256}")
            await queries.hold_content(db, artifact.sha256)
            await self._store.run(partial(self._store.keep, draft))
            path = path_beside(await queries.stored_in(db, found.folder), artifact)
            await self._store.run(partial(self._store.give_path, artifact.sha256, found.folder, path))
        finally:
            self._store.submit(partial(self._store.discard, draft))

    async def _write(self, db: Connection, artifact: Artifact, draft: Draft) -> None:
        joiner, behind = Joiner(), -1
        while pieces := await queries.pieces(db, artifact.artifact_id, behind=behind, limit=AT_ONCE):
            behind = pieces[-1][0]
            await self._store.run(partial(draft.write, joiner.join(pieces)))

    async def _clean_up(self) -> None:
        """Remove what was kept for long enough, and what interrupted runs have left: pieces and drafts."""
        if not _is_due(self._cleaned_up, CLEAN_UP, self._clock):
            return
        self._cleaned_up = self._clock.monotonic()
        async with self._pool.acquire() as db:
            await queries.forget_strays(db)
        try:
            removed = await self._store.run(partial(self._store.sweep, self._clock.now().timestamp()))
        except StoreProblem as problem:
            log.warning("artifacts.not_cleaned_up", extra={"reason": problem.reason})
        else:
            if removed:
                log.info("artifacts.cleaned_up", extra={"drafts": removed})
        await self._pruning.run_once()


async def _note(db: Connection, found: Arriving, reason: str | None) -> Artifact | None:
    if reason is None:
        return await queries.set_stored(db, found.artifact.artifact_id, found.folder)
    return await queries.set_missing(db, found.artifact.artifact_id, reason)


def _overdue(artifact: Artifact) -> str:
    """Return why nothing more is waited for."""
    if artifact.missing is None:
        return f"not all of it arrived within {PATIENCE.days} days"
    return f"its store was away for too long{artifact.missing.removeprefix(AWAY)}"


def _is_due(last: float | None, every: timedelta, clock: Clock) -> bool:
    return last is None or clock.monotonic() - last >= every.total_seconds()
