"""Who holds a token: asked of the ledger, and believed for less than a second.

So a revoked token is refused within a second even when no notification arrives; `changed` makes it sooner.

A token is looked up before anything is counted against its address, so wrong tokens never keep a valid one waiting.
Look-ups go to the ledger in batches, over one connection, so wrong tokens cannot use up the others.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Self
from uuid import UUID

from common.batching import Batcher
from common.errors import ChiffonError, TooManyRequests
from common.rest.identities import TokenPurpose
from orchestrator.database.pool import Pool
from orchestrator.http.addresses import counted_as
from orchestrator.identities import queries
from orchestrator.identities.model import Bearer, Caller, Unauthenticated
from orchestrator.identities.rates import Rates
from orchestrator.identities.tokens import digest_of, is_ticket, purpose_of

# Of the second that a revocation may take, the rest is for the look-up itself and for an event loop that is late.
FRESH_SECONDS = 0.7
MOST_REMEMBERED = 20_000
# Tokens, or tickets, in one look-up.
LOOK_UP_BATCH = 500
BEARERS = frozenset({TokenPurpose.API, TokenPurpose.AGENT})


@dataclass(frozen=True, slots=True)
class Limits:
    """What one token and one address may do in a second; a burst is ten times that."""

    requests_per_token: float
    failures_per_address: float


@dataclass(frozen=True, slots=True)
class _Known:
    caller: Caller
    until: float


class Authenticator:
    """Tells who holds a token, and refuses those who guess, or ask too much, for a while. An async context manager."""

    def __init__(self, pool: Pool, limits: Limits, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._pool = pool
        self._clock = clock
        self._known: dict[bytes, _Known] = {}
        self._used: set[UUID] = set()
        self._tokens = Batcher(self._find, limit=LOOK_UP_BATCH)
        self._tickets = Batcher(self._use_tickets, limit=LOOK_UP_BATCH)
        self._requests = Rates(per_second=limits.requests_per_token, burst=10 * limits.requests_per_token)
        self._failures = Rates(per_second=limits.failures_per_address, burst=10 * limits.failures_per_address)
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        await self._stack.enter_async_context(self._tokens)
        await self._stack.enter_async_context(self._tickets)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def caller(self, token: str, *, address: str) -> Caller:
        """Return whose token this is; raises `Unauthenticated` and `TooManyRequests`."""
        digest = digest_of(token)
        known = self._known.get(digest)
        if known is not None and self._clock() < known.until:
            return self._counted(known.caller)
        if purpose_of(token) not in BEARERS:
            raise self._wrong(address, "Malformed token: it is mistyped, cut off, or not a bearer token.")
        caller = await self._tokens.submit(digest)
        if caller is None:
            raise self._wrong(address, "The token is not known, has run out, or was revoked.")
        return self._counted(caller)

    async def caller_with_ticket(self, ticket: str, *, address: str) -> Caller:
        """Return whose ticket this is, which is used up by that; raises `Unauthenticated` and `TooManyRequests`."""
        caller = await self._tickets.submit(digest_of(ticket)) if is_ticket(ticket) else None
        if caller is None:
            raise self._wrong(address, "The ticket is not known, has run out, or was used.")
        return self._counted(caller)

    def changed(self) -> None:
        """Believe nothing of what is remembered: something about identities has changed."""
        now = self._clock()
        self._known = {digest: _Known(known.caller, now) for digest, known in self._known.items()}

    async def run_once(self) -> int:
        """Write down which tokens were used."""
        used, self._used = self._used, set()
        if used:
            async with self._pool.acquire() as db:
                await queries.note_use(db, used)
        return 0

    async def _find(self, digests: Sequence[bytes]) -> Sequence[Caller | None]:
        began = self._clock()
        async with self._pool.acquire() as db:
            bearers = await queries.find_bearers(db, set(digests))
        return [self._remembered(digest, bearers.get(digest), began) for digest in digests]

    def _remembered(self, digest: bytes, bearer: Bearer | None, began: float) -> Caller | None:
        if bearer is None:
            self._known.pop(digest, None)
            return None
        if len(self._known) >= MOST_REMEMBERED:
            self._known.clear()
        self._known[digest] = _Known(bearer.caller, began + _believed(bearer))
        assert bearer.caller.token_id is not None
        self._used.add(bearer.caller.token_id)
        return bearer.caller

    async def _use_tickets(self, digests: Sequence[bytes]) -> Sequence[Caller | None]:
        async with self._pool.acquire() as db:
            bearers = await queries.use_tickets(db, set(digests))
        # A ticket that is in one batch twice opens one WebSocket.
        found = [bearers.pop(digest, None) for digest in digests]
        return [None if bearer is None else bearer.caller for bearer in found]

    def _counted(self, caller: Caller) -> Caller:
        wait = self._requests.take(caller.token_id, now=self._clock())
        if wait > 0:
            raise TooManyRequests("This token makes too many requests.", retry_after=wait)
        return caller

    def _wrong(self, address: str, problem: str) -> ChiffonError:
        """Count a failure of an address; return what to raise."""
        wait = self._failures.take(counted_as(address), now=self._clock())
        if wait > 0:
            return TooManyRequests("Too many tokens from this address were wrong.", retry_after=wait)
        return Unauthenticated(problem)


def _believed(bearer: Bearer) -> float:
    """Return for how many seconds nobody needs to ask again."""
    left = FRESH_SECONDS if bearer.remaining is None else bearer.remaining.total_seconds()
    return min(FRESH_SECONDS, left)
