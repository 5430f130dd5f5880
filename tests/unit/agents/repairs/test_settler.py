"""What was left without an end gets one, and how it ended is said until it is known."""

import asyncio
import shutil
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from agents.attempts.owned import Attempt, Attempts
from agents.processes.keepers import Keepers
from agents.repairs.outbox import Outbox
from agents.repairs.settler import Settler
from agents.repairs.state import End, Stage, Unit
from agents.repairs.store import Store
from common.messages import GrantedTask, StepStatus, WorkRequest
from common.orders import Settle, StepsStored
from tests.eventually import eventually
from tests.unit.agents.repairs.conftest import Repair
from tests.unit.agents.repairs.workshop import CRASHES, KEY, Told, Workshop


def stored(task_id: UUID, through: str = "rollback") -> StepsStored:
    return StepsStored(task_id=task_id, attempt=1, through=through)


async def test_how_a_repair_ended_is_sent_until_it_is_stored(
    workshop: Workshop, repair: Repair, keepers: Keepers
) -> None:
    done = await repair()
    told = Told()
    settler = workshop.settler(keepers, told)

    await settler.run_once()
    await settler.run_once()
    first = [report.name for report in told.reports]
    settler.steps_stored(stored(done.task_id, through="verify"))
    await settler.run_once()
    is_sent_still = len(told.reports) > len(first)
    settler.steps_stored(stored(done.task_id))
    await settler.run_once()
    sent = len(told.reports)
    await settler.run_once()

    assert first == ["analyze", "patch", "build", "restart", "verify", "rollback"] * 2
    assert is_sent_still
    assert len(told.reports) == sent
    assert Outbox(workshop.store.folder).all() == []


async def test_how_it_ended_is_not_lost_when_the_next_repair_begins(
    workshop: Workshop, repair: Repair, keepers: Keepers
) -> None:
    first = await repair(patch=CRASHES)
    second = await repair()
    told = Told()

    await workshop.settler(keepers, told).run_once()

    waiting = [ended.task_id for ended in Outbox(workshop.store.folder).all()]
    assert waiting == [first.task_id, second.task_id]
    assert [report.status for report in told.reports if report.name == "rollback"] == ["succeeded", "skipped"]


async def test_a_repair_that_never_began_is_answered_for(workshop: Workshop, keepers: Keepers) -> None:
    told = Told()
    settler = workshop.settler(keepers, told)

    settler.settle(Settle(task_id=uuid4(), attempt=1))
    await settler.run_once()

    assert told.steps == {"rollback": "skipped"}
    assert told.message("rollback") == "The repair never began on this host."


async def test_a_repair_that_is_under_way_here_answers_by_itself(workshop: Workshop, keepers: Keepers) -> None:
    told, attempts = Told(), Attempts()
    task_id = uuid4()
    work = WorkRequest(task_id=task_id, work_type="compose_repair")
    grant = GrantedTask(claim_id=task_id, work=work, trace_id=task_id, request_id=task_id, attempt=1, lease_seconds=60)
    attempts.add(Attempt.granted(grant, asked_at=0))
    settler = workshop.settler(keepers, told, attempts)

    settler.settle(Settle(task_id=task_id, attempt=1))
    await settler.run_once()

    assert told.reports == []


async def test_an_end_that_is_asked_for_again_is_said_again(
    workshop: Workshop, repair: Repair, keepers: Keepers
) -> None:
    done = await repair()
    told = Told()
    settler = workshop.settler(keepers, told)
    settler.steps_stored(stored(done.task_id))
    await settler.run_once()

    settler.settle(Settle(task_id=done.task_id, attempt=1))
    await settler.run_once()

    assert told.steps["verify"] == "succeeded"
    assert told.steps["rollback"] == "skipped"


async def test_what_was_prepared_for_a_task_that_had_ended_is_taken_back(
    workshop: Workshop, repair: Repair, keepers: Keepers
) -> None:
    before = workshop.seen()
    prepared = await repair(steps=["analyze", "patch", "build"])
    told = Told()
    settler = workshop.settler(keepers, told)
    await settler.run_once()
    said_before = list(told.reports)

    settler.settle(Settle(task_id=prepared.task_id, attempt=1))
    await settler.run_once()

    assert said_before == []
    assert told.steps["rollback"] == "skipped"
    assert workshop.unit.end is End.UNTOUCHED
    assert workshop.worktrees() == []
    assert workshop.seen() == before


async def test_undoing_that_fails_is_tried_again_and_given_up_at_last(
    workshop: Workshop, repair: Repair, keepers: Keepers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agents.repairs.unit.MOST_TRIES", 3)
    broken = workshop.bin / "docker-compose"
    script = broken.read_text()
    await repair(patch=CRASHES)
    workshop.store.write(workshop.unit.changed(end=None, handed_over=False, restored_without=None))
    broken.write_text("#!/bin/sh\necho no longer here >&2\nexit 1\n")
    told = Told()
    settler = workshop.settler(keepers, told)

    ends: list[End | None] = []
    for _ in range(3):
        await settler.run_once()
        ends.append(workshop.unit.end)
    broken.write_text(script)

    assert ends == [None, None, End.IN_PART]
    assert told.reports[-1].status is StepStatus.FAILED
    assert "Try 3 failed." in told.message("rollback")
    assert "no longer here" in told.message("rollback")
    assert told.message("rollback").endswith("This host gives up.")


async def test_a_service_that_is_being_repaired_is_left_alone(
    workshop: Workshop, repair: Repair, keepers: Keepers
) -> None:
    await repair(patch=CRASHES)
    workshop.store.write(workshop.unit.changed(end=None, handed_over=False))

    with workshop.store.holding(KEY):
        await workshop.settler(keepers, Told()).run_once()

    assert workshop.unit.end is None


async def test_a_state_that_cannot_be_read_does_not_keep_others_from_their_end(
    workshop: Workshop, repair: Repair, keepers: Keepers
) -> None:
    await repair(patch=CRASHES)
    workshop.store.write(workshop.unit.changed(end=None, handed_over=False, stage=Stage.RESTARTED))
    (workshop.store.folder / "aaa.json").write_text("{torn")

    await workshop.settler(keepers, Told()).run_once()

    assert workshop.unit.end is End.ROLLED_BACK
    assert (workshop.store.folder / "aaa.json").exists()


async def test_a_service_whose_state_cannot_be_written_does_not_keep_others_from_their_end(
    workshop: Workshop, repair: Repair, keepers: Keepers, monkeypatch: pytest.MonkeyPatch
) -> None:
    await repair(patch=CRASHES)
    left = workshop.unit.changed(end=None, handed_over=False)
    workshop.store.write(left)
    workshop.store.write(left.changed(service="aaa"))
    write = Store.write

    def refuse(store: Store, unit: Unit) -> None:
        if unit.service == "aaa":
            raise OSError(28, "No space left on device")
        write(store, unit)

    monkeypatch.setattr(Store, "write", refuse)
    await workshop.settler(keepers, Told()).run_once()

    assert workshop.unit.end is End.ROLLED_BACK


async def test_a_worktree_goes_also_when_its_workspace_is_gone(workshop: Workshop, repair: Repair) -> None:
    await repair(steps=["analyze", "patch", "build"])
    shutil.move(workshop.workspace, workshop.folder / "elsewhere")

    done = await repair()

    assert "is no directory of this host" in done.told.message("analyze")
    assert not workshop.store.worktree(KEY).exists()


async def test_a_host_that_never_repaired_anything_has_nothing_to_do(workshop: Workshop, keepers: Keepers) -> None:
    told = Told()

    await workshop.settler(keepers, told).run_once()

    assert told.reports == []
    assert not workshop.store.folder.exists()


async def test_it_looks_by_itself_and_when_it_is_asked(workshop: Workshop, repair: Repair, keepers: Keepers) -> None:
    told = Told()
    settler: Settler = workshop.settler(keepers, told)
    settler._every = timedelta(minutes=10)
    running: asyncio.Task[Any] = asyncio.create_task(settler.run())
    try:
        settler.settle(Settle(task_id=uuid4(), attempt=1))
        await eventually(lambda: told.steps == {"rollback": "skipped"})
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
