"""All apps of a process have the same routes, and each app its own replaced dependencies."""

from typing import Annotated

from fastapi import Depends, FastAPI
from fastapi.routing import iter_route_contexts
from fastapi.testclient import TestClient

from orchestrator.http.routes import ReplacedDependencies, Router
from orchestrator.http.strict import nothing_is_dropped
from orchestrator.main import create_app

router = Router()


async def get_greeting() -> str:
    return "hello"


@router.get("/greeting")
async def read_greeting(greeting: Annotated[str, Depends(get_greeting)]) -> str:
    return greeting


def make_app() -> FastAPI:
    app = FastAPI()
    app.add_middleware(ReplacedDependencies)
    app.router.routes.extend(router.routes)
    return app


def test_a_dependency_is_replaced_in_the_app_that_replaces_it_and_in_no_other() -> None:
    replacing, plain = make_app(), make_app()
    replacing.dependency_overrides[get_greeting] = lambda: "good evening"

    said = [TestClient(app).get("/greeting").json() for app in (replacing, plain, replacing)]

    assert said == ["good evening", "hello", "good evening"]


def test_a_replaced_dependency_that_is_put_back_is_the_own_one_again() -> None:
    app = make_app()
    app.dependency_overrides[get_greeting] = lambda: "good evening"
    app.dependency_overrides.clear()

    assert TestClient(app).get("/greeting").json() == "hello"


def test_no_route_drops_what_it_does_not_know() -> None:
    routes = {route.path: route.dependant.dependencies for route in iter_route_contexts(create_app().routes)}

    assert "/docs" in routes
    assert [path for path, needs in routes.items() if all(one.call is not nothing_is_dropped for one in needs)] == []
