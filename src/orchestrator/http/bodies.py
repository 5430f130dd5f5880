"""Validate and document the body of a route whose endpoint takes the `Request`.

FastAPI neither parses a body for such an endpoint nor validates its `Response`. Refusals are the same as for a body
that FastAPI validates. See docs/decisions/0051-hot-routes-take-the-request.md.
"""

from typing import Any, TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError
from pydantic.json_schema import models_json_schema

from orchestrator.http.errors import InvalidBody
from orchestrator.http.strict import JSON, body_of

Model = TypeVar("Model", bound=BaseModel)

# What FastAPI says of a required body that is not there.
MISSING = {"type": "missing", "loc": ("body",), "msg": "Field required"}


def validated(request: Request, model: type[Model]) -> Model:
    """Return the body of a request, which `ReadBodies` has parsed. Raises `InvalidBody`."""
    body = body_of(request.scope)
    if body is None:
        raise InvalidBody([MISSING], None, model)
    try:
        return model.model_validate(body.value, from_attributes=True)  # as FastAPI does
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)
        raise InvalidBody([{**one, "loc": ("body", *one["loc"])} for one in found], body.value, model) from None


def documented(model: type[BaseModel]) -> dict[str, Any]:
    """Return the `openapi_extra` of a route whose endpoint validates this body; it needs `schemas_shared`."""
    schemas, definitions = models_json_schema([(model, "validation")], ref_template="#/components/schemas/{model}")
    schema = {**schemas[model, "validation"], **definitions}
    return {"requestBody": {"required": True, "content": {JSON: {"schema": schema}}}}


def schemas_shared(document: dict[str, Any]) -> dict[str, Any]:
    """Move the schemas that `documented` adds to an OpenAPI document among its components."""
    shared = document["components"]["schemas"]
    for operations in document["paths"].values():
        for operation in operations.values():
            for content in operation.get("requestBody", {}).get("content", {}).values():
                shared |= content["schema"].pop("$defs", {})
    document["components"]["schemas"] = dict(sorted(shared.items()))
    return document
