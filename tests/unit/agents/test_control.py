"""Orders about files, and about how tasks ended, reach whoever follows them."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from agents.contact.control import ControlListener, Followers
from agents.link.unreadable import Undertaker
from common.broker.base import Outgoing
from common.broker.memory import MemoryBroker
from common.broker.topology import control_address, control_queue
from common.clock import SystemClock
from common.loop import Health
from common.orders import ArtifactsStored, Control, FilePiece, Order, Settle, StepsStored
from common.protocol import ORCHESTRATOR, ControlEnvelope, encode
from tests.eventually import eventually

AGENT, TASK = UUID(int=7), uuid4()
ORDERS: dict[str, Order] = {
    "file_piece": FilePiece(want_id=uuid4(), problem="gone"),
    "artifacts_stored": ArtifactsStored(task_id=TASK, attempt=1, names=["build.log"]),
    "steps_stored": StepsStored(task_id=TASK, attempt=1, through="rollback"),
    "settle": Settle(task_id=TASK, attempt=1),
}


@pytest.mark.parametrize("order", ORDERS.values(), ids=list(ORDERS))
async def test_an_order_reaches_its_follower_and_no_other(order: Order) -> None:
    broker, followed = MemoryBroker(), list[tuple[str, object]]()
    await broker.declare(control_queue(AGENT))
    nobody: Any = None  # these orders concern nothing else of an agent
    listener = ControlListener(
        broker,
        AGENT,
        slots=nobody,
        leases=nobody,
        attempts=nobody,
        handover=nobody,
        hearing=nobody,
        availability=nobody,
        followers=Followers(
            file_piece=lambda said: followed.append(("file_piece", said)),
            artifacts_stored=lambda said: followed.append(("artifacts_stored", said)),
            steps_stored=lambda said: followed.append(("steps_stored", said)),
            settle=lambda said: followed.append(("settle", said)),
        ),
        undertaker=Undertaker(broker, AGENT),
        trust=None,
        clock=SystemClock(),
        clocks=nobody,
        health=Health(),
        kill_grace=timedelta(seconds=1),
        started_at=datetime.now(UTC),
        boot_id=uuid4(),
    )
    listening = asyncio.create_task(listener.run())
    envelope = ControlEnvelope(from_agent=ORCHESTRATOR, to_agent=str(AGENT), payload=Control(order=order))

    await broker.publish(Outgoing(control_address(AGENT), encode(envelope), "control"))
    await eventually(lambda: followed)
    listening.cancel()
    await asyncio.gather(listening, return_exceptions=True)

    [action] = [name for name, one in ORDERS.items() if one is order]
    assert followed == [(action, order)]
