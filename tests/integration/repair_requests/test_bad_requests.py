"""What is no request: each is refused in the one shape of all errors, and nothing comes of it."""

from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from orchestrator.database.pool import Pool
from tests.integration.repair_requests.conftest import DIFF, RUNS, Shop, open_shop, settings_of
from tests.integration.repair_requests.scripted import Host

pytestmark = pytest.mark.xdist_group("repair_requests/bad_requests")

GOOD: dict[str, Any] = {"instruction": "Repair it.", "target_service": "web"}
APPROVAL: dict[str, Any] = {"approver": {"id": "ann", "role": "approver"}, "token": "x"}
ONE_SHAPE = {
    "type",
    "title",
    "status",
    "detail",
    "error_code",
    "error_message",
    "trace_id",
    "errors",
    "error",
    "remediation",
}


async def no_run(shop: Shop) -> bool:
    return not (await shop.get(RUNS))["runs"] and not shop.host.tasks


@pytest.mark.parametrize(
    ("changed", "error", "said"),
    [
        (
            {"target_service": "nothing"},
            "unknown_service",
            "Allowed: bare, db, guarded, guarded-by-two, shown",
        ),
        ({"target_service": ""}, "unknown_service", "target_service '' is not known"),
        ({"target_service": "../web"}, "unknown_service", "is not known"),
        ({"instruction": ""}, "invalid_instruction", "it is empty"),
        ({"instruction": " \n\t"}, "invalid_instruction", "it is empty"),
        ({"target_service": "bare"}, "invalid_instruction", "Nothing says how the files of 'bare' change."),
    ],
)
async def test_an_unknown_service_and_an_empty_instruction_are_400(
    office: Shop, changed: dict[str, Any], error: str, said: str
) -> None:
    problem = await office.post(RUNS, GOOD | changed, status=400)

    assert problem.keys() == ONE_SHAPE
    assert (problem["error"], problem["status"], problem["title"]) == (error, 400, "Bad Request")
    assert said in problem["detail"]
    assert problem["remediation"]
    assert problem["error_code"] == (2013 if error == "unknown_service" else 1002)
    assert await no_run(office)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "instruction"),
        ({"instruction": "x"}, "target_service"),
        ({"target_service": "web"}, "instruction"),
        (GOOD | {"instruction": 1}, "instruction"),
        (GOOD | {"instruction": None}, "instruction"),
        (GOOD | {"instruction": "x" * 100_001}, "instruction"),
        (GOOD | {"instruction": "a\x00b"}, "instruction"),
        (GOOD | {"target_service": ["web"]}, "target_service"),
        (GOOD | {"target_service": "w\x00"}, "target_service"),
        (GOOD | {"target_service": "x" * 201}, "target_service"),
        (GOOD | {"priority": "urgent"}, "priority"),
        (GOOD | {"priority": 3}, "priority"),
        (GOOD | {"priority": None}, "priority"),
        (GOOD | {"approval_token": 5}, "approval_token"),
        (GOOD | {"approval_token": "x" * 501}, "approval_token"),
        (GOOD | {"patch": "x"}, "patch"),
        (GOOD | {"patch": {}}, "patch"),
        (GOOD | {"patch": {"diff": DIFF, "commands": [["sed"]]}}, "patch"),
        (GOOD | {"patch": {"diff": ""}}, "patch.diff"),
        (GOOD | {"patch": {"diff": "x" * 262_145}}, "patch.diff"),
        (GOOD | {"patch": {"commands": []}}, "patch.commands"),
        (GOOD | {"patch": {"commands": [[]]}}, "patch.commands.0"),
        (GOOD | {"patch": {"commands": ["sed -i"]}}, "patch.commands.0"),
        (GOOD | {"patch": {"commands": [["sed", 1]]}}, "patch.commands.0.1"),
        (GOOD | {"patch": {"script": "x"}}, "patch.script"),
        (GOOD | {"instructions": "x"}, "instructions"),
        (GOOD | {"targetService": "web"}, "targetService"),
        (GOOD | {"run_id": str(uuid4())}, "run_id"),
    ],
)
async def test_a_body_of_another_form_is_422(office: Shop, body: dict[str, Any], field: str) -> None:
    problem = await office.post(RUNS, body, status=422)

    assert problem.keys() == ONE_SHAPE
    assert (problem["error"], problem["error_code"]) == ("invalid_request", 1002)
    assert problem["errors"][0]["field"] == f"body.{field}"
    assert await no_run(office)


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"instruction": f"x\n```diff\n{DIFF}"}, "instruction"),
        ({"instruction": "x\n```diff\n```"}, "instruction"),
        ({"instruction": f"```diff\n{DIFF}```", "patch": {"diff": DIFF}}, "patch"),
        ({"patch": {"commands": [["rm", "-r", "/"]]}}, "patch.commands"),
        ({"instruction": "é" * 100_000, "patch": {"diff": "é" * 200_000}}, "instruction"),
    ],
)
async def test_a_patch_that_no_host_would_take_is_422(office: Shop, changed: dict[str, Any], field: str) -> None:
    problem = await office.post(RUNS, GOOD | changed, status=422)

    assert problem["errors"][0]["field"] == field
    assert problem["error"] == "invalid_request"
    assert await no_run(office)


@pytest.mark.parametrize(
    ("content", "kind"), [(b"{", "application/json"), (b"[]", "application/json"), (b"x", "text/plain")]
)
async def test_what_is_no_json_object_is_refused_with_a_word_too(office: Shop, content: bytes, kind: str) -> None:
    answer = await (await office.operator()).http.post(RUNS, content=content, headers={"content-type": kind})

    assert answer.status_code == (415 if kind == "text/plain" else 422)
    assert answer.json()["error"] == "invalid_request"


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "", None),
        ("GET", "/artifacts", None),
        ("POST", "/approvals", APPROVAL),
        ("POST", "/retry", {}),
    ],
)
async def test_an_unknown_run_is_404_on_every_path(office: Shop, method: str, path: str, body: Any) -> None:
    caller = await office.approver() if path == "/approvals" else await office.operator()

    answer = await caller.http.request(method, f"{RUNS}/{uuid4()}{path}", json=body)

    assert answer.status_code == 404, answer.text
    assert answer.json().keys() == ONE_SHAPE
    assert (answer.json()["error"], answer.json()["error_code"]) == ("run_not_found", 2010)


@pytest.mark.parametrize("path", ["", "/artifacts"])
async def test_an_id_that_is_none_is_422(office: Shop, path: str) -> None:
    problem = await office.get(f"{RUNS}/1{path}", status=422)

    assert problem["errors"][0]["field"] == "path.run_id"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "approver"),
        (APPROVAL | {"approver": "ann"}, "approver"),
        (APPROVAL | {"approver": {"id": "ann"}}, "approver.role"),
        (APPROVAL | {"approver": {"role": "approver"}}, "approver.id"),
        (APPROVAL | {"approver": {"id": "", "role": "approver"}}, "approver.id"),
        (APPROVAL | {"approver": {"id": "ann", "role": ""}}, "approver.role"),
        (APPROVAL | {"approver": {"id": "ann", "role": "approver", "name": "x"}}, "approver.name"),
        ({"approver": APPROVAL["approver"]}, "token"),
        (APPROVAL | {"token": ""}, "token"),
        (APPROVAL | {"token": None}, "token"),
        (APPROVAL | {"token": "x" * 501}, "token"),
        (APPROVAL | {"expires_at": "tomorrow"}, "expires_at"),
        (APPROVAL | {"expires_at": 1}, "expires_at"),
        (APPROVAL | {"expires_at": "2026-11-30T12:00:00"}, "expires_at"),
        (APPROVAL | {"expiresAt": "soon"}, "expiresAt"),
        (APPROVAL | {"comment": "x"}, "comment"),
    ],
)
async def test_an_approval_of_another_form_is_422(office: Shop, body: dict[str, Any], field: str) -> None:
    run = await office.create("guarded")

    path = f"{RUNS}/{run['run_id']}/approvals"
    problem = await office.post(path, body, status=422, by=await office.approver())

    assert problem["errors"][0]["field"] == f"body.{field}"
    assert problem["error"] == "invalid_request"
    assert (await office.get(f"{RUNS}/{run['run_id']}"))["status"] == "awaiting_approval"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"resume_from_step": "analyze"}, "resume_from_step"),
        ({"resumeFromStep": "deploy"}, "resumeFromStep"),
        ({"resume_from_step": 1}, "resume_from_step"),
        ({"reason": ["x"]}, "reason"),
        ({"reason": "x" * 2001}, "reason"),
        ({"step": "build"}, "step"),
    ],
)
async def test_a_retry_of_another_form_is_422(office: Shop, body: dict[str, Any], field: str) -> None:
    run = await office.create("web")

    problem = await office.retry(run, status=422, **body)

    assert problem["errors"][0]["field"] == f"body.{field}"


async def test_without_a_token_nobody_is_served(office: Shop) -> None:
    operator = await office.operator()
    for method, path in (("GET", ""), ("POST", ""), ("GET", f"/{uuid4()}")):
        answer = await operator.http.request(method, f"{RUNS}{path}", headers={"authorization": "Bearer x"})
        assert answer.status_code == 401, answer.text


async def test_what_the_policy_refuses_is_refused_before_there_is_a_run(
    ledger_url: str, pool: Pool, host: Host, tmp_path: Path
) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text('version = 1\n[[rule]]\nname = "echo"\nwork_type = "echo"\neffect = "read"\n')

    async with open_shop(
        settings_of(ledger_url, tmp_path, policy_file=policy), pool, host, tmp_path, with_agent=False
    ) as shop:
        problem = await shop.post(RUNS, GOOD, status=403)

        assert (problem["error"], problem["error_code"]) == ("policy_refused", 3001)
        assert await no_run(shop)


async def test_without_a_services_file_there_is_nothing_to_repair(
    ledger_url: str, pool: Pool, host: Host, tmp_path: Path
) -> None:
    settings = settings_of(ledger_url, tmp_path, services_file=None)

    async with open_shop(settings, pool, host, tmp_path, with_agent=False) as shop:
        problem = await shop.post(RUNS, GOOD, status=400)

        assert problem["error"] == "unknown_service"
        assert "none, for there is no service" in problem["detail"]
