"""The steps that touch what runs: put the files and the image in place, restart the service, see that it works."""

import asyncio
from collections.abc import Sequence

from agents.repairs import files
from agents.repairs.docker import before_tag, named_tag
from agents.repairs.failures import DockerAway, StepFailed
from agents.repairs.log import StepLog
from agents.repairs.patching import check_commit
from agents.repairs.probe import LONGEST_REQUEST, Probe, open_probe
from agents.repairs.rules import Standing, Verdict, is_steady, judge, named, pause_before
from agents.repairs.state import Container, Stage, Touched
from agents.repairs.store import AFTER
from agents.repairs.work import Work

VERIFY_SECONDS = 120.0
# How long a service must work without a restart of its containers.
STEADY_SECONDS = 3.0
LONGEST_PAUSE = 2.0


async def restart(work: Work) -> str:
    """Put what was patched and built in place, and make the containers of the service anew.

    Once begun it is not interrupted: what is half done would have to be undone by guessing.
    """
    log, service, project = work.log("restart"), work.unit.service, work.unit.profile.project
    compose, docker = await work.compose(lasts=True), work.docker(lasts=True)
    await check_commit(work)
    await asyncio.to_thread(_check_unchanged, work)
    containers = await docker.containers(project, service)
    image = containers[0].image if containers else None
    if image is not None and image != work.unit.image_before:  # that the build of this task has kept
        await docker.tag(image, before_tag(work.unit.key))
    folders = await asyncio.to_thread(files.folders_missing, work.workspace, _made(work.unit.files))
    work.programs.check_stop()
    await work.note(stage=Stage.FILES, containers=containers, image_before=image, made_folders=folders)
    await asyncio.to_thread(_apply, work)
    for one in work.unit.files:
        await log.say(f"{'removed' if one.after is None else 'wrote'} {one.path}")
    name = await work.image_name(compose)
    named_before = await docker.image_id(name)
    if named_before not in (None, image):
        await docker.tag(named_before, named_tag(work.unit.key))
    await work.note(stage=Stage.IMAGE, image_name=name, named_before=named_before)
    if work.unit.candidate is not None:
        await docker.tag(work.unit.candidate, name)
        await log.say(f"{name} is now {work.unit.candidate}")
    await work.note(stage=Stage.CONTAINER)
    await compose.up(log, number=len(containers))
    now = ", ".join(await docker.names(project, service)) or "no container"
    await work.note(stage=Stage.RESTARTED)
    await log.say(f"restarted {now}")
    return f"Restarted {now}."


def _made(touched: Sequence[Touched]) -> list[str]:
    return [one.path for one in touched if one.before is None]


def _check_unchanged(work: Work) -> None:
    """Raise `StepFailed` when a file is not any more what it was when it was patched. Blocking."""
    changed = []
    for one in work.unit.files:
        found = files.look_at(work.workspace, one.path)
        is_same = found is None if one.before is None else found is not None and one.before.is_like(found[0])
        if not is_same:
            changed.append(one.path)
    if changed:
        raise StepFailed(f"Somebody has changed since the patch was made: {named(changed)}. Nothing was restarted.")


def _apply(work: Work) -> None:
    """Write the files into the workspace. Blocking."""
    for one in work.unit.files:
        if one.after is None:
            files.remove(work.workspace, one.path)
        else:
            data = work.store.saved(work.unit.key, AFTER, one.after.sha256)
            files.write(work.workspace, one.path, one.after, data)


async def verify(work: Work) -> str:
    """Wait until the containers run, are healthy, and the service answers as expected; raise when they do not."""
    log, check = work.log("verify"), work.unit.profile.healthcheck
    if check is None:
        await log.say("no request is configured that shows that the service works")
    async with open_probe(check) as probe:
        looks = _Looks(work, log, probe)
        await looks.until_good(VERIFY_SECONDS if check is None else check.timeout_seconds)
    if check is None:
        return f"{looks.text} No request was made: none is configured."
    return f"{looks.text} {check.method} {check.url} gave {check.expected_status}."


class _Looks:
    """Looks at a service again and again, ever more rarely, until all is well or too much time has passed."""

    def __init__(self, work: Work, log: StepLog, probe: Probe | None) -> None:
        self._work = work
        self._log = log
        self._probe = probe
        check = work.unit.profile.healthcheck
        self._longest_pause = LONGEST_PAUSE if check is None else check.interval_seconds
        self._since: tuple[float, list[Container]] | None = None
        self.text = ""

    async def until_good(self, seconds: float) -> None:
        """Raises `StepFailed` when it is bad, or not good in time."""
        now = asyncio.get_running_loop().time
        over_at = now() + seconds
        number = 0
        while True:
            longest = over_at if self._since is None else over_at + STEADY_SECONDS
            verdict = await self._look(left=longest - now())
            if verdict.text != self.text:
                await self._log.say(verdict.text)
            self.text = verdict.text
            if verdict.standing is Standing.GOOD:
                return
            if verdict.standing is Standing.BAD:
                raise StepFailed(verdict.text)
            # What works in time may show after it that this stays so.
            since = None if self._since is None else self._since[0]
            if now() >= over_at and (since is None or since > over_at):
                raise StepFailed(f"The service does not work after {seconds:g} seconds: {verdict.text}")
            decided_at = over_at if since is None else since + STEADY_SECONDS
            pause = pause_before(number, self._longest_pause)
            await self._work.programs.pause(max(0.0, min(pause, decided_at - now())))
            number += 1

    async def _look(self, *, left: float) -> Verdict:
        unit = self._work.unit
        try:
            containers = await self._work.docker().containers(unit.profile.project, unit.service)
        except DockerAway as problem:
            self._since = None
            return Verdict(Standing.WAIT, str(problem))
        verdict = judge(containers, image=unit.candidate, number=len(unit.containers))
        if verdict.standing is not Standing.GOOD:
            self._since = None
            return verdict
        if self._probe is not None:
            problem_of_answer = await self._ask(self._probe, left=left)
            if problem_of_answer is not None:
                self._since = None
                return Verdict(Standing.WAIT, problem_of_answer)
        return self._steady(containers, verdict)

    async def _ask(self, probe: Probe, *, left: float) -> str | None:
        """Make one request of the health check. Raises `Stopped` as soon as a stop is ordered."""
        asked = asyncio.create_task(probe.problem(within=left), name="health check")
        stopped = asyncio.create_task(self._work.programs.pause(2 * LONGEST_REQUEST), name="stop of a health check")
        try:
            await asyncio.wait({asked, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if stopped.done():
                await stopped
            return await asked
        finally:
            asked.cancel()
            stopped.cancel()

    def _steady(self, containers: list[Container], verdict: Verdict) -> Verdict:
        """Say whether the containers have run for a while without beginning anew."""
        now = asyncio.get_running_loop().time()
        if self._since is None or not is_steady(self._since[1], containers):
            self._since = now, containers
        if now - self._since[0] < STEADY_SECONDS:
            return Verdict(Standing.WAIT, f"{verdict.text} It is seen whether that stays so.")
        return verdict
