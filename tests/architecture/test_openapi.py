"""The OpenAPI document: each model has one name, each operation a readable one, and generators know who may call."""

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.routing import iter_route_contexts

from orchestrator.identities.access import PUBLIC
from orchestrator.main import create_app
from tests.openapi import DOCUMENT

APP = create_app()
SCHEMAS: dict[str, Any] = DOCUMENT["components"]["schemas"]
OPERATIONS = [
    (f"{method.upper()} {path}", path, operation)
    for path, operations in DOCUMENT["paths"].items()
    for method, operation in operations.items()
]
# FastAPI's own shapes of errors, which no route answers.
NOT_OURS = {"HTTPValidationError", "ValidationError"}


def test_a_schema_is_titled_as_it_is_named_and_no_name_is_that_of_a_module() -> None:
    titled = {name: schema["title"] for name, schema in SCHEMAS.items() if name != "JsonValue"}  # any JSON

    assert titled == {name: name for name in titled}
    assert [name for name in SCHEMAS if not re.fullmatch(r"[A-Z][A-Za-z]+", name)] == []


def test_no_two_schemas_have_one_title() -> None:
    titles = Counter(schema.get("title", name) for name, schema in SCHEMAS.items())

    assert [title for title, count in titles.items() if count > 1] == []


def test_every_schema_and_every_field_is_described() -> None:
    silent = [name for name, schema in SCHEMAS.items() if "description" not in schema and name != "JsonValue"]
    silent += [
        f"{name}.{field}"
        for name, schema in SCHEMAS.items()
        for field, how in schema.get("properties", {}).items()
        if "description" not in how
    ]

    assert silent == []


def test_an_operation_is_called_as_its_function() -> None:
    functions = {
        f"{method} {str(route.path).replace(':path}', '}')}": getattr(route, "endpoint", None)
        for route in iter_route_contexts(APP.routes)
        for method in route.methods or ()
    }

    assert {where: operation["operationId"] for where, _, operation in OPERATIONS} == {
        where: getattr(functions[where], "__name__", None) for where, _, _ in OPERATIONS
    }


def test_no_two_operations_have_one_name_and_all_are_words() -> None:
    names = Counter(operation["operationId"] for _, _, operation in OPERATIONS)

    assert [name for name, count in names.items() if count > 1 or not re.fullmatch(r"[a-z]+(_[a-z]+)*", name)] == []


@pytest.mark.parametrize(("path", "operation"), [one[1:] for one in OPERATIONS], ids=[one[0] for one in OPERATIONS])
def test_an_operation_asks_for_a_bearer_token_unless_it_is_public(path: str, operation: dict[str, Any]) -> None:
    schemes = DOCUMENT["components"]["securitySchemes"]
    asked = [schemes[name] for one in operation.get("security", ()) for name in one]

    assert [(one["type"], one["scheme"]) for one in asked] == ([] if path in PUBLIC else [("http", "bearer")])


def test_a_signed_path_is_followed_without_a_token_and_refused_with_a_reason() -> None:
    operation = DOCUMENT["paths"]["/artifacts/{artifact_id}/{name}"]["get"]
    optional = [where for where, _, operation in OPERATIONS if {} in operation.get("security", ())]

    assert optional == ["GET /artifacts/{artifact_id}/{name}"]
    assert "expired" in operation["responses"]["403"]["description"]


def test_every_error_has_the_one_shape() -> None:
    shapes = {
        f"{where} {status}": content["schema"].get("$ref")
        for where, _, operation in OPERATIONS
        for status, answer in operation["responses"].items()
        if status >= "400"
        for content in answer["content"].values()
    }
    others = {where for where, shape in shapes.items() if shape != "#/components/schemas/ErrorResponse"}

    assert others == {"GET /ready 503"}  # it says what is not well
    assert not NOT_OURS & set(SCHEMAS)


def _references(part: Any) -> Iterator[str]:
    if isinstance(part, dict):
        if "$ref" in part:
            yield part["$ref"]
        for inner in part.values():
            yield from _references(inner)
    elif isinstance(part, list):
        for inner in part:
            yield from _references(inner)


def test_every_reference_leads_to_a_schema() -> None:
    assert {one.rpartition("/")[2] for one in _references(DOCUMENT)} <= set(SCHEMAS)
