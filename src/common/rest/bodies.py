"""The bodies of requests, checked against their models before they are sent."""

from typing import Any

from pydantic import ValidationError
from pydantic_core import to_jsonable_python

from common.errors import InvalidField
from common.fields import place_in, problem_in
from common.rest.base import Request


def body_of(model: type[Request], **given: Any) -> dict[str, Any]:
    """Return the JSON of a request with these fields; those that are None are left out.

    Raises `InvalidField` for the first field that the orchestrator would refuse. The value is never repeated, for it
    may be a secret.
    """
    fields = {name: value for name, value in given.items() if value is not None}
    try:
        request = model.model_validate(to_jsonable_python(fields), by_name=True)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, place_in(fields, found["loc"])))
        raise InvalidField(place or "body", problem_in(found, model)) from None
    return request.model_dump(mode="json", by_alias=True, exclude_unset=True)
