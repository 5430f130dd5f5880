"""An agent that enrolled works over RabbitMQ as a user of its own, believes the right keys, and can be shut out."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from agents.gate.trust import remember_keys
from agents.identity.credential import keep_credential
from agents.over_http.enrol import enrol as ask_to_enrol
from common.config import SharedSettings
from orchestrator.signing.directory import add_key
from tests.eventually import eventually
from tests.integration.system.rights import Account, Guarded, open_guarded
from tests.services.rabbitmq_node import Node


@pytest.fixture
async def signing(managed_rabbitmq: Node, ledger_url: str, tmp_path: Path) -> AsyncIterator[Guarded]:
    """A Chiffon that signs what it grants."""
    keys = tmp_path / "keys"
    keys.mkdir(mode=0o700)
    add_key(keys, signs_from=datetime.now(UTC))
    add_key(keys, signs_from=datetime.now(UTC))
    async with open_guarded(managed_rabbitmq, ledger_url, tmp_path, signing_keys_dir=keys) as opened:
        yield opened


async def chiffon(*words: str, **variables: str) -> tuple[str, str]:
    """Run a command; return what it printed and what it said."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "chiffon", *words),
        env={**os.environ, **variables},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    return out.decode(), err.decode()


async def enrolled(signing: Guarded, name: str) -> tuple[Account, Path]:
    """Do as an administrator does: name an agent, give it a user at RabbitMQ, and let its host enrol."""
    at = ("--server", f"http://127.0.0.1:{signing.system.settings.port}")
    token, said = await chiffon("agents", "enrol", name, "--type", "desktop", *at)
    [agent_id] = [UUID(word) for word in said.split() if len(word) == len(str(uuid4()))]
    state = signing.system.folder / name
    enrol = ("agent", "enrol", "--type", "desktop", "--state-dir", str(state), *at)
    await chiffon(*enrol, CHIFFON_ENROLMENT_TOKEN=token.strip())
    return await signing.rabbit.add_agent("desktop", agent_id), state


async def enrolled_quietly(signing: Guarded, name: str) -> tuple[Account, Path]:
    """Do what the commands of `enrolled` do, without them."""
    invited = await signing.system.client.invite_agent(name, "desktop")
    state = signing.system.folder / name
    got = await ask_to_enrol(signing.system.client.base_url, invited.token)
    keep_credential(state, got)
    remember_keys(state, "".join(got.trusted_keys).encode())
    return await signing.rabbit.add_agent("desktop", invited.agent_id), state


async def start(signing: Guarded, account: Account, state: Path) -> None:
    await signing.system.start_agent(
        shared=SharedSettings(broker_url=account.url), type="desktop", state_dir=state, signatures="required"
    )


async def test_an_enrolled_agent_works_over_rabbitmq_as_itself_and_runs_only_what_is_signed(signing: Guarded) -> None:
    account, state = await enrolled(signing, "web-1")
    await start(signing, account, state)
    task_id = uuid4()

    await signing.system.client.dispatch("shell_script", {"script": "echo signed"}, task_id=task_id)
    [task] = await signing.system.finished(task_id)

    assert (task.status, task.output, task.agent_id) == ("completed", "signed\n", account.agent_id)
    assert len(json.loads((state / "trusted_keys.json").read_text())["keys"]) == 2
    assert "token" in (state / "credential.json").read_text()
    assert await signing.system.dead_letters(0) == []


async def test_an_agent_over_rabbitmq_that_is_shut_out_stops_its_work_and_another_gets_it(
    signing: Guarded, tmp_path: Path
) -> None:
    account, state = await enrolled_quietly(signing, "web-1")
    await start(signing, account, state)
    client, task_id, first = signing.system.client, uuid4(), tmp_path / "first"
    script = f"if [ -e {first} ]; then echo second; else touch {first}; sleep 600; fi"
    await client.dispatch("shell_script", {"script": script}, task_id=task_id, max_attempts=2)
    await eventually(first.exists, timeout=30)

    [who] = [one for one in await client.identities() if one.agent_id == account.agent_id]
    await client.disable_identity(who.principal_id)
    await start(signing, *await enrolled_quietly(signing, "web-2"))
    [task] = await signing.system.finished(task_id, timeout=60)
    later = uuid4()
    await client.dispatch("shell_script", {"script": "true"}, task_id=later)
    [after] = await signing.system.finished(later)

    assert (task.status, task.output, task.attempt) == ("completed", "second\n", 2)
    assert account.agent_id not in {task.agent_id, after.agent_id}
