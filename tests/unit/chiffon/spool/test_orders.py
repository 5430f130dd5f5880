"""What a dropped file asks for."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from chiffon.spool.orders import Malformed, outgoing_name, read_order


def content(**fields: Any) -> bytes:
    return json.dumps({"work_type": "echo", "parameters": {"message": "hi"}, **fields}).encode()


def test_the_same_file_is_the_same_task_and_any_other_is_another() -> None:
    first = read_order("a.json", content())

    assert read_order("a.json", content()) == first
    assert read_order("b.json", content()).task_id != first.task_id
    assert read_order("a.json", content(priority=4)).task_id != first.task_id
    assert first.body["task_id"] == str(first.task_id)
    assert first.body["request_id"] != first.body["task_id"]


def test_ids_that_the_file_gives_are_kept() -> None:
    task_id = "7f3c2b1e-1d2f-4c59-9a5e-6a7d1f0c9b11"

    order = read_order("a.json", content(task_id=task_id, request_id="mine"))

    assert (str(order.task_id), order.body["task_id"], order.body["request_id"]) == (task_id, task_id, "mine")


def test_the_result_is_named_from_channel_message_and_time_and_the_dispatch_has_neither() -> None:
    order = read_order("some file.json", content(channel="mail", ordering_key="k"))
    at = datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC)

    assert outgoing_name(order, at=at) == "mail-some_file-20260102T030405.000006Z.json"
    assert order.ordering_key == "k"
    assert "channel" not in order.body
    assert outgoing_name(read_order("x.json", content(message_id="m.7")), at=at).startswith("file-m.7-")


@pytest.mark.parametrize("name", ["….json", "-.json", " .json", f"{'n' * 200}.json", "..json"])
def test_any_file_name_makes_a_name_that_is_allowed(name: str) -> None:
    message = read_order(name, content()).message

    assert read_order("x.json", content(message_id=message)).message == message


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (b"", "not JSON"),
        (b'{"work_type": "ec', "not JSON"),
        (b"\xff\xfe", "not UTF-8"),
        (b"[]", "no JSON object"),
        (b"[" * 100_000, "nested deeper than 64 levels"),
        (b'{"work_type": "echo", "work_type": "echo"}', "twice"),
        (b'{"work_type": "echo", "priority": NaN}', "NaN"),
        (b'{"work_type": "\\ud800"}', "not UTF-8"),
        (b"{}", "work_type"),
        (content(work_type=7), "work_type"),
        (content(channel="../etc"), "channel"),
        (content(channel=None), "channel"),
        (content(message_id=""), "message_id"),
        (content(message_id="a/b"), "message_id"),
        (content(ordering_key=7), "ordering_key"),
        (content(task_id="7"), "task_id"),
        (content(task_id=7), "task_id"),
    ],
)
def test_what_cannot_be_dispatched_is_refused_with_the_field(given: bytes, reason: str) -> None:
    with pytest.raises(Malformed, match=reason):
        read_order("x.json", given)
