"""The hints of a step: checked like those of a dispatch, as far as they are known already."""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from common.errors import InvalidField
from common.fields import not_known
from common.plans.places import below, invalid
from common.plans.references import has_references
from common.rest.work import Hints


def hints_of(given: Mapping[str, Any], place: str) -> dict[str, Any]:
    """Return hints as a dispatch has them; raises `InvalidField`."""
    try:
        return Hints.model_validate(given).model_dump(mode="json", exclude_none=True)
    except ValidationError as error:
        raise invalid(error, given, Hints, place) from None


def check_hints(given: Mapping[str, Any], place: str) -> None:
    """Raise `InvalidField` for the first hint that cannot be one, whatever its references stand for."""
    for name, value in given.items():
        if name not in Hints.model_fields:
            raise InvalidField(below(place, name), not_known(name, Hints.model_fields))
        if not has_references(value):
            hints_of({name: value}, place)
