"""Whose word counts: what is said for an agent must come from that agent.

RabbitMQ checks that a message names the user who published it. Here it is checked that this user, the routing key, the
envelope and the payload all mean the same agent, so that a stolen credential speaks for its own agent only.
"""

import logging
from typing import Literal, Protocol

from pydantic import BaseModel

from common.broker.base import Delivery
from common.broker.rabbitmq_user import user_of, user_of_agent
from common.errors import StartupRefused
from common.messages import Claim, Probe, ProtocolError, Renew, StatusUpdate, WorkResult, WorkStatus
from common.protocol import ORCHESTRATOR, MessageEnvelope, WorkResults
from common.unreadable import Unreadable
from orchestrator.dead_letters.rules import FORGED, REPLAYED_BY

log = logging.getLogger(__name__)


class Senders(Protocol):
    """Judges who sent a message."""

    def objection(self, delivery: Delivery, envelope: MessageEnvelope, payload: BaseModel) -> str | None:
        """Say why the message does not come from whom it speaks for; None when it does."""
        ...


class Trusted:
    """Believes everybody: the bus itself lets nobody in who is not trusted."""

    def objection(self, delivery: Delivery, envelope: MessageEnvelope, payload: BaseModel) -> str | None:
        return None


class Checked:
    """Believes RabbitMQ's users. `own_user` is the orchestrators' own, which probes and what is replayed come from."""

    def __init__(self, own_user: str) -> None:
        self._own_user = own_user

    def objection(self, delivery: Delivery, envelope: MessageEnvelope, payload: BaseModel) -> str | None:
        problem = self._problem(delivery, envelope, payload)
        return None if problem is None else f"{FORGED}{problem}"

    def _problem(self, delivery: Delivery, envelope: MessageEnvelope, payload: BaseModel) -> str | None:
        speaker = (delivery.routing_key or "").split(".")[0]
        if delivery.sender is None:
            return "it does not name the user who sent it"
        if delivery.sender == self._own_user:
            return _problem_of_own(envelope, payload, speaker)
        return _problem_of_agents(delivery.sender, envelope, payload, speaker)


def senders_of(wanted: Literal["checked", "trusted"] | None, broker_url: str | None) -> Senders:
    """Return how senders are judged: as wanted, or else by what the message bus knows. Raises `StartupRefused`."""
    knows_users = broker_url is not None and broker_url.startswith(("amqp:", "amqps:"))
    identities = wanted or ("checked" if knows_users else "trusted")
    log.info("broker.identities", extra={"identities": identities})
    if identities == "trusted":
        return Trusted()
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
    return Checked(own_user)


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
        case Claim() | Renew() | StatusUpdate() | Unreadable() | WorkResult() | WorkStatus():
            agent = str(payload.agent_id)
        case WorkResults():
            agent = str(payload.agent_id)
            said_for = {str(result.payload.agent_id) for result in payload.results}
            said_by = {result.from_agent for result in payload.results}
            if strangers := (said_for | said_by) - {agent}:
                return f"among the results of agent {agent!r} is one of {min(strangers)!r}"
        case ProtocolError():
            agent = envelope.from_agent
        case _:
            return f"the user {sender!r} may not say {type(payload).__name__}"
    if sender != user_of_agent(agent):
        return f"the user {sender!r} speaks for agent {agent!r}"
    if speaker != agent:
        return f"the routing key is that of {speaker!r} and the message is of agent {agent!r}"
    if envelope.from_agent != agent:
        return f"from_agent is {envelope.from_agent!r} and the message is of agent {agent!r}"
    return None
