"""What strangers send keeps no valid token waiting, costs the ledger little, and tells them little."""

import asyncio
import json
import logging
from uuid import uuid4

import httpx2
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from chiffon.http import bearer
from common.http_client import client_options
from common.rest.identities import Permission, Role, TokenPurpose
from orchestrator.database.pool import Connection, Pool
from orchestrator.identities import queries
from orchestrator.identities.enrolment import EnrolmentRefused, EnrolmentService
from orchestrator.identities.model import Principal
from orchestrator.identities.tokens import new_ticket, new_token
from tests.integration.identities.conftest import Site, guarded
from tests.integration.identities.test_door import close_code
from tests.integration.identities.test_enrolment import enrolled

BURST = 10


async def exhaust(site: Site) -> None:
    """Send wrong tokens, tickets and enrolment tokens until all three have to wait."""
    nobody = await site.client(None)
    for _ in range(BURST + 2):
        answer = await nobody.get("/api/v1/tasks", headers=bearer(new_token(TokenPurpose.API)))
        wrong = await nobody.post("/api/v1/enrol", json={"token": new_token(TokenPurpose.ENROLMENT)})
    assert (answer.status_code, wrong.status_code) == (429, 429)
    assert await close_code(site, f"/api/v1/ws?ticket={new_ticket()}", None) == 4429


async def test_wrong_tokens_of_an_address_delay_no_valid_token_ticket_or_enrolment_of_it(site: Site) -> None:
    admin = await site.somebody(Role.ADMIN)
    wanted = {"name": f"a-{uuid4().hex[:8]}", "agent_type": "infra"}
    invited = (await admin.post("/api/v1/enrolments", json=wanted)).json()
    ticket = (await admin.post("/api/v1/ws-ticket")).json()["ticket"]
    unseen = await site.client((await site.issue(Role.VIEWER)).secret)

    await exhaust(site)

    assert (await unseen.get("/api/v1/tasks")).status_code == 200
    async with connect(f"{site.url.replace('http', 'ws')}/api/v1/ws?ticket={ticket}") as opened:
        assert json.loads(await opened.recv())["type"] == "hello"
    nobody = await site.client(None)
    assert (await nobody.post("/api/v1/enrol", json={"token": invited["token"]})).status_code == 200


async def test_a_ticket_opens_one_websocket_also_when_it_is_shown_twice_at_once(site: Site) -> None:
    viewer = await site.somebody(Role.VIEWER)
    ticket = (await viewer.post("/api/v1/ws-ticket")).json()["ticket"]

    async def first_word() -> str:
        async with connect(f"{site.url.replace('http', 'ws')}/api/v1/ws?ticket={ticket}") as opened:
            try:
                return str(json.loads(await opened.recv())["type"])
            except ConnectionClosed:
                return "refused"

    assert sorted(await asyncio.gather(*(first_word() for _ in range(8)))) == ["hello"] + ["refused"] * 7


async def test_any_number_of_unknown_tokens_at_once_are_looked_up_over_one_connection(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_once, most, looked_up = 0, 0, 0
    find = queries.find_bearers

    async def watched(db: object, digests: set[bytes]) -> object:
        nonlocal at_once, most, looked_up
        at_once += 1
        most, looked_up = max(most, at_once), looked_up + 1
        try:
            return await find(db, digests)  # type: ignore[arg-type]
        finally:
            at_once -= 1

    monkeypatch.setattr(queries, "find_bearers", watched)
    nobody = await site.client(None)
    guesses = [nobody.get("/api/v1/tasks", headers=bearer(new_token(TokenPurpose.API))) for _ in range(60)]

    answers = await asyncio.gather(*guesses)

    assert {answer.status_code for answer in answers} == {401, 429}
    assert most == 1
    assert looked_up < 60


async def test_any_number_of_unknown_enrolments_at_once_use_two_connections(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_once, most = 0, 0
    use = queries.use_enrolment

    async def watched(db: Connection, digest: bytes) -> Principal | None:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        try:
            return await use(db, digest)
        finally:
            at_once -= 1

    monkeypatch.setattr(queries, "use_enrolment", watched)
    enrolment = EnrolmentService(pool, failures_per_second=100)
    guesses = [enrolment.enrol(new_token(TokenPurpose.ENROLMENT), address="192.0.2.1") for _ in range(20)]

    found = await asyncio.gather(*guesses, return_exceptions=True)

    assert {type(one) for one in found} == {EnrolmentRefused}
    assert most <= 2


async def test_a_ticket_that_is_mistyped_is_refused_without_a_look_into_the_database(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(queries, "use_tickets")

    ticket = new_ticket()
    mistyped = ticket[:-1] + ("1" if ticket.endswith("0") else "0")
    for wrong in (mistyped, ticket[:-1], ticket.swapcase(), "x", new_token(TokenPurpose.API)):
        assert await close_code(site, f"/api/v1/ws?ticket={wrong}", None) == 4401


async def refusals(url: str, caplog: pytest.LogCaptureFixture, forwarded: str) -> tuple[list[int], set[str]]:
    """Send wrong tokens, each for another address; return the statuses, and which addresses the log names."""
    caplog.clear()
    caplog.set_level(logging.INFO)
    async with httpx2.AsyncClient(**client_options(url)) as nobody:
        statuses = []
        for number in range(BURST + 3):
            headers = {**bearer("chf_wrong"), "x-forwarded-for": forwarded.format(number=number)}
            statuses.append((await nobody.get("/api/v1/tasks", headers=headers)).status_code)
    return statuses, {one.__dict__["address"] for one in caplog.records if one.message == "door.refused"}


async def test_forwarded_addresses_count_only_from_proxies_that_the_settings_name(
    ledger_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with guarded(ledger_url) as url:
        statuses, addresses = await refusals(url, caplog, "192.0.2.{number}")
    assert statuses[-1] == 429
    assert addresses == {"127.0.0.1"}
    async with guarded(ledger_url, trusted_proxies="127.0.0.0/8, 192.0.2.200") as url:
        statuses, addresses = await refusals(url, caplog, "10.9.8.7, 192.0.2.{number}, 192.0.2.200")
    assert set(statuses) == {401}
    assert addresses == {f"192.0.2.{number}" for number in range(BURST + 3)}


async def test_where_nobody_is_asked_what_a_proxy_passes_on_is_no_way_in(ledger_url: str) -> None:
    async with (
        guarded(ledger_url, authentication="off", trusted_proxies=["127.0.0.1"]) as url,
        httpx2.AsyncClient(**client_options(url)) as client,
    ):
        asked = [
            (await client.get("/api/v1/tasks", headers={"x-forwarded-for": given})).status_code
            for given in ("192.0.2.1", "not an address", "127.0.0.1")
        ]

    assert asked == [401, 401, 401]


async def test_readiness_tells_strangers_names_and_yes_or_no_and_readers_the_details(site: Site) -> None:
    nobody, viewer = await site.client(None), await site.somebody(Role.VIEWER)
    forger = await site.client(new_token(TokenPurpose.API))

    shown = (await nobody.get("/ready")).json()
    full = (await viewer.get("/ready")).json()
    blind = [await site.client((await site.issue(Role.OPERATOR, scopes=[Permission.DISPATCH])).secret)]
    blind.append((await enrolled(site, await site.somebody(Role.ADMIN), "web-1"))[1])

    assert {name: set(check) for name, check in shown["checks"].items()} == {
        name: {"ok", "detail"} for name in ("broker", "database", "schema", "loops", "probe", "signatures")
    }
    assert {check["detail"] for check in shown["checks"].values()} == {""}
    assert full["checks"]["schema"]["detail"] != ""
    for client in blind:
        assert {check["detail"] for check in (await client.get("/ready")).json()["checks"].values()} == {""}
    assert (await forger.get("/ready")).status_code == 401
    assert set((await nobody.get("/health")).json()) == {"status", "broker", "database"}
