"""Answer the hot routes without the framework: FastAPI documents them, and answers whatever is unusual about them.

A route is direct when its endpoint is marked so, takes one JSON body, and depends only on what a request holds. Its
body, which `ReadBodies` has read, is validated and its answer is written by pydantic in one step each. A body that is
not taken at once goes to FastAPI, as if it had never been looked at, so that refusals are the same everywhere.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from inspect import iscoroutinefunction
from typing import Any, TypeVar

from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.routing import RouteContext, iter_route_contexts
from pydantic import BaseModel, ValidationError
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from common.errors import ChiffonError
from orchestrator.http.context import trace_of
from orchestrator.http.errors import headers_of, problem_of, response
from orchestrator.http.strict import Body

Endpoint = TypeVar("Endpoint", bound=Callable[..., Awaitable[BaseModel]])
_MARK = "__chiffon_direct__"


def direct(endpoint: Endpoint) -> Endpoint:
    """Have a route answered directly; write it below the route's own decorator."""
    setattr(endpoint, _MARK, True)
    return endpoint


class CannotBeDirect(Exception):
    """A route is marked as direct and asks for something that only FastAPI can give."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How to call an endpoint: the model of its body, and its dependencies by the names of its other arguments."""

    route: RouteContext
    endpoint: Callable[..., Awaitable[BaseModel]]
    body_name: str
    model: type[BaseModel]
    request_name: str | None
    dependencies: Sequence[tuple[str | None, Any]]
    exclude_none: bool

    async def answer(self, work: BaseModel, request: Request) -> Response:
        arguments: dict[str, Any] = {self.body_name: work}
        if self.request_name is not None:
            arguments[self.request_name] = request
        for name, call in self.dependencies:
            value = await call(request)
            if name is not None:  # the others are asked for what they refuse
                arguments[name] = value
        answer = await self.endpoint(**arguments)
        return Response(answer.model_dump_json(exclude_none=self.exclude_none), media_type="application/json")


# How direct routes are answered, by method and path.
Plans = Mapping[tuple[str, str], Plan]


class DirectRoutes:
    """Answers requests for the direct routes, and hands on all others. `routes` are known once the app has them all."""

    def __init__(self, app: ASGIApp, *, routes: Plans) -> None:
        self._app = app
        self._routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        plan = self._plan_of(scope) if scope["type"] == "http" else None
        if plan is None:
            await self._app(scope, receive, send)
            return
        work = _validated(plan.model, scope)
        if work is None:
            await self._app(scope, receive, send)
            return
        try:
            answer: Response = await plan.answer(work, Request({**scope, "route": plan.route}))
        except ChiffonError as error:
            answer = response(problem_of(error, trace_of(scope)), headers_of(error))
        await answer(scope, receive, send)

    def _plan_of(self, scope: Scope) -> Plan | None:
        plan = self._routes.get((scope["method"], scope["path"]))
        if plan is None or scope["query_string"] or scope["app"].dependency_overrides:
            return None
        return plan


def _validated(model: type[BaseModel], scope: Scope) -> BaseModel | None:
    """Return what a body says; None when there is none, or it says something else."""
    body: Body | None = scope.get("state", {}).get("body")
    try:
        return None if body is None or body.fault is not None else model.model_validate(body.value)
    except ValidationError:
        return None


def direct_routes(app: FastAPI) -> Plans:
    """Return how the direct routes of an app are answered. Raises `CannotBeDirect`."""
    return {
        (str(method), str(route.path)): _plan(route)
        for route in iter_route_contexts(app.routes)
        if hasattr(getattr(route, "endpoint", None), _MARK)
        for method in route.methods or ()
    }


def _plan(route: RouteContext) -> Plan:
    dependant: Dependant = route.dependant
    asks_for_more = (
        *dependant.path_params,
        *dependant.query_params,
        *dependant.header_params,
        *dependant.cookie_params,
        *(dependency for dependency in dependant.dependencies if not _is_simple(dependency)),
    )
    if asks_for_more or len(dependant.body_params) != 1 or route.status_code not in (None, HTTPStatus.OK):
        raise CannotBeDirect(
            f"{route.path} needs one JSON body, and dependencies that are coroutines of the request alone."
        )
    [body] = dependant.body_params
    model: Any = body.field_info.annotation
    endpoint: Any = route.endpoint
    return Plan(
        route=route,
        endpoint=endpoint,
        body_name=body.name,
        model=model,
        request_name=dependant.request_param_name,
        dependencies=tuple((one.name, one.call) for one in dependant.dependencies),
        exclude_none=route.response_model_exclude_none,
    )


def _is_simple(dependency: Dependant) -> bool:
    """Say whether a dependency is a coroutine that is called with the request and nothing else."""
    wants_more = (
        *dependency.dependencies,
        *dependency.path_params,
        *dependency.query_params,
        *dependency.header_params,
        *dependency.cookie_params,
        *dependency.body_params,
    )
    takes_request = (dependency.request_param_name or dependency.http_connection_param_name) is not None
    return takes_request and not wants_more and _is_async(dependency.call)


def _is_async(call: Any) -> bool:
    return iscoroutinefunction(call) or iscoroutinefunction(type(call).__call__)
