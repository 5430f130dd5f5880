"""`chiffon agents`: list the agents, let one enrol, and hold them back from work or let them have it again."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Annotated
from uuid import UUID

from cyclopts import App, Parameter
from cyclopts.validators import Number

from chiffon.cli.console import print_json, put, say
from chiffon.cli.options import HERE, Target
from chiffon.cli.outcome import Exit, Usage
from chiffon.cli.parameters import collect_pairs
from chiffon.cli.show import print_agents, print_capacity
from chiffon.client import Client
from common.messages import AgentStatus
from common.rest.agents import Agent

app = App(name="agents", group_commands="Commands", result_action="return_value")


@app.default
def agents(
    *,
    agent_type: str | None = None,
    status: AgentStatus | None = None,
    all_: Annotated[bool, Parameter(name="--all", negative=())] = False,
    target: Target = HERE,
) -> int:
    """List the agents, or pause, drain and resume one.

    ```
    chiffon agents
    chiffon agents --agent-type infra --status online -o json
    chiffon agents pause web-1 --minutes 30 --note "disk is full"
    chiffon agents drain web-1 --note "new kernel"
    chiffon agents resume web-1
    chiffon agents forget web-1
    ```

    Parameters
    ----------
    agent_type
        Only agents of this type.
    status
        Only agents with this status.
    all_
        Also agents that have been silent for long, or whose identity was disabled.
    """

    async def work(client: Client) -> int:
        found = await client.agents(agent_type=agent_type, status=status, gone=all_)
        if target.is_json:
            print_json(found)
        else:
            print_agents(found)
            for pool in sorted({agent.agent_type for agent in found if not agent.routed}):
                say(not_routed(pool))
        return Exit.OK

    return target.run(work)


@app.command
def capacity(
    *,
    require: Annotated[list[str] | None, Parameter(name="--require", negative=())] = None,
    agent_type: str | None = None,
    work_type: str | None = None,
    target: Target = HERE,
) -> int:
    """Show which agents could take work now, and why the others could not.

    ```
    chiffon agents capacity --require cores=8 --require zone=eu --work-type shell_script
    ```

    Parameters
    ----------
    require
        A label that the agent must have, as NAME=VALUE; of a number at least that much. Repeat it for more.
    agent_type
        Only agents of this type.
    work_type
        Only for this kind of work.
    """

    async def work(client: Client) -> int:
        found = await client.capacity(collect_pairs(require or ()), agent_type=agent_type, work_type=work_type)
        if target.is_json:
            print_json(found)
        else:
            print_capacity(found)
        return Exit.OK

    return target.run(work)


@app.command
def pause(agent: str, /, *, note: str = "", minutes: int = 5, target: Target = HERE) -> int:
    """Give an agent no new work for a while; what it runs goes on.

    ```
    chiffon agents pause web-1 --minutes 30 --note "disk is full"
    ```

    The pause ends by itself, and holds also when the agent is started anew meanwhile.

    Parameters
    ----------
    agent
        The agent's name or id, the beginning of its id, or its host; it must mean one agent only.
    note
        Why, for whoever looks at the agent.
    minutes
        For how long, at most a week (10080).
    """

    async def order(client: Client, agent_id: UUID) -> Agent:
        return await client.pause_agent(agent_id, note=note, lasting=timedelta(minutes=minutes))

    return _order(agent, order, "Paused", target)


@app.command
def drain(agent: str, /, *, note: str = "", target: Target = HERE) -> int:
    """Give an agent no new work, and let it leave when it is done.

    ```
    chiffon agents drain web-1 --note "new kernel"
    ```

    Started again, it works again.

    Parameters
    ----------
    agent
        The agent's name or id, the beginning of its id, or its host; it must mean one agent only.
    note
        Why, for whoever looks at the agent.
    """

    async def order(client: Client, agent_id: UUID) -> Agent:
        return await client.drain_agent(agent_id, note=note)

    return _order(agent, order, "Draining", target)


@app.command
def resume(agent: str, /, *, target: Target = HERE) -> int:
    """Give an agent work again, whatever held it back.

    ```
    chiffon agents resume web-1
    ```

    Parameters
    ----------
    agent
        The agent's name or id, the beginning of its id, or its host; it must mean one agent only.
    """

    async def order(client: Client, agent_id: UUID) -> Agent:
        return await client.resume_agent(agent_id)

    return _order(agent, order, "Resumed", target)


@app.command
def forget(agent: str, /, *, target: Target = HERE) -> int:
    """Forget an agent that is offline: it is not listed any more. Started again, it is back.

    ```
    chiffon agents forget web-1
    ```

    Parameters
    ----------
    agent
        The agent's name or id, the beginning of its id, or its host; it must mean one agent only.
    """

    return _order(agent, Client.forget_agent, "Forgotten", target)


@app.command
def enrol(
    name: str,
    /,
    *,
    agent_type: Annotated[str, Parameter(name="--type")] = "infra",
    label: Annotated[list[str] | None, Parameter(name="--label", negative=())] = None,
    minutes: Annotated[float, Parameter(validator=Number(gt=0, lte=24 * 60))] = 15,
    target: Target = HERE,
) -> int:
    """Let an agent enrol, and print the token with which it does so once.

    ```
    chiffon agents enrol web-1 --type infra
    chiffon agents enrol web-1 --label zone=eu --label 'enforces=["network_off","sandbox"]'
    chiffon agents enrol web-1 | ssh web-1 chiffon agent enrol --server https://chiffon.example/
    ```

    Called again before the agent has enrolled, it replaces the token.

    Parameters
    ----------
    name
        What the agent will be called; it is never given to another.
    agent_type
        The pool that it will belong to; nothing that the agent says changes it.
    label
        A label that is pinned to it, as NAME=VALUE: nothing that the agent says changes it. Repeat it for more. Of
        enforces and secrets it has no more than is pinned.
    minutes
        For how long the token works, at most a day.
    """

    async def work(client: Client) -> int:
        invited = await client.invite_agent(
            name, agent_type, labels=collect_pairs(label or ()), lasting=timedelta(minutes=minutes)
        )
        if target.is_json:
            print_json(invited)
        else:
            put(invited.token)
            say(f"This lets agent {invited.agent_id} enrol, once, until {invited.expires_at.astimezone():%H:%M:%S}.")
            if not invited.routed:
                say(not_routed(invited.agent_type))
        return Exit.OK

    return target.run(work)


def not_routed(pool: str) -> str:
    """Return what people should know of a pool to which no route leads."""
    return f"No route leads to the pool {pool!r}, so its agents get none; see CHIFFON_ROUTES ([orchestrator] routes)."


def _order(name: str, order: Callable[[Client, UUID], Awaitable[Agent]], done: str, target: Target) -> int:
    async def work(client: Client) -> int:
        agent = await order(client, await find_agent(client, name))
        if target.is_json:
            print_json(agent)
        else:
            say(f"{done}: {agent.name} on {agent.hostname}, agent {agent.agent_id}.")
        return Exit.OK

    return target.run(work)


async def find_agent(client: Client, name: str) -> UUID:
    """Return the agent that is called so, or has that id, or the only one whose id begins so or whose host it is."""
    try:
        return UUID(name)
    except ValueError:
        pass
    known = await client.agents(gone=True)
    found = [agent for agent in known if agent.name == name] or [
        agent for agent in known if agent.hostname == name or str(agent.agent_id).startswith(name.lower())
    ]
    # A container that is made anew enrols as another agent of the same name.
    found = [agent for agent in found if agent.status is not AgentStatus.OFFLINE] or found
    if len(found) == 1:
        return found[0].agent_id
    if not found:
        raise Usage(f"no agent is called {name!r} or has an id that begins so, and none is on a host of that name")
    meant = ", ".join(f"{agent.name} ({agent.agent_id}) on {agent.hostname}" for agent in found[:5])
    raise Usage(f"{name!r} can mean {len(found)} agents: {meant}")
