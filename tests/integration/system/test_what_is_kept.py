"""Which messages a restart of RabbitMQ must not lose, and which are said again by whoever misses the answer."""

import json
from collections import defaultdict
from uuid import uuid4

import aio_pika
from aio_pika import DeliveryMode

from common.broker import topology
from tests.eventually import eventually
from tests.integration.system.deployment import System

PERSISTENT = {"work_results", "work_status", "cancel"}
TRANSIENT = {"work_request", "status_update", "stored", "heard"}


async def test_what_nobody_says_again_is_persistent_and_nothing_else_is(own_system: System, amqp_url: str) -> None:
    modes: defaultdict[str, set[DeliveryMode | None]] = defaultdict(set)

    async def note(message: aio_pika.abc.AbstractIncomingMessage) -> None:
        said = json.loads(message.body)
        modes[said["payload"].get("order", {}).get("action") or message.type or ""].add(message.delivery_mode)

    async with await aio_pika.connect(amqp_url) as connection:
        channel = await connection.channel()
        ears = await channel.declare_queue(exclusive=True)
        await own_system.start_agent(slots=8)
        [agent] = await eventually(own_system.agents_online)
        work = topology.work_address(agent.agent_type, agent.agent_id)
        for exchange, key in ((work.exchange, work.routing_key), (topology.CONTROL, "#"), (topology.REPLIES, "#")):
            await ears.bind(exchange.name, key)
        await ears.consume(note, no_ack=True)
        done, running = uuid4(), uuid4()
        await own_system.client.dispatch("echo", {"message": "x"}, task_id=done)
        await own_system.finished(done)
        await own_system.client.dispatch("shell_script", {"script": "echo begun; sleep 60"}, task_id=running)
        await eventually(lambda: "work_status" in modes)
        await own_system.client.cancel(running)
        await own_system.finished(running)
        await eventually(lambda: modes.keys() >= PERSISTENT | TRANSIENT)

    kept = {kind for kind, seen in modes.items() if seen == {DeliveryMode.PERSISTENT}}
    passing = {kind for kind, seen in modes.items() if seen == {DeliveryMode.NOT_PERSISTENT}}
    assert kept - {"probe"} == PERSISTENT
    assert passing == TRANSIENT
