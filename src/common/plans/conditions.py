"""Whether a condition of a plan holds."""

from collections.abc import Mapping
from typing import Any

from common.plans.model import Condition
from common.plans.references import Scope, resolve


def holds(condition: Condition, scope: Scope, place: str) -> bool:
    """Say whether a condition holds; raises `MissingValue` where it refers to what there is not."""
    value = resolve(condition.value, scope, f"{place}.value")
    if condition.one_of is not None:
        return any(is_same(value, one) for one in resolve(condition.one_of, scope, f"{place}.one_of"))
    if condition.equals is not None:
        return is_same(value, resolve(condition.equals, scope, f"{place}.equals"))
    return not is_same(value, resolve(condition.not_equals, scope, f"{place}.not_equals"))


def is_same(one: Any, other: Any) -> bool:
    """Say whether two JSON values are one: 1 is 1.0, and true is not 1."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(is_same(value, other[name]) for name, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(is_same, one, other))
    return bool(one == other)
