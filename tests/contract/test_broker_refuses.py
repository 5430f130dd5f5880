"""RabbitMQ refuses what is for one queue: its connection is replaced, and what comes later is stored."""

import asyncio
import json
from itertools import pairwise
from urllib.parse import unquote, urlsplit
from uuid import uuid4

import pytest

from common.broker.base import Address, BrokerUnavailable, Exchange, ExchangeType, Outgoing, Queue
from common.broker.rabbitmq import RabbitBroker, open_rabbitmq_broker
from common.broker.rabbitmq_publisher import FIRST_PATIENCE_SECONDS, LONGEST_PATIENCE_SECONDS, Refusals
from tests.eventually import eventually
from tests.services.rabbitmq_node import PrivateNode

FULL = {"max-length": 1, "overflow": "reject-publish"}
EXCHANGE = Exchange("refusing", ExchangeType.DIRECT)
NARROW, WIDE = Address(EXCHANGE, "narrow"), Address(EXCHANGE, "wide")


def message(address: Address) -> Outgoing:
    return Outgoing(address, b"{}", "probe", message_id=uuid4())


async def is_stored(broker: RabbitBroker, address: Address) -> bool:
    try:
        await broker.publish(message(address))
    except BrokerUnavailable:
        return False
    return True


async def test_a_connection_that_keeps_refusing_is_replaced_and_others_are_served_all_the_while(
    amqp_url: str, rabbitmq: PrivateNode
) -> None:
    vhost = unquote(urlsplit(amqp_url).path.removeprefix("/"))
    async with open_rabbitmq_broker(amqp_url, name="tests") as broker:
        await broker.declare(Queue("narrow", (NARROW,)), Queue("wide", (WIDE,)))
        policy = ("set_policy", "-p", vhost, "full", "^narrow$", json.dumps(FULL))
        await asyncio.to_thread(rabbitmq.ctl, *policy)
        await broker.publish(message(NARROW))
        with pytest.raises(BrokerUnavailable, match="refused to store 1 of 1"):
            await broker.publish(message(NARROW))
        before = broker._publishing.opened

        async def is_replaced() -> bool:
            assert not await is_stored(broker, NARROW)
            return broker._publishing.opened > before

        await eventually(is_replaced, timeout=20)
        assert await is_stored(broker, WIDE)

        await asyncio.to_thread(rabbitmq.ctl, "clear_policy", "-p", vhost, "full")
        await eventually(lambda: is_stored(broker, NARROW), timeout=20)


def test_an_address_that_refuses_for_long_costs_ever_fewer_connections() -> None:
    refusals = Refusals()

    moments = (tenths / 10 for tenths in range(6000))
    replaced = [now for now in moments if refusals.note([NARROW, WIDE], [NARROW], now=now) is not None]

    waits = [later - earlier for earlier, later in pairwise(replaced)]
    assert replaced[0] == FIRST_PATIENCE_SECONDS
    assert waits[:3] == [2, 4, 8]
    assert max(waits) == LONGEST_PATIENCE_SECONDS


def test_one_message_that_is_stored_ends_the_account_of_its_address() -> None:
    refusals = Refusals()
    refusals.note([NARROW], [NARROW], now=0)
    refusals.note([NARROW], [], now=0.5)

    assert refusals.note([NARROW], [NARROW], now=FIRST_PATIENCE_SECONDS + 0.1) is None
