"""A plan as people write it, in a TOML file, or as JSON; each mistake is one sentence that names its place."""

from typing import Any

from pydantic import ValidationError

from common.errors import InvalidField
from common.plans.model import Plan
from common.plans.places import invalid
from common.toml_text import read_toml


def read_plan(text: str) -> Plan:
    """Return the plan that a TOML text holds; raises `InvalidField`. Whether its parts fit together is for `check`."""
    try:
        given = read_toml(text)
    except ValueError as problem:
        raise InvalidField("plan", f"is not TOML: {problem}") from None
    return plan_of(given)


def plan_of(given: Any) -> Plan:
    """Return the plan that a value of TOML or JSON is; raises `InvalidField`."""
    try:
        return Plan.model_validate(given)
    except ValidationError as error:
        raise invalid(error, given, Plan) from None
