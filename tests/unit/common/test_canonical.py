"""One text for one value, however it travelled."""

import json
from typing import Any

import asyncpg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.canonical import canonical_json, work_digest
from orchestrator.database.pool import prepare

TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=20)
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)


@given(VALUES)
def test_reading_it_back_and_writing_it_again_changes_nothing(value: Any) -> None:
    text = canonical_json(value)

    assert canonical_json(json.loads(text)) == text


@pytest.mark.parametrize(
    ("one", "other"),
    [(100.0, 100), (-0.0, 0), (1e300, 10**300), (2.0**60, 1152921504606847000)],
)
def test_numbers_of_the_same_decimal_value_have_one_text(one: Any, other: Any) -> None:
    assert canonical_json({"n": one}) == canonical_json({"n": other})


def test_names_are_in_order_and_nothing_is_between_them() -> None:
    assert canonical_json({"b": [1, "ä"], "a": None}) == '{"a":null,"b":[1,"ä"]}'.encode()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "\ud800"])
def test_what_json_cannot_hold_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match=r"NaN|surrogate"):
        canonical_json([value])


async def test_a_value_that_was_in_the_ledger_has_the_same_text(database_url: str) -> None:
    values = [1e2, 1e300, 2.0**60, 123456789012345680.0, 0.1, 1e-7, 5e-324, -0.0, 2**63 - 1, "é\u2028", {"x": [1.50]}]
    connection = await asyncpg.connect(database_url)
    try:
        await prepare(connection)
        stored = await connection.fetchval("SELECT $1::jsonb", values)
    finally:
        await connection.close()

    assert canonical_json(stored) == canonical_json(values)


def test_any_part_of_the_work_changes_the_digest() -> None:
    work: dict[str, Any] = {
        "work_type": "shell_script",
        "parameters": {"argv": ["true"]},
        "hints": {},
        "target": "infra",
        "policy_version": "1",
    }
    others: list[dict[str, Any]] = [
        {"work_type": "echo"},
        {"parameters": {"argv": ["false"]}},
        {"hints": {"agent_type": "infra"}},
        {"target": "desktop"},
        {"policy_version": "2"},
    ]

    digests = {work_digest(**{**work, **other}) for other in [{}, *others]}

    assert len(digests) == len(others) + 1
