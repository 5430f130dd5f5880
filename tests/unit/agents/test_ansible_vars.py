"""Whatever a caller gives as a variable arrives as that value, and never as a template."""

import re
from typing import Any

import yaml  # type: ignore[import-untyped]
from hypothesis import given
from hypothesis import strategies as st

from agents.executors.ansible_vars import as_yaml

TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=10,
)


class Reader(yaml.SafeLoader):  # type: ignore[misc]
    """Reads `!unsafe` as Ansible does: a text, marked as no template."""


Reader.add_constructor("!unsafe", lambda reader, node: reader.construct_scalar(node))


@given(st.dictionaries(TEXTS, VALUES, max_size=4))
def test_a_value_is_read_as_what_it_was(values: dict[str, Any]) -> None:
    assert yaml.load(as_yaml(values, {}), Reader) == values


def test_a_name_may_be_long() -> None:
    values = {"a": {"x" * 5_000: 1}}

    assert yaml.load(as_yaml(values, {}), Reader) == values


@given(TEXTS)
def test_every_text_of_a_caller_is_marked_as_no_template(text: str) -> None:
    written = as_yaml({"a": [text, {"b": text}]}, {})

    assert re.fullmatch(r'\{\? "a" : \[!unsafe ".*", \{\? "b" : !unsafe ".*"\}\]\}\n', written)


def test_a_secret_is_looked_up_and_not_written() -> None:
    lookup = "{{ lookup('ansible.builtin.env', 'CHIFFON_EXTRA_VAR_0') }}"

    assert as_yaml({}, {"db": "CHIFFON_EXTRA_VAR_0"}) == f'{{? "db" : "{lookup}"}}\n'
