"""Many agents in one process: they beat, and renew the lease of one task each, and run nothing.

All share one connection, and one queue for what they are told, which is read and thrown away. First all beat at once,
as after an outage; then they beat and renew in turns, evenly spread, and some of them fall silent after a while.
"""

import argparse
import asyncio
import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from uuid import NAMESPACE_OID, UUID, uuid4, uuid5

import uvloop

from agents.link.replies import reply
from common.broker.base import Address, Broker, Outgoing, Queue
from common.broker.connect import open_broker
from common.broker.topology import CONTROL, HEARTBEATS
from common.messages import AgentStatus, Credit, Lease, Renew, Resources, StatusUpdate
from common.protocol import ORCHESTRATOR, Envelope, RenewEnvelope, StatusUpdateEnvelope

STEP_SECONDS = 0.05
AT_ONCE = 200
TOLD = Queue("bench.told", (Address(CONTROL, "#"),))


def agent_of(number: int) -> UUID:
    return uuid5(NAMESPACE_OID, f"agent {number}")


class Fleet:
    """Agents by their numbers. `tasks` are those that they run, in their order, each in its first attempt."""

    def __init__(self, broker: Broker, tasks: Sequence[str]) -> None:
        self._broker = broker
        self._tasks = tasks
        self._started_at = datetime.now(UTC)
        self._sent = 0

    async def beat(self, numbers: Sequence[int]) -> None:
        await self._publish([self._beat(number) for number in numbers])

    async def renew(self, numbers: Sequence[int]) -> None:
        await self._publish([self._renewal(number) for number in numbers])

    async def _publish(self, messages: Sequence[Outgoing]) -> None:
        for begin in range(0, len(messages), AT_ONCE):
            await self._broker.publish(*messages[begin : begin + AT_ONCE])

    def _beat(self, number: int) -> Outgoing:
        agent_id = agent_of(number)
        update = StatusUpdate(
            agent_id=agent_id,
            agent_type="simulated",
            status=AgentStatus.BUSY,
            hostname=f"simulated-{number}",
            version="0",
            work_types=["echo"],
            slots=1,
            current_tasks=[UUID(self._tasks[number])],
            resources=Resources(cpu_percent=1.0, memory_percent=1.0),
            started_at=self._started_at,
            beat_id=uuid4(),
            boot_id=agent_id,
            credit=self._credit(agent_id),
        )
        return _reply(agent_id, StatusUpdateEnvelope(from_agent=str(agent_id), to_agent=ORCHESTRATOR, payload=update))

    def _credit(self, agent_id: UUID) -> Credit:
        """Ask for no more work than the agent has: its one slot is busy."""
        self._sent += 1
        return Credit(session=agent_id, number=self._sent, limit=0)

    def _renewal(self, number: int) -> Outgoing:
        agent_id = agent_of(number)
        renewal = Renew(
            renewal_id=uuid4(), agent_id=agent_id, leases=[Lease(task_id=UUID(self._tasks[number]), attempt=1)]
        )
        return _reply(agent_id, RenewEnvelope(from_agent=str(agent_id), to_agent=ORCHESTRATOR, payload=renewal))


def _reply(agent_id: UUID, envelope: Envelope) -> Outgoing:
    return reply(agent_id, HEARTBEATS, envelope, is_repeated=True)


@dataclass(frozen=True, slots=True)
class Turns:
    """Some agents in turns: each acts once in `every` seconds."""

    first: int
    count: int
    every: float

    def due(self, since: float, until: float) -> list[int]:
        """Return the numbers whose turn comes between two times, given in seconds since the beginning."""
        begin, end = (int(at / self.every * self.count) for at in (since, until))
        return [self.first + at % self.count for at in range(begin, min(end, begin + self.count))]


async def live(fleet: Fleet, beats: Turns, renewals: Turns, *, silent: int, silent_after: float) -> None:
    """Beat and renew until cancelled; the first so many as `silent` stop after a while."""
    loop = asyncio.get_running_loop()
    began, before = loop.time(), 0.0
    while True:
        await asyncio.sleep(STEP_SECONDS)
        now = loop.time() - began
        alive = beats.first + (silent if now > silent_after else 0)
        await fleet.beat([number for number in beats.due(before, now) if number >= alive])
        await fleet.renew([number for number in renewals.due(before, now) if number >= alive])
        before = now


async def listen(broker: Broker) -> None:
    """Take what the agents are told, until cancelled."""
    async with broker.consume(TOLD.name, prefetch=1000) as consumer:
        while True:
            await consumer.ack(*await consumer.receive(1000))


async def run(given: argparse.Namespace) -> None:
    tasks = json.loads(given.tasks)
    beats = Turns(given.first, given.count, given.beat)
    renewals = Turns(given.first, given.count, 2 * given.beat)
    async with (
        open_broker(os.environ["BENCH_AMQP_URL"], name="simulated agents") as broker,
        asyncio.TaskGroup() as group,
    ):
        await broker.declare(TOLD)
        group.create_task(listen(broker))
        fleet = Fleet(broker, tasks)
        print(json.dumps(time.monotonic()), flush=True)
        await fleet.beat(range(given.first, given.first + given.count))
        group.create_task(live(fleet, beats, renewals, silent=given.silent, silent_after=given.silent_after))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--tasks", type=Path, required=True, help="a file with the tasks of all agents, as JSON")
    parser.add_argument("--first", type=int, required=True, help="the number of the first agent")
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--beat", type=float, required=True, help="seconds between two heartbeats of an agent")
    parser.add_argument("--silent", type=int, default=0, help="how many fall silent")
    parser.add_argument("--silent-after", type=float, default=0.0, help="when they do, in seconds")
    given = parser.parse_args()
    given.tasks = given.tasks.read_text(encoding="utf-8")
    uvloop.run(run(given))


if __name__ == "__main__":
    main()
