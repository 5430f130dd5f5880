"""WebSockets that are open: each is closed soon after its token stops to count."""

import asyncio
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

from common.errors import TooManyRequests
from orchestrator.database.pool import Pool
from orchestrator.identities import queries
from orchestrator.identities.model import Caller

RETRY_AFTER = 5.0


class Sessions:
    """The open WebSockets by the token that opened them, at most `limit` for each."""

    def __init__(self, pool: Pool, *, limit: int) -> None:
        self._pool = pool
        self._limit = limit
        self._open: defaultdict[UUID, set[asyncio.Event]] = defaultdict(set)

    @contextmanager
    def opened(self, caller: Caller) -> Iterator[asyncio.Event]:
        """Note a WebSocket while the block runs; the event is set when it is to be closed.

        Raises `TooManyRequests` when the token has as many as it may.
        """
        ended = asyncio.Event()
        if caller.token_id is None:
            yield ended
            return
        same = self._open[caller.token_id]
        if len(same) >= self._limit:
            raise TooManyRequests(
                f"At most {self._limit} WebSockets may be open with one token.", retry_after=RETRY_AFTER
            )
        same.add(ended)
        try:
            yield ended
        finally:
            same.discard(ended)
            if not same:
                self._open.pop(caller.token_id, None)

    async def run_once(self) -> int:
        """Tell the WebSockets whose tokens do not count any more to end."""
        asked = set(self._open)
        if not asked:
            return 0
        async with self._pool.acquire() as db:
            still = await queries.valid(db, asked)
        for token_id in asked - still:
            for ended in self._open.get(token_id, ()):
                ended.set()
        return 0
