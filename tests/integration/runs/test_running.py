"""Plans run to their ends, over REST: what each step gets, what is repeated, what is undone."""

from pathlib import Path
from uuid import uuid4, uuid5

import pytest

from chiffon.client import Client
from chiffon.errors import ApiError
from orchestrator.database.pool import Pool
from tests.eventually import eventually
from tests.integration.runs.conftest import Site, echo, ended, plan, script, standing, statuses, undo

pytestmark = pytest.mark.xdist_group("runs/running")


async def test_a_plan_runs_step_by_step_and_each_step_is_a_task(client: Client) -> None:
    started = await client.start_run(plan(echo("one"), echo("two"), name="greet"))

    run = await ended(client, started.run_id)

    assert (run.status, run.name, statuses(run)) == ("succeeded", "greet", {"one": "succeeded", "two": "succeeded"})
    assert run.started_at is not None
    assert run.finished_at is not None
    assert run.created_at <= run.started_at <= run.finished_at
    tasks = [await client.status(step.task_id) for step in run.steps if step.task_id is not None]
    assert [(task.name, task.labels, task.output, task.trace_id) for task in tasks] == [
        ("greet: one", {"run": "greet"}, "one", run.trace_id),
        ("greet: two", {"run": "greet"}, "two", run.trace_id),
    ]
    assert tasks[0].finished_at is not None
    assert tasks[0].finished_at <= tasks[1].created_at


async def test_steps_that_do_not_need_one_another_run_side_by_side(client: Client, tmp_path: Path) -> None:
    meet = f"touch {tmp_path}/{{own}}; until [ -e {tmp_path}/{{other}} ]; do sleep 0.02; done"
    sides = (
        script("left", meet.format(own="l", other="r"), needs=[]),
        script("right", meet.format(own="r", other="l"), needs=[]),
    )

    started = await client.start_run(plan(*sides, echo("both", needs=["left", "right"])))

    assert (await ended(client, started.run_id)).status == "succeeded"


async def test_references_stand_for_inputs_and_for_what_earlier_steps_came_to(client: Client) -> None:
    started = await client.start_run(
        plan(
            echo("hello", "hello ${inputs.whom}"),
            script("fail", "exit 3", may_fail=True),
            echo("all", "${run.name}: ${steps.hello.output}, ${steps.fail.exit_code}, $${inputs.whom}", when="always"),
            inputs={"whom": "nobody"},
        ),
        {"whom": "world"},
        name="refer",
    )

    run = await ended(client, started.run_id)

    assert run.status == "succeeded"
    last = run.steps[-1].task_id
    assert last is not None
    assert (await client.status(last)).output == "refer: hello world, 3, ${inputs.whom}"


async def test_a_reference_without_a_value_fails_its_step(client: Client) -> None:
    started = await client.start_run(plan(echo("one"), echo("two", "${steps.one.result.image}")))

    run = await ended(client, started.run_id)

    assert (run.status, statuses(run)) == ("failed", {"one": "succeeded", "two": "failed"})
    assert run.steps[1].task_id is None
    assert "${steps.one.result.image} has no value" in (run.steps[1].error_message or "")
    assert "two failed" in (run.error_message or "")


async def test_a_step_whose_condition_does_not_hold_is_skipped(client: Client) -> None:
    started = await client.start_run(
        plan(
            echo("one", "no"),
            echo("two", when={"value": "${steps.one.output}", "equals": "yes"}),
            echo("three", needs=["one"], when={"value": "${steps.one.output}", "one_of": ["no"]}),
        )
    )

    run = await ended(client, started.run_id)

    assert statuses(run) == {"one": "succeeded", "two": "skipped", "three": "succeeded"}
    assert run.status == "succeeded"


async def test_a_loop_goes_round_until_its_condition_holds(client: Client, tmp_path: Path) -> None:
    count = f"echo x >> {tmp_path}/rounds; wc -l < {tmp_path}/rounds | tr -d ' \\n'"
    started = await client.start_run(
        plan(
            echo("write", "${steps.count.output?} of 3"),
            script(
                "count",
                count,
                repeat={"until": {"value": "${steps.count.output}", "equals": "3"}, "at_most": 5, "from": "write"},
            ),
            echo("done", "round ${steps.count.round}"),
        )
    )

    run = await ended(client, started.run_id)

    assert run.status == "succeeded"
    assert [(step.step, step.number) for step in run.steps] == [("write", 3), ("count", 3), ("done", 1)]
    assert [(step.step, step.number) for step in run.earlier] == [
        ("write", 1),
        ("count", 1),
        ("write", 2),
        ("count", 2),
    ]
    ids = [step.task_id for step in (*run.earlier, *run.steps) if step.step == "write" and step.task_id is not None]
    written = [await client.status(task_id) for task_id in ids]
    assert [task.output for task in written] == [" of 3", "1 of 3", "2 of 3"]


async def test_a_loop_that_uses_up_its_rounds_has_failed(client: Client) -> None:
    again = {"until": {"value": "${steps.one.output}", "equals": "never"}, "at_most": 2}
    started = await client.start_run(plan(echo("one", repeat=again)))

    run = await ended(client, started.run_id)

    assert (run.status, statuses(run), run.steps[0].number) == ("failed", {"one": "failed"}, 2)
    assert "does not hold after round 2" in (run.error_message or "")


async def test_after_a_failure_what_succeeded_is_undone_the_last_first(client: Client, tmp_path: Path) -> None:
    log = tmp_path / "log"
    started = await client.start_run(
        plan(
            script("a", f"echo a >> {log}", undo=undo(f"echo undo a >> {log}")),
            script("b", f"echo b >> {log}", undo=undo(f"echo undo b of ${{steps.b.task_id}} >> {log}")),
            script("c", f"echo c >> {log}; exit 7", undo=undo(f"echo undo c >> {log}")),
            echo("d"),
            script("told", f"echo told >> {log}", when="failed", needs=["c"]),
        )
    )

    run = await ended(client, started.run_id)

    assert run.status == "rolled_back"
    assert statuses(run) == {
        "a": "succeeded",
        "b": "succeeded",
        "c": "failed",
        "d": "skipped",
        "told": "succeeded",
        "undo b": "succeeded",
        "undo a": "succeeded",
    }
    assert log.read_text().splitlines() == ["a", "b", "c", "told", f"undo b of {run.steps[1].task_id}", "undo a"]
    assert (run.error_message or "").startswith("c failed")


async def test_an_undo_that_fails_does_not_keep_the_others_back(client: Client, tmp_path: Path) -> None:
    log = tmp_path / "log"
    started = await client.start_run(
        plan(
            script("a", "true", undo=undo(f"echo undo a >> {log}")),
            script("b", "true", undo=undo("exit 1")),
            script("c", "exit 1"),
        )
    )

    run = await ended(client, started.run_id)

    assert run.status == "failed"
    assert (statuses(run)["undo b"], statuses(run)["undo a"]) == ("failed", "succeeded")
    assert log.read_text() == "undo a\n"
    assert "could not be undone: b" in (run.error_message or "")


async def test_the_same_start_is_the_same_run_and_other_content_a_conflict(client: Client, site: Site) -> None:
    run_id, request_id = uuid4(), uuid4()
    greet = plan(echo("one", "${inputs.a}"), inputs={"a": "1"})
    first = await client.start_run(greet, {"a": "2"}, run_id=run_id, request_id=request_id)

    again = await client.start_run(greet, {"a": "2"}, run_id=run_id, request_id=request_id)
    by_request = await client.start_run(greet, {"a": "2"}, run_id=uuid4(), request_id=request_id)
    with pytest.raises(ApiError) as other_input:
        await client.start_run(greet, {"a": "3"}, run_id=run_id)
    with pytest.raises(ApiError) as other_plan:
        await client.start_run(plan(echo("one")), run_id=uuid4(), request_id=request_id)

    assert {first.run_id, again.run_id, by_request.run_id} == {run_id}
    assert [(error.value.status, error.value.error_code) for error in (other_input, other_plan)] == [(409, 1003)] * 2
    run = await ended(client, run_id)
    assert await site.pool.fetchval("SELECT count(*) FROM run WHERE request_id = $1", request_id) == 1
    assert await site.pool.fetchval("SELECT count(*) FROM task WHERE trace_id = $1", run.trace_id) == 1


async def test_of_runs_with_one_key_one_runs_at_a_time_in_their_order(client: Client, tmp_path: Path) -> None:
    go, log = tmp_path / "go", tmp_path / "log"
    wait = f"echo first >> {log}; until [ -e {go} ]; do sleep 0.02; done"
    first = await client.start_run(plan(script("one", wait)), key="release")
    await eventually(log.exists)
    second = await client.start_run(plan(script("one", f"echo second >> {log}")), key="release")
    third = await client.start_run(plan(script("one", f"echo third >> {log}")), key="release")
    waiting = await client.run(third.run_id)

    go.touch()
    runs = [await ended(client, one.run_id) for one in (first, second, third)]

    assert (waiting.status, waiting.waits_for) == ("pending", first.run_id)
    assert [run.status for run in runs] == ["succeeded"] * 3
    assert log.read_text().split() == ["first", "second", "third"]


RUN_EVENTS = "SELECT kind, data, task_id FROM event WHERE kind LIKE 'run.%' AND trace_id = $1 ORDER BY seq"


async def test_a_task_that_somebody_cancels_ends_its_run(client: Client) -> None:
    started = await client.start_run(plan(script("one", "sleep 60"), echo("two")))
    running = await standing(client, started.run_id, "running")
    [task_id, _] = [step.task_id for step in running.steps]
    assert task_id is not None

    await client.cancel(task_id)
    run = await ended(client, started.run_id)

    assert (run.status, statuses(run)) == ("failed", {"one": "cancelled", "two": "skipped"})
    assert "one was cancelled" in (run.error_message or "")


async def test_events_tell_where_a_run_and_its_steps_stand(client: Client, site: Site) -> None:
    started = await client.start_run(plan(echo("one"), script("two", "exit 1"), name="told"))
    run = await ended(client, started.run_id)

    rows = await site.pool.fetch(RUN_EVENTS, run.trace_id)

    assert {(row["data"]["run_id"], row["data"]["name"]) for row in rows} == {(str(run.run_id), "told")}
    assert [row["kind"] for row in rows][:2] == ["run.started", "run.step"]
    steps = [row for row in rows if row["kind"] == "run.step"]
    assert [(row["data"]["step"], row["data"]["kind"], row["data"]["status"], row["task_id"]) for row in steps] == [
        ("one", "step", "pending", run.steps[0].task_id),
        ("two", "step", "pending", run.steps[1].task_id),
    ]
    stood = [row["data"] for row in rows if row["kind"] == "run.status"]
    assert [(data["from"], data["status"]) for data in stood] == [("pending", "running"), ("running", "failed")]
    assert "two failed" in stood[1]["error_message"]
    assert stood[1]["duration_ms"] >= 0


@pytest.mark.parametrize("path", ["/api/v1/runs/{}", "/api/v1/runs/{}/artifacts"])
async def test_the_id_of_no_run_is_not_found(client: Client, path: str) -> None:
    with pytest.raises(ApiError) as unknown:
        await client.http.get(path.format(uuid4()))

    assert (unknown.value.status, unknown.value.error_code) == (404, 2010)


@pytest.mark.parametrize("what", ["cancel", "retry", "abandon", "approve"])
async def test_nothing_can_be_done_to_no_run(client: Client, what: str) -> None:
    with pytest.raises(ApiError) as unknown:
        await client.http.post(f"/api/v1/runs/{uuid4()}/{what}", None, repeatable=False)

    assert (unknown.value.status, unknown.value.error_code) == (404, 2010)


async def test_a_run_that_keeps_nothing_has_no_artifacts(client: Client) -> None:
    started = await client.start_run(plan(echo("one")))
    await ended(client, started.run_id)

    assert await client.http.get(f"/api/v1/runs/{started.run_id}/artifacts") == {"items": []}


BAD = {
    "steps[0].work_type": plan({"name": "one", "work_type": "dance"}),
    "steps[0].undo.work_type": plan(echo("one", undo={"work_type": "dance"})),
    "steps[1].work_type": plan(echo("one"), {"name": "b", "work_type": "dance", "hints": {"agent_id": "${run.id}"}}),
    "steps[0].parameters.argv": plan({"name": "one", "work_type": "shell_script", "parameters": {"argv": []}}),
    "steps[0].needs": plan(echo("one", needs=["two"]), echo("two")),
    "steps[0].parameters.message": plan(echo("one", "${steps.two.output}"), echo("two")),
    "steps[1].name": plan(echo("one"), echo("one")),
    "steps[0].concurrency_key": plan(echo("one", concurrency_key="fan-out:x", concurrency_limit=1)),
    "body.plan.steps": plan(*(echo(f"s{number}") for number in range(501))),
    "body.plan.steps.0.name": plan(echo("One")),
}


@pytest.mark.parametrize(("field", "given"), list(BAD.items()), ids=list(BAD))
async def test_a_plan_that_cannot_run_is_refused_by_the_name_of_its_field(
    client: Client, site: Site, field: str, given: dict[str, object]
) -> None:
    run_id = uuid4()
    with pytest.raises(ApiError) as refused:
        await client.http.post("/api/v1/runs", {"run_id": str(run_id), "plan": given}, repeatable=False)

    assert (refused.value.status, refused.value.error_code) == (422, 1002)
    assert str(refused.value).startswith(f"{field}: ") or f" {field}: " in str(refused.value), str(refused.value)
    assert await site.pool.fetchval("SELECT count(*) FROM run WHERE run_id = $1", run_id) == 0


@pytest.mark.parametrize("message", ["one", "something else"])
async def test_a_task_that_has_the_id_of_a_step_is_not_the_step(client: Client, message: str) -> None:
    run_id = uuid4()
    foreign = await client.dispatch("echo", {"message": message}, task_id=uuid5(run_id, "step/one/1"))

    await client.start_run(plan(echo("one")), run_id=run_id)
    run = await ended(client, run_id)

    assert (run.status, statuses(run), run.steps[0].task_id) == ("failed", {"one": "failed"}, None)
    assert f"the id of its task, {foreign.task_id}, was taken before" in (run.error_message or "")


async def test_the_key_of_a_service_is_not_for_everybody(client: Client) -> None:
    with pytest.raises(ApiError) as refused:
        await client.start_run(plan(echo("one")), key="service:web")

    assert (refused.value.status, refused.value.error_code) == (422, 1002)
    assert "key: must not begin with 'service:'" in str(refused.value)


async def test_what_the_policy_never_allows_is_refused_at_the_start(bare: Site, pool: Pool) -> None:
    (bare.folder / "policy.toml").write_text(ECHO_ONLY)
    await bare.open(policy_file=bare.folder / "policy.toml")

    async with bare.client as client:
        with pytest.raises(ApiError) as refused:
            await client.start_run(plan(echo("one"), script("two", "true")))

    assert (refused.value.status, refused.value.error_code) == (403, 3001)
    assert "steps[1]" in str(refused.value)
    assert await pool.fetchval("SELECT count(*) FROM run") == 0


async def test_what_the_policy_does_not_allow_of_values_fails_the_step(bare: Site) -> None:
    (bare.folder / "policy.toml").write_text(ECHO_ONLY)
    await bare.open(policy_file=bare.folder / "policy.toml")
    await bare.start_agent()

    async with bare.client as client:
        started = await client.start_run(
            plan(
                echo("one", "reboot"),
                {"name": "two", "work_type": "shell_script", "parameters": {"argv": ["${steps.one.output}"]}},
            )
        )
        run = await ended(client, started.run_id)

    assert (run.status, statuses(run)) == ("failed", {"one": "succeeded", "two": "failed"})
    assert "policy" in (run.steps[1].error_message or "")
    assert run.steps[1].task_id is None


ECHO_ONLY = """
version = 1

[[rule]]
name = "echo"
work_type = "echo"
effect = "read"

[[rule]]
name = "uname"
work_type = "shell_script"
parameters = { "argv.0" = "uname" }
effect = "read"
"""
