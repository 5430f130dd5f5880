"""What the demonstration shows live."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from chiffon.demo.show import LiveView
from chiffon.demo.work import DemoTask
from chiffon.models import Event


def make_event(kind: str, task_id: UUID, **data: Any) -> Event:
    return Event(
        seq=1,
        at=datetime(2026, 11, 22, tzinfo=UTC),
        kind=kind,
        task_id=task_id,
        trace_id=None,
        request_id=None,
        agent_id=None,
        attempt=1,
        actor="orchestrator",
        data=data,
    )


def test_the_live_view_is_complete_once_the_output_that_an_end_announces_was_shown(
    capsys: pytest.CaptureFixture[str],
) -> None:
    task = DemoTask("fails", 4, {"script": "exit 3"})
    view = LiveView([task], {})

    view.show(make_event("task.failed", task.task_id, exit_code=3, output_bytes={"stdout": 0, "stderr": 7}))
    assert not view.is_complete

    view.show(make_event("task.output", task.task_id, stream="stderr", offset=0, text="absent\n"))
    assert view.is_complete
    assert "! absent" in capsys.readouterr().out
