"""Write extra variables for Ansible so that they are data: no value of a caller is ever evaluated as a template.

The value of a secret is not written: the variable looks it up in the environment of the program when it is used.
"""

from collections.abc import Mapping
from typing import Any

_ESCAPED = {'"': '\\"', "\\": "\\\\"}


def as_yaml(values: Mapping[str, Any], secrets: Mapping[str, str]) -> str:
    """Return YAML of the values, and of variables whose values are in these variables of the environment."""
    written = {_text(name): _value(value) for name, value in values.items()}
    looked_up = {
        _text(name): _text(f"{{{{ lookup('ansible.builtin.env', '{variable}') }}}}")
        for name, variable in secrets.items()
    }
    return _object({**written, **looked_up}) + "\n"


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return _object({_text(name): _value(inner) for name, inner in value.items()})
    if isinstance(value, list):
        return "[" + ", ".join(map(_value, value)) + "]"
    if isinstance(value, str):
        return "!unsafe " + _text(value)
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    return _number(value)


def _object(pairs: Mapping[str, str]) -> str:
    # An explicit key may have any length; an implicit one has at most 1024 characters.
    return "{" + ", ".join(f"? {name} : {value}" for name, value in pairs.items()) + "}"


def _number(value: float) -> str:
    """YAML 1.1 takes 1e+16 for a text: its numbers with an exponent have a point and a sign."""
    text = repr(value)
    mantissa, exponent, power = text.partition("e")
    if not exponent:
        return text
    point = mantissa if "." in mantissa else f"{mantissa}.0"
    return f"{point}e{power if power[0] in '+-' else f'+{power}'}"


def _text(text: str) -> str:
    """YAML in double quotes; what is not printable ASCII is escaped."""
    return '"' + "".join(map(_character, text)) + '"'


def _character(character: str) -> str:
    code = ord(character)
    if 0x20 <= code < 0x7F:
        return _ESCAPED.get(character, character)
    if code <= 0xFF:
        return f"\\x{code:02X}"
    return f"\\u{code:04X}" if code <= 0xFFFF else f"\\U{code:08X}"
