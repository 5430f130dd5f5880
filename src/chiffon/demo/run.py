"""Run the demonstration against an orchestrator."""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from datetime import timedelta
from uuid import UUID, uuid4

from chiffon.cli.console import put
from chiffon.client import Client
from chiffon.demo.show import LiveView, judge, print_summary
from chiffon.demo.work import DemoTask, demo_tasks
from chiffon.errors import ApiError
from chiffon.output import LATEST_OUTPUT
from common.errors import ErrorCode, StartupRefused
from common.lifecycle import Status
from common.messages import AgentStatus
from common.rest.events import Event
from common.rest.tasks import TaskStatus

LIMIT = timedelta(seconds=120)
AGENTS_WANTED = 2
LINES_BEFORE_CANCEL = 3


async def run_demo(client: Client) -> bool:
    """Dispatch the tasks, show them live, sum up, and say whether everything ended as expected."""
    agents = await _agents(client)
    tasks = demo_tasks()
    trace_id = uuid4()
    put(f"{len(tasks)} tasks for {len(agents)} agents, trace {trace_id}", "")
    answers = await client.dispatch_batch([task.body(trace_id) for task in tasks])
    for answer in answers:
        if answer.error is not None:
            raise StartupRefused(f"The orchestrator refused {tasks[answer.index].name!r}: {answer.error.error_message}")
    try:
        async with asyncio.timeout(LIMIT.total_seconds()):
            await _show_until_all_ended(client, trace_id, tasks, agents)
    except TimeoutError:
        put("", f"Not everything ended within {LIMIT.total_seconds():g} s.")
    results = [(task, await client.status(task.task_id)) for task in tasks]
    put("", "What ran where, in the order in which it started:", "")
    print_summary(results, agents)
    return _verdict(results)


async def _agents(client: Client) -> dict[UUID, str]:
    """Return the agents that are there, with a short name each. Raises `StartupRefused` when they are too few."""
    found = [agent for agent in await client.agents(agent_type="infra") if agent.status is not AgentStatus.OFFLINE]
    if len(found) < AGENTS_WANTED:
        raise StartupRefused(f"The demonstration wants {AGENTS_WANTED} agents of type infra; {len(found)} are there.")
    found.sort(key=lambda agent: agent.started_at)
    return {agent.agent_id: f"agent {number}" for number, agent in enumerate(found, start=1)}


async def _show_until_all_ended(
    client: Client, trace_id: UUID, tasks: Sequence[DemoTask], agents: Mapping[UUID, str]
) -> None:
    view = LiveView(tasks, agents)
    to_cancel = {task.task_id: LINES_BEFORE_CANCEL for task in tasks if task.is_cancelled_on_its_way}
    running = {task.task_id for task in tasks}
    # From the beginning of the ledger: nothing of this trace was there before, and nothing of it can be missed.
    async with aclosing(client.watch(trace_id=trace_id, after=0)) as events:
        while not view.is_complete:
            try:
                # The last output of a task may be recorded after its end.
                async with asyncio.timeout(None if running else LATEST_OUTPUT.total_seconds()):
                    event = await anext(events)
            except TimeoutError:
                return
            view.show(event)
            if event.kind == "task.output" and event.task_id in to_cancel:
                to_cancel[event.task_id] -= 1
                if to_cancel[event.task_id] == 0:
                    await _cancel(client, event)
            if event.ends_a_task and event.task_id is not None:
                running.discard(event.task_id)


async def _cancel(client: Client, event: Event) -> None:
    assert event.task_id is not None
    try:
        await client.cancel(event.task_id)
    except ApiError as error:
        # It ended before the cancel came; the verdict at the end will say so.
        if error.error_code != ErrorCode.INVALID_STATE:
            raise


def _verdict(results: Sequence[tuple[DemoTask, TaskStatus]]) -> bool:
    ends = [status.status for _, status in results]
    counts = ", ".join(f"{ends.count(end)} {end}" for end in (Status.COMPLETED, Status.FAILED, Status.CANCELLED))
    put("", f"{len(results)} tasks: {counts}.")
    expected = ", ".join(f"{task.name!r} {task.ends}" for task, _ in results if task.ends is not Status.COMPLETED)
    complaints = judge(results, agents_wanted=AGENTS_WANTED)
    for complaint in complaints:
        put(f"NOT AS EXPECTED: {complaint}")
    if not complaints:
        put(f"As expected: {expected}, everything else completed, and {AGENTS_WANTED} agents or more took part.")
    return not complaints
