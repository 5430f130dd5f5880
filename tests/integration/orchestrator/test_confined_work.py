"""Work that must be confined waits for an agent that can do it, and why says who cannot, on a real ledger."""

from datetime import timedelta
from uuid import uuid4

from common.confinement import Confinement
from common.policy.model import Effect, Ruling
from common.rest.why import BlockerKind
from orchestrator.database.pool import Pool
from orchestrator.registry.service import RegistryService
from orchestrator.tasks.service import TaskService
from orchestrator.why.service import Failures, WhyService
from tests.factories import make_heartbeat, make_new_task
from tests.integration.orchestrator.on_credit import gets

WALLED = Ruling("walled", "1-test", Effect.WRITE, confinement=Confinement(network_off=True))


async def well() -> Failures:
    return Failures(None, None)


async def test_confined_work_is_given_only_to_an_agent_that_announces_it_and_why_names_who_does_not(
    tasks: TaskService, registry: RegistryService, pool: Pool
) -> None:
    why = WhyService(pool, offline_after=timedelta(seconds=30), failures=well)
    open_one, able = uuid4(), uuid4()
    await registry.record([make_heartbeat(open_one, hostname="open", labels={"enforces": ["max_cpu_seconds"]})])
    task = make_new_task(ruling=WALLED)
    await tasks.dispatch([task], by="caller")

    refused = await gets(pool, open_one)
    explained = await why.explain(task.task_id)
    await registry.record([make_heartbeat(able, hostname="able", labels={"enforces": ["network_off"]})])
    after = await why.explain(task.task_id)
    given = await gets(pool, able)

    assert refused == []
    [blocker] = [one for one in explained.blockers if one.kind is BlockerKind.NO_SUITABLE_AGENT]
    assert "has enforces = ['network_off']" in blocker.message
    assert "open" in blocker.message
    assert BlockerKind.NO_SUITABLE_AGENT not in {one.kind for one in after.blockers}
    assert given == [task.task_id]
    assert (await tasks.get(task.task_id)).confinement.network_off
