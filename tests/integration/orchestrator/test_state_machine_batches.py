"""What arrives together is judged one by one, as if it had come one after another."""

from uuid import uuid4

from common.lifecycle import Status
from common.messages import Claim
from orchestrator.database.pool import Pool
from orchestrator.leases.service import LeaseService
from orchestrator.tasks.service import TaskService
from tests.factories import make_new_task, make_result
from tests.integration.ledger import lease_to


async def test_an_agent_that_asks_twice_in_one_batch_is_granted_and_not_refused(
    tasks: TaskService, leases: LeaseService
) -> None:
    task = make_new_task()
    await tasks.dispatch([task], by="caller")
    claim = make_claim(task.task_id)

    [in_two_messages] = await leases.claim([claim, claim])
    [in_one_message] = await leases.claim([Claim(agent_id=claim.agent_id, tasks=claim.tasks * 2)])

    for answer in (in_two_messages, in_one_message):
        assert answer.grant is not None
        assert {granted.fence for granted in answer.grant.tasks} == {1}
        assert answer.refusal is None


async def test_a_result_of_a_stranger_does_not_hide_that_of_the_owner(
    tasks: TaskService, leases: LeaseService, pool: Pool
) -> None:
    task, agent_id = make_new_task(), uuid4()
    await tasks.dispatch([task], by="caller")
    await lease_to(pool, task.task_id, agent_id=agent_id)

    await leases.accept([make_result(task.task_id, uuid4()), make_result(task.task_id, agent_id)])

    assert (await tasks.get(task.task_id)).status is Status.COMPLETED
