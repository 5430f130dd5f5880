"""Every message survives the journey unchanged, and what is no message is refused with a reason."""

from contextlib import suppress
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from common import messages, orders, protocol
from common.protocol import MOST_BYTES, MOST_REPLY_BYTES, MessageEnvelope, UnreadableMessage, decode, encode
from tests.factories import (
    make_credit,
    make_heartbeat,
    make_piece,
    make_result,
    make_results,
    make_status,
    make_step,
    make_unreadable,
    make_want,
)

LEASE = messages.Lease(task_id=uuid4(), attempt=1)
WORK = messages.WorkRequest(task_id=uuid4(), work_type="echo", parameters={"message": "grüße", "n": [1, None, 2.5]})
GRANTED = messages.GrantedTask(
    claim_id=uuid4(), work=WORK, trace_id=uuid4(), request_id=uuid4(), attempt=1, lease_seconds=60
)

EXAMPLES: dict[type[MessageEnvelope], Any] = {
    protocol.WorkRequestEnvelope: messages.Grant(tasks=[GRANTED], signature="a.b.c", credit=7),
    protocol.WorkStatusEnvelope: make_status(
        uuid4(), uuid4(), progress="half way", steps=[make_step()], pieces=[make_piece()]
    ),
    protocol.WantFileEnvelope: make_want(uuid4()),
    protocol.WorkResultEnvelope: make_result(uuid4(), uuid4()),
    protocol.WorkResultsEnvelope: make_results(uuid4()),
    protocol.StatusUpdateEnvelope: make_heartbeat(credit=make_credit()),
    protocol.RenewEnvelope: messages.Renew(renewal_id=uuid4(), agent_id=uuid4(), leases=[LEASE]),
    protocol.ControlEnvelope: orders.Control(order=messages.CancelTask(task_id=uuid4(), attempt=3)),
    protocol.ProbeEnvelope: messages.Probe(orchestrator_id=uuid4()),
    protocol.UnreadableEnvelope: make_unreadable(uuid4()),
}


@pytest.mark.parametrize(("kind", "payload"), list(EXAMPLES.items()), ids=[kind.__name__ for kind in EXAMPLES])
def test_a_message_survives_the_journey(kind: type[MessageEnvelope], payload: Any) -> None:
    envelope = kind.model_validate(
        {
            "from_agent": "a",
            "to_agent": "b",
            "trace_id": uuid4(),
            "request_id": uuid4(),
            "priority": 5,
            "payload": payload,
        }
    )

    assert decode(encode(envelope)) == envelope


def test_every_type_of_envelope_has_an_example_here() -> None:
    assert set(EXAMPLES) == set(MessageEnvelope.__subclasses__())


def test_an_envelope_has_the_fields_that_the_protocol_names() -> None:
    assert {*MessageEnvelope.model_fields, "type", "payload"} == {
        "protocol_version",
        "message_id",
        "from_agent",
        "to_agent",
        "timestamp",
        "trace_id",
        "request_id",
        "type",
        "priority",
        "payload",
    }


def test_every_envelope_gets_an_id_and_a_time_of_its_own() -> None:
    payload = EXAMPLES[protocol.WorkRequestEnvelope]
    one, other = (protocol.WorkRequestEnvelope(from_agent="a", to_agent="b", payload=payload) for _ in range(2))

    assert one.message_id != other.message_id
    assert abs((datetime.now(UTC) - one.timestamp).total_seconds()) < 10


GOOD = encode(
    protocol.WorkRequestEnvelope(from_agent="a", to_agent="b", payload=EXAMPLES[protocol.WorkRequestEnvelope])
).decode()


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "JSON"),
        (b"{", "JSON"),
        (b"\xff\xfe", "JSON"),
        (b"[]", "object"),
        (b"{}", "type"),
        (GOOD.replace("work_request", "juggle").encode(), "juggle"),
        (GOOD.replace('"1.0"', '"2.0"').encode(), "protocol_version"),
        (GOOD.replace('"priority":3', '"priority":6').encode(), "priority"),
        (GOOD.replace('"attempt":1', '"attempt":-1').encode(), "attempt"),
        (b"[" * 200_000, "JSON"),
    ],
    ids=lambda value: str(value[:16]),
)
def test_what_cannot_be_read_is_refused_with_a_reason(body: bytes, reason: str) -> None:
    with pytest.raises(UnreadableMessage, match=reason):
        decode(body)


def test_a_field_that_only_a_newer_peer_knows_is_ignored() -> None:
    assert decode(GOOD.replace('"attempt":1', '"attempt":1,"mood":"good"').encode()) == decode(GOOD.encode())


@given(st.binary(max_size=300))
def test_no_bytes_make_the_reader_fail_otherwise(body: bytes) -> None:
    with pytest.raises(UnreadableMessage):
        decode(body)


@given(st.integers(0, len(GOOD) - 1), st.characters(codec="utf-8"))
def test_one_wrong_character_never_makes_the_reader_fail_otherwise(position: int, character: str) -> None:
    body = (GOOD[:position] + character + GOOD[position + 1 :]).encode()

    with suppress(UnreadableMessage):
        assert isinstance(decode(body), MessageEnvelope)


@pytest.mark.parametrize("limit", [MOST_REPLY_BYTES, MOST_BYTES])
def test_a_body_of_the_largest_size_is_read_and_a_larger_one_is_not_even_parsed(limit: int) -> None:
    body = encode(protocol.ProbeEnvelope(from_agent="a", to_agent="b", payload=messages.Probe(orchestrator_id=uuid4())))
    largest = body + b" " * (limit - len(body))

    assert decode(largest, limit=limit) == decode(body)
    with pytest.raises(UnreadableMessage, match=f"it has {limit + 1} bytes, and at most {limit} are read"):
        decode(largest + b" ", limit=limit)
    with pytest.raises(UnreadableMessage, match="at most"):
        decode(b"{" * (limit + 1), limit=limit)


@pytest.mark.parametrize(
    ("field", "most", "item"),
    [("work_types", messages.MOST_WORK_TYPES, "echo"), ("current_tasks", messages.MOST_TASKS, str(UUID(int=1)))],
)
def test_a_heartbeat_holds_lists_of_the_largest_size_and_no_larger(field: str, most: int, item: str) -> None:
    said = make_heartbeat().model_dump(mode="json")

    assert len(getattr(messages.StatusUpdate.model_validate({**said, field: [item] * most}), field)) == most
    with pytest.raises(ValidationError, match="at most"):
        messages.StatusUpdate.model_validate({**said, field: [item] * (most + 1)})


@pytest.mark.parametrize("time", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "2026-11-22T10:00:00", 5])
@pytest.mark.parametrize("field", ["started_at", "sent_at"])
def test_a_heartbeat_names_times_with_their_zone_that_a_ledger_can_keep(field: str, time: object) -> None:
    with pytest.raises(ValidationError, match=field):
        messages.StatusUpdate.model_validate({**make_heartbeat().model_dump(mode="json"), field: time})


def test_a_renewal_holds_a_list_of_the_largest_size_and_no_larger() -> None:
    lease = [LEASE]

    assert messages.Renew(renewal_id=uuid4(), agent_id=uuid4(), leases=lease * messages.MOST_TASKS).leases
    with pytest.raises(ValidationError, match="at most"):
        messages.Renew(renewal_id=uuid4(), agent_id=uuid4(), leases=lease * (messages.MOST_TASKS + 1))


def test_results_that_are_joined_are_read_as_each_was_written_and_their_bytes_are_in_the_message_as_they_are() -> None:
    agent_id = uuid4()
    results = make_results(agent_id, 3, output='a "quoted" ]}, {"x": [1]}').results
    bodies = [encode(result) for result in results]

    credit = make_credit()
    body = protocol.join_results(agent_id, bodies, credit=credit)

    envelope = decode(body)
    assert isinstance(envelope, protocol.WorkResultsEnvelope)
    assert (envelope.from_agent, envelope.payload.agent_id, envelope.to_agent) == (
        str(agent_id),
        agent_id,
        protocol.ORCHESTRATOR,
    )
    assert (envelope.payload.results, envelope.payload.credit) == (results, credit)
    assert b",".join(bodies) in body


def test_so_many_results_travel_together_and_no_more() -> None:
    most = [encode(make_results(uuid4()).results[0])] * protocol.MOST_RESULTS

    envelope = decode(protocol.join_results(uuid4(), most))
    assert isinstance(envelope, protocol.WorkResultsEnvelope)
    assert len(envelope.payload.results) == protocol.MOST_RESULTS
    with pytest.raises(UnreadableMessage, match="at most 100"):
        decode(protocol.join_results(uuid4(), [*most, most[0]]))
    with pytest.raises(UnreadableMessage, match="at least 1"):
        decode(protocol.join_results(uuid4(), []))
