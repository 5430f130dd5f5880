"""The orchestrator's answers and the models of the Python client have the same fields."""

from typing import Any

import pytest
from pydantic import BaseModel

from chiffon import approvals, models, models_access, models_ops
from chiffon.models import Answer
from orchestrator.main import create_app

SCHEMAS: dict[str, Any] = create_app().openapi()["components"]["schemas"]
# The client's own words for what the REST API's models are called otherwise.
CALLED = {
    "Approval": "ApprovalOut",
    "BatchResult": "BatchItem",
    "Blocker": "WhyBlocker",
    "Comment": "CommentOut",
    "Dispatched": "DispatchResponse",
    "Enrolment": "EnrolmentOut",
    "Execution": "ExecutionOut",
    "Identity": "IdentityOut",
    "LeaseHolder": "HolderOut",
    "NewToken": "NewTokenOut",
    "Settled": "SettleItem",
    "Token": "TokenOut",
    "Vote": "VoteOut",
    "WaitingPool": "PoolOut",
    "Why": "WhyResponse",
    "Event": "EventOut",
}


def answers() -> list[type[BaseModel]]:
    found = {
        one
        for module in (models, models_access, models_ops, approvals)
        for one in vars(module).values()
        if isinstance(one, type) and issubclass(one, Answer) and one is not Answer
    }
    return sorted(found, key=lambda one: one.__name__)


@pytest.mark.parametrize("model", answers(), ids=lambda model: model.__name__)
def test_a_model_of_the_client_has_every_field_that_is_answered(model: type[BaseModel]) -> None:
    answered = SCHEMAS[CALLED.get(model.__name__, model.__name__)]["properties"]

    assert set(model.model_fields) == set(answered)
