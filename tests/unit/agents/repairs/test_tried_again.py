"""A repair that is tried again goes on from what its host has kept of the last try."""

from agents.repairs.state import End
from tests.unit.agents.repairs.conftest import Repair
from tests.unit.agents.repairs.workshop import (
    FAILS_TO_BUILD,
    SECOND,
    Workshop,
    shell,
)


async def test_from_the_build_without_patching_again(workshop: Workshop, repair: Repair) -> None:
    failed = await repair(patch=shell("echo 'fails to build' > app.txt; echo x > deep/new"))
    (workshop.docker / "mended").touch()

    again = await repair(steps=["build", "restart", "verify"], patch=None, resumes=str(failed.task_id))

    assert failed.told.steps["build"] == "failed"
    assert again.told.steps == {
        **dict.fromkeys(("build", "restart", "verify"), "succeeded"),
        "rollback": "skipped",
    }
    assert (workshop.workspace / "deep" / "new").read_text() == "x\n"
    assert workshop.unit.end is End.VERIFIED


async def test_from_the_verification_with_a_restart_because_it_was_taken_back(
    workshop: Workshop, repair: Repair
) -> None:
    profile = workshop.profile(
        healthcheck={"url": "http://127.0.0.1:9/", "timeout_seconds": 0.3, "interval_seconds": 0.1}
    )
    failed = await repair(profile=profile)
    before = workshop.seen()

    again = await repair(steps=["verify"], patch=None, resumes=str(failed.task_id))

    assert failed.told.steps["verify"] == "failed"
    assert "gave no answer" in failed.told.message("verify")
    assert again.told.steps == {"restart": "succeeded", "verify": "succeeded", "rollback": "skipped"}
    assert workshop.seen() != before
    assert (workshop.workspace / "app.txt").read_text() == SECOND


async def test_not_from_a_step_that_was_never_reached(workshop: Workshop, repair: Repair) -> None:
    failed = await repair(patch=FAILS_TO_BUILD)

    again = await repair(steps=["restart", "verify"], patch=None, resumes=str(failed.task_id))

    assert "did not come so far: begin again with 'build'" in again.told.message("restart")


async def test_not_what_was_verified(workshop: Workshop, repair: Repair) -> None:
    done = await repair()

    again = await repair(steps=["restart", "verify"], patch=None, resumes=str(done.task_id))

    assert "was verified: there is nothing to go on with" in again.told.message("restart")
