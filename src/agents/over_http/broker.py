"""The queue API as the broker of an agent.

What the agent publishes becomes requests; what the answers say is delivered to it as the messages that a broker would
have brought: work for claimed jobs, `renewed`, `stored`, `heard`, pieces of files, and orders. So everything above this
is the same agent. `publish` returns when the server has answered, and raises `ServerAway` when that is not known.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from uuid import UUID

from agents.identity.registration import Identity
from agents.over_http.client import QueueClient, Refused, ServerAway, open_client
from agents.over_http.handing_back import HandingBack
from agents.over_http.held import HeldJobs
from agents.over_http.inbox import Inbox
from agents.over_http.job_claimer import JobClaimer
from agents.over_http.leases import Leases
from agents.over_http.orders import Orders
from agents.over_http.reports import Report, Reports
from common.broker.base import Broker, Consumer, Outgoing, Queue
from common.broker.memory import MemoryBroker
from common.clock import Clock, SystemClock
from common.loop import Health
from common.messages import Credit, GrantedTask, Renew, StatusUpdate, WantFile, WorkStatus
from common.protocol import WorkResults, decode
from common.unreadable import Unreadable

log = logging.getLogger(__name__)

# How long jobs that the agent did not take may take to get back when the agent leaves.
GOODBYE_SECONDS = 5.0


class OverHttp:
    """See `common.broker.base.Broker`; the agent's own queues are in memory, and everything else is asked for."""

    def __init__(
        self, client: QueueClient, identity: Identity, clock: Clock, *, wait: timedelta, local: MemoryBroker
    ) -> None:
        held, inbox = HeldJobs(), Inbox(local, identity)
        self._client = client
        self._held = held
        self._inbox = inbox
        self._local = local
        self._handing_back = HandingBack(client, held, clock)
        health = Health()
        self._leases = Leases(client, held, self._handing_back, inbox, clock)
        self._claimer = JobClaimer(
            client,
            held,
            self._handing_back,
            clock,
            types=identity.work_types,
            wait=wait,
            deliver=self._leases.bring,
            health=health,
        )
        self._reports = Reports(client, held, inbox)
        self._orders = Orders(client, held, self._leases, inbox, self._claimer, health=health)

    async def run(self) -> None:
        """Claim jobs, and look for orders, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._claimer.run(), name="claims")
            group.create_task(self._orders.look(), name="orders")

    async def close(self) -> None:
        """Bring back the jobs that the agent did not take."""
        for task in await self._inbox.take_unread_work():
            held = self._held.find(task.work.task_id, task.attempt)
            if held is not None:
                self._handing_back.give(held)
        await self._handing_back.settled(within=GOODBYE_SECONDS)

    def claim_of(self, grant: GrantedTask) -> UUID | None:
        """Return the id of the claim that brought this job, which the server has signed; None when it is not held."""
        held = self._held.find(grant.work.task_id, grant.attempt)
        return None if held is None else held.claim_id

    def asked_at(self, grant: GrantedTask, number: int | None) -> float | None:
        """Return since when the lease of this job counts; None when it is not held."""
        held = self._held.find(grant.work.task_id, grant.attempt)
        return None if held is None else held.lease_from

    async def declare(self, *queues: Queue, keep: bool = True) -> None:
        await self._local.declare(*queues, keep=keep)

    async def delete(self, queue: str) -> None:
        await self._local.delete(queue)

    async def publish(self, *messages: Outgoing) -> None:
        reports: list[Report] = []
        credit: Credit | None = None
        for payload in (decode(message.body).payload for message in messages):
            match payload:
                case Renew():
                    await self._leases.renew(payload)
                case StatusUpdate():
                    await self._orders.beat(payload)
                case WorkStatus() | WantFile():
                    reports.append(payload)
                case WorkResults():
                    reports += [result.payload for result in payload.results]
                    credit = payload.credit or credit
                case Unreadable():
                    # Everything that is read here was made here; what the server says wrongly is refused before that.
                    log.error("message.unreadable", extra={"queue": payload.queue, "reason": payload.reason})
                case _:
                    raise TypeError(f"an agent does not say {type(payload).__name__}")
        if reports:
            await self._reports.send(reports)
        if credit is not None:
            self._claimer.allow(credit.limit)

    @asynccontextmanager
    async def consume(self, queue: str, *, prefetch: int) -> AsyncIterator[Consumer]:
        async with self._local.consume(queue, prefetch=prefetch) as consumer:
            yield consumer

    @property
    def generation(self) -> int:
        return self._local.generation

    @property
    def is_connected(self) -> bool:
        return self._local.is_connected

    async def depth(self, queue: str) -> int:
        """Return how many messages wait here; what waits at the server is not counted."""
        return await self._local.depth(queue)

    async def check(self) -> None:
        try:
            await self._client.check()
        except Refused as refusal:
            raise ServerAway(str(refusal)) from refusal

    async def reconnect(self) -> None:
        """Nothing to throw away: a connection is as good as the last answer over it, or closed with its request."""


@asynccontextmanager
async def open_over_http(
    url: str, identity: Identity, *, lease_seconds: int, wait: timedelta, token: str | None = None
) -> AsyncIterator[Broker]:
    """Open the way to one server. Raises `ServerAway` when its queue API does not answer."""
    async with open_client(url, identity.agent_id, lease_seconds=lease_seconds, token=token) as client:
        way = OverHttp(client, identity, SystemClock(), wait=wait, local=MemoryBroker())
        await way.check()
        running = asyncio.create_task(way.run(), name="over http")
        try:
            yield way
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            await way.close()
