"""A full disk, a damaged file, a broker or docker that is away: a repair ends verified or rolled back all the same."""

import asyncio
import errno
import json
import os
import shutil
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from agents.attempts.stopping import StopReason, StopSignal
from agents.processes.keepers import Keepers
from agents.repairs import log, outbox, store
from agents.repairs import unit as steps
from agents.repairs.docker import Compose
from agents.repairs.failures import StepFailed
from agents.repairs.log import Secrets, StepLog, TaskOutput
from agents.repairs.outbox import Outbox
from agents.repairs.programs import Programs
from agents.repairs.state import ROLLBACK, End, Unit
from agents.repairs.store import Store
from agents.repairs.work import Work
from common.messages import ResultStatus, Stream
from common.orders import Settle
from tests.unit.agents.repairs.conftest import Repair
from tests.unit.agents.repairs.workshop import COMPOSE, FIRST, KEY, SECOND, Told, Workshop, diff_of, git

NOTES = {"diff": diff_of("app.txt", FIRST, SECOND) + diff_of("deep/notes.txt", "a note\n", "another\n")}


@pytest.fixture
def breaks(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], None]:
    """Have the service turn out not to work, after something has happened to the host."""

    def replace(happens: Callable[[], object]) -> None:
        async def verify(_work: Work) -> str:
            happens()
            raise StepFailed("It does not work.")

        monkeypatch.setattr(steps, "STEPS", {**steps.STEPS, "verify": verify})

    return replace


Breaks = Callable[[Callable[[], object]], None]


class Disk:
    """The disk with the state directory, which can be full."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.is_full = False
        self._monkeypatch = monkeypatch
        for module, writer in ((store, "write_file"), (outbox, "write_file"), (log, "write_all")):
            self._watch(module, writer)
        self._watch(tempfile, "TemporaryFile")

    def fill(self) -> None:
        self.is_full = True

    def _watch(self, module: Any, writer: str) -> None:
        write = getattr(module, writer)

        def watched(*given: Any, **named: Any) -> Any:
            if self.is_full:
                raise OSError(errno.ENOSPC, "No space left on device")
            return write(*given, **named)

        self._monkeypatch.setattr(module, writer, watched)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


def use_image(workshop: Workshop, name: str) -> None:
    """Have the service use an image as it is, which is there by this name."""
    compose = {"services": {**COMPOSE["services"], "web": {"image": name}}}
    (workshop.workspace / "docker-compose.yml").write_text(json.dumps(compose))
    git(workshop.workspace, "commit", "--quiet", "--all", "--message=uses an image")
    played = workshop.played
    workshop.play(names={**played["names"], name: played["names"]["shop_web:latest"]})


def name_another(workshop: Workshop, name: str) -> None:
    """Have somebody have built an image of the service that does not run yet."""
    played = workshop.played
    workshop.play(images={**played["images"], "sha256:ci": "newer"}, names={**played["names"], name: "sha256:ci"})


def forget_steps_of_end(workshop: Workshop) -> Unit:
    """Put the service's repair back to the moment in which it was verified, and return it."""
    unit = workshop.unit
    Outbox(workshop.store.folder).forget(unit.task_id, unit.attempt)
    reports = [report for report in unit.reports if report.name != ROLLBACK]
    workshop.store.write(unit.changed(reports=reports, handed_over=False))
    return unit


async def test_a_service_whose_image_is_pinned_by_its_digest_is_rolled_back(
    workshop: Workshop, repair: Repair, breaks: Breaks
) -> None:
    use_image(workshop, "registry/web@sha256:pinned")
    before = workshop.seen()
    breaks(lambda: None)

    done = await repair()

    assert done.told.steps["rollback"] == "succeeded", done.told.message("rollback")
    assert workshop.seen() == before


async def test_a_directory_that_became_a_link_does_not_keep_the_containers_from_being_restored(
    workshop: Workshop, repair: Repair, breaks: Breaks
) -> None:
    before = workshop.seen()

    def replace_by_link() -> None:
        (workshop.workspace / "deep").rename(workshop.folder / "elsewhere")
        (workshop.workspace / "deep").symlink_to(workshop.folder / "elsewhere")

    breaks(replace_by_link)

    done = await repair(patch=NOTES)

    assert workshop.unit.end is End.IN_PART
    assert "deep/notes.txt" in done.told.message("rollback")
    assert (workshop.workspace / "app.txt").read_text() == FIRST
    assert workshop.seen().services == before.services


async def test_a_file_that_cannot_be_written_is_restored_later_and_all_else_at_once(
    workshop: Workshop, repair: Repair, keepers: Keepers, breaks: Breaks
) -> None:
    before = workshop.seen()
    kept = workshop.store.folder / f"{KEY}.before"
    breaks(lambda: kept.rename(kept.with_suffix(".away")))

    await repair(patch=NOTES)
    meanwhile, tried = workshop.seen(), workshop.unit
    made = workshop.played["made"]
    await workshop.settler(keepers, Told()).run_once()
    made_while_it_stays = workshop.played["made"] - made
    kept.with_suffix(".away").rename(kept)
    await workshop.settler(keepers, Told()).run_once()

    assert (tried.end, tried.tries) == (None, 1)
    assert meanwhile.services == before.services
    assert made_while_it_stays == 0
    assert workshop.unit.end is End.ROLLED_BACK
    assert workshop.seen() == before
    # Made anew once more: what they read of the files at their start has changed.
    assert workshop.played["made"] == made + 1


async def test_a_full_disk_does_not_keep_a_service_from_being_rolled_back(
    workshop: Workshop, repair: Repair, keepers: Keepers, breaks: Breaks, disk: Disk
) -> None:
    before = workshop.seen()
    breaks(disk.fill)
    settler = workshop.settler(keepers, Told())

    done = await repair()
    after = workshop.seen()
    await settler.run_once()
    made = workshop.played["made"]
    await settler.run_once()
    made_again = workshop.played["made"] - made
    disk.is_full = False
    await settler.run_once()

    assert done.outcome.status is ResultStatus.FAILED
    assert done.told.steps["rollback"] == "succeeded"
    assert after == before
    assert made_again == 0
    assert workshop.unit.end is End.ROLLED_BACK
    assert [ended.task_id for ended in Outbox(workshop.store.folder).all()] == [done.task_id]


async def test_a_repair_is_verified_also_when_its_end_cannot_be_handed_over_yet(
    workshop: Workshop, repair: Repair, keepers: Keepers, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Store.write

    def written(store: Store, unit: Unit) -> None:
        write(store, unit)
        disk.is_full = disk.is_full or unit.end is End.VERIFIED

    monkeypatch.setattr(Store, "write", written)

    done = await repair()
    disk.is_full = False
    monkeypatch.undo()
    told = Told()
    await workshop.settler(keepers, told).run_once()

    assert done.outcome.status is ResultStatus.COMPLETED
    assert told.steps["rollback"] == "skipped"


async def test_a_broker_that_is_away_holds_up_nothing_that_touches_what_runs(
    workshop: Workshop, repair: Repair, breaks: Breaks
) -> None:
    before, told = workshop.seen(), Told()
    breaks(lambda: None)

    async def write(_stream: Stream, _data: bytes) -> None:
        if "restart" in told.steps:
            await asyncio.Event().wait()

    async with asyncio.timeout(30):
        done = await repair(told=told, context={"write": write})

    assert done.told.steps["rollback"] == "succeeded"
    assert workshop.seen() == before
    assert b"restarted shop_web_1" in done.told.kept["restart.log"][1]


async def test_a_stop_is_heard_while_the_output_of_a_build_waits_for_the_broker(
    workshop: Workshop, repair: Repair
) -> None:
    before, told, stop = workshop.seen(), Told(), StopSignal()

    async def write(_stream: Stream, _data: bytes) -> None:
        if "build" in told.steps:
            stop.order(StopReason.LEASE_LOST, grace=10)
            await asyncio.Event().wait()

    async with asyncio.timeout(30):
        done = await repair(told=told, stop=stop, context={"write": write})

    assert done.told.steps["rollback"] == "skipped"
    assert workshop.seen() == before


async def test_a_program_ends_at_its_limit_while_its_output_waits_for_the_broker(
    keepers: Keepers, tmp_path: Path
) -> None:
    async def write(_stream: Stream, data: bytes) -> None:
        if data == b"begun\n":
            await asyncio.Event().wait()

    programs = Programs(keepers, {"PATH": "/usr/bin:/bin"}, tmp_path, stop=StopSignal(), kill_grace=0.1)
    async with TaskOutput(write, StopSignal()) as output, asyncio.timeout(30):
        said = StepLog(tmp_path / "build.log", Secrets({}), output)
        with pytest.raises(StepFailed, match="took longer than 1 seconds"):
            await programs.run(["sh", "-c", "echo begun; sleep 600"], cwd=tmp_path, seconds=1, log=said)


async def test_what_was_prepared_is_taken_back_also_when_its_logs_are_gone(
    workshop: Workshop, repair: Repair, keepers: Keepers
) -> None:
    prepared = await repair(steps=["analyze", "patch", "build"])
    shutil.rmtree(workshop.store.logs(KEY))
    settler = workshop.settler(keepers, Told())

    settler.settle(Settle(task_id=prepared.task_id, attempt=1))
    await settler.run_once()

    assert workshop.unit.end is End.UNTOUCHED
    assert b"rolling back" in (workshop.store.logs(KEY) / "rollback.log").read_bytes()


async def test_what_cannot_be_taken_back_keeps_no_other_from_its_answer(
    workshop: Workshop, repair: Repair, keepers: Keepers, disk: Disk
) -> None:
    prepared = await repair(steps=["analyze", "patch", "build"])
    told = Told()
    settler = workshop.settler(keepers, told)
    disk.fill()

    for task_id in (prepared.task_id, uuid4(), uuid4(), uuid4()):
        settler.settle(Settle(task_id=task_id, attempt=1))
    await settler.run_once()

    assert [report.message for report in told.reports] == ["The repair never began on this host."] * 3
    assert workshop.unit.end is End.PREPARED


async def test_a_repair_whose_state_cannot_be_read_is_not_said_to_have_never_begun(
    workshop: Workshop, repair: Repair, keepers: Keepers
) -> None:
    done = await repair()
    unit, told = workshop.unit, Told()
    Outbox(workshop.store.folder).forget(unit.task_id, unit.attempt)
    (workshop.store.folder / f"{KEY}.json").write_text("{torn")
    settler = workshop.settler(keepers, told)

    settler.settle(Settle(task_id=done.task_id, attempt=1))
    await settler.run_once()

    assert told.steps == {"rollback": "failed"}
    assert "it is not known how the last repair of the service stands" in told.message("rollback")


async def test_the_image_that_had_the_name_is_kept_while_another_has_it(
    workshop: Workshop, repair: Repair, breaks: Breaks
) -> None:
    name_another(workshop, "shop_web:latest")
    before = workshop.seen()

    def prune() -> None:
        played = workshop.played
        used = {*played["names"].values(), *(one["image"] for one in played["containers"])}
        workshop.play(images={image: content for image, content in played["images"].items() if image in used})

    breaks(prune)

    done = await repair()

    assert done.told.steps["rollback"] == "succeeded", done.told.message("rollback")
    assert workshop.seen() == before


async def test_an_image_that_is_gone_keeps_no_service_from_its_end(
    workshop: Workshop, repair: Repair, breaks: Breaks
) -> None:
    name_another(workshop, "shop_web:latest")

    def remove() -> None:
        played = workshop.played
        images = {image: content for image, content in played["images"].items() if image != "sha256:ci"}
        names = {name: image for name, image in played["names"].items() if image != "sha256:ci"}
        workshop.play(images=images, names=names)

    breaks(remove)

    done = await repair()

    assert done.told.steps["rollback"] == "succeeded", done.told.message("rollback")
    assert "shop_web:latest" not in workshop.seen().names
    assert b"is gone" in done.told.kept["rollback.log"][1]


async def test_containers_that_are_back_are_not_made_anew_because_of_a_name(
    workshop: Workshop, repair: Repair, keepers: Keepers, breaks: Breaks, monkeypatch: pytest.MonkeyPatch
) -> None:
    name_another(workshop, "shop_web:latest")
    before = workshop.seen()
    breaks(lambda: None)

    async def refuse(*_: object) -> None:
        raise StepFailed("Docker cannot give the name back.")

    with monkeypatch.context() as patched:
        patched.setattr("agents.repairs.rollback._give_back", refuse)
        await repair()
    is_open, made = workshop.unit.end is None, workshop.played["made"]
    await workshop.settler(keepers, Told()).run_once()

    assert is_open
    assert workshop.unit.end is End.ROLLED_BACK
    assert workshop.played["made"] == made
    assert workshop.seen() == before


async def test_a_name_that_the_patch_did_not_know_is_given_back_when_undoing_was_cut_off(
    workshop: Workshop, repair: Repair, keepers: Keepers, breaks: Breaks, monkeypatch: pytest.MonkeyPatch
) -> None:
    name_another(workshop, "shop_web:latest")
    before, up = workshop.seen(), Compose.up
    renamed = json.dumps({"services": {**COMPOSE["services"], "web": {"build": ".", "image": "shop/new:1"}}})

    async def end(*_: object, **__: object) -> None:
        raise asyncio.CancelledError

    breaks(lambda: monkeypatch.setattr(Compose, "up", end))

    with pytest.raises(asyncio.CancelledError):
        await repair(patch={"commands": [["/bin/sh", "-c", f"echo '{renamed}' > docker-compose.yml"]]})
    was_open = workshop.unit.end is None
    monkeypatch.setattr(Compose, "up", up)
    await workshop.settler(keepers, Told()).run_once()

    assert was_open
    assert workshop.unit.end is End.ROLLED_BACK
    assert workshop.seen() == before


async def test_a_service_that_is_in_order_is_not_locked_by_a_look_at_it(
    workshop: Workshop, repair: Repair, keepers: Keepers
) -> None:
    await repair()
    settler = workshop.settler(keepers, Told())
    (workshop.store.folder / f"{KEY}.lock").unlink()

    await settler.run_once()

    assert not (workshop.store.folder / f"{KEY}.lock").exists()


async def test_an_end_that_is_on_its_way_is_not_sent_once_more(
    workshop: Workshop, repair: Repair, keepers: Keepers, monkeypatch: pytest.MonkeyPatch
) -> None:
    await repair()
    settler = workshop.settler(keepers, Told())
    sent: list[asyncio.Future[None]] = []

    def report(*_: object) -> "asyncio.Future[None]":
        sent.append(asyncio.get_running_loop().create_future())
        return sent[-1]

    monkeypatch.setattr(settler, "_report", report)
    for _ in range(3):
        await settler.run_once()
    while_away = len(sent)
    sent[0].set_result(None)
    await settler.run_once()

    assert (while_away, len(sent)) == (1, 2)


async def test_the_settler_is_awaited_while_it_undoes_and_begins_nothing_more(
    workshop: Workshop, repair: Repair, keepers: Keepers, breaks: Breaks, monkeypatch: pytest.MonkeyPatch
) -> None:
    breaks(lambda: None)
    await repair()
    left = workshop.unit.changed(end=None, handed_over=False)
    workshop.store.write(left)
    begun, release, undone = asyncio.Event(), asyncio.Event(), list[str]()

    async def take_back(work: Work, _cause: str) -> Unit:
        begun.set()
        await release.wait()
        undone.append(work.unit.service)
        return work.unit

    monkeypatch.setattr("agents.repairs.settler.take_back", take_back)
    settler = workshop.settler(keepers, Told())
    looking = asyncio.create_task(settler.run_once())
    await begun.wait()
    leaving = asyncio.create_task(settler.leave(within=60))
    await asyncio.sleep(0)
    is_waiting = not leaving.done()
    release.set()
    await leaving
    undone_before_it_left = list(undone)
    await looking
    await settler.run_once()

    assert is_waiting
    assert undone_before_it_left == ["web"]
    assert undone == ["web"]


async def test_a_pipe_in_place_of_a_file_of_variables_holds_nothing_up(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / ".env")
    pipe = os.open(tmp_path / ".env", os.O_RDWR)
    os.write(pipe, b"API_TOKEN=correct-horse\n")
    # Whoever waits for the end of the pipe gets it, late.
    closing = threading.Timer(5, os.close, [pipe])
    closing.start()
    secrets = Secrets({})

    await asyncio.to_thread(secrets.learn, tmp_path)
    is_held_up = not closing.is_alive()
    closing.cancel()
    closing.join()

    assert not is_held_up
    assert secrets.hidden("correct-horse") == "correct-horse"
    os.close(pipe)


async def test_a_docker_that_stays_away_is_said_once(
    workshop: Workshop, repair: Repair, keepers: Keepers, breaks: Breaks
) -> None:
    breaks((workshop.docker / "away").touch)
    done = await repair()
    told = Told()
    text = (workshop.store.logs(KEY) / "rollback.log").read_bytes()

    await workshop.settler(keepers, told).run_once()

    message = done.told.message("rollback")
    assert message.startswith("Docker does not answer: Cannot connect")
    assert message.endswith("This host tries again.")
    assert told.reports == []
    assert (workshop.store.logs(KEY) / "rollback.log").read_bytes() == text
    assert workshop.unit.end is None


async def test_a_verified_repair_that_was_not_handed_over_has_all_its_steps_when_the_next_begins(
    workshop: Workshop, repair: Repair
) -> None:
    await repair()
    first = forget_steps_of_end(workshop)

    second = await repair(patch={"diff": diff_of("app.txt", SECOND, FIRST)})

    waiting = {ended.task_id: ended.reports for ended in Outbox(workshop.store.folder).all()}
    assert [(one.name, one.status) for one in waiting[first.task_id]][-1] == (ROLLBACK, "skipped")
    assert [report.name for report in second.told.reports].count(ROLLBACK) == 1


async def test_what_a_program_says_to_people_is_bounded_too(
    keepers: Keepers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agents.repairs.programs.MOST_OUTPUT_BYTES", 1000)
    programs = Programs(keepers, {"PATH": "/usr/bin:/bin"}, tmp_path)

    with pytest.raises(StepFailed, match="wrote more than 1000 bytes"):
        await programs.run(["sh", "-c", "while :; do echo more >&2; done"], cwd=tmp_path, seconds=20)
