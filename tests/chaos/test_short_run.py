"""A short run of everything: real processes, a fixed list of faults, and no promise broken."""

from pathlib import Path

import pytest

from tests.chaos import report
from tests.chaos.plan import HTTP_AGENT, Fault, Settings
from tests.chaos.run import run
from tests.chaos.world import Services

SEED = 7
SETTINGS = Settings(lease_seconds=3.0, kill_grace_seconds=0.5, longest_work_seconds=6.0)
PLAN = (
    Fault("agent.kill", "agent-1", 0.5, 0.5),
    Fault("broker.close_connections", "broker", 1.5, 0.0),
    Fault("orchestrator.kill", "orchestrator-1", 2.5, 0.5),
    Fault("postgres.crash", "postgres", 5.0, 0.5),
    Fault("link.half_open", "agent-4", 7.0, 3.0),
    Fault("broker.kill", "broker", 7.5, 0.2),
    Fault("agent.kill", "agent-4", 11.0, 0.5),
    Fault("agent.pause", "agent-2", 13.0, 4.5),
    Fault("link.drop_to_agent", "agent-1", 13.5, 3.0),
    Fault("network.partition", "agent-3", 14.0, 3.0),
    Fault("postgres.commit_reply_lost", "orchestrator-2", 15.5, 2.0),
)


@pytest.mark.timeout(300)
@pytest.mark.xdist_group("chaos")
async def test_whatever_fails_every_promise_holds(services: Services, tmp_path: Path) -> None:
    finished = await run(SEED, 18.0, tmp_path / "world", settings=SETTINGS, plan=PLAN, services=services, say=print)

    figures = finished.figures
    print(report.table(figures))
    assert not finished.found, report.stories(finished.evidence, finished.found)
    assert not figures["faults_that_failed"]
    assert figures["tasks"]["answered"] > 20
    assert figures["tasks"]["started"] > 20
    assert any(one.agent == HTTP_AGENT for one in finished.evidence.runs)
    assert set(figures["faults"]) >= {fault.kind for fault in PLAN if not fault.kind.startswith("network.")}
