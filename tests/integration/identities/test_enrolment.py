"""An agent enrols once and reaches only its own: agent A against every endpoint, and everything that is B's."""

import asyncio
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2
import pytest

from agents.identity.credential import Credential, IsSomebody, check_is_nobody, keep_credential
from agents.main import run_agent
from agents.over_http.enrol import enrol
from agents.settings import AgentSettings
from agents.way import ServerNotReady
from common.config import SharedSettings
from common.rest.identities import Permission, Role
from tests.eventually import eventually
from tests.integration.edges.paths import at
from tests.integration.identities.conftest import Site
from tests.permissions import DEMANDED, WEBSOCKET, Open


async def invite(admin: httpx2.AsyncClient, name: str, **body: Any) -> Any:
    answer = await admin.post("/api/v1/enrolments", json={"name": name, "agent_type": "infra", **body})
    assert answer.status_code == 201, answer.text
    return answer.json()


async def enrolled(site: Site, admin: httpx2.AsyncClient, name: str, **body: Any) -> tuple[str, httpx2.AsyncClient]:
    """Return the id of a new agent, and a client that is this agent."""
    got = await enrol(site.url, (await invite(admin, name, **body))["token"])
    return str(got.agent_id), await site.client(got.token)


async def test_two_uses_of_one_enrolment_at_once_let_one_in(site: Site) -> None:
    invited = await invite(await site.somebody(Role.ADMIN), "web-1")
    nobody = await site.client(None)

    answers = await asyncio.gather(*(nobody.post("/api/v1/enrol", json={"token": invited["token"]}) for _ in range(8)))

    assert sorted(answer.status_code for answer in answers) == [200] + [403] * 7
    assert {answer.json().get("error_code") for answer in answers} == {None, 4004}
    async with site.pool.acquire() as db:
        assert await db.fetchval("SELECT count(*) FROM token WHERE purpose = 'agent'") == 1
        assert await db.fetchval("SELECT count(*) FROM event WHERE kind = 'agent.enrolled'") == 1


async def test_an_enrolment_token_runs_out_is_replaced_and_opens_nothing_else(site: Site) -> None:
    admin, nobody = await site.somebody(Role.ADMIN), await site.client(None)
    first = await invite(admin, "web-1")
    second = await invite(admin, "web-1", ttl_seconds=1)

    replaced = await nobody.post("/api/v1/enrol", json={"token": first["token"]})
    other_use = await (await site.client(second["token"])).get("/api/v1/whoami")
    async with site.pool.acquire() as db:
        await db.execute("SELECT pg_sleep(1.1)")
    late = await nobody.post("/api/v1/enrol", json={"token": second["token"]})

    assert first["agent_id"] == second["agent_id"]
    assert [replaced.status_code, other_use.status_code, late.status_code] == [403, 401, 403]


async def test_an_address_that_guesses_enrolment_tokens_has_to_wait(site: Site) -> None:
    nobody = await site.client(None)

    answers = [await nobody.post("/api/v1/enrol", json={"token": f"che_{number}"}) for number in range(12)]

    assert [answer.status_code for answer in answers] == [403] * 10 + [429] * 2
    assert answers[-1].json()["error_code"] == 4029


async def test_the_id_of_a_disabled_agent_does_not_return(site: Site) -> None:
    admin = await site.somebody(Role.ADMIN)
    agent_id, agent = await enrolled(site, admin, "web-1")
    assert (await agent.get("/api/v1/whoami")).json()["agent_id"] == agent_id
    [row] = [one for one in (await admin.get("/api/v1/identities")).json() if one["agent_id"] == agent_id]

    await admin.post(f"/api/v1/identities/{row['principal_id']}/disable")

    async def is_out() -> bool:
        return (await agent.get("/api/v1/whoami")).status_code == 401

    await eventually(is_out)
    again = await admin.post("/api/v1/enrolments", json={"name": "web-1", "agent_type": "infra"})
    assert (again.status_code, again.json()["error_code"]) == (400, 2002)


async def test_an_agent_that_has_enrolled_is_not_invited_again_and_gets_no_token_by_hand(site: Site) -> None:
    admin = await site.somebody(Role.ADMIN)
    _, agent = await enrolled(site, admin, "web-1")
    [row] = [one for one in (await admin.get("/api/v1/identities")).json() if one["name"] == "web-1"]

    again = await admin.post("/api/v1/enrolments", json={"name": "web-1", "agent_type": "infra"})
    by_hand = await admin.post("/api/v1/tokens", json={"principal_id": row["principal_id"]})

    assert [(answer.status_code, answer.json()["error_code"]) for answer in (again, by_hand)] == [(400, 2002)] * 2
    assert (await agent.get("/api/v1/whoami")).status_code == 200


async def test_an_agent_reaches_no_endpoint_that_is_not_for_agents(site: Site) -> None:
    _, agent = await enrolled(site, await site.somebody(Role.ADMIN), "web-1")

    for (method, path), demand in DEMANDED.items():
        if isinstance(demand, Open) or demand is Permission.WORK or method == WEBSOCKET:
            continue
        answer = await agent.request(method, at(path))
        assert (answer.status_code, answer.json()["error_code"]) == (403, 4003), f"{method} {path}"


async def test_an_agent_speaks_for_itself_only_and_touches_nothing_of_another(site: Site) -> None:
    admin = await site.somebody(Role.ADMIN)
    (a_id, a), (b_id, b) = [await enrolled(site, admin, name, agent_type="http") for name in ("a", "b")]
    for _ in range(2):
        assert (await admin.post("/api/queue/jobs", json={"type": "render", "payload": {}})).status_code == 201

    async def claim(agent: httpx2.AsyncClient, worker: str) -> httpx2.Response:
        return await agent.post("/api/queue/jobs/claim", json={"workerId": worker, "leaseSeconds": 30})

    running, finished = [(await claim(b, b_id)).json()["job"] for _ in range(2)]
    done = {"workerId": b_id, "attempt": 1, "resultSummary": "b was here"}
    assert (await b.post(f"/api/queue/jobs/{finished['id']}/complete", json=done)).status_code == 200
    assert (await claim(a, b_id)).status_code == 403

    bodies: dict[str, dict[str, Any]] = {
        "heartbeat": {"leaseSeconds": 30},
        "progress": {"progress": "50 %"},
        "output": {"number": 1, "stream": "stdout", "offset": 0, "text": "forged"},
        "complete": {"resultSummary": "forged"},
        "fail": {"errorMessage": "forged"},
    }
    for job in (running, finished):
        for action, body in bodies.items():
            path = f"/api/queue/jobs/{job['id']}/{action}"
            as_b = await a.post(path, json={"workerId": b_id, "attempt": 1, **body})
            as_a = await a.post(path, json={"workerId": a_id, "attempt": 1, **body})
            assert (as_b.status_code, as_b.json()["error_code"]) == (403, 4003), action
            assert (as_a.status_code, as_a.json()["error_code"]) == (409, 2005), action
    beat = {"agentType": "http", "status": "online", "slots": 1, "version": "1", "workTypes": [], "currentJobs": []}
    assert (await a.post(f"/api/queue/workers/{b_id}/heartbeat", json=beat)).status_code == 403

    left = [(await admin.get(f"/api/queue/jobs/{job['id']}")).json() for job in (running, finished)]
    assert [(one["status"], one["resultSummary"]) for one in left] == [("running", None), ("succeeded", "b was here")]


async def test_an_agent_that_has_enrolled_works_over_http_and_one_that_has_not_is_refused(
    site: Site, tmp_path: Path
) -> None:
    admin = await site.somebody(Role.ADMIN)
    got = await enrol(site.url, (await invite(admin, "web-1"))["token"])
    keep_credential(tmp_path / "web-1", got)
    stop, shared = asyncio.Event(), SharedSettings()
    settings = AgentSettings(server_url=site.url, state_dir=tmp_path / "web-1", heartbeat_seconds=0.2)
    stranger = AgentSettings(server_url=site.url, state_dir=tmp_path / "stranger")

    running = asyncio.create_task(run_agent(settings, shared, stop=stop))
    task = {"task_id": str(uuid4()), "work_type": "echo", "parameters": {}}
    assert (await admin.post("/api/v1/dispatch", json=task)).status_code == 200

    async def is_done() -> bool:
        return bool((await admin.get(f"/api/v1/status/{task['task_id']}")).json()["status"] == "completed")

    await eventually(is_done, timeout=20)
    status = (await admin.get(f"/api/v1/status/{task['task_id']}")).json()
    stop.set()
    await running
    assert status["agent_id"] == str(got.agent_id)
    with pytest.raises(ServerNotReady, match="401"):
        await run_agent(stranger, shared, stop=asyncio.Event())


def test_a_credential_is_for_its_user_only_and_never_replaces_another_agent(tmp_path: Path) -> None:
    keep_credential(tmp_path / "state", Credential(uuid4(), "infra", "cha_x"))

    assert (tmp_path / "state" / "credential.json").stat().st_mode & 0o777 == 0o600
    with pytest.raises(IsSomebody):
        check_is_nobody(tmp_path / "state")
