"""Lease tasks that wait to agents that have credit, and send them."""

import time
from collections.abc import Callable, Sequence

from orchestrator.database.pool import Pool
from orchestrator.leases.giving import Giving
from orchestrator.leases.model import Leased
from orchestrator.leases.service import LeaseService
from orchestrator.placement import queries as placement

# Placement constraints that nothing uses are forgotten so often, in seconds.
FORGET_EVERY = 3600.0
# Tasks whose time has come are looked for at most so often, in seconds.
WAKE_EVERY = 0.25


class GiveWork:
    """One turn after another, as long as there is something to give."""

    def __init__(
        self, pool: Pool, giving: Giving, leases: LeaseService, send: Callable[[Sequence[Leased]], None]
    ) -> None:
        self._pool = pool
        self._giving = giving
        self._leases = leases
        self._send = send
        self._forgot_at = time.monotonic()
        self._woke_at = -WAKE_EVERY

    async def run_once(self) -> int:
        """Give what can be given now; return whether another turn at once may give more."""
        if time.monotonic() - self._woke_at >= WAKE_EVERY:
            self._woke_at = time.monotonic()
            await self._giving.wake()
        given = await self._giving.by_credit()
        self._send(given.leased)
        for leased in given.leased:
            self._leases.given.add(leased.task, leased.agent_id, attempt=leased.attempt)
        if given.withheld:
            await self._leases.withdraw(sorted(given.withheld))
        await self._forget()
        return int(given.is_more_to_give)

    async def _forget(self) -> None:
        if time.monotonic() - self._forgot_at >= FORGET_EVERY:
            async with self._pool.acquire() as db:
                await placement.forget(db)
            self._forgot_at = time.monotonic()
