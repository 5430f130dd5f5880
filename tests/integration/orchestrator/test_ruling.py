"""No task is stored without the ruling of the policy, and what is granted is what was ruled about."""

from pathlib import Path
from uuid import uuid4

import pytest

from common.canonical import work_digest
from common.confinement import Confinement
from common.lifecycle import Status
from common.policy.model import ApprovalDemand, Effect, Refused, Ruling, Work
from orchestrator.database.pool import Pool
from orchestrator.leases import grants
from orchestrator.policy.service import RefusedByPolicy, open_policy
from orchestrator.registry.service import RegistryService
from orchestrator.tasks.rerun import make_rerun
from orchestrator.tasks.service import TaskService
from tests.factories import BOB, make_heartbeat, make_new_task
from tests.integration.ledger import lease_to


async def test_a_grant_carries_the_ruling_and_what_makes_up_the_digest(
    tasks: TaskService, registry: RegistryService, pool: Pool
) -> None:
    ruling = Ruling("deploys", "4-abc", Effect.READ, confinement=Confinement(network_off=True))
    task = make_new_task(ruling=ruling, parameters={"message": "x", "n": 1e2})
    await tasks.dispatch([task], by="caller")
    able = make_heartbeat(labels={"enforces": ["network_off"]})
    await registry.record([able])

    [leased] = await lease_to(pool, task.task_id, agent_id=able.agent_id)

    granted = grants.granted(
        leased.task,
        leased.claim_id,
        attempt=leased.attempt,
        lease=leased.lease,
        max_output_bytes=1000,
    )
    assert (granted.effect, granted.policy_version, granted.confinement) == (Effect.READ, "4-abc", ruling.confinement)
    assert granted.target is not None
    digest = work_digest(
        work_type=granted.work.work_type,
        parameters=granted.work.parameters,
        hints=granted.work.hints,
        target=granted.target,
        policy_version=granted.policy_version,
    )
    assert digest == task.work_digest == (await tasks.get(task.task_id)).work_digest


async def test_work_that_needs_an_approval_waits_and_goes_to_nobody(tasks: TaskService, pool: Pool) -> None:
    task = make_new_task(ruling=Ruling("risky", "1", Effect.WRITE, ApprovalDemand(request_minutes=60, valid_minutes=5)))

    await tasks.dispatch([task], by="caller")

    assert (await tasks.get(task.task_id)).status is Status.AWAITING_APPROVAL
    assert await lease_to(pool, task.task_id) == []


async def test_the_policy_rules_anew_about_exactly_the_work_of_a_rerun(tasks: TaskService) -> None:
    asked: list[Work] = []
    refused = RefusedByPolicy(Refused("not any more", "2"))
    task = make_new_task(agent_type="desktop", parameters={"message": "x"}, hints={"note": "y"})
    await tasks.dispatch([task], by="caller")
    old = await tasks.get(task.task_id)

    def refusing(work: Work) -> Ruling:
        asked.append(work)
        raise refused

    with pytest.raises(RefusedByPolicy, match="not any more"):
        make_rerun(old, task_id=uuid4(), request_id=uuid4(), rule=refusing, by=BOB)

    assert asked == [Work("echo", "desktop", {"message": "x"}, {"note": "y"})]


async def test_the_policy_does_not_change_what_the_same_dispatch_is(tasks: TaskService) -> None:
    task = make_new_task()
    again = make_new_task(task_id=task.task_id, request_id=task.request_id, ruling=Ruling("other", "9", Effect.READ))
    [first] = await tasks.dispatch([task], by="caller")

    [second] = await tasks.dispatch([again], by="caller")

    assert second == first


def test_without_a_policy_file_anything_may_run() -> None:
    policy = open_policy(None)

    assert policy.rule(Work("echo", "infra")).effect is Effect.READ
    assert policy.rule(Work("anything_else", "http", {"argv": ["x"], "env": {"PATH": "/bin"}})).effect is Effect.WRITE


def test_what_the_policy_refuses_raises_with_the_reason(tmp_path: Path) -> None:
    path = tmp_path / f"{uuid4()}.toml"
    path.write_text('version = 1\n[[rule]]\nname = "only echo"\nwork_type = "echo"\neffect = "read"\n')

    with pytest.raises(RefusedByPolicy, match="only echo"):
        open_policy(path).rule(Work("shell_script", "infra"))
