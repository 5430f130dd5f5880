"""RabbitMQ that is restarted, loses a virtual host, changes a password, or runs out of memory."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import unquote, urlsplit
from uuid import uuid4

import pytest

from tests.eventually import eventually
from tests.integration.failover.load import Load
from tests.integration.system.deployment import open_system
from tests.services.rabbitmq_node import Node

pytestmark = pytest.mark.xdist_group("own_rabbitmq")

PASSWORD = "only-for-failover"
# In Erlang: the functions for users, everything, and the name of who does it.
USERS, ALL, BY = "rabbit_auth_backend_internal", '<<".*">>', '<<"tests">>'


class Place:
    """A virtual host of the node with a user of its own, and what is done to them."""

    def __init__(self, node: Node, vhost: str) -> None:
        self.node = node
        self.vhost = vhost
        self.user = f"user-{vhost}"

    async def ctl(self, *arguments: str) -> None:
        await asyncio.to_thread(self.node.ctl, *arguments)

    async def have(self, *expressions: str) -> None:
        """Do what `ctl` does with the node's own functions, which takes a fraction of the processor time."""
        await asyncio.to_thread(self.node.evaluate, f"{', '.join(expressions)}.")

    async def admit(self) -> None:
        await self.have(f'{USERS}:set_permissions(<<"{self.user}">>, <<"{self.vhost}">>, {ALL}, {ALL}, {ALL}, {BY})')

    async def set_password(self, password: str) -> None:
        """Change the password and end what was opened with the old one."""
        await self.have(
            f'{USERS}:change_password(<<"{self.user}">>, <<"{password}">>, {BY})',
            f'rabbit_networking:close_all_user_connections(<<"{self.user}">>, <<"its password has changed">>)',
        )


@pytest.fixture
async def place(own_rabbitmq: Node) -> Place:
    place = Place(own_rabbitmq, unquote(urlsplit(own_rabbitmq.new_vhost_url()).path[1:]))
    await place.have(f'{USERS}:add_user(<<"{place.user}">>, <<"{PASSWORD}">>, {BY})')
    await place.admit()
    return place


@pytest.fixture
async def load(place: Place, ledger_url: str, tmp_path: Path) -> AsyncIterator[Load]:
    parts = urlsplit(place.node.url)
    url = f"amqp://{place.user}:{PASSWORD}@{parts.hostname}:{parts.port}/{place.vhost}"
    async with open_system(url, ledger_url, tmp_path) as system:
        await system.start_agent()
        yield Load(system)


async def says_why(load: Load, wanted: str) -> None:
    """Wait until `/ready` and `why` both name the failure, without a secret."""
    client = load.system.client

    async def said() -> bool:
        # A new one each time: the fault may come a little later than it was asked for, and then the first is done.
        task = await client.dispatch("echo", {"message": "waits"}, task_id=uuid4())
        load.accepted.append(task.task_id)
        ready, why = await load.readiness(), (await client.why(task.task_id)).model_dump_json()
        assert PASSWORD not in ready + why
        health = await load.health()
        return wanted in ready and wanted in why and (health["broker"], health["database"]) == (False, True)

    await eventually(said, timeout=30, every=0.5)


async def test_work_goes_on_after_a_restart_of_rabbitmq(load: Load, place: Place) -> None:
    async with load.running():
        await load.accepts(5)
        await place.ctl("stop_app")
        await says_why(load, "Connect call failed")
        await place.ctl("start_app")
        await load.recovered("a restart of RabbitMQ")
    await load.check()
    assert not load.refused


async def test_what_was_lost_with_a_virtual_host_is_granted_again(load: Load, place: Place) -> None:
    async with load.running():
        await load.accepts(5)
        await place.have(f'rabbit_vhost:delete(<<"{place.vhost}">>, {BY})')
        await says_why(load, f"vhost {place.vhost} not found")
        await place.have(f'rabbit_vhost:add(<<"{place.vhost}">>, {BY})')
        await place.admit()
        await load.recovered("a virtual host that was deleted and made again")
    await load.check()
    assert not load.refused


async def test_work_goes_on_when_a_password_is_right_again(load: Load, place: Place) -> None:
    async with load.running():
        await load.accepts(5)
        await place.set_password("another")
        await says_why(load, "ACCESS_REFUSED - Login was refused")
        await place.set_password(PASSWORD)
        await load.recovered("a changed password")
    await load.check()
    assert not load.refused


@pytest.mark.parametrize(
    ("alarm", "limit", "unlimited"),
    [
        ("memory", ("set_vm_memory_high_watermark", "absolute", "1"), ("set_vm_memory_high_watermark", "0.9")),
        ("disk", ("set_disk_free_limit", "1000000GB"), ("set_disk_free_limit", "1MB")),
    ],
)
async def test_work_goes_on_after_an_alarm(
    load: Load, place: Place, alarm: str, limit: tuple[str, ...], unlimited: tuple[str, ...]
) -> None:
    async with load.running():
        await load.accepts(5)
        await place.ctl(*limit)
        try:
            await says_why(load, f"blocked: {alarm} alarm")
        finally:
            await place.ctl(*unlimited)
        await load.recovered(f"a {alarm} alarm")
    await load.check()
    assert not load.refused
