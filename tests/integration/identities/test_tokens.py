"""Tokens: shown once, kept as a digest, and every change of them is an event that holds none."""

import json
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from common.errors import Conflict
from common.rest.identities import PrincipalKind, Role
from orchestrator.database.pool import Pool
from orchestrator.identities import door_keeping
from orchestrator.identities.service import IdentityService
from tests.eventually import eventually
from tests.integration.identities.conftest import Site
from tests.integration.identities.ends import ENDS, end, lasting

TABLES = """
    SELECT table_name FROM information_schema.tables WHERE table_schema = 'public' AND table_type = 'BASE TABLE'
"""


async def test_the_database_holds_no_usable_token(site: Site) -> None:
    admin = await site.somebody(Role.ADMIN)
    ann = (await admin.post("/api/v1/identities", json={"name": "ann", "roles": ["operator"]})).json()
    made = (await admin.post("/api/v1/tokens", json={"principal_id": ann["principal_id"], "note": "hers"})).json()
    invited = (await admin.post("/api/v1/enrolments", json={"name": "web-1", "agent_type": "infra"})).json()
    agent = (await site.client(None)).post("/api/v1/enrol", json={"token": invited["token"]})
    credential = (await agent).json()["token"]
    ticket = (await admin.post("/api/v1/ws-ticket")).json()["ticket"]

    dump = await dumped(site.pool)

    for secret in (made["token"], invited["token"], credential, ticket):
        assert secret not in dump
        assert secret[4:47] not in dump
        assert secret[4:40].encode().hex() not in dump
    assert "identity.created" in dump
    assert '"note": "hers"' in dump


@pytest.fixture
def use_is_noted_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door_keeping, "NOTE_USE", timedelta(milliseconds=50))


@pytest.mark.usefixtures("use_is_noted_soon")
async def test_a_token_is_shown_once_and_the_list_says_when_it_was_used(site: Site) -> None:
    admin = await site.somebody(Role.ADMIN)
    listed = (await admin.get("/api/v1/tokens")).json()

    async def has_its_last_use() -> bool:
        return (await admin.get("/api/v1/tokens")).json()[0]["last_used_at"] is not None

    assert [one["purpose"] for one in listed] == ["api"]
    assert "token" not in listed[0]
    assert "digest" not in json.dumps(listed)
    await eventually(has_its_last_use)


async def test_whoever_is_disabled_stays_so_and_keeps_the_name(site: Site) -> None:
    admin = await site.somebody(Role.ADMIN)
    ann = (await admin.post("/api/v1/identities", json={"name": "ann", "roles": ["viewer"]})).json()
    path = f"/api/v1/identities/{ann['principal_id']}/disable"

    first, again = await admin.post(path), await admin.post(path)
    taken = await admin.post("/api/v1/identities", json={"name": "ann", "roles": ["admin"]})
    token = await admin.post("/api/v1/tokens", json={"principal_id": ann["principal_id"]})

    assert first.json()["disabled_at"] == again.json()["disabled_at"]
    assert [answer.status_code for answer in (taken, token)] == [400, 400]
    async with site.pool.acquire() as db:
        for statement in ("DELETE FROM principal", "UPDATE principal SET disabled_at = NULL WHERE name = 'ann'"):
            with pytest.raises(Exception, match="principal"):
                await db.execute(statement)


async def test_the_first_administrator_is_made_in_the_database_and_a_lost_token_is_replaced(pool: Pool) -> None:
    identities = IdentityService(pool)

    first = await identities.bootstrap("ann")
    second = await identities.bootstrap("ann")

    [ann] = await identities.everybody()
    assert ann.kind is PrincipalKind.PERSON
    assert ann.roles == {Role.ADMIN, Role.APPROVER}
    assert first.secret != second.secret
    assert await identities.is_good(first.secret)
    await identities.disable(ann.principal_id, by="test")
    assert not await identities.is_good(second.secret)
    with pytest.raises(Conflict):
        await identities.bootstrap("ann")


async def test_a_ticket_opens_one_websocket_and_no_request(site: Site) -> None:
    from tests.integration.identities.test_door import close_code

    viewer, nobody = await site.somebody(Role.VIEWER), await site.client(None)
    ticket = (await viewer.post("/api/v1/ws-ticket")).json()["ticket"]

    assert (await nobody.get("/api/v1/tasks", params={"ticket": ticket})).status_code == 401
    assert await close_code(site, f"/api/v1/ws?ticket={ticket}", None) is None
    assert await close_code(site, f"/api/v1/ws?ticket={ticket}", None) == 4401


@pytest.mark.parametrize("how", ENDS)
async def test_a_token_that_has_ended_is_refused_also_when_it_is_shown_for_the_first_time(site: Site, how: str) -> None:
    good, issued = await site.issue(Role.VIEWER), await site.issue(Role.VIEWER, lasts=lasting(how))

    await end(site.identities, issued, how)

    answers = [(await site.ask("GET", "/api/v1/whoami", one.secret)).status_code for one in (good, issued)]
    assert answers == [200, 401]


async def test_a_token_that_is_made_for_a_time_ends_with_it(site: Site) -> None:
    admin = await site.somebody(Role.ADMIN)
    ann = (await admin.post("/api/v1/identities", json={"name": "ann", "roles": ["viewer"]})).json()

    made = [
        (await admin.post("/api/v1/tokens", json={"principal_id": ann["principal_id"], **given})).json()
        for given in ({"expires_in_seconds": 3600}, {})
    ]

    begin, finish = (datetime.fromisoformat(made[0][name]) for name in ("created_at", "expires_at"))
    assert finish - begin == timedelta(hours=1)
    assert made[1]["expires_at"] is None


async def test_a_name_that_is_no_person_does_not_become_the_first_administrator(pool: Pool) -> None:
    identities = IdentityService(pool)
    await identities.create(PrincipalKind.SERVICE, "ci", [Role.VIEWER], by="test")

    with pytest.raises(Conflict):
        await identities.bootstrap("ci")


async def dumped(pool: Pool) -> str:
    """Return everything that the database holds, as text."""
    async with pool.acquire() as db:
        tables = [row["table_name"] for row in await db.fetch(TABLES)]
        rows = [row for table in tables for row in await db.fetch(f'SELECT t::text AS row FROM "{table}" t')]
    return "\n".join(row["row"] for row in rows).replace('\\"', '"').replace('""', '"')


def test_what_is_kept_on_disk_is_for_its_user_only(tmp_path: Path) -> None:
    from chiffon.credentials import read_token, write_token

    write_token(tmp_path / "token", "chf_x")

    assert (tmp_path / "token").stat().st_mode & 0o777 == 0o600
    assert read_token(tmp_path / "token") == "chf_x"
