"""The REST endpoints of people who run a fleet: pause, drain and resume an agent."""

from collections.abc import Collection
from datetime import timedelta
from typing import Annotated, Any

from fastapi import Depends, Path, Request

from common.messages import LONGEST_NAME
from common.rest.agents import Agent, NoteRequest, PauseRequest
from orchestrator.http.errors import ERROR_CONTENT
from orchestrator.http.routes import Router
from orchestrator.identities.access import MayOperate
from orchestrator.registry import model
from orchestrator.registry.fleet import FleetService

Responses = dict[int | str, dict[str, Any]]

PROBLEMS: Responses = {
    404: {"content": ERROR_CONTENT, "description": "There is no such agent (2003)."},
    422: {"content": ERROR_CONTENT, "description": "A field is not usable (1002)."},
    500: {"content": ERROR_CONTENT},
    503: {"content": ERROR_CONTENT},
}

router = Router(prefix="/api/v1/agents", tags=["agents"], responses=PROBLEMS)


async def get_fleet(request: Request) -> FleetService:
    """Return the fleet service of the running app."""
    service: FleetService = request.app.state.fleet
    return service


async def get_pools(request: Request) -> Collection[str]:
    """Return the pools of the running app to which work is led."""
    pools: Collection[str] = request.app.state.pools
    return pools


Fleet = Annotated[FleetService, Depends(get_fleet)]
Pools = Annotated[Collection[str], Depends(get_pools)]
Named = Annotated[str, Path(max_length=LONGEST_NAME, description="The name or the id of an agent.")]


@router.post("/{agent}/pause", summary="Give an agent no work for a while")
async def pause_agent(
    agent: Named, fleet: Fleet, pools: Pools, caller: MayOperate, order: PauseRequest | None = None
) -> Agent:
    """Pause an agent: it gets no new work, and what it runs goes on. The pause ends by itself.

    Without a body it lasts 5 minutes. A pause holds also when the agent is started anew meanwhile.
    """
    order = order or PauseRequest()
    until = order.until or timedelta(minutes=order.minutes)
    return shown(await fleet.pause(await fleet.find(agent), until=until, note=order.note, by=caller.name), pools)


@router.post("/{agent}/drain", summary="Let an agent finish and leave")
async def drain_agent(
    agent: Named, fleet: Fleet, pools: Pools, caller: MayOperate, order: NoteRequest | None = None
) -> Agent:
    """Drain an agent: it gets no new work and leaves when what it runs is done. Started again, it works again."""
    note = "" if order is None else order.note
    return shown(await fleet.drain(await fleet.find(agent), note=note, by=caller.name), pools)


@router.post("/{agent}/resume", summary="Give an agent work again")
async def resume_agent(agent: Named, fleet: Fleet, pools: Pools, caller: MayOperate) -> Agent:
    """Give an agent work again, whether it was paused, drained, or tripped by failures in a row."""
    return shown(await fleet.resume(await fleet.find(agent), by=caller.name), pools)


@router.delete("/{agent}", summary="Forget an agent that is gone")
async def forget_agent(agent: Named, fleet: Fleet, pools: Pools, caller: MayOperate) -> Agent:
    """Forget an agent that is offline and runs nothing: it is not listed any more. Started again, it is back."""
    return shown(await fleet.forget(await fleet.find(agent), by=caller.name), pools)


def shown(agent: model.Agent, pools: Collection[str]) -> Agent:
    """Return an agent as the REST API answers it; `pools` are those to which a route leads."""
    return Agent.model_validate(agent).model_copy(update={"routed": agent.agent_type in pools})
