"""The result of work: a JSON value that an executor returns beside its output."""

import json
from typing import Annotated, Any

from pydantic import AfterValidator, JsonValue

from common.canonical import canonical_json
from common.json_rules import check_json, check_size

MAX_RESULT_BYTES = 64 * 1024


def canonical_result(value: Any) -> JsonValue:
    """Return the value as its canonical JSON text says it; raises ValueError for what cannot be stored or sent on."""
    try:
        text = canonical_json(check_json(value))
        check_size(value, MAX_RESULT_BYTES)
    except TypeError as error:
        raise ValueError(f"must be JSON: {error}") from None
    found: JsonValue = json.loads(text)
    return found


Result = Annotated[JsonValue, AfterValidator(canonical_result)]
