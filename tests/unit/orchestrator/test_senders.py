"""A message counts only when the user who sent it, its routing key, its envelope and its payload mean one agent."""

from uuid import UUID, uuid4

import pytest

from common.broker.base import Delivery
from common.broker.rabbitmq_user import user_of, user_of_agent
from common.errors import StartupRefused
from common.messages import Probe, ProtocolError, Ticket
from common.protocol import (
    ORCHESTRATOR,
    ClaimEnvelope,
    Envelope,
    ErrorEnvelope,
    ProbeEnvelope,
    RenewEnvelope,
    StatusUpdateEnvelope,
    TicketEnvelope,
    UnreadableEnvelope,
    WorkResultEnvelope,
    WorkResults,
    WorkResultsEnvelope,
    WorkStatusEnvelope,
)
from orchestrator.dead_letters.rules import FORGED, REPLAYED_BY
from orchestrator.loops.senders import Checked, Trusted, senders_of
from tests.factories import (
    make_claim,
    make_heartbeat,
    make_renewal,
    make_result,
    make_results,
    make_status,
    make_unreadable,
)

OWN = "chiffon"
AGENT, OTHER = UUID("aaaaaaaa-0000-4000-8000-000000000001"), UUID("bbbbbbbb-0000-4000-8000-000000000002")
PROBING = uuid4()


def said_by(agent_id: UUID, *, from_agent: UUID | None = None) -> list[Envelope]:
    """Return one of everything that an agent says."""
    to: dict[str, str] = {"from_agent": str(from_agent or agent_id), "to_agent": ORCHESTRATOR}
    return [
        ClaimEnvelope(payload=make_claim(uuid4(), agent_id=agent_id), **to),
        RenewEnvelope(payload=make_renewal(uuid4(), agent_id), **to),
        StatusUpdateEnvelope(payload=make_heartbeat(agent_id), **to),
        WorkResultEnvelope(payload=make_result(uuid4(), agent_id), **to),
        WorkResultsEnvelope(payload=make_results(agent_id), **to),
        WorkStatusEnvelope(payload=make_status(uuid4(), agent_id), **to),
        UnreadableEnvelope(payload=make_unreadable(agent_id), **to),
    ]


def objection(envelope: Envelope, *, sender: str | None, key: str) -> str | None:
    delivery = Delivery(
        b"", "1", 3, redelivered=False, headers={}, tag=None, sender=sender, routing_key=f"{key}.results"
    )
    return Checked(OWN).objection(delivery, envelope, envelope.payload)


def kind(envelope: Envelope) -> str:
    return envelope.type


@pytest.mark.parametrize("envelope", said_by(AGENT), ids=kind)
def test_an_agent_speaks_for_itself(envelope: Envelope) -> None:
    assert objection(envelope, sender=user_of_agent(AGENT), key=str(AGENT)) is None


@pytest.mark.parametrize("envelope", said_by(AGENT), ids=kind)
@pytest.mark.parametrize("sender", [user_of_agent(OTHER), "guest", str(AGENT), OWN, None])
def test_nobody_else_speaks_for_it(envelope: Envelope, sender: str | None) -> None:
    reason = objection(envelope, sender=sender, key=str(AGENT))

    assert reason is not None
    assert reason.startswith(FORGED)


@pytest.mark.parametrize("envelope", said_by(AGENT), ids=kind)
@pytest.mark.parametrize("key", [str(OTHER), str(AGENT).upper(), REPLAYED_BY, ""])
def test_it_speaks_under_its_own_routing_key_only(envelope: Envelope, key: str) -> None:
    assert objection(envelope, sender=user_of_agent(AGENT), key=key) is not None


@pytest.mark.parametrize("envelope", said_by(AGENT, from_agent=OTHER), ids=kind)
def test_it_does_not_sign_as_another(envelope: Envelope) -> None:
    assert objection(envelope, sender=user_of_agent(AGENT), key=str(AGENT)) is not None


@pytest.mark.parametrize("changed", ["payload", "envelope"])
def test_every_result_of_those_that_travel_together_is_of_the_agent_that_sends_them(changed: str) -> None:
    [own, other] = make_results(AGENT).results
    if changed == "payload":
        other = other.model_copy(update={"payload": make_result(uuid4(), OTHER)})
    else:
        other = other.model_copy(update={"from_agent": str(OTHER)})
    envelope = WorkResultsEnvelope(
        from_agent=str(AGENT), to_agent=ORCHESTRATOR, payload=WorkResults(agent_id=AGENT, results=[own, other])
    )

    reason = objection(envelope, sender=user_of_agent(AGENT), key=str(AGENT))

    assert reason is not None
    assert reason.startswith(FORGED)
    assert str(OTHER) in reason


def test_an_error_belongs_to_the_agent_that_signs_it() -> None:
    envelope = ErrorEnvelope(
        from_agent=str(AGENT), to_agent=ORCHESTRATOR, payload=ProtocolError(error_code=5006, error_message="no")
    )

    assert objection(envelope, sender=user_of_agent(AGENT), key=str(AGENT)) is None
    assert objection(envelope, sender=user_of_agent(OTHER), key=str(OTHER)) is not None


def test_only_orchestrators_send_probes() -> None:
    envelope = ProbeEnvelope(from_agent=ORCHESTRATOR, to_agent=ORCHESTRATOR, payload=Probe(orchestrator_id=PROBING))

    assert objection(envelope, sender=OWN, key=str(PROBING)) is None
    assert objection(envelope, sender=OWN, key=str(uuid4())) is not None
    assert objection(envelope, sender=user_of_agent(AGENT), key=str(AGENT)) is not None
    assert objection(envelope, sender=None, key=str(PROBING)) is not None


def test_an_agent_hands_out_no_tickets() -> None:
    envelope = TicketEnvelope(
        from_agent=str(AGENT), to_agent="infra", payload=Ticket(task_id=uuid4(), work_type="echo", fence=0)
    )

    assert objection(envelope, sender=user_of_agent(AGENT), key=str(AGENT)) is not None


def test_what_a_person_replays_comes_from_the_orchestrators_user() -> None:
    [envelope, *_] = said_by(AGENT)

    assert objection(envelope, sender=OWN, key=REPLAYED_BY) is None


def test_a_bus_without_users_is_believed() -> None:
    [envelope, *_] = said_by(AGENT)
    delivery = Delivery(b"", "1", 3, redelivered=False, headers={}, tag=None)

    assert Trusted().objection(delivery, envelope, envelope.payload) is None


@pytest.mark.parametrize(
    ("url", "user"),
    [
        ("amqp://me:secret@host/", "me"),
        ("amqp://a%40b:secret@host/", "a@b"),
        ("amqp://host/", "guest"),
        ("amqps://me@host/?auth=external", "me"),
        ("amqps://host/?auth=EXTERNAL", None),
    ],
)
def test_the_user_is_that_of_the_url(url: str, user: str | None) -> None:
    assert user_of(url) == user


@pytest.mark.parametrize("url", ["amqp://me@host/", "amqps://me@host/"])
def test_senders_are_checked_over_rabbitmq_unless_told_otherwise(url: str) -> None:
    assert isinstance(senders_of(None, url), Checked)
    assert isinstance(senders_of("checked", url), Checked)
    assert isinstance(senders_of("trusted", url), Trusted)


@pytest.mark.parametrize("url", ["postgresql://host/ledger", "file:///bus", "memory://", None])
def test_a_bus_without_users_is_trusted_and_nothing_else(url: str | None) -> None:
    assert isinstance(senders_of(None, url), Trusted)
    with pytest.raises(StartupRefused, match="needs RabbitMQ"):
        senders_of("checked", url)


def test_who_logs_in_with_a_certificate_only_cannot_be_checked() -> None:
    with pytest.raises(StartupRefused, match="names no user"):
        senders_of(None, "amqps://host/?auth=external")
