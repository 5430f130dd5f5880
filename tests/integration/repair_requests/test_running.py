"""A repair from its request to its end: what is answered, which steps there are, and what they leave."""

import hashlib
from datetime import datetime
from typing import Any
from uuid import UUID

import httpx2
import pytest

from common.http_client import client_options
from tests.integration.repair_requests.conftest import DIFF, RUNS, Json, Shop, statuses
from tests.integration.repair_requests.scripted import DIFF as DIFF_LEFT
from tests.integration.repair_requests.scripted import Host

pytestmark = pytest.mark.xdist_group("repair_requests/running")

SUMMARY = {
    "run_id",
    "status",
    "target_service",
    "instruction",
    "priority",
    "queued_at",
    "started_at",
    "completed_at",
    "approval_required",
    "approval_status",
    "approval_id",
}
STEPS = ["analyze", "patch", "build", "restart", "verify", "rollback"]
LEFT = {
    "analyze.log": "metrics",
    "patch.diff": "patch_diff",
    "patch.log": "metrics",
    "build.log": "build_log",
    "restart.log": "metrics",
    "verify.log": "verify_log",
    "rollback.log": "rollback_log",
}


def step_of(run: Json, name: str) -> Json:
    found: Json = next(step for step in run["steps"] if step["name"] == name)
    return found


def refs(run: Json, name: str) -> list[str]:
    """Return the paths of what a step left."""
    paths = {one["artifact_id"]: one["path"] for one in run["artifacts"]}
    return sorted(paths[ref] for ref in step_of(run, name)["artifact_refs"])


async def test_a_repair_runs_to_its_end_and_leaves_its_files(shop: Shop, host: Host) -> None:
    created = await shop.create("web", instruction="  Print two.  ", priority="high")

    assert created.keys() == SUMMARY
    assert created["status"] in ("pending", "running")
    assert (created["target_service"], created["instruction"], created["priority"]) == ("web", "Print two.", "high")
    assert (created["approval_required"], created["approval_status"]) == (False, "not_required")
    assert (created["completed_at"], created["approval_id"]) == (None, None)

    run = await shop.ended(created["run_id"])
    assert run["status"] == "succeeded"
    assert [step["name"] for step in run["steps"]] == STEPS
    assert list(statuses(run).values()) == ["succeeded"] * 5 + ["skipped"]
    assert step_of(run, "rollback")["message"] == "Nothing was rolled back: the service is verified."
    assert {one["path"]: one["type"] for one in run["artifacts"]} == LEFT
    times = [datetime.fromisoformat(run[name]) for name in ("queued_at", "started_at", "completed_at")]
    assert times == sorted(times)

    (task,) = host.tasks
    assert (str(task.run_id), task.service, task.instruction) == (run["run_id"], "web", "Print two.")
    assert task.patch is not None
    assert task.patch.commands == [["sed", "-i", "s/1/2/", "web/app.py"]]


async def test_each_step_says_when_by_which_task_and_what_it_left(shop: Shop) -> None:
    run = await shop.ended((await shop.create())["run_id"])

    build = step_of(run, "build")
    assert build.keys() == {
        "name",
        "status",
        "started_at",
        "completed_at",
        "worker_task_id",
        "celery_task_id",
        "celery_state",
        "message",
        "artifact_refs",
    }
    assert datetime.fromisoformat(build["started_at"]) <= datetime.fromisoformat(build["completed_at"])
    assert (build["celery_state"], build["message"]) == ("SUCCESS", "build is done.")
    task = await shop.get(f"/api/v1/status/{build['worker_task_id']}")
    assert (task["work_type"], task["priority"], task["trace_id"]) == (
        "compose_repair",
        3,
        (await shop.get(f"/api/v1/runs/{run['run_id']}"))["trace_id"],
    )
    assert build["celery_task_id"] == build["worker_task_id"]
    assert {name: refs(run, name) for name in STEPS} == {
        "analyze": ["analyze.log"],
        "patch": ["patch.diff", "patch.log"],
        "build": ["build.log"],
        "restart": ["restart.log"],
        "verify": ["verify.log"],
        "rollback": ["rollback.log"],
    }


async def test_files_are_listed_oldest_first_and_downloaded_by_signed_paths(shop: Shop) -> None:
    run = await shop.ended((await shop.create())["run_id"])

    listed = (await shop.get(f"{RUNS}/{run['run_id']}/artifacts"))["artifacts"]

    assert [one["path"] for one in listed] == [one["path"] for one in run["artifacts"]]
    assert [one["created_at"] for one in listed] == sorted(one["created_at"] for one in listed)
    async with httpx2.AsyncClient(**client_options(shop.url)) as nobody:
        for one in listed:
            answer = await nobody.get(one["signed_path"])
            assert answer.status_code == 200, answer.text
            assert hashlib.sha256(answer.content).hexdigest() == one["checksum"]
            assert len(answer.content) == one["size_bytes"]
            file = shop.artifacts / "workflow_runs" / run["run_id"] / one["path"]
            assert file.read_bytes() == answer.content
    (diff,) = [one for one in listed if one["type"] == "patch_diff"]
    assert diff["checksum"] == hashlib.sha256(DIFF_LEFT.encode()).hexdigest()


async def test_the_plan_has_six_steps_with_the_parameters_of_the_contract(shop: Shop) -> None:
    run = await shop.ended((await shop.create(instruction=f"Do it.\n```diff\n{DIFF}```"))["run_id"])

    plan = run["action_plan"]
    assert UUID(plan["plan_id"])
    assert (plan["generated_by"], plan["generated_at"]) == ("system", run["queued_at"])
    assert [step["name"] for step in plan["steps"]] == STEPS
    analyze, patch, build, restart, verify, rollback = (step["parameters"] for step in plan["steps"])
    assert analyze.keys() == {"instruction", "service", "workspace", "notes", "logArtifact"}
    assert patch.keys() == {"service", "workspace", "allowlist", "diffArtifact", "commands"}
    assert build.keys() == {"service", "composeProject", "logArtifact", "command"}
    assert restart.keys() == {*build, "restartTimeoutSeconds"}
    assert verify["healthcheck"]["expectedStatus"] == 200
    assert rollback.keys() == {"service", "logArtifact", "strategies"}


async def test_the_snapshot_says_how_long_it_took(shop: Shop) -> None:
    run = await shop.ended((await shop.create())["run_id"])

    snapshot = run["metrics_snapshot"]
    assert snapshot["run"].keys() == {"status", "durationMs"}
    assert snapshot["run"]["status"] == "succeeded"
    assert list(snapshot["steps"]) == STEPS
    assert snapshot["steps"]["build"].keys() == {"status", "durationMs"}
    assert snapshot["steps"]["rollback"] == {"status": "skipped"}
    assert snapshot["approval"] == {"required": False, "requirement": "none", "status": "not_required"}


async def test_every_name_in_an_answer_has_underscores(shop: Shop) -> None:
    run = await shop.ended((await shop.create())["run_id"])

    # What the contract gives as a plain object has the contract's own names.
    del run["metrics_snapshot"]
    for step in run["action_plan"]["steps"]:
        del step["parameters"]
    assert [name for name in _names(run) if name != name.lower()] == []


@pytest.mark.parametrize(
    "patch", [{"diff": DIFF}, {"commands": [["sed", "-i", "s/3/4/", "web/app.py"]]}], ids=["diff", "commands"]
)
async def test_a_request_may_bring_what_changes_the_files(shop: Shop, host: Host, patch: Json) -> None:
    await shop.ended((await shop.create("bare" if "diff" in patch else "web", patch=patch))["run_id"])

    (task,) = host.tasks
    assert task.patch is not None
    assert task.patch.model_dump(exclude_none=True) == patch


async def test_requests_may_be_spelled_in_either_way_and_services_in_any_case(shop: Shop) -> None:
    body = {"instruction": "Repair it.", "targetService": "  WEB ", "approvalToken": None, "priority": "normal"}

    created = await shop.post(RUNS, body, status=202)

    assert created["target_service"] == "web"
    assert (await shop.ended(created["run_id"]))["status"] == "succeeded"


async def test_while_it_runs_the_steps_to_come_are_pending(shop: Shop, host: Host) -> None:
    host.holds.add("build")
    created = await shop.create()

    run = await shop.is_at(created["run_id"], "build")

    assert list(statuses(run).values()) == ["succeeded", "succeeded", "in_progress", "pending", "pending", "pending"]
    assert [step["celery_state"] for step in run["steps"]] == ["SUCCESS", "SUCCESS", "STARTED", *["PENDING"] * 3]
    assert (run["completed_at"], step_of(run, "build")["completed_at"]) == (None, None)
    assert "durationMs" not in run["metrics_snapshot"]["run"]
    host.holds.clear()
    assert (await shop.ended(created["run_id"]))["status"] == "succeeded"


@pytest.mark.parametrize("step", ["patch", "build"])
async def test_a_step_that_fails_before_the_restart_fails_the_repair(shop: Shop, host: Host, step: str) -> None:
    host.fails[step] = f"{step} went wrong: docs/README.md"

    run = await shop.ended((await shop.create())["run_id"])

    place = STEPS.index(step)
    assert run["status"] == "failed"
    assert list(statuses(run).values()) == [*["succeeded"] * place, "failed", *["skipped"] * (5 - place)]
    assert step_of(run, step)["message"] == f"{step} went wrong: docs/README.md"
    assert f"{step}.log" in refs(run, step)


@pytest.mark.parametrize("step", ["restart", "verify"])
async def test_a_step_that_fails_is_followed_by_the_rollback_alone(shop: Shop, host: Host, step: str) -> None:
    host.fails[step] = f"{step} went wrong: docs/README.md"

    run = await shop.ended((await shop.create())["run_id"])

    place = STEPS.index(step)
    assert run["status"] == "rolled_back"
    assert list(statuses(run).values()) == [
        *["succeeded"] * place,
        "failed",
        *["skipped"] * (4 - place),
        "succeeded",
    ]
    assert step_of(run, step)["message"] == f"{step} went wrong: docs/README.md"
    assert step_of(run, step)["celery_state"] == "FAILURE"
    assert f"{step}.log" in refs(run, step)
    assert refs(run, "rollback") == ["rollback.log"]
    assert run["metrics_snapshot"]["run"]["status"] == "rolled_back"


async def test_before_anything_was_changed_nothing_is_rolled_back(shop: Shop, host: Host) -> None:
    host.fails["analyze"] = "docker does not answer"

    run = await shop.ended((await shop.create())["run_id"])

    assert run["status"] == "failed"
    assert list(statuses(run).values()) == ["failed", *["skipped"] * 5]


async def test_a_rollback_that_fails_leaves_the_run_failed(shop: Shop, host: Host) -> None:
    host.fails |= {"verify": "it is not healthy", "rollback": "somebody else changed web/app.py"}

    run = await shop.ended((await shop.create())["run_id"])

    assert run["status"] == "failed"
    assert statuses(run)["rollback"] == "failed"
    assert step_of(run, "rollback")["message"] == "somebody else changed web/app.py"


async def test_a_repair_that_is_cancelled_is_rolled_back(shop: Shop, host: Host) -> None:
    host.holds.add("restart")
    created = await shop.create()
    await shop.is_at(created["run_id"], "restart")

    await shop.post(f"/api/v1/runs/{created['run_id']}/cancel", {}, status=200)

    run = await shop.ended(created["run_id"])
    assert run["status"] == "rolled_back"
    assert statuses(run)["rollback"] == "succeeded"
    listed = await shop.get(f"{RUNS}?status=rolled_back")
    assert [one["run_id"] for one in listed["runs"]] == [created["run_id"]]
    assert (await shop.get(f"{RUNS}?status=failed"))["runs"] == []


async def test_repairs_of_one_service_run_one_after_another(shop: Shop, host: Host) -> None:
    host.holds.add("verify")
    first = await shop.create("web")
    await shop.is_at(first["run_id"], "verify")

    second = await shop.create("web")
    other = await shop.create("db")

    await shop.is_at(other["run_id"], "verify")
    assert (await shop.get(f"{RUNS}/{second['run_id']}"))["status"] == "pending"
    host.holds.clear()
    for run in (first, second, other):
        assert (await shop.ended(run["run_id"]))["status"] == "succeeded"
    assert [task.service for task in host.tasks] == ["web", "db", "web"]


def _names(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [*value, *(name for inner in value.values() for name in _names(inner))]
    return [name for inner in value for name in _names(inner)] if isinstance(value, list) else []
