"""A host decides for itself, whatever the orchestrator grants."""

import asyncio
from pathlib import Path

import pytest

from agents.main import run_agent
from agents.settings import AgentSettings
from common.broker.memory import MemoryBroker
from common.config import SharedSettings
from common.errors import ErrorCode
from common.messages import ResultStatus
from common.policy.read import InvalidPolicy
from tests.integration.agents.conftest import StartAgent
from tests.integration.agents.scripted_orchestrator import ScriptedOrchestrator

POLICY = """
version = 1

[[rule]]
name = "greetings"
work_type = "shell_script"
effect = "read"
allow = { executables = "/usr/bin/printf|printf" }
"""


async def test_what_the_hosts_own_policy_does_not_let_run_fails_and_nothing_of_it_runs(
    orchestrator: ScriptedOrchestrator, start_agent: StartAgent, tmp_path: Path
) -> None:
    (tmp_path / "policy.toml").write_text(POLICY)
    await start_agent(policy_file=tmp_path / "policy.toml")
    witness = tmp_path / "it-ran"

    allowed = await orchestrator.dispatch("shell_script", argv=["printf", "hello"])
    script = await orchestrator.shell(f"touch {witness}")
    hijacked = await orchestrator.dispatch("shell_script", argv=["printf", "x"], env={"LD_PRELOAD": str(witness)})
    unnamed = await orchestrator.dispatch("shell_script", argv=["printf", "x"], env={"GIT_CONFIG_COUNT": "1"})
    evil = await orchestrator.dispatch("shell_script", argv=["./printf", "x"])
    echo = await orchestrator.dispatch("echo", message="hello")

    assert (await orchestrator.ended(allowed)).status is ResultStatus.COMPLETED
    refused = {script: "scripts", hijacked: "LD_PRELOAD", unnamed: "GIT_CONFIG_COUNT", evil: "./printf", echo: "echo"}
    for task_id, reason in refused.items():
        result = await orchestrator.ended(task_id)
        assert (result.status, result.error_code) == (ResultStatus.FAILED, ErrorCode.POLICY_REFUSED)
        assert "own policy" in (result.error_message or "")
        assert reason in (result.error_message or "")
    assert not witness.exists()


@pytest.mark.parametrize("content", [None, "version = 1\n[[rule]]\nname = 'x'\neffect = 'maybe'\n"])
async def test_an_agent_whose_own_policy_cannot_be_used_does_not_start(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "policy.toml").write_text(content)
    settings = AgentSettings(state_dir=tmp_path / "agent", policy_file=tmp_path / "policy.toml")

    with pytest.raises(InvalidPolicy, match=r"policy\.toml"):
        await run_agent(settings, SharedSettings(broker_url="memory://"), broker=MemoryBroker(), stop=asyncio.Event())
