"""Routes that belong to no app: they are made once, with their module, and every app of the process has the same.

FastAPI would make each route of an included router once more for each app, which is the larger part of making an app.
"""

from collections.abc import Callable, MutableMapping, Sequence
from contextvars import ContextVar
from typing import Any

from fastapi import APIRouter
from fastapi.params import Depends
from fastapi.routing import APIRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from orchestrator.http.strict import NOTHING_IS_DROPPED

Replaced = MutableMapping[Callable[..., Any], Callable[..., Any]]

_replaced: ContextVar[Replaced | None] = ContextVar("replaced_dependencies", default=None)


class _OfTheApp:
    """What FastAPI asks for replaced dependencies: has those of the app that serves the request."""

    @property
    def dependency_overrides(self) -> Replaced:
        return _replaced.get() or {}


class ReplacedDependencies:
    """Lets `app.dependency_overrides` hold for routes that belong to no app."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        _replaced.set(scope["app"].dependency_overrides)
        await self._app(scope, receive, send)


class Router(APIRouter):
    """Routes that take nothing which they do not know."""

    def __init__(self, *, dependencies: Sequence[Depends] = (), **given: Any) -> None:
        super().__init__(
            dependencies=[NOTHING_IS_DROPPED, *dependencies],
            generate_unique_id_function=_operation_id,
            dependency_overrides_provider=_OfTheApp(),
            **given,
        )


def _operation_id(route: APIRoute) -> str:
    """Return what OpenAPI calls an operation, and generated clients a function: the name of the endpoint's function."""
    return route.name
