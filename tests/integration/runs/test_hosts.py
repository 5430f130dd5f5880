"""Work whose end its host owns: a run waits until the host has said how it ended, and asks for it."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, cast
from uuid import UUID, uuid4

import pytest

from common.broker.base import Broker, Outgoing
from common.broker.memory import MemoryBroker
from common.compose import COMPOSE_REPAIR
from common.config import SharedSettings
from common.json_text import read_json
from common.messages import LAST_STEP, ResultStatus, StepReport, StepStatus, WorkStatus
from common.plans.model import Plan
from common.rest.runs import RunStepStatus
from common.work import DEFAULT_ROUTES
from orchestrator.database.pool import Pool
from orchestrator.identities.model import ANYBODY
from orchestrator.loops.advance_runs import ASK_AFTER, ASK_EVERY, AdvanceRuns
from orchestrator.runs.open_runs import OpenRuns
from orchestrator.runs.service import RunService
from orchestrator.settings import OrchestratorSettings
from orchestrator.steps.service import StepService
from orchestrator.wiring import Orchestrator, open_orchestrator
from tests.eventually import eventually
from tests.factories import make_result
from tests.fakes.clock import FakeClock
from tests.integration.ledger import lease_to

HOST = uuid4()
PARAMETERS = {
    "run_id": "${run.id}",
    "service": "web",
    "profile": {"project": "shop", "workspace": "/srv/shop", "allowlist": ["app/**"]},
    "patch": {"diff": "--- a/app/a\n+++ b/app/a\n@@ -1 +1 @@\n-a\n+b\n"},
    "steps": ["analyze", "patch", "build", "restart", "verify"],
}
REPAIR = Plan.model_validate(
    {"steps": [{"name": "repair", "work_type": COMPOSE_REPAIR, "parameters": PARAMETERS}], "name": "repair web"}
)


@pytest.fixture
async def running(ledger_url: str, tmp_path: Path) -> AsyncIterator[Orchestrator]:
    """An orchestrator whose loops run, without HTTP and without agents."""
    settings = OrchestratorSettings(
        database_url=ledger_url,
        artifacts_dir=tmp_path / "artifacts",
        routes={**DEFAULT_ROUTES, COMPOSE_REPAIR: "infra"},
    )
    shared = SharedSettings(broker_url="memory://")
    async with open_orchestrator(settings, shared, broker=MemoryBroker()) as opened:
        yield opened


async def start(running: Orchestrator, run_id: UUID) -> None:
    """Start a repair as the service of repairs does."""
    await running.runs.start(
        REPAIR,
        {},
        run_id=run_id,
        request_id=uuid4(),
        trace_id=uuid4(),
        requested_by=ANYBODY,
        key="service:web",
        about={"service": "web"},
    )


async def begun(running: Orchestrator, pool: Pool) -> tuple[UUID, UUID]:
    """Start a repair and have its host begin it; return the run and its task."""
    run_id = uuid4()
    await start(running, run_id)
    [step] = (await running.runs.get(run_id)).steps
    assert step.link is not None
    assert step.link.task_id is not None
    await lease_to(pool, step.link.task_id, agent_id=HOST)
    return run_id, step.link.task_id


async def report(pool: Pool, task_id: UUID, name: str, status: StepStatus, message: str = "") -> None:
    """Report an inner step as the host does."""
    now = datetime.now(UTC)
    position = 5 if name == LAST_STEP else 0
    said = StepReport(position=position, name=name, status=status, started_at=now, finished_at=now, message=message)
    await StepService(pool).store([WorkStatus(task_id=task_id, agent_id=HOST, attempt=1, steps=[said])])


async def status_of(running: Orchestrator, run_id: UUID) -> str:
    return (await running.runs.summary(run_id)).status


async def ends(running: Orchestrator, run_id: UUID) -> str:
    """Return where a run stands once it has ended."""

    async def has_ended() -> str | None:
        found = await running.runs.summary(run_id)
        return found.status if found.status.is_final else None

    return str(await eventually(has_ended))


@pytest.mark.parametrize(
    ("rollback", "status"),
    [(StepStatus.SUCCEEDED, "rolled_back"), (StepStatus.FAILED, "failed"), (StepStatus.SKIPPED, "failed")],
)
async def test_a_run_ends_when_the_host_of_its_failed_work_has_said_how_it_ended(
    running: Orchestrator, pool: Pool, rollback: StepStatus, status: str
) -> None:
    run_id, task_id = await begun(running, pool)
    await report(pool, task_id, "verify", StepStatus.FAILED, "no answer")
    await running.service.handle_work_result(
        make_result(task_id, HOST, status=ResultStatus.FAILED, error_message="verify failed: no answer")
    )
    looked = await running.runs.advance(run_id, wait=True)
    between = await running.runs.get(run_id)

    await report(pool, task_id, LAST_STEP, rollback)

    assert looked is not None
    assert [link.task_id for link in looked.unsettled] == [task_id]
    assert (between.run.status, between.steps[0].status) == ("running", RunStepStatus.RUNNING)
    assert await ends(running, run_id) == status
    run = await running.runs.summary(run_id)
    assert run.error_message is not None
    assert "verify failed: no answer" in run.error_message


async def test_work_that_was_completed_is_over_at_once(running: Orchestrator, pool: Pool) -> None:
    run_id, task_id = await begun(running, pool)

    await running.service.handle_work_result(make_result(task_id, HOST))

    assert await ends(running, run_id) == "succeeded"


async def test_a_cancelled_run_waits_for_its_host_and_so_does_the_next_of_its_key(
    running: Orchestrator, pool: Pool
) -> None:
    run_id, task_id = await begun(running, pool)
    following = uuid4()
    await start(running, following)

    cancelled = await running.runs.cancel(run_id, by=ANYBODY)
    waiting = await running.runs.get(following)
    await report(pool, task_id, LAST_STEP, StepStatus.SUCCEEDED)

    assert cancelled.status == "running"
    assert await pool.fetchval("SELECT status FROM task WHERE task_id = $1", task_id) == "cancelled"
    assert (waiting.waits_for, waiting.steps[0].link) == (run_id, None)
    assert await ends(running, run_id) == "cancelled"

    async def goes() -> bool:
        return (await running.runs.get(following)).steps[0].link is not None

    await eventually(goes)


async def test_work_that_no_host_ever_had_is_waited_for_by_nobody(running: Orchestrator, pool: Pool) -> None:
    run_id = uuid4()
    await start(running, run_id)

    cancelled = await running.runs.cancel(run_id, by=ANYBODY)

    assert cancelled.status == "cancelled"


async def test_an_abandoned_run_waits_for_no_host(running: Orchestrator, pool: Pool) -> None:
    run_id, _ = await begun(running, pool)
    await running.runs.cancel(run_id, by=ANYBODY)
    waiting = await status_of(running, run_id)

    await running.runs.abandon(run_id, by=ANYBODY)

    assert waiting == "running"
    assert await ends(running, run_id) == "failed"


class Told:
    """A broker that notes which orders are published."""

    def __init__(self) -> None:
        self.orders: list[dict[str, Any]] = []

    async def publish(self, *messages: Outgoing) -> None:
        self.orders += [read_json(message.body)["payload"]["order"] for message in messages]


async def test_the_host_is_asked_how_its_work_ended_again_and_again(running: Orchestrator, pool: Pool) -> None:
    run_id, task_id = await begun(running, pool)
    open_runs, clock, told = OpenRuns(), FakeClock(), Told()
    runs = RunService(pool, running.service, running.approvals, open_runs, routes=running.routes)
    loop = AdvanceRuns(runs, open_runs, cast("Broker", told), clock)
    await running.service.cancel_task(task_id)
    asked_at: list[int] = []

    # Now and then the orchestrator's own loop is at the run, and this one has to come again.
    for second in range(80):
        clock.advance(seconds=1)
        await loop.run_once()
        asked_at += [second] * (len(told.orders) - len(asked_at))

    assert {(order["action"], order["task_id"], order["attempt"]) for order in told.orders} == {
        ("settle", str(task_id), 1)
    }
    assert len(asked_at) >= 3
    assert asked_at[0] >= ASK_AFTER.total_seconds()
    assert all(after - before >= ASK_EVERY.total_seconds() for before, after in pairwise(asked_at))
    assert await status_of(running, run_id) == "running"
