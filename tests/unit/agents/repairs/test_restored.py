"""After a rollback everything is as it was: containers, the names of images, files of others."""

import asyncio
import json

import pytest

from agents.attempts.stopping import StopReason, StopSignal
from agents.processes.keepers import Keepers
from agents.repairs.state import End, Stage
from common.messages import ResultStatus, StepStatus
from tests.eventually import eventually
from tests.unit.agents.executing import Output
from tests.unit.agents.repairs.conftest import Repair
from tests.unit.agents.repairs.workshop import (
    CRASHES,
    Told,
    Workshop,
    carry_out,
    shell,
)


async def test_a_service_that_did_not_run_does_not_run_after_a_rollback(workshop: Workshop, repair: Repair) -> None:
    stopped = [{**one, "status": "exited"} if "web" in one["name"] else one for one in workshop.played["containers"]]
    workshop.play(containers=stopped)

    done = await repair(patch=CRASHES)

    assert done.told.steps["rollback"] == "succeeded", done.told.message("rollback")
    assert workshop.seen().services["web"][1] == "created"


async def test_a_service_without_a_container_has_none_after_a_rollback(workshop: Workshop, repair: Repair) -> None:
    state = workshop.played
    workshop.play(
        containers=[one for one in state["containers"] if "web" not in one["name"]],
        names={name: image for name, image in state["names"].items() if "web" not in name},
    )
    before = workshop.seen()

    done = await repair(patch=CRASHES)

    assert done.told.steps["rollback"] == "succeeded", done.told.message("rollback")
    assert workshop.seen() == before


async def test_a_name_that_had_moved_on_before_the_repair_has_moved_on_after_its_rollback(
    workshop: Workshop, repair: Repair
) -> None:
    state = workshop.played
    workshop.play(
        images={**state["images"], "sha256:newer": "sells figs\n"},
        names={**state["names"], "shop_web:latest": "sha256:newer"},
    )
    before = workshop.seen()

    done = await repair(patch=CRASHES)

    assert done.told.steps["rollback"] == "succeeded", done.told.message("rollback")
    assert workshop.seen() == before


async def test_a_patch_may_rename_the_image_and_that_is_taken_back(workshop: Workshop, repair: Repair) -> None:
    before = workshop.seen()
    renamed = json.dumps({"services": {"web": {"build": ".", "image": "bright:1"}, "db": {"image": "database"}}})

    done = await repair(patch=shell(f"echo crashes > app.txt; printf %s '{renamed}' > docker-compose.yml"))

    assert done.told.steps["restart"] == "succeeded", done.told.message("restart")
    assert done.told.steps["rollback"] == "succeeded", done.told.message("rollback")
    assert workshop.seen() == before


async def test_a_service_that_is_not_built_is_restarted_with_the_image_that_it_names(
    workshop: Workshop, repair: Repair
) -> None:
    state = workshop.played
    workshop.play(
        images={**state["images"], "sha256:other": "sells figs\n"}, names={**state["names"], "other:1": "sha256:other"}
    )
    changed = json.dumps({"services": {"web": {"image": "other:1"}, "db": {"image": "database"}}})

    done = await repair(patch=shell(f"printf %s '{changed}' > docker-compose.yml"))

    assert done.told.message("build") == "There is nothing to build: the service uses an image as it is."
    assert done.outcome.status is ResultStatus.COMPLETED, done.outcome.error_message
    assert workshop.seen().services["web"] == ("sha256:other", "running")


async def test_a_file_that_somebody_changed_after_the_restart_is_left_and_named(
    workshop: Workshop, keepers: Keepers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agents.repairs.deploying.STEADY_SECONDS", 600.0)
    stop, told = StopSignal(), Told()
    context = workshop.context(keepers, told, Output(), stop=stop)
    running = asyncio.create_task(carry_out(workshop.executor(), workshop.parameters(), context))
    await eventually(lambda: told.steps.get("verify") == "in_progress")
    (workshop.workspace / "app.txt").write_text("somebody's work\n")

    stop.order(StopReason.CANCELLED, grace=0)
    await running

    assert told.steps["rollback"] == "failed"
    assert "Somebody else has changed app.txt meanwhile" in told.message("rollback")
    assert (workshop.workspace / "app.txt").read_text() == "somebody's work\n"
    assert workshop.unit.end is End.IN_PART
    assert workshop.seen().services["web"][0] == workshop.unit.image_before


async def test_docker_that_goes_away_leaves_the_undoing_to_later(
    workshop: Workshop, keepers: Keepers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agents.repairs.deploying.STEADY_SECONDS", 600.0)
    before, stop, told = workshop.seen(), StopSignal(), Told()
    context = workshop.context(keepers, told, Output(), stop=stop)
    running = asyncio.create_task(carry_out(workshop.executor(), workshop.parameters(), context))
    await eventually(lambda: told.steps.get("verify") == "in_progress")
    (workshop.docker / "away").touch()
    stop.order(StopReason.CANCELLED, grace=0)
    await running
    while_away = (told.steps["rollback"], workshop.unit.end, workshop.unit.stage, workshop.unit.tries)

    settler = workshop.settler(keepers, told)
    await settler.run_once()
    (workshop.docker / "away").unlink()
    await settler.run_once()

    assert while_away == ("in_progress", None, Stage.RESTARTED, 0)
    assert told.steps["rollback"] == "succeeded"
    assert told.reports[-1].status is StepStatus.SUCCEEDED
    assert workshop.seen() == before
