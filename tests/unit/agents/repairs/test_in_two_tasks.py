"""A repair in two tasks: people agree to the diff of the first, and the second deploys exactly that."""

import hashlib

import pytest

from common.messages import ResultStatus
from tests.unit.agents.repairs.conftest import Repair
from tests.unit.agents.repairs.workshop import (
    PASSWORD,
    SECOND,
    Workshop,
    git,
    shell,
)


async def test_what_was_prepared_is_deployed_by_another_task(workshop: Workshop, repair: Repair) -> None:
    before = workshop.seen()
    prepared = await repair(steps=["analyze", "patch", "build"])
    seen = workshop.seen()
    shown = {name: prepared.result[name] for name in ("diff", "diff_sha256")}

    deployed = await repair(steps=["restart", "verify"], patch=None, resumes=str(prepared.task_id), **shown)

    diff = "".join(f"{line}\n" for line in shown["diff"])
    assert diff.endswith("\n-sells apples\n+sells pears\n")
    assert shown["diff_sha256"] == hashlib.sha256(diff.encode()).hexdigest()

    assert prepared.outcome.status is ResultStatus.COMPLETED, prepared.outcome.error_message
    assert prepared.told.steps == dict.fromkeys(("analyze", "patch", "build"), "succeeded")
    assert seen == before
    assert deployed.outcome.status is ResultStatus.COMPLETED, deployed.outcome.error_message
    assert deployed.told.steps == {"restart": "succeeded", "verify": "succeeded", "rollback": "skipped"}
    assert (workshop.workspace / "app.txt").read_text() == SECOND


async def test_another_diff_than_the_one_that_was_approved_is_not_deployed(workshop: Workshop, repair: Repair) -> None:
    prepared = await repair(steps=["analyze", "patch", "build"])
    before = workshop.seen()

    deployed = await repair(
        steps=["restart", "verify"], patch=None, resumes=str(prepared.task_id), diff_sha256="0" * 64
    )

    assert deployed.told.steps == {"restart": "failed", "rollback": "skipped"}
    assert "is another one than was asked for" in deployed.told.message("restart")
    assert workshop.seen() == before


async def test_another_diff_than_people_were_shown_is_not_deployed(workshop: Workshop, repair: Repair) -> None:
    prepared = await repair(steps=["analyze", "patch", "build"])
    before, result = workshop.seen(), prepared.result

    deployed = await repair(
        steps=["restart", "verify"],
        patch=None,
        resumes=str(prepared.task_id),
        diff_sha256=result["diff_sha256"],
        diff=[line.replace("pears", "plums") for line in result["diff"]],
    )

    assert deployed.told.steps == {"restart": "failed", "rollback": "skipped"}
    assert "people were shown is not the one that this host told of" in deployed.told.message("restart")
    assert workshop.seen() == before


async def test_people_see_no_secret_of_the_diff_and_it_is_deployed_with_it(workshop: Workshop, repair: Repair) -> None:
    script = f"printf 'password: \"%s\"\\nsells plums\\nthe code is %s\\n' {PASSWORD} over-the-hills > app.txt"
    context = {"hidden": lambda text: text.replace("over-the-hills", "[redacted]")}
    prepared = await repair(steps=["analyze", "patch", "build"], patch=shell(script), context=context)
    shown = {name: prepared.result[name] for name in ("diff", "diff_sha256")}

    left = prepared.outcome.leaving(context["hidden"])
    deployed = await repair(steps=["restart", "verify"], patch=None, resumes=str(prepared.task_id), **shown)

    assert shown["diff"][-3:] == ['+password: "[redacted]"', "+sells plums", "+the code is [redacted]"]
    assert left.result == prepared.outcome.result
    assert PASSWORD not in str(prepared.outcome)
    assert shown["diff_sha256"] != hashlib.sha256("".join(f"{x}\n" for x in shown["diff"]).encode()).hexdigest()
    assert deployed.outcome.status is ResultStatus.COMPLETED, deployed.outcome.error_message
    assert PASSWORD in (workshop.workspace / "app.txt").read_text()


async def test_a_diff_that_is_too_long_to_be_shown_is_not_built(workshop: Workshop, repair: Repair) -> None:
    long = shell("head -c 60000 /dev/zero | tr '\\0' 'x' > app.txt")

    prepared = await repair(steps=["analyze", "patch", "build"], patch=long)

    assert prepared.told.steps["patch"] == "failed"
    assert "People cannot be asked about this diff: it has 60" in prepared.told.message("patch")
    assert "they are shown at most 49152. Nothing was built." in prepared.told.message("patch")
    assert len(prepared.told.kept["patch.diff"][1]) > 60000
    assert not workshop.has_called("build")


@pytest.mark.parametrize("steps", [["build"], ["restart", "verify"]])
async def test_what_was_prepared_of_an_older_commit_is_gone_on_with_no_more(
    workshop: Workshop, repair: Repair, steps: list[str]
) -> None:
    prepared = await repair(steps=["analyze", "patch", "build"])
    (workshop.workspace / "deep" / "notes.txt").write_text("a fix that must stay\n")
    git(workshop.workspace, "commit", "--quiet", "--all", "--message=second")
    before = workshop.seen()

    done = await repair(steps=steps, patch=None, resumes=str(prepared.task_id))

    assert done.told.message(steps[0]) == (
        "Another commit is checked out in the workspace than when the patch was made: begin again with 'patch'."
    )
    assert done.told.steps["rollback"] == "skipped"
    assert workshop.seen() == before


async def test_a_workspace_that_somebody_changed_meanwhile_is_not_deployed_to(
    workshop: Workshop, repair: Repair
) -> None:
    prepared = await repair(steps=["analyze", "patch", "build"])
    (workshop.workspace / "app.txt").write_text("somebody's work\n")

    deployed = await repair(steps=["restart", "verify"], patch=None, resumes=str(prepared.task_id))

    assert "Somebody has changed since the patch was made: app.txt" in deployed.told.message("restart")
    assert (workshop.workspace / "app.txt").read_text() == "somebody's work\n"
    assert not workshop.has_called("up")


async def test_what_was_prepared_makes_room_for_the_next_repair(workshop: Workshop, repair: Repair) -> None:
    prepared = await repair(steps=["analyze", "patch", "build"])

    done = await repair(patch=shell("echo sells plums > app.txt"))
    late = await repair(steps=["restart", "verify"], patch=None, resumes=str(prepared.task_id))

    assert done.outcome.status is ResultStatus.COMPLETED, done.outcome.error_message
    assert "This host keeps nothing of the task" in late.told.message("restart")
    assert workshop.worktrees() == []
