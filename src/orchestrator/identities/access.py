"""What a route asks of its caller: `requires(Permission.…)`. With a route that asks for nothing no app is made.

The caller was put into the request by the door (`door.py`).
"""

from collections.abc import Collection, Iterator
from typing import Annotated, Any

from fastapi import Depends, FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.routing import RouteContext, iter_route_contexts
from starlette.requests import HTTPConnection
from starlette.types import Scope

from common.rest.identities import Permission
from orchestrator.http import docs
from orchestrator.http.errors import ERROR_CONTENT
from orchestrator.identities.model import Caller, Unauthenticated

# Routes that need no token. Those of `DETAILED` show more to a caller with one.
PUBLIC = frozenset({"/health", "/ready", "/api/v1/enrol", *docs.PATHS})
DETAILED = frozenset({"/ready"})

SCHEME = "token"
BEARER = {
    "type": "http",
    "scheme": "bearer",
    "description": "A token of a person or a service, or the credential of an agent.",
}
REFUSALS = {
    "401": "Nobody knows who asks (4001).",
    "403": "Whoever asks may not do this (4003).",
    "429": "Too many requests (4029); `Retry-After` says how long to wait.",
}


class Requires:
    """Lets a request pass whose caller has a permission; with None, any caller. Raises `Forbidden`."""

    def __init__(self, permission: Permission | None) -> None:
        self.permission = permission

    async def __call__(self, connection: HTTPConnection) -> Caller:
        caller = caller_of(connection.scope)
        if self.permission is not None:
            caller.require(self.permission)
        return caller


_REQUIRES = {permission: Requires(permission) for permission in (None, *Permission)}


def requires(permission: Permission | None) -> Any:
    """Return the dependency of a route that needs a permission; its value is the caller."""
    return Depends(_REQUIRES[permission])


# For routes that do not look at who their caller is.
READ = requires(Permission.READ)

Anybody = Annotated[Caller, requires(None)]
MayRead = Annotated[Caller, requires(Permission.READ)]
MayDispatch = Annotated[Caller, requires(Permission.DISPATCH)]
MayOperate = Annotated[Caller, requires(Permission.OPERATE)]
MayApprove = Annotated[Caller, requires(Permission.APPROVE)]
MayAudit = Annotated[Caller, requires(Permission.AUDIT)]
MayAdminister = Annotated[Caller, requires(Permission.ADMINISTER)]
MayWork = Annotated[Caller, requires(Permission.WORK)]


def caller_of(scope: Scope) -> Caller:
    """Return who makes a request."""
    caller = find_caller(scope)
    if caller is None:
        raise Unauthenticated("Nobody was asked who makes this request.")
    return caller


def door_documented(document: dict[str, Any]) -> dict[str, Any]:
    """Add to an OpenAPI document what the door asks for and answers, for every operation that it guards.

    An operation that says itself which `security` it has keeps that.
    """
    document["components"]["securitySchemes"] = {SCHEME: BEARER}
    for path, operations in document["paths"].items():
        if path in PUBLIC:
            continue
        for operation in operations.values():
            operation.setdefault("security", [{SCHEME: []}])
            for status, description in REFUSALS.items():
                operation["responses"].setdefault(status, {"description": description, "content": ERROR_CONTENT})
    return document


def find_caller(scope: Scope) -> Caller | None:
    """Return who makes a request; None on a public route that is used without a token."""
    caller: Caller | None = scope.get("state", {}).get("caller")
    return caller


class RouteIsOpen(Exception):
    """A route is neither public nor says which permission it needs."""


def check_routes(app: FastAPI) -> None:
    """Raise `RouteIsOpen` unless every route is public or names a permission."""
    for route in iter_route_contexts(app.routes):
        if route.path not in PUBLIC and not demands_of(route):
            raise RouteIsOpen(f"{route.path or route}: let it depend on requires(Permission.…); see {__name__}.")


def demands_of(route: RouteContext) -> list[Permission | None]:
    """Return the permissions that a route needs; None among them for any caller. Empty when it asks for nothing."""
    dependant: Dependant | None = getattr(route, "dependant", None)
    return [] if dependant is None else list(_demands(dependant.dependencies))


def _demands(dependencies: Collection[Dependant]) -> Iterator[Permission | None]:
    for one in dependencies:
        if isinstance(one.call, Requires):
            yield one.call.permission
        yield from _demands(one.dependencies)
