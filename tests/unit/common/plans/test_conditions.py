"""When a condition holds."""

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from common.canonical import MAX_INTEGER, canonical_json
from common.errors import InvalidField
from common.plans.conditions import holds, is_same
from common.plans.model import Condition
from common.plans.references import MissingValue, Scope
from tests.fuzz.bounds import bounded

SCOPE = Scope({"stage": "prod", "count": 3, "none": None, "wanted": ["prod", 3]}, {}, lambda _: {"status": "failed"})


@pytest.mark.parametrize(
    ("condition", "does"),
    [
        ({"value": "${inputs.stage}", "equals": "prod"}, True),
        ({"value": "${inputs.stage}", "equals": "test"}, False),
        ({"value": "${inputs.stage}", "not_equals": "test"}, True),
        ({"value": "${inputs.stage}", "not_equals": "prod"}, False),
        ({"value": "${inputs.stage}", "one_of": ["test", "prod"]}, True),
        ({"value": "${inputs.stage}", "one_of": ["test"]}, False),
        ({"value": "${inputs.count}", "equals": 3.0}, True),
        ({"value": "${inputs.count}", "equals": "3"}, False),
        ({"value": "${inputs.none}", "one_of": [None]}, True),
        ({"value": "${inputs.nothing?}", "one_of": [None]}, True),
        ({"value": "${inputs.nothing?}", "not_equals": "x"}, True),
        ({"value": "${inputs.nothing?}", "equals": "x"}, False),
        ({"value": "prod", "equals": "${inputs.stage}"}, True),
        ({"value": "prod", "not_equals": "${inputs.stage}"}, False),
        ({"value": 3, "one_of": ["${inputs.stage}", "${inputs.count}"]}, True),
        ({"value": ["prod", 3], "equals": "${inputs.wanted}"}, True),
        ({"value": "${steps.x.status}", "equals": "failed"}, True),
    ],
)
def test_a_condition_compares_values(condition: dict[str, Any], does: bool) -> None:
    assert holds(Condition.model_validate(condition), SCOPE, "when") is does


@pytest.mark.parametrize("field", ["value", "equals", "not_equals"])
def test_a_value_that_is_missing_is_neither_the_same_nor_another(field: str) -> None:
    given = {"value": 1, "equals": 1} if field == "value" else {"value": 1}

    with pytest.raises(MissingValue) as error:
        holds(Condition.model_validate({**given, field: "${inputs.nothing}"}), SCOPE, "when")

    assert error.value.field == f"when.{field}"


def test_one_of_several_that_is_missing_is_named() -> None:
    with pytest.raises(InvalidField, match=r"^when\.one_of\[1\]: "):
        holds(Condition(value=1, one_of=[2, "${inputs.nothing}"]), SCOPE, "when")


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-2, 2)
    | st.integers(-MAX_INTEGER, MAX_INTEGER)
    | st.floats(-2, 2)
    | st.sampled_from([0.0, -0.0, 1.0, 2.0])
    | st.text(alphabet="a1", max_size=2)
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(alphabet="ab", max_size=1), inner),
    max_leaves=6,
)


@bounded(50)
@given(VALUES, VALUES)
@example(True, 1)
@example([0], [False])
@example({"a": 1}, {"a": 1.0})
@example(None, False)
def test_two_values_are_the_same_when_their_canonical_texts_are(one: Any, other: Any) -> None:
    assert is_same(one, other) == (canonical_json(one) == canonical_json(other))
    assert is_same(one, one)
