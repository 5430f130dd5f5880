"""Take in the files that people upload for work that is to get them."""

from collections.abc import AsyncIterator
from functools import partial
from uuid import UUID

from common.errors import ErrorCode, Invalid, Unavailable
from orchestrator.artifacts import events as told
from orchestrator.artifacts import queries
from orchestrator.artifacts.admission import Total
from orchestrator.artifacts.model import Upload
from orchestrator.artifacts.rules import Limits, objection_of_all
from orchestrator.artifacts.store import Draft, Store
from orchestrator.artifacts.streams import Stream
from orchestrator.database.pool import Pool, transaction
from orchestrator.events import queries as events

# Uploads that are under way in one process; each may fill a draft as large as a file may be.
MOST_AT_ONCE = 8
WRITE_BYTES = 256 * 1024


class UploadTooLarge(Invalid):
    """The file is larger than what is kept, or the store has no room left for it."""

    code = ErrorCode.ARTIFACT_TOO_LARGE


class TooManyUploads(Unavailable):
    def __init__(self) -> None:
        super().__init__(f"{MOST_AT_ONCE} uploads are under way, and no more are taken at a time; try again.")


class UploadService:
    """Stores uploads. The same content is stored once, whoever sends it."""

    def __init__(self, pool: Pool, store: Store, *, limits: Limits, total: Total) -> None:
        self._pool = pool
        self._store = store
        self._limits = limits
        self._total = total
        self._under_way = 0

    async def store(self, stream: Stream, *, by: str, trace_id: UUID) -> Upload:
        """Write a body to the store as it comes; who sent it is told, also of what was there already.

        Raises `InvalidField`, `UploadTooLarge`, `UploadCutOff`, `TooManyUploads`, `StoreAway` and `PlaceTaken`;
        then nothing is kept of it.
        """
        stream.check()
        self._check_size(stream.announced)
        await self._check_room(stream.announced)
        if self._under_way >= MOST_AT_ONCE:
            raise TooManyUploads
        self._under_way += 1
        try:
            draft = await self._store.run(self._store.draft)
            try:
                return await self._take(stream, draft, by=by, trace_id=trace_id)
            finally:
                self._store.submit(partial(self._store.discard, draft))
        finally:
            self._under_way -= 1

    async def _take(self, stream: Stream, draft: Draft, *, by: str, trace_id: UUID) -> Upload:
        async for data in self._limited(stream):
            await self._store.run(partial(draft.write, data))
        await self._store.run(draft.seal)
        await self._check_room(draft.size)
        upload = Upload(draft.sha256, draft.size)
        async with transaction(self._pool) as db:
            await queries.hold_content(db, upload.sha256)
            # The content first: what is noted is there, and what nobody noted is only a file too many.
            await self._store.run(partial(self._store.keep, draft))
            await queries.add_upload(db, upload, by=by)
            await events.append(db, told.uploaded(upload, by=by, trace_id=trace_id))
        self._total.add(upload.size)
        return upload

    async def _limited(self, stream: Stream) -> AsyncIterator[bytes]:
        """Yield the body in larger parts; raises `UploadTooLarge` as soon as it is."""
        size, held = 0, bytearray()
        async for part in stream.parts():
            size += len(part)
            self._check_size(size)
            held += part
            if len(held) >= WRITE_BYTES:
                yield bytes(held)
                held.clear()
        yield bytes(held)

    def _check_size(self, size: int) -> None:
        if size > self._limits.one:
            raise UploadTooLarge(f"The body is too large: at most {self._limits.one} bytes are kept of one file.")

    async def _check_room(self, size: int) -> None:
        async with self._pool.acquire() as db:
            held = await self._total.size(db)
        if (reason := objection_of_all(size, held_in_all=held, limits=self._limits)) is not None:
            raise UploadTooLarge(f"There is no room for it: {reason}.")
