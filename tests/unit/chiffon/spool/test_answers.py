"""Which answers of an orchestrator send a file to `failed`, and which only make it wait."""

import pytest

from chiffon.errors import ApiError
from chiffon.spool.run import passes


@pytest.mark.parametrize("status", [400, 403, 404, 409, 413, 422])
def test_a_refusal_of_the_orchestrator_is_final(status: int) -> None:
    assert not passes(ApiError(status, "no", error_code=1002))


@pytest.mark.parametrize("status", [401, 408, 429, 500, 502, 503, 504])
def test_trouble_that_ends_only_makes_a_file_wait(status: int) -> None:
    assert passes(ApiError(status, "not now", error_code=9003))


@pytest.mark.parametrize("status", [403, 404])
def test_an_answer_that_is_not_the_orchestrators_refuses_nothing(status: int) -> None:
    assert passes(ApiError(status, "a proxy's page"))


def test_a_token_that_is_not_enough_refuses_no_file() -> None:
    assert passes(ApiError(403, "you may not dispatch", error_code=4003))
