"""What an agent may announce of a work type of its own."""

from typing import Any

import pytest
from pydantic import ValidationError

from common.messages import StatusUpdate
from common.schemas import MAX_SCHEMA_BYTES, schema_of
from common.work import PARAMETERS
from tests.factories import make_heartbeat


def announce(schemas: Any) -> StatusUpdate:
    return StatusUpdate.model_validate({**make_heartbeat().model_dump(), "schemas": schemas})


def test_the_schema_of_every_built_in_type_could_be_announced() -> None:
    schemas = {name: schema_of(model) for name, model in PARAMETERS.items()}

    assert announce(schemas).schemas == schemas


def test_a_heartbeat_of_an_agent_that_knows_of_no_schemas_is_read() -> None:
    old = make_heartbeat().model_dump(exclude={"schemas"})

    assert StatusUpdate.model_validate(old).schemas == {}


@pytest.mark.parametrize(
    ("schemas", "problem"),
    [
        ({"render": {"description": "x" * MAX_SCHEMA_BYTES}}, f"must have at most {MAX_SCHEMA_BYTES} bytes"),
        ({"render": {"description": "\x00"}}, "NUL"),
        ({"render": "object"}, "dictionary"),
        ({f"type_{number}": {} for number in range(101)}, "at most 100"),
    ],
    ids=["large", "nul", "text", "many"],
)
def test_what_cannot_be_kept_is_refused(schemas: Any, problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        announce(schemas)
