"""Ask the orchestrator for the files that work gets, piece by piece, and check that each came as it is.

Several pieces are asked for at a time. One that does not come is asked for again, for a while.
"""

import asyncio
import hashlib
import os
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from uuid import UUID, uuid4

from agents.artifacts.spool import Owner
from agents.executors.base import FilesUnavailable
from agents.link.reporter import Reporter
from common.broker.topology import PROGRESS
from common.durable import write_all
from common.messages import WantFile
from common.orders import FilePiece
from common.protocol import ORCHESTRATOR, WantFileEnvelope

# Pieces of one file that are asked for at a time.
MOST_UNDER_WAY = 4
ASK_AGAIN_AFTER = timedelta(seconds=5)
GIVE_UP_AFTER = timedelta(seconds=60)
READ_BYTES = 1024 * 1024
NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Wants:
    """The files that this agent waits for. `limit`: the most bytes of a file."""

    def __init__(
        self,
        reporter: Reporter,
        agent_id: UUID,
        *,
        limit: int,
        ask_again_after: timedelta = ASK_AGAIN_AFTER,
        give_up_after: timedelta = GIVE_UP_AFTER,
    ) -> None:
        self._reporter = reporter
        self._agent_id = agent_id
        self._limit = limit
        self._ask_again_after = ask_again_after
        self._give_up_after = give_up_after
        self._waiting: dict[UUID, asyncio.Future[FilePiece]] = {}

    def take(self, piece: FilePiece) -> None:
        """Hand a piece to whoever waits for it; one that was asked for twice may come twice."""
        waiting = self._waiting.get(piece.want_id)
        if waiting is not None and not waiting.done():
            waiting.set_result(piece)

    async def fetch(self, path: str, owner: Owner, place: Path, *, sha256: str | None = None) -> None:
        """Bring the file that an attempt names `path` to a place where nothing is yet.

        `sha256`: what it must hold; None: what the orchestrator says that it holds. Raises `FilesUnavailable`, and
        `OSError`.
        """
        first = await self._piece(path, owner, 0)
        if sha256 is not None and first.sha256 != sha256:
            raise FilesUnavailable(f"it has the SHA-256 {first.sha256}, and not {sha256}", may_come=True)
        if first.size > self._limit:
            raise FilesUnavailable(
                f"it has {first.size} bytes; the most that this agent takes is {self._limit} (max_artifact_bytes)"
            )
        await asyncio.to_thread(_begin, place, first.raw)
        step = len(first.raw)
        if step < first.size:
            await self._rest(path, owner, place, first, iter(range(step, first.size, step)))
        if await asyncio.to_thread(_digest_of, place) != first.sha256:
            raise FilesUnavailable(f"what came has not the SHA-256 {first.sha256} that it was to have", may_come=True)

    async def _rest(self, path: str, owner: Owner, place: Path, first: FilePiece, starts: Iterator[int]) -> None:
        async def part() -> None:
            for start in starts:
                at, end = start, min(start + len(first.raw), first.size)
                while at < end:
                    piece = await self._piece(path, owner, at)
                    if (piece.size, piece.sha256) != (first.size, first.sha256):
                        raise FilesUnavailable("it changed while it was sent", may_come=True)
                    await asyncio.to_thread(_write, place, at, piece.raw)
                    at += len(piece.raw)

        parts = [asyncio.create_task(part(), name="pieces of a file") for _ in range(MOST_UNDER_WAY)]
        try:
            await asyncio.gather(*parts)
        finally:
            for one in parts:
                one.cancel()
            await asyncio.gather(*parts, return_exceptions=True)

    async def _piece(self, path: str, owner: Owner, offset: int) -> FilePiece:
        """Return what the file holds from there on: at least one byte, unless it is empty."""
        want = WantFile(
            want_id=uuid4(),
            agent_id=self._agent_id,
            task_id=owner.task_id,
            attempt=owner.attempt,
            path=path,
            offset=offset,
        )
        piece = await self._answer(want, owner)
        if piece.problem:
            raise FilesUnavailable(piece.problem.rstrip("."), may_come=True)
        if piece.offset != offset:
            raise FilesUnavailable("another piece of it came than was asked for", may_come=True)
        return piece

    async def _answer(self, want: WantFile, owner: Owner) -> FilePiece:
        envelope = WantFileEnvelope(
            from_agent=str(self._agent_id),
            to_agent=ORCHESTRATOR,
            trace_id=owner.trace_id,
            request_id=owner.request_id,
            payload=want,
        )
        loop = asyncio.get_running_loop()
        over_at = loop.time() + self._give_up_after.total_seconds()
        answer: asyncio.Future[FilePiece] = loop.create_future()
        self._waiting[want.want_id] = answer
        try:
            while not answer.done() and (left := over_at - loop.time()) > 0:
                asking = self._reporter.post(PROGRESS, envelope)
                try:
                    await asyncio.wait({answer}, timeout=min(left, self._ask_again_after.total_seconds()))
                finally:
                    asking.cancel()  # what waits for the broker is not asked twice
        finally:
            del self._waiting[want.want_id]
        if not answer.done():
            seconds = self._give_up_after.total_seconds()
            raise FilesUnavailable(f"the orchestrator did not send it within {seconds:g} s", may_come=True)
        return answer.result()


def _begin(place: Path, data: bytes) -> None:
    handle = os.open(place, NEW_FILE, 0o600)
    try:
        write_all(handle, data)
    finally:
        os.close(handle)


def _write(place: Path, offset: int, data: bytes) -> None:
    handle = os.open(place, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.lseek(handle, offset, os.SEEK_SET)
        write_all(handle, data)
    finally:
        os.close(handle)


def _digest_of(place: Path) -> str:
    digest = hashlib.sha256()
    with place.open("rb") as file:
        while data := file.read(READ_BYTES):
            digest.update(data)
    return digest.hexdigest()
