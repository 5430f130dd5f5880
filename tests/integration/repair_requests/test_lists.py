"""Repairs in lists: the newest first, by status and service, a page at a time."""

import pytest

from orchestrator.repairs import queries
from orchestrator.repairs.model import RepairFilter
from tests.integration.repair_requests.conftest import RUNS, Json, Shop
from tests.integration.repair_requests.scripted import Host

pytestmark = pytest.mark.xdist_group("repair_requests/lists")


def ids(answer: Json) -> list[str]:
    return [run["run_id"] for run in answer["runs"]]


async def test_repairs_are_listed_newest_first_by_service_and_a_page_at_a_time(office: Shop) -> None:
    services = ["web", "db", "web", "guarded"]
    made = [(await office.create(service))["run_id"] for service in services]

    listed = await office.get(RUNS)

    assert ids(listed) == made[::-1]
    assert [run["target_service"] for run in listed["runs"]] == services[::-1]
    queued = [run["queued_at"] for run in listed["runs"]]
    assert queued == sorted(queued, reverse=True)
    assert ids(await office.get(f"{RUNS}?service=web")) == [made[2], made[0]]
    assert ids(await office.get(f"{RUNS}?service=%20WEB%20")) == [made[2], made[0]]
    assert ids(await office.get(f"{RUNS}?service=unknown")) == []
    assert ids(await office.get(f"{RUNS}?limit=2")) == made[:1:-1]
    assert ids(await office.get(f"{RUNS}?limit=2&offset=3")) == made[:1]
    assert ids(await office.get(f"{RUNS}?offset=4")) == []
    assert ids(await office.get(f"{RUNS}?status=awaiting_approval")) == made[3:]
    assert ids(await office.get(f"{RUNS}?status=awaiting_approval&service=web")) == []


async def test_a_page_has_twenty_unless_more_are_asked_for(office: Shop) -> None:
    for _ in range(21):
        await office.create("web")

    assert len(ids(await office.get(RUNS))) == 20
    assert len(ids(await office.get(f"{RUNS}?limit=100"))) == 21


async def test_ends_are_told_apart(shop: Shop, host: Host) -> None:
    made = {}
    for status, fails in (
        ("succeeded", {}),
        ("failed", {"analyze": "no docker"}),
        ("rolled_back", {"verify": "not healthy"}),
    ):
        host.fails = dict(fails)
        made[status] = (await shop.ended((await shop.create())["run_id"]))["run_id"]

    for status, run_id in made.items():
        assert ids(await shop.get(f"{RUNS}?status={status}")) == [run_id]


async def test_other_runs_are_no_repairs(office: Shop) -> None:
    run_id = "00000000-0000-4000-8000-000000000001"
    plan = {"steps": [{"name": "hello", "work_type": "echo"}]}
    await office.post("/api/v1/runs", {"run_id": run_id, "plan": plan}, status=201)

    assert ids(await office.get(RUNS)) == []
    assert (await office.get(f"{RUNS}/{run_id}", status=404))["error"] == "run_not_found"
    assert (await office.get(f"{RUNS}/{run_id}/artifacts", status=404))["error"] == "run_not_found"


async def test_a_repair_is_a_run(office: Shop) -> None:
    made = await office.create("web")

    (run,) = (await office.get("/api/v1/runs?service=web"))["items"]

    assert (run["run_id"], run["service"], run["key"], run["name"]) == (
        made["run_id"],
        "web",
        "service:web",
        "repair web",
    )


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=101",
        "limit=-1",
        "limit=ten",
        "limit=1.0",
        "limit=",
        "limit=1&limit=2",
        "offset=-1",
        "offset=x",
        "offset=99999999999999999999",
        "status=cancelled",
        "status=",
        "status=SUCCEEDED",
        f"service={'x' * 201}",
        "page=1",
    ],
)
async def test_a_query_that_cannot_be_is_refused(office: Shop, query: str) -> None:
    problem = await office.get(f"{RUNS}?{query}", status=422)

    assert (problem["error"], problem["error_code"]) == ("invalid_request", 1002)
    assert problem["errors"][0]["field"] == f"query.{query.partition('=')[0]}"


async def test_a_page_of_repairs_ends_early_with_long_instructions(office: Shop) -> None:
    made = [(await office.create(instruction=f"{number} " + "Repair it. " * 100))["run_id"] for number in range(3)]

    async def page(most_bytes: int) -> list[str]:
        async with office.pool.acquire() as db:
            rows = await queries.newest(db, RepairFilter(), limit=10, offset=0, most_bytes=most_bytes)
        return [str(row.run_id) for row in rows]

    assert [await page(most) for most in (1, 1101, 1102, 10_000)] == [made[:1:-1], made[:1:-1], made[:0:-1], made[::-1]]
