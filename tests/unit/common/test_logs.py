"""A line of the log is one JSON object that carries the ids of what it is about."""

import asyncio
import json
import logging
from collections.abc import Iterator
from uuid import uuid4

import pytest

from common.logs import configure_logs, log_context

log = logging.getLogger("tests.logs")


@pytest.fixture(autouse=True)
def restore_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_a_line_carries_the_event_its_fields_and_the_ids(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs(service="agent", level="INFO", style="json")
    task_id = uuid4()

    log.info("task.claimed", extra={"task_id": task_id, "attempt": 2})

    [line] = lines(capsys)
    assert (line["event"], line["task_id"], line["attempt"]) == ("task.claimed", str(task_id), 2)
    assert (line["service"], line["level"], line["logger"]) == ("agent", "INFO", "tests.logs")
    assert line["timestamp"]


async def test_lines_inside_a_context_carry_its_ids_also_in_tasks_started_there(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure_logs(service="agent", level="INFO", style="json")

    async def work() -> None:
        log.info("inside")

    with log_context(trace_id="t", request_id="r"), log_context(task_id="x", agent_id=None):
        await asyncio.create_task(work())
    log.info("outside")

    inside, outside = lines(capsys)
    assert (inside["trace_id"], inside["request_id"], inside["task_id"]) == ("t", "r", "x")
    assert "agent_id" not in inside
    assert "trace_id" not in outside


def test_a_line_for_people_shows_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs(service="agent", level="INFO", style="text")

    with log_context(task_id="x"):
        log.warning("task.lost", extra={"attempt": 2})

    assert capsys.readouterr().err.rstrip().endswith("WARNING task.lost attempt=2 task_id=x")


def test_lines_below_the_level_are_not_written(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs(service="agent", level="ERROR", style="json")

    log.warning("quiet")

    assert lines(capsys) == []


def test_a_frame_that_crosses_the_close_of_its_channel_is_no_error_and_other_reports_stay(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure_logs(service="agent", level="INFO", style="json")
    library = logging.getLogger("aiormq.connection")

    library.error("Got frame for closed channel %d: %r", 5, "CloseOk")
    library.error("Unexpected frame %r", "Blocked")

    assert [line["event"] for line in lines(capsys)] == ["Unexpected frame 'Blocked'"]
