"""Prior approvals over REST: what says the same is the same content, in whatever words it is asked or dispatched."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2
import pytest

from common.rest.identities import Role
from orchestrator.database.pool import Pool
from orchestrator.identities.service import IdentityService
from tests.eventually import eventually
from tests.integration.identities.conftest import Site, guarded
from tests.integration.ledger import register

POLICY = """
version = 1

[[rule]]
name = "uname, and its shell is named"
work_type = "shell_script"
parameters = { "argv.0" = "uname", shell = "/bin/sh" }
effect = "write"
approval = { approvers = 1, roles = ["approver"], request_minutes = 60, valid_minutes = 5 }

[[rule]]
name = "asks first"
effect = "write"
allow = { environment = "X" }
approval = { approvers = 1, roles = ["approver"], request_minutes = 60, valid_minutes = 5 }
"""
SHORT = {"script": "true"}
SPELLED_OUT: dict[str, Any] = {
    "script": "true",
    "argv": None,
    "shell": "/bin/sh",
    "env": {},
    "stdin": "",
    "max_duration_seconds": 3600.0,
    "max_silence_seconds": None,
    "leaves_processes": False,
}


@pytest.fixture
async def site(ledger_url: str, pool: Pool, tmp_path: Path) -> AsyncIterator[Site]:
    """A guarded orchestrator whose policy has everything approved."""
    policy = tmp_path / "policy.toml"
    policy.write_text(POLICY)
    async with guarded(ledger_url, policy_file=policy) as url, AsyncExitStack() as stack:
        yield Site(url, IdentityService(pool), pool, stack)


async def approved(site: Site, asker: httpx2.AsyncClient, **work: Any) -> str:
    """Ask for work, have somebody else approve it, and return the approval's id."""
    asked = await asker.post("/api/v1/approvals", json=work)
    assert asked.status_code == 201, asked.text
    approval_id = str(asked.json()["approval_id"])
    approver = await site.somebody(Role.APPROVER)
    answer = await approver.post(f"/api/v1/approvals/{approval_id}/approve", json={})
    assert answer.status_code == 200, answer.text
    return approval_id


async def is_used(asker: httpx2.AsyncClient, approval_id: str) -> bool:
    return bool((await asker.get(f"/api/v1/approvals/{approval_id}")).json()["state"] == "used")


@pytest.mark.parametrize(
    ("work_type", "asked", "dispatched"),
    [
        ("shell_script", SHORT, SPELLED_OUT),
        ("shell_script", SPELLED_OUT, SHORT),
        ("shell_script", SHORT | {"max_duration_seconds": 10}, SHORT | {"max_duration_seconds": 1e1, "stdin": ""}),
    ],
    ids=["spelled out", "left out", "another number"],
)
async def test_an_approval_is_for_what_is_said_whether_or_not_defaults_are_spelled_out(
    site: Site, work_type: str, asked: dict[str, Any], dispatched: dict[str, Any], pool: Pool
) -> None:
    asker = await site.somebody(Role.OPERATOR)
    approval_id = await approved(site, asker, work_type=work_type, parameters=asked)
    body = {"work_type": work_type, "request_id": str(uuid4()), "hints": {"agent_id": None}, "approval_id": approval_id}

    answers = [
        await asker.post("/api/v1/dispatch", json=body | {"task_id": str(uuid4()), "parameters": parameters})
        for parameters in (dispatched, asked, dispatched)
    ]

    assert [answer.status_code for answer in answers] == [200, 200, 200], answers[0].text
    first, *again = [answer.json() for answer in answers]
    assert [first, first] == again, "the same request, in either words, is one task"
    assert first["status"] == "pending"
    await register(pool, uuid4())
    await eventually(lambda: is_used(asker, approval_id))
    stored = await pool.fetchval("SELECT parameters FROM task")
    assert stored == asked, "it runs in the words that people saw"
    shown = (await asker.get(f"/api/v1/approvals/{approval_id}")).json()
    assert (shown["state"], shown["task_id"]) == ("used", first["task_id"])


@pytest.mark.parametrize(
    "changed",
    [
        {"parameters": SPELLED_OUT | {"shell": "/bin/bash"}},
        {"parameters": SPELLED_OUT | {"script": "false"}},
        {"parameters": SPELLED_OUT | {"env": {"X": ""}}},
        {"work_type": "echo", "parameters": {}},
        {"parameters": SPELLED_OUT, "hints": {"agent_id": str(uuid4())}},
    ],
)
async def test_what_says_anything_else_needs_an_approval_of_its_own(site: Site, changed: dict[str, Any]) -> None:
    asker = await site.somebody(Role.OPERATOR)
    approval_id = await approved(site, asker, work_type="shell_script", parameters=SHORT)
    body = {"work_type": "shell_script", "task_id": str(uuid4()), "approval_id": approval_id}

    answer = await asker.post("/api/v1/dispatch", json=body | changed)

    assert answer.status_code == 409, answer.text
    assert "other content" in answer.json()["error_message"]


async def test_words_for_which_the_policy_has_another_rule_are_not_what_was_approved(site: Site) -> None:
    asker = await site.somebody(Role.OPERATOR)
    short = {"argv": ["uname"]}
    approval_id = await approved(site, asker, work_type="shell_script", parameters=short)
    body = {"work_type": "shell_script", "task_id": str(uuid4()), "approval_id": approval_id}

    answer = await asker.post("/api/v1/dispatch", json=body | {"parameters": short | {"shell": "/bin/sh"}})

    assert answer.status_code == 409, answer.text


async def test_of_two_that_say_the_same_in_other_words_one_approval_lets_one_run(site: Site) -> None:
    asker = await site.somebody(Role.OPERATOR)
    approval_id = await approved(site, asker, work_type="shell_script", parameters=SHORT)
    body = {"work_type": "shell_script", "approval_id": approval_id}

    items = [{"task_id": str(uuid4()), "parameters": parameters} for parameters in (SPELLED_OUT, SHORT)]
    answers = [await asker.post("/api/v1/dispatch", json=body | item) for item in items]

    assert [answer.status_code for answer in answers] == [200, 409], answers[1].text
    assert "used already" in answers[1].json()["error_message"]
