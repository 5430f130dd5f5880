"""`python -m bench.plans`: how long a plan of six steps takes, beside six tasks whose caller waits for each.

Over RabbitMQ and a durable PostgreSQL, in turns, with nothing else to do. The steps do nothing and each needs the one
before; the caller of the tasks dispatches each once the last one has ended. The caller is the Python client, as users
have it; and, to see what lies between at least, one that listens to a single WebSocket and asks nothing else. With
--json FILE writes the figures; exits with 1 when the client's plan takes more than 1.3 times as long as its tasks.
"""

import argparse
import asyncio
import json
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from statistics import median
from typing import Any, Protocol
from uuid import uuid4

from websockets.asyncio.client import ClientConnection, connect

from bench.caller import Caller, new_task
from bench.chiffon_server import Server, chiffon
from bench.programs import Place
from bench.services import services
from chiffon.client import Client

STEPS = 6
WARM_UP, ROUNDS = 20, 201
MOST_TIMES = 1.3
ENDS = ("task.completed", "run.status")
PLAN = {
    "steps": [
        {"name": f"step-{number}", "work_type": "echo", "parameters": {"message": "x"}} for number in range(STEPS)
    ]
}


class Side(Protocol):
    """Who has the six steps done."""

    async def plan(self) -> None:
        """Start a plan and wait for its end."""
        ...

    async def tasks(self) -> None:
        """Dispatch as many tasks, each when the one before has ended."""
        ...


class ByClient:
    """The Python client, which asks over REST what an event leaves out."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def plan(self) -> None:
        await self._client.wait_for_run((await self._client.start_run(PLAN)).run_id)

    async def tasks(self) -> None:
        for _ in range(STEPS):
            task = await self._client.dispatch("echo", {"message": "x"}, task_id=uuid4())
            await self._client.wait(task.task_id)


class ByEvents:
    """A caller that hears of ends over one WebSocket."""

    def __init__(self, caller: Caller, socket: ClientConnection) -> None:
        self._caller = caller
        self._socket = socket

    async def plan(self) -> None:
        run_id = str(uuid4())
        await self._caller.post("/api/v1/runs", {"run_id": run_id, "plan": PLAN})
        await self._heard({"run_id": run_id, "status": "succeeded"})

    async def tasks(self) -> None:
        for _ in range(STEPS):
            task = new_task()
            await self._caller.post("/api/v1/dispatch", task)
            await self._heard({"task_id": task["task_id"]})

    async def _heard(self, wanted: Mapping[str, object]) -> None:
        """Wait for the event that says this, by itself or in its data."""
        said: dict[str, object] = {}
        while not wanted.items() <= said.items():
            event = json.loads(await self._socket.recv())["event"]
            said = {**event["data"], **event}


async def run(folder: Path, rounds: int) -> dict[str, Any]:
    """Return how long each side took, in milliseconds, and the ratios of the medians."""
    async with AsyncExitStack() as stack:
        used = await stack.enter_async_context(services())
        place = Place(used.vhost(), await used.database(), folder)
        server = await stack.enter_async_context(chiffon(place))
        client = await stack.enter_async_context(Client(server.url, token=server.token))
        return {
            "steps": STEPS,
            "rounds": rounds,
            "goal": MOST_TIMES,
            "client": await _measured(ByClient(client), rounds),
            "events": await _measured(await _by_events(server, stack), rounds),
        }


async def _by_events(server: Server, stack: AsyncExitStack) -> ByEvents:
    caller = Caller(server.url, server.token)
    await caller.open()
    stack.push_async_callback(caller.close)
    url = server.url.replace("http://", "ws://", 1) + "/api/v1/ws?" + "&".join(f"type={kind}" for kind in ENDS)
    headers = {"authorization": f"Bearer {server.token}"}
    socket = await stack.enter_async_context(connect(url, additional_headers=headers, proxy=None))
    await socket.recv()
    return ByEvents(caller, socket)


async def _measured(side: Side, rounds: int) -> dict[str, Any]:
    seconds: dict[str, list[float]] = {"plan": [], "tasks": []}
    for number in range(WARM_UP + rounds):
        for name, work in (("plan", side.plan), ("tasks", side.tasks)):
            taken = await _seconds(work)
            if number >= WARM_UP:
                seconds[name].append(taken)
    middle = {name: median(found) for name, found in seconds.items()}
    return {
        "median_ms": {name: round(found * 1000, 2) for name, found in middle.items()},
        "range_ms": {
            name: [round(min(found) * 1000, 2), round(max(found) * 1000, 2)] for name, found in seconds.items()
        },
        "ratio": round(middle["plan"] / middle["tasks"], 3),
    }


async def _seconds(work: Callable[[], Awaitable[None]]) -> float:
    began = time.perf_counter()
    await work()
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    place = Path(tempfile.mkdtemp(prefix="chiffon-plans-"))
    place.chmod(0o711)  # PostgreSQL runs as a user of its own when this is root
    figures = asyncio.run(run(place, given.rounds))
    print(json.dumps(figures, indent=2))
    if given.json:
        given.json.write_text(json.dumps(figures, indent=2) + "\n")
    if figures["client"]["ratio"] > MOST_TIMES:
        raise SystemExit(f"bench.plans: missed: the plan must take at most {MOST_TIMES} times as long")


if __name__ == "__main__":
    main()
