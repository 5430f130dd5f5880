"""Hide secrets in a JSON value, wherever they stand in it: in texts, names and numbers.

A name and its value are also searched together, because `password` beside a text tells what the text is.
"""

import json
from collections.abc import Callable
from typing import Any

from common.redaction.stream import MARK

Hide = Callable[[str], str]

_MARK = MARK.decode()


def hidden_in(value: Any, hide: Hide) -> Any:
    """Return the value with every text in it as `hide` leaves it; a number that is a secret becomes a text."""
    if isinstance(value, dict):
        return {hide(name): _beside(name, inner, hide) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [hidden_in(inner, hide) for inner in value]
    if isinstance(value, str):
        return hide(value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value if hide(str(value)) == str(value) else _MARK
    return value


def _beside(name: str, value: Any, hide: Hide) -> Any:
    hidden = hidden_in(value, hide)
    if hidden is None or isinstance(hidden, bool | dict | list):
        return hidden
    pair = f"{json.dumps(hide(name))}: {json.dumps(str(hidden))}"
    return hidden if hide(pair) == pair else _MARK
