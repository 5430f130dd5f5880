"""What is kept of a dead letter, and where a replay goes."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from pydantic import ValidationError

from common.broker import topology
from common.broker.base import Address, Delivery
from common.rest.dead_letters import DeadLetterKind, DeadLetterState
from orchestrator.dead_letters.answers import detail
from orchestrator.dead_letters.model import Letter
from orchestrator.dead_letters.rules import KEPT_BYTES, letter_of, letter_of_report, origin_of, parse
from tests.factories import make_unreadable

AGENT = UUID("7f3c2b1e-1d2f-4c59-9a5e-6a7d1f0c9b11")
OTHER = UUID("11111111-1d2f-4c59-9a5e-6a7d1f0c9b11")


def make_delivery(body: bytes = b"{}", **values: Any) -> Delivery:
    given: dict[str, Any] = {
        "message_id": "m-1",
        "priority": 4,
        "redelivered": False,
        "headers": {"queue": "work.infra", "reason": "no JSON"},
        "tag": None,
    }
    return Delivery(body, **{**given, **values})


def make_letter(**values: Any) -> Letter:
    given: dict[str, Any] = {
        "id": 1,
        "kind": DeadLetterKind.MESSAGE,
        "message_id": "m-1",
        "queue": "work.infra",
        "type": "claim",
        "reason": "no JSON",
        "body": b"{}",
        "body_bytes": 2,
        "body_kept": 2,
        "priority": 3,
        "task_id": None,
        "at": datetime(2026, 11, 22, tzinfo=UTC),
        "state": DeadLetterState.WAITING,
        "settled_at": None,
        "settled_by": None,
        "replayed_as": None,
    }
    return Letter(**{**given, **values})


def test_a_letter_keeps_where_it_came_from_and_why() -> None:
    letter = letter_of(make_delivery(b'{"type": "claim"}'))

    assert (letter.queue, letter.reason, letter.type) == ("work.infra", "no JSON", "claim")
    assert (letter.message_id, letter.priority, letter.body_bytes) == ("m-1", 4, 17)


def test_of_a_huge_body_the_first_mebibyte_is_kept_and_its_size_told() -> None:
    letter = letter_of(make_delivery(b"x" * (KEPT_BYTES + 1)))

    assert (len(letter.body), letter.body_bytes) == (KEPT_BYTES, KEPT_BYTES + 1)


@pytest.mark.parametrize(
    "body", [b"", b"\xff", b"[]", b'{"type": 7}', b'{"type": ""}', b"[" * 100_000, b'{"x": NaN}', b"9" * 10_000]
)
def test_whatever_a_message_holds_it_can_be_noted(body: bytes) -> None:
    assert letter_of(make_delivery(body)).type == "unknown"


def test_what_others_wrote_into_the_headers_can_be_stored() -> None:
    strange = make_delivery(
        b'{"type": "a\\u0000b"}',
        headers={"queue": "q\x00" + "x" * 999, "reason": "\ud800" * 5000},
        message_id="\x00" * 999,
        priority=255,
    )

    letter = letter_of(strange)

    for text in (letter.queue, letter.reason, letter.type, letter.message_id or ""):
        assert "\x00" not in text
        assert len(text.encode()) <= 4000
    assert letter.priority == 5


def test_a_message_without_an_id_is_not_taken_for_another() -> None:
    assert letter_of(make_delivery(message_id="", headers={})).message_id is None


@pytest.mark.parametrize(
    ("queue", "address"),
    [
        (f"control.{AGENT}", topology.control_address(AGENT)),
        (topology.RESULTS, Address(topology.REPLIES, "replayed.results")),
        ("control.nobody", None),
        ("replies.unheard", None),
        ("dead", None),
        (topology.work_queue("infra", AGENT).name, None),
        ("work.", None),
        ("unknown", None),
        ("", None),
    ],
)
def test_a_replay_goes_to_the_queue_that_the_message_came_from(queue: str, address: Address | None) -> None:
    assert origin_of(make_letter(queue=queue)) == address


@pytest.mark.parametrize("queue", topology.REPLY_QUEUES, ids=lambda queue: queue.name)
def test_every_reply_queue_takes_its_replayed_messages(queue: Any) -> None:
    address = origin_of(make_letter(queue=queue.name))

    assert address is not None
    [binding] = queue.bindings
    assert topology.matches(binding.exchange.type, binding.routing_key, address.routing_key)


@pytest.mark.parametrize(
    ("body", "encoding", "shown", "content"),
    [
        (b'{"a": 1}', "utf-8", '{"a": 1}', {"a": 1}),
        (b"hello", "utf-8", "hello", None),
        (b"\xff\x00", "base64", "/wA=", None),
        (b'{"a": NaN}', "utf-8", '{"a": NaN}', None),
        (b'"\\ud800"', "utf-8", '"\\ud800"', None),
        (b"1e999", "utf-8", "1e999", None),
    ],
)
def test_a_body_is_shown_as_text_or_base64_and_as_json_where_it_is(
    body: bytes, encoding: str, shown: str, content: object
) -> None:
    found = detail(make_letter(body=body, body_bytes=len(body), body_kept=len(body)))

    assert (found.body_encoding, found.body, found.body_json) == (encoding, shown, content)
    assert parse(body) == content
    found.model_dump_json()


def test_what_an_agent_cannot_read_is_noted_with_who_says_so() -> None:
    letter = letter_of_report(make_unreadable(AGENT, b'{"type": "grant"', message_id="m-2", priority=0))

    assert (letter.queue, letter.body, letter.body_bytes) == (f"work.infra.{AGENT}", b'{"type": "grant"', 16)
    assert letter.reason == f"agent {AGENT} cannot read it: no JSON"
    assert letter.message_id == "m-2"
    assert letter.priority == 1


@pytest.mark.parametrize("queue", [f"control.{AGENT}", f"work.infra.{AGENT}", f"work.gpu-2.{AGENT}"])
def test_an_agent_reports_what_it_found_in_its_own_queues(queue: str) -> None:
    assert make_unreadable(AGENT, queue=queue).queue == queue


@pytest.mark.parametrize(
    "queue",
    [f"control.{OTHER}", f"work.infra.{OTHER}", "work.infra", f"work.Infra.{AGENT}", "replies.results", "dead", ""],
)
def test_an_agent_reports_nothing_of_the_queues_of_others(queue: str) -> None:
    with pytest.raises(ValidationError, match="none that agent"):
        make_unreadable(AGENT, queue=queue)
