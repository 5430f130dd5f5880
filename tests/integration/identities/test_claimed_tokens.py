"""A token that another made lets its owner approve only once it is claimed, and never what its maker asks for."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest

from chiffon.cli.app import run
from chiffon.cli.outcome import Exit
from common.errors import Conflict
from common.rest.identities import Permission, PrincipalKind, Role
from orchestrator.database.pool import Pool
from orchestrator.identities.service import IdentityService
from tests.eventually import eventually
from tests.factories import OWN_TOKEN
from tests.integration.identities.conftest import Site, guarded
from tests.integration.identities.test_enrolment import enrolled

POLICY = """
version = 1

[[rule]]
name = "asks first"
effect = "write"
approval = { approvers = 1, roles = ["approver"], request_minutes = 60, valid_minutes = 5 }
"""
WORK = {"work_type": "echo", "parameters": {"message": "hello"}}


@pytest.fixture
async def site(ledger_url: str, pool: Pool, tmp_path: Path) -> AsyncIterator[Site]:
    """A guarded orchestrator whose policy has everything approved."""
    policy = tmp_path / "policy.toml"
    policy.write_text(POLICY)
    async with guarded(ledger_url, policy_file=policy) as url, AsyncExitStack() as stack:
        yield Site(url, IdentityService(pool), pool, stack)


async def first_administrator(site: Site, name: str = "root") -> httpx2.AsyncClient:
    return await site.client((await site.identities.bootstrap(name)).secret)


async def made_for(
    site: Site, admin: httpx2.AsyncClient, name: str, *roles: str, known: bool = False
) -> httpx2.AsyncClient:
    """Have an administrator make a token, and somebody of these roles unless they are known; return its client."""
    if not known:
        created = await admin.post("/api/v1/identities", json={"name": name, "roles": roles})
        assert created.status_code == 201, created.text
    everybody = (await admin.get("/api/v1/identities")).json()
    [principal_id] = [one["principal_id"] for one in everybody if one["name"] == name]
    made = await admin.post("/api/v1/tokens", json={"principal_id": principal_id})
    assert made.status_code == 201, made.text
    return await site.client(made.json()["token"])


async def claimed(site: Site, owner: httpx2.AsyncClient) -> httpx2.AsyncClient:
    answer = await owner.post("/api/v1/tokens/claim")
    assert answer.status_code == 201, answer.text
    return await site.client(answer.json()["token"])


async def asked(asker: httpx2.AsyncClient) -> str:
    """Ask for an approval and return where it is."""
    answer = await asker.post("/api/v1/approvals", json=WORK)
    assert answer.status_code == 201, answer.text
    return f"/api/v1/approvals/{answer.json()['approval_id']}"


async def vote(voter: httpx2.AsyncClient, approval: str, *, how: str = "approve") -> tuple[int, Any]:
    answer = await voter.post(f"{approval}/{how}", json={"reason": "no"} if how == "reject" else {})
    return answer.status_code, answer.json()


@pytest.mark.parametrize("how", ["approve", "reject"])
async def test_an_administrator_does_not_vote_with_a_token_that_they_made_for_another(site: Site, how: str) -> None:
    root = await first_administrator(site)
    bob = await made_for(site, root, "bob", "approver")
    approval = await asked(root)

    unclaimed = await vote(bob, approval, how=how)
    taken_over = await vote(await claimed(site, bob), approval, how=how)

    assert (unclaimed[0], unclaimed[1]["error_code"]) == (403, 4003)
    assert "'root' made this token of 'bob' and knows it, too: claim it first" in unclaimed[1]["error_message"]
    assert taken_over[0] == 403
    assert "'root', who asks for this, made this token of 'bob'" in taken_over[1]["error_message"]
    assert (await root.get(approval)).json()["state"] == "waiting"


async def test_a_claimed_token_answers_others_and_the_vote_says_which_it_was(site: Site) -> None:
    root = await first_administrator(site)
    ann, bob = await made_for(site, root, "ann", "operator"), await made_for(site, root, "bob", "approver")
    approval = await asked(ann)
    assert (await vote(bob, approval))[0] == 403
    own = await claimed(site, bob)
    token_id = (await own.get("/api/v1/whoami")).json()["token_id"]

    status, found = await vote(own, approval)

    assert (status, found["state"]) == (200, "approved")
    [said] = found["votes"]
    assert (said["name"], said["token_id"], said["token_created_by"]) == ("bob", token_id, "root")
    assert 0 <= said["token_age_seconds"] < 600, "since the claim, seconds ago"
    rows = await site.pool.fetch("SELECT actor, data FROM event WHERE kind = 'approval.voted'")
    [(actor, data)] = [tuple(row) for row in rows]
    assert (actor, data["token_id"], data["token_created_by"]) == ("bob", token_id, "root")
    assert data["token_age_seconds"] == said["token_age_seconds"]


async def test_a_claim_takes_the_token_from_its_maker_and_works_once(site: Site) -> None:
    root = await first_administrator(site)
    maker = await made_for(site, root, "bob", "approver")

    answers = await asyncio.gather(*(maker.post("/api/v1/tokens/claim") for _ in range(3)))

    [won] = [answer for answer in answers if answer.status_code == 201]
    owner = await site.client(won.json()["token"])
    assert (await owner.get("/api/v1/whoami")).json()["name"] == "bob"
    assert (await owner.post("/api/v1/tokens/claim")).status_code == 400

    async def is_turned_away() -> bool:
        return (await maker.get("/api/v1/whoami")).status_code == 401

    await eventually(is_turned_away)
    [event] = await site.pool.fetch("SELECT actor, data FROM event WHERE kind = 'token.claimed'")
    assert (event["actor"], event["data"]["token_id"]) == ("bob", won.json()["token_id"])
    assert event["data"]["created_by"] == "root"
    listed = {one["token_id"]: one for one in (await root.get("/api/v1/tokens")).json()}
    assert listed[event["data"]["replaces"]]["revoked_by"] == "bob"
    assert listed[won.json()["token_id"]]["claimed_at"] is not None


async def test_a_token_is_claimed_once_and_its_old_secret_opens_nothing_any_more(site: Site) -> None:
    ann = await site.identities.create(PrincipalKind.PERSON, "ann", [Role.VIEWER], by="root")
    old = await site.identities.issue(ann.principal_id, by="root", with_token=OWN_TOKEN)

    own = await site.identities.claim(old.token.token_id)

    # Neither was shown before, so nobody remembers them.
    answers = [(await site.ask("GET", "/api/v1/whoami", one.secret)).status_code for one in (old, own)]
    assert answers == [401, 200]
    for issued in (old, own):
        with pytest.raises(Conflict):
            await site.identities.claim(issued.token.token_id)


async def test_a_claim_gives_a_token_neither_more_rights_nor_more_time(site: Site) -> None:
    ann = await site.identities.create(PrincipalKind.PERSON, "ann", [Role.OPERATOR], by="root")
    old = await site.identities.issue(
        ann.principal_id, by="root", scopes=[Permission.READ], lasts=timedelta(hours=1), with_token=OWN_TOKEN
    )

    own = await site.identities.claim(old.token.token_id)

    whoami = (await site.ask("GET", "/api/v1/whoami", own.secret)).json()
    assert whoami["permissions"] == ["read"]
    assert (own.token.scopes, own.token.expires_at) == (frozenset({Permission.READ}), old.token.expires_at)


async def test_a_claim_takes_nobody_the_credential_of_an_agent(site: Site) -> None:
    root = await first_administrator(site)
    _, agent = await enrolled(site, root, "web-1")

    refused = await agent.post("/api/v1/tokens/claim")

    assert (refused.status_code, refused.json()["error_code"]) == (400, 2002)
    assert (await agent.get("/api/v1/whoami")).status_code == 200


async def test_no_detour_over_tokens_of_others_lets_who_asks_vote(site: Site) -> None:
    """With a token that they made they make more: of its owner, and of a third person."""
    root = await first_administrator(site)
    bob = await claimed(site, await made_for(site, root, "bob", "admin", "approver"))
    unclaimed = await made_for(site, root, "ben", "admin", "approver")
    approval = await asked(root)

    own = await made_for(site, bob, "bob", known=True)
    third = await claimed(site, await made_for(site, bob, "carol", "approver"))
    of_unclaimed = await made_for(site, unclaimed, "ben", known=True)
    answers = [await vote(voter, approval) for voter in (own, third, of_unclaimed)]

    assert [status for status, _ in answers] == [403, 403, 403]
    assert [("claim it first" in found["error_message"]) for _, found in answers] == [False, False, True]


async def test_a_token_that_its_owner_made_needs_no_claim(site: Site) -> None:
    root = await first_administrator(site)
    ann = await claimed(site, await made_for(site, root, "ann", "operator"))

    own = await made_for(site, root, "root", known=True)
    status, found = await vote(own, await asked(ann))

    assert (status, found["state"]) == (200, "approved")


async def test_nobody_approves_what_is_asked_with_a_token_that_they_know(site: Site) -> None:
    """Who makes a token for another could ask with it, and answer as themselves."""
    root = await first_administrator(site)
    bob = await claimed(site, await made_for(site, root, "bob", "admin", "approver"))
    ann = await made_for(site, root, "ann", "admin")
    service = await made_for(site, ann, "ci", "operator")
    by_ann, by_service = await asked(ann), await asked(service)

    as_root = [await vote(root, approval) for approval in (by_ann, by_service)]
    as_bob = await vote(bob, by_ann)
    after_a_claim = await vote(root, await asked(await claimed(site, ann)))

    assert [status for status, _ in as_root] == [403, 403]
    assert "'root' made the token with which 'ann' asks for this, and knows it, too" in as_root[0][1]["error_message"]
    assert (as_bob[0], after_a_claim[0]) == (200, 200)


async def test_first_administrators_of_the_database_approve_for_each_other(site: Site) -> None:
    root, rob = await first_administrator(site), await first_administrator(site, "rob")
    by_root, by_rob = await asked(root), await asked(rob)

    assert (await vote(root, by_root))[0] == 403
    assert [(await vote(rob, by_root))[0], (await vote(root, by_rob))[0]] == [200, 200]


async def test_an_approval_is_for_who_asked_and_for_one_attempt_over_rest(site: Site) -> None:
    root = await first_administrator(site)
    alice = await made_for(site, root, "alice", "operator")
    mal = await claimed(site, await made_for(site, root, "mal", "operator", "approver"))
    approval = await asked(alice)
    body = WORK | {"approval_id": approval.rpartition("/")[2]}
    ids = [f"7f3c2b1e-1d2f-4c59-9a5e-6a7d1f0c9b1{number}" for number in range(4)]
    assert (await vote(mal, approval))[0] == 200

    by_voter = await mal.post("/api/v1/dispatch", json=body | {"task_id": ids[0]})
    twenty = await alice.post("/api/v1/dispatch", json=body | {"task_id": ids[1], "max_attempts": 20})
    on_all = await alice.post("/api/v1/dispatch", json=body | {"task_id": ids[2], "on": {"all": True}})
    used = await alice.post("/api/v1/dispatch", json=body | {"task_id": ids[3], "max_attempts": 1})

    assert [answer.status_code for answer in (by_voter, twenty, on_all, used)] == [409, 409, 422, 200]
    assert "'alice' asked for it" in by_voter.json()["error_message"]
    assert "max_attempts is 20, and was approved as 1" in twenty.json()["error_message"]
    assert "approval_id" in on_all.json()["error_message"]


async def test_who_approves_is_shown_the_terms(site: Site) -> None:
    root = await first_administrator(site)
    terms = {"max_attempts": 20, "priority": 5, "ordering_key": "web-1", "expires_after_seconds": 60}

    found = (await root.post("/api/v1/approvals", json=WORK | terms)).json()

    assert found["max_attempts"] == 20
    assert found["work"]["terms"] == {
        "max_attempts": 20,
        "idempotent": False,
        "priority": 5,
        "precedence": None,
        "ordering_key": "web-1",
        "concurrency_key": None,
        "concurrency_limit": None,
        "stop_after_failures": None,
        "expires_after_seconds": 60,
    }
    assert '"max_attempts": 20' in found["shown"]
    other = (await root.post("/api/v1/approvals", json=WORK | terms | {"max_attempts": 19})).json()
    assert (other["digest"], other["approved_digest"] == found["approved_digest"]) == (found["digest"], False)


async def test_the_command_line_asks_on_terms_and_shows_them_and_the_tokens_of_votes(
    site: Site, capfd: pytest.CaptureFixture[str]
) -> None:
    root = await first_administrator(site)
    alice = await made_for(site, root, "alice", "operator")
    own = await claimed(site, await made_for(site, root, "bob", "approver"))

    work = ("echo", "--param", "message=hello", "--expires-after", "60")
    status, approval_id = await chiffon(site, alice, capfd, "approvals", "ask", *work, "--max-attempts", "3")
    assert status == 0
    asked = (await alice.get(f"/api/v1/approvals/{approval_id.strip()}")).json()
    assert (asked["max_attempts"], asked["work"]["terms"]["expires_after_seconds"]) == (3, 60)
    assert (await vote(own, f"/api/v1/approvals/{asked['approval_id']}"))[0] == 200

    status, shown = await chiffon(site, alice, capfd, "approvals", "show", asked["approval_id"])

    assert status == 0
    token_id = (await own.get("/api/v1/whoami")).json()["token_id"]
    assert "3 times" in shown
    assert '"max_attempts": 3' in shown
    assert f"yes  bob  (token {token_id}, made by root, owned for 0:0" in shown
    dispatch = ("dispatch", *work, "--approval", asked["approval_id"])
    assert (await chiffon(site, alice, capfd, *dispatch))[0] == Exit.CONFLICT
    assert (await chiffon(site, alice, capfd, *dispatch, "--max-attempts", "3"))[0] == Exit.OK


async def chiffon(
    site: Site, caller: httpx2.AsyncClient, capfd: pytest.CaptureFixture[str], *arguments: str
) -> tuple[int, str]:
    """Run a command as somebody; return its exit status and what it prints."""
    token = caller.headers["authorization"].partition(" ")[2]
    status = await asyncio.to_thread(run, [*arguments, "--server", site.url, "--token", token])
    return int(status), capfd.readouterr().out
