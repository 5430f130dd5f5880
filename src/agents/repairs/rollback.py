"""Take a repair back: only what was done, in a way that can be repeated after a crash at any point."""

import asyncio

from agents.repairs import files
from agents.repairs.docker import Docker
from agents.repairs.failures import StepFailed
from agents.repairs.log import StepLog
from agents.repairs.rules import (
    Part,
    Restore,
    Standing,
    Verdict,
    back_as_before,
    has_touched,
    named,
    pause_before,
    restore_of,
    undo_of,
    was_up,
)
from agents.repairs.state import End, Touched
from agents.repairs.store import BEFORE
from agents.repairs.work import Work

LONGEST_PAUSE = 2.0
UNTOUCHED = "Only a copy of the files was changed, and it is gone; nothing that runs was touched."


async def roll_back(work: Work, log: StepLog) -> tuple[End, str]:
    """Undo what the repair has done; return how it ended by that, and in words. Raises `StepFailed` to be repeated.

    Files that somebody else has changed meanwhile are left as they are, and named. Files that cannot be restored keep
    nothing else from being undone.
    """
    parts = undo_of(work.unit.stage)
    if not parts:
        return End.UNTOUCHED, "Nothing had been changed."
    said, left, failed = [], list[str](), dict[str, str]()
    if Part.FILES in parts:
        left, failed = await asyncio.to_thread(_restore_files, work)
        said.append("The files are as before." if not left else f"Somebody else has changed {named(left)} meanwhile.")
    if Part.CONTAINER in parts:
        said.append(await _restore_containers(work, log, without=sorted(failed)))
    elif Part.IMAGE in parts:
        await _restore_names(work, work.docker(lasts=True), log)
        said.append("The service was not restarted.")
    if Part.WORKTREE in parts:
        await work.git(lasts=True).remove_worktree(work.tree)
    if failed:
        raise StepFailed(f"{named(sorted(failed))} cannot be restored: {next(iter(failed.values()))}.")
    if not has_touched(work.unit.stage):
        await log.say(UNTOUCHED)
        return End.UNTOUCHED, UNTOUCHED
    for sentence in said:
        await log.say(sentence)
    return (End.IN_PART if left else End.ROLLED_BACK), " ".join(said)


def _restore_files(work: Work) -> tuple[list[str], dict[str, str]]:
    """Restore the files that are as the repair wrote them. Blocking.

    Return those that somebody else has changed, and why the host could not restore others.
    """
    left, failed = list[str](), dict[str, str]()
    for one in work.unit.files:
        try:
            if not _restore_file(work, one):
                left.append(one.path)
        except StepFailed:  # it is a link or a directory now, or lies behind a link
            left.append(one.path)
        except OSError as error:
            failed[one.path] = error.strerror or str(error)
    files.remove_folders(work.workspace, work.unit.made_folders)
    return left, failed


def _restore_file(work: Work, one: Touched) -> bool:
    """Restore a file; return False when somebody else has changed it. Raises `OSError` and `StepFailed`."""
    files.remove_draft(work.workspace, one.path)
    found = files.look_at(work.workspace, one.path)
    match restore_of(None if found is None else found[0], one):
        case Restore.WRITE:
            assert one.before is not None
            data = work.store.saved(work.unit.key, BEFORE, one.before.sha256)
            files.write(work.workspace, one.path, one.before, data)
        case Restore.REMOVE:
            files.remove(work.workspace, one.path)
        case Restore.LEAVE:
            return False
        case Restore.NOTHING:
            pass
    return True


async def _restore_containers(work: Work, log: StepLog, *, without: list[str]) -> str:
    """Have the service run its previous image again, or not at all, as before.

    Containers that are back are made anew only when they began `without` other files than are missing now.
    """
    unit, docker = work.unit, work.docker(lasts=True)
    project, service = unit.profile.project, unit.service
    if not unit.containers:
        made = [one.id for one in await docker.containers(project, service)]
        if made:
            await docker.remove(made)
        await _restore_names(work, docker, log)
        return "The service has no container, as before."
    verdict = back_as_before(unit, await docker.containers(project, service))
    if unit.restored_without != without or verdict.standing is not Standing.GOOD:
        verdict = await _make_containers(work, docker, log)
        await work.note(restored_without=without)
    if work.unit.named_before != unit.image_before:
        await _give_back(docker, work.unit.image_name, work.unit.named_before, log)
    return verdict.text


async def _make_containers(work: Work, docker: Docker, log: StepLog) -> Verdict:
    """Make the containers anew, of the previous image, and wait until they are what they were."""
    unit = work.unit
    compose = await work.compose(lasts=True)
    name = await work.image_name(compose)
    if name != unit.image_name:  # the patch had changed the name
        await _restore_names(work, docker, log)
        await work.note(image_name=name, named_before=await docker.image_id(name))
    if unit.image_before is not None:
        await _give_name(docker, name, unit.image_before)
    await compose.up(log, number=len(unit.containers), is_started=was_up(unit))
    now = await docker.containers(unit.profile.project, unit.service)
    made = [one.id for one in now if one.image != unit.image_before]
    if made:
        await docker.remove(made)
    return await _until_back(work, docker)


async def _restore_names(work: Work, docker: Docker, log: StepLog) -> None:
    """Give the name of the image back to the one that had it, unless somebody else has given it away meanwhile."""
    unit = work.unit
    if unit.image_name and await docker.image_id(unit.image_name) in (unit.candidate, unit.image_before):
        await _give_back(docker, unit.image_name, unit.named_before, log)


async def _give_back(docker: Docker, name: str, image: str | None, log: StepLog) -> None:
    """Have a name mean what it meant before the repair, or nothing when that image is gone."""
    if image is not None and await docker.image_id(image) is None:
        await log.say(f"the image {image}, which was called {name}, is gone")
        image = None
    await _give_name(docker, name, image)


async def _give_name(docker: Docker, name: str, image: str | None) -> None:
    """Have a name mean an image, or none. One with a digest never means anything else, and docker gives it to none."""
    if "@" in name or await docker.image_id(name) == image:
        return
    if image is None:
        await docker.untag(name)
    else:
        await docker.tag(image, name)


async def _until_back(work: Work, docker: Docker) -> Verdict:
    """Wait until the containers are what they were. Raises `StepFailed` when that takes too long."""
    unit, now = work.unit, asyncio.get_running_loop().time
    over_at = now() + unit.profile.restart_timeout_seconds
    number = 0
    while True:
        verdict = back_as_before(unit, await docker.containers(unit.profile.project, unit.service))
        if verdict.standing is Standing.GOOD:
            return verdict
        if now() >= over_at:
            raise StepFailed(verdict.text)
        await asyncio.sleep(pause_before(number, LONGEST_PAUSE))
        number += 1
