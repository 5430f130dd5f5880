"""Open an agent's way to the orchestrator: a message bus, or the queue API over HTTP in its place."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta

from agents.identity.credential import find_token
from agents.identity.registration import Identity
from agents.link.listening import declare_if_allowed
from agents.settings import AgentSettings
from common.broker.base import Broker, BrokerUnavailable, Queue
from common.broker.connect import open_broker
from common.broker.topology import SHARED_QUEUES, control_queue, work_queue
from common.config import SharedSettings
from common.errors import StartupRefused


class BrokerNotReady(StartupRefused):
    def __init__(self, failure: BrokerUnavailable) -> None:
        super().__init__(
            f"The message broker cannot be used: {failure} Check CHIFFON_BROKER_URL and that it is running."
        )


class ServerNotReady(StartupRefused):
    def __init__(self, failure: BrokerUnavailable) -> None:
        super().__init__(
            f"The orchestrator's queue API cannot be used: {failure} Check --server, or CHIFFON_AGENT_SERVER_URL, and "
            "that it is running. If it does not know this agent: chiffon agent enrol."
        )


class TwoWays(StartupRefused):
    def __init__(self) -> None:
        super().__init__(
            "Both a message bus and a server are given, and an agent uses one of them. Leave out either "
            "CHIFFON_BROKER_URL (--broker-url, broker_url) or CHIFFON_AGENT_SERVER_URL (--server, [agent] server_url)."
        )


def check_way(settings: AgentSettings, shared: SharedSettings) -> None:
    """Raise `TwoWays` when it is not clear which way is meant; a file that writes down the default chose nothing."""
    if settings.server_url is not None and shared.broker_url != SharedSettings.model_fields["broker_url"].default:
        raise TwoWays


@asynccontextmanager
async def open_way(
    settings: AgentSettings, shared: SharedSettings, identity: Identity, *, broker: Broker | None = None
) -> AsyncIterator[Broker]:
    """Open what the settings name, unless a broker is given; raises `StartupRefused` when it cannot be used."""
    async with AsyncExitStack() as stack:
        try:
            if broker is None:
                broker = await stack.enter_async_context(_opened(settings, shared, identity))
            await declare_if_allowed(broker, *SHARED_QUEUES, *_own_queues(identity))
        except BrokerUnavailable as failure:
            refusal = BrokerNotReady if settings.server_url is None else ServerNotReady
            raise refusal(failure) from failure
        yield broker


def _own_queues(identity: Identity) -> tuple[Queue, Queue]:
    return work_queue(identity.agent_type, identity.agent_id), control_queue(identity.agent_id)


@asynccontextmanager
async def _opened(settings: AgentSettings, shared: SharedSettings, identity: Identity) -> AsyncIterator[Broker]:
    check_way(settings, shared)
    if settings.server_url is None:
        name = f"agent {identity.agent_id}"
        async with open_broker(shared.broker_url, name=name, queue_type=shared.queue_type) as broker:
            yield broker
        return
    from agents.over_http.broker import open_over_http  # with an HTTP client, which others do without

    wait = timedelta(seconds=settings.claim_wait_seconds)
    way = open_over_http(
        settings.server_url,
        identity,
        lease_seconds=settings.lease_seconds,
        wait=wait,
        token=find_token(settings.state_dir),
    )
    async with way as broker:
        yield broker
