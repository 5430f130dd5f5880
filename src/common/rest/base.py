"""The bases of all requests and of all answers."""

from enum import StrEnum
from typing import Annotated, Any, ClassVar, TypeVar, cast, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    ValidationError,
    ValidatorFunctionWrapHandler,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema


class Request(BaseModel):
    """The base of requests. An unknown field is refused: it may be a typing error."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid")


class Answer(BaseModel):
    """The base of answers. An unknown field is ignored: a newer server may send some.

    A field that is added later has a default, so that a newer client reads the answers of an older server.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="ignore", from_attributes=True)


class _TextIfUnknown:
    """Reads a value that the enumeration does not have as text; the schema names those that it has."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        enumeration, _ = get_args(source)
        return core_schema.no_info_wrap_validator_function(
            _text_if_unknown,
            handler.generate_schema(enumeration),
            serialization=core_schema.plain_serializer_function_ser_schema(str),
        )

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return handler(cast("CoreSchema", {name: part for name, part in schema.items() if name != "serialization"}))


def _text_if_unknown(value: Any, known: ValidatorFunctionWrapHandler) -> Any:
    try:
        return known(value)
    except ValidationError:
        if isinstance(value, str):
            return value
        raise


Enumeration = TypeVar("Enumeration", bound=StrEnum)

# An enumeration in an answer whose newer values a client can live with: it gets them as text.
OrNewer = Annotated[Enumeration | str, _TextIfUnknown()]
