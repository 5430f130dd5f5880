"""The parameters of a work type as JSON Schema: how an agent announces a type that is not built in."""

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, Field, JsonValue

from common.json_rules import check_json, check_size
from common.work import AnyWorkType

MAX_SCHEMA_BYTES = 16 * 1024
MOST_SCHEMAS = 100

JsonSchema = dict[str, JsonValue]


def schema_of(model: type[BaseModel]) -> JsonSchema:
    """Return the JSON Schema of parameters."""
    schema: JsonSchema = model.model_json_schema()
    return schema


def check_schema(schema: Any) -> JsonSchema:
    """Return the schema; raises ValueError when it cannot be stored or is too large."""
    found: JsonSchema = check_json(schema)
    check_size(found, MAX_SCHEMA_BYTES)
    return found


Schemas = Annotated[
    dict[AnyWorkType, Annotated[JsonSchema, AfterValidator(check_schema)]], Field(max_length=MOST_SCHEMAS)
]
