"""Who holds a token: asked of the ledger, and believed for less than a second.

So a revoked token is refused within a second even when no notification arrives; `changed` makes it sooner.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from uuid import UUID

from common.errors import TooManyRequests
from common.rest.identities import TokenPurpose
from orchestrator.database.pool import Pool
from orchestrator.identities import queries
from orchestrator.identities.model import Bearer, Caller, Unauthenticated
from orchestrator.identities.rates import Rates
from orchestrator.identities.tokens import digest_of, purpose_of

# Of the second that a revocation may take, the rest is for the look-up itself and for an event loop that is late.
FRESH_SECONDS = 0.7
MOST_REMEMBERED = 20_000
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
    """Tells who holds a token, and keeps those who guess, and those who ask too much, waiting."""

    def __init__(self, pool: Pool, limits: Limits, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._pool = pool
        self._clock = clock
        self._known: dict[bytes, _Known] = {}
        self._looking: dict[bytes, asyncio.Task[Caller | None]] = {}
        self._used: set[UUID] = set()
        self._requests = Rates(per_second=limits.requests_per_token, burst=10 * limits.requests_per_token)
        self._failures = Rates(per_second=limits.failures_per_address, burst=10 * limits.failures_per_address)

    async def caller(self, token: str, *, address: str) -> Caller:
        """Return whose token this is; raises `Unauthenticated` and `TooManyRequests`."""
        digest = digest_of(token)
        known = self._known.get(digest)
        if known is not None and self._clock() < known.until:
            caller: Caller | None = known.caller
        else:
            caller = await self._ask(token, digest, address=address, was_known=known is not None)
        if caller is None:
            raise Unauthenticated("The token is not known, has run out, or was revoked.")
        return self._counted(caller)

    async def caller_with_ticket(self, ticket: str, *, address: str) -> Caller:
        """Return whose ticket this is, which is used up by that; raises `Unauthenticated` and `TooManyRequests`."""
        self._count_failure(address)
        async with self._pool.acquire() as db:
            digest = await queries.use_ticket(db, digest_of(ticket))
            bearer = None if digest is None else await queries.find_bearer(db, digest)
        if bearer is None:
            raise Unauthenticated("The ticket is not known, has run out, or was used.")
        self._failures.give_back(address, now=self._clock())
        return self._counted(bearer.caller)

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

    async def _ask(self, token: str, digest: bytes, *, address: str, was_known: bool) -> Caller | None:
        """Ask the ledger. Who guesses from this address is kept waiting; a token that was good a moment ago is not."""
        if not was_known:
            self._count_failure(address)
            if purpose_of(token) not in BEARERS:
                raise Unauthenticated("This is no token: it is mistyped, cut off, or something else.")
        caller = await asyncio.shield(self._look_up(digest))
        if caller is not None and not was_known:
            self._failures.give_back(address, now=self._clock())
        return caller

    def _look_up(self, digest: bytes) -> "asyncio.Task[Caller | None]":
        """Ask once for all who want to know at the same time."""
        looking = self._looking.get(digest)
        if looking is None:
            looking = self._looking[digest] = asyncio.create_task(self._find(digest), name="look up a token")
            looking.add_done_callback(lambda _: self._looking.pop(digest, None))
        return looking

    async def _find(self, digest: bytes) -> Caller | None:
        began = self._clock()
        async with self._pool.acquire() as db:
            bearer = await queries.find_bearer(db, digest)
        if bearer is None:
            self._known.pop(digest, None)
            return None
        if len(self._known) >= MOST_REMEMBERED:
            self._known.clear()
        self._known[digest] = _Known(bearer.caller, began + _believed(bearer))
        assert bearer.caller.token_id is not None
        self._used.add(bearer.caller.token_id)
        return bearer.caller

    def _counted(self, caller: Caller) -> Caller:
        wait = self._requests.take(caller.token_id, now=self._clock())
        if wait > 0:
            raise TooManyRequests("This token makes too many requests.", retry_after=wait)
        return caller

    def _count_failure(self, address: str) -> None:
        wait = self._failures.take(address, now=self._clock())
        if wait > 0:
            raise TooManyRequests("Too many tokens from this address were wrong.", retry_after=wait)


def _believed(bearer: Bearer) -> float:
    """Return for how many seconds nobody needs to ask again."""
    left = FRESH_SECONDS if bearer.remaining is None else bearer.remaining.total_seconds()
    return min(FRESH_SECONDS, left)
