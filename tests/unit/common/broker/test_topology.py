"""Which routing keys a binding takes (AMQP 0-9-1, 3.1.3)."""

from uuid import UUID

import pytest

from common.broker.base import ExchangeType
from common.broker.topology import (
    REPLY_QUEUES,
    RESULTS,
    control_address,
    control_queue,
    matches,
    reply_address,
    work_address,
    work_queue,
)

AGENT = UUID("00000000-0000-4000-8000-000000000001")


@pytest.mark.parametrize(
    ("pattern", "key"),
    [
        ("a.b", "a.b"),
        ("*", "a"),
        ("*.results", "agent.results"),
        ("a.*.c", "a.b.c"),
        ("#", ""),
        ("#", "a.b.c"),
        ("a.#", "a"),
        ("a.#", "a.b.c"),
        ("#.c", "c"),
        ("#.c", "a.b.c"),
        ("a.#.c", "a.c"),
        ("a.#.c", "a.b.b.c"),
        ("#.b.#", "a.b.c"),
        ("*.#", "a"),
    ],
)
def test_a_topic_pattern_takes_these_keys(pattern: str, key: str) -> None:
    assert matches(ExchangeType.TOPIC, pattern, key)


@pytest.mark.parametrize(
    ("pattern", "key"),
    [
        ("a.b", "a"),
        ("a.b", "a.c"),
        ("*", "a.b"),
        ("*.results", "results"),
        ("*.results", "a.b.results"),
        ("a.#", "b"),
        ("a.#.c", "a.b"),
        ("a*", "ab"),
    ],
)
def test_a_topic_pattern_refuses_these_keys(pattern: str, key: str) -> None:
    assert not matches(ExchangeType.TOPIC, pattern, key)


def test_a_direct_exchange_compares_and_a_fanout_exchange_does_not() -> None:
    assert matches(ExchangeType.DIRECT, "work.infra", "work.infra")
    assert not matches(ExchangeType.DIRECT, "work.*", "work.infra")
    assert matches(ExchangeType.FANOUT, "", "anything")


def test_every_address_reaches_its_queue_and_no_other() -> None:
    (work,), (control,) = work_queue("infra", AGENT).bindings, control_queue(AGENT).bindings
    assert work == work_address("infra", AGENT)
    assert work not in (work_address("desktop", AGENT), work_address("infra", UUID(int=2)))
    assert control == control_address(AGENT)

    for queue in REPLY_QUEUES:
        exchange, key = reply_address(AGENT, queue.name)
        takers = [other.name for other in REPLY_QUEUES for b in other.bindings if matches(exchange.type, b[1], key)]
        assert takers == [queue.name]
    assert reply_address(AGENT, RESULTS).routing_key == f"{AGENT}.results"
