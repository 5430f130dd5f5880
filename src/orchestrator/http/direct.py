"""Answer the hot routes without the framework: FastAPI documents them, and answers whatever is unusual about them.

A route is direct when its endpoint is marked so, takes one JSON body, and depends only on what a request holds. Its
body is validated and its answer is written by pydantic in one step each. A body that is not taken at once goes to
FastAPI, as if it had never been looked at, so that refusals are the same everywhere.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping
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
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from common.errors import ChiffonError
from orchestrator.http.context import trace_of
from orchestrator.http.errors import headers_of, problem_of, response

Endpoint = TypeVar("Endpoint", bound=Callable[..., Awaitable[BaseModel]])
_MARK = "__chiffon_direct__"


def direct(endpoint: Endpoint) -> Endpoint:
    """Have a route answered directly; write it below the route's own decorator."""
    setattr(endpoint, _MARK, True)
    return endpoint


class CannotBeDirect(Exception):
    """A route is marked as direct and asks for something that only FastAPI can give."""


@dataclass(frozen=True, slots=True)
class _Plan:
    """How to call an endpoint: the model of its body, and what gives its other arguments."""

    endpoint: Callable[..., Awaitable[BaseModel]]
    body_name: str
    model: type[BaseModel]
    request_name: str | None
    given: Mapping[str, Callable[[Request], Any]]
    awaited: Mapping[str, Callable[[Request], Awaitable[Any]]]
    exclude_none: bool

    async def answer(self, work: BaseModel, request: Request) -> Response:
        arguments: dict[str, Any] = {self.body_name: work}
        if self.request_name is not None:
            arguments[self.request_name] = request
        for name, give in self.given.items():
            arguments[name] = give(request)
        for name, ask in self.awaited.items():
            arguments[name] = await ask(request)
        answer = await self.endpoint(**arguments)
        return Response(answer.model_dump_json(exclude_none=self.exclude_none), media_type="application/json")


class DirectRoutes:
    """Answers requests for the direct routes of the app, and hands on all others."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._plans: dict[tuple[str, str], _Plan] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        plan = self._plan_of(scope) if scope["type"] == "http" else None
        if plan is None:
            await self._app(scope, receive, send)
            return
        body, messages = await _read(receive)
        work = _validated(plan.model, body)
        if work is None:
            await self._app(scope, _again(messages, receive), send)
            return
        try:
            answer: Response = await plan.answer(work, Request(scope))
        except ChiffonError as error:
            answer = response(problem_of(error, trace_of(scope)), headers_of(error))
        await answer(scope, receive, send)

    def _plan_of(self, scope: Scope) -> _Plan | None:
        app: FastAPI = scope["app"]
        if self._plans is None:
            self._plans = plans(app)
        plan = self._plans.get((scope["method"], scope["path"]))
        if plan is None or scope["query_string"] or app.dependency_overrides:
            return None
        types = [value for name, value in scope["headers"] if name == b"content-type"]
        return plan if types == [b"application/json"] else None


def _validated(model: type[BaseModel], body: bytes | None) -> BaseModel | None:
    """Return what a body says; None when it is not complete or says something else."""
    try:
        return None if body is None else model.model_validate_json(body)
    except ValidationError:
        return None


async def _read(receive: Receive) -> tuple[bytes | None, list[Message]]:
    """Return the body, None when its sender went away, and the messages that it came in."""
    messages = []
    while True:
        message = await receive()
        messages.append(message)
        if message["type"] != "http.request":
            return None, messages
        if not message.get("more_body", False):
            return b"".join([one.get("body", b"") for one in messages]), messages


def _again(messages: Iterable[Message], receive: Receive) -> Receive:
    """Return what gives these messages first, and then what comes."""
    read = iter(messages)

    async def receive_again() -> Message:
        for message in read:
            return message
        return await receive()

    return receive_again


def plans(app: FastAPI) -> dict[tuple[str, str], _Plan]:
    """Return how the direct routes of an app are answered, by method and path. Raises `CannotBeDirect`."""
    return {
        (str(method), str(route.path)): _plan(route)
        for route in iter_route_contexts(app.routes)
        if hasattr(getattr(route, "endpoint", None), _MARK)
        for method in route.methods or ()
    }


def _plan(route: RouteContext) -> _Plan:
    dependant: Dependant = route.dependant
    asks_for_more = (
        *dependant.path_params,
        *dependant.query_params,
        *dependant.header_params,
        *dependant.cookie_params,
        *(dependency for dependency in dependant.dependencies if not _is_simple(dependency)),
    )
    if asks_for_more or len(dependant.body_params) != 1 or route.status_code not in (None, HTTPStatus.OK):
        raise CannotBeDirect(f"{route.path} needs one JSON body and dependencies on the request alone.")
    [body] = dependant.body_params
    model: Any = body.field_info.annotation
    calls: dict[str, Any] = {one.name or f"_{number}": one.call for number, one in enumerate(dependant.dependencies)}
    endpoint: Any = route.endpoint
    return _Plan(
        endpoint=endpoint,
        body_name=body.name,
        model=model,
        request_name=dependant.request_param_name,
        given={name: call for name, call in calls.items() if not _is_async(call)},
        awaited={name: call for name, call in calls.items() if _is_async(call)},
        exclude_none=route.response_model_exclude_none,
    )


def _is_simple(dependency: Dependant) -> bool:
    """Say whether a dependency is called with the request and nothing else."""
    wants_more = (
        *dependency.dependencies,
        *dependency.path_params,
        *dependency.query_params,
        *dependency.header_params,
        *dependency.cookie_params,
        *dependency.body_params,
    )
    return not wants_more and (dependency.request_param_name or dependency.http_connection_param_name) is not None


def _is_async(call: Any) -> bool:
    return iscoroutinefunction(call) or iscoroutinefunction(type(call).__call__)
