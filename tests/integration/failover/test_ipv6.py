"""A server that is reached over IPv6 only."""

import json
import socket
from contextlib import aclosing
from pathlib import Path
from uuid import uuid4

import pytest

from common.config import SharedSettings
from common.urls import each_host, hide_password, place, without_secrets
from tests.acceptance.deployment import chiffon, dispatch, up
from tests.integration.system.deployment import open_system

HOST = "::1"


@pytest.mark.parametrize(
    ("host", "wanted"), [("::1", "[::1]:8420"), ("db.example", "db.example:8420"), ("10.0.0.1", "10.0.0.1:8420")]
)
def test_an_ipv6_address_stands_in_brackets(host: str, wanted: str) -> None:
    assert place(host, 8420) == wanted


@pytest.mark.parametrize(
    ("url", "wanted"),
    [
        ("amqp://u:p@one:1,two:2/v?heartbeat=5", ["amqp://u:p@one:1/v?heartbeat=5", "amqp://u:p@two:2/v?heartbeat=5"]),
        ("postgresql://u@[::1]:1,[fe80::2]/db", ["postgresql://u@[::1]:1/db", "postgresql://u@[fe80::2]/db"]),
        ("postgresql://postgres@/db?host=/run/a", ["postgresql://postgres@/db?host=/run/a"]),
    ],
)
def test_a_url_of_several_hosts_is_one_url_for_each(url: str, wanted: list[str]) -> None:
    assert list(each_host(url)) == wanted


def test_what_is_shown_of_a_url_holds_no_secret() -> None:
    url = "amqp://ann:se%40cret@one:1,two:2/v?password=other"

    assert without_secrets(url) == "amqp://one:1,two:2/v"
    assert hide_password("se@cret or se%40cret was refused", url) == "*** or *** was refused"


async def test_an_orchestrator_on_ipv6_serves_rest_websockets_agents_and_the_command_line(
    amqp_url: str, ledger_url: str, tmp_path: Path
) -> None:
    assert socket.has_ipv6
    async with open_system(amqp_url, ledger_url, tmp_path, host=HOST) as system:
        server = system.client.base_url
        assert server.startswith("http://[::1]:")
        await system.start_agent(shared=SharedSettings(), server_url=server)
        task_id = uuid4()

        await system.client.dispatch("echo", {"message": "over IPv6"}, task_id=task_id)

        [task] = await system.finished(task_id)
        assert task.output == "over IPv6"
        async with aclosing(system.client.watch(task_id=task_id, after=0)) as events:
            async for event in events:
                if event.kind == "task.completed":
                    break
        status, out, err = await chiffon("status", str(task_id), "-o", "json", "--server", server)
        assert (status, json.loads(out)["status"], err) == (0, "completed", "")


async def test_everything_starts_on_ipv6() -> None:
    async with up("--agents", "1", CHIFFON_HOST=HOST) as running:
        assert running.url.startswith("http://[::1]:")

        status, task = await dispatch(running.url, "echo", "hi")

        assert (status, task["status"]) == (0, "completed")
