"""What the record of any case shows."""

from typing import Any

import pytest

from chiffon.conformance.traffic import Exchange, Traffic
from chiffon.conformance.verdicts import Part, judge

JOB = {"id": "j1", "attempt": 1}


def said(action: str, at: float, *, status: int = 200, told: bool = True, **body: Any) -> Exchange:
    content = {"workerId": "w", "attempt": 1, **body}
    answer = {"error_message": "so"} if status >= 400 else JOB
    return Exchange(
        "POST", f"/api/queue/jobs/j1/{action}", content, at, status, answer, answered_at=at + 0.1 if told else None
    )


def claim(at: float, **body: Any) -> Exchange:
    content = {"workerId": "w", "leaseSeconds": 2, "claimId": "c", **body}
    return Exchange("POST", "/api/queue/jobs/claim", content, at, 200, {"job": JOB}, answered_at=at + 0.1)


@pytest.mark.parametrize(
    "exchanges",
    [
        [claim(0), said("heartbeat", 1), said("complete", 2)],
        [claim(0), said("complete", 1, told=False), said("complete", 2)],
        [claim(0), said("complete", 1, status=503), said("complete", 2)],
        [claim(0), said("heartbeat", 1, status=409), said("heartbeat", 1.2, status=409), claim(2)],
        [claim(0), said("heartbeat", 1, status=409), claim(2), said("complete", 3, attempt=2)],
    ],
)
def test_a_worker_that_keeps_the_contract_is_not_blamed(exchanges: list[Exchange]) -> None:
    assert judge(Traffic(exchanges)) == []


@pytest.mark.parametrize(
    ("exchanges", "part"),
    [
        ([claim(0, claimId=None)], Part.CLAIM_ID),
        ([claim(0, leaseSeconds=None)], Part.FIELDS),
        ([said("heartbeat", 0, attempt=None)], Part.ATTEMPT),
        ([said("complete", 0, workerId=None)], Part.FIELDS),
        ([said("progress", 0, status=422)], Part.FIELDS),
        ([said("complete", 0), said("complete", 1)], Part.ONCE),
        ([said("complete", 0, told=False), said("complete", 1, resultSummary="other")], Part.ONCE),
        ([said("complete", 0), said("fail", 1, errorMessage="no")], Part.ONCE),
        ([said("heartbeat", 0, status=409), said("complete", 1, status=409)], Part.OWNER),
    ],
)
def test_what_breaks_the_contract_is_told_with_the_part_that_it_breaks(exchanges: list[Exchange], part: Part) -> None:
    assert part in {problem.part for problem in judge(Traffic(exchanges))}
