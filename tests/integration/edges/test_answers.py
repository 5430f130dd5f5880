"""A repeated request gets the same answer, and HEAD is answered as GET."""

from uuid import uuid4

import pytest
import requests

from tests.eventually import eventually
from tests.fuzz.running import Running


def test_a_cancelled_task_is_cancelled_once_more_without_harm(orchestrator: Running) -> None:
    task_id = str(uuid4())
    requests.post(
        f"{orchestrator.http}/api/v1/dispatch", json={"task_id": task_id, "work_type": "echo"}, timeout=30
    ).raise_for_status()

    answers = [requests.post(f"{orchestrator.http}/api/v1/cancel/{task_id}", timeout=30) for _ in range(2)]

    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[1].json() == {"task_id": task_id, "status": "cancelled"}
    events = requests.get(f"{orchestrator.http}/api/v1/tasks/{task_id}/events", timeout=30).json()["items"]
    assert [event["kind"] for event in events] == ["task.dispatched", "task.cancelled"]


@pytest.mark.parametrize(
    "path", ["/health", "/ready", "/api/v1/tasks", "/api/v1/status/7f3c2b1e-1d2f-4c59-9a5e-6a7d1f0c9b11"]
)
async def test_head_is_answered_as_get_without_the_content(orchestrator: Running, path: str) -> None:
    # Just after its start it is not ready yet, and a moment later it is.
    await eventually(lambda: requests.get(f"{orchestrator.http}/ready", timeout=30).ok, timeout=30)

    asked = [requests.request(method, orchestrator.http + path, timeout=30) for method in ("HEAD", "GET")]

    assert asked[0].status_code == asked[1].status_code
    assert asked[0].headers["content-type"] == asked[1].headers["content-type"]
    assert asked[0].content == b""
    assert int(asked[0].headers["content-length"]) > 0
