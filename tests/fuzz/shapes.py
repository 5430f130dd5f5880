"""The one shape of every error."""

import json
from typing import Any
from uuid import UUID


def check_answer(status: int, content_type: str, body: bytes) -> None:
    """Raise AssertionError unless an answer is a success, or an error of the one shape that is not our fault."""
    assert status < 500, f"{status}: {body[:500]!r}"
    if status < 400:
        return
    assert content_type.split(";")[0] == "application/problem+json", f"{status} {content_type}: {body[:200]!r}"
    problem: dict[str, Any] = json.loads(body)
    assert problem["status"] == status
    assert 1000 <= problem["error_code"] <= 9999
    assert problem["error_message"] == problem["detail"] != ""
    assert UUID(problem["trace_id"])
    assert isinstance(problem["errors"], list)
