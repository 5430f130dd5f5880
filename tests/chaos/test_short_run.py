"""A short run of everything: real processes, a fixed list of faults, and no promise broken."""

from pathlib import Path

import pytest

from tests.chaos import report
from tests.chaos.plan import HTTP_AGENT, Fault, Settings
from tests.chaos.run import run

SEED = 7
PLAN = (
    Fault("agent.kill", "agent-1", 1.0, 1.0),
    Fault("broker.close_connections", "broker", 3.0, 0.0),
    Fault("orchestrator.kill", "orchestrator-1", 5.0, 1.0),
    Fault("postgres.crash", "postgres", 9.0, 0.5),
    Fault("link.half_open", "agent-4", 11.0, 4.0),
    Fault("broker.kill", "broker", 13.0, 0.2),
    Fault("agent.kill", "agent-4", 18.0, 0.5),
    Fault("agent.pause", "agent-2", 20.0, 7.0),
    Fault("link.drop_to_agent", "agent-1", 21.0, 4.0),
    Fault("network.partition", "agent-3", 22.0, 4.0),
    Fault("postgres.commit_reply_lost", "orchestrator-2", 27.0, 2.0),
)


@pytest.mark.timeout(300)
async def test_whatever_fails_every_promise_holds(tmp_path: Path) -> None:
    finished = await run(
        SEED, 30.0, tmp_path / "world", settings=Settings(longest_work_seconds=9.0), plan=PLAN, say=print
    )

    figures = finished.figures
    print(report.table(figures))
    assert not finished.found, report.stories(finished.evidence, finished.found)
    assert not figures["faults_that_failed"]
    assert figures["tasks"]["answered"] > 20
    assert figures["tasks"]["started"] > 20
    assert any(one.agent == HTTP_AGENT for one in finished.evidence.runs)
    assert set(figures["faults"]) >= {fault.kind for fault in PLAN if not fault.kind.startswith("network.")}
