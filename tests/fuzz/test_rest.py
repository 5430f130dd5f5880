"""Whatever is sent to the REST API: never a fault of ours, always the one shape, and what the OpenAPI document says."""

from collections.abc import Callable
from copy import deepcopy
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

from common.rest.jobs import LONGEST_WAIT_SECONDS
from orchestrator.identities.access import PUBLIC
from tests.fuzz.bounds import SEED, bounded
from tests.fuzz.running import Running
from tests.fuzz.shapes import check_answer
from tests.openapi import DOCUMENT

EXAMPLES = 6
GUARDED_EXAMPLES = 3
SHORT_WAIT_SECONDS = 0.2
SIGNED = "/artifacts/{artifact_id}/{name}"
SCHEMA = schemathesis.openapi.from_dict(deepcopy(DOCUMENT))
# Each caller sends its own token or none: made-up ones would shut the address out.
SCHEMA.config.generation.update(with_security_parameters=False)
OPERATIONS = {found.ok().label: found.ok() for found in SCHEMA.get_all_operations() if isinstance(found, Ok)}
load_all_checks()


@pytest.fixture(scope="module")
def session() -> Any:
    with requests.Session() as opened:
        yield opened


@pytest.mark.xdist_group("orchestrator")
@pytest.mark.parametrize("label", OPERATIONS)
def test_every_operation_answers_good_and_bad_data_as_documented(
    orchestrator: Running, session: requests.Session, label: str
) -> None:
    @_tried(label, EXAMPLES)
    def send(case: Any) -> None:
        _send(case, orchestrator, session, token=None)

    send()


@pytest.mark.xdist_group("guarded-orchestrator")
@pytest.mark.parametrize("label", OPERATIONS)
def test_every_operation_of_a_guarded_orchestrator_answers_everybody_as_documented(
    guarded_orchestrator: Running, session: requests.Session, tokens: dict[str, str | None], label: str
) -> None:
    statuses: dict[str, set[int]] = {who: set() for who in tokens}

    @_tried(label, GUARDED_EXAMPLES)
    def send(case: Any) -> None:
        for who, token in tokens.items():
            statuses[who].add(_send(case, guarded_orchestrator, session, token=token))

    send()
    if OPERATIONS[label].path == SIGNED:
        assert statuses["nobody"] <= {401, 403, 405}  # with any query it is a link, and none that was signed
    elif OPERATIONS[label].path not in PUBLIC:
        assert statuses["nobody"] <= {401, 405}
    else:
        assert 401 not in statuses["nobody"]
    assert 401 not in statuses["admin"] | statuses["viewer"]


def _tried(label: str, examples: int) -> Callable[[Callable[[Any], None]], Callable[[], None]]:
    """Call a function with good and bad data of an operation."""
    print(f"CHIFFON_SEED={SEED}")
    modes = [OPERATIONS[label].as_strategy(generation_mode=mode) for mode in GenerationMode]

    def decorated(send: Callable[[Any], None]) -> Callable[[], None]:
        return hypothesis.seed(SEED)(bounded(examples)(given(st.one_of(modes))(send)))

    return decorated


def _send(case: Any, orchestrator: Running, session: requests.Session, *, token: str | None) -> int:
    """Send data to an operation, check the answer, and return its status."""
    _shorten_wait(case.body)
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    response = case.call(base_url=orchestrator.http, session=session, timeout=30, headers=headers)
    check_answer(response.status_code, response.headers.get("content-type", [""])[0], response.content)
    case.validate_response(response, checks=[response_schema_conformance, status_code_conformance])
    status: int = response.status_code
    return status


def _shorten_wait(body: Any) -> None:
    """Have a claim that may wait for a job wait for a moment only: there is none."""
    if isinstance(body, dict) and isinstance(wait := body.get("waitSeconds"), int | float):
        body["waitSeconds"] = min(wait, SHORT_WAIT_SECONDS) if 0 <= wait <= LONGEST_WAIT_SECONDS else wait
