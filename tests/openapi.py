"""The OpenAPI document, made once for all tests of a process, which must not change it."""

from typing import Any

from orchestrator.main import create_app

DOCUMENT: dict[str, Any] = create_app().openapi()
