"""For each safeguard the fault that it is there for, made on real processes in one fixed order."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import aio_pika
import httpx2
from aio_pika.abc import AbstractChannel

from common.broker.topology import work_address, work_queue
from common.http_client import trust_for
from tests.chaos import logs
from tests.chaos.evidence import Evidence
from tests.chaos.history import Submitted
from tests.chaos.journal import Run, read_journal, script_parameters
from tests.chaos.ledger import Ledger, read_ledger
from tests.chaos.plan import AGENTS, ORCHESTRATORS, Settings
from tests.chaos.power_cut import cut_power
from tests.chaos.proxy import Mode
from tests.chaos.removed import Safeguard
from tests.chaos.witnesses import read_witnesses
from tests.chaos.world import Size, World
from tests.eventually import eventually
from tests.integration.system.process_agents import identity

ONE = Size(AGENTS[:1], ORCHESTRATORS[:1])
TWO = Size(AGENTS[:2], ORCHESTRATORS[:1])
SHORT_LEASE = Settings(lease_seconds=2.0, kill_grace_seconds=0.5, slots=1)
MIDDLE_LEASE = Settings(lease_seconds=4.0, slots=1)
LONG_LEASE = Settings(lease_seconds=60.0, slots=2)


@dataclass(frozen=True)
class Scenario:
    """`promise` is what breaks when the safeguard is missing."""

    safeguard: Safeguard
    promise: str
    size: Size
    settings: Settings
    play: Callable[[World], Awaitable[None]]


async def late_result(world: World) -> None:
    """An agent is cut off and its task goes to another one; then its result arrives."""
    # The second program lives on for a while after it is told to end, so that an end that came too early is seen.
    work = await _other_agent_has_it(world, stubborn=True)

    def dealt_with(ledger: Ledger) -> bool:
        refused = any(event["kind"] == "task.result_refused" for event in ledger.events)
        return refused or any(attempt["outcome"] in ("completed", "failed") for attempt in ledger.attempts)

    await ledger_says(world, dealt_with)
    await cancel(world, work)


async def cut_off(world: World) -> None:
    """An agent that cannot renew: its task goes to another one."""
    await cancel(world, await _other_agent_has_it(world))


async def _other_agent_has_it(world: World, *, stubborn: bool = False) -> Submitted:
    """Cut off the agent that runs a task until another one has it, and return the task, which runs until cancelled."""
    work = await dispatch(world, ticks=500, idempotent=True, stubborn=stubborn)
    [first] = await running(world, work, 1)
    world.links[first.agent].begin(Mode.REFUSE)
    runs = await running(world, work, 2)
    # Until the second has lived for a while, so that two who live at once are seen to.
    await eventually(lambda: read_journal(world.journal)[-1].last > runs[-1].start + 0.5)
    world.links[first.agent].heal()
    return work


async def lost_grant(world: World) -> None:
    """The broker takes work for an agent and loses it."""
    agent_id = identity(world.states / AGENTS[0])
    name, address = work_queue("infra", agent_id).name, work_address("infra", agent_id)
    async with broker_channel(world) as channel:
        own, elsewhere = await channel.get_queue(name), await channel.declare_queue(exclusive=True)
        await elsewhere.bind(address.exchange.name, address.routing_key)
        await own.unbind(address.exchange.name, address.routing_key)
        lost = await dispatch(world, ticks=0, idempotent=True)
        await eventually(lambda: elsewhere.get(fail=False, no_ack=True), timeout=30, every=0.1)
        await own.bind(address.exchange.name, address.routing_key)
        await elsewhere.unbind(address.exchange.name, address.routing_key)
    later = await dispatch(world, ticks=0, idempotent=True)
    await finished(world, later)
    if world.removed is None:
        await finished(world, lost)
    else:
        with suppress(AssertionError):
            await finished(world, lost, timeout=10 * world.settings.heartbeat_seconds)


async def broker_crash(*worlds: World) -> None:
    """The broker of some worlds crashes while it holds output of each that has not been taken yet."""
    works = await asyncio.gather(*(_output_waits(world) for world in worlds))
    await asyncio.to_thread(worlds[0].node.kill)
    await asyncio.to_thread(worlds[0].node.start_again)
    for world in worlds:
        world.orchestrators[ORCHESTRATORS[0]].start()
    await asyncio.gather(
        *(finished(world, work, timeout=60) for world, work in zip(worlds, works, strict=True)),
    )


async def _output_waits(world: World) -> Submitted:
    """Return a task that runs, whose output waits in the broker for an orchestrator."""
    work = await dispatch(world, ticks=40, idempotent=False)
    await running(world, work, 1)
    await world.orchestrators[ORCHESTRATORS[0]].kill()
    await eventually(lambda: holds_output(world), timeout=30, every=0.1)
    return work


async def same_twice(world: World) -> None:
    """A client did not hear the answer and sends its dispatch again."""
    work = await dispatch(world, ticks=1, idempotent=False)
    first, again = [await send(world, work) for _ in range(2)]
    await finished_id(world, first)
    await finished_id(world, again)


async def power_cut(world: World) -> None:
    """The host of an agent loses its power while a result waits on its disk for the way to the broker."""
    agent = AGENTS[0]
    work = await dispatch(world, ticks=3, idempotent=False)
    await running(world, work, 1)
    world.links[agent].begin(Mode.REFUSE)
    await eventually(
        lambda: [one for one in read_witnesses(world.states) if one.event == "ended" and one.task_id == work.task_id]
    )
    await world.agents[agent].kill()
    shutil.copytree(world.states / agent, world.states / f"{agent} as an auditor saw it")
    cut_power(world.states / agent, world.disks / agent)
    world.links[agent].heal()
    world.agents[agent].start()
    await finished(world, work)


SCENARIOS = (
    Scenario(Safeguard.FENCE, "accepted too early", TWO, MIDDLE_LEASE, late_result),
    Scenario(Safeguard.SELF_FENCING, "overlapping", TWO, SHORT_LEASE, cut_off),
    Scenario(Safeguard.REGRANT, "unfinished", ONE, LONG_LEASE, lost_grant),
    Scenario(Safeguard.SPOOL_FSYNC, "result forgotten", ONE, MIDDLE_LEASE, power_cut),
    Scenario(Safeguard.DEDUPE, "run twice", ONE, LONG_LEASE, same_twice),
)
# It hits all worlds that have the same broker.
CRASH = Scenario(Safeguard.PERSISTENCE, "output lost", ONE, LONG_LEASE, broker_crash)
# With every safeguard, the scenarios of one size can be played one after another in one world.
CONTROLS: Mapping[Size, Settings] = {TWO: SHORT_LEASE, ONE: LONG_LEASE}


async def dispatch(world: World, *, ticks: int, idempotent: bool, stubborn: bool = False) -> Submitted:
    """Dispatch a script and return it; the call is in the history."""
    work = str(uuid4())
    body: dict[str, Any] = {
        "task_id": work,
        "request_id": str(uuid4()),
        "idempotent": idempotent,
        # A busy machine may let a short lease end once or twice more than a scenario does.
        **({"max_attempts": 10} if idempotent else {}),
        "work_type": "shell_script",
        "parameters": script_parameters(work, world.journal, ticks=ticks, stubborn=stubborn),
    }
    submitted = world.history.submitted[work] = Submitted(work, work, body, "shell_script")
    await send(world, submitted)
    return submitted


async def send(world: World, submitted: Submitted) -> str:
    """Dispatch, perhaps once more, and return the id that the answer names."""
    call = world.history.invoke("dispatch", ORCHESTRATORS[0], submitted.task_id)
    task_id = str((await _post(world, "/api/v1/dispatch", submitted.body))["task_id"])
    call.end("ok", accepted=[submitted.task_id])
    return task_id


async def cancel(world: World, submitted: Submitted) -> None:
    call = world.history.invoke("cancel", ORCHESTRATORS[0], submitted.task_id)
    await _post(world, f"/api/v1/cancel/{submitted.task_id}", None)
    call.end("ok", accepted=[submitted.task_id])


async def running(world: World, submitted: Submitted, starts: int) -> list[Run]:
    """Wait until a piece of work was started so often, and return its runs."""

    def runs() -> list[Run]:
        found = [run for run in read_journal(world.journal) if run.work == submitted.work]
        return found if len(found) >= starts else []

    return await eventually(runs, timeout=30)


async def finished(world: World, submitted: Submitted, *, timeout: float = 30) -> None:
    await finished_id(world, submitted.task_id, timeout=timeout)


async def finished_id(world: World, task_id: str, *, timeout: float = 30) -> None:
    await ledger_says(
        world,
        lambda ledger: ledger.tasks[task_id]["status"] in ("completed", "failed", "cancelled"),
        timeout=timeout,
    )


async def ledger_says(world: World, question: Callable[[Ledger], bool], *, timeout: float = 30) -> None:
    async def ask() -> bool:
        return question(await read_ledger(world.database_url))

    await eventually(ask, timeout=timeout, every=0.1)


async def holds_output(world: World) -> bool:
    """Say whether the broker holds output that it has confirmed: an agent sends the second piece only then."""
    async with broker_channel(world) as channel:
        queue = await channel.declare_queue("replies.progress", passive=True)
    return (queue.declaration_result.message_count or 0) > 1


@asynccontextmanager
async def broker_channel(world: World) -> AsyncIterator[AbstractChannel]:
    """Speak to the broker past Chiffon."""
    connection = await aio_pika.connect(world.broker_url(*world.node.address))
    async with connection, await connection.channel() as channel:
        yield channel


async def judged(world: World) -> Evidence:
    """Stop the agents and return what there is to be judged, without a reader of the live feed."""
    await asyncio.gather(*(agent.stop() for agent in world.agents.values()))
    await asyncio.gather(*(orchestrator.stop() for orchestrator in world.orchestrators.values()))
    ledger = await read_ledger(world.database_url)
    return Evidence(
        world.history,
        read_journal(world.journal),
        ledger,
        [(event["seq"], event["kind"], event["task_id"]) for event in ledger.events],
        leaks=logs.leaks(world.logs, ledger, world.secrets),
        witnesses=read_witnesses(world.states),
        errors=logs.unexplained(world.logs),
    )


async def _post(world: World, path: str, body: Any) -> Any:
    # Over a connection of its own: one that has been idle may be closed by the server while this is on its way.
    async with httpx2.AsyncClient(timeout=10, trust_env=False, verify=trust_for("http:")) as http:
        response = await http.post(world.urls[ORCHESTRATORS[0]] + path, json=body)
    response.raise_for_status()
    return response.json()
