"""A repair is what the orchestrator planned from its services file: no other way leads to the host's executor."""

from typing import Any
from uuid import UUID, uuid4

import pytest

from common.rest.dead_letters import DeadLetterKind
from orchestrator.dead_letters import queries as dead_letters
from orchestrator.dead_letters.model import NewLetter
from tests.integration.repair_requests.conftest import RUNS, Json, Shop

pytestmark = pytest.mark.xdist_group("repair_requests/no_other_way")

REFUSED = (
    "'compose_repair' is only dispatched by a repair of a service in the services file: "
    "start one with POST /orchestrator/runs or `chiffon runs repair`, which take the service, an instruction, and a "
    "diff or commands as the patch"
)
PARAMETERS: Json = {
    "run_id": str(uuid4()),
    "service": "web",
    "profile": {"project": "shop", "workspace": "/srv/shop", "allowlist": ["**"], "commands_allowed": [["sh"]]},
    "patch": {"commands": [["sh", "-c", "true"]]},
    "steps": ["analyze", "patch", "build", "restart", "verify"],
}
ECHO = {"work_type": "echo", "parameters": {"message": "x"}}
REPAIR = {"work_type": "compose_repair", "parameters": PARAMETERS}
LATER = {"work_type": "compose_repair", "parameters": {**PARAMETERS, "instruction": "of ${run.id}"}}
DISPATCHES = "/api/v1/dispatch"
PLANS = "/api/v1/runs"


async def stored(shop: Shop) -> int:
    """Return how many tasks, runs and approvals there are."""
    counts = "SELECT (SELECT count(*) FROM task) + (SELECT count(*) FROM run) + (SELECT count(*) FROM approval)"
    return int(await shop.pool.fetchval(counts))


def plan(*steps: Json) -> Json:
    named = [{"name": f"step-{number}", **step} for number, step in enumerate(steps)]
    return {"run_id": str(uuid4()), "plan": {"steps": named}}


def fields_of(answer: Json) -> list[tuple[str, str]]:
    return [(error["field"], error["message"]) for error in answer["errors"]]


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        (DISPATCHES, REPAIR, "work_type"),
        (DISPATCHES, {"work_type": "compose_repair", "parameters": {}}, "work_type"),
        (DISPATCHES, {**REPAIR, "approval_id": str(uuid4())}, "work_type"),
        (DISPATCHES, {**REPAIR, "hints": {"agent_type": "infra"}}, "work_type"),
        (DISPATCHES, {**REPAIR, "on": {"all": True}}, "work_type"),
        ("/api/v1/approvals", REPAIR, "work_type"),
        ("/api/queue/jobs", {"type": "compose_repair", "payload": PARAMETERS}, "type"),
        (PLANS, plan(REPAIR), "steps[0].work_type"),
        (PLANS, plan(ECHO, ECHO, REPAIR), "steps[2].work_type"),
        (PLANS, plan(ECHO, LATER), "steps[1].work_type"),
        (PLANS, plan({**ECHO, "undo": REPAIR}), "steps[0].undo.work_type"),
        (PLANS, plan(ECHO, {**ECHO, "undo": LATER}), "steps[1].undo.work_type"),
    ],
)
async def test_nobody_sends_a_repair_of_his_own(office: Shop, path: str, body: Json, field: str) -> None:
    ids = {"task_id": str(uuid4())} if path.startswith(DISPATCHES) else {}
    before = await stored(office)

    answer = await office.post(path, {**ids, **body}, status=422)

    assert (answer["error_code"], fields_of(answer)) == (1002, [(field, REFUSED)])
    assert await stored(office) == before


async def test_of_a_batch_only_the_repair_is_refused(office: Shop) -> None:
    tasks = [{"task_id": str(uuid4()), **work} for work in (ECHO, REPAIR, ECHO)]
    before = await stored(office)

    answer = await office.post(f"{DISPATCHES}/batch", {"tasks": tasks}, status=200)

    assert [one["status_code"] for one in answer["results"]] == [200, 422, 200]
    assert fields_of(answer["results"][1]["error"]) == [("work_type", REFUSED)]
    assert await stored(office) == before + 2


async def test_no_plan_of_a_caller_passes_for_one_of_a_service(office: Shop) -> None:
    as_a_service = {"key": "service:web", "about": {"service": "web"}}
    before = await stored(office)

    for name, value in as_a_service.items():
        answer = await office.post(PLANS, {**plan(REPAIR), name: value}, status=422)
        assert [field.removeprefix("body.") for field, _ in fields_of(answer)] == [name]

    assert await stored(office) == before


async def test_a_repair_that_ended_is_not_run_once_more_by_itself(shop: Shop) -> None:
    shop.host.fails["build"] = "no compiler"
    run = await shop.ended((await shop.create())["run_id"])
    task_id = run["steps"][0]["worker_task_id"]
    tasks = await stored(shop)

    answer = await shop.post(f"/api/v1/tasks/{task_id}/rerun", {}, status=422)

    assert fields_of(answer) == [("work_type", REFUSED)]
    assert await stored(shop) == tasks


async def test_a_dead_letter_of_a_repair_is_not_replayed(shop: Shop) -> None:
    shop.host.fails["build"] = "no compiler"
    run = await shop.ended((await shop.create())["run_id"])
    task_id = UUID(run["steps"][0]["worker_task_id"])
    async with shop.pool.acquire() as db:
        [letter] = await dead_letters.add(
            db, [NewLetter(DeadLetterKind.TASK, "work.infra", "compose_repair", "lost", task_id=task_id)]
        )
    tasks = await stored(shop)

    answer = await shop.post(f"/api/v1/dead-letters/{letter.id}/replay", {}, status=422)

    assert fields_of(answer) == [("work_type", REFUSED)]
    assert await stored(shop) == tasks
    assert (await shop.get(f"/api/v1/dead-letters/{letter.id}"))["state"] == "waiting"


async def test_a_repair_is_tried_again_by_either_retry(shop: Shop) -> None:
    for path in (RUNS, PLANS):
        shop.host.fails["build"] = "no compiler"
        run = await shop.ended((await shop.create())["run_id"])
        shop.host.fails.clear()

        await shop.post(f"{path}/{run['run_id']}/retry", {}, status=202 if path == RUNS else 200)

        assert (await shop.stands(run["run_id"], "succeeded"))["status"] == "succeeded"


async def test_the_policy_says_what_it_says_about_repairs(office: Shop) -> None:
    work: dict[str, Any] = {"work_type": "compose_repair", "parameters": PARAMETERS}

    answer = await office.post("/api/v1/policy/explain", work, status=200)

    assert (answer["allowed"], answer["rule"]) == (True, "anything")
