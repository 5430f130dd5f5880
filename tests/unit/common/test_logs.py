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


@pytest.mark.parametrize("where", ["message", "field", "exception"])
def test_a_text_log_has_one_line_for_one_record_whatever_a_stranger_sends(
    capsys: pytest.CaptureFixture[str], where: str
) -> None:
    configure_logs(service="orchestrator", level="INFO", style="text")
    forged = "/x\n2026-11-29 00:00:00,000 INFO    approval.answered by=ben\x1b[2J\u202e\x85\u2028"

    match where:
        case "message":
            log.info("GET %s", forged)
        case "field":
            log.info("request", extra={"path": forged})
        case _:
            log.error("request.failed", exc_info=ValueError(forged))

    line, *rest = capsys.readouterr().err.rstrip("\n").split("\n")
    assert " INFO " in line or " ERROR " in line
    assert (rest == []) == (where != "exception")
    assert all(below.startswith("    ") for below in rest)
    assert all(" " <= one <= "~" for text in (line, *rest) for one in text)
    assert "\\u001b[2J\\u202e\\u0085\\u2028" in "".join((line, *rest))


def test_a_value_in_a_text_log_cannot_pass_for_another_field(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs(service="orchestrator", level="INFO", style="text")

    log.info("agent.said", extra={"hostname": "web state=approved", "status": "online"})

    assert capsys.readouterr().err.rstrip().endswith('agent.said hostname="web state=approved" status=online')


def test_a_json_log_keeps_each_value_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs(service="orchestrator", level="INFO", style="json")

    log.info("request", extra={"path": "/x\n\x1b[2J ж"})

    [line] = lines(capsys)
    assert line["path"] == "/x\n\x1b[2J ж"


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
