"""An agent's pool is the one it enrolled for, and so are the labels that were pinned: attacks over HTTP."""

from typing import Any
from uuid import uuid4

import httpx2
import pytest

from common.rest.identities import Role
from tests.integration.identities.conftest import Site
from tests.integration.identities.test_enrolment import enrolled

Json = dict[str, Any]


async def dispatch_echo(operator: httpx2.AsyncClient, **hints: Any) -> str:
    """Dispatch work of the pool infra and return its id."""
    task_id = str(uuid4())
    body = {"task_id": task_id, "work_type": "echo", "parameters": {"message": "secret"}, "hints": hints}
    answer = await operator.post("/api/v1/dispatch", json=body)
    assert answer.status_code == 200, answer.text
    return task_id


async def beat(agent: httpx2.AsyncClient, agent_id: str, **said: Any) -> httpx2.Response:
    return await agent.post(f"/api/queue/workers/{agent_id}/heartbeat", json=said)


async def claim(agent: httpx2.AsyncClient, agent_id: str, **said: Any) -> Json | None:
    answer = await agent.post("/api/queue/jobs/claim", json={"workerId": agent_id, "leaseSeconds": 30, **said})
    assert answer.status_code == 200, answer.text
    job: Json | None = answer.json()["job"]
    return job


async def shown(viewer: httpx2.AsyncClient, agent_id: str) -> Json:
    """Return an agent as the fleet is shown it."""
    [agent] = [one for one in (await viewer.get("/api/v1/agents")).json() if one["agent_id"] == agent_id]
    return dict(agent)


async def test_an_agent_gets_no_work_of_another_pool_whatever_it_says_of_itself(site: Site) -> None:
    admin = await site.somebody(Role.ADMIN, Role.OPERATOR)
    agent_id, gpu = await enrolled(site, admin, "evil-gpu", agent_type="gpu")
    task_id = await dispatch_echo(admin)

    assert await claim(gpu, agent_id) is None, "it never sent a heartbeat"
    refused = await beat(gpu, agent_id, agentType="infra", workTypes=["echo"])
    assert (refused.status_code, refused.json()["error_code"]) == (403, 4003)
    assert "belongs to the pool 'gpu'" in refused.text
    assert await claim(gpu, agent_id) is None
    assert (await beat(gpu, agent_id, workTypes=["echo"])).status_code == 200
    assert await claim(gpu, agent_id, allowedTypes=["echo"], claimId=str(uuid4())) is None

    done = await gpu.post(f"/api/queue/jobs/{task_id}/complete", json={"workerId": agent_id, "attempt": 1})
    assert done.status_code == 409
    assert (await admin.get(f"/api/v1/status/{task_id}")).json()["status"] == "pending"
    assert (await shown(admin, agent_id))["agent_type"] == "gpu"


async def test_a_worker_of_the_queue_gets_only_the_pool_of_its_identity(site: Site) -> None:
    admin = await site.somebody(Role.ADMIN, Role.OPERATOR)
    (http_id, http), (infra_id, infra) = [
        await enrolled(site, admin, f"of-{pool}", agent_type=pool) for pool in ("http", "infra")
    ]
    task_id = await dispatch_echo(admin)
    unrouted = (await admin.post("/api/queue/jobs", json={"type": "render", "payload": {}})).json()["id"]

    of_http, of_infra = [await claim(*one) for one in ((http, http_id), (infra, infra_id))]

    assert of_http is not None
    assert of_infra is not None
    assert (of_http["id"], of_infra["id"]) == (unrouted, task_id)
    assert [await claim(*one) for one in ((http, http_id), (infra, infra_id))] == [None, None]


async def test_nothing_that_an_agent_says_widens_a_label_that_permits_or_was_pinned(site: Site) -> None:
    admin = await site.somebody(Role.ADMIN, Role.OPERATOR)
    pinned = {"zone": "eu", "enforces": ["network_off"]}
    agent_id, agent = await enrolled(site, admin, "web-1", agent_type="infra", labels=pinned)
    all_of_it = {"enforces": ["network_off", "sandbox"], "secrets": ["db"], "disk": "ssd"}
    for required in ({"secrets": "db"}, {"enforces": ["sandbox"]}):
        await dispatch_echo(admin, required_capabilities=required)

    answers = [
        (await beat(agent, agent_id, labels=said)).status_code for said in (all_of_it, {"zone": "us"}, {"zone": "eu"})
    ]
    claims = [
        await claim(agent, agent_id, workerCapabilities=said) for said in (all_of_it, {"disk": "ssd"} | all_of_it)
    ]
    contradicting = {"workerId": agent_id, "leaseSeconds": 30, "workerCapabilities": {"zone": "us"}}
    refused = await agent.post("/api/queue/jobs/claim", json=contradicting)

    assert answers == [200, 403, 200]
    assert claims == [None, None]
    assert (refused.status_code, refused.json()["error_code"]) == (403, 4003)
    assert "zone" in refused.text
    labels = (await shown(admin, agent_id))["labels"]
    assert {name: labels.get(name) for name in ("zone", "enforces", "secrets", "disk")} == {
        **pinned,
        "secrets": None,
        "disk": "ssd",
    }


async def test_what_was_pinned_is_shown_and_no_second_invitation_changes_it(site: Site) -> None:
    admin = await site.somebody(Role.ADMIN)
    wanted = {"name": "web-1", "agent_type": "infra", "labels": {"enforces": "sandbox"}}

    first = (await admin.post("/api/v1/enrolments", json=wanted)).json()
    again = await admin.post("/api/v1/enrolments", json=wanted)
    changes: list[Json] = [{"labels": {}}, {"labels": {"secrets": ["db"]}}, {"agent_type": "gpu"}]
    others = [await admin.post("/api/v1/enrolments", json=wanted | change) for change in changes]
    [known] = [one for one in (await admin.get("/api/v1/identities")).json() if one["name"] == "web-1"]

    assert first["labels"] == known["labels"] == {"enforces": ["sandbox"]}
    assert again.status_code == 201
    assert [answer.status_code for answer in others] == [400, 400, 400]


@pytest.mark.parametrize("value", [True, 5])
async def test_a_label_that_permits_is_a_list(site: Site, value: object) -> None:
    admin = await site.somebody(Role.ADMIN)
    wanted = {"name": "web-1", "agent_type": "infra", "labels": {"secrets": value}}

    answer = await admin.post("/api/v1/enrolments", json=wanted)

    assert answer.status_code == 422
    assert "labels.secrets" in answer.text
