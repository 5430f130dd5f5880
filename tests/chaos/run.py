"""One run: load and faults, then healing, then silence, then judgement."""

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import asyncpg

from tests.chaos import ledger as ledgers
from tests.chaos import logs, report
from tests.chaos.checks import violations
from tests.chaos.evidence import Evidence, Violation
from tests.chaos.follower import Follower
from tests.chaos.history import History
from tests.chaos.journal import read_journal
from tests.chaos.ledger import Ledger, read_ledger
from tests.chaos.nemesis import Nemesis
from tests.chaos.plan import Fault, Settings, make_plan
from tests.chaos.witnesses import read_witnesses, waiting_results
from tests.chaos.workload import Workload
from tests.chaos.world import Services, World, open_world

LOOK_SECONDS = 0.25
LOAD_BEFORE_FAULTS = 2.0
LOAD_AFTER_FAULTS = 3.0

Say = Callable[[str], None]


@dataclass(frozen=True)
class Finished:
    """A run that is over."""

    evidence: Evidence
    found: Sequence[Violation]
    figures: dict[str, Any]


async def run(
    seed: int,
    seconds: float,
    folder: Path,
    *,
    settings: Settings | None = None,
    plan: Sequence[Fault] | None = None,
    services: Services | None = None,
    say: Say,
) -> Finished:
    """Make a run; without a `plan` the seed decides which faults there are, without `services` it starts its own."""
    settings = settings or Settings()
    history = History()
    async with open_world(settings, folder, history, seed=seed, services=services) as world:
        without = {"network"} if world.network is None else set()
        faults = make_plan(seed, seconds, settings, without=without) if plan is None else plan
        faults = [fault for fault in faults if fault.kind.split(".")[0] not in without]
        say(f"Everything runs in {folder}; {len(faults)} faults in {seconds:.0f} s …")
        follower = Follower(list(world.urls.values()))
        following = asyncio.create_task(follower.run(), name="follower")
        await _load(world, faults, seed, seconds)
        say("All faults have healed; waiting until every task is final …")
        settled = await _settle(world)
        ledger = await _caught_up(world, follower)
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        postgres = await ledgers.server_settings(world.database_url)
        rabbitmq = (await world.node.control("version")).strip()
        evidence = _collect(world, ledger, follower)
    found = violations(evidence)
    circumstances = report.Circumstances(
        seed, seconds, settled, postgres, rabbitmq, world.commits.swallowed, asdict(settings)
    )
    return Finished(evidence, found, report.figures(evidence, found, circumstances))


async def _load(world: World, faults: Sequence[Fault], seed: int, seconds: float) -> None:
    """Dispatch all the time while the faults are made, and a little before and after."""
    stop = asyncio.Event()
    workload = Workload(
        world.urls,
        world.journal,
        world.history,
        seed=seed,
        secret=world.secrets[2],
        settings=world.settings,
    )
    nemesis = Nemesis(world)
    async with asyncio.TaskGroup() as group:
        group.create_task(workload.run(stop), name="workload")
        await asyncio.sleep(LOAD_BEFORE_FAULTS)
        began = time.monotonic()
        await nemesis.run(faults)
        await asyncio.sleep(max(LOAD_AFTER_FAULTS, began + seconds - time.monotonic()))
        stop.set()
    await nemesis.recovered()


async def _settle(world: World) -> float | None:
    """Wait until every task is final and every result handed over; return how long that took, None if in vain."""
    began = time.monotonic()
    while time.monotonic() - began < world.settings.settle_seconds:
        with suppress(OSError, asyncpg.PostgresError, TimeoutError):
            if await ledgers.unfinished(world.database_url) == 0 and waiting_results(world.states) == 0:
                return time.monotonic() - began
        await asyncio.sleep(LOOK_SECONDS)
    return None


async def _caught_up(world: World, follower: Follower) -> Ledger:
    """Stop the agents, so that nothing more happens, let the follower see what has, and return what the ledger says."""
    await asyncio.gather(*(agent.stop() for agent in world.agents.values()))
    deadline = time.monotonic() + 15
    quiet_since, position = time.monotonic(), -1
    while True:
        ledger = await read_ledger(world.database_url)
        head = ledger.events[-1]["seq"] if ledger.events else 0
        if head != position:
            quiet_since, position = time.monotonic(), head
        is_caught_up = follower.position >= head and time.monotonic() - quiet_since > 1.0
        if is_caught_up or time.monotonic() > deadline:
            return ledger
        await asyncio.sleep(LOOK_SECONDS)


def _collect(world: World, ledger: Ledger, follower: Follower) -> Evidence:
    # The orchestrators go on, and may note after this look that an agent is gone.
    head = ledger.events[-1]["seq"] if ledger.events else 0
    return Evidence(
        world.history,
        read_journal(world.journal),
        ledger,
        [event for event in follower.seen if event[0] <= head],
        leaks=logs.leaks(world.logs, ledger, world.secrets),
        witnesses=read_witnesses(world.states),
        errors=logs.unexplained(world.logs),
        unsent=waiting_results(world.states),
    )
