"""Whatever is sent to the REST API: never a fault of ours, always the one shape, and what the OpenAPI document says."""

from typing import Any

import hypothesis
import pytest
import requests
import schemathesis
from hypothesis import given
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import load_all_checks
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import response_schema_conformance, status_code_conformance

from orchestrator.identities.access import PUBLIC
from orchestrator.jobs.schemas import LONGEST_WAIT_SECONDS
from orchestrator.main import create_app
from tests.fuzz.bounds import SEED, bounded
from tests.fuzz.running import Running
from tests.fuzz.shapes import check_answer

EXAMPLES = 25
GUARDED_EXAMPLES = 4
SHORT_WAIT_SECONDS = 0.2
SCHEMA = schemathesis.openapi.from_dict(create_app().openapi())
OPERATIONS = {found.ok().label: found.ok() for found in SCHEMA.get_all_operations() if isinstance(found, Ok)}
load_all_checks()


@pytest.fixture(scope="module")
def session() -> Any:
    with requests.Session() as opened:
        yield opened


@pytest.mark.parametrize("label", OPERATIONS)
def test_every_operation_answers_good_and_bad_data_as_documented(
    orchestrator: Running, session: requests.Session, label: str
) -> None:
    _try(label, orchestrator, session, examples=EXAMPLES, headers={})


@pytest.mark.parametrize("who", ["admin", "viewer", "nobody"])
@pytest.mark.parametrize("label", OPERATIONS)
def test_every_operation_of_a_guarded_orchestrator_answers_everybody_as_documented(
    guarded_orchestrator: Running, session: requests.Session, tokens: dict[str, str | None], label: str, who: str
) -> None:
    token = tokens[who]
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}

    statuses = _try(label, guarded_orchestrator, session, examples=GUARDED_EXAMPLES, headers=headers)

    if who == "nobody" and OPERATIONS[label].path not in PUBLIC:
        assert statuses <= {401, 405}
    else:
        assert 401 not in statuses


def _try(
    label: str, orchestrator: Running, session: requests.Session, *, examples: int, headers: dict[str, str]
) -> set[int]:
    """Send good and bad data to an operation, and return the statuses of the answers."""
    operation, statuses = OPERATIONS[label], set[int]()
    modes = [operation.as_strategy(generation_mode=mode) for mode in GenerationMode]
    print(f"CHIFFON_SEED={SEED}")

    @hypothesis.seed(SEED)
    @bounded(examples)
    @given(case=st.one_of(modes))
    def send(case: Any) -> None:
        _shorten_wait(case.body)
        response = case.call(base_url=orchestrator.http, session=session, timeout=30, headers=headers)
        check_answer(response.status_code, response.headers.get("content-type", [""])[0], response.content)
        case.validate_response(response, checks=[response_schema_conformance, status_code_conformance])
        statuses.add(response.status_code)

    send()
    return statuses


def _shorten_wait(body: Any) -> None:
    """Have a claim that may wait for a job wait for a moment only: there is none."""
    if isinstance(body, dict) and isinstance(wait := body.get("waitSeconds"), int | float):
        body["waitSeconds"] = min(wait, SHORT_WAIT_SECONDS) if 0 <= wait <= LONGEST_WAIT_SECONDS else wait
