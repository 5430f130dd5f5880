"""The REST endpoint of work types."""

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import Depends, Request

from common.rest.work_types import KnownWorkType
from orchestrator.http.errors import ERROR_CONTENT
from orchestrator.http.routes import Router
from orchestrator.identities.access import READ
from orchestrator.registry.service import RegistryService
from orchestrator.work_types.rules import known_types

PROBLEMS: dict[int | str, dict[str, Any]] = {500: {"content": ERROR_CONTENT}, 503: {"content": ERROR_CONTENT}}

router = Router(prefix="/api/v1", tags=["tasks"], responses=PROBLEMS)


async def get_registry(request: Request) -> RegistryService:
    """Return the registry of the running app."""
    registry: RegistryService = request.app.state.registry
    return registry


async def get_routes(request: Request) -> Mapping[str, str]:
    """Return the routes of the running app."""
    routes: Mapping[str, str] = request.app.state.routes
    return routes


@router.get("/work-types", dependencies=[READ], summary="List work types")
async def work_types(
    registry: Annotated[RegistryService, Depends(get_registry)],
    routes: Annotated[Mapping[str, str], Depends(get_routes)],
) -> list[KnownWorkType]:
    """Return what may be dispatched: the types, their parameters, and the agents that offer them now."""
    return known_types(routes, await registry.list_agents(agent_type=None, status=None))
