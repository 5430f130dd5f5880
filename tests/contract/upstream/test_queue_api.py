"""The queue API keeps upstream's own contract: what the contract takes is taken, what it refuses is refused, and every
answer has the promised shape. `CHIFFON_EXAMPLES` multiplies how much is tried.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import requests
import schemathesis
from hypothesis import given
from schemathesis import GenerationMode
from schemathesis.checks import load_all_checks
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
)

from orchestrator.database.migrate import upgrade
from tests.contract.upstream.limits import is_beyond
from tests.fuzz.bounds import SEED, bounded
from tests.fuzz.running import Running, running_orchestrator
from tests.fuzz.shapes import check_answer
from tests.services.postgres import Postgres

EXAMPLES = 40
CONTRACT = Path(__file__).with_name("agent-queue.openapi.yaml")
SCHEMA = schemathesis.openapi.from_path(CONTRACT)
OPERATIONS = {found.ok().label: found.ok() for found in SCHEMA.get_all_operations() if isinstance(found, Ok)}
OF_A_RUNNING_JOB = ("heartbeatQueueJob", "completeQueueJob", "failQueueJob")
load_all_checks()


@pytest.fixture(scope="module")
async def contract_ledger_url(postgres: Postgres) -> str:
    url = await postgres.create_database()
    await upgrade(url)
    return url


@pytest.fixture(scope="module")
def queue(contract_ledger_url: str) -> Iterator[Running]:
    # The same few names claim and fail again and again, which would trip them.
    with running_orchestrator(contract_ledger_url, breaker_failures=1000) as running:
        yield running


@pytest.fixture(scope="module")
def session() -> Iterator[requests.Session]:
    with requests.Session() as opened:
        yield opened


@pytest.mark.parametrize("label", OPERATIONS)
def test_what_the_contract_takes_is_taken(queue: Running, session: requests.Session, label: str) -> None:
    operation = OPERATIONS[label]
    name = operation.definition.raw["operationId"]

    def send(case: Any) -> None:
        sent = case.body if isinstance(case.body, dict) else case.query
        beyond = is_beyond(name, sent or {})
        if name in OF_A_RUNNING_JOB and not beyond:
            case.path_parameters["jobId"] = running_job(queue, session, worker=case.body["workerId"])
        answer = _call(case, queue, session)
        if beyond:
            assert answer.status_code == 422, (sent, answer.text)
            return
        case.validate_response(
            answer, checks=[status_code_conformance, response_schema_conformance, content_type_conformance]
        )

    _try(operation, GenerationMode.POSITIVE, send)


@pytest.mark.parametrize("label", [label for label in OPERATIONS if OPERATIONS[label].body or OPERATIONS[label].query])
def test_what_the_contract_refuses_is_refused(queue: Running, session: requests.Session, label: str) -> None:
    def send(case: Any) -> None:
        answer = _call(case, queue, session)
        case.validate_response(answer, checks=[negative_data_rejection])

    _try(OPERATIONS[label], GenerationMode.NEGATIVE, send)


def running_job(queue: Running, session: requests.Session, *, worker: str) -> str:
    """Create a job of a type that no other has and have a worker claim it; return its id."""
    kind = f"of {worker}"[:200]
    jobs = f"{queue.http}/api/queue/jobs"
    made = session.post(jobs, json={"type": kind, "payload": {}}, timeout=30)
    assert made.status_code == 201, made.text
    ask: Any = {"workerId": worker, "leaseSeconds": 600, "allowedTypes": [kind]}
    claimed: str = session.post(f"{jobs}/claim", json=ask, timeout=30).json()["job"]["id"]
    return claimed


def _call(case: Any, queue: Running, session: requests.Session) -> Any:
    answer = case.call(base_url=f"{queue.http}/api", session=session, timeout=30)
    check_answer(answer.status_code, answer.headers.get("content-type", [""])[0], answer.content)
    return answer


def _try(operation: Any, mode: GenerationMode, send: Any) -> None:
    print(f"CHIFFON_SEED={SEED}")

    @hypothesis.seed(SEED)
    @bounded(EXAMPLES)
    @given(case=operation.as_strategy(generation_mode=mode))
    def one(case: Any) -> None:
        send(case)

    one()
