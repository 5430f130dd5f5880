"""Auditors ask through the API: by the client, page after page, and only with the permission."""

import json
from collections.abc import AsyncIterator
from datetime import timedelta
from uuid import UUID

import httpx2
import pytest
from fastapi import FastAPI
from starlette.types import Scope

from chiffon.client import Client
from chiffon.errors import ApiError
from chiffon.models import AuditEvent
from common.rest.identities import PrincipalKind, Role
from orchestrator.audit.api import get_audit
from orchestrator.audit.service import AuditService
from orchestrator.database.pool import Pool
from orchestrator.identities.model import ANYBODY, Caller
from orchestrator.identities.permissions import permissions_of
from orchestrator.main import create_app


class Admits:
    """Lets everybody in as one caller."""

    sessions = None

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    async def admit(self, scope: Scope) -> Caller:
        return self._caller


def make_app(pool: Pool, caller: Caller) -> FastAPI:
    app = create_app()
    app.dependency_overrides[get_audit] = lambda: AuditService(pool, window=5)
    app.state.keeper = Admits(caller)
    return app


@pytest.fixture
async def client(worked: Pool) -> AsyncIterator[Client]:
    transport = httpx2.ASGITransport(app=make_app(worked, ANYBODY))
    async with Client("http://127.0.0.1", token="anything", transport=transport) as opened:
        yield opened


async def all_of(client: Client, **question: object) -> list[AuditEvent]:
    return [event async for event in client.audit(**question)]  # type: ignore[arg-type]


async def test_an_export_is_the_whole_log_with_its_hashes(client: Client, worked: Pool) -> None:
    found = await all_of(client)

    assert [event.seq for event in found] == list(range(1, 17))
    async with worked.acquire() as db:
        newest = await db.fetchval("SELECT encode(hash, 'hex') FROM event_head")
    assert found[-1].hash == newest
    assert json.loads(found[2].model_dump_json())["data"]["sha256"]
    assert "text" not in found[2].data


async def test_a_question_travels_whole(client: Client) -> None:
    everything = await all_of(client)
    first, last = everything[0], everything[-1]

    assert [event.seq for event in await all_of(client, actor="somebody", limit=3)] == [1, 5, 9]
    assert [event.seq for event in await all_of(client, kind=["task.claimed", "task.output"], after=8)] == [
        10,
        11,
        14,
        15,
    ]
    assert [event.seq for event in await all_of(client, result=["completed", "failed"])] == [4, 8, 12, 16]
    assert [event.seq for event in await all_of(client, task_id=first.task_id, work_type="echo")] == [1, 2, 3, 4]
    assert await all_of(client, trace_id=UUID(int=0)) == []
    assert [event.seq for event in await all_of(client, agent_id=last.agent_id, since=last.at)] == [16]
    assert await all_of(client, until=first.at) == []
    assert await all_of(client, since=last.at + timedelta(hours=1)) == []


async def test_a_question_that_makes_no_sense_is_refused(client: Client) -> None:
    with pytest.raises(ApiError) as refused:
        await all_of(client, result=["unknown"])

    assert refused.value.status == 422


@pytest.mark.parametrize("role", [Role.VIEWER, Role.OPERATOR, Role.APPROVER, Role.AGENT])
async def test_who_may_not_audit_sees_nothing(worked: Pool, role: Role) -> None:
    caller = Caller(UUID(int=1), PrincipalKind.PERSON, "eve", frozenset({role}), permissions_of([role]))
    transport = httpx2.ASGITransport(app=make_app(worked, caller))

    async with Client("http://127.0.0.1", token="anything", transport=transport) as client:
        with pytest.raises(ApiError) as refused:
            await all_of(client)

    assert refused.value.status == 403
