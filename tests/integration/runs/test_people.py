"""What people do to runs over REST: approve, reject, cancel, try again, abandon."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from chiffon.client import Client
from chiffon.errors import ApiError
from common.rest.identities import Role
from orchestrator.database.pool import Connection
from orchestrator.identities.service import IdentityService
from orchestrator.runs import queries
from tests.eventually import eventually
from tests.integration.runs.conftest import Site, echo, ended, plan, script, standing, statuses, undo

pytestmark = pytest.mark.xdist_group("runs/people")

DEMAND: dict[str, Any] = {"approvers": 1, "roles": ["approver"], "request_minutes": 60, "valid_minutes": 5}


@pytest.fixture
async def guarded(bare: Site) -> Site:
    """An orchestrator that asks everybody for a token, and an agent."""
    await bare.open(authentication="required")
    await bare.start_agent()
    return bare


async def test_a_step_waits_until_another_person_has_approved_it(guarded: Site) -> None:
    asker = await guarded.somebody(Role.OPERATOR, Role.APPROVER)
    approver = await guarded.somebody(Role.APPROVER)
    started = await asker.start_run(plan(echo("one"), echo("two", approval=DEMAND), echo("three")))
    waiting = await standing(asker, started.run_id, "awaiting_approval")

    with pytest.raises(ApiError) as by_asker:
        await asker.approve_run(started.run_id)
    after_refusal = await asker.run(started.run_id)
    await approver.approve_run(started.run_id, comment="fine")
    run = await ended(asker, started.run_id)

    assert statuses(waiting) == {"one": "succeeded", "two": "awaiting_approval", "three": "pending"}
    assert (by_asker.value.status, by_asker.value.error_code) == (403, 4003)
    assert after_refusal.status == "awaiting_approval"
    assert (run.status, set(statuses(run).values())) == ("succeeded", {"succeeded"})
    [approval] = (await asker.approvals(task_id=run.steps[1].task_id)).items
    assert (approval.approval_id, approval.state) == (run.steps[1].approval_id, "used")


async def test_a_run_whose_first_step_needs_approval_waits_as_soon_as_it_is_started(guarded: Site) -> None:
    asker = await guarded.somebody(Role.OPERATOR)

    started = await asker.start_run(plan(echo("one", approval=DEMAND)))

    assert (started.status, started.started_at) == ("awaiting_approval", None)


async def test_a_no_ends_the_run_and_undoes_what_was_done(guarded: Site, tmp_path: Path) -> None:
    asker, approver = await guarded.somebody(Role.OPERATOR), await guarded.somebody(Role.APPROVER)
    log = tmp_path / "log"
    started = await asker.start_run(
        plan(script("one", "true", undo=undo(f"echo undone >> {log}")), echo("two", approval=DEMAND))
    )
    await standing(asker, started.run_id, "awaiting_approval")

    await approver.reject_run(started.run_id, reason="not today")
    run = await ended(asker, started.run_id)

    assert (run.status, statuses(run)) == (
        "rolled_back",
        {"one": "succeeded", "two": "cancelled", "undo one": "succeeded"},
    )
    assert "not today" in (run.error_message or "")
    assert log.read_text() == "undone\n"


async def test_what_the_policy_and_the_step_ask_is_asked_once_and_the_stricter_holds(bare: Site) -> None:
    (bare.folder / "policy.toml").write_text(ASKS_ONE)
    await bare.open(authentication="required", policy_file=bare.folder / "policy.toml")
    asker, first, second = [
        await bare.somebody(*roles) for roles in ([Role.OPERATOR], [Role.APPROVER], [Role.APPROVER])
    ]
    started = await asker.start_run(plan(echo("one", approval={**DEMAND, "approvers": 2, "valid_minutes": 5})))

    after_one = await first.approve_run(started.run_id)
    after_two = await second.approve_run(started.run_id)

    assert started.status == "awaiting_approval"
    assert after_one.status == "awaiting_approval"
    assert after_two.status == "pending"
    [approval] = (await asker.approvals()).items
    assert (approval.approvers, approval.yes, approval.rule) == (2, 2, "asks one")


async def test_a_step_that_asks_whom_the_policy_does_not_is_refused(bare: Site) -> None:
    (bare.folder / "policy.toml").write_text(ASKS_ONE)
    await bare.open(authentication="required", policy_file=bare.folder / "policy.toml")
    asker = await bare.somebody(Role.OPERATOR)

    with pytest.raises(ApiError) as refused:
        await asker.start_run(plan(echo("one", approval={**DEMAND, "roles": ["operator"]})))

    assert (refused.value.status, refused.value.error_code) == (422, 1002)
    assert "steps[0].approval.roles: none of operator counts for the policy, too" in str(refused.value)


async def test_only_what_a_run_waits_for_can_be_approved(guarded: Site) -> None:
    asker, approver = await guarded.somebody(Role.OPERATOR), await guarded.somebody(Role.APPROVER)
    waiting = await asker.start_run(plan(echo("one", approval=DEMAND)))
    other = await asker.start_run(plan(echo("one", approval=DEMAND)))
    [foreign] = [step.approval_id for step in (await asker.run(other.run_id)).steps]
    done = await asker.start_run(plan(echo("one")))
    await ended(asker, done.run_id)

    with pytest.raises(ApiError) as of_another:
        await approver.approve_run(waiting.run_id, approval_id=foreign)
    with pytest.raises(ApiError) as of_none:
        await approver.approve_run(done.run_id)
    with pytest.raises(ApiError) as no_right:
        await asker.approve_run(waiting.run_id)

    assert [(error.value.status, error.value.error_code) for error in (of_another, of_none)] == [(409, 2011)] * 2
    assert (no_right.value.status, no_right.value.error_code) == (403, 4003)
    assert (await asker.run(other.run_id)).status == "awaiting_approval"


async def test_of_several_approvals_one_is_named(guarded: Site) -> None:
    asker, approver = await guarded.somebody(Role.OPERATOR), await guarded.somebody(Role.APPROVER)
    both = [echo(name, needs=[], approval=DEMAND) for name in ("one", "two")]
    started = await asker.start_run(plan(*both))
    ids = {step.step: step.approval_id for step in (await asker.run(started.run_id)).steps}

    with pytest.raises(ApiError) as yes:
        await approver.approve_run(started.run_id)
    with pytest.raises(ApiError) as no:
        await approver.reject_run(started.run_id, reason="not today")
    untouched = statuses(await asker.run(started.run_id))
    await approver.approve_run(started.run_id, approval_id=ids["two"])
    await approver.approve_run(started.run_id)
    run = await ended(asker, started.run_id)

    assert [(error.value.status, error.value.error_code) for error in (yes, no)] == [(409, 2011)] * 2
    assert f"one {ids['one']}, two {ids['two']}" in str(yes.value)
    assert set(untouched.values()) == {"awaiting_approval"}
    assert run.status == "succeeded"


async def test_who_retries_a_run_may_not_approve_it(guarded: Site) -> None:
    asker, approver = await guarded.somebody(Role.OPERATOR), await guarded.somebody(Role.APPROVER)
    other = await guarded.somebody(Role.OPERATOR, Role.APPROVER)
    started = await asker.start_run(plan(echo("one", approval=DEMAND)))
    await approver.reject_run(started.run_id, reason="not today")
    before = await ended(asker, started.run_id)

    retried = await other.retry_run(started.run_id)
    with pytest.raises(ApiError) as by_other:
        await other.approve_run(started.run_id)
    await approver.approve_run(started.run_id)
    run = await ended(asker, started.run_id)

    assert (retried.status, retried.started_at) == ("awaiting_approval", None)
    assert (by_other.value.status, by_other.value.error_code) == (403, 4003)
    assert run.status == "succeeded"
    assert run.requested_by != before.requested_by


async def test_nothing_more_begins_in_the_name_of_somebody_who_is_disabled(guarded: Site, tmp_path: Path) -> None:
    asker, other = await guarded.somebody(Role.OPERATOR), await guarded.somebody(Role.OPERATOR)
    go, log = tmp_path / "go", tmp_path / "log"
    wait = f"until [ -e {go} ]; do sleep 0.02; done"
    started = await asker.start_run(
        plan(script("one", wait, undo=undo(f"echo undone >> {log}")), echo("two"), echo("three", when="always"))
    )
    identities = IdentityService(guarded.pool)
    [person] = [one for one in await identities.everybody() if one.name == started.requested_by]

    await identities.disable(person.principal_id, by="test")
    go.touch()
    run = await ended(other, started.run_id)
    await other.retry_run(started.run_id)
    again = await ended(other, started.run_id)

    assert (run.status, statuses(run)) == (
        "rolled_back",
        {"one": "succeeded", "two": "failed", "three": "failed", "undo one": "succeeded"},
    )
    assert f"{person.name!r}, in whose name it would run, was disabled" in (run.error_message or "")
    assert log.read_text() == "undone\n"
    assert (again.status, again.requested_by == person.name) == ("succeeded", False)


async def test_who_only_looks_may_neither_start_nor_end_a_run(guarded: Site) -> None:
    operator, viewer = await guarded.somebody(Role.OPERATOR), await guarded.somebody(Role.VIEWER)
    started = await operator.start_run(plan(script("one", "sleep 60")))

    refused = []
    for call in (
        viewer.start_run(plan(echo("one"))),
        viewer.cancel_run(started.run_id),
        viewer.retry_run(started.run_id),
        viewer.abandon_run(started.run_id),
        viewer.approve_run(started.run_id),
        viewer.reject_run(started.run_id, reason="no"),
    ):
        with pytest.raises(ApiError) as error:
            await call
        refused.append((error.value.status, error.value.error_code))

    assert refused == [(403, 4003)] * 6
    assert [run.run_id for run in (await viewer.runs()).items] == [started.run_id]
    assert (await viewer.run(started.run_id)).requested_by.startswith("p-")
    await operator.cancel_run(started.run_id)


async def test_cancelling_a_run_cancels_its_tasks_and_undoes_what_was_done(client: Client, tmp_path: Path) -> None:
    log = tmp_path / "log"
    started = await client.start_run(
        plan(
            script("one", "true", undo=undo(f"echo undone >> {log}")),
            script("two", f"echo two >> {log}; sleep 60"),
            echo("three"),
        )
    )
    await eventually(log.exists)

    cancelled = await client.cancel_run(started.run_id)
    again = await client.cancel_run(started.run_id)
    run = await ended(client, started.run_id)
    once_more = await client.cancel_run(started.run_id)

    assert cancelled.cancelled_by == again.cancelled_by == "anybody"
    assert run.status == once_more.status == "cancelled"
    assert statuses(run) == {"one": "succeeded", "two": "cancelled", "three": "skipped", "undo one": "succeeded"}
    assert log.read_text() == "two\nundone\n"


async def test_what_was_cancelled_is_undone_once_its_agent_has_stopped_it(client: Client, tmp_path: Path) -> None:
    log, begun, go = tmp_path / "log", tmp_path / "begun", tmp_path / "go"
    stubborn = (
        f"trap 'until [ -e {go} ]; do sleep 0.02; done; echo stopped >> {log}; exit 1' TERM; "
        f"touch {begun}; while :; do sleep 0.02; done"
    )
    started = await client.start_run(
        plan(script("one", "true", undo=undo(f"echo undone >> {log}")), script("two", stubborn))
    )
    await eventually(begun.exists)

    cancelled = await client.cancel_run(started.run_id)
    meanwhile = await client.run(started.run_id)
    go.touch()
    run = await ended(client, started.run_id)

    assert (cancelled.status, statuses(meanwhile)) == ("running", {"one": "succeeded", "two": "running"})
    assert (run.status, statuses(run)) == (
        "cancelled",
        {"one": "succeeded", "two": "cancelled", "undo one": "succeeded"},
    )
    assert log.read_text() == "stopped\nundone\n"


async def test_an_agent_that_never_says_that_it_stopped_is_waited_for_until_its_lease_is_over(
    client: Client, site: Site, tmp_path: Path
) -> None:
    begun, go = tmp_path / "begun", tmp_path / "go"
    wait = f"trap 'until [ -e {go} ]; do sleep 0.02; done' TERM; touch {begun}; while :; do sleep 0.02; done"
    started = await client.start_run(plan(script("one", wait)))
    await eventually(begun.exists)
    await client.cancel_run(started.run_id)

    async with site.pool.acquire() as db, never_kept(db):
        stopping = await fingerprints(db)
        await db.execute("DELETE FROM stopping")
        stopped = await fingerprints(db)
    await site.pool.execute("UPDATE stopping SET until = now()")
    run = await ended(client, started.run_id)

    assert (run.status, go.exists()) == ("cancelled", False)
    assert stopping[started.run_id] != stopped[started.run_id]
    go.touch()


async def test_what_undoes_a_run_waits_in_line_for_its_key(client: Client, tmp_path: Path) -> None:
    log, go = tmp_path / "log", tmp_path / "go"
    first = await client.start_run(
        plan(script("one", "true", undo=undo(f"echo undone >> {log}")), echo("two")), key="undo in line"
    )
    await ended(client, first.run_id)
    wait = f"until [ -e {go} ]; do sleep 0.02; done; echo second >> {log}"
    second = await client.start_run(plan(script("one", wait)), key="undo in line")
    await standing(client, second.run_id, "running")
    await client.retry_run(first.run_id, from_step="two")

    cancelled = await client.cancel_run(first.run_id)
    meanwhile = await client.run(first.run_id)
    go.touch()
    run = await ended(client, first.run_id)

    assert cancelled.status == "pending"
    assert (statuses(meanwhile), meanwhile.waits_for) == ({"one": "succeeded", "two": "skipped"}, second.run_id)
    assert (run.status, statuses(run)["undo one"]) == ("cancelled", "succeeded")
    assert log.read_text() == "second\nundone\n"


async def test_a_run_that_waits_in_line_is_cancelled_at_once(client: Client) -> None:
    first = await client.start_run(plan(script("one", "sleep 60")), key="k")
    second = await client.start_run(plan(echo("one")), key="k")

    cancelled = await client.cancel_run(second.run_id)

    assert (cancelled.status, cancelled.started_at) == ("cancelled", None)
    await client.cancel_run(first.run_id)
    await ended(client, first.run_id)


async def test_a_run_that_has_ended_is_not_cancelled(client: Client) -> None:
    started = await client.start_run(plan(echo("one")))
    await ended(client, started.run_id)

    with pytest.raises(ApiError) as cancel:
        await client.cancel_run(started.run_id)
    with pytest.raises(ApiError) as abandon:
        await client.abandon_run(started.run_id)

    assert [(error.value.status, error.value.error_code) for error in (cancel, abandon)] == [(409, 2011)] * 2


async def test_a_retry_goes_on_from_what_failed_and_keeps_the_rest(client: Client, tmp_path: Path) -> None:
    log, fixed = tmp_path / "log", tmp_path / "fixed"
    started = await client.start_run(
        plan(
            script("one", f"echo one >> {log}"),
            script("two", f"echo two >> {log}; test -e {fixed}"),
            script("three", f"echo three >> {log}"),
        )
    )
    failed = await ended(client, started.run_id)
    fixed.touch()

    retried = await client.retry_run(started.run_id, reason="fixed")
    run = await ended(client, started.run_id)

    assert failed.status == "failed"
    assert (retried.run_id, run.status) == (started.run_id, "succeeded")
    assert log.read_text().split() == ["one", "two", "two", "three"]
    assert [(step.step, step.number) for step in run.steps] == [("one", 1), ("two", 2), ("three", 1)]
    assert [(step.step, step.number, step.status) for step in run.earlier] == [("two", 1, "failed")]
    assert run.queued_at > failed.queued_at
    assert run.error_message is None


async def test_a_retry_does_again_what_was_undone(client: Client, tmp_path: Path) -> None:
    log, fixed = tmp_path / "log", tmp_path / "fixed"
    started = await client.start_run(
        plan(
            script("one", f"echo one >> {log}", undo=undo(f"echo undone >> {log}")),
            script("two", f"test -e {fixed}"),
        )
    )
    rolled_back = await ended(client, started.run_id)
    fixed.touch()

    await client.retry_run(started.run_id)
    run = await ended(client, started.run_id)

    assert (rolled_back.status, run.status) == ("rolled_back", "succeeded")
    assert log.read_text().split() == ["one", "undone", "one"]
    assert sorted((step.step, step.kind, step.number) for step in run.earlier) == [
        ("one", "step", 1),
        ("one", "undo", 1),
        ("two", "step", 1),
    ]


async def test_a_retry_begins_with_the_step_that_it_names(client: Client, tmp_path: Path) -> None:
    log = tmp_path / "log"
    started = await client.start_run(plan(*(script(name, f"echo {name} >> {log}") for name in ("one", "two", "three"))))
    await ended(client, started.run_id)

    with pytest.raises(ApiError) as not_said:
        await client.retry_run(started.run_id)
    with pytest.raises(ApiError) as unknown:
        await client.retry_run(started.run_id, from_step="four")
    await client.retry_run(started.run_id, from_step="two")
    run = await ended(client, started.run_id)

    assert (not_said.value.status, not_said.value.error_code) == (409, 2011)
    assert (unknown.value.status, unknown.value.error_code) == (422, 1002)
    assert "from_step: 'four' is no step of this plan" in str(unknown.value)
    assert run.status == "succeeded"
    assert log.read_text().split() == ["one", "two", "three", "two", "three"]


async def test_a_run_that_has_not_ended_is_not_tried_again(client: Client) -> None:
    started = await client.start_run(plan(script("one", "sleep 60")))

    with pytest.raises(ApiError) as refused:
        await client.retry_run(started.run_id)

    assert (refused.value.status, refused.value.error_code) == (409, 2011)
    await client.cancel_run(started.run_id)
    await ended(client, started.run_id)


async def test_a_retry_keeps_no_step_whose_task_was_removed(client: Client, site: Site, tmp_path: Path) -> None:
    log = tmp_path / "log"
    steps = [script(name, f"echo {name} >> {log}") for name in ("one", "two")]
    started = await client.start_run(plan(*steps, script("three", f"echo three >> {log}; exit 1")))
    before = await ended(client, started.run_id)
    removed = [step.task_id for step in before.steps[:2]]
    await site.pool.execute("DELETE FROM task WHERE task_id = ANY($1)", removed)

    with pytest.raises(ApiError) as refused:
        await client.retry_run(started.run_id)
    still = await client.run(started.run_id)
    await client.retry_run(started.run_id, from_step="one")
    await ended(client, started.run_id)

    assert (refused.value.status, refused.value.error_code) == (409, 2011)
    assert "removed from the ledger: one, two." in str(refused.value)
    assert still.status == "failed"
    assert log.read_text().split() == ["one", "two", "three"] * 2


async def test_a_run_whose_plan_nobody_can_read_any_more_can_be_abandoned(
    client: Client, site: Site, tmp_path: Path
) -> None:
    begun = tmp_path / "begun"
    started = await client.start_run(plan(script("one", f"touch {begun}; sleep 60")))
    await eventually(begun.exists)
    await site.pool.execute(
        "UPDATE run SET plan = jsonb_set(plan, '{steps,0,later}', 'true') WHERE run_id = $1", started.run_id
    )

    shown = await client.run(started.run_id)
    cancelled = await client.cancel_run(started.run_id)
    with pytest.raises(ApiError) as retried:
        await client.retry_run(started.run_id)
    await client.abandon_run(started.run_id)
    run = await ended(client, started.run_id)

    await all_stopped(client, started.run_id, {"one": "cancelled"})
    assert "this version cannot read it: steps[0].later" in (shown.error_message or "")
    assert cancelled.status == "running"
    assert (retried.value.status, retried.value.error_code) == (409, 2011)
    assert (run.status, run.error_message) == ("failed", "abandoned by anybody")


async def test_an_abandoned_run_ends_as_it_stands(client: Client, tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    started = await client.start_run(
        plan(script("one", "true", undo=undo("true")), script("two", f"touch {begun}; sleep 60"))
    )
    await eventually(begun.exists)

    abandoned = await client.abandon_run(started.run_id)
    run = await ended(client, started.run_id)

    assert (run.status, run.error_message) == ("failed", "abandoned by anybody")
    assert abandoned.run_id == started.run_id
    await all_stopped(client, started.run_id, {"one": "succeeded", "two": "cancelled"})


@asynccontextmanager
async def never_kept(db: Connection) -> AsyncIterator[None]:
    """Look at what follows from a change, and take it back."""
    change = db.transaction()
    await change.start()
    try:
        yield
    finally:
        await change.rollback()


async def fingerprints(db: Connection) -> dict[UUID, str]:
    """Return how a sweep sees the open runs."""
    found = await queries.open_runs(db, after=UUID(int=0), limit=1000, most_rows=10_000)
    return {one.run_id: one.fingerprint for one in found.rows}


async def all_stopped(client: Client, run_id: UUID, expected: dict[str, str]) -> None:
    """Return once the steps of a run stand so: its agent has stopped what was cancelled."""

    async def stands() -> bool:
        return statuses(await client.run(run_id)) == expected

    await eventually(stands)


ASKS_ONE = """
version = 1

[[rule]]
name = "asks one"
effect = "write"
approval = { approvers = 1, roles = ["approver"], request_minutes = 30, valid_minutes = 60 }
"""
