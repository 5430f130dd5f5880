"""A policy that allows one program lets no other run: a real orchestrator, a real agent, and git."""

import subprocess
from pathlib import Path

import pytest

from chiffon.client import Client
from chiffon.errors import ApiError
from tests.integration.system.deployment import agent_here, open_system
from tests.integration.system.process_agents import ended, online

GIT_ONLY = """
version = 1

[[rule]]
name = "git"
work_type = "shell_script"
effect = "read"
allow = { executables = "git" }
"""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    subprocess.run(["git", "init", "--quiet", tmp_path / "repository"], check=True)
    return tmp_path / "repository"


async def attack(client: Client, repository: Path, witness: Path) -> str:
    """Have `git status` run another program by its configuration; return how that ended."""
    hook = {
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "core.fsmonitor",
        "GIT_CONFIG_VALUE_0": f"id > {witness}; false",
    }
    work = {"argv": ["git", "-C", str(repository), "status"], "env": hook}
    [task] = await ended(client, (await client.dispatch("shell_script", work)).task_id)
    return task.status


async def path_attack(client: Client, folder: Path, witness: Path) -> str:
    """Have another program run by the name of git; return what it wrote."""
    folder.mkdir()
    (folder / "git").write_text(f"#!/bin/sh\ntouch {witness}\n")
    (folder / "git").chmod(0o755)
    work = {"argv": ["git", "--version"], "env": {"PATH": str(folder)}}
    [task] = await ended(client, (await client.dispatch("shell_script", work)).task_id)
    return task.output or ""


async def test_where_the_policy_allows_git_only_nothing_else_runs(
    amqp_url: str, ledger_url: str, tmp_path: Path, repository: Path
) -> None:
    policy, witness = tmp_path / "policy.toml", tmp_path / "it-ran"
    policy.write_text(GIT_ONLY)
    async with (
        open_system(amqp_url, ledger_url, tmp_path, policy_file=policy) as running,
        agent_here(amqp_url, tmp_path / "agent"),
    ):
        await online(running.client, tmp_path / "agent")
        ordinary = {"argv": ["git", "-C", str(repository), "status"]}
        [task] = await ended(running.client, (await running.client.dispatch("shell_script", ordinary)).task_id)
        with pytest.raises(ApiError, match="GIT_CONFIG_COUNT") as by_configuration:
            await attack(running.client, repository, witness)
        with pytest.raises(ApiError, match="PATH") as by_path:
            await path_attack(running.client, tmp_path / "evil", witness)
        stored = await running.client.tasks()

    assert task.status == "completed"
    assert [refused.value.error_code for refused in (by_configuration, by_path)] == [3001, 3001]
    assert len(stored.items) == 1
    assert not witness.exists()


async def test_the_attack_is_real_where_anything_may_run_and_a_name_means_what_the_host_says(
    amqp_url: str, ledger_url: str, tmp_path: Path, repository: Path
) -> None:
    witness = tmp_path / "it-ran"
    async with open_system(amqp_url, ledger_url, tmp_path) as running, agent_here(amqp_url, tmp_path / "agent"):
        await online(running.client, tmp_path / "agent")
        status = await attack(running.client, repository, witness)
        has_run = witness.exists()
        witness.unlink(missing_ok=True)
        output = await path_attack(running.client, tmp_path / "evil", witness)

    assert (status, has_run) == ("completed", True)
    assert output.startswith("git version")
    assert not witness.exists()
