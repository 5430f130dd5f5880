"""How each fault is made and healed."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from uuid import uuid4

import aio_pika

from common.broker.topology import REPLY_QUEUES, work_queue
from tests.chaos.broker_node import DISK_LIMIT, MEMORY_LIMIT
from tests.chaos.plan import AGENTS, HTTP_AGENT, Fault
from tests.chaos.proxy import Mode
from tests.chaos.world import World
from tests.integration.system.process_agents import identity

AGENTS_ON_THE_BUS = tuple(name for name in AGENTS if name != HTTP_AGENT)

Making = Callable[[World, str], AbstractAsyncContextManager[None]]


@asynccontextmanager
async def kill(world: World, target: str) -> AsyncIterator[None]:
    program = {**world.agents, **world.orchestrators}[target]
    await program.kill()
    try:
        yield
    finally:
        program.start()


@asynccontextmanager
async def pause(world: World, target: str) -> AsyncIterator[None]:
    program = {**world.agents, **world.orchestrators}[target]
    program.pause()
    try:
        yield
    finally:
        program.resume()


@asynccontextmanager
async def stop_app(world: World, _target: str) -> AsyncIterator[None]:
    await world.node.control("stop_app")
    try:
        yield
    finally:
        await world.node.control("start_app")


@asynccontextmanager
async def kill_broker(world: World, _target: str) -> AsyncIterator[None]:
    await asyncio.to_thread(world.node.kill)
    try:
        yield
    finally:
        await asyncio.to_thread(world.node.start_again)


@asynccontextmanager
async def close_connections(world: World, _target: str) -> AsyncIterator[None]:
    await world.node.control("close_all_connections", "--vhost", world.host, "chaos")
    yield


@asynccontextmanager
async def disk_alarm(world: World, _target: str) -> AsyncIterator[None]:
    await world.node.control("set_disk_free_limit", "999999GB")
    try:
        yield
    finally:
        await world.node.control("set_disk_free_limit", DISK_LIMIT)


@asynccontextmanager
async def memory_alarm(world: World, _target: str) -> AsyncIterator[None]:
    await world.node.control("set_vm_memory_high_watermark", "0.000001")
    try:
        yield
    finally:
        await world.node.control("set_vm_memory_high_watermark", MEMORY_LIMIT)


@asynccontextmanager
async def terminate_sessions(world: World, _target: str) -> AsyncIterator[None]:
    await world.postgres.terminate_sessions(world.database_url)
    yield


@asynccontextmanager
async def crash_postgres(world: World, _target: str) -> AsyncIterator[None]:
    await world.postgres.stop_immediately()
    try:
        yield
    finally:
        await world.postgres.start_again()


@asynccontextmanager
async def lose_commit_replies(world: World, _target: str) -> AsyncIterator[None]:
    world.commits.armed = True
    try:
        yield
    finally:
        world.commits.armed = False


def link(mode: Mode) -> Making:
    @asynccontextmanager
    async def make(world: World, target: str) -> AsyncIterator[None]:
        world.links[target].begin(mode)
        try:
            yield
        finally:
            world.links[target].heal()

    return make


@asynccontextmanager
async def cut(world: World, target: str) -> AsyncIterator[None]:
    world.links[target].cut()
    yield


def partition(*, incoming: bool, outgoing: bool) -> Making:
    @asynccontextmanager
    async def make(world: World, _target: str) -> AsyncIterator[None]:
        assert world.network is not None
        await world.network.drop(incoming=incoming, outgoing=outgoing)
        try:
            yield
        finally:
            await world.network.heal()

    return make


@asynccontextmanager
async def poison(world: World, _target: str) -> AsyncIterator[None]:
    """Not a fault of anything that runs, but messages that nobody can read."""
    connection = await aio_pika.connect(world.broker_url(*world.node.address))
    queues = [work_queue("infra", identity(world.states / name)) for name in AGENTS_ON_THE_BUS]
    async with connection, await connection.channel() as channel:
        for queue in (*REPLY_QUEUES, *queues):
            message_id = str(uuid4())
            body = b"\xff not a message"
            message = aio_pika.Message(body, message_id=message_id, delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
            await channel.default_exchange.publish(message, routing_key=queue.name)
            world.history.poison.append(message_id)
    yield


FAULTS: Mapping[str, Making] = {
    "agent.kill": kill,
    "agent.pause": pause,
    "orchestrator.kill": kill,
    "orchestrator.pause": pause,
    "broker.stop_app": stop_app,
    "broker.kill": kill_broker,
    "broker.close_connections": close_connections,
    "broker.poison": poison,
    "broker.disk_alarm": disk_alarm,
    "broker.memory_alarm": memory_alarm,
    "postgres.terminate_sessions": terminate_sessions,
    "postgres.crash": crash_postgres,
    "postgres.commit_reply_lost": lose_commit_replies,
    "network.partition": partition(incoming=True, outgoing=True),
    "network.partition_to_broker": partition(incoming=False, outgoing=True),
    "network.partition_to_agent": partition(incoming=True, outgoing=False),
    "link.cut": cut,
    **{f"link.{mode}": link(mode) for mode in Mode if mode is not Mode.PASS},
}


def make(world: World, fault: Fault) -> AbstractAsyncContextManager[None]:
    """Return the fault as a block: it lasts as long as the block runs."""
    return FAULTS[fault.kind](world, fault.target)
