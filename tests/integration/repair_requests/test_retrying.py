"""Trying a repair again: from the step that failed, or one before it, with what went well before."""

from uuid import UUID, uuid4

import pytest

from tests.integration.repair_requests.conftest import RUNS, Json, Shop, statuses
from tests.integration.repair_requests.scripted import SHOWN, Host

pytestmark = pytest.mark.xdist_group("repair_requests/retrying")

LABELS = {"required_capabilities": {"host": "shop-1"}}


async def failed(shop: Shop, step: str, service: str = "web") -> Json:
    """Return a repair in which this step failed, and let the next go well."""
    shop.host.fails[step] = f"{step} went wrong"
    run = await shop.create(service)
    if service == "shown-first":
        run = await shop.stands(run["run_id"], "awaiting_approval", "failed", "rolled_back")
        if run["status"] == "awaiting_approval":
            await shop.approve(run)
    ended = await shop.ended(run["run_id"])
    assert ended["status"] in ("failed", "rolled_back")
    shop.host.fails.clear()
    return ended


def task_of(run: Json, step: str) -> UUID:
    return next(UUID(one["worker_task_id"]) for one in run["steps"] if one["name"] == step)


async def hints_of(shop: Shop, task_id: UUID) -> Json:
    hints: Json = await shop.pool.fetchval("SELECT hints FROM task WHERE task_id = $1", task_id)
    return hints


async def agent_of(shop: Shop, run: Json) -> str:
    """Return the agent that has begun with a repair."""
    return str(await shop.pool.fetchval("SELECT agent_id FROM task WHERE task_id = $1", task_of(run, "analyze")))


def files_of(run: Json, step: str) -> set[str]:
    return next(set(one["artifact_refs"]) for one in run["steps"] if one["name"] == step)


@pytest.mark.parametrize("body", [{}, {"resume_from_step": "build"}, {"resumeFromStep": "build", "reason": "fixed"}])
async def test_a_repair_goes_on_from_the_step_that_failed(shop: Shop, host: Host, body: Json) -> None:
    before = await failed(shop, "build")

    queued = await shop.retry(before, **body)

    assert (queued["run_id"], queued["completed_at"]) == (before["run_id"], None)
    assert queued["status"] in ("pending", "running")
    after = await shop.ended(before["run_id"])
    assert after["status"] == "succeeded"
    assert list(statuses(after).values()) == [*["succeeded"] * 5, "skipped"]
    first, second = host.tasks
    assert second.steps == ["build", "restart", "verify"]
    assert (second.patch, second.resumes) == (None, task_of(before, "build"))
    assert (second.run_id, second.profile, second.instruction) == (first.run_id, first.profile, first.instruction)
    for step in ("analyze", "patch"):
        assert task_of(after, step) == task_of(before, step)
        assert files_of(after, step) == files_of(before, step) != set()
    assert task_of(after, "build") != task_of(before, "build")
    assert await hints_of(shop, task_of(before, "build")) == LABELS
    assert await hints_of(shop, task_of(after, "build")) == {**LABELS, "agent_id": await agent_of(shop, before)}


async def test_what_is_patched_anew_may_go_to_another_host(shop: Shop, host: Host) -> None:
    before = await failed(shop, "build")
    host.fails["build"] = "still wrong"
    await shop.retry(before)
    await shop.ended(before["run_id"])
    host.fails.clear()

    await shop.retry(before, resume_from_step="patch")

    after = await shop.ended(before["run_id"])
    assert await hints_of(shop, task_of(after, "patch")) == LABELS


async def test_a_retry_without_a_body_goes_on_from_the_step_that_failed(shop: Shop, host: Host) -> None:
    before = await failed(shop, "restart")

    answer = await (await shop.operator()).http.post(f"{RUNS}/{before['run_id']}/retry")

    assert answer.status_code == 202, answer.text
    assert (await shop.ended(before["run_id"]))["status"] == "succeeded"
    assert host.tasks[-1].steps == ["restart", "verify"]


@pytest.mark.parametrize(
    ("step", "resume", "steps"),
    [
        ("verify", None, ["verify"]),
        ("verify", "patch", ["patch", "build", "restart", "verify"]),
        ("build", "patch", ["patch", "build", "restart", "verify"]),
        ("patch", None, ["patch", "build", "restart", "verify"]),
        ("analyze", None, ["analyze", "patch", "build", "restart", "verify"]),
    ],
)
async def test_what_is_done_again_begins_with_the_step_that_is_asked_for(
    shop: Shop, host: Host, step: str, resume: str | None, steps: list[str]
) -> None:
    before = await failed(shop, step)

    await shop.retry(before, resume_from_step=resume)

    assert (await shop.ended(before["run_id"]))["status"] == "succeeded"
    task = host.tasks[-1]
    assert task.steps == steps
    assert (task.patch is None, task.resumes is None) == (steps[0] == "verify", steps[0] != "verify")


async def test_while_it_is_tried_again_what_is_done_again_is_pending(shop: Shop, host: Host) -> None:
    before = await failed(shop, "build")
    host.holds.add("build")

    await shop.retry(before)

    run = await shop.is_at(before["run_id"], "build")
    assert list(statuses(run).values()) == ["succeeded", "succeeded", "in_progress", *["pending"] * 3]
    assert [step["celery_state"] for step in run["steps"]] == ["SUCCESS", "SUCCESS", "STARTED", *["RETRY"] * 3]
    host.holds.clear()
    await shop.ended(before["run_id"])


async def test_a_second_retry_goes_on_with_the_task_that_worked_last(shop: Shop, host: Host) -> None:
    before = await failed(shop, "build")
    host.fails["verify"] = "still not healthy"
    await shop.retry(before)
    second = await shop.ended(before["run_id"])
    assert (second["status"], statuses(second)["verify"]) == ("rolled_back", "failed")
    host.fails.clear()

    await shop.retry(before, resume_from_step="build")

    assert (await shop.ended(before["run_id"]))["status"] == "succeeded"
    assert [task.steps[0] for task in host.tasks] == ["analyze", "build", "build"]
    assert host.tasks[2].resumes == task_of(second, "build") != task_of(before, "build")


async def test_a_task_that_the_host_refused_is_not_one_to_go_on_with(shop: Shop, host: Host) -> None:
    before = await failed(shop, "build")
    host.refuses = "This host works on the service already."
    await shop.retry(before)
    refused = await shop.ended(before["run_id"])
    assert statuses(refused)["build"] == "failed"
    host.refuses = None

    await shop.retry(before)

    assert (await shop.ended(before["run_id"]))["status"] == "succeeded"
    assert host.tasks[-1].resumes == task_of(before, "build")


async def test_after_a_retry_the_whole_can_be_patched_anew(shop: Shop, host: Host) -> None:
    before = await failed(shop, "build")
    host.fails["build"] = "still wrong"
    await shop.retry(before)
    await shop.ended(before["run_id"])
    host.fails.clear()

    await shop.retry(before, resume_from_step="patch")

    assert (await shop.ended(before["run_id"]))["status"] == "succeeded"
    assert host.tasks[-1].patch == host.tasks[0].patch
    assert host.tasks[-1].steps == ["patch", "build", "restart", "verify"]


@pytest.mark.parametrize(("failing", "resume"), [("patch", "build"), ("build", "verify"), ("analyze", "patch")])
async def test_a_step_is_not_resumed_that_needs_what_did_not_succeed(shop: Shop, failing: str, resume: str) -> None:
    before = await failed(shop, failing)

    problem = await shop.retry(before, status=400, resume_from_step=resume)

    assert (problem["error"], problem["error_code"]) == ("invalid_resume_step", 1002)
    assert f"{failing!r} has not succeeded" in problem["detail"]
    assert (await shop.get(f"{RUNS}/{before['run_id']}"))["status"] == before["status"]


async def test_a_rollback_is_not_resumed_for_the_host_has_ended_it(shop: Shop) -> None:
    before = await failed(shop, "verify")

    problem = await shop.retry(before, status=409, resume_from_step="rollback")

    assert problem["error"] == "retry_not_allowed"
    assert "rolled back by itself" in problem["detail"]


async def test_what_runs_waits_or_has_succeeded_is_not_tried_again(shop: Shop, host: Host) -> None:
    host.holds.add("build")
    running = await shop.create()
    await shop.is_at(running["run_id"], "build")
    for run, said in ((running, "it is running"), (await shop.create("guarded"), "is awaiting_approval")):
        problem = await shop.retry(run, status=409)
        assert (problem["error"], problem["error_code"]) == ("retry_not_allowed", 2011)
        assert said.removeprefix("it ") in problem["detail"]
    host.holds.clear()
    succeeded = await shop.ended(running["run_id"])

    for body in ({}, {"resume_from_step": "build"}):
        problem = await shop.retry(succeeded, status=409, **body)
        assert problem["error"] == "retry_not_allowed"
        assert "has succeeded" in problem["detail"]


async def test_a_run_that_is_no_repair_has_no_plan_of_one(office: Shop) -> None:
    run_id = str(uuid4())
    plan = {"steps": [{"name": "hello", "work_type": "echo"}]}
    await office.post("/api/v1/runs", {"run_id": run_id, "plan": plan}, status=201)

    problem = await office.retry({"run_id": run_id}, status=409)

    assert (problem["error"], problem["error_code"]) == ("missing_action_plan", 2011)


async def test_a_repair_with_a_gate_is_approved_anew(shop: Shop, host: Host) -> None:
    host.fails["verify"] = "not healthy"
    created = await shop.create("guarded")
    await shop.approve(created)
    before = await shop.ended(created["run_id"])
    host.fails.clear()

    queued = await shop.retry(before)

    assert (queued["status"], queued["approval_status"]) == ("awaiting_approval", "awaiting")
    assert queued["approval_id"] not in (None, created["approval_id"])
    old = await shop.approve(queued, status=409, token=created["approval_id"])
    assert old["error"] == "approval_invalid"
    assert len(host.tasks) == 1
    await shop.approve(queued)
    assert (await shop.ended(created["run_id"]))["status"] == "succeeded"


async def test_what_was_approved_by_its_diff_is_deployed_again_only_with_another_yes(shop: Shop, host: Host) -> None:
    before = await failed(shop, "verify", "shown-first")

    await shop.retry(before)

    run = await shop.stands(before["run_id"], "awaiting_approval")
    assert run["approval_id"] != before["approval_id"]
    assert list(statuses(run).values())[:3] == ["succeeded"] * 3
    await shop.approve(run)
    assert (await shop.ended(before["run_id"]))["status"] == "succeeded"
    prepared, deployed, again = host.tasks
    assert (again.steps, again.resumes) == (["verify"], task_of(before, "restart"))
    assert (again.diff_sha256, again.diff) == (deployed.diff_sha256, SHOWN)
    agent = {**LABELS, "agent_id": await agent_of(shop, before)}
    assert await hints_of(shop, task_of(await shop.get(f"{RUNS}/{before['run_id']}"), "verify")) == agent
    assert prepared.steps == ["analyze", "patch", "build"]


async def test_what_its_host_has_rolled_back_is_prepared_again_by_whoever_tries_the_run_again(
    shop: Shop, host: Host
) -> None:
    before = await failed(shop, "verify", "shown-first")
    assert before["status"] == "rolled_back"

    await shop.post(f"/api/v1/runs/{before['run_id']}/retry", {}, status=200)

    run = await shop.stands(before["run_id"], "awaiting_approval")
    assert task_of(run, "build") != task_of(before, "build")
    await shop.approve(run)
    assert (await shop.ended(before["run_id"]))["status"] == "succeeded"
    again, deployed = host.tasks[2:]
    assert again.steps == ["analyze", "patch", "build"]
    assert (deployed.steps, deployed.resumes) == (["restart", "verify"], task_of(run, "build"))


async def test_what_was_not_built_is_prepared_again_and_shown_again(shop: Shop, host: Host) -> None:
    before = await failed(shop, "build", "shown-first")

    await shop.retry(before)

    run = await shop.stands(before["run_id"], "awaiting_approval")
    await shop.approve(run)
    assert (await shop.ended(before["run_id"]))["status"] == "succeeded"
    _, again, deployed = host.tasks
    assert (again.steps, again.resumes) == (["build"], task_of(before, "build"))
    assert (deployed.steps, deployed.resumes) == (["restart", "verify"], task_of(run, "build"))


async def test_what_was_rejected_is_asked_again(shop: Shop, host: Host) -> None:
    created = await shop.create("guarded")
    body = {"reason": "not yet"}
    path = f"/api/v1/approvals/{created['approval_id']}/reject"
    await shop.post(path, body, status=200, by=await shop.approver())
    before = await shop.stands(created["run_id"], "failed")

    queued = await shop.retry(before)

    assert queued["status"] == "awaiting_approval"
    await shop.approve(queued)
    assert (await shop.ended(created["run_id"]))["status"] == "succeeded"
    assert [task.steps[0] for task in host.tasks] == ["analyze"]


async def test_a_repair_whose_service_was_described_otherwise_is_not_tried_again(shop: Shop) -> None:
    before = await failed(shop, "build")
    await shop.pool.execute(
        "UPDATE run SET plan = jsonb_set(plan, '{inputs,profile,allowlist}', $2) WHERE run_id = $1::uuid",
        before["run_id"],
        ["**"],
    )

    problem = await shop.retry(before, status=409)
    plain = await shop.post(f"/api/v1/runs/{before['run_id']}/retry", {}, status=409)

    assert problem["error"] == "retry_not_allowed"
    for said in (problem["detail"], plain["error_message"]):
        assert "the description of the service 'web' has changed since it was started: start another run" in said
    assert (await shop.get(f"{RUNS}/{before['run_id']}"))["status"] == before["status"]
