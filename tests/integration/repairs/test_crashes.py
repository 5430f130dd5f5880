"""The agent's process or docker is killed in the middle of a repair: afterwards it is verified or rolled back.

The short form kills within some of the steps; with `CHIFFON_EXAMPLES` it is within all of them.
"""

import asyncio
import json
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest

from agents.processes.keepers import Keepers
from agents.repairs.state import End
from tests.eventually import eventually
from tests.fuzz.bounds import SEED, some
from tests.integration.repairs.shop import Shop
from tests.unit.agents.executing import Output
from tests.unit.agents.repairs.workshop import Told, carry_out

pytestmark = [pytest.mark.timeout(900), pytest.mark.xdist_group("docker")]

# Within so many steps the short form kills.
STEPS_OF_THE_AGENT, STEPS_OF_DOCKER = 1, 1
# Nothing of the workspace, and nothing that runs, is touched before `restart`.
BEFORE_IT_IS_TOUCHED = ("patch", "build")
BREAKS = "rm www/health; echo x > www/other"
# Each of these lasts long enough to be killed within it.
SLOW = {
    "patch": "echo pears > www/health; sleep 60",
    "build": "echo pears > www/health; echo 'echo it sleeps; sleep 60' >> build.sh",
    "restart": BREAKS,
    "verify": BREAKS,
    "rollback": BREAKS,
}


def step_of(shop: Shop) -> str | None:
    """Return the step that is under way, by what is on disk."""
    path = shop.store.folder / f"{shop.key}.json"
    reports: list[dict[str, Any]] = json.loads(path.read_text())["reports"] if path.exists() else []
    return next((one["name"] for one in reports if one["status"] == "in_progress"), None)


def is_within(shop: Shop, step: str) -> bool:
    """Return whether a step is under way, and has come to what lasts in it."""
    if step_of(shop) != step:
        return False
    log = shop.store.logs(shop.key) / f"{step}.log"
    lasting = {
        "patch": "sleep 60",
        "build": "it sleeps",
        "restart": "docker-compose",
        "verify": "\n",
        "rollback": "docker-compose",
    }
    return log.exists() and lasting[step] in log.read_text()


@asynccontextmanager
async def alone(shop: Shop, parameters: dict[str, Any]) -> AsyncIterator["subprocess.Popen[bytes]"]:
    process = shop.begin(parameters)
    try:
        yield process
    finally:
        process.kill()
        await asyncio.to_thread(process.wait)


async def put_in_order(shop: Shop, keepers: Keepers) -> Told:
    told = Told()
    settler = shop.settler(keepers, told)

    async def is_over() -> bool:
        await settler.run_once()
        return shop.unit.end is not None

    await eventually(is_over, timeout=120)
    return told


def parameters(shop: Shop, step: str) -> dict[str, Any]:
    return shop.parameters(SLOW[step], profile=shop.profile(healthcheck=shop.healthcheck(4)))


def ending_within(step: str) -> End:
    """Return how a repair ends that was cut off within a step."""
    return End.UNTOUCHED if step in BEFORE_IT_IS_TOUCHED else End.ROLLED_BACK


async def test_an_agent_that_is_killed_within_a_step_rolls_back_when_it_is_there_again(
    shop: Shop, keepers: Keepers
) -> None:
    print(f"CHIFFON_SEED={SEED}")
    for step in some(list(SLOW), STEPS_OF_THE_AGENT):
        before = shop.seen()
        async with alone(shop, parameters(shop, step)) as process:
            await eventually(partial(asyncio.to_thread, is_within, shop, step), timeout=60, every=0.05)
            process.send_signal(signal.SIGKILL)
            await asyncio.to_thread(process.wait)

        told = await put_in_order(shop, keepers)

        assert shop.unit.end is ending_within(step), step
        is_untouched = step in BEFORE_IT_IS_TOUCHED
        assert told.steps["rollback"] == ("skipped" if is_untouched else "succeeded"), (step, told.message("rollback"))
        assert shop.seen() == before, step


async def test_docker_that_is_killed_within_a_step_leaves_nothing_between(shop: Shop, keepers: Keepers) -> None:
    print(f"CHIFFON_SEED={SEED}")
    for step in some(["build", "restart", "verify"], STEPS_OF_DOCKER):
        before, told = shop.seen(), Told()
        context = shop.context(keepers, told, Output())
        running = asyncio.create_task(carry_out(shop.executor(), parameters(shop, step), context))
        await eventually(partial(asyncio.to_thread, is_within, shop, step), timeout=60, every=0.05)
        await asyncio.to_thread(shop.daemon.kill)
        await running
        await asyncio.to_thread(shop.daemon.start)
        # It has ended with its daemon, for it has no restart policy; its own start is not the repair's to undo.
        await asyncio.to_thread(shop.compose, "start", "db")

        await put_in_order(shop, keepers)

        after = shop.seen()
        assert shop.unit.end is ending_within(step), step
        assert (after.files, after.status, after.image) == (before.files, before.status, before.image), step
        assert [one.split()[0] for one in after.runs] == [before.image], step
