"""Whose word counts: what is said for an agent must come from that agent, and must fit what the ledger knows of it.

RabbitMQ checks that a message names the user who published it. Here it is checked that this user, the routing key, the
envelope and the payload all mean the same agent, so that a stolen credential speaks for its own agent only; and that
the pool and the labels which a message names are those of the agent.
"""

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Literal, NamedTuple, Protocol
from uuid import UUID

from pydantic import BaseModel

from common.broker.base import Delivery
from common.broker.rabbitmq_user import user_of, user_of_agent
from common.errors import StartupRefused
from common.messages import Probe, Renew, StatusUpdate, WantFile, WorkResult, WorkStatus
from common.protocol import ORCHESTRATOR, MessageEnvelope, WorkResults
from common.unreadable import Unreadable
from orchestrator.dead_letters.rules import FORGED, REPLAYED_BY
from orchestrator.registry.model import Known
from orchestrator.registry.rules import contradiction

log = logging.getLogger(__name__)

# Maximum number of agents that are remembered.
MOST_REMEMBERED = 20_000

Find = Callable[[UUID], Awaitable[Known | None]]


class Senders(Protocol):
    """Judges who sent a message."""

    async def objection(self, delivery: Delivery, envelope: MessageEnvelope, payload: BaseModel) -> str | None:
        """Return why the message does not count; None when it comes from whom it speaks for, and fits that agent."""
        ...


class Pools:
    """Compares the pool and the labels that a message names with those of its agent, which `find` looks up.

    What is known of an agent never changes, so it is remembered, and looked up again before a message is refused.
    """

    def __init__(self, find: Find) -> None:
        self._find = find
        self._known: dict[UUID, Known] = {}

    async def problem(self, payload: BaseModel, *, enrolled_only: bool) -> str | None:
        """Return what does not fit. `enrolled_only`: an agent without an identity may not ask for work."""
        match payload:
            case StatusUpdate(agent_id=agent_id, agent_type=pool, labels=labels):
                said = _Said(agent_id, pool, labels)
            case Unreadable(agent_id=agent_id, pool=pool):
                said = _Said(agent_id, pool, {})
            case _:
                return None
        known = self._known.get(said.agent_id)
        if known is not None and said.problem(known, enrolled_only=enrolled_only) is None:
            return None
        known = await self._find(said.agent_id)
        problem = said.problem(known, enrolled_only=enrolled_only)
        if known is not None and problem is None:
            if len(self._known) >= MOST_REMEMBERED:
                self._known.clear()
            self._known[said.agent_id] = known
        return problem


class _Said(NamedTuple):
    """What a message says of its agent; `pool` None: nothing."""

    agent_id: UUID
    pool: str | None
    labels: Mapping[str, Any]

    def problem(self, known: Known | None, *, enrolled_only: bool) -> str | None:
        if enrolled_only and (known is None or known.pinned is None):
            return f"agent {self.agent_id} has not enrolled"
        return contradiction(str(self.agent_id), known, agent_type=self.pool, labels=self.labels)


class Trusted:
    """Believes every sender: the bus itself lets nobody in who is not trusted. An agent has one pool all the same."""

    def __init__(self, pools: Pools) -> None:
        self._pools = pools

    async def objection(self, delivery: Delivery, envelope: MessageEnvelope, payload: BaseModel) -> str | None:
        return _forged(await self._pools.problem(payload, enrolled_only=False))


class Checked:
    """Believes RabbitMQ's users, of agents that have enrolled.

    `own_user` is the orchestrators' own, which probes and what is replayed come from.
    """

    def __init__(self, own_user: str, pools: Pools) -> None:
        self._own_user = own_user
        self._pools = pools

    async def objection(self, delivery: Delivery, envelope: MessageEnvelope, payload: BaseModel) -> str | None:
        problem = self._problem(delivery, envelope, payload)
        return _forged(problem or await self._pools.problem(payload, enrolled_only=True))

    def _problem(self, delivery: Delivery, envelope: MessageEnvelope, payload: BaseModel) -> str | None:
        speaker = (delivery.routing_key or "").split(".")[0]
        if delivery.sender is None:
            return "it does not name the user who sent it"
        if delivery.sender == self._own_user:
            return _problem_of_own(envelope, payload, speaker)
        return _problem_of_agents(delivery.sender, envelope, payload, speaker)


def senders_of(wanted: Literal["checked", "trusted"] | None, broker_url: str | None, find: Find) -> Senders:
    """Return how senders are judged: as wanted, or else by what the message bus knows. Raises `StartupRefused`.

    `find` returns what the ledger knows of an agent.
    """
    knows_users = broker_url is not None and broker_url.startswith(("amqp:", "amqps:"))
    identities = wanted or ("checked" if knows_users else "trusted")
    log.info("broker.identities", extra={"identities": identities})
    if identities == "trusted":
        return Trusted(Pools(find))
    if broker_url is None or not knows_users:
        raise StartupRefused(
            "CHIFFON_BROKER_IDENTITIES = checked needs RabbitMQ (amqp:// or amqps://): no other message bus has users."
        )
    own_user = user_of(broker_url)
    if own_user is None:
        raise StartupRefused(
            "CHIFFON_BROKER_URL names no user, so what this orchestrator publishes cannot be told from what others do. "
            "Name the user of the certificate: amqps://USER@HOST/VHOST?auth=external&…"
        )
    return Checked(own_user, Pools(find))


def _forged(problem: str | None) -> str | None:
    return None if problem is None else f"{FORGED}{problem}"


def _problem_of_own(envelope: MessageEnvelope, payload: BaseModel, speaker: str) -> str | None:
    if speaker == REPLAYED_BY:
        return None
    if not isinstance(payload, Probe):
        return "the orchestrator's own user says what only an agent may say"
    if speaker != str(payload.orchestrator_id) or envelope.from_agent != ORCHESTRATOR:
        return f"a probe of orchestrator {payload.orchestrator_id} was sent by {envelope.from_agent!r} as {speaker!r}"
    return None


def _problem_of_agents(sender: str, envelope: MessageEnvelope, payload: BaseModel, speaker: str) -> str | None:
    match payload:
        case Renew() | StatusUpdate() | Unreadable() | WantFile() | WorkResult() | WorkStatus():
            agent = str(payload.agent_id)
        case WorkResults():
            agent = str(payload.agent_id)
            said_for = {str(result.payload.agent_id) for result in payload.results}
            said_by = {result.from_agent for result in payload.results}
            if strangers := (said_for | said_by) - {agent}:
                return f"among the results of agent {agent!r} is one of {min(strangers)!r}"
        case _:
            return f"the user {sender!r} may not say {type(payload).__name__}"
    if sender != user_of_agent(agent):
        return f"the user {sender!r} speaks for agent {agent!r}"
    if speaker != agent:
        return f"the routing key is that of {speaker!r} and the message is of agent {agent!r}"
    if envelope.from_agent != agent:
        return f"from_agent is {envelope.from_agent!r} and the message is of agent {agent!r}"
    return None
