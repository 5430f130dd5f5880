"""Run the demonstration of repairs: a service that fails is repaired, then a change that breaks it is rolled back."""

import asyncio
from collections.abc import Collection, Sequence
from datetime import timedelta

import httpx2

from chiffon.cli.console import put
from chiffon.cli.run_follow import follow_run
from chiffon.client import Client
from chiffon.demo.compose_project import BYSTANDER, SCRIPT, SERVICE, Project
from common.http_client import client_options
from common.plans.status import RunStatus
from common.rest.artifacts import Artifact
from common.rest.runs import Run

KEPT_BY_A_REPAIR = ("patch.diff", "build.log", "verify.log")
KEPT_BY_A_ROLLBACK = (*KEPT_BY_A_REPAIR, "rollback.log")
OK = 200
# Artifacts arrive behind the end of their run.
STORED_WITHIN = timedelta(seconds=30)
PAUSE = 0.2


async def run_repairs(client: Client, project: Project) -> bool:
    """Repair the service of a project that was made, break it, show both live; say whether all went as expected."""
    state, _ = await project.container(SERVICE)
    clock_before = await project.container(BYSTANDER)
    first = await answer(project)
    put(f"{SERVICE} answers {first or 'nothing'}: its container is {state}. {BYSTANDER} is {clock_before[0]}.", "")

    put("1. Repair it: serve the site from where it is.", *_indented(project.repairing()), "")
    repaired, kept = await _repair(client, "Serve the site from where it is.", project.repairing(), KEPT_BY_A_REPAIR)
    fixed, second = project.script, await answer(project)
    put("", f"{SERVICE} answers {second or 'nothing'}. Kept: {_named(kept)}.")
    await project.commit("Serve the site from where it is")

    put("", "2. Break it: listen on another port. The host notices, and takes the change back.")
    put(*_indented(project.breaking()), "")
    broken, kept_then = await _repair(client, "Listen on another port.", project.breaking(), KEPT_BY_A_ROLLBACK)
    last, third = project.script, await answer(project)
    clock_after = await project.container(BYSTANDER)
    put("", f"{SERVICE} answers {third or 'nothing'}, and {SCRIPT} is {'as before' if last == fixed else 'changed'}.")
    put(f"{BYSTANDER} is {clock_after[0]}, since {clock_after[1]}. Kept: {_named(kept_then)}.", "")

    expected = {
        f"{SERVICE} was to fail at first": first != OK,
        f"the first run was to succeed, and is {_ended(repaired)}": repaired.status == RunStatus.SUCCEEDED,
        f"{SERVICE} was to answer {OK} once it was repaired": second == OK,
        f"the second run was to be rolled back, and is {_ended(broken)}": broken.status == RunStatus.ROLLED_BACK,
        f"{SERVICE} was to answer {OK} after the rollback": third == OK,
        f"{SCRIPT} was to be as before after the rollback": last == fixed,
        f"{BYSTANDER} was to run on untouched": clock_after == clock_before and clock_before[0] == "running",
        f"the first run was to keep {', '.join(KEPT_BY_A_REPAIR)}": _are_stored(kept, KEPT_BY_A_REPAIR),
        f"the second run was to keep {', '.join(KEPT_BY_A_ROLLBACK)}": _are_stored(kept_then, KEPT_BY_A_ROLLBACK),
    }
    complaints = [what for what, holds in expected.items() if not holds]
    put(*(f"NOT AS EXPECTED: {complaint}" for complaint in complaints))
    if not complaints:
        put(f"As expected: repaired, then rolled back, and {BYSTANDER} was not touched.")
    return not complaints


async def answer(project: Project) -> int | None:
    """Return the status that the service answers; None when it does not answer."""
    async with httpx2.AsyncClient(timeout=5, **client_options(project.url)) as client:
        try:
            return (await client.get("/")).status_code
        except httpx2.TransportError:
            return None


async def _repair(client: Client, instruction: str, diff: str, kept: Sequence[str]) -> tuple[Run, list[Artifact]]:
    """Return how a repair ended that was shown live, and what it kept."""
    accepted = await client.repair(SERVICE, instruction, diff=diff)
    ended = await follow_run(client, accepted.run_id, as_json=False, quiet=True, from_start=True)
    run = ended or await client.wait_for_run(accepted.run_id)
    found = await client.artifacts(run_id=run.run_id)
    try:
        async with asyncio.timeout(STORED_WITHIN.total_seconds()):
            while not _are_stored(found, kept):
                await asyncio.sleep(PAUSE)
                found = await client.artifacts(run_id=run.run_id)
    except TimeoutError:
        pass
    return run, found


def _are_stored(artifacts: Collection[Artifact], names: Collection[str]) -> bool:
    return set(names) <= {one.name for one in artifacts if one.stored_at is not None}


def _named(artifacts: Sequence[Artifact]) -> str:
    return ", ".join(f"{one.path} ({one.size} bytes)" for one in artifacts) or "nothing"


def _ended(run: Run) -> str:
    return f"{run.status} ({run.error_message or 'no reason'})"


def _indented(diff: str) -> list[str]:
    return [f"    {line}" for line in diff.splitlines()]
