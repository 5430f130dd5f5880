"""Metrics of repairs, as they arrive at StatsD."""

import re
import socket
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path

import pytest

from common.broker.memory import MemoryBroker
from orchestrator.database.pool import Pool
from tests.eventually import eventually
from tests.integration.repair_requests.conftest import Shop, open_shop, serving, settings_of
from tests.integration.repair_requests.scripted import Host
from tests.services.ports import free_ports

LINE = re.compile(r"test\.runs\.(?P<name>[a-z_.]+):(?:1\|c|[0-9]+\.[0-9]{4}\|ms)")


class Receiver:
    """Where metrics are sent to, and what has come."""

    def __init__(self, opened: socket.socket) -> None:
        self._socket = opened
        self.port: int = opened.getsockname()[1]
        self.lines: list[str] = []

    def names(self) -> Counter[str]:
        """Return how often each metric has come."""
        try:
            while True:
                self.lines.append(self._socket.recv(2000).decode())
        except BlockingIOError:
            pass
        found = [LINE.fullmatch(line) for line in self.lines]
        assert all(found), self.lines
        return Counter(one["name"] for one in found if one is not None)

    async def has(self, *names: str) -> Counter[str]:
        """Return how often each metric has come, once these have."""

        def there() -> Counter[str]:
            found = self.names()
            assert set(names) <= found.keys(), found
            return found

        return await eventually(there)


@contextmanager
def open_receiver() -> Iterator[Receiver]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
        opened.bind(("127.0.0.1", 0))
        opened.setblocking(False)
        yield Receiver(opened)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with open_receiver() as opened:
        yield opened


@pytest.fixture
async def shop(ledger_url: str, pool: Pool, host: Host, tmp_path: Path, receiver: Receiver) -> AsyncIterator[Shop]:
    """An orchestrator and an agent, with metrics."""
    settings = settings_of(
        ledger_url, tmp_path, statsd_host="127.0.0.1", statsd_port=receiver.port, statsd_prefix="test.runs"
    )
    async with open_shop(settings, pool, host, tmp_path) as opened:
        yield opened


def steps(**ends: str) -> Counter[str]:
    """Return the metrics of steps that began and ended so."""
    found = Counter[str]()
    for name, end in ends.items():
        found.update([f"steps.{name}.started", f"steps.{name}.{end}", f"steps.{name}.duration"])
    return found


async def test_a_repair_that_succeeds(shop: Shop, receiver: Receiver) -> None:
    await shop.ended((await shop.create())["run_id"])

    found = await receiver.has("runs.duration.succeeded", "steps.verify.duration")

    once = dict.fromkeys(("analyze", "patch", "build", "restart", "verify"), "succeeded")
    assert found == steps(**once) + Counter(
        [
            "runs.queued",
            "runs.queued.service.web",
            "runs.status.running",
            "runs.status.succeeded",
            "runs.duration.succeeded",
        ]
    )


async def test_a_repair_that_is_rolled_back_and_tried_again(shop: Shop, host: Host, receiver: Receiver) -> None:
    host.fails["restart"] = "it does not start"
    run = await shop.ended((await shop.create("db"))["run_id"])
    found = await receiver.has("runs.duration.rolled_back", "steps.rollback.duration")
    done = dict.fromkeys(("analyze", "patch", "build"), "succeeded")
    assert found == steps(**done, restart="failed", rollback="succeeded") + Counter(
        [
            "runs.queued",
            "runs.queued.service.db",
            "runs.status.running",
            "runs.status.rolled_back",
            "runs.duration.rolled_back",
        ]
    )

    host.fails.clear()
    await shop.retry(run)
    await shop.ended(run["run_id"])

    again = await receiver.has("runs.duration.succeeded", "steps.verify.duration")
    assert (again["runs.queued"], again["runs.queued.service.db"], again["runs.status.running"]) == (2, 2, 2)
    assert (again["steps.restart.started"], again["steps.analyze.started"]) == (2, 1)


async def test_a_repair_that_fails(shop: Shop, host: Host, receiver: Receiver) -> None:
    host.fails["analyze"] = "docker does not answer"

    await shop.ended((await shop.create())["run_id"])

    found = await receiver.has("runs.duration.failed", "steps.analyze.failed")
    assert found["runs.status.failed"] == 1
    assert not [name for name in found if name.startswith("steps.rollback")]


async def test_a_repair_that_waits_is_queued_again_when_it_is_approved(shop: Shop, receiver: Receiver) -> None:
    run = await shop.create("guarded")
    found = await receiver.has("runs.status.awaiting_approval", "runs.queued")
    assert (found["runs.queued"], found["runs.queued.service.guarded"]) == (1, 1)

    await shop.approve(run)
    await shop.ended(run["run_id"])

    found = await receiver.has("runs.duration.succeeded")
    assert (found["runs.queued"], found["runs.queued.service.guarded"]) == (2, 2)


async def test_of_several_orchestrators_one_sends_each_metric(
    shop: Shop, receiver: Receiver, ledger_url: str, tmp_path: Path
) -> None:
    second = settings_of(
        ledger_url, tmp_path, statsd_host="127.0.0.1", statsd_port=receiver.port, statsd_prefix="test.runs"
    )
    async with serving(second, shop.broker):
        for _ in range(3):
            await shop.ended((await shop.create())["run_id"])
        await eventually(lambda: receiver.names()["runs.duration.succeeded"] == 3)

    found = receiver.names()
    assert set(found.values()) == {3}, found


async def test_another_orchestrator_sends_when_the_one_that_did_has_gone(
    ledger_url: str, pool: Pool, host: Host, tmp_path: Path, receiver: Receiver
) -> None:
    first, second = (
        settings_of(ledger_url, tmp_path, statsd_host="127.0.0.1", statsd_port=receiver.port, statsd_prefix="test.runs")
        for _ in range(2)
    )
    async with AsyncExitStack() as stack:
        async with serving(first, MemoryBroker()):
            shop = await stack.enter_async_context(open_shop(second, pool, host, tmp_path, with_agent=False))

        async def is_counted() -> bool:
            await shop.create()
            return receiver.names()["runs.queued"] > 0

        assert await eventually(is_counted, every=0.3)


async def test_without_a_host_nothing_is_sent_and_a_closed_port_costs_nothing(
    ledger_url: str, pool: Pool, host: Host, tmp_path: Path
) -> None:
    (nobody,) = free_ports(1)
    for more in ({}, {"statsd_host": "127.0.0.1", "statsd_port": nobody}):
        async with open_shop(settings_of(ledger_url, tmp_path, **more), pool, host, tmp_path) as shop:
            assert (await shop.ended((await shop.create())["run_id"]))["status"] == "succeeded"
        shop.people.clear()
