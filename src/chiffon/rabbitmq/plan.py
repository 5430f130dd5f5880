"""What has to be so in RabbitMQ, as a list of steps: pure, the same for a program and for a person who does it by hand.

An agent may write replies under its own name, and read the two queues that are its own. It may declare, bind and delete
nothing, and write to no queue by name.
"""

from collections.abc import Iterable, Sequence
from types import MappingProxyType
from uuid import UUID

from chiffon.rabbitmq.steps import (
    Binding,
    ExchangeStep,
    NoConnections,
    NoQueue,
    NoUser,
    Policy,
    QueueStep,
    Rights,
    Step,
    TopicRights,
    User,
    UserLimits,
    VirtualHost,
)
from common.broker import topology
from common.broker.base import Queue, QueueType
from common.broker.rabbitmq_user import user_of_agent

NOTHING = "^$"
EVERYTHING = ".*"
CHIFFONS = r"^(chiffon\.(work|control|replies|dead)|replies\..+|work\..+|control\..+|dead)$"

# An agent has a connection to publish and one to consume, and for a while the ones that were lost; on each at most four
# channels: one for each of its queues, or one to publish, and a few to declare or ask.
AGENT_CONNECTIONS = 8
AGENT_CHANNELS = 4 * AGENT_CONNECTIONS

GIB = 1024**3

POLICIES: tuple[tuple[str, str, dict[str, int | str]], ...] = (
    # What an agent that runs wild can pile up. Refused replies wait on the agents' disks.
    (
        "chiffon-replies",
        r"^replies\.(results|progress)$",
        {"max-length-bytes": 2 * GIB, "overflow": "reject-publish"},
    ),
    # The newest heartbeat says more than all before it.
    ("chiffon-heartbeats", r"^replies\.heartbeats$", {"max-length": 100_000, "overflow": "drop-head"}),
    # An agent that is away asks again when it is back.
    ("chiffon-control", r"^control\.", {"max-length": 10_000, "overflow": "drop-head"}),
)


def setup(
    *,
    vhost: str,
    user: str,
    password: str,
    new_password: bool,
    admin: str,
    queue_type: QueueType = QueueType.CLASSIC,
) -> list[Step]:
    """Return what must be so before an orchestrator starts. `admin` is who makes it so."""
    return [
        VirtualHost(vhost),
        Rights(vhost, admin, EVERYTHING, EVERYTHING, EVERYTHING),
        *(ExchangeStep(vhost, exchange) for exchange in topology.EXCHANGES),
        *(step for queue in topology.SHARED_QUEUES for step in _queue(vhost, queue, queue_type)),
        *(Policy(vhost, name, pattern, MappingProxyType(limits)) for name, pattern, limits in POLICIES),
        User(user, password, is_replaced=new_password),
        Rights(vhost, user, CHIFFONS, CHIFFONS, CHIFFONS),
        *([NoConnections(user)] if new_password else []),
    ]


def add_agent(
    agent_id: UUID, agent_type: str, *, vhost: str, password: str, queue_type: QueueType = QueueType.CLASSIC
) -> list[Step]:
    """Return what must be so for one agent; its user cannot log in before it has its rights."""
    user = user_of_agent(agent_id)
    queues = (topology.work_queue(agent_type, agent_id), topology.control_queue(agent_id))
    kinds = "|".join(queue.name.removeprefix("replies.") for queue in topology.REPLY_QUEUES)
    return [
        *(step for queue in queues for step in _queue(vhost, queue, queue_type)),
        User(user, password),
        UserLimits(user, AGENT_CONNECTIONS, AGENT_CHANNELS),
        TopicRights(vhost, user, topology.REPLIES.name, write=rf"^{agent_id}\.({kinds})$", read=NOTHING),
        Rights(
            vhost,
            user,
            configure=NOTHING,
            write=_exactly(topology.REPLIES.name),
            read=_exactly(*(queue.name for queue in queues)),
        ),
    ]


def rotate_agent(agent_id: UUID, *, password: str) -> list[Step]:
    """Return what gives an agent a new password and ends what was opened with the old one."""
    user = user_of_agent(agent_id)
    return [User(user, password, is_replaced=True), NoConnections(user)]


def remove_agent(agent_id: UUID, *, vhost: str, agent_types: Iterable[str]) -> list[Step]:
    """Return what takes an agent of one of these pools away from RabbitMQ; what waits in its queues goes with them."""
    return [
        NoUser(user_of_agent(agent_id)),
        NoQueue(vhost, topology.control_queue(agent_id).name),
        *(NoQueue(vhost, topology.work_queue(agent_type, agent_id).name) for agent_type in agent_types),
    ]


def _queue(vhost: str, queue: Queue, queue_type: QueueType) -> Sequence[Step]:
    return [QueueStep(vhost, queue, queue_type), *(Binding(vhost, queue.name, address) for address in queue.bindings)]


def _exactly(*names: str) -> str:
    escaped = [name.replace(".", r"\.") for name in names]
    return f"^({'|'.join(escaped)})$" if len(escaped) > 1 else f"^{escaped[0]}$"
