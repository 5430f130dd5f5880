"""Secrets of a host stay there: a whole Chiffon runs, fails and crashes, and none of them is anywhere afterwards."""

import asyncio
import json
from base64 import b64encode, urlsafe_b64encode
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus, urlsplit, urlunsplit
from uuid import UUID, uuid4

import httpx2
import pytest

from chiffon.client import Client
from tests.eventually import eventually
from tests.integration.agents.agent_process import agent_process
from tests.integration.system.process_agents import online
from tests.integration.system.processes import Server, server
from tests.integration.system.searching import Tap, every_file, every_row, found, needles, tapped

SECRETS = {
    "variable": 'canary-V4r1able+with/"quotes" and ü',
    "file": "canary-F1le\nof-two-long-lines-with-things",
    "command": "canary-C0mmand&what?it=prints",
    "request": "canary-R3quest-in-a-wrong-body",
    "database": "canary-D4tabase-password",
    "token": "chf_canaryTokenOfThirtyTwoCharacters00",
}
MARKER = "visible to everybody"

TELL = f"""
echo "{MARKER}"
echo "$VARIABLE"; echo "$FILE" >&2; echo "$COMMAND"
for before in "" x xx; do printf '%s%s' "$before" "$VARIABLE" | base64 -w0; echo; done
printf %s "$COMMAND" | head -c 9; sleep 0.05; printf %s "$COMMAND" | tail -c +10
echo; cat; printf 'token chf'; printf '_%s\n' {SECRETS["token"].removeprefix("chf_")}
"""


@pytest.fixture
async def orchestrator(amqp_url: str, ledger_url: str, tmp_path: Path) -> AsyncIterator[Server]:
    (tmp_path / "logs").mkdir()
    async with server(amqp_url, _with_password(ledger_url), tmp_path / "logs") as running:
        yield running


def _with_password(url: str) -> str:
    parts = urlsplit(url)
    location = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{parts.username or 'postgres'}:{SECRETS['database']}@{location}"))


def settings(tmp_path: Path) -> dict[str, Any]:
    """The settings of an agent that has every kind of secret; they lie outside of what is searched."""
    sources = tmp_path / "sources"
    sources.mkdir(exist_ok=True)
    for name in ("file", "command"):
        (sources / name).write_text(SECRETS[name])
    return {
        "secrets": json.dumps(
            {
                "variable": {"env": "CHIFFON_AGENT_CANARY"},
                "file": {"file": str(sources / "file")},
                "command": {"command": ["cat", str(sources / "command")]},
            }
        ),
        "canary": SECRETS["variable"],
        "keep_workspaces": False,
    }


async def dispatch(client: Client, script: str, **parameters: Any) -> UUID:
    task_id = uuid4()
    await client.dispatch(
        "shell_script",
        {
            "script": script,
            "env": {name.upper(): {"secret": name} for name in ("variable", "file", "command")},
            "stdin": {"secret": "variable"},
            **parameters,
        },
        task_id=task_id,
        max_attempts=2,
    )
    return task_id


async def error_bodies(client: Client) -> dict[str, bytes]:
    """Return the answers to requests that are wrong and carry a secret."""
    secret = SECRETS["request"]
    wrong = {
        "work_type": "shell_script",
        "parameters": {"script": "true", "env": {"A": secret, "1": secret}, "x": secret},
    }
    async with httpx2.AsyncClient(base_url=client.base_url) as http:
        answers = [
            await http.post("/api/v1/dispatch", json=wrong),
            await http.post("/api/v1/dispatch", json={"work_type": "shell_script", "parameters": {"argv": [[secret]]}}),
            await http.post("/api/v1/dispatch", json={"work_type": "echo", "parameters": {"message": {"a": secret}}}),
            await http.post("/api/v1/dispatch", json={"work_type": "echo", "request_id": secret, "extra": secret}),
            await http.post(
                "/api/v1/dispatch",
                content=f'{{"work_type": "{secret}'.encode(),
                headers={"Content-Type": "application/json"},
            ),
            await http.get("/api/v1/tasks", headers={"Authorization": f"Bearer {secret}"}),
            await http.post("/api/v1/dispatch", json=wrong, headers={"Cookie": f"session={secret}", "X-Token": secret}),
        ]
    assert {answer.status_code for answer in answers[:5]} <= {400, 422}
    return {f"answer {number}": answer.content for number, answer in enumerate(answers)}


async def run_and_crash(client: Client, url: str, state: Path, given: dict[str, Any], tap: Tap | None = None) -> None:
    """Have an agent do work of every end with secrets, and crash in the middle of some."""
    async with agent_process(url, state, lease_seconds=3, **given) as agent:
        [agent_id] = await online(client, state)
        if tap is not None:
            await tap.listen_to_work_of(agent_id)
        good, bad, slow = [
            await dispatch(client, TELL),
            await dispatch(client, TELL + "exit 3"),
            await dispatch(client, TELL + "sleep 60", max_duration_seconds=1.5),
        ]
        unknown = await dispatch(client, TELL, stdin={"secret": "nobody-has-it"})
        async with asyncio.timeout(60):
            ended = [await client.wait(task_id) for task_id in (good, bad, slow, unknown)]
        crashing = await dispatch(client, TELL + "sleep 60")
        await eventually(lambda: _has_written(client, crashing), timeout=20)
        await agent.kill()
    async with agent_process(url, state, lease_seconds=3, **given):
        await eventually(lambda: _is_known(client, crashing), timeout=20)
        await client.cancel(crashing)

    assert [(task.status, task.agent_id) for task in ended[:3]] == [
        (status, agent_id) for status in ("completed", "failed", "failed")
    ]
    assert (ended[3].status, ended[3].error_code) == ("failed", 3006)
    assert await _has_written(client, good)


async def test_no_secret_of_a_host_is_anywhere_else(
    orchestrator: Server, amqp_url: str, ledger_url: str, tmp_path: Path
) -> None:
    client, agents, given = orchestrator.client, tmp_path / "agents", settings(tmp_path)
    agents.mkdir()
    answers = await error_bodies(client)
    async with tapped(amqp_url) as tap:
        await run_and_crash(client, amqp_url, agents / "amqp", given, tap)
        await run_and_crash(client, client.base_url, agents / "http", given)
        messages = await tap.every_message()
    await orchestrator.terminate()

    places = {**answers, **await every_row(ledger_url), **every_file(tmp_path / "logs", agents), **messages}
    assert MARKER.encode() in b"".join(text for place, text in places.items() if place.startswith("table "))
    assert MARKER.encode() in messages["RabbitMQ"]
    assert b'"nobody-has-it"' in messages["RabbitMQ"]
    assert found(places, needles(SECRETS)) == []


async def _has_written(client: Client, task_id: UUID) -> bool:
    return MARKER in (await client.output(task_id)).text


async def _is_known(client: Client, task_id: UUID) -> bool:
    return (await client.status(task_id)).attempt > 1 or (await client.status(task_id)).status != "running"


def test_the_search_finds_a_secret_wherever_it_is_written(tmp_path: Path) -> None:
    secret = SECRETS["variable"]
    (tmp_path / "log").write_text(json.dumps({"event": secret}))
    shifted = b"x" + secret.encode() + b"y"

    places = {
        **every_file(tmp_path),
        "URL": quote(secret).encode(),
        "form": quote_plus(secret).encode(),
        "hexadecimal": shifted.hex().encode(),
        "base64": b64encode(shifted),
        "URL-safe base64": urlsafe_b64encode(shifted),
        "JSON of PHP": json.dumps(secret).replace("/", "\\/").encode(),
        "bytes of PostgreSQL": json.dumps(secret).encode().hex().encode(),
    }

    assert len(found(places, needles(SECRETS))) == len(places)
