"""Read TOML as people write it."""

import tomllib
from typing import Any


def read_toml(text: str) -> dict[str, Any]:
    """Return what a text says. Raises `ValueError` for whatever cannot be read."""
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
