"""A message counts only when the user who sent it, its routing key, its envelope and its payload mean one agent."""

import asyncio
from typing import Any
from uuid import UUID, uuid4

import pytest

from common.broker.base import Delivery
from common.broker.rabbitmq_user import user_of, user_of_agent
from common.errors import StartupRefused
from common.messages import Grant, Probe
from common.protocol import (
    ORCHESTRATOR,
    Envelope,
    ProbeEnvelope,
    RenewEnvelope,
    StatusUpdateEnvelope,
    UnreadableEnvelope,
    WantFileEnvelope,
    WorkRequestEnvelope,
    WorkResultEnvelope,
    WorkResults,
    WorkResultsEnvelope,
    WorkStatusEnvelope,
)
from orchestrator.dead_letters.rules import FORGED, REPLAYED_BY
from orchestrator.loops.senders import Checked, Pools, Senders, Trusted, senders_of
from orchestrator.registry.model import Known
from tests.factories import (
    make_grant,
    make_heartbeat,
    make_renewal,
    make_result,
    make_results,
    make_status,
    make_unreadable,
    make_want,
    unknown,
)

OWN = "chiffon"
AGENT, OTHER = UUID("aaaaaaaa-0000-4000-8000-000000000001"), UUID("bbbbbbbb-0000-4000-8000-000000000002")
PROBING = uuid4()


def said_by(agent_id: UUID, *, from_agent: UUID | None = None) -> list[Envelope]:
    """Return one of everything that an agent says."""
    to: dict[str, str] = {"from_agent": str(from_agent or agent_id), "to_agent": ORCHESTRATOR}
    return [
        RenewEnvelope(payload=make_renewal(uuid4(), agent_id), **to),
        StatusUpdateEnvelope(payload=make_heartbeat(agent_id), **to),
        WorkResultEnvelope(payload=make_result(uuid4(), agent_id), **to),
        WorkResultsEnvelope(payload=make_results(agent_id), **to),
        WorkStatusEnvelope(payload=make_status(uuid4(), agent_id), **to),
        WantFileEnvelope(payload=make_want(agent_id), **to),
        UnreadableEnvelope(payload=make_unreadable(agent_id), **to),
    ]


def objection(envelope: Envelope, *, sender: str | None, key: str) -> str | None:
    delivery = Delivery(
        b"", "1", 3, redelivered=False, headers={}, tag=None, sender=sender, routing_key=f"{key}.results"
    )
    return asyncio.run(Checked(OWN, Pools(enrolled)).objection(delivery, envelope, envelope.payload))


async def enrolled(_: UUID) -> Known:
    """Find an agent that enrolled for the pool infra."""
    return Known("infra", {"zone": "eu"})


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


@pytest.mark.parametrize(
    "payload",
    [
        make_heartbeat(AGENT, agent_type="desktop"),
        make_heartbeat(AGENT, labels={"zone": "us"}),
        make_unreadable(AGENT, queue=f"work.desktop.{AGENT}"),
    ],
    ids=["heartbeat", "label", "unreadable"],
)
def test_what_names_another_pool_or_label_than_that_of_the_identity_is_forged(payload: Any) -> None:
    for senders in (Checked(OWN, Pools(enrolled)), Trusted(Pools(enrolled))):
        assert asyncio.run(judged(senders, payload)) is not None


@pytest.mark.parametrize(
    "payload", [make_heartbeat(AGENT), make_unreadable(AGENT, queue=f"work.infra.{AGENT}")], ids=["beat", "unreadable"]
)
def test_an_agent_without_an_identity_counts_only_where_the_bus_is_trusted(payload: Any) -> None:
    async def registered(_: UUID) -> Known:
        return Known("infra", None)

    for find in (registered, unknown):
        assert asyncio.run(judged(Trusted(Pools(find)), payload)) is None
        reason = asyncio.run(judged(Checked(OWN, Pools(find)), payload))
        assert reason is not None
        assert "has not enrolled" in reason


async def test_what_is_known_of_an_agent_is_looked_up_once_and_again_before_it_is_refused() -> None:
    looked_up: list[UUID] = []
    pools = ["infra", "desktop"]

    async def find(agent_id: UUID) -> Known:
        looked_up.append(agent_id)
        return Known(pools[len(looked_up) - 1], None)

    senders = Trusted(Pools(find))

    assert [await judged(senders, make_heartbeat(AGENT)) for _ in range(3)] == [None] * 3
    assert looked_up == [AGENT]
    assert await judged(senders, make_heartbeat(AGENT, agent_type="desktop")) is None
    assert looked_up == [AGENT, AGENT]


@pytest.mark.parametrize(
    "payload",
    [make_heartbeat(AGENT, agent_type="desktop"), make_heartbeat(AGENT, labels={"zone": "us"})],
    ids=["pool", "label"],
)
async def test_an_agent_that_was_believed_is_not_when_it_names_another_pool_or_label(payload: Any) -> None:
    for senders in (Checked(OWN, Pools(enrolled)), Trusted(Pools(enrolled))):
        assert await judged(senders, make_heartbeat(AGENT)) is None

        assert await judged(senders, payload) is not None


async def judged(senders: Senders, payload: Any) -> str | None:
    """Return what is objected to a message that comes from the user of AGENT."""
    [envelope] = [one for one in said_by(AGENT) if type(one.payload) is type(payload)]
    delivery = Delivery(
        b"",
        "1",
        3,
        redelivered=False,
        headers={},
        tag=None,
        sender=user_of_agent(AGENT),
        routing_key=f"{AGENT}.results",
    )
    return await senders.objection(delivery, envelope, payload)


def test_only_orchestrators_send_probes() -> None:
    envelope = ProbeEnvelope(from_agent=ORCHESTRATOR, to_agent=ORCHESTRATOR, payload=Probe(orchestrator_id=PROBING))

    assert objection(envelope, sender=OWN, key=str(PROBING)) is None
    assert objection(envelope, sender=OWN, key=str(uuid4())) is not None
    assert objection(envelope, sender=user_of_agent(AGENT), key=str(AGENT)) is not None
    assert objection(envelope, sender=None, key=str(PROBING)) is not None


def test_a_probe_is_sent_in_the_name_of_the_orchestrators() -> None:
    probe = Probe(orchestrator_id=PROBING)
    envelope = ProbeEnvelope(from_agent=str(AGENT), to_agent=ORCHESTRATOR, payload=probe)

    assert objection(envelope, sender=OWN, key=str(PROBING)) is not None


def test_an_agent_hands_out_no_work() -> None:
    envelope = WorkRequestEnvelope(from_agent=str(AGENT), to_agent=str(AGENT), payload=Grant(tasks=[make_grant()]))

    assert objection(envelope, sender=user_of_agent(AGENT), key=str(AGENT)) is not None


def test_what_a_person_replays_comes_from_the_orchestrators_user() -> None:
    [envelope, *_] = said_by(AGENT)

    assert objection(envelope, sender=OWN, key=REPLAYED_BY) is None


def test_a_bus_without_users_is_believed() -> None:
    [envelope, *_] = said_by(AGENT)
    delivery = Delivery(b"", "1", 3, redelivered=False, headers={}, tag=None)

    assert asyncio.run(Trusted(Pools(unknown)).objection(delivery, envelope, envelope.payload)) is None


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
    assert isinstance(senders_of(None, url, unknown), Checked)
    assert isinstance(senders_of("checked", url, unknown), Checked)
    assert isinstance(senders_of("trusted", url, unknown), Trusted)


@pytest.mark.parametrize("url", ["postgresql://host/ledger", "memory://", None])
def test_a_bus_without_users_is_trusted_and_nothing_else(url: str | None) -> None:
    assert isinstance(senders_of(None, url, unknown), Trusted)
    with pytest.raises(StartupRefused, match="needs RabbitMQ"):
        senders_of("checked", url, unknown)


def test_who_logs_in_with_a_certificate_only_cannot_be_checked() -> None:
    with pytest.raises(StartupRefused, match="names no user"):
        senders_of(None, "amqps://host/?auth=external", unknown)
