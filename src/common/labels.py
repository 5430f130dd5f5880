"""Labels: what an agent says that it has, and what work says that it needs."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import Field, StringConstraints

from common.json_rules import SafeText

MOST_LABELS = 100
LABEL_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_./-]{0,99}$"

LabelName = Annotated[str, StringConstraints(pattern=LABEL_PATTERN)]
LabelText = Annotated[SafeText, Field(max_length=200)]
Label = bool | int | float | LabelText | Annotated[list[LabelText], Field(max_length=MOST_LABELS)]
NamedLabels = Annotated[dict[LabelName, Label], Field(max_length=MOST_LABELS)]
# A list of names stands for labels that are true.
Labels = NamedLabels | Annotated[list[LabelName], Field(max_length=MOST_LABELS)]


def labels_of(given: Mapping[str, Any] | Sequence[str]) -> dict[str, Any]:
    """Return labels by their names, in the order of the names."""
    named = given if isinstance(given, Mapping) else dict.fromkeys(given, True)
    return {name: named[name] for name in sorted(named)}
