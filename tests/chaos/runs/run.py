"""Make repairs until so many processes were killed in the middle of them, and judge each."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.chaos import ledger as ledgers
from tests.chaos.checks import chain_broken, event_gaps
from tests.chaos.evidence import Evidence, Violation
from tests.chaos.runs.carry import Carrying
from tests.chaos.runs.checks import violations
from tests.chaos.runs.evidence import Carried
from tests.chaos.runs.plan import Repair
from tests.chaos.runs.report import story
from tests.chaos.runs.world import LEASE_SECONDS, World, open_world
from tests.chaos.world import Services
from tests.services.docker import DockerDaemon

Say = Callable[[str], None]


@dataclass
class Finished:
    """What was carried out, and what was not as promised."""

    carried: list[Carried] = field(default_factory=list)
    found: list[Violation] = field(default_factory=list)

    @property
    def kills(self) -> int:
        return sum(len(one.kills) for one in self.carried)


@asynccontextmanager
async def open_docker() -> AsyncIterator[DockerDaemon]:
    """Run a docker whose containers outlive its daemon, so that a killed one is no reason for them to stop."""
    daemon = await asyncio.to_thread(DockerDaemon, keeps_running=True)
    try:
        yield daemon
    finally:
        await asyncio.to_thread(daemon.stop)


async def run(
    plan: Iterator[Repair],
    kills: int | None,
    folder: Path,
    services: Services,
    daemon: DockerDaemon,
    *,
    lease_seconds: int = LEASE_SECONDS,
    say: Say,
) -> Finished:
    """Carry out the repairs of a plan until `kills` were made, all of them without that number.

    A world in which something was not as promised is left for another one, and its folder has the story.
    """
    finished, number = Finished(), 0
    repair = next(plan, None)
    worlds = 0
    while repair is not None and (kills is None or finished.kills < kills):
        worlds += 1
        async with open_world(folder / f"world-{worlds}", services, daemon, lease_seconds=lease_seconds) as world:
            is_sound = True
            while is_sound and repair is not None and (kills is None or finished.kills < kills):
                number += 1
                carried = await Carrying(world, number, repair).run()
                found = violations(carried)
                finished.carried.append(carried)
                finished.found += found
                say(f"{number:4} {carried.status:11} {carried.seconds:5.1f} s  {_shown(carried)}")
                if found:
                    is_sound = False
                    text = story(carried, found)
                    say(text)
                    (world.folder / "story.txt").write_text(text)
                repair = next(plan, None)
            finished.found += await _of_ledger(world)
    return finished


async def _of_ledger(world: World) -> Sequence[Violation]:
    ledger = await ledgers.read_ledger(world.database_url)
    evidence = Evidence(world.history, [], ledger, [])
    return [*event_gaps(evidence), *chain_broken(evidence)]


def _shown(carried: Carried) -> str:
    hits = "; ".join(f"{made.kill.victim} {made.hit}" for made in carried.kills)
    return f"{carried.repair}  →  {hits or 'never came there'}"
