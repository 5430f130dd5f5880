"""Repairs of services with a gate: nothing begins before people agree, and who agrees is who makes the request."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from common.rest.identities import PrincipalKind, Role
from tests.integration.repair_requests.conftest import RUNS, Json, Shop, statuses
from tests.integration.repair_requests.scripted import DIFF_SHA, SHOWN, Host

pytestmark = pytest.mark.xdist_group("repair_requests/approving")


def written(at: datetime) -> str:
    return at.isoformat()


def in_an_hour() -> datetime:
    return datetime.now(UTC) + timedelta(hours=1)


async def refused(shop: Shop, run: Json, error: str, said: str, **body: Any) -> None:
    """Expect an approval to be none, and nothing to come of it."""
    problem = await shop.approve(run, status=409, **body)
    assert problem["error"] == error, problem
    assert said in problem["detail"]
    assert problem["remediation"]
    found = await shop.get(f"{RUNS}/{run['run_id']}")
    assert (found["status"], found["approval_status"]) == ("awaiting_approval", "awaiting")


async def test_nothing_begins_before_somebody_else_agrees(shop: Shop, host: Host) -> None:
    created = await shop.create("guarded")

    assert (created["status"], created["started_at"]) == ("awaiting_approval", None)
    assert (created["approval_required"], created["approval_status"]) == (True, "awaiting")
    run = await shop.get(f"{RUNS}/{created['run_id']}")
    assert set(statuses(run).values()) == {"pending"}
    assert run["metrics_snapshot"]["approval"] == {"required": True, "requirement": "pre-run", "status": "awaiting"}
    assert not host.tasks

    approved = await shop.approve(run)

    assert approved["approval_status"] == "granted"
    run = await shop.ended(created["run_id"])
    assert run["status"] == "succeeded"
    approval = run["metrics_snapshot"]["approval"]
    assert approval.keys() == {"required", "requirement", "status", "approver", "grantedAt", "expiresAt"}
    assert (approval["status"], approval["approver"]) == ("granted", (await shop.approver()).name)
    took = datetime.fromisoformat(approval["expiresAt"]) - datetime.fromisoformat(approval["grantedAt"])
    assert took == timedelta(minutes=60)


async def test_people_see_exactly_what_would_run(office: Shop) -> None:
    created = await office.create("guarded", instruction="Print two.")

    asked = await office.get(f"/api/v1/approvals/{created['approval_id']}")

    parameters = asked["work"]["parameters"]
    assert asked["state"] == "waiting"
    assert asked["requested_by"] == (await office.operator()).name
    assert (parameters["instruction"], parameters["service"]) == ("Print two.", "guarded")
    assert parameters["patch"] == {"commands": [["sed", "-i", "s/1/2/", "web/app.py"]]}
    assert parameters["profile"]["workspace"] == "/srv/shop"


async def test_the_callers_own_token_is_as_good_as_the_id_of_the_approval(shop: Shop) -> None:
    created = await shop.create("guarded")
    approver = await shop.approver()

    await shop.approve(created, token=approver.token)

    assert (await shop.ended(created["run_id"]))["status"] == "succeeded"


async def test_an_approver_may_be_named_by_id_and_spelled_in_either_way(shop: Shop) -> None:
    created = await shop.create("guarded")
    approver = await shop.approver()
    who = (await approver.http.get("/api/v1/whoami")).json()["principal_id"]

    body = {
        "approver": {"id": who, "role": "approver"},
        "token": created["approval_id"].upper(),
        "expiresAt": written(in_an_hour()),
    }
    await shop.post(f"{RUNS}/{created['run_id']}/approvals", body, status=200, by=approver)

    assert (await shop.ended(created["run_id"]))["status"] == "succeeded"


async def test_a_token_that_was_not_issued_for_it_counts_for_nothing(office: Shop) -> None:
    run, other = await office.create("guarded"), await office.create("guarded-by-two")
    operator = await office.operator()

    for token in ("yes", str(uuid4()), other["approval_id"], operator.token, run["run_id"], "Bearer x"):
        await refused(office, run, "approval_invalid", "token must be the approval_id", token=token)


async def test_nobody_approves_for_another_or_in_a_role_that_is_not_theirs(office: Shop) -> None:
    run = await office.create("guarded")
    approver = await office.approver()
    mine = {"id": approver.name, "role": "approver"}

    for changed, said in (
        ({"id": (await office.operator()).name}, "approver.id must be who makes this request"),
        ({"id": "boss"}, "approver.id must be who makes this request"),
        ({"role": "admin"}, "approver.role must be a role of"),
        ({"role": "boss"}, "approver.role must be a role of"),
    ):
        await refused(office, run, "approval_invalid", said, approver=mine | changed)


async def test_a_role_that_does_not_count_here_is_none(office: Shop) -> None:
    run = await office.create("guarded")
    both = await office.somebody(Role.APPROVER, Role.OPERATOR)

    problem = await office.approve(run, by=both, status=409, approver={"id": both.name, "role": "operator"})

    assert problem["error"] == "approval_invalid"
    assert "one that counts here: approver" in problem["detail"]


async def test_who_asks_may_not_agree(office: Shop) -> None:
    run = await office.create("guarded")

    problem = await office.approve(run, by=await office.operator(), status=403)

    assert (problem["error"], problem["error_code"]) == ("forbidden", 4003)
    assert (await office.get(f"{RUNS}/{run['run_id']}"))["status"] == "awaiting_approval"


@pytest.mark.parametrize(
    ("roles", "kind"),
    [
        ((Role.OPERATOR,), PrincipalKind.PERSON),
        ((Role.ADMIN,), PrincipalKind.PERSON),
        ((Role.VIEWER,), PrincipalKind.PERSON),
        ((Role.OPERATOR,), PrincipalKind.SERVICE),
    ],
    ids=["operator", "admin", "viewer", "service"],
)
async def test_only_people_of_a_role_that_counts_may_agree(
    office: Shop, roles: tuple[Role, ...], kind: PrincipalKind
) -> None:
    run = await office.create("guarded")
    somebody = await office.somebody(*roles, kind=kind)

    problem = await office.approve(run, by=somebody, status=403)

    assert problem["error"] == "forbidden"
    assert (await office.get(f"{RUNS}/{run['run_id']}"))["approval_status"] == "awaiting"


async def test_an_approval_that_is_over_is_none(office: Shop) -> None:
    run = await office.create("guarded")

    for seconds in (-3600, -1):
        until = written(datetime.now(UTC) + timedelta(seconds=seconds))
        await refused(office, run, "approval_invalid", "expires_at is over", expires_at=until)


async def test_an_approval_holds_as_long_as_it_says_and_no_longer_than_the_gate_lets_it(office: Shop) -> None:
    soon, late = datetime.now(UTC) + timedelta(minutes=10), datetime.now(UTC) + timedelta(days=10)

    found = []
    for until in (soon, late):
        run = await office.create("guarded")
        await office.approve(run, expires_at=written(until))
        found.append(await office.get(f"/api/v1/approvals/{run['approval_id']}"))
        await office.post(f"/api/v1/runs/{run['run_id']}/cancel", {}, status=200)

    short, long = (datetime.fromisoformat(one["valid_until"]) for one in found)
    assert short == soon
    assert long < late
    assert long == datetime.fromisoformat(found[1]["decided_at"]) + timedelta(minutes=60)


async def test_what_nobody_begins_in_time_ends_with_its_approval(office: Shop, host: Host) -> None:
    run = await office.create("guarded")
    await office.approve(run, expires_at=written(datetime.now(UTC) + timedelta(seconds=1)))

    ended = await office.stands(run["run_id"], "failed")

    assert ended["approval_status"] == "expired"
    assert not host.tasks


async def test_what_was_approved_is_not_approved_again(office: Shop) -> None:
    run = await office.create("guarded")
    await office.approve(run)

    problem = await office.approve(run, status=409)

    assert (problem["error"], problem["error_code"]) == ("approval_not_applicable", 3003)


async def test_what_waits_for_nobody_cannot_be_approved(office: Shop) -> None:
    run = await office.create("web")

    problem = await office.approve(run | {"approval_id": str(uuid4())}, status=409)

    assert problem["error"] == "approval_not_applicable"
    assert "waits for no approval: it is pending" in problem["detail"]


async def test_two_must_agree_where_the_gate_says_so(shop: Shop, host: Host) -> None:
    run = await shop.create("guarded-by-two")

    first = await shop.approve(run)
    assert (first["status"], first["approval_status"]) == ("awaiting_approval", "awaiting")
    again = await shop.approve(run, status=409)
    assert (again["error"], "has approved this already" in again["detail"]) == ("approval_invalid", True)
    assert not host.tasks

    await shop.approve(run, by=await shop.somebody(Role.APPROVER))
    assert (await shop.ended(run["run_id"]))["status"] == "succeeded"


@pytest.mark.parametrize("minutes", [(5, None), (None, 5), (5, 20), (20, 5)], ids=str)
async def test_an_approval_of_two_holds_no_longer_than_either_says(
    office: Shop, minutes: tuple[int | None, int | None]
) -> None:
    run, now = await office.create("guarded-by-two"), datetime.now(UTC)
    untils = [None if one is None else now + timedelta(minutes=one) for one in minutes]
    people = (await office.approver(), await office.somebody(Role.APPROVER))

    for until, person in zip(untils, people, strict=True):
        await office.approve(run, by=person, expires_at=None if until is None else written(until))

    found = await office.get(f"/api/v1/approvals/{run['approval_id']}")
    told = await office.pool.fetch(
        "SELECT data->>'until' AS until FROM event WHERE kind = 'approval.voted' AND data->>'approval_id' = $1 "
        "ORDER BY seq",
        run["approval_id"],
    )
    await office.post(f"/api/v1/runs/{run['run_id']}/cancel", {}, status=200)
    assert datetime.fromisoformat(found["valid_until"]) == now + timedelta(minutes=5)
    assert [None if row["until"] is None else datetime.fromisoformat(row["until"]) for row in told] == untils


async def test_what_people_reject_fails_and_touches_nothing(shop: Shop, host: Host) -> None:
    run = await shop.create("guarded")
    approver = await shop.approver()

    body = {"reason": "not today"}
    await shop.post(f"/api/v1/approvals/{run['approval_id']}/reject", body, status=200, by=approver)

    ended = await shop.stands(run["run_id"], "failed")
    assert ended["approval_status"] == "expired"
    assert set(statuses(ended).values()) == {"skipped"}
    assert not host.tasks


async def test_a_token_that_comes_with_the_request_lets_nothing_begin(shop: Shop, host: Host) -> None:
    approver = await shop.approver()
    earlier = await shop.create("guarded")

    for token in ("yes", approver.token, earlier["approval_id"]):
        created = await shop.create("guarded-by-two", approval_token=token)
        assert (created["status"], created["approval_status"]) == ("awaiting_approval", "awaiting")
        await shop.post(f"/api/v1/runs/{created['run_id']}/cancel", {}, status=200)
    assert not host.tasks


async def test_what_waited_and_was_cancelled_touched_nothing(shop: Shop, host: Host) -> None:
    run = await shop.create("guarded")

    await shop.post(f"/api/v1/runs/{run['run_id']}/cancel", {}, status=200)

    ended = await shop.stands(run["run_id"], "failed")
    assert set(statuses(ended).values()) == {"skipped"}
    assert not host.tasks


async def test_people_agree_to_the_diff_that_was_built_before_the_service_is_restarted(shop: Shop, host: Host) -> None:
    created = await shop.create("shown-first")
    assert (created["approval_required"], created["approval_status"]) == (True, "awaiting")

    run = await shop.stands(created["run_id"], "awaiting_approval")
    assert list(statuses(run).values()) == [*["succeeded"] * 3, *["pending"] * 3]
    assert "patch.diff" in {one["path"] for one in run["artifacts"]}
    asked = await shop.get(f"/api/v1/approvals/{run['approval_id']}")
    assert asked["work"]["parameters"]["diff_sha256"] == DIFF_SHA
    assert asked["work"]["parameters"]["diff"] == run["diff"] == SHOWN
    lines = [line.strip() for line in asked["shown"].splitlines()]
    at = lines.index('"diff": [')
    assert lines[at + 4 : at + 7] == ['"-print(1)",', "\"+print('\\u00e9', [redacted])\"", "],"]
    await shop.approve(run)

    run = await shop.ended(created["run_id"])
    assert run["status"] == "succeeded"
    assert list(statuses(run).values()) == [*["succeeded"] * 5, "skipped"]
    before, after = host.tasks
    assert (before.steps, after.steps) == (["analyze", "patch", "build"], ["restart", "verify"])
    assert (str(after.resumes), after.diff) == (run["steps"][0]["worker_task_id"], SHOWN)
    prepared_by = await shop.pool.fetchval("SELECT agent_id FROM task WHERE task_id = $1", after.resumes)
    assert asked["work"]["hints"]["agent_id"] == str(prepared_by)
    assert {step["worker_task_id"] for step in run["steps"][:3]} != {
        step["worker_task_id"] for step in run["steps"][3:]
    }


async def test_what_people_do_not_want_deployed_is_not(shop: Shop, host: Host) -> None:
    run = await shop.stands((await shop.create("shown-first"))["run_id"], "awaiting_approval")

    body = {"reason": "the diff is wrong"}
    path = f"/api/v1/runs/{run['run_id']}/reject"
    await shop.post(path, body, status=200, by=await shop.approver())

    ended = await shop.stands(run["run_id"], "failed", "rolled_back")
    assert list(statuses(ended).values()) == [*["succeeded"] * 3, *["skipped"] * 3]
    assert len(host.tasks) == 1
