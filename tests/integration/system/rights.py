"""A Chiffon whose agents have users of their own at RabbitMQ, and what a thief of one credential can try."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit
from uuid import UUID, uuid4

import aio_pika
from aio_pika.abc import AbstractChannel
from aiormq.exceptions import AMQPError
from pydantic import SecretStr

from chiffon.rabbitmq import plan
from chiffon.rabbitmq.credentials import broker_url, new_password
from chiffon.rabbitmq.management import open_management
from chiffon.rabbitmq.settings import RabbitmqSettings
from chiffon.rabbitmq.steps import Step
from common.broker.rabbitmq_user import user_of_agent
from common.broker.topology import control_queue, work_queue
from common.config import SharedSettings
from tests.integration.system.deployment import System, open_system
from tests.services.rabbitmq_node import Node

ROUTES = {"echo": "infra", "shell_script": "desktop"}


@dataclass
class Account:
    """An agent as RabbitMQ knows it: its id, its pool, and the URL that logs it in."""

    agent_id: UUID
    agent_type: str
    url: str

    @property
    def user(self) -> str:
        return user_of_agent(self.agent_id)

    @property
    def work(self) -> str:
        """The name of its queue of work."""
        return work_queue(self.agent_type, self.agent_id).name

    @property
    def control(self) -> str:
        """The name of its queue of orders."""
        return control_queue(self.agent_id).name


@dataclass
class Rabbit:
    """A virtual host of its own on a node with the management API."""

    node: Node
    settings: RabbitmqSettings
    password: str = field(default_factory=new_password)

    @property
    def orchestrator_url(self) -> str:
        return self.url_of(self.settings.user, self.password)

    def url_of(self, user: str, password: str) -> str:
        return broker_url(self.settings.amqp_url, user=user, password=password, vhost=self.settings.vhost)

    async def apply(self, steps: list[Step]) -> list[str]:
        async with open_management(self.settings) as management:
            return await management.apply(steps)

    async def setup(self, *, new_password: bool = False) -> list[str]:
        return await self.apply(
            plan.setup(
                vhost=self.settings.vhost,
                user=self.settings.user,
                password=self.password,
                new_password=new_password,
                admin=self.settings.admin_user,
            )
        )

    async def remove_agent(self, account: Account) -> list[str]:
        """Take an agent's user away, and its queues."""
        pools = sorted(set(ROUTES.values()))
        return await self.apply(plan.remove_agent(account.agent_id, vhost=self.settings.vhost, agent_types=pools))

    async def add_agent(self, agent_type: str, agent_id: UUID) -> Account:
        """Make the user of an agent that was invited to enrol."""
        password = new_password()
        await self.apply(plan.add_agent(agent_id, agent_type, vhost=self.settings.vhost, password=password))
        return Account(agent_id, agent_type, self.url_of(user_of_agent(agent_id), password))


def make_rabbit(node: Node) -> Rabbit:
    """Return a virtual host that nobody has made yet, and an orchestrator's user of its own."""
    parts, name = urlsplit(node.url), uuid4().hex[:8]
    assert node.management_url is not None
    return Rabbit(
        node,
        RabbitmqSettings(
            management_url=node.management_url,
            admin_password=SecretStr("guest"),
            vhost=f"rights-{name}",
            user=f"orchestrator-{name}",
            amqp_url=urlunsplit((parts.scheme, f"{parts.hostname}:{parts.port}", "", "", "")),
        ),
    )


@dataclass
class Guarded:
    """A Chiffon where every sender is checked."""

    rabbit: Rabbit
    system: System

    async def add_agent(self, agent_type: str, **pinned: Any) -> Account:
        """Invite an agent to enrol, and make its user; what it gets by enrolling it needs over HTTP only."""
        invited = await self.system.client.invite_agent(f"agent-{uuid4().hex[:8]}", agent_type, labels=pinned)
        return await self.rabbit.add_agent(agent_type, invited.agent_id)

    async def start_agent(self, account: Account, **settings: Any) -> asyncio.Event:
        """Start an agent that logs in as its own user."""
        folder = self.system.folder / str(account.agent_id)
        folder.mkdir()
        identity = {"agent_id": str(account.agent_id), "agent_type": account.agent_type}
        (folder / "identity.json").write_text(json.dumps(identity))
        return await self.system.start_agent(
            shared=SharedSettings(broker_url=account.url), type=account.agent_type, state_dir=folder, **settings
        )


@asynccontextmanager
async def open_guarded(node: Node, database_url: str, folder: Path, **more: Any) -> AsyncIterator[Guarded]:
    rabbit = make_rabbit(node)
    await rabbit.setup()
    settings = {"routes": ROUTES, "broker_identities": "checked", "lease_seconds": 5, **more}
    opened = open_system(rabbit.orchestrator_url, database_url, folder, **settings)
    async with opened as system:
        yield Guarded(rabbit, system)


@asynccontextmanager
async def thief(account: Account) -> AsyncIterator[aio_pika.abc.AbstractConnection]:
    """Log in with a stolen credential, with nothing between the thief and RabbitMQ."""
    connection = await aio_pika.connect(account.url)
    try:
        yield connection
    finally:
        await connection.close()


def closing_of(connection: aio_pika.abc.AbstractConnection) -> asyncio.Event:
    """Return an event that is set when RabbitMQ closes a connection."""
    closed = asyncio.Event()
    connection.close_callbacks.add(lambda *_: closed.set())
    return closed


async def refusal(connection: aio_pika.abc.AbstractConnection, attempt: Any) -> str:
    """Return what RabbitMQ says to an attempt on a channel of its own; raises AssertionError when it lets it happen."""
    channel: AbstractChannel = connection.channel(on_return_raises=True)
    await channel.initialize()
    try:
        async with asyncio.timeout(10):
            await attempt(channel)
    except (AMQPError, RuntimeError) as refused:
        return str(refused)
    raise AssertionError("RabbitMQ let it happen")
