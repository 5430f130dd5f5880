"""A short run: one repair, real processes, each of which is killed in the middle of it, and no promise broken."""

from pathlib import Path

import pytest

from tests.chaos.runs.plan import Change, Kill, Moment, Point, Repair, Victim
from tests.chaos.runs.run import open_docker, run
from tests.chaos.world import Services

REPAIR = Repair(
    Change.ENDS_AT_ONCE,
    is_shown=True,
    kills=(
        Kill(Victim.ORCHESTRATOR, Point("analyze", Moment.BEFORE, "docker", "version"), 0.2),
        Kill(Victim.BROKER, Point("analyze", Moment.BEFORE, "docker-compose", "config"), 0.2),
        Kill(Victim.DOCKERD, Point("restart", Moment.DURING, "docker-compose", "up"), 0.2),
        Kill(Victim.AGENT, Point("rollback", Moment.AFTER, "docker-compose", "up"), 0.2),
    ),
)


# Installing docker, where it is missing, takes longer than a test may.
@pytest.mark.timeout(900)
@pytest.mark.xdist_group("chaos")
async def test_a_repair_is_rolled_back_though_every_process_is_killed(services: Services, tmp_path: Path) -> None:
    async with open_docker() as daemon:
        finished = await run(iter([REPAIR]), None, tmp_path, services, daemon, lease_seconds=60, say=print)

    assert not finished.found, finished.found
    [carried] = finished.carried
    assert [made.kill for made in carried.kills] == list(REPAIR.kills)
    assert (carried.status, carried.state["end"]) == ("rolled_back", "rolled_back")
    assert carried.is_own_state
