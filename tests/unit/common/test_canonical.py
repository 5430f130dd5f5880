"""One text for one value, however it travelled: RFC 8785."""

import hashlib
import json
import struct
from types import MappingProxyType
from typing import Any

import asyncpg
import pytest
import rfc8785
from hypothesis import example, given
from hypothesis import strategies as st

from common.canonical import canonical_json, work_digest
from orchestrator.database.pool import prepare

LARGEST = 2**53 - 1
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=20)
NUMBERS = st.integers(-LARGEST, LARGEST) | st.floats(allow_nan=False, allow_infinity=False)
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)

# Appendix B of RFC 8785: the bits of a double, and its text.
RFC_NUMBERS = {
    "0000000000000000": "0",
    "8000000000000000": "0",
    "0000000000000001": "5e-324",
    "8000000000000001": "-5e-324",
    "7fefffffffffffff": "1.7976931348623157e+308",
    "ffefffffffffffff": "-1.7976931348623157e+308",
    "4340000000000000": "9007199254740992",
    "c340000000000000": "-9007199254740992",
    "4430000000000000": "295147905179352830000",
    "44b52d02c7e14af5": "9.999999999999997e+22",
    "44b52d02c7e14af6": "1e+23",
    "44b52d02c7e14af7": "1.0000000000000001e+23",
    "444b1ae4d6e2ef4e": "999999999999999700000",
    "444b1ae4d6e2ef4f": "999999999999999900000",
    "444b1ae4d6e2ef50": "1e+21",
    "3eb0c6f7a0b5ed8c": "9.999999999999997e-7",
    "3eb0c6f7a0b5ed8d": "0.000001",
    "41b3de4355555553": "333333333.3333332",
    "41b3de4355555554": "333333333.33333325",
    "41b3de4355555555": "333333333.3333333",
    "41b3de4355555556": "333333333.3333334",
    "41b3de4355555557": "333333333.33333343",
    "becbf647612f3696": "-0.0000033333333333333333",
    "43143ff3c1cb0959": "1424953923781206.2",
}


# Values and their texts, written by hand after RFC 8785.
BY_HAND: list[tuple[Any, str]] = [
    ({"b": 1, "a": {"d": None, "c": False}}, '{"a":{"c":false,"d":null},"b":1}'),
    ({"a": "ä€", "ö": "\U0001f600"}, '{"a":"ä€","ö":"\U0001f600"}'),
    ({"\ue000": 1, "\U00010000": 2}, '{"\U00010000":2,"\ue000":1}'),
    (MappingProxyType({"\ue000": 1, "\U00010000": 2}), '{"\U00010000":2,"\ue000":1}'),
    ([True, 100.0, None], "[true,100,null]"),
    ([False, 1, "1"], '[false,1,"1"]'),
    ({"n": 100.0}, '{"n":100}'),
    ({"n": -0.0}, '{"n":0}'),
    ({"n": 0.1}, '{"n":0.1}'),
    ({"n": 0.00001}, '{"n":0.00001}'),
    ({"n": 1e21}, '{"n":1e+21}'),
    (2**53 - 1, "9007199254740991"),
    ('\x1f\x7f\n\u2028/"\\', '"\\u001f\x7f\\n\u2028/\\"\\\\"'),
]


@pytest.mark.parametrize(("value", "text"), BY_HAND)
def test_a_value_has_exactly_this_text(value: Any, text: str) -> None:
    assert canonical_json(value) == text.encode()


@given(VALUES)
@example({"\ue000": 1, "\U00010000": 2, "a": {"\uffff": 1, "\U0010ffff": 2}})
def test_the_text_is_that_of_another_implementation(value: Any) -> None:
    assert canonical_json(value) == rfc8785.dumps(value)


@given(NUMBERS)
def test_a_number_alone_has_the_text_of_another_implementation(number: float) -> None:
    assert canonical_json(number) == rfc8785.dumps(number)


@pytest.mark.parametrize(("bits", "text"), RFC_NUMBERS.items())
def test_numbers_are_written_as_the_rfc_writes_them(bits: str, text: str) -> None:
    [number] = struct.unpack(">d", bytes.fromhex(bits))

    assert canonical_json(number) == text.encode()
    assert canonical_json([{"n": number}]) == b'[{"n":' + text.encode() + b"}]"


def test_the_sample_of_the_rfc_has_its_text() -> None:
    sample = r"""{
        "numbers": [333333333.33333329, 1E30, 4.50, 2e-3, 0.000000000000000000000000001],
        "string": "\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/",
        "literals": [null, true, false]
    }"""
    expected = (
        r'{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],'
        r'"string":"€$\u000f\nA' + r"'" + r'B\"\\\\\"/"}'
    )

    assert canonical_json(json.loads(sample)) == expected.encode()


def test_names_are_sorted_by_their_utf_16_code_units() -> None:
    names = ["\u20ac", "\r", "\ufb33", "1", "\U0001f600", "\u0080", "\u00f6"]

    text = canonical_json(dict.fromkeys(names))

    assert list(json.loads(text)) == ["\r", "1", "\u0080", "\u00f6", "\u20ac", "\U0001f600", "\ufb33"]


@given(VALUES)
def test_reading_it_back_and_writing_it_again_changes_nothing(value: Any) -> None:
    text = canonical_json(_exact(value))

    assert canonical_json(json.loads(text)) == text


@pytest.mark.parametrize(("one", "other"), [(100.0, 100), (-0.0, 0), (2.0**53 - 1, 2**53 - 1)])
def test_numbers_of_the_same_value_have_one_text(one: Any, other: Any) -> None:
    assert canonical_json({"n": one}) == canonical_json({"n": other})


@pytest.mark.parametrize("value", [2**53, -(2**53), 10**300])
def test_an_integer_that_a_double_may_not_hold_has_no_text(value: int) -> None:
    for around in (value, [value], {"a": {"b": value, "c": 1.5}}):
        with pytest.raises(ValueError, match="9007199254740991"):
            canonical_json(around)


def test_names_are_in_order_and_nothing_is_between_them() -> None:
    assert canonical_json({"b": [1, "ä"], "a": None}) == '{"a":null,"b":[1,"ä"]}'.encode()


def test_any_mapping_and_tuple_is_written_as_an_object_and_a_list() -> None:
    assert canonical_json(MappingProxyType({"a": (1, MappingProxyType({}))})) == b'{"a":[1,{}]}'


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "\ud800"])
def test_what_json_cannot_hold_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match=r"NaN|surrogate"):
        canonical_json([value])


@pytest.mark.parametrize("value", [{1: 2}, {"a": {2: 1}}, {"é": {None: 1}}, b"x", {1, 2}, [object()]])
def test_what_json_has_no_word_for_is_refused(value: Any) -> None:
    with pytest.raises(TypeError):
        canonical_json(value)


async def test_a_value_that_was_in_the_ledger_has_the_same_text(database_url: str) -> None:
    numbers: list[Any] = [100.0, 1e2, 100, 0.1, 1e-7, 5e-324, -0.0, 2**53 - 1, 2.0**53 - 1]
    values = [*numbers, "é\u2028", {"x": [1.50], "\ue000": 0}]
    connection = await asyncpg.connect(database_url)
    try:
        await prepare(connection)
        stored = await connection.fetchval("SELECT $1::jsonb", values)
    finally:
        await connection.close()

    assert canonical_json(stored) == canonical_json(values) == rfc8785.dumps(values)


# Work, the text that its digest is computed over, written by hand, and the digest.
WORKS: list[tuple[dict[str, Any], str, str]] = [
    (
        {
            "work_type": "echo",
            "parameters": {"message": "hello"},
            "hints": {},
            "target": "infra",
            "policy_version": "3-abc",
        },
        '{"hints":{},"parameters":{"message":"hello"},"policy_version":"3-abc","target":"infra","work_type":"echo"}',
        "302fbb81a7cb61527dae1bf9b9f92ac730b45fbba66c93c47b57b3f257a8e934",
    ),
    (
        {
            "work_type": "shell_script",
            "parameters": {"max_duration_seconds": 10.0, "env": {"X": "ü"}, "argv": ["true"]},
            "hints": {"required_capabilities": {"zone": "eu"}},
            "target": "infra",
            "policy_version": "3-abc",
        },
        (
            '{"hints":{"required_capabilities":{"zone":"eu"}},'
            '"parameters":{"argv":["true"],"env":{"X":"ü"},"max_duration_seconds":10},'
            '"policy_version":"3-abc","target":"infra","work_type":"shell_script"}'
        ),
        "03b3696dab2e9c7f5db8a4a54030f8d6572284e66fe3aa3e2601c377b1e7044c",
    ),
]


@pytest.mark.parametrize(("work", "text", "digest"), WORKS, ids=["plain", "with hints"])
def test_the_digest_of_work_is_that_of_exactly_this_text(work: dict[str, Any], text: str, digest: str) -> None:
    assert hashlib.sha256(text.encode()).hexdigest() == digest
    assert work_digest(**work).hex() == digest


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


def _exact(value: Any) -> Any:
    """Return a value without whole floats that a reader takes for integers beyond what a double holds."""
    if isinstance(value, float):
        return 0.5 if value.is_integer() and LARGEST < abs(value) < 1e21 else value
    if isinstance(value, list):
        return [_exact(inner) for inner in value]
    return {name: _exact(inner) for name, inner in value.items()} if isinstance(value, dict) else value
