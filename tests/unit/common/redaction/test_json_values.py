"""A secret does not leave in a JSON value, wherever it stands in it."""

from typing import Any

import pytest

from common.redaction.json_values import hidden_in
from common.redaction.text import redacted
from common.redaction.values import Values

KNOWN = Values(["swordfish", "31415926", 'quoted "word"'])


def hide(text: str) -> str:
    return redacted(text, KNOWN)


@pytest.mark.parametrize(
    ("value", "hidden"),
    [
        ("a swordfish", "a [redacted]"),
        ({"swordfish": [1, {"deep": "swordfish"}]}, {"[redacted]": [1, {"deep": "[redacted]"}]}),
        (["c3dvcmRmaXNo"], ["[redacted]"]),
        (31415926, "[redacted]"),
        ('say quoted "word"', "say [redacted]"),
        ("ghp_0123456789abcdefghij", "[redacted]"),
        ({"password": "nobody knows it"}, {"password": "[redacted]"}),
        ({"password": 12345}, {"password": "[redacted]"}),
        ({"api_key": 'with "quotes" in it'}, {"api_key": "[redacted]"}),
    ],
)
def test_a_secret_is_hidden_and_the_value_stays_json(value: Any, hidden: Any) -> None:
    assert hidden_in(value, hide) == hidden


@pytest.mark.parametrize(
    "value",
    [{"ok": 3, "changed": 0, "rate": 0.5}, [True, False, None], {"password": None, "token": True}, "plain", []],
)
def test_what_is_no_secret_stays_as_it_is(value: Any) -> None:
    assert hidden_in(value, hide) == value
