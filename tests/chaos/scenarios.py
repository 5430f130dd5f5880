"""For each safeguard the fault that it is there for, made on real processes in one fixed order."""

import asyncio
import shutil
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import httpx2

from common.safeguards import Safeguard
from tests.chaos import logs
from tests.chaos.evidence import Evidence
from tests.chaos.history import Submitted
from tests.chaos.journal import Run, read_journal, script_parameters
from tests.chaos.ledger import Ledger, read_ledger
from tests.chaos.plan import AGENTS, ORCHESTRATORS, Settings
from tests.chaos.power_cut import cut_power
from tests.chaos.proxy import Mode
from tests.chaos.witnesses import read_witnesses
from tests.chaos.world import Size, World
from tests.eventually import eventually

ONE = Size(AGENTS[:1], ORCHESTRATORS[:1])
TWO = Size(AGENTS[:2], ORCHESTRATORS[:1])
SHORT_LEASE = Settings(lease_seconds=2.0, kill_grace_seconds=0.5, slots=1)
MIDDLE_LEASE = Settings(lease_seconds=8.0, slots=1)
LONG_LEASE = Settings(lease_seconds=60.0, slots=1)


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
    work = await dispatch(world, ticks=60, idempotent=True)
    [first] = await running(world, work, 1)
    world.links[first.agent].begin(Mode.REFUSE)
    await running(world, work, 2)
    world.links[first.agent].heal()

    def dealt_with(ledger: Ledger) -> bool:
        kinds = [event["kind"] for event in ledger.events]
        return "task.result_refused" in kinds or kinds.count("task.requeued") > 1

    await ledger_says(world, dealt_with)
    await cancel(world, work)


async def cut_off(world: World) -> None:
    """An agent that cannot renew: its task goes to another one."""
    work = await dispatch(world, ticks=60, idempotent=True)
    [first] = await running(world, work, 1)
    world.links[first.agent].begin(Mode.REFUSE)
    runs = await running(world, work, 2)
    # Until the second has lived for a while, so that two who live at once are seen to.
    await eventually(lambda: read_journal(world.journal)[-1].last > runs[-1].start + 0.5)
    world.links[first.agent].heal()
    await cancel(world, work)


async def lost_queue(world: World) -> None:
    """A ticket finds no queue when it is published."""
    await world.agents[AGENTS[0]].kill()
    await world.node.control("delete_queue", "--vhost", world.host, "work.infra")
    lost = await dispatch(world, ticks=0, idempotent=True)
    await eventually(lambda: log_holds(world, "Unroutable"), timeout=20)
    world.agents[AGENTS[0]].start()
    later = await dispatch(world, ticks=0, idempotent=True)
    await finished(world, later)
    with suppress(AssertionError):
        await finished(world, lost, timeout=3 + world.settings.ticket_ttl_seconds)


async def broker_crash(world: World) -> None:
    """The broker crashes while it holds output that nobody has taken yet."""
    work = await dispatch(world, ticks=40, idempotent=False)
    [run] = await running(world, work, 1)
    await world.orchestrators[ORCHESTRATORS[0]].kill()
    await eventually(lambda: holds_output(world), timeout=30, every=0.1)
    await asyncio.to_thread(world.node.kill)
    await asyncio.to_thread(world.node.start_again)
    world.orchestrators[ORCHESTRATORS[0]].start()
    assert run.ending is None
    await finished(world, work, timeout=60)


async def same_twice(world: World) -> None:
    """A client did not hear the answer and sends its dispatch again."""
    work = await dispatch(world, ticks=1, idempotent=False)
    first, again = [await send(world, work) for _ in range(2)]
    await finished_id(world, first)
    await finished_id(world, again)


async def power_cut(world: World) -> None:
    """The host of an agent loses its power while a result waits on its disk for the way to the broker."""
    agent = AGENTS[0]
    work = await dispatch(world, ticks=5, idempotent=False)
    await running(world, work, 1)
    world.links[agent].begin(Mode.REFUSE)
    await eventually(lambda: [entry for entry in read_witnesses(world.states) if entry.event == "ended"])
    await world.agents[agent].kill()
    shutil.copytree(world.states / agent, world.states / f"{agent} as an auditor saw it")
    cut_power(world.states / agent, world.disks / agent)
    world.links[agent].heal()
    world.agents[agent].start()
    await finished(world, work)


SCENARIOS = (
    Scenario(Safeguard.FENCE, "accepted too early", TWO, SHORT_LEASE, late_result),
    Scenario(Safeguard.SELF_FENCING, "overlapping", TWO, SHORT_LEASE, cut_off),
    Scenario(Safeguard.OUTBOX, "unfinished", ONE, LONG_LEASE, lost_queue),
    Scenario(Safeguard.PERSISTENCE, "output lost", ONE, LONG_LEASE, broker_crash),
    Scenario(Safeguard.SPOOL_FSYNC, "result forgotten", ONE, MIDDLE_LEASE, power_cut),
    Scenario(Safeguard.DEDUPE, "run twice", ONE, LONG_LEASE, same_twice),
)


async def dispatch(world: World, *, ticks: int, idempotent: bool) -> Submitted:
    """Dispatch a script and return it; the call is in the history."""
    work = str(uuid4())
    body: dict[str, Any] = {
        "task_id": work,
        "request_id": str(uuid4()),
        "idempotent": idempotent,
        "work_type": "shell_script",
        "parameters": script_parameters(work, world.journal, ticks=ticks),
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
    """Say whether the broker holds output that it has confirmed."""
    listed = await world.node.control("list_queues", "--vhost", world.host, "name", "messages_ready")
    depths = dict(line.split() for line in listed.splitlines() if line.startswith("replies."))
    return int(depths.get("replies.progress", 0)) > 0


def log_holds(world: World, text: str) -> bool:
    return any(text in path.read_text(errors="replace") for path in world.logs.glob("*.log"))


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
    async with httpx2.AsyncClient(timeout=10, trust_env=False) as http:
        response = await http.post(world.urls[ORCHESTRATORS[0]] + path, json=body)
    response.raise_for_status()
    return response.json()
