"""The OpenAPI document, made once for all tests of a process, which must not change it."""

from typing import Any

from orchestrator.main import create_app

DOCUMENT: dict[str, Any] = create_app().openapi()


def json_body(operation: dict[str, Any]) -> dict[str, Any] | None:
    """Return the schema of the JSON that an operation takes; None for one without a body, or with one of bytes."""
    content = operation.get("requestBody", {}).get("content", {}).get("application/json")
    return None if content is None else content["schema"]
