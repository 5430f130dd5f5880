"""A label is a text, a number, a truth value or a list of texts; anything else is refused by its name."""

import math
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from common.labels import LONGEST_TEXT, MOST_LABELS, Labels, labels_of

LABELS: TypeAdapter[dict[str, Any]] = TypeAdapter(Labels)


def test_labels_are_kept_as_they_are_and_names_alone_are_true() -> None:
    given = {"zone": "eu", "gpu_memory_gb": 24, "share": 0.5, "ssd": True, "tools": ["sox", "ffmpeg"]}

    assert LABELS.validate_python(given) == given
    assert LABELS.validate_python(["ssd", "gpu"]) == {"ssd": True, "gpu": True}
    assert list(labels_of({"b": 1, "a": 2})) == ["a", "b"]


def test_so_many_labels_with_texts_so_long_are_kept() -> None:
    given = {f"l{n}": "x" * LONGEST_TEXT for n in range(MOST_LABELS)}

    assert LABELS.validate_python(given) == given


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (7, "an object of labels"),
        ([1], "an object of labels"),
        ({"": 1}, "'' is no name"),
        ({"a b": 1}, "'a b' is no name"),
        ({"gpu": None}, "gpu: must be a text"),
        ({"gpu": {"memory": 1}}, "gpu: must be a text"),
        ({"gpu": [1]}, "gpu: must be a text"),
        ({"gpu": math.nan}, "gpu: must be a number from"),
        ({"gpu": math.inf}, "gpu: must be a number from"),
        ({"gpu": 2**53}, "gpu: must be a number from -9007199254740991 to 9007199254740991"),
        ({"gpu": 10**400}, "gpu: must be a number from"),
        ({"gpu": "x" * 201}, "gpu: must have at most 200"),
        ({"gpu": "\x00"}, r"gpu: must not contain control .* U\+0000"),
        ({"zone": "e\x1b[2Ju"}, r"zone: must not contain control .* U\+001B"),
        ({"zone": ["eu", "\u202e"]}, r"zone: must not contain control or bidirectional .* U\+202E"),
        ({"gpu": 2.0**53}, "gpu: must be a number from"),
        ({f"l{n}": ["x" * LONGEST_TEXT] * 5 for n in range(MOST_LABELS)}, "at most 65536 bytes of JSON"),
        ({f"l{n}": n for n in range(101)}, "at most 100"),
    ],
)
def test_what_is_no_label_is_refused_by_its_name(given: Any, said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        LABELS.validate_python(given)
