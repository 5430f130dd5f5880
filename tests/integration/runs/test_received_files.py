"""Files are put where a program begins only if the policy of that moment says so, in whatever way the work comes."""

from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from chiffon.client import Client
from chiffon.errors import ApiError
from tests.integration.runs.conftest import Site, ended, plan, standing, statuses

RULE = 'version = 1\n[[rule]]\nname = "cat"\nwork_type = "shell_script"\neffect = "read"\n'
CLOSED = f'{RULE}allow = {{ executables = "/bin/cat" }}\n'
OPEN = f'{RULE}allow = {{ executables = "/bin/cat", receives_files = true }}\n'
FILES = {"a.txt": {"text": "hello"}}
CAT: dict[str, Any] = {"argv": ["/bin/cat", "a.txt"], "files": FILES}
WORK: dict[str, Any] = {"work_type": "shell_script", "parameters": CAT}
PLAIN: dict[str, Any] = {"work_type": "shell_script", "parameters": {"argv": ["/bin/cat", "/dev/null"]}}


def policy(site: Site, text: str) -> Path:
    path = site.folder / f"{uuid4()}.toml"
    path.write_text(text)
    return path


def step(name: str, work: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"name": name, **work, **more}


def says_why(refused: ApiError, place: str = "") -> None:
    assert (refused.status, refused.error_code) == (403, 3001)
    assert "allow.receives_files" in str(refused)
    assert place in str(refused)


@pytest.mark.parametrize(
    ("steps", "place"),
    [([step("one", WORK)], "steps[0]"), ([step("one", PLAIN, undo=WORK)], "steps[0].undo")],
)
async def test_a_rule_that_does_not_name_files_lets_none_be_sent(
    bare: Site, steps: list[dict[str, Any]], place: str
) -> None:
    await bare.open(policy_file=policy(bare, CLOSED))

    async with bare.client as client:
        for sends in (client.dispatch("shell_script", CAT), client.start_run(plan(*steps))):
            with pytest.raises(ApiError) as refused:
                await sends
            says_why(refused.value)
        [one] = await client.dispatch_batch([{"task_id": str(uuid4()), **WORK}])

    assert place in str(refused.value)
    assert (one.status_code, one.error is not None and one.error.error_code) == (403, 3001)
    assert await bare.pool.fetchval("SELECT (SELECT count(*) FROM task) + (SELECT count(*) FROM run)") == 0


async def test_files_that_come_by_a_reference_are_refused_when_they_are_known(bare: Site) -> None:
    await bare.open(policy_file=policy(bare, CLOSED))
    later = {"work_type": "shell_script", "parameters": {"argv": CAT["argv"], "files": "${inputs.files}"}}

    async with bare.client as client:
        started = await client.start_run(plan(step("one", later), inputs={"files": FILES}))
        run = await ended(client, started.run_id)

    assert (run.status, statuses(run)) == ("failed", {"one": "failed"})
    assert "allow.receives_files" in (run.steps[0].error_message or "")
    assert run.steps[0].task_id is None


async def test_a_rerun_and_a_retry_are_ruled_about_by_the_policy_that_holds_then(bare: Site) -> None:
    async with bare.orchestrator(policy_file=policy(bare, OPEN)) as url, Client(url) as client:
        task_id = (await client.dispatch("shell_script", CAT)).task_id
        await client.cancel(task_id)
        run_id = (await client.start_run(plan(step("one", WORK)))).run_id
        await client.cancel_run(run_id)
        await standing(client, run_id, "cancelled")

    async with bare.orchestrator(policy_file=policy(bare, CLOSED)) as url, Client(url) as client:
        with pytest.raises(ApiError) as refused:
            await client.rerun(task_id)
        await client.retry_run(run_id)
        run = await standing(client, run_id, "failed")

    says_why(refused.value)
    assert "allow.receives_files" in (run.steps[0].error_message or "")
    assert await bare.pool.fetchval("SELECT count(*) FROM task") == 2
