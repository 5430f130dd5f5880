"""Plans for tests."""

from typing import Any

import pytest

from common.errors import InvalidField
from common.plans.check import check
from common.plans.model import Plan
from common.plans.read import plan_of


def step(name: str = "one", **fields: Any) -> dict[str, Any]:
    return {"name": name, "work_type": "own", **fields}


def make_plan(*steps: dict[str, Any], **fields: Any) -> Plan:
    return plan_of({"steps": list(steps) or [step()], **fields})


def refused(*steps: dict[str, Any], given: dict[str, Any] | None = None, **fields: Any) -> tuple[str, str]:
    """Return the field and the problem for which a plan is refused, read or checked."""
    with pytest.raises(InvalidField) as error:
        check(make_plan(*steps, **fields), given or {})
    return error.value.field, error.value.problem
