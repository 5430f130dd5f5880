"""What a task wrote is put together whole and in order, whatever way it arrives."""

from typing import Any
from uuid import uuid4

from chiffon import Client
from chiffon.output import Transcript, read_output, watch_to_the_end
from common.messages import Stream
from common.rest.events import Event
from tests.unit.chiffon.fake_orchestrator import FakeOrchestrator


def test_pieces_that_arrive_in_the_wrong_order_are_handed_out_in_the_right_one() -> None:
    transcript = Transcript()
    transcript.begin(1)

    assert transcript.take(Stream.STDOUT, 6, "wörld") == []
    assert [piece.text for piece in transcript.take(Stream.STDOUT, 0, "hello ")] == ["hello ", "wörld"]
    assert transcript.position(Stream.STDOUT) == len("hello wörld".encode())


def test_a_piece_that_comes_again_is_dropped() -> None:
    transcript = Transcript()
    transcript.begin(1)
    transcript.take(Stream.STDERR, 0, "once")

    assert transcript.take(Stream.STDERR, 0, "once") == []


def test_a_new_attempt_starts_a_new_transcript() -> None:
    transcript = Transcript()
    transcript.begin(1)
    transcript.take(Stream.STDOUT, 0, "first")
    transcript.begin(2)

    assert [(piece.attempt, piece.text) for piece in transcript.take(Stream.STDOUT, 0, "second")] == [(2, "second")]


async def test_following_reads_both_streams_to_the_end(fake: FakeOrchestrator, url: str) -> None:
    task_id = str(uuid4())
    fake.output = [("stdout", "one\n"), ("stderr", "oh\n"), ("stdout", "two\n")]
    fake.cuts = [(3, 4008)]
    fake.add_task(task_id)

    async with Client(url) as client:
        pieces = [(piece.stream, piece.text) async for piece in read_output(client, task_id, follow=True)]

    assert pieces == [(Stream.STDOUT, "one\n"), (Stream.STDERR, "oh\n"), (Stream.STDOUT, "two\n")]


async def test_what_the_events_lack_is_fetched_from_the_stored_output(fake: FakeOrchestrator, url: str) -> None:
    task_id = str(uuid4())
    fake.output = [("stdout", "one\n")]
    fake.add_task(task_id)
    fake.output.append(("stdout", "two\n"))

    async with Client(url) as client:
        text = "".join([piece.text async for piece in read_output(client, task_id)])

    assert text == "one\ntwo\n"


async def test_output_that_is_recorded_after_the_end_is_followed_too(fake: FakeOrchestrator, url: str) -> None:
    task_id = str(uuid4())
    fake.output = []
    fake.add_task(task_id, status="running")
    fake.add_event("task.failed", task_id, output_bytes={"stdout": 0, "stderr": 5})
    fake.add_event("task.output", task_id, number=0, stream="stderr", offset=0, text="late\n")

    async with Client(url) as client:
        kinds = [event.kind async for event in watch_to_the_end(client, task_id)]

    assert kinds == ["task.dispatched", "task.claimed", "task.failed", "task.output"]


def test_late_output_of_an_earlier_attempt_is_not_taken_for_that_of_the_last() -> None:
    transcript = Transcript()
    transcript.take_event(make_event("task.output", attempt=1, stream="stdout", offset=0, text="first "))
    transcript.take_event(make_event("task.claimed", attempt=2))

    late = transcript.take_event(make_event("task.output", attempt=1, stream="stdout", offset=0, text="late "))
    new = transcript.take_event(make_event("task.output", attempt=2, stream="stdout", offset=0, text="second"))

    assert late == []
    assert [(piece.attempt, piece.text) for piece in new] == [(2, "second")]


def make_event(kind: str, *, attempt: int, **data: Any) -> Event:
    ids = dict.fromkeys(("task_id", "trace_id", "request_id", "agent_id"))
    about = {"seq": 1, "at": "2026-11-22T10:00:00Z", "kind": kind, "attempt": attempt, "actor": "test", "data": data}
    return Event.model_validate(about | ids)
