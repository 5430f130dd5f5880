"""A run goes on after whatever happens to its orchestrator, and two orchestrators never begin a step twice."""

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from uuid import UUID

import pytest

from chiffon.client import Client
from common.rest.runs import StepKind
from orchestrator.database.pool import Pool
from orchestrator.runs import queries
from orchestrator.runs.model import NewLink
from orchestrator.service import OrchestratorService
from orchestrator.tasks.model import NewTask
from tests.eventually import eventually
from tests.integration.runs.conftest import Site, echo, ended, plan, script, statuses

# Each row with the status of its task.
ROWS = """
    SELECT step, number, status
      FROM run_step
      LEFT JOIN task USING (task_id)
     WHERE run_id = $1
     ORDER BY step, number
"""


SECOND = "SELECT task_id FROM run_step WHERE run_id = $1 AND number = 2"
PAUSED = """
    SELECT task_id
      FROM run_step JOIN task USING (task_id)
     WHERE run_id = $1 AND status = 'pending'
       AND not_before BETWEEN now() + interval '59 minutes' AND now() + interval '1 hour'
"""

# What another orchestrator does whose policy lets no such step run, and that has seen no task of it yet.
REFUSE = "UPDATE run_step SET problem = 'the policy does not let it run' WHERE task_id = $1"


async def rows(pool: Pool, run_id: UUID) -> list[tuple[str, int, str | None]]:
    return [(row["step"], row["number"], row["status"]) for row in await pool.fetch(ROWS, run_id)]


async def test_a_crash_between_the_row_of_a_step_and_its_task_loses_neither(bare: Site, pool: Pool) -> None:
    with pytest.MonkeyPatch.context() as broken:

        async def crash(*_: object) -> None:
            raise ConnectionError("cut off")

        async with bare.orchestrator() as url, Client(url) as client:
            broken.setattr(OrchestratorService, "submit_all", crash)
            started = await client.start_run(plan(echo("one", "${run.id}"), echo("two")))
            left_behind = await rows(pool, started.run_id)
    await bare.open()
    await bare.start_agent()

    async with bare.client as client:
        run = await ended(client, started.run_id)
        first = run.steps[0].task_id
        assert first is not None
        task = await client.status(first)

    assert started.status == "pending"
    assert left_behind == [("one", 1, None)]
    assert run.status == "succeeded"
    assert await rows(pool, started.run_id) == [("one", 1, "completed"), ("two", 1, "completed")]
    assert task.output == str(started.run_id)


async def test_the_pause_of_a_loop_survives_a_crash_before_the_task_and_one_after_it(bare: Site, pool: Pool) -> None:
    repeat = {"until": {"value": "${steps.ask.round}", "equals": 2}, "at_most": 2, "every_seconds": 3600}
    dispatch, calls = OrchestratorService.submit_all, 0

    async def crash_at_the_second(self: OrchestratorService, tasks: Sequence[NewTask]) -> object:
        nonlocal calls
        calls += 1
        if calls > 1:
            raise ConnectionError("cut off")
        return await dispatch(self, tasks)

    await bare.start_agent()
    with pytest.MonkeyPatch.context() as broken:
        broken.setattr(OrchestratorService, "submit_all", crash_at_the_second)
        async with bare.orchestrator() as url, Client(url) as client:
            started = await client.start_run(plan(echo("ask", repeat=repeat)))
            await eventually(lambda: pool.fetchval(SECOND, started.run_id))
    async with bare.orchestrator() as url, Client(url) as client:
        task_id = await eventually(lambda: pool.fetchval(PAUSED, started.run_id))
        why = await client.why(task_id)
    await bare.open()
    still = await pool.fetchval(PAUSED, started.run_id)
    async with bare.client as client:
        await pool.execute("UPDATE task SET not_before = now() WHERE task_id = $1", task_id)
        run = await ended(client, started.run_id)

    assert [blocker.kind for blocker in why.blockers] == ["loop_pause"]
    assert still == task_id
    assert (run.status, run.steps[0].number) == ("succeeded", 2)


async def test_a_step_whose_task_could_not_be_dispatched_is_dispatched_once_it_can(bare: Site, pool: Pool) -> None:
    await bare.open()
    await bare.start_agent()
    dispatch, calls = OrchestratorService.submit_all, 0

    async def fail_at_first(self: OrchestratorService, tasks: list[object]) -> object:
        nonlocal calls
        calls += 1
        if calls <= 2:
            raise TimeoutError
        return await dispatch(self, tasks)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as broken:
        broken.setattr(OrchestratorService, "submit_all", fail_at_first)
        async with bare.client as client:
            started = await client.start_run(plan(echo("one"), echo("two")))
            run = await ended(client, started.run_id)

    assert run.status == "succeeded"
    assert calls == 4
    assert await pool.fetchval("SELECT count(*) FROM task") == 2


async def test_what_ended_while_no_orchestrator_ran_is_seen_by_the_next(bare: Site, tmp_path: Path) -> None:
    begun, go, done = tmp_path / "begun", tmp_path / "go", tmp_path / "done"
    wait = f"touch {begun}; until [ -e {go} ]; do sleep 0.02; done; touch {done}"
    async with bare.orchestrator() as url:
        await bare.start_agent()
        async with Client(url) as client:
            started = await client.start_run(plan(script("one", wait), echo("two")))
            await eventually(begun.exists)
    go.touch()
    await eventually(done.exists)
    await bare.open()

    async with bare.client as client:
        run = await ended(client, started.run_id)

    assert (run.status, statuses(run)) == ("succeeded", {"one": "succeeded", "two": "succeeded"})


async def test_a_cancel_is_carried_out_by_the_next_orchestrator(bare: Site, tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    with pytest.MonkeyPatch.context() as broken:

        async def crash(*_: object, **__: object) -> None:
            raise ConnectionError("cut off")

        async with bare.orchestrator() as url:
            await bare.start_agent()
            async with Client(url) as client:
                started = await client.start_run(plan(script("one", f"touch {begun}; sleep 60")))
                await eventually(begun.exists)
                broken.setattr(OrchestratorService, "cancel_task", crash)
                asked = await client.cancel_run(started.run_id)
    await bare.open()

    async with bare.client as client:
        run = await ended(client, started.run_id)

    assert (asked.status, asked.cancelled_by) == ("running", "anybody")
    assert (run.status, statuses(run)) == ("cancelled", {"one": "cancelled"})


async def test_two_orchestrators_begin_every_step_once(bare: Site, pool: Pool) -> None:
    async with AsyncExitStack() as stack:
        urls = [await stack.enter_async_context(bare.orchestrator()) for _ in range(2)]
        clients = [await stack.enter_async_context(Client(url)) for url in urls]
        bare.url = urls[0]
        await bare.start_agent(slots=16)
        sides = [echo(f"side-{number}", needs=["first"]) for number in range(4)]
        wide = plan(echo("first"), *sides, echo("last", needs=[side["name"] for side in sides]))

        started = await asyncio.gather(*(clients[number % 2].start_run(wide) for number in range(10)))
        runs = await asyncio.gather(*(ended(clients[1], run.run_id) for run in started))

    assert {run.status for run in runs} == {"succeeded"}
    assert await pool.fetchval("SELECT count(*) FROM run_step") == 60
    assert await pool.fetchval("SELECT count(*) FROM task") == 60
    assert await pool.fetchval("SELECT max(attempt) FROM task") == 1
    stood = await pool.fetch(
        "SELECT data->>'run_id' AS run, data->>'status' AS status, count(*) FROM event WHERE kind = 'run.status'"
        " GROUP BY 1, 2"
    )
    assert {row["count"] for row in stood} == {1}


async def test_an_orchestrator_goes_on_with_the_runs_of_one_that_has_gone(bare: Site, tmp_path: Path) -> None:
    go = tmp_path / "go"
    wait = f"until [ -e {go} ]; do sleep 0.02; done"
    async with bare.orchestrator() as staying, Client(staying) as client:
        async with bare.orchestrator() as leaving, Client(leaving) as other:
            await bare.start_agent()
            started = await other.start_run(plan(script("one", wait), echo("two")))
        go.touch()
        run = await ended(client, started.run_id)

    assert run.status == "succeeded"


async def test_a_task_of_which_another_orchestrator_has_noted_that_there_is_none_is_cancelled(
    bare: Site, pool: Pool
) -> None:
    dispatch = OrchestratorService.submit_all

    async def noted_meanwhile(self: OrchestratorService, tasks: list[NewTask]) -> object:
        await pool.execute(REFUSE, tasks[0].task_id)
        return await dispatch(self, tasks)

    await bare.open()
    with pytest.MonkeyPatch.context() as slow:
        slow.setattr(OrchestratorService, "submit_all", noted_meanwhile)
        async with bare.client as client:
            started = await client.start_run(plan(echo("one"), echo("two")))
            run = await ended(client, started.run_id)

    assert (run.status, statuses(run)) == ("failed", {"one": "cancelled", "two": "skipped"})
    assert await rows(pool, started.run_id) == [("one", 1, "cancelled")]


async def test_a_step_stands_as_its_task_whatever_another_orchestrator_has_noted(
    bare: Site, pool: Pool, tmp_path: Path
) -> None:
    begun, go = tmp_path / "begun", tmp_path / "go"
    await bare.open()
    await bare.start_agent()
    async with bare.client as client:
        started = await client.start_run(
            plan(script("one", f"touch {begun}; until [ -e {go} ]; do sleep 0.02; done"), echo("two"))
        )
        await eventually(begun.exists)
        [one] = [step.task_id for step in (await client.run(started.run_id)).steps if step.step == "one"]
        async with pool.acquire() as db:
            link = NewLink("one", StepKind.STEP, 1, one, problem="the policy does not let it run")
            is_refused = await queries.refuse(db, started.run_id, link)
        await pool.execute(REFUSE, one)
        go.touch()
        run = await ended(client, started.run_id)

    assert not is_refused
    assert (run.status, statuses(run)) == ("succeeded", {"one": "succeeded", "two": "succeeded"})
